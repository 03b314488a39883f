"""How many bars a year has, by which figures are annualised."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

__all__ = ["periods_per_year", "year_assumed"]

_DAYS = 365.25
_SESSIONS = 252
_LONG_ENOUGH = pd.Timedelta(days=180)  # the night or weekend missing at the ends is below 1 % of the span
_WORKDAYS = range(5)


def periods_per_year(index: pd.DatetimeIndex) -> float:
    """Return how many bars a year has.

    Parameters
    ----------
    index : DatetimeIndex
        Times of the bars.

    Returns
    -------
    float
        Bars over years of 365.25 days, from the first to the last. Of intraday bars over less than 180 days,
        whose nights and weekends the span does not hold in their right share, the mean number of bars on each
        day of the week, times the weeks in a year; those of markets closed at weekends are weeks of 252
        sessions a year. A day of the week that is not among them counts as the other workdays do. NaN for
        fewer than two bars.

    Examples
    --------
    >>> session = pd.date_range("2024-01-02 09:35", "2024-01-02 16:00", freq="5min")
    >>> len(session), round(periods_per_year(session), 6), 78 * 252
    (78, 19656.0, 19656)
    """
    if len(index) < 2:
        return math.nan
    if not _by_sessions(index):
        years = float((index[-1] - index[0]) / pd.Timedelta(days=_DAYS))
        return (len(index) - 1) / years
    week = _week(index)
    rate = _DAYS / 7.0 if week[5:].any() else _SESSIONS / len(_WORKDAYS)
    return float(week.sum() * rate)


def year_assumed(index: pd.DatetimeIndex) -> str:
    """Return what a year was taken for, in one line; empty where it was counted from the bars' own times."""
    if len(index) < 2 or not _by_sessions(index):
        return ""
    bars, week = periods_per_year(index), _week(index)
    days = "weeks with weekends" if week[5:].any() else f"{_SESSIONS} sessions of {week.mean() * 7 / 5:,.0f}"
    return (
        f"assumed: {bars:,.0f} bars a year ({days}), by which what is said a year is scaled; these bars span "
        f"{(index[-1] - index[0]) / pd.Timedelta(days=1):.1f} days"
    )


def _by_sessions(index: pd.DatetimeIndex) -> bool:
    """Return whether bars are intraday ones over a span too short to count a year from."""
    if index[-1] - index[0] >= _LONG_ENOUGH:
        return False
    days = index.normalize()
    return bool(days.nunique() < len(days))


def _week(index: pd.DatetimeIndex) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the mean number of bars of each day of the week, Monday first; 0 for a weekend without any."""
    counts = index.normalize().value_counts(sort=False).sort_index()
    # The first and the last day may be cut short, by a warm-up if by nothing else.
    ends, usual = [counts.index[0], counts.index[-1]], counts.median()
    counts = counts.drop([day for day in dict.fromkeys(ends) if counts[day] < usual])
    means = counts.groupby(pd.DatetimeIndex(counts.index).day_of_week).mean()
    week = np.zeros(7)
    week[means.index.to_numpy()] = means.to_numpy()
    absent = [day for day in _WORKDAYS if day not in means.index]
    present = [day for day in _WORKDAYS if day in means.index]
    if present:
        week[absent] = week[present].mean()
    return week
