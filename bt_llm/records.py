"""What is stored, and how it is read back: a question, the record of its answer, who a model is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from bt_llm.backends.base import ModelIdentity, Numerics, canonical_json
from bt_llm.exceptions import CacheCorruptError, ConfigError
from bt_llm.store import strict_json
from bt_llm.verdict import Verdict

__all__ = ["Question", "Record", "checked_model", "model_document", "model_from_document"]

FORMAT = 1
"""Version of the question's document; another version gives other keys."""

INGREDIENTS = ("model_sha256", "chat_template_sha256", "prompt", "labels", "reader", "sampling", "numerics")
"""Names of what a verdict is a function of."""

READERS = ("logprobs", "json")

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    r"""Everything a verdict is a function of, and nothing else; its hash is the verdict's key.

    Parameters
    ----------
    model_sha256, chat_template_sha256 : str
        `ModelIdentity.sha256` and `ModelIdentity.chat_template_sha256`.
    prompt : tuple of str
        Chunks of the rendered prompt, in the order they are decoded in.
    labels : tuple of str
        The three labels, in the order bullish, neutral, bearish.
    reader : {'logprobs', 'json'}
        How the verdict is read from the model.
    sampling : mapping
        Settings of the reader, as JSON values; empty for ``logprobs``.
    numerics : {'canonical', 'fast'}
        Which of llama.cpp's code paths computed it.

    Raises
    ------
    ConfigError
        If an ingredient has the wrong type or form.

    Notes
    -----
    What is in the key, and why:

    =========================  ==========================================================================
    in                         because
    =========================  ==========================================================================
    format                     a later bt_llm that asks differently must not find these answers
    model_sha256               other weights, other answer; a name or a path can hide other weights
    chat_template_sha256       it wraps the prompt; a user can override what is in the GGUF
    prompt (its chunks)        the question itself; chunk boundaries change how sums are rounded
    labels                     their words are what is scored, and their order gives them meaning
    reader                     probabilities and generated JSON are two different answers
    sampling                   a generated answer depends on its schema, length limit and seed
    numerics                   flash attention and repacked weights round differently
    =========================  ==========================================================================

    What is not, and why:

    =========================  ==========================================================================
    out                        because
    =========================  ==========================================================================
    cash, commission, orders   the model is not told them: a change of broker must not ask again
    strategy, its parameters   they act on the verdict, after it
    date, ticker, price level  not in the prompt by default; when identified, they are in its text
    state numbers              the prompt has their buckets; two states of one bucket share a verdict
    template name and version  what they change is in the rendered prompt
    path, name of the model    the same bytes answer the same from everywhere
    threads, batch, KV cache   in canonical numerics they do not change one bit of the answer
    temperature, top_p, top_k  nothing is sampled: ``logprobs`` reads, ``json`` decodes greedily
    llama.cpp build, CPU       they are provenance: stored beside, so that ``cache verify`` shows a drift
    calibration                it is applied to the raw verdict, after it is read
    cache mode and folder      where an answer comes from does not change it
    =========================  ==========================================================================

    Examples
    --------
    >>> question = Question(
    ...     model_sha256="ab" * 32, chat_template_sha256="cd" * 32, prompt=("Trend: up\n", "Bias:"),
    ...     labels=("Bullish", "Neutral", "Bearish"), reader="logprobs", sampling={}, numerics="canonical",
    ... )
    >>> question.key[:12]
    '61379761d437'
    """

    model_sha256: str
    chat_template_sha256: str
    prompt: tuple[str, ...]
    labels: tuple[str, ...]
    reader: str
    sampling: Mapping[str, Any] = field(hash=False)
    numerics: str
    _key: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Check every ingredient, and take a copy of those that could change."""
        for name in ("model_sha256", "chat_template_sha256"):
            value = getattr(self, name)
            if not (isinstance(value, str) and _SHA256.fullmatch(value)):
                raise ConfigError(f"{name}={value!r}: expected 64 hex digits in lower case")
        for name in ("prompt", "labels"):
            texts = getattr(self, name)
            if isinstance(texts, str) or not all(isinstance(text, str) and text for text in texts):
                raise ConfigError(f"{name}={texts!r}: expected several texts, none of them empty")
            object.__setattr__(self, name, tuple(texts))
        if not self.prompt or len(set(self.labels)) != 3 or len(self.labels) != 3:
            raise ConfigError(
                f"labels={self.labels!r}, prompt of {len(self.prompt)} chunks: expected 3 and 1 up"
            )
        for name, choices in (("reader", READERS), ("numerics", get_args(Numerics))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}")
        if self.sampling or not isinstance(self.sampling, dict):
            object.__setattr__(self, "sampling", _plain("sampling", self.sampling))

    @property
    def document(self) -> dict[str, Any]:
        """The ingredients as JSON values, with the format's version."""
        return {
            "format": FORMAT,
            "model_sha256": self.model_sha256,
            "chat_template_sha256": self.chat_template_sha256,
            "prompt": list(self.prompt),
            "labels": list(self.labels),
            "reader": self.reader,
            "sampling": dict(self.sampling),
            "numerics": self.numerics,
        }

    @property
    def key(self) -> str:
        """SHA-256 of the document's canonical JSON, as 64 hex digits."""
        if not self._key:
            digest = hashlib.sha256(canonical_json(self.document).encode()).hexdigest()
            object.__setattr__(self, "_key", digest)
        return self._key

    @property
    def text(self) -> str:
        """The whole prompt."""
        return "".join(self.prompt)

    @classmethod
    def from_document(cls, document: Any) -> Question:
        """Read what `document` gave; the input is untrusted.

        Raises
        ------
        CacheCorruptError
            If anything but the known fields, of their types and forms, is there.
        """
        expected = {"format", *INGREDIENTS}
        if not isinstance(document, dict) or set(document) != expected:
            raise CacheCorruptError(f"stored question: expected the fields {', '.join(sorted(expected))}")
        if document["format"] != FORMAT:
            raise CacheCorruptError(f"stored question of format {document['format']!r}: expected {FORMAT}")
        if not isinstance(document["prompt"], list) or not isinstance(document["labels"], list):
            raise CacheCorruptError("stored question: prompt and labels must be lists")
        try:
            return cls(**{name: document[name] for name in INGREDIENTS})
        except (ConfigError, TypeError) as error:
            raise CacheCorruptError(f"stored question: {error}") from error

    def differs(self, other: Question) -> tuple[str, ...]:
        """Return the names of the ingredients that are not the same in another question."""
        return tuple(name for name in INGREDIENTS if getattr(self, name) != getattr(other, name))


@dataclass(frozen=True, slots=True)
class Record:
    """A question, the model's verdict on it, and where that came from.

    Parameters
    ----------
    question : Question
        What was asked.
    verdict : Verdict
        As the model gave it: raw, before any calibration.
    provenance : mapping
        For audit, never part of the key: the model's name, llama.cpp build, CPU features, threads,
        tokens, milliseconds and the time it was written (ISO 8601, UTC), as JSON values.

    Raises
    ------
    ConfigError
        If the provenance is not made of JSON values.
    """

    question: Question
    verdict: Verdict
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Take a copy of the provenance."""
        object.__setattr__(self, "provenance", _plain("provenance", self.provenance))

    @property
    def key(self) -> str:
        """The question's key."""
        return self.question.key

    @property
    def body(self) -> str:
        """What is stored: canonical JSON of the three parts."""
        parts = {
            "question": self.question.document,
            "verdict": self.verdict.to_dict(),
            "provenance": self.provenance,
        }
        return canonical_json(parts)

    @classmethod
    def from_content(cls, key: str, content: Any) -> Record:
        """Read what `body` gave and check that it answers `key`; the input is untrusted.

        Raises
        ------
        CacheCorruptError
            If a part is missing or wrong, or the question has another key.
        """
        if not isinstance(content, dict) or set(content) != {"question", "verdict", "provenance"}:
            raise CacheCorruptError("stored record: expected a question, a verdict and a provenance")
        question, verdict = Question.from_document(content["question"]), content["verdict"]
        if question.key != key:
            raise CacheCorruptError(f"the question stored under {key[:12]} has the key {question.key[:12]}")
        provenance = content["provenance"]
        if not isinstance(provenance, dict) or not isinstance(verdict, dict):
            raise CacheCorruptError("stored record: verdict and provenance must be objects")
        model = provenance.get("model")
        name = model if isinstance(model, str) else ""
        return cls(question, Verdict.from_dict(verdict, cached=True, model=name), provenance)


def model_document(identity: ModelIdentity, names: Sequence[str]) -> dict[str, Any]:
    """Return an identity as it is stored, under every name it is known by."""
    return {
        "names": sorted(names),
        "sha256": identity.sha256,
        "chat_template": identity.chat_template,
        "bos_token": identity.bos_token,
        "eos_token": identity.eos_token,
        "details": dict(identity.details),
    }


def model_from_document(document: Mapping[str, Any], name: str | None = None) -> ModelIdentity:
    """Return the identity of a checked document, under one of its names or the first."""
    texts = {field: document[field] for field in ("sha256", "chat_template", "bos_token", "eos_token")}
    return ModelIdentity(name=name or document["names"][0], details=document["details"], **texts)


def checked_model(sha256: str, document: Any) -> dict[str, Any]:
    """Return the stored document of a model; the input is untrusted."""
    texts = ("sha256", "chat_template", "bos_token", "eos_token")
    right = (
        isinstance(document, dict)
        and set(document) == {"names", "details", *texts}
        and all(isinstance(document[name], str) for name in texts)
        and isinstance(document["names"], list)
        and bool(document["names"])
        and all(isinstance(name, str) for name in document["names"])
        and isinstance(document["details"], dict)
        and document["sha256"] == sha256
    )
    if not right:
        raise CacheCorruptError(
            f"stored identity of model {sha256[:12]}: it is not one; import a pack or record again"
        )
    return dict(document)


def _plain(name: str, values: Any) -> dict[str, Any]:
    """Return a deep copy of a mapping of JSON values, as reading it back would give it."""
    try:
        plain = strict_json(canonical_json(dict(values)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}={values!r}: expected a mapping of JSON values ({error})") from error
    if not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{name}={values!r}: expected names that are text")
    return dict(plain)
