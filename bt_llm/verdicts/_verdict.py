"""What a model thinks of one market state: the probabilities of its labels, and what follows from them."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

from bt_llm.exceptions import CacheCorruptError, ConfigError
from bt_llm.settings import instance
from bt_llm.verdicts._labels import DEFAULT_LABELS, INVALID, Label, LabelSet

__all__ = ["ACTIONS", "Action", "Verdict"]


class Action(enum.IntEnum):
    """The side that a verdict speaks for: the sign of its label's worth.

    INVALID is a state of its own: the model answered, but not with anything that can be read.
    """

    BULLISH = 1
    NEUTRAL = 0
    BEARISH = -1
    INVALID = -9


ACTIONS = (Action.BULLISH, Action.NEUTRAL, Action.BEARISH)
"""The three readable actions."""

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class Verdict:
    """A model's verdict on one market state, known at the close of the bar that made the state.

    Two are equal if their labels have the same names and worths, and everything else but `cached` and
    `model` is the same; NaN equals NaN.

    Parameters
    ----------
    labels : LabelSet
        What the model chose from; by default bullish, neutral and bearish.
    probabilities : sequence of float, optional
        Of the labels, in their order, which sum to 1; all NaN for an invalid verdict.
    label_mass : float
        Probability that the model put on the labels together, before normalisation; the rest fell on other
        words. NaN where the reader cannot know it.
    reason : str
        The model's explanation, from the JSON reader; empty otherwise.
    cached : bool
        True when the verdict came from disk.
    model : str
        Name of the model that answered; it differs from the one asked after a fallback.
    **named : float
        The probabilities by their labels' names, instead of `probabilities`.

    Raises
    ------
    ConfigError
        If the probabilities are not one a label, from 0 to 1, that sum to 1; or the mass is no number, or
        the reason no text.

    Examples
    --------
    >>> v = Verdict(bullish=0.5, neutral=0.2, bearish=0.3)
    >>> v.action, v.label.name, v.worth, v.confidence
    (<Action.BULLISH: 1>, 'bullish', 1.0, 0.5)
    >>> Verdict.invalid("no JSON").answer
    'invalid'
    >>> words = {"Full": 1, "Half": 0.5, "Zero": 0}
    >>> sizes = LabelSet([Label(name=w.lower(), word=w, worth=worth) for w, worth in words.items()])
    >>> v = Verdict(labels=sizes, full=0.25, half=0.5, zero=0.25)
    >>> v.answer, v.worth, v.bullish, v.neutral, v.bearish
    ('half', 0.5, 0.75, 0.25, 0.0)
    """

    labels: LabelSet
    probabilities: tuple[float, ...]
    label_mass: float
    reason: str
    cached: bool = field(compare=False)
    model: str = field(compare=False)

    def __init__(
        self,
        *,
        labels: LabelSet = DEFAULT_LABELS,
        probabilities: Sequence[float] | None = None,
        label_mass: float = math.nan,
        reason: str = "",
        cached: bool = False,
        model: str = "",
        **named: float,
    ) -> None:
        instance("labels", labels, LabelSet, "a LabelSet")
        instance("label_mass", label_mass, Real, "a number")
        instance("reason", reason, str, "a text")
        given = {
            "labels": labels,
            "probabilities": labels.in_order(probabilities, named, "probabilities"),
            "label_mass": float(label_mass),
            "reason": reason,
            "cached": cached,
            "model": model,
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        """Check the probabilities, once."""
        values, names = self.probabilities, self.labels.names
        if len(values) == len(names) and all(math.isnan(p) for p in values):
            return
        proper = len(values) == len(names) and all(0.0 <= p <= 1.0 for p in values)
        if not proper or abs(math.fsum(values) - 1.0) > _TOLERANCE:
            raise ConfigError(
                f"probabilities {values} of a verdict on {', '.join(names)}: expected {len(names)} numbers "
                "from 0 to 1 that sum to 1"
            )

    @classmethod
    def invalid(cls, reason: str = "", *, labels: LabelSet = DEFAULT_LABELS, **extra: Any) -> Verdict:
        """Return the verdict for an answer that cannot be read; `reason` says why."""
        return cls(labels=labels, probabilities=(math.nan,) * len(labels), reason=reason, **extra)

    def held_to(self, least_mass: float) -> Verdict:
        """Return the verdict, an invalid one where the labels hold less of the probability than that.

        Where nearly all of it is on other words, what is left for the labels is noise, and says no more of
        the market for being normalised. One whose reader cannot know the mass is left as it is.

        Parameters
        ----------
        least_mass : float
            0 to 1.

        Examples
        --------
        >>> thinking = Verdict(bullish=0.5, neutral=0.2, bearish=0.3, label_mass=7e-9)
        >>> thinking.held_to(0.05).answer, thinking.held_to(0.05).reason.partition(":")[0]
        ('invalid', 'the labels hold 7e-09 of the probability, less than 0.05')
        """
        if not self.valid or math.isnan(self.label_mass) or self.label_mass >= least_mass:
            return self
        return replace(
            self,
            probabilities=(math.nan,) * len(self.labels),
            reason=f"the labels hold {self.label_mass:.2g} of the probability, less than {least_mass:g}: the "
            "model says something else; see bt-llm doctor --model, or use reader='json'",
        )

    def over(self, labels: LabelSet) -> Verdict:
        """Return what the model said with other names and worths for its words.

        Neither is told to the model: like calibration they are applied to what it answered, so that
        changing them asks it nothing.

        Raises
        ------
        ConfigError
            If there are not as many labels.
        """
        return self if labels == self.labels else replace(self, labels=labels)

    def __repr__(self) -> str:
        """Return the probabilities by name, and what else there is."""
        shown = [f"{name}={p!r}" for name, p in zip(self.labels.names, self.probabilities, strict=True)]
        shown += [f"{name}={getattr(self, name)!r}" for name in ("label_mass", "reason", "cached", "model")]
        return f"Verdict({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        """Compare what was answered, on which labels."""
        if not isinstance(other, Verdict):
            return NotImplemented
        return self.labels.meaning == other.labels.meaning and self.same_answer(other)

    def __hash__(self) -> int:
        """Hash what `==` compares."""
        return hash((self.labels.meaning, self._said))

    def same_answer(self, other: object) -> bool:
        """Return whether a model said the same, whatever its words are called and worth."""
        return isinstance(other, Verdict) and self._said == other._said

    @property
    def _said(self) -> tuple[Any, ...]:
        numbers = (*self.probabilities, self.label_mass)
        return (*(None if math.isnan(number) else number for number in numbers), self.reason)

    @property
    def valid(self) -> bool:
        """Whether the answer could be read."""
        return not math.isnan(self.probabilities[0])

    @property
    def bullish(self) -> float:
        """Probability of the labels that are worth more than nothing; NaN for an invalid verdict."""
        return self._sum(lambda worth: worth > 0.0)

    @property
    def neutral(self) -> float:
        """Probability of the labels that are worth exactly nothing; NaN for an invalid verdict."""
        return self._sum(lambda worth: worth == 0.0)

    @property
    def bearish(self) -> float:
        """Probability of the labels that are worth less than nothing; NaN for an invalid verdict."""
        return self._sum(lambda worth: worth < 0.0)

    def _sum(self, of: Callable[[float], bool]) -> float:
        pairs = zip(self.labels.worths, self.probabilities, strict=True)
        return math.fsum(p for worth, p in pairs if of(worth)) if self.valid else math.nan

    @property
    def place(self) -> int:
        """Number of the label among `labels`, -1 for an invalid verdict.

        The most probable label. Of several, the one of least worth, above or below 0; and where such labels
        speak for two sides, `LabelSet.least`, the one that does least of all.
        """
        if not self.valid:
            return -1
        worths, top = self.labels.worths, max(self.probabilities)
        tied = [at for at, p in enumerate(self.probabilities) if p == top]
        least = min(abs(worths[at]) for at in tied)
        nearest = [at for at in tied if abs(worths[at]) == least]
        both_sides = len({worths[at] for at in nearest}) > 1
        return self.labels.names.index(self.labels.least.name) if both_sides else nearest[0]

    @property
    def label(self) -> Label | None:
        """The most probable label, a tie broken as in `place`; None for an invalid verdict."""
        return self.labels.labels[self.place] if self.valid else None

    @property
    def answer(self) -> str:
        """Name of the label, or ``invalid``."""
        return self.label.name if self.label is not None else INVALID

    @property
    def worth(self) -> float:
        """What the label is worth: the value of Backtrader's ``verdict`` line.

        NaN for an invalid verdict, so that no comparison with zero can take it for a side.
        """
        return self.label.worth if self.label is not None else math.nan

    @property
    def action(self) -> Action:
        """The side that the label speaks for."""
        return Action((self.worth > 0.0) - (self.worth < 0.0)) if self.valid else Action.INVALID

    @property
    def confidence(self) -> float:
        """Probability of the label, 0 to 1; 0 for an invalid verdict."""
        return self.probabilities[self.place] if self.valid else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored: finite numbers and text only, so that it is valid JSON.

        The words are not in it: they stand in the question. Verdicts on the default labels hold their
        probabilities under the three names, others hold names, worths and their order too.
        """
        named = dict(zip(self.labels.names, self.probabilities, strict=True))
        stored: dict[str, Any] = {} if self.valid else {"invalid": True}
        if not self.labels.is_default:
            stored["labels"] = [{"name": label.name, "worth": label.worth} for label in self.labels]
        if self.valid:
            stored |= named if self.labels.is_default else {"probabilities": named}
        if not math.isnan(self.label_mass):
            stored["label_mass"] = self.label_mass
        if self.reason:
            stored["reason"] = self.reason
        return stored

    @classmethod
    def from_dict(
        cls, stored: Mapping[str, Any], *, words: Sequence[str] | None = None, **extra: Any
    ) -> Verdict:
        """Read what `to_dict` wrote; the input is untrusted.

        Parameters
        ----------
        stored : mapping
            What was stored.
        words : sequence of str, optional
            What the model chose from, in order, as its question has it; by default the labels' names.
        **extra
            `cached` and `model`.

        Raises
        ------
        CacheCorruptError
            If anything but the known fields, of their types and in their ranges, is there.
        """
        labels = _stored_labels(stored, words)
        places = set(DEFAULT_LABELS.names) if labels.is_default else {"labels", "probabilities"}
        if unknown := sorted(set(stored) - places - {"label_mass", "reason", "invalid"}):
            raise CacheCorruptError(f"stored verdict has unknown fields {unknown}")
        reason, mass = stored.get("reason", ""), stored.get("label_mass", math.nan)
        if not isinstance(reason, str) or type(mass) is not float:
            raise CacheCorruptError("stored verdict: reason must be text and label_mass a float")
        if stored.get("invalid") is True:
            return cls.invalid(reason, labels=labels, label_mass=mass, **extra)
        flat = {name: stored[name] for name in DEFAULT_LABELS.names if name in stored}
        named = flat if labels.is_default else stored.get("probabilities")
        if not isinstance(named, dict) or not all(map(_is_finite, named.values())):
            raise CacheCorruptError(f"stored verdict: probabilities {named!r:.120} are not finite floats")
        try:
            ordered = labels.in_order(None, named, "probabilities")
            return cls(labels=labels, probabilities=ordered, label_mass=mass, reason=reason, **extra)
        except ConfigError as error:
            raise CacheCorruptError(f"stored verdict: {error}") from error


def _is_finite(number: Any) -> bool:
    return type(number) is float and math.isfinite(number)


def _stored_labels(stored: Mapping[str, Any], words: Sequence[str] | None) -> LabelSet:
    """Return the labels of a stored verdict: those that it names, or the default ones."""
    try:
        if "labels" not in stored:
            return DEFAULT_LABELS if words is None else DEFAULT_LABELS.with_words(words)
        named = stored["labels"]
        if not isinstance(named, list) or not all(isinstance(entry, dict) for entry in named):
            raise ConfigError(f"labels {named!r:.80}: expected a list of tables of name and worth")
        said = [entry.get("name") for entry in named] if words is None else list(words)
        if len(said) != len(named):
            raise ConfigError(f"{len(named)} labels to a question that has {len(said)}")
        labels = LabelSet.from_dict([{**entry, "word": w} for entry, w in zip(named, said, strict=True)])
        if labels.is_default:
            raise ConfigError("it spells out the default labels")
        return labels
    except ConfigError as error:
        raise CacheCorruptError(f"stored verdict: {error}") from error
