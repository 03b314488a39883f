"""Readers: how a verdict is taken from a model. By the labels' probabilities, contrasted too, or as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from bt_llm.models import Backend, LabelScores, Numerics, Prompt
from bt_llm.plain_json import canonical_json
from bt_llm.verdicts import LabelSet, Verdict, contrasted

__all__ = [
    "JSON_SAMPLING",
    "LEAST_LABEL_MASS",
    "Reader",
    "contrast_sampling",
    "parse_verdict",
    "read_contrast",
    "read_json",
    "read_logprobs",
    "verdict_schema",
]

Reader = Literal["logprobs", "json", "contrast"]

LEAST_LABEL_MASS: Mapping[Reader, float] = {"logprobs": 0.05, "json": 0.0, "contrast": 0.05}
"""Share of the probability that the labels must hold together, by default.

After the shipped template SmolLM2-135M puts 0.22 to 0.46 on them, by state, and Gemma-3-270M about 0.9. Where
a model is read in the wrong place it is 0.007 (SmolLM2 through a chat endpoint, before ``Verdict:``) or 7e-9
(one that begins a thought). Above the floor the mass says little of how good answers are: Wiegreffe et al.
2023, "Increasing Probability Mass on Answer Choices Does Not Always Improve Accuracy". JSON has no mass.
"""

Reading = tuple[Verdict, Mapping[str, Any]]
"""A raw verdict, and what is worth writing beside it; None stands for a prompt that got no answer."""

MAX_REASON = 400
JSON_SAMPLING = {"max_tokens": 160, "seed": 0}
"""The JSON reader decodes greedily; these belong to a verdict's key."""


def read_logprobs(
    backend: Backend,
    prompts: Sequence[Prompt],
    continuations: Sequence[str],
    labels: LabelSet,
    numerics: Numerics,
) -> Iterator[list[Reading | None]]:
    """Yield verdicts read from the labels' log-probabilities, batch by batch.

    Parameters
    ----------
    backend : Backend
        Answers.
    prompts : sequence of Prompt
        Distinct prompts.
    continuations : sequence of str
        The labels' words as they follow a prompt.
    labels : LabelSet
        What the words mean.
    numerics : {'canonical', 'fast'}
        See the llama.cpp backend.
    """
    for batch in backend.score(prompts, continuations, numerics=numerics):
        yield [
            None
            if s is None
            else (_from_scores(s, labels), {"tokens": s.tokens, "milliseconds": s.milliseconds})
            for s in batch
        ]


def _from_scores(scores: LabelScores, labels: LabelSet) -> Verdict:
    """Normalise over the labels; scores that are not numbers make the verdict invalid."""
    top = max(scores.logprobs)
    if not math.isfinite(top) or any(math.isnan(value) for value in scores.logprobs):
        return Verdict.invalid(f"log-probabilities {scores.logprobs} are not numbers", labels=labels)
    weights = [math.exp(value - top) for value in scores.logprobs]
    total = math.fsum(weights)
    mass = min(1.0, math.exp(top) * total if scores.mass is None else scores.mass)
    return Verdict(labels=labels, probabilities=[weight / total for weight in weights], label_mass=mass)


def contrast_sampling(named: Prompt) -> dict[str, Any]:
    """Return what of the contrast reader belongs to a verdict's key: the prompt without the state."""
    return {"named": list(named.chunks)}


def read_contrast(
    backend: Backend,
    prompts: Sequence[Prompt],
    named: Prompt,
    continuations: Sequence[str],
    labels: LabelSet,
    numerics: Numerics,
) -> Iterator[list[Reading | None]]:
    """Yield verdicts less what one prompt without the state gets; see `bt_llm.verdicts.contrasted`.

    Parameters
    ----------
    named : Prompt
        Names market and time only; asked once, before the others.
    backend, prompts, continuations, labels, numerics
        As in `read_logprobs`.

    Notes
    -----
    The mass that is told is the least of the two prompts': both verdicts have to be on the labels.
    """
    [[first]] = read_logprobs(backend, [named], continuations, labels, numerics)
    for batch in read_logprobs(backend, prompts, continuations, labels, numerics):
        yield [None if one is None or first is None else (_less(one[0], first[0]), one[1]) for one in batch]


def _less(full: Verdict, named: Verdict) -> Verdict:
    return replace(contrasted(full, named), label_mass=min(full.label_mass, named.label_mass))


def verdict_schema(words: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a verdict in those words.

    The range is an enum and the text a pattern, because llama-cpp-python's grammars ignore `minimum` and
    `maximum` and let raw control characters into strings.
    """
    return {
        "type": "object",
        "properties": {
            "verdict": {"type": "string", "enum": list(words)},
            "confidence": {"enum": list(range(101))},
            "reason": {"type": "string", "pattern": rf'^[^"\\\x00-\x1F\x7F]{{0,{MAX_REASON}}}$'},
        },
        "required": ["verdict", "confidence", "reason"],
        "additionalProperties": False,
    }


def json_sampling(words: Sequence[str]) -> dict[str, Any]:
    """Return what of the JSON reader belongs to a verdict's key."""
    digest = hashlib.sha256(canonical_json(verdict_schema(words)).encode()).hexdigest()
    return {**JSON_SAMPLING, "schema_sha256": digest}


def read_json(
    backend: Backend, prompts: Sequence[Prompt], labels: LabelSet
) -> Iterator[list[Reading | None]]:
    """Yield verdicts with a reason, generated under a grammar, one by one."""
    for answer in backend.generate_json(prompts, verdict_schema(labels.words), **JSON_SAMPLING):
        if answer is None:
            yield [None]
            continue
        verdict = (
            parse_verdict(answer.text, labels)
            if answer.finished
            else Verdict.invalid("cut off by max_tokens", labels=labels)
        )
        yield [(verdict, {"tokens": answer.tokens, "milliseconds": answer.milliseconds})]


def parse_verdict(text: str, labels: LabelSet) -> Verdict:
    """Return the verdict in a JSON answer, or an INVALID one that says what is wrong with it; never raises.

    A confidence of c % on one of N labels means a probability of ``1/N + (1 - 1/N) * c/100`` for it and equal
    shares for the others: 0 % is knowing nothing, 100 % is certainty.

    Examples
    --------
    >>> from bt_llm.verdicts import DEFAULT_LABELS
    >>> parse_verdict('{"verdict": "Bearish", "confidence": 70, "reason": "weak"}', DEFAULT_LABELS).bearish
    0.8
    >>> parse_verdict("don't buy", DEFAULT_LABELS).answer
    'invalid'
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return Verdict.invalid("not JSON", labels=labels)
    if problem := _problem(answer, labels.words):
        return Verdict.invalid(problem, labels=labels)
    word, confidence, reason = answer["verdict"], answer["confidence"], answer["reason"]
    share = (100 - confidence) / (100 * len(labels))
    probabilities = [1.0 - (len(labels) - 1) * share if w == word else share for w in labels.words]
    printable = "".join(c if c.isprintable() else " " for c in reason)
    return Verdict(labels=labels, probabilities=probabilities, reason=printable)


def _problem(answer: Any, words: Sequence[str]) -> str:
    """Return what is wrong with an answer, or nothing."""
    if not isinstance(answer, dict) or set(answer) != {"verdict", "confidence", "reason"}:
        return "not an object of verdict, confidence and reason"
    word, confidence, reason = answer["verdict"], answer["confidence"], answer["reason"]
    if not isinstance(word, str) or word not in words:
        return "verdict is none of the labels"
    if type(confidence) is not int or not 0 <= confidence <= 100:
        return "confidence is not a whole number from 0 to 100"
    if not isinstance(reason, str) or len(reason) > MAX_REASON:
        return "reason is not text, or too long"
    return ""
