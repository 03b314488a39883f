"""Sharpe, Sortino, Calmar and drawdown: one definition each.

The risk-free rate is zero throughout. Returns are simple returns per bar, known at the close of
their bar; equity is the account's value at the close of each bar. NaN and infinities in the input
are refused with `DataError`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.exceptions import DataError
from bt_llm.statistics._inputs import Floats, annual_factor, finite

__all__ = ["calmar_ratio", "max_drawdown", "sharpe_ratio", "sortino_ratio"]


_ROUNDING = 1e-12
"""What is smaller, in proportion, is rounding."""


def is_flat(values: Floats) -> bool:
    """Whether a series never changes, rounding apart.

    An account that gains the same share on every bar has returns that differ by about 1e-18, which would
    make a Sharpe ratio of 1e15.
    """
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max(initial=0.0))


def sharpe_ratio(returns: ArrayLike, periods_per_year: float | None = None) -> float:
    """Return the mean return over its standard deviation (Sharpe, 1994).

    Parameters
    ----------
    returns : array_like of shape (n_bars,)
        Simple returns per bar; at least two.
    periods_per_year : float, optional
        Bars in a year. The ratio is multiplied by its square root, which assumes that the
        returns are independent; by default the ratio is per bar.

    Returns
    -------
    float
        ``mean(r) / std(r, ddof=1)``, with a risk-free rate of zero. NaN for returns that never
        vary (an account that did not trade has no Sharpe ratio, which is not a Sharpe ratio of 0).

    Raises
    ------
    DataError
        If there are fewer than two returns, or one is not finite.

    References
    ----------
    W. F. Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994.

    Examples
    --------
    >>> round(sharpe_ratio([0.01, 0.02, -0.01, 0.03]), 4)
    0.7319
    >>> round(sharpe_ratio([0.01, 0.02, -0.01, 0.03], periods_per_year=252), 2)
    11.62
    """
    r = finite(returns, "returns", minimum=2)
    scale = math.sqrt(annual_factor(periods_per_year))
    deviation = float(r.std(ddof=1))
    if is_flat(r) or deviation == 0.0:
        return math.nan
    return float(r.mean()) / deviation * scale


def sortino_ratio(returns: ArrayLike, periods_per_year: float | None = None) -> float:
    """Return the mean return over the downside deviation (Sortino and Price, 1994).

    Parameters
    ----------
    returns : array_like of shape (n_bars,)
        Simple returns per bar; at least two.
    periods_per_year : float, optional
        Bars in a year, as in `sharpe_ratio`.

    Returns
    -------
    float
        ``mean(r) / sqrt(mean(min(r, 0) ** 2))``: the target is zero, and the mean of squares is
        over all bars, winners included (ddof 0). Infinite when no bar lost and one won; NaN when
        every return is zero.

    Raises
    ------
    DataError
        If there are fewer than two returns, or one is not finite.

    References
    ----------
    F. A. Sortino and L. N. Price, "Performance Measurement in a Downside Risk Framework",
    Journal of Investing 3(3), 1994.

    Examples
    --------
    >>> round(sortino_ratio([0.01, 0.02, -0.01, 0.03]), 6)
    2.5
    """
    r = finite(returns, "returns", minimum=2)
    scale = math.sqrt(annual_factor(periods_per_year))
    return _ratio(float(r.mean()), math.sqrt(float(np.mean(np.minimum(r, 0.0) ** 2)))) * scale


def max_drawdown(equity: ArrayLike) -> float:
    """Return the largest fall from a peak, as a share of that peak.

    Parameters
    ----------
    equity : array_like of shape (n_bars,)
        Value of the account at the close of each bar; the first must be positive.

    Returns
    -------
    float
        ``max(1 - equity[t] / max(equity[:t + 1]))``: 0 for a curve that never fell, 0.25 for one
        that lost a quarter of its peak, more than 1 for an account that went below zero.

    Raises
    ------
    DataError
        If the curve is empty, starts at or below zero, or holds a value that is not finite.

    Examples
    --------
    >>> max_drawdown([100.0, 120.0, 90.0, 110.0])
    0.25
    """
    curve = positive_curve(equity, minimum=1)
    return float(np.max(1.0 - curve / np.maximum.accumulate(curve)))


def calmar_ratio(equity: ArrayLike, periods_per_year: float) -> float:
    """Return the compound annual growth over the maximum drawdown (Young, 1991).

    Parameters
    ----------
    equity : array_like of shape (n_bars,)
        Value of the account at the close of each bar; at least two, the first positive.
    periods_per_year : float
        Bars in a year; the growth spans ``len(equity) - 1`` bars.

    Returns
    -------
    float
        ``((equity[-1] / equity[0]) ** (periods_per_year / (n_bars - 1)) - 1) / max_drawdown``,
        over the whole curve and not over the last 36 months, as the article has it. An account
        that ends at or below zero has a growth of -1. Infinite for a curve that rose and never
        fell; NaN for one that never moved.

    Raises
    ------
    DataError
        If there are fewer than two values, the first is not positive, or one is not finite.

    References
    ----------
    T. W. Young, "Calmar Ratio: A Smoother Tool", Futures 20(1), 1991.

    Examples
    --------
    >>> round(calmar_ratio([100.0, 120.0, 90.0, 110.0], periods_per_year=3), 6)
    0.4
    """
    curve = positive_curve(equity, minimum=2)
    years = (len(curve) - 1) / annual_factor(periods_per_year)
    ratio = max(float(curve[-1] / curve[0]), 0.0)
    # Through the logarithm, because a day's gain compounded over a year may exceed any float.
    power = math.log(ratio) / years if ratio > 0.0 else -math.inf
    growth = math.expm1(power) if power < 700.0 else math.inf
    return _ratio(growth, max_drawdown(curve))


def positive_curve(equity: ArrayLike, minimum: int) -> Floats:
    curve = finite(equity, "equity", minimum=minimum)
    if curve[0] <= 0.0:
        raise DataError(f"equity starts at {curve[0]}: expected a positive value")
    return curve


def _ratio(gain: float, risk: float) -> float:
    if risk > 0.0:
        return gain / risk
    return math.inf if gain > 0.0 else math.nan
