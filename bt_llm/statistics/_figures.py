"""Figures of a tear sheet: growth, volatility, drawdowns, a benchmark, and what trades came to.

The risk-free rate is zero throughout. Each says which library defines the same thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.exceptions import DataError
from bt_llm.statistics._inputs import annual_factor, finite, pair
from bt_llm.statistics._performance import is_flat, positive_curve

__all__ = [
    "Drawdown",
    "MarketModel",
    "annual_growth",
    "drawdowns",
    "expectancy",
    "market_model",
    "profit_factor",
    "system_quality_number",
    "volatility",
]


def annual_growth(equity: ArrayLike, periods_per_year: float) -> float:
    """Return the compound annual growth rate (CAGR).

    Parameters
    ----------
    equity : array_like of shape (n_bars,)
        Value of the account at the close of each bar; at least two, all positive.
    periods_per_year : float
        Bars in a year; the growth spans ``len(equity) - 1`` bars.

    Returns
    -------
    float
        ``(equity[-1] / equity[0]) ** (periods_per_year / (n_bars - 1)) - 1``, which is `empyrical.cagr` of
        the returns with `periods_per_year` as its annualization. Infinite where that exceeds a float.

    Raises
    ------
    DataError
        If there are fewer than two values, or one is not finite or not positive.

    Examples
    --------
    >>> round(annual_growth([100.0, 105.0, 121.0], periods_per_year=1), 6)
    0.1
    """
    curve = positive_curve(equity, minimum=2)
    if curve.min() <= 0.0:
        raise DataError(f"equity falls to {curve.min():g}: a ruined account has no growth a year")
    years = (len(curve) - 1) / annual_factor(periods_per_year)
    # Through the logarithm, because a day's gain compounded over a year may exceed any float.
    power = math.log(float(curve[-1] / curve[0])) / years
    return math.expm1(power) if power < 700.0 else math.inf


def volatility(returns: ArrayLike, periods_per_year: float | None = None) -> float:
    """Return the standard deviation of returns a year, as quantstats and empyrical do.

    Parameters
    ----------
    returns : array_like of shape (n_bars,)
        Simple returns per bar; at least two.
    periods_per_year : float, optional
        Bars in a year. The deviation (ddof 1) is multiplied by its square root.

    Raises
    ------
    DataError
        If there are fewer than two returns, or one is not finite.

    Examples
    --------
    >>> round(volatility([0.01, 0.02, -0.01, 0.03], periods_per_year=252), 4)
    0.2711
    """
    r = finite(returns, "returns", minimum=2)
    return 0.0 if is_flat(r) else float(r.std(ddof=1)) * math.sqrt(annual_factor(periods_per_year))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawdown:
    """A fall from a high until the high is reached again.

    Attributes
    ----------
    peak, trough : int
        Positions of the last bar at the high, and of the lowest bar.
    recovered : int or None
        Position of the first bar that is as high again; None if none is.
    depth : float
        The fall as a share of the high, positive.
    """

    peak: int
    trough: int
    recovered: int | None
    depth: float


def drawdowns(equity: ArrayLike) -> list[Drawdown]:
    """Return the drawdowns of an account, the deepest first; of two as deep, the earlier.

    Parameters
    ----------
    equity : array_like of shape (n_bars,)
        Value of the account at the close of each bar; the first must be positive.

    Notes
    -----
    The depth of the first is `max_drawdown`. `quantstats.stats.drawdown_details` finds the same ones; the day
    that it begins one on is the bar after `peak`.

    Raises
    ------
    DataError
        If the curve is empty, starts at or below zero, or holds a value that is not finite.

    Examples
    --------
    >>> found = drawdowns([100.0, 90.0, 100.0, 120.0, 60.0, 90.0])
    >>> [(one.peak, one.trough, one.recovered, round(one.depth, 3)) for one in found]
    [(3, 4, None, 0.5), (0, 1, 2, 0.1)]
    """
    curve = positive_curve(equity, minimum=1)
    high = np.maximum.accumulate(curve)
    below = np.concatenate([[False], curve < high, [False]]).astype(np.int8)
    edges = np.diff(below)
    found = []
    for start, stop in zip(
        np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True
    ):
        trough = start + int(np.argmin(curve[start:stop]))
        depth = 1.0 - float(curve[trough] / high[trough])
        recovered = stop if stop < len(curve) else None
        found.append(Drawdown(peak=start - 1, trough=trough, recovered=recovered, depth=depth))
    return sorted(found, key=lambda one: -one.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketModel:
    """Returns explained by those of a benchmark, by least squares.

    Attributes
    ----------
    alpha : float
        What is left a year: ``mean(r - beta * b)`` times the bars in a year.
    beta : float
        ``cov(r, b) / var(b)``.
    correlation : float
        Of the two; NaN where `r` never varies.
    """

    alpha: float
    beta: float
    correlation: float


def market_model(
    returns: ArrayLike, benchmark: ArrayLike, periods_per_year: float | None = None
) -> MarketModel:
    """Return alpha, beta and correlation of returns to those of a benchmark on the same bars.

    Parameters
    ----------
    returns, benchmark : array_like of shape (n_bars,)
        Simple returns per bar; at least three.
    periods_per_year : float, optional
        Bars in a year, which alpha is multiplied by: not compounded, as in `quantstats.stats.greeks`.
        `empyrical.alpha` compounds it; its beta is the same.

    Raises
    ------
    DataError
        If there are fewer than three bars, the two are not of one length, a value is not finite, or the
        benchmark never varies.

    References
    ----------
    M. C. Jensen, "The Performance of Mutual Funds in the Period 1945-1964", Journal of Finance 23(2), 1968.

    Examples
    --------
    >>> found = market_model([0.03, 0.01, 0.05], [0.01, 0.0, 0.02])
    >>> round(found.alpha, 6), round(found.beta, 6), round(found.correlation, 6)
    (0.01, 2.0, 1.0)
    """
    r, b = pair(returns, benchmark, minimum=3)
    if is_flat(b):
        raise DataError("the benchmark never varies: there is no beta")
    from_mean, other = r - r.mean(), b - b.mean()
    beta = float(from_mean @ other / (other @ other))
    alpha = (float(r.mean()) - beta * float(b.mean())) * annual_factor(periods_per_year)
    spread = math.sqrt(float(from_mean @ from_mean) * float(other @ other))
    correlation = math.nan if is_flat(r) else float(np.clip(float(from_mean @ other) / spread, -1.0, 1.0))
    return MarketModel(alpha=alpha, beta=beta, correlation=correlation)


def profit_factor(results: ArrayLike) -> float:
    """Return what the trades that won gained over what the others lost.

    Parameters
    ----------
    results : array_like of shape (n_trades,)
        Of each closed trade, after commission.

    Returns
    -------
    float
        NaN without trades, and where none won or lost; infinite where some won and none lost. As
        backtesting.py has it; `quantstats.stats.profit_factor` is of returns a day, and another figure.

    Examples
    --------
    >>> profit_factor([30.0, -10.0, -10.0])
    1.5
    """
    amounts = finite(results, "results", minimum=0)
    won, lost = float(amounts[amounts > 0.0].sum()), -float(amounts[amounts < 0.0].sum())
    if lost == 0.0:
        return math.inf if won > 0.0 else math.nan
    return won / lost


def expectancy(results: ArrayLike) -> float:
    """Return the mean result of a trade; NaN without trades.

    Examples
    --------
    >>> expectancy([30.0, -10.0, -5.0])
    5.0
    """
    amounts = finite(results, "results", minimum=0)
    return float(amounts.mean()) if len(amounts) else math.nan


def system_quality_number(results: ArrayLike) -> float:
    """Return the system quality number of trades: mean over spread, times the root of their number.

    Parameters
    ----------
    results : array_like of shape (n_trades,)
        Of each closed trade, after commission.

    Returns
    -------
    float
        ``sqrt(n) * mean / std`` with ddof 0, as `backtrader.analyzers.SQN` has it; NaN for fewer than two
        trades, or where all came to the same. Backtrader advises 30 trades at the least.

    References
    ----------
    V. K. Tharp, "Trade Your Way to Financial Freedom", 2nd edition, McGraw-Hill, 2007.

    Examples
    --------
    >>> round(system_quality_number([30.0, -10.0, -5.0, 20.0]), 4)
    1.0464
    """
    amounts = finite(results, "results", minimum=0)
    if len(amounts) < 2 or is_flat(amounts):
        return math.nan
    return math.sqrt(len(amounts)) * float(amounts.mean()) / float(amounts.std())
