"""Differences of many pairs of series at once, resampled together and judged together."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bt_llm.exceptions import DataError
from bt_llm.settings import instance, whole
from bt_llm.statistics._inputs import (
    MOST_RESAMPLES,
    Floats,
    annual_factor,
    as_floats,
    between,
    choose,
    finite,
    in_blocks,
)
from bt_llm.statistics._overfitting import Statistic
from bt_llm.statistics._resampling import BootstrapResult, quantile_rank

__all__ = ["joint_differences", "stationary_counts"]

_CELLS = 4_000_000  # of one matrix that is kept at a time
_TINY = 1e-12


def joint_differences(
    first: ArrayLike,
    second: ArrayLike,
    statistic: str = Statistic.SHARPE,
    *,
    block_length: int,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    periods_per_year: float | None = None,
) -> list[BootstrapResult]:
    """Return the difference of each of many pairs of series, with intervals that all hold at once.

    Blocks of bars are drawn with replacement, the same bars of all series, so that what symbols have in
    common on a date stays in common. The intervals are simultaneous: with probability `confidence` every one
    of them holds, and the p-values are adjusted likewise.

    Parameters
    ----------
    first, second : array_like of shape (n_bars, n_pairs)
        Simple returns per bar of the two strategies of each pair, on the same bars; NaN in both where a pair
        has no bar, as before a symbol was listed.
    statistic : {'sharpe', 'return'}
        As in `paired_bootstrap`.
    block_length : int
        Mean block length in bars.
    n, seed, confidence, periods_per_year
        As in `paired_bootstrap`.

    Returns
    -------
    list of BootstrapResult
        One a pair. With t the deviation of a resampled difference in standard errors, intervals reach as far
        as the quantile of the largest t among the pairs.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    DataError
        If the shapes differ, NaN stands in one of two only, or a pair has fewer than two bars.

    Notes
    -----
    A pair that never differs has an interval from 0 to 0 and a p-value of 1, and no part in the largest t.

    References
    ----------
    J. P. Romano and M. Wolf, "Stepwise Multiple Testing as Formalized Data Snooping", Econometrica 73, 2005
    (the single step of it). D. N. Politis and J. P. Romano, "The Stationary Bootstrap", Journal of the
    American Statistical Association 89, 1994.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> base = rng.normal(0.0, 0.01, (500, 3))
    >>> better = base + np.array([0.002, 0.0, 0.0]) + rng.normal(0.0, 0.002, (500, 3))
    >>> found = joint_differences(better, base, "return", block_length=5, n=199)
    >>> [one.low > 0.0 for one in found]
    [True, False, False]
    """
    one, two = as_floats(first, "first", 2), as_floats(second, "second", 2)
    known = _checked(one, two)
    chosen = choose(Statistic, statistic, "statistic")
    rank = quantile_rank(n, between(confidence, 0.0, 1.0, "confidence"))
    scale = annual_factor(periods_per_year)
    scale = math.sqrt(scale) if chosen is Statistic.SHARPE else scale
    parts = [np.where(known, part, 0.0) for part in (one, one**2, two, two**2)]
    moments = np.concatenate([known.astype(np.float64), *parts], axis=1)
    estimate = _differences(np.ones((1, len(one))) @ moments, chosen)[0]
    rng = np.random.default_rng(whole("seed", seed, 0))
    size = max(1, _CELLS // len(one))
    draws = np.concatenate(
        [
            _differences(
                stationary_counts(len(one), block_length, min(size, n - start), rng) @ moments, chosen
            )
            for start in range(0, n, size)
        ]
    )
    errors = np.abs(draws - estimate)
    spread = np.sqrt(np.nanmean(errors**2, axis=0))
    moves = spread > _TINY * np.maximum(1.0, np.abs(estimate))
    worst = np.max(errors[:, moves] / spread[moves], axis=1, initial=0.0)
    reach = float(np.sort(worst)[rank - 1])
    found = []
    for value, error, varies in zip(estimate.tolist(), spread.tolist(), moves.tolist(), strict=True):
        width = reach * error if varies else 0.0
        beaten = int(np.sum(worst >= abs(value) / error)) if varies else n
        same = abs(value) <= _TINY
        found.append(
            BootstrapResult(
                estimate=value * scale,
                low=(value - width) * scale,
                high=(value + width) * scale,
                confidence=confidence,
                p_value=(1 + beaten) / (1 + n) if varies or same else math.nan,
                block_length=block_length,
                n=n,
            )
        )
    return found


def stationary_counts(n_bars: int, block_length: int, n: int, rng: np.random.Generator) -> Floats:
    """Return how often each bar stands in each of n stationary resamples.

    Parameters
    ----------
    n_bars : int
        Of the series; it is taken as a circle.
    block_length : int
        Mean length of a block: each bar is followed by the next one, or with probability
        ``1 / block_length`` by one at random.
    n : int
        Resamples.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    ndarray of shape (n, n_bars)
        Each row sums to `n_bars`.

    Examples
    --------
    >>> stationary_counts(4, 2, 2, np.random.default_rng(0)).sum(axis=1)
    array([4., 4.])
    """
    in_blocks(block_length, whole("n_bars", n_bars, 1))
    whole("n", n, 0, MOST_RESAMPLES)
    instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    begins = rng.random((n_bars, n)) < 1.0 / block_length
    begins[0] = True
    starts = rng.integers(n_bars, size=(n_bars, n))
    place = np.arange(n_bars)[:, None]
    begun = np.maximum.accumulate(np.where(begins, place, 0), axis=0)
    drawn = (np.take_along_axis(starts, begun, axis=0) + place - begun) % n_bars
    flat = (drawn + n_bars * np.arange(n)).ravel()
    return np.bincount(flat, minlength=n * n_bars).reshape(n, n_bars).astype(np.float64)


def _checked(one: Floats, two: Floats) -> NDArray[np.bool_]:
    if one.ndim != 2 or one.shape != two.shape or not one.size:
        raise DataError(f"returns of shapes {one.shape} and {two.shape}: expected (n_bars, n_pairs) twice")
    for name, values in (("first", one), ("second", two)):  # what is missing is NaN, and no infinity
        finite(np.where(np.isnan(values), 0.0, values), name, ndim=2)
    known = ~np.isnan(one)
    if not np.array_equal(known, ~np.isnan(two)):
        raise DataError("a bar is missing in one series of a pair only: expected the same bars in both")
    if (known.sum(axis=0) < 2).any():
        raise DataError("a pair of series has fewer than two bars in common")
    return known


def _differences(sums: Floats, statistic: Statistic) -> Floats:
    """Return the differences from sums of: known bars, first, its squares, second, its squares."""
    count, *parts = np.split(sums, 5, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [parts[0] / count, parts[2] / count]
        if statistic is Statistic.RETURN:
            return _plain(means[0] - means[1])
        ratios = []
        for mean, squares in zip(means, (parts[1], parts[3]), strict=True):
            variance = np.maximum(squares / count - mean**2, 0.0) * count / (count - 1.0)
            varies = variance > _TINY * mean**2
            ratios.append(np.where(varies, mean / np.sqrt(variance), 0.0))
    return _plain(ratios[0] - ratios[1])


def _plain(values: Floats) -> Floats:
    """Return values with 0 where a resample has no bar of a pair."""
    return np.where(np.isfinite(values), values, 0.0)
