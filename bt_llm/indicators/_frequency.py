"""Frequency: on which bars a model is asked, in bars and in bar time, and how long its verdict is carried."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError

__all__ = ["Frequency", "LastAsk", "milliseconds"]

_MS_A_DAY = 86_400_000
_MS_A_MINUTE = 60_000


class LastAsk(NamedTuple):
    """The last bar that was asked: its number, its time, and the possible bars that were skipped since."""

    bar: int
    time_ms: int
    skipped: int = 0


def milliseconds(days: float) -> int:
    """Return a time of Backtrader's, in days, as whole milliseconds, so that intervals add up exactly.

    Examples
    --------
    >>> milliseconds(737791.5 + 5 / 1440) - milliseconds(737791.5)
    300000
    """
    return round(days * _MS_A_DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency:
    """Which of the bars that could be asked are asked; a function of the bars alone, of no clock.

    A bar is *possible* if its indicator is warm, its state is finite and its trigger, where there is one,
    fires. The first possible bar is asked. A later one is asked if it is at least the `every`-th possible
    bar after the one last asked, and at least `min_minutes` later. A possible bar that is not asked carries
    the verdict of the last one that was; a bar that is not possible carries nothing.

    Parameters
    ----------
    every : int
        Ask each n-th possible bar; 1 is all of them. With a trigger, bars where it fires are counted.
    min_minutes : float
        Minutes of bar time from one question to the next; 0 is no limit.
    max_age : int, optional
        Bars of the data, possible or not, for which a verdict is carried; older ones are missing. By
        default it is carried until the next question.

    Examples
    --------
    >>> possible, days = np.array([False, True, True, True, True, True]), np.arange(6) / 24
    >>> Frequency(every=2).sources(possible, days).tolist()
    [-1, 1, 1, 3, 3, 5]
    >>> Frequency(min_minutes=180, max_age=1).sources(possible, days).tolist()
    [-1, 1, 1, -1, 4, 4]
    """

    every: int = 1
    min_minutes: float = 0.0
    max_age: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers, once."""
        if not _is_whole(self.every) or self.every < 1:
            raise ConfigError(f"every={self.every!r}: expected a whole number of bars, at least 1")
        number = isinstance(self.min_minutes, int | float) and not isinstance(self.min_minutes, bool)
        if not number or not math.isfinite(self.min_minutes) or self.min_minutes < 0:
            raise ConfigError(f"min_minutes={self.min_minutes!r}: expected a number of minutes of at least 0")
        if self.max_age is not None and (not _is_whole(self.max_age) or self.max_age < 0):
            raise ConfigError(
                f"max_age={self.max_age!r}: expected a whole number of bars of at least 0, or None"
            )

    @property
    def is_every_bar(self) -> bool:
        """Whether every possible bar is asked."""
        return self.every == 1 and self.min_minutes == 0

    def is_due(self, last: LastAsk | None, time_ms: int) -> bool:
        """Return whether a possible bar is to be asked.

        Parameters
        ----------
        last : LastAsk or None
            The state before the bar; None before the first question.
        time_ms : int
            The bar's time.
        """
        if last is None or self.is_every_bar:
            return True
        enough = time_ms - last.time_ms >= self.min_minutes * _MS_A_MINUTE
        return last.skipped + 1 >= self.every and enough

    def counts(self, age: int) -> bool:
        """Return whether a verdict that is `age` bars old still counts."""
        return self.max_age is None or age <= self.max_age

    def sources(self, possible: NDArray[np.bool_], days: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return for each bar the index of the bar whose verdict counts there, -1 for none.

        Parameters
        ----------
        possible : array of bool, shape (bars,)
            Bars that could be asked.
        days : array of float, shape (bars,)
            Their times, in days as Backtrader keeps them.
        """
        if self.is_every_bar:
            return np.where(possible, np.arange(len(possible)), -1)
        found = np.full(len(possible), -1, dtype=np.int64)
        last: LastAsk | None = None
        for bar in np.flatnonzero(possible).tolist():
            time_ms = milliseconds(days[bar])
            if last is None or self.is_due(last, time_ms):
                last = LastAsk(bar, time_ms)
            else:
                last = last._replace(skipped=last.skipped + 1)
            if self.counts(bar - last.bar):
                found[bar] = last.bar
        return found


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
