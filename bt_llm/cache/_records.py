"""What is stored, and how it is read back: a question, and the record of its answer.

An answer is a `Verdict` or, to a question of the reader ``text``, a `GeneratedText`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_args

from bt_llm.exceptions import CacheCorruptError, ConfigError
from bt_llm.models import Numerics
from bt_llm.plain_json import canonical_json, read_back
from bt_llm.verdicts import Verdict

__all__ = [
    "GeneratedText",
    "Question",
    "Record",
    "StoredAnswer",
]

FORMAT = 1
"""Version of the question's document; another version gives other keys."""

INGREDIENTS = ("model_sha256", "chat_template_sha256", "prompt", "labels", "reader", "sampling", "numerics")
"""Names of what an answer is a function of."""

READERS = ("logprobs", "json", "contrast", "text")
TEXT = "text"
"""The reader whose answer is a text, not a verdict."""

_NUMERICS = re.compile(rf"({'|'.join(get_args(Numerics))})(:[a-z][a-z0-9_+-]*(:[0-9]+)?)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    r"""Everything an answer is a function of, and nothing else; its hash is the answer's key.

    Parameters
    ----------
    model_sha256, chat_template_sha256 : str
        `ModelIdentity.sha256` and `ModelIdentity.chat_template_sha256`.
    prompt : tuple of str
        Chunks of the rendered prompt, in the order they are decoded in.
    labels : tuple of str
        The words that are scored or chosen from, in their labels' order, two or more; none for ``text``.
    reader : {'logprobs', 'json', 'contrast', 'text'}
        How the verdict is read from the model; ``text`` keeps what it generates as it is.
    sampling : mapping
        Settings of the reader, as JSON values; empty for ``logprobs``, of ``contrast`` the prompt without the
        state, and for the others what shapes the text: schema, length limit, seed.
    numerics : str
        Which of llama.cpp's code paths computed it, ``canonical`` or ``fast``; and beside a processor what
        else, such as ``canonical:cuda`` or ``fast:vulkan:20`` for 20 layers.

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
    reader                     probabilities, generated JSON and plain text are different answers
    sampling                   a generated answer depends on its schema, length limit and seed
    numerics                   flash attention, repacked weights and graphics processors round differently
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
    temperature, top_p, top_k  nothing is sampled: ``logprobs`` reads, the others decode greedily
    llama.cpp build, CPU       they are provenance: stored beside, so that ``cache verify`` shows a drift
    calibration                it is applied to the raw verdict, after it is read
    names, worths of labels    the model is told words alone; what they are worth is applied afterwards
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
        fits = not self.labels if self.reader == TEXT else len(self.labels) > 1
        if not self.prompt or not fits or len(set(self.labels)) < len(self.labels):
            wanted = "none" if self.reader == TEXT else "2 up, all different,"
            raise ConfigError(
                f"labels={self.labels!r}, prompt of {len(self.prompt)} chunks: expected {wanted} and 1 up"
            )
        if self.reader not in READERS:
            raise ConfigError(f"reader={self.reader!r}: expected one of {', '.join(READERS)}")
        if not (isinstance(self.numerics, str) and _NUMERICS.fullmatch(self.numerics)):
            raise ConfigError(
                f"numerics={self.numerics!r}: expected one of {', '.join(get_args(Numerics))}, and a device "
                "if need be"
            )
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedText:
    """What a model wrote, as it wrote it; whoever asked reads it.

    Parameters
    ----------
    text : str
        The text; untrusted.
    finished : bool
        False when the length limit cut it off.
    cached : bool
        True when it came from disk. Not part of equality.
    model : str
        Name of the model that answered. Not part of equality.

    Raises
    ------
    ConfigError
        If a field has the wrong type.
    """

    text: str
    finished: bool
    cached: bool = field(default=False, compare=False)
    model: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check the types, once."""
        if not isinstance(self.text, str) or type(self.finished) is not bool:
            raise ConfigError(
                f"generated text {self.text!r:.40}, finished={self.finished!r}: expected text and a bool"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored, as JSON values."""
        return {"text": self.text, "finished": self.finished}

    def same_answer(self, other: object) -> bool:
        """Return whether a model wrote the same."""
        return self == other

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], **extra: Any) -> GeneratedText:
        """Read what `to_dict` wrote; the input is untrusted.

        Raises
        ------
        CacheCorruptError
            If anything but the known fields, of their types, is there.
        """
        if set(stored) != {"text", "finished"}:
            raise CacheCorruptError(f"stored text has the fields {sorted(stored)}; expected text, finished")
        try:
            return cls(text=stored["text"], finished=stored["finished"], **extra)
        except ConfigError as error:
            raise CacheCorruptError(f"stored answer: {error}") from error


StoredAnswer: TypeAlias = Verdict | GeneratedText
"""What can stand in a record; which of the two, the question's reader says."""


@dataclass(frozen=True, slots=True)
class Record:
    """A question, the model's answer to it, and where that came from.

    Parameters
    ----------
    question : Question
        What was asked.
    answer : Verdict or GeneratedText
        As the model gave it: a verdict raw, before any calibration; a text to the reader ``text``.
    provenance : mapping
        For audit, never part of the key: the model's name, llama.cpp build, CPU features, threads,
        tokens, milliseconds and the time it was written (ISO 8601, UTC), as JSON values.

    Raises
    ------
    ConfigError
        If the provenance is not made of JSON values, the answer is not of the reader's kind, or it has not
        as many labels as the question.
    """

    question: Question
    answer: StoredAnswer
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check that answer and question fit, and take a copy of the provenance."""
        if not isinstance(self.answer, _answer_kind(self.question)):
            raise ConfigError(
                f"answer of type {type(self.answer).__name__} to a question of reader "
                f"{self.question.reader!r}: expected {_answer_kind(self.question).__name__}"
            )
        if isinstance(self.answer, Verdict) and len(self.answer.labels) != len(self.question.labels):
            raise ConfigError(
                f"verdict on {self.answer.labels.names} to a question of the labels {self.question.labels}: "
                "expected as many"
            )
        object.__setattr__(self, "provenance", _plain("provenance", self.provenance))

    @property
    def key(self) -> str:
        """The question's key."""
        return self.question.key

    @property
    def verdict(self) -> Verdict:
        """The answer, where it is a verdict.

        Raises
        ------
        ConfigError
            If it is a text: see `question.reader` first.
        """
        if not isinstance(self.answer, Verdict):
            raise ConfigError(f"record {self.key[:12]} holds a generated text: expected a verdict")
        return self.answer

    @property
    def answer_name(self) -> str:
        """What the answer is called where it is stored: ``verdict`` or ``text``."""
        return _answer_name(self.question)

    @property
    def body(self) -> str:
        """What is stored: canonical JSON of the three parts."""
        parts = {
            "question": self.question.document,
            self.answer_name: self.answer.to_dict(),
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
        if not isinstance(content, dict) or not {"question", "provenance"} < set(content):
            raise CacheCorruptError("stored record: expected a question, an answer and a provenance")
        question = Question.from_document(content["question"])
        name = _answer_name(question)
        if set(content) != {"question", name, "provenance"}:
            raise CacheCorruptError(f"stored record: expected a question, a {name} and a provenance")
        if question.key != key:
            raise CacheCorruptError(f"the question stored under {key[:12]} has the key {question.key[:12]}")
        provenance, stored = content["provenance"], content[name]
        if not isinstance(provenance, dict) or not isinstance(stored, dict):
            raise CacheCorruptError(f"stored record: {name} and provenance must be objects")
        model = provenance.get("model")
        origin = {"cached": True, "model": model if isinstance(model, str) else ""}
        if question.reader == TEXT:
            return cls(question, GeneratedText.from_dict(stored, **origin), provenance)
        return cls(question, Verdict.from_dict(stored, words=question.labels, **origin), provenance)


def _answer_kind(question: Question) -> type[Verdict] | type[GeneratedText]:
    return GeneratedText if question.reader == TEXT else Verdict


def _answer_name(question: Question) -> str:
    return "text" if question.reader == TEXT else "verdict"


def _plain(name: str, values: Any) -> dict[str, Any]:
    """Return a deep copy of a mapping of JSON values, as reading it back would give it."""
    try:
        copy = dict(read_back(dict(values)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}={values!r}: expected a mapping of JSON values ({error})") from error
    if not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{name}={values!r}: expected names that are text")
    return copy
