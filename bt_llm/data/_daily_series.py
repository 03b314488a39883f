"""DailySeries: values by day, such as the VIX's, each known from the next day on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.data._bars import load_bars
from bt_llm.data._length import bar_length
from bt_llm.exceptions import ConfigError

__all__ = ["DailySeries", "Floats"]

Floats = NDArray[np.float64]

_MONTH, _YEAR = 20, 250  # trading days
_DAILY = ("second", "minute", "day")  # of which `_days` refuses all but one a day
_LONGEST = {"week": 7, "month": 31, "year": 366}  # days


@dataclass(frozen=True, eq=False)
class DailySeries:
    """Values by day, each known from the next day on.

    Parameters
    ----------
    days : array of datetime64[D]
        Strictly increasing.
    values : array of float, shape (days, columns)
        What became known at the end of each day.
    max_age_days : int
        A value older than so many calendar days counts as missing: the series has ended.

    Examples
    --------
    >>> days = np.array(["2018-02-02", "2018-02-05"], dtype="datetime64[D]")
    >>> vix = DailySeries(days, np.array([[17.3], [37.3]]))
    >>> [vix.known(date(2018, 2, day)).tolist() for day in (5, 6)]
    [[17.3], [37.3]]
    """

    days: NDArray[np.datetime64]
    values: Floats
    max_age_days: int = 10

    def known(self, day: date) -> Floats:
        """Return the values of the last day before `day`; NaN if there is none, or it is too long ago."""
        today = np.datetime64(day, "D")
        row = int(np.searchsorted(self.days, today, side="left")) - 1
        if row < 0 or int((today - self.days[row]) / np.timedelta64(1, "D")) > self.max_age_days:
            return np.full(self.values.shape[1], np.nan)
        found: Floats = self.values[row]
        return found

    @classmethod
    def levels(cls, source: str | os.PathLike[str] | pd.DataFrame) -> DailySeries:
        """Return the closes of a series of days, weeks or months, such as the VIX, in one column.

        A value of a week or a month is known when that is over: a time is taken as the beginning of its
        period, unless all are the last days of months or ``stamp="close"`` was stated to `load_bars`.
        """
        bars = load_bars(source)
        later, length = _until_known(bars)
        days = _days(bars) + np.timedelta64(later, "D")
        return cls(days, bars["close"].to_numpy()[:, None], max_age_days=cls.max_age_days + length - 1)

    @classmethod
    def moves(cls, source: str | os.PathLike[str] | pd.DataFrame) -> DailySeries:
        """Return how a daily price moves, in two columns.

        The first is the log return of 20 days over what 20 such days usually give (their daily standard
        deviation times the root of 20); the second is that deviation over its median of the 250 days up to
        then. NaN until there are enough days, and around prices of zero or below.
        """
        bars = load_bars(source)
        if (length := bar_length(pd.DatetimeIndex(bars.index))) is not None and length.unit not in _DAILY:
            raise ConfigError(f"bars of {length}: expected a daily series")
        close = bars["close"]
        logs = pd.Series(np.log(close.where(close > 0).to_numpy()), index=close.index)
        usual = logs.diff().rolling(_MONTH).std()
        usual = usual.where(usual > 0)
        move = (logs - logs.shift(_MONTH)) / (usual * np.sqrt(_MONTH))
        unrest = usual / usual.rolling(_YEAR, min_periods=_YEAR // 2).median()
        return cls(_days(bars), np.column_stack([move.to_numpy(), unrest.to_numpy()]))


def _until_known(bars: pd.DataFrame) -> tuple[int, int]:
    """Return the days from a bar's time to the last of its period, at most, and how many the period has."""
    index = pd.DatetimeIndex(bars.index)
    length = bar_length(index)
    if length is None or length.unit in _DAILY:
        return 0, 1
    days = length.count * _LONGEST[length.unit]
    return 0 if bars.attrs["source"]["stamp"] == "close" else days - 1, days


def _days(bars: pd.DataFrame) -> NDArray[np.datetime64]:
    days = bars.index.to_numpy().astype("datetime64[D]")
    if len(np.unique(days)) < len(days):
        raise ConfigError(f"{len(bars)} bars on {len(np.unique(days))} days: expected a daily series")
    return days
