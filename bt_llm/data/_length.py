"""How long bars are, by their times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["BarLength", "bar_length"]

_UNITS = (("day", 86_400 * 10**9), ("minute", 60 * 10**9), ("second", 10**9))
_MONTHS = {1: ("month", 1), 3: ("month", 3), 12: ("year", 1)}


@dataclass(frozen=True, kw_only=True)
class BarLength:
    """The length of bars: a number of units of the calendar.

    Parameters
    ----------
    unit : {"second", "minute", "day", "week", "month", "year"}
        Of which Backtrader has a time frame each.
    count : int
        How many.
    """

    unit: str
    count: int

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' if self.count > 1 else ''}"


def bar_length(index: pd.DatetimeIndex) -> BarLength | None:
    """Return how long bars are: by the most frequent step from one to the next.

    Dates of business days are days, those a week apart weeks, those at the same place of following months
    months. None where fewer than two bars, or no step shorter than a second, tell it.

    Examples
    --------
    >>> str(bar_length(pd.bdate_range("2024-01-01", periods=30)))
    '1 day'
    >>> str(bar_length(pd.date_range("2024-01-01", periods=30, freq="W-FRI")))
    '1 week'
    >>> str(bar_length(pd.date_range("2024-01-01", periods=30, freq="MS")))
    '1 month'
    >>> str(bar_length(pd.date_range("2024-01-01", periods=30, freq="15min")))
    '15 minutes'
    """
    times = index.as_unit("ns").asi8
    if len(times) < 2:
        return None
    steps = np.diff(times)
    sizes, counts = np.unique(steps[steps > 0], return_counts=True)
    if not len(sizes):
        return None
    step = int(sizes[counts.argmax()])
    days = step / _UNITS[0][1]
    if days >= 25:
        return _in_months(index)
    if days >= 5 and float(np.median(steps)) >= 5 * _UNITS[0][1]:
        weeks = round(days / 7)
        return BarLength(unit="week", count=max(weeks, 1))
    for unit, size in _UNITS:
        if step % size == 0:
            return BarLength(unit=unit, count=step // size)
    return None


def _in_months(index: pd.DatetimeIndex) -> BarLength:
    numbers = index.year.to_numpy() * 12 + index.month.to_numpy()
    steps, counts = np.unique(np.diff(numbers), return_counts=True)
    months = max(int(steps[counts.argmax()]), 1)
    unit, count = _MONTHS.get(months, ("month", months))
    return BarLength(unit=unit, count=count)
