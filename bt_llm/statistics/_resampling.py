"""Resampling tests of a difference: between two return series, and from strategies without skill."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.equality import nan_equal
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.settings import flag, in_short, python_scalar, whole
from bt_llm.statistics._blocks import Resampled, automatic_block_length, resample, together
from bt_llm.statistics._inputs import (
    MOST_RESAMPLES,
    Floats,
    annual_factor,
    between,
    choose,
    finite,
    in_blocks,
    pair,
)
from bt_llm.statistics._overfitting import Statistic

__all__ = ["BootstrapResult", "paired_bootstrap", "quantile_rank", "rank_p_value", "result_of"]

_ROUNDING = 1e-12


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapResult:
    """A difference between two return series, with an interval for it.

    Parameters
    ----------
    estimate : float
        Statistic of the first series less that of the second.
    low, high : float
        Ends of the interval, symmetric about the estimate.
    confidence : float
        Its confidence level, 0 to 1.
    p_value : float
        Two-sided, of no difference. At most ``1 - confidence`` exactly when the interval leaves
        out zero.
    block_length : int
        Of a block, in bars; 0 where nothing had to be resampled.
    n : int
        Number of resamples; 0 likewise.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    p_value: float
    block_length: int
    n: int


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    statistic: str = Statistic.SHARPE,
    *,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    block_length: int | None = None,
    periods_per_year: float | None = None,
    studentised: bool = True,
    blocks: ArrayLike | None = None,
) -> BootstrapResult:
    """Return the difference between two strategies on the same bars, with an interval.

    Blocks of bars are drawn with replacement, the same bars from both series, so that what they
    have in common (the market) stays in common and their dependence over time is kept.

    Parameters
    ----------
    a, b : array_like of shape (n_bars,)
        Simple returns per bar of the two strategies, on the same bars.
    statistic : {'sharpe', 'return'}
        The Sharpe ratio (ddof 1, risk-free rate 0) or the mean return. A sample that never varies
        has a Sharpe ratio of 0 here: it stayed in cash.
    n : int
        Number of resamples; at least ``confidence / (1 - confidence)``.
    seed : int
        Seeds the resampling; the same arguments give the same result.
    confidence : float
        Confidence level of the interval, between 0 and 1.
    block_length : int, optional
        In bars, 1 to their number. By default the longest that Politis and White's rule asks for in
        `a`, `b`, ``a - b`` and their squares, an eighth of the bars at most; it needs 30 bars.
    periods_per_year : float, optional
        Bars in a year: Sharpe ratios are multiplied by its square root, mean returns by itself.
        By default both are per bar.
    studentised : bool
        Whether each resample is measured by its own standard error. False is narrower, and covers
        less than it says where volatility clusters.
    blocks : array_like of shape (n_bars,), optional
        Labels, such as dates; returns of one label are summed first, so that they move together:
        bars of a day, or the symbols of a panel.

    Returns
    -------
    BootstrapResult
        With d the estimate, s its standard error and t* the resamples' ``(d* - d) / s*``, the interval
        is d plus or minus s times the quantile of ``|t*|``, and
        ``p_value = (1 + #{|t*| >= |d| / s}) / (1 + n)``.

    Raises
    ------
    ConfigError
        If a setting is out of range or the statistic is unknown.
    DataError
        If the series differ in length, are shorter than two bars, or hold a value that is not finite.
    MissingExtraError
        If a block length is to be chosen and ``arch`` is not installed.

    Notes
    -----
    Interval and p-value are those of Ledoit and Wolf, but that the standard error of the sample is from
    its blocks, as those of the resamples are, instead of a kernel. Returns have little memory and their
    squares have much; a block length from returns alone is too short.

    *Degenerate input.* Identical series, or for the Sharpe ratio two that never vary, give an
    estimate of 0, an interval from 0 to 0 and a p-value of 1. A difference in returns that is the
    same on every bar has no sampling error to estimate: its interval is a point and its p-value
    NaN. Neither case resamples.

    References
    ----------
    O. Ledoit and M. Wolf, "Robust Performance Hypothesis Testing with the Sharpe Ratio", Journal of
    Empirical Finance 15, 2008. D. N. Politis and J. P. Romano, "A Circular Block-Resampling Procedure
    for Stationary Data", in "Exploring the Limits of Bootstrap", 1992. F. Goetze and H. R. Kuensch,
    "Second-Order Correctness of the Blockwise Bootstrap for Stationary Observations", Annals of
    Statistics 24, 1996. D. N. Politis and H. White, "Automatic Block-Length Selection for the
    Dependent Bootstrap", Econometric Reviews 23, 2004, as corrected in 28, 2009.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> market = rng.normal(0.0, 0.01, 500)
    >>> better = market + rng.normal(0.001, 0.002, 500)
    >>> result = paired_bootstrap(better, market, "return", n=199)
    >>> 0.0 < result.low < result.estimate < result.high, result.p_value
    (True, 0.005)
    >>> paired_bootstrap(market, market).p_value
    1.0
    """
    first, second = pair(a, b, minimum=2)
    chosen = choose(Statistic, statistic, "statistic")
    rank = quantile_rank(n, between(confidence, 0.0, 1.0, "confidence"))
    scale = annual_factor(periods_per_year)
    scale = math.sqrt(scale) if chosen is Statistic.SHARPE else scale
    pairs = np.column_stack([first, second])
    if blocks is not None:
        pairs = together(pairs, blocks)
    flag("studentised", studentised)
    length = None if block_length is None else in_blocks(block_length, len(pairs))
    estimate = _difference(pairs, chosen)
    if abs(estimate) <= _ROUNDING * (1.0 if chosen is Statistic.SHARPE else float(np.abs(pairs).max())):
        estimate = 0.0  # rounding alone, which no resample should have to beat
    if _degenerate(pairs, chosen):
        p_value = 1.0 if estimate == 0.0 else math.nan
        point = estimate * scale
        return BootstrapResult(
            estimate=point, low=point, high=point, confidence=confidence, p_value=p_value, block_length=0, n=0
        )
    if length is None:
        length = automatic_block_length(np.column_stack([pairs, pairs[:, 0] - pairs[:, 1]]))
    sharpe = chosen is Statistic.SHARPE
    columns = np.column_stack([pairs, pairs**2]) if sharpe else pairs
    found = resample(
        columns,
        _sharpe_difference if sharpe else _mean_difference,
        length=length,
        n=n,
        seed=seed,
        studentised=studentised,
    )
    return result_of(found, 0, rank, estimate * scale, scale, confidence, length)


def result_of(
    found: Resampled, row: int, rank: int, estimate: float, scale: float, confidence: float, length: int
) -> BootstrapResult:
    """Return the interval and the p-value of one of the numbers that were resampled."""
    draws, error = np.abs(found.draws[row]), float(found.errors[row]) * scale
    reach = float(np.sort(draws)[rank - 1]) * error
    met = draws * error >= abs(estimate)
    return BootstrapResult(
        estimate=estimate,
        low=estimate - reach,
        high=estimate + reach,
        confidence=confidence,
        p_value=(1 + int(np.sum(met))) / (1 + len(draws)),
        block_length=length,
        n=len(draws),
    )


def rank_p_value(observed: float, nulls: ArrayLike) -> float:
    """Return the exact p-value of a result by its rank among those of random strategies.

    Parameters
    ----------
    observed : float
        Result of the strategy; larger is better.
    nulls : array_like of shape (n_nulls,)
        The same figure for strategies without skill, such as random gates.

    Returns
    -------
    float
        ``(1 + #{null >= observed}) / (1 + n_nulls)``: one-sided, never 0, and at or below any
        level no more often than that level when the observed result is one more of the nulls.
        A tie counts against the strategy.

    Raises
    ------
    DataError
        If a value is not finite, or there are no nulls. A strategy that never traded has no Sharpe
        ratio: score it as it should count (0, say) before ranking.

    References
    ----------
    B. Phipson and G. K. Smyth, "Permutation P-values Should Never Be Zero", Statistical
    Applications in Genetics and Molecular Biology 9(1), 2010.

    Examples
    --------
    >>> rank_p_value(1.5, [0.2, 1.9, 0.7, 1.1])
    0.4
    """
    null, found = finite(nulls, "nulls"), python_scalar(observed)
    if type(found) not in (int, float) or not abs(found) < 1e300:
        raise DataError(f"observed={in_short(observed)}: expected a finite number, as nulls are")
    return (1 + int(np.sum(null >= observed))) / (1 + len(null))


def quantile_rank(n: int, confidence: float) -> int:
    """Return which of n sorted errors bounds the interval, so that it agrees with the p-value."""
    rank = math.ceil(confidence * (1 + whole("n", n, 1, MOST_RESAMPLES)) - 1e-9)
    if rank > n:
        least = math.ceil(confidence / (1.0 - confidence) - 1e-9)
        raise ConfigError(f"n={n!r} resamples: an interval of {confidence:g} needs at least {least}")
    return rank


def _difference(pairs: Floats, statistic: Statistic) -> float:
    mean = pairs.mean(axis=0)
    if statistic is Statistic.RETURN:
        return float(mean[0] - mean[1])
    deviation = pairs.std(axis=0, ddof=1)
    # A constant series has a deviation of rounding errors, in proportion to its mean.
    varies = deviation > _ROUNDING * np.abs(mean)
    sharpe = np.divide(mean, deviation, out=np.zeros(2), where=varies)
    return float(sharpe[0] - sharpe[1])


def _degenerate(pairs: Floats, statistic: Statistic) -> bool:
    """Whether every resample would give the same difference."""
    tolerance = _ROUNDING * float(np.abs(pairs).max())
    if statistic is Statistic.SHARPE:
        same = bool(np.array_equal(pairs[:, 0], pairs[:, 1]))
        return same or bool(np.all(np.ptp(pairs, axis=0) <= tolerance))
    return bool(np.ptp(pairs[:, 0] - pairs[:, 1]) <= tolerance)


def _mean_difference(means: Floats) -> tuple[Floats, Floats]:
    gradients = np.broadcast_to([1.0, -1.0], (*means.shape[:-1], 1, 2))
    return means[..., :1] - means[..., 1:], gradients


def _sharpe_difference(means: Floats) -> tuple[Floats, Floats]:
    """Return the difference of the Sharpe ratios, from the means of two series and of their squares."""
    mean, square = means[..., :2], means[..., 2:]
    variance = square - mean**2
    varies = variance > _ROUNDING * square
    inverse = np.divide(1.0, np.sqrt(np.abs(variance)), out=np.zeros_like(variance), where=varies)
    sharpe, sign = mean * inverse, np.array([1.0, -1.0])
    gradients = np.concatenate([square * inverse**3 * sign, -0.5 * mean * inverse**3 * sign], axis=-1)
    return sharpe[..., :1] - sharpe[..., 1:], gradients[..., None, :]
