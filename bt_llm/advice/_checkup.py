"""Checkup: one model looked at closely: what it reads, what it says, and whether it says so twice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bt_llm.advice._advisor import Advisor
from bt_llm.advice._readers import read_logprobs
from bt_llm.exceptions import ConfigError, ModelError
from bt_llm.models import Backend, LlamaModel, Prompt
from bt_llm.settings import whole
from bt_llm.verdicts import LabelMasses, Verdict

__all__ = ["Checkup", "Piece", "checkup"]

Piece = tuple[int, str]
"""A token: its number in the vocabulary, and its text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkup:
    """What a model reads and says, asked afresh: nothing of it is stored.

    Attributes
    ----------
    model, sha256 : str
        Name and hash of who answers.
    details : mapping
        What is known of it.
    decoding : str
        Of a local model: ``tree`` (prompts share the lines they have in common), ``batches``, or ``one at a
        time``; empty for others.
    prompt : Prompt
        The first state's, as the model is asked.
    prompt_tokens : tuple of (int, str)
        Its tokens; empty where the model is not local.
    label_tokens : mapping of str to tuple of (int, str)
        Those of each label after it.
    states : tuple of str
        What was asked about.
    verdicts : tuple of Verdict
        Raw, in the states' order, all asked at once.
    difference : float
        Largest one between the probabilities of the same states asked at once, and again in another order and
        in two parts; NaN if one of them got no answer.
    floor : float
        What share of the probability the labels must hold, or the verdict is invalid.
    """

    model: str
    sha256: str
    details: Mapping[str, Any]
    decoding: str
    prompt: Prompt
    prompt_tokens: tuple[Piece, ...]
    label_tokens: Mapping[str, tuple[Piece, ...]]
    states: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    difference: float
    floor: float

    @property
    def masses(self) -> LabelMasses:
        """What share of the probability the labels hold."""
        return LabelMasses.of((verdict.label_mass for verdict in self.verdicts), self.floor)

    @property
    def problems(self) -> list[str]:
        """What is wrong, in a line each; usually nothing."""
        found = []
        if self.difference != 0.0:
            local = "; in canonical numerics that is a bug: report it" if self.decoding else ""
            found.append(f"asked again, probabilities differ by up to {self.difference:.2g}{local}")
        if invalid := [verdict for verdict in self.verdicts if not verdict.valid]:
            found.append(f"{len(invalid)} of {len(self.verdicts)} verdicts are invalid: {invalid[0].reason}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "details": dict(self.details),
            "decoding": self.decoding,
            "prompt": {"chunks": list(self.prompt.chunks), "tokens": self.prompt_tokens},
            "labels": {label: list(tokens) for label, tokens in self.label_tokens.items()},
            "label_mass": self.masses.to_dict(),
            "states": [
                {"state": state, "answer": verdict.answer, **verdict.to_dict()}
                for state, verdict in zip(self.states, self.verdicts, strict=True)
            ],
            "difference": None if math.isnan(self.difference) else self.difference,
            "problems": self.problems,
        }


def checkup(advisor: Advisor, *, states: int = 10) -> Checkup:
    """Ask an advisor's model about some states, twice, and return all that was seen; no cache is used.

    Parameters
    ----------
    advisor : Advisor
        Who says whom, and in which words.
    states : int
        How many states, spread over the whole space.

    Raises
    ------
    ConfigError
        If the advisor does not read log-probabilities, or there is no state to ask about.
    ModelError
        If the model cannot be asked.
    """
    if advisor.config.reader != "logprobs":
        raise ConfigError(f"reader={advisor.config.reader!r}: a checkup reads log-probabilities")
    size, states = len(advisor.space), whole("states", states, 1)
    cells = [round(place) for place in np.linspace(0, size - 1, min(states, size))]
    prompts, backend = advisor.prompts(cells), advisor.asked
    once = _verdicts(advisor, backend, prompts)
    half = len(prompts) // 2
    again = [v for part in (prompts[half:], prompts[:half]) for v in _verdicts(advisor, backend, part[::-1])]
    again = [*again[len(prompts) - half :][::-1], *again[: len(prompts) - half][::-1]]
    identity, labels = advisor.identity, advisor.template.continuations
    tokens, after = backend.tokens(prompts[0], labels) if isinstance(backend, LlamaModel) else ((), ())
    return Checkup(
        model=identity.name,
        sha256=identity.sha256,
        details=identity.details,
        decoding=backend.decoding if isinstance(backend, LlamaModel) else "",
        prompt=prompts[0],
        prompt_tokens=tokens,
        label_tokens=dict(zip(labels, after, strict=False)),
        states=tuple(", ".join(advisor.space.describe(cell).values()) for cell in cells),
        verdicts=tuple(verdict.held_to(advisor.config.floor) for verdict in once),
        difference=_difference(once, again),
        floor=advisor.config.floor,
    )


def _verdicts(advisor: Advisor, backend: Backend, prompts: Sequence[Prompt]) -> list[Verdict]:
    words, numerics = advisor.template.continuations, advisor.config.numerics
    batches = read_logprobs(backend, prompts, words, advisor.labels, numerics)
    found = [reading for batch in batches for reading in batch]
    if any(reading is None for reading in found) or len(found) != len(prompts):
        raise ModelError(f"{advisor.identity.name}: not every prompt got an answer")
    return [reading[0] for reading in found if reading is not None]


def _difference(once: Sequence[Verdict], again: Sequence[Verdict]) -> float:
    """Return the largest difference of two probabilities, or of what the labels hold."""
    rows = [np.array([(*v.probabilities, v.label_mass) for v in found]) for found in (once, again)]
    known = [np.nan_to_num(row[:, :-1], nan=-1.0) for row in rows]
    masses = [np.nan_to_num(row[:, -1], nan=-1.0) for row in rows]
    return float(max(np.abs(known[0] - known[1]).max(), np.abs(masses[0] - masses[1]).max()))
