"""Returns by the calendar: of each day, month and year, from the value of an account."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.exceptions import DataError

__all__ = ["daily_returns", "monthly_returns"]

_MONTHS = 12


def daily_returns(equity: pd.Series[float]) -> pd.Series[float]:
    """Return the simple return of each day with a bar, by the day's midnight in the bars' own time.

    Parameters
    ----------
    equity : Series
        Value of an account at each bar's close, by time.

    Returns
    -------
    Series
        The value at a day's last close over that at the day before's, less 1. The first is that since the
        first close; a first day of one bar has none. They compound to the return of the whole.

    Raises
    ------
    DataError
        If the account was worth nothing or less: what came after has no return.

    Examples
    --------
    >>> hours = pd.to_datetime(["2024-01-02 10:00", "2024-01-02 15:00", "2024-01-03 15:00"])
    >>> daily_returns(pd.Series([100.0, 110.0, 99.0], hours)).round(6).tolist()
    [0.1, -0.1]
    """
    _check(equity)
    index = pd.DatetimeIndex(equity.index)
    days = index.normalize()
    last = np.flatnonzero(np.append(days[1:] != days[:-1], True))
    values = np.asarray(equity, dtype=np.float64)
    closes = np.concatenate([values[:1], values[last]])
    found = pd.Series(closes[1:] / closes[:-1] - 1.0, index=days[last].rename("time"), name="return")
    return found.iloc[1:] if last[0] == 0 else found


def monthly_returns(equity: pd.Series[float]) -> pd.DataFrame:
    """Return the return of each month, one row a year, and of the year.

    Parameters
    ----------
    equity : Series
        As of `daily_returns`.

    Returns
    -------
    DataFrame
        Columns 1 to 12 and ``year``; NaN for a month without bars. The first and the last month, and year,
        are those of their bars: from the first close, and up to the last.

    Raises
    ------
    DataError
        If the account was worth nothing or less.

    Examples
    --------
    >>> ends = pd.to_datetime(["2023-12-29", "2024-01-31", "2024-02-29"])
    >>> found = monthly_returns(pd.Series([100.0, 110.0, 99.0], ends))
    >>> found.loc[2024].dropna().round(4).to_dict()
    {1: 0.1, 2: -0.1, 'year': -0.01}
    """
    _check(equity)
    index, values = pd.DatetimeIndex(equity.index), np.asarray(equity, dtype=np.float64)
    years, months = index.year.to_numpy(), index.month.to_numpy()
    found = pd.DataFrame(
        math.nan,
        index=pd.RangeIndex(years[0], years[-1] + 1, name="year"),
        columns=[*range(1, _MONTHS + 1), "year"],
    )
    for month, value in _between(years * _MONTHS + months - 1, values):
        found.loc[month // _MONTHS, month % _MONTHS + 1] = value
    for year, value in _between(years, values):
        found.loc[year, "year"] = value
    return found


def _between(spans: NDArray[np.int64], values: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Return the returns of spans of bars, each from the last value of the one before."""
    last = np.flatnonzero(np.append(spans[1:] != spans[:-1], True))
    closes = np.concatenate([values[:1], values[last]])
    found = list(zip(spans[last].tolist(), (closes[1:] / closes[:-1] - 1.0).tolist(), strict=True))
    return found[1:] if last[0] == 0 else found


def _check(equity: pd.Series[float]) -> None:
    if not len(equity):
        raise DataError("no values: expected those of an account at one close at least")
    if (lowest := float(equity.min())) <= 0.0:
        raise DataError(
            f"the account was worth {lowest:,.2f} at {equity.idxmin()}: a ruined account has no returns"
        )
