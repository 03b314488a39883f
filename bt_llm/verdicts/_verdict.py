"""What a model thinks of one market state: an action and the three probabilities behind it."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bt_llm.exceptions import CacheCorruptError, ConfigError

__all__ = ["ACTIONS", "Action", "Verdict"]


class Action(enum.IntEnum):
    """The direction of a verdict; the value is what the indicator's first line shows.

    INVALID is a state of its own: the model answered, but not with anything that can be read.
    On a line it is NaN with a confidence of 0 (a bar that was never asked has NaN for both),
    so that no comparison of a line with zero can take it for a direction.
    """

    BULLISH = 1
    NEUTRAL = 0
    BEARISH = -1
    INVALID = -9

    @property
    def line(self) -> float:
        """The value on Backtrader's ``verdict`` line."""
        return math.nan if self is Action.INVALID else float(self.value)


ACTIONS = (Action.BULLISH, Action.NEUTRAL, Action.BEARISH)
"""The three readable actions, in the order that probabilities are kept in everywhere."""

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A model's verdict on one market state, known at the close of the bar that made the state.

    Parameters
    ----------
    bullish, neutral, bearish : float
        Probabilities of the three labels, which sum to 1; all NaN for an invalid verdict.
    label_mass : float
        Probability that the model put on the three labels together, before normalisation; the
        rest fell on other words. NaN where the reader cannot know it.
    reason : str
        The model's explanation, from the JSON reader; empty otherwise.
    cached : bool
        True when the verdict came from disk. Not part of equality.
    model : str
        Name of the model that answered; it differs from the one asked after a fallback. Not part
        of equality.

    Examples
    --------
    >>> v = Verdict(bullish=0.5, neutral=0.2, bearish=0.3)
    >>> v.action, v.confidence
    (<Action.BULLISH: 1>, 0.5)
    >>> Verdict.invalid("no JSON").action.name
    'INVALID'
    """

    bullish: float
    neutral: float
    bearish: float
    label_mass: float = math.nan
    reason: str = ""
    cached: bool = field(default=False, compare=False)
    model: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check the probabilities, once."""
        triple = self.probabilities
        if all(math.isnan(p) for p in triple):
            return
        if not all(0.0 <= p <= 1.0 for p in triple) or abs(sum(triple) - 1.0) > _TOLERANCE:
            raise ConfigError(
                f"probabilities {triple} of a verdict: expected three numbers from 0 to 1 that sum to 1"
            )

    @classmethod
    def invalid(cls, reason: str = "", **extra: Any) -> Verdict:
        """Return the verdict for an answer that cannot be read; `reason` says why."""
        nan = math.nan
        return cls(bullish=nan, neutral=nan, bearish=nan, reason=reason, **extra)

    @property
    def probabilities(self) -> tuple[float, float, float]:
        """(bullish, neutral, bearish), the order of `ACTIONS`."""
        return (self.bullish, self.neutral, self.bearish)

    @property
    def valid(self) -> bool:
        """Whether the answer could be read."""
        return not math.isnan(self.bullish)

    @property
    def action(self) -> Action:
        """The most probable label; a tie goes to NEUTRAL, the side that does nothing."""
        if not self.valid:
            return Action.INVALID
        if self.bullish > max(self.neutral, self.bearish):
            return Action.BULLISH
        if self.bearish > max(self.neutral, self.bullish):
            return Action.BEARISH
        return Action.NEUTRAL

    @property
    def confidence(self) -> float:
        """Probability of the action, 0 to 1; 0 for an invalid verdict."""
        return max(self.probabilities) if self.valid else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored: finite numbers and text only, so that it is valid JSON."""
        numbers = {"bullish": self.bullish, "neutral": self.neutral, "bearish": self.bearish}
        stored: dict[str, Any] = dict(numbers) if self.valid else {"invalid": True}
        if not math.isnan(self.label_mass):
            stored["label_mass"] = self.label_mass
        if self.reason:
            stored["reason"] = self.reason
        return stored

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], **extra: Any) -> Verdict:
        """Read what `to_dict` wrote; the input is untrusted.

        Raises
        ------
        CacheCorruptError
            If anything but the known fields, of their types and in their ranges, is there.
        """
        known = {"bullish", "neutral", "bearish", "label_mass", "reason", "invalid"}
        if unknown := sorted(set(stored) - known):
            raise CacheCorruptError(f"stored verdict has unknown fields {unknown}; expected {sorted(known)}")
        reason, mass = stored.get("reason", ""), stored.get("label_mass", math.nan)
        if not isinstance(reason, str) or type(mass) is not float:
            raise CacheCorruptError("stored verdict: reason must be text and label_mass a float")
        if stored.get("invalid") is True:
            return cls.invalid(reason, label_mass=mass, **extra)
        numbers = [stored.get(name) for name in ("bullish", "neutral", "bearish")]
        if not all(type(n) is float and math.isfinite(n) for n in numbers):
            raise CacheCorruptError(f"stored verdict: probabilities {numbers} are not three finite floats")
        bullish, neutral, bearish = numbers
        try:
            return cls(
                bullish=bullish,  # type: ignore[arg-type]
                neutral=neutral,  # type: ignore[arg-type]
                bearish=bearish,  # type: ignore[arg-type]
                label_mass=mass,
                reason=reason,
                **extra,
            )
        except ConfigError as error:
            raise CacheCorruptError(f"stored verdict: {error}") from error
