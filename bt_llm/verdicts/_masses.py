"""LabelMasses: how much of the probability the labels hold, over many verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bt_llm.equality import nan_equal

__all__ = ["LabelMasses"]


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMasses:
    """How much of the probability the labels hold, over many verdicts.

    Parameters
    ----------
    least, median, most : float
        Of the verdicts that have a mass, 0 to 1; NaN where none has, as with the JSON reader.
    floor : float
        What the labels must hold together.
    below : int
        Verdicts that are invalid because they hold less.

    Examples
    --------
    >>> print(LabelMasses.of([0.25, 0.5, 0.01], floor=0.05))
    0.01 to 0.5, median 0.25; 1 below 0.05
    """

    least: float
    median: float
    most: float
    floor: float
    below: int

    @classmethod
    def of(cls, masses: Iterable[float], floor: float | None) -> LabelMasses:
        """Return it of masses, of which NaN are left out."""
        known, least = sorted(mass for mass in masses if not math.isnan(mass)), floor or 0.0
        least_of, middle, most = (known[0], statistics.median(known), known[-1]) if known else (math.nan,) * 3
        below = sum(mass < least for mass in known)
        return cls(least=least_of, median=middle, most=most, floor=least, below=below)

    def __bool__(self) -> bool:
        """Return whether any verdict has a mass."""
        return not math.isnan(self.most)

    def __str__(self) -> str:
        """Return a line; a dash where no verdict has a mass."""
        if not self:
            return "-"
        said = f"{self.least:.2g} to {self.most:.2g}, median {self.median:.2g}"
        return f"{said}; {self.below} below {self.floor:g}" if self.below else said

    def to_dict(self) -> dict[str, Any] | None:
        """Return plain values, or None where no verdict has a mass."""
        return asdict(self) if self else None
