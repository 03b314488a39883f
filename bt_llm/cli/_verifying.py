"""Stored verdicts asked again: how far a model is today from what it said."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from bt_llm.advice import json_sampling, read_contrast, read_json, read_logprobs
from bt_llm.cache import Question, Record, VerdictCache
from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.models import Backend, ModelConfig, Numerics, Progress, Prompt, kind_of
from bt_llm.plain_json import canonical_json
from bt_llm.verdicts import LabelSet, Verdict

__all__ = ["Drift", "Flip", "ask_again"]


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A verdict with another action than the stored one; actions by their names in lower case."""

    key: str
    stored: str
    now: str


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a model's answers are from the stored ones.

    Attributes
    ----------
    model, sha256 : str
        The model's name and hash.
    asked, same : int
        Verdicts asked again, and those that are the same to the last bit.
    largest : float
        Largest difference of a probability; 1 where an answer is readable on one side only.
    flipped : tuple of Flip
        Those with another action.
    not_asked : int
        Records that cannot be asked again: generated texts, JSON of another schema, and what a graphics
        processor has computed.
    """

    model: str
    sha256: str
    asked: int
    same: int
    largest: float
    flipped: tuple[Flip, ...]
    not_asked: int

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return dataclasses.asdict(self)


def ask_again(
    records: Sequence[Record],
    sha256: str,
    names: Sequence[str],
    n_threads: int | None = None,
    on_progress: Progress | None = None,
    *,
    trust: Callable[[Sequence[str]], bool] = lambda addresses: False,
) -> Drift:
    """Ask a model its stored questions again, past the cache, and compare.

    Parameters
    ----------
    records : sequence of Record
        All of that model.
    sha256 : str
        The model's identity.
    names : sequence of str
        Names it is known by, to find its file.
    n_threads : int, optional
        CPU threads.
    on_progress : callable, optional
        Called with (asked, to ask).
    trust : callable
        Given the addresses of servers that a name leads to, says whether they may be asked: names and
        addresses are what somebody has stored. None may be by default.

    Raises
    ------
    ModelNotFoundError
        If none of the names leads to a model of that hash.
    """
    stored = {record.key: record.verdict for record in records if _can_be_asked(record.question)}
    groups: dict[tuple[Any, ...], list[Question]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.question.prompt):  # neighbours share a prefix
        if record.key in stored:
            asked = record.question
            alike = asked.reader, stored[record.key].labels, asked.labels, asked.numerics
            groups[*alike, canonical_json(dict(asked.sampling))].append(asked)
    name, backend = _find_backend(sha256, names, records, n_threads, trust)
    now: dict[str, Verdict] = {}
    try:
        for questions in groups.values():
            for batch in _readings(backend, questions, stored[questions[0].key].labels):
                now.update(batch)
                if on_progress is not None:
                    on_progress(len(now), len(stored))
    finally:
        backend.close()
    return _compared(name, sha256, stored, now, len(records) - len(stored))


def _can_be_asked(question: Question) -> bool:
    if question.numerics not in get_args(Numerics):
        return False
    if question.reader == "json":
        return dict(question.sampling) == json_sampling(question.labels)
    return question.reader in ("logprobs", "contrast")


def _readings(backend: Backend, questions: list[Question], labels: LabelSet) -> Any:
    """Yield verdicts by key, batch by batch, on questions that differ in the prompt alone."""
    first, prompts = questions[0], [Prompt(question.prompt) for question in questions]
    numerics: Any = first.numerics
    if first.reader == "json":
        batches = read_json(backend, prompts, labels)
    elif first.reader == "contrast":
        named = Prompt(tuple(first.sampling["named"]))
        batches = read_contrast(backend, prompts, named, first.labels, labels, numerics)
    else:
        batches = read_logprobs(backend, prompts, first.labels, labels, numerics)
    done = 0
    for batch in batches:
        part = questions[done : done + len(batch)]
        done += len(batch)
        yield {q.key: reading[0] for q, reading in zip(part, batch, strict=True) if reading is not None}


def _find_backend(
    sha256: str,
    names: Sequence[str],
    records: Sequence[Record],
    n_threads: int | None,
    trust: Callable[[Sequence[str]], bool],
) -> tuple[str, Backend]:
    """Return a name and the backend behind it that has the very bytes of a hash."""
    forgetful = VerdictCache(mode="off")  # hashes the file anew
    for name in _names_to_ask(names, [record.provenance for record in records]):
        model = kind_of(name)
        if model.addresses and not trust(model.addresses):
            continue
        try:
            identity = model.identify(forgetful)
        except ModelNotFoundError:
            continue
        if identity.sha256 == sha256:
            return name, model.open(ModelConfig(model_path=name, n_threads=n_threads))
    shown = " or ".join(repr(name) for name in names) or "a model without a name"
    raise ModelNotFoundError(
        f"no model file {shown} with SHA-256 {sha256[:12]}: put it into models/, or verify another one"
    )


def _names_to_ask(names: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names to try, those in this process first; what is none, whoever stored it, is left out."""
    found: list[str] = []
    for name in names:
        with contextlib.suppress(ConfigError):
            asked = kind_of(name).names_to_ask(facts)
            found += [one for one in asked if kind_of(one)]
    return sorted(found, key=lambda one: bool(kind_of(one).addresses))


def _compared(
    name: str, sha256: str, stored: dict[str, Verdict], now: dict[str, Verdict], not_asked: int
) -> Drift:
    changes = {key: _change(stored[key], now[key]) for key in sorted(now)}
    flipped = tuple(
        Flip(key=key, stored=stored[key].answer, now=now[key].answer)
        for key in changes
        if stored[key].answer != now[key].answer
    )
    return Drift(
        model=name,
        sha256=sha256,
        asked=len(now),
        same=sum(change == 0 for change in changes.values()),
        largest=max(changes.values(), default=0.0),
        flipped=flipped,
        not_asked=not_asked,
    )


def _change(stored: Verdict, now: Verdict) -> float:
    if stored.valid != now.valid:
        return 1.0
    if not stored.valid:
        return 0.0
    return max(abs(a - b) for a, b in zip(stored.probabilities, now.probabilities, strict=True))
