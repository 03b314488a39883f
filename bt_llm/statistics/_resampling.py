"""Resampling tests of a difference: between two return series, and from strategies without skill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.exceptions import ConfigError, DataError, MissingExtraError
from bt_llm.statistics._inputs import Floats, annual_factor, between, choose, finite, pair
from bt_llm.statistics._overfitting import Statistic

__all__ = ["BootstrapResult", "paired_bootstrap", "rank_p_value"]

_ROUNDING = 1e-12
_MIN_BARS_FOR_BLOCK_LENGTH = 30


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
        Mean block length in bars; 0 where nothing had to be resampled.
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
        Mean block length in bars, 1 to the number of bars. By default the largest that Politis
        and White's rule asks for in `a`, `b` and ``a - b``; it needs 30 bars.
    periods_per_year : float, optional
        Bars in a year: Sharpe ratios are multiplied by its square root, mean returns by itself.
        By default both are per bar.

    Returns
    -------
    BootstrapResult
        With d the estimate and d* its resamples, the interval is d plus or minus the quantile of
        ``|d* - d|``, and ``p_value = (1 + #{|d* - d| >= |d|}) / (1 + n)``.

    Raises
    ------
    ConfigError
        If a setting is out of range or the statistic is unknown.
    DataError
        If the series differ in length, are shorter than two bars, or hold a value that is not finite.
    MissingExtraError
        If ``arch`` is not installed.

    Notes
    -----
    The interval and the p-value are those of Ledoit and Wolf without their studentisation of each
    resample, and with stationary instead of circular blocks.

    *Degenerate input.* Identical series, or for the Sharpe ratio two that never vary, give an
    estimate of 0, an interval from 0 to 0 and a p-value of 1. A difference in returns that is the
    same on every bar has no sampling error to estimate: its interval is a point and its p-value
    NaN. Neither case resamples.

    References
    ----------
    D. N. Politis and J. P. Romano, "The Stationary Bootstrap", Journal of the American Statistical
    Association 89, 1994. O. Ledoit and M. Wolf, "Robust Performance Hypothesis Testing with the
    Sharpe Ratio", Journal of Empirical Finance 15, 2008. D. N. Politis and H. White, "Automatic
    Block-Length Selection for the Dependent Bootstrap", Econometric Reviews 23, 2004, as corrected
    in 28, 2009.

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
    rank = _quantile_rank(n, between(confidence, 0.0, 1.0, "confidence"))
    scale = annual_factor(periods_per_year)
    scale = math.sqrt(scale) if chosen is Statistic.SHARPE else scale
    if block_length is not None and not 1 <= block_length <= len(first):
        raise ConfigError(f"block_length={block_length!r}: expected 1 to the {len(first)} bars there are")

    pairs = np.column_stack([first, second])
    estimate = _difference(pairs, chosen)
    if abs(estimate) <= _ROUNDING * (1.0 if chosen is Statistic.SHARPE else float(np.abs(pairs).max())):
        estimate = 0.0  # rounding alone, which no resample should have to beat
    if _degenerate(pairs, chosen):
        p_value = 1.0 if estimate == 0.0 else math.nan
        point = estimate * scale
        return BootstrapResult(
            estimate=point, low=point, high=point, confidence=confidence, p_value=p_value, block_length=0, n=0
        )
    arch = _arch_bootstrap()
    length = _block_length(pairs, arch) if block_length is None else int(block_length)
    sampler = arch.StationaryBootstrap(length, pairs, seed=seed)
    draws = np.asarray(sampler.apply(lambda sample: _difference(sample, chosen), n)).ravel()
    errors = np.abs(draws - estimate)
    reach = float(np.sort(errors)[rank - 1])
    return BootstrapResult(
        estimate=estimate * scale,
        low=(estimate - reach) * scale,
        high=(estimate + reach) * scale,
        confidence=confidence,
        p_value=(1 + int(np.sum(errors >= abs(estimate)))) / (1 + n),
        block_length=length,
        n=n,
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
    null = finite(nulls, "nulls")
    if not math.isfinite(observed):
        raise DataError(f"observed={observed!r}: expected a finite number to rank among {len(null)} nulls")
    return (1 + int(np.sum(null >= observed))) / (1 + len(null))


def _quantile_rank(n: int, confidence: float) -> int:
    """Return which of n sorted errors bounds the interval, so that it agrees with the p-value."""
    rank = math.ceil(confidence * (1 + n) - 1e-9)
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


def _block_length(pairs: Floats, arch: Any) -> int:
    if len(pairs) < _MIN_BARS_FOR_BLOCK_LENGTH:
        raise ConfigError(
            f"{len(pairs)} bars are too few to choose a block length from, expected at least "
            f"{_MIN_BARS_FOR_BLOCK_LENGTH}: give block_length"
        )
    series = np.column_stack([pairs, pairs[:, 0] - pairs[:, 1]])
    varying = series[:, np.ptp(series, axis=0) > 0.0]
    # A series that stops varying halfway divides by zero in the rule, which then asks for nothing.
    with np.errstate(all="ignore"):
        lengths = arch.optimal_block_length(varying)["stationary"].to_numpy()
    longest = max((float(length) for length in lengths if math.isfinite(length)), default=1.0)
    return min(max(math.ceil(longest), 1), len(pairs))


def _arch_bootstrap() -> Any:
    try:
        import arch.bootstrap
    except ImportError:
        raise MissingExtraError(
            "paired_bootstrap needs the package arch, which is not installed: "
            "run pip install 'bt-llm[research]'"
        ) from None
    return arch.bootstrap
