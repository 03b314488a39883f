"""What a Sharpe ratio or a mean of several series is made of, bar by bar."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError
from bt_llm.statistics._blocks import Functional, arch_bootstrap
from bt_llm.statistics._inputs import Floats
from bt_llm.statistics._overfitting import Statistic

__all__ = ["FLAT", "block_length_of", "columns_of", "differences", "influence_of"]

FLAT = 1e-12
"""What is smaller, in proportion, is rounding."""

_FEWEST_BARS = 30
_FEWEST_BLOCKS = 20


def columns_of(x: Floats, statistic: Statistic) -> Floats:
    """Return the columns whose means a statistic is worked out from: the series, and their squares."""
    return np.concatenate([x, x**2], axis=1) if statistic is Statistic.SHARPE else x


def _with_gradient(means: Floats, statistic: Statistic, bars: int) -> tuple[Floats, Floats, Floats]:
    """Return a statistic of each series from the columns' means, and its derivatives by them."""
    if statistic is Statistic.RETURN:
        return means, np.ones_like(means), np.zeros_like(means)
    mean, square = np.split(means, 2, axis=-1)
    variance = square - mean**2
    varies = variance > FLAT * square
    root = np.sqrt(np.where(varies, variance, 1.0))
    unbiased = math.sqrt((bars - 1) / bars)
    return (
        np.where(varies, unbiased * mean / root, 0.0),
        np.where(varies, unbiased * square / root**3, 0.0),
        np.where(varies, -unbiased * mean / (2.0 * root**3), 0.0),
    )


def influence_of(x: Floats, statistic: Statistic) -> tuple[Floats, Floats]:
    """Return the statistic of each column, and what each bar adds to it: its mean is zero."""
    means = columns_of(x, statistic).mean(axis=0)
    value, by_mean, by_square = _with_gradient(means, statistic, len(x))
    m1 = x.mean(axis=0)
    return value, by_mean * (x - m1) + by_square * (x**2 - (x**2).mean(axis=0))


def differences(
    statistic: Statistic, bars: int, first: NDArray[np.intp], second: NDArray[np.intp]
) -> Functional:
    """Return the differences of pairs of series as a function of the columns' means."""
    pairs = np.arange(len(first))

    def functional(means: Floats) -> tuple[Floats, Floats]:
        value, by_mean, by_square = _with_gradient(means, statistic, bars)
        parts = [by_mean, by_square] if statistic is Statistic.SHARPE else [by_mean]
        series = by_mean.shape[-1]
        gradients = np.zeros((*means.shape[:-1], len(first), means.shape[-1]))
        for place, part in enumerate(parts):
            gradients[..., pairs, place * series + first] += part[..., first]
            gradients[..., pairs, place * series + second] -= part[..., second]
        return value[..., first] - value[..., second], gradients

    return functional


def block_length_of(parts: Floats) -> int:
    """Return the bars of a block for what several differences are made of; see `stepwise_differences`."""
    if len(parts) < _FEWEST_BARS:
        raise ConfigError(
            f"{len(parts)} bars are too few to choose a block length from, expected at least "
            f"{_FEWEST_BARS}: give block_length"
        )
    rule = arch_bootstrap("a block length that is chosen").optimal_block_length
    wanted = np.ones((2, parts.shape[1]))
    for row, columns in enumerate((parts, parts**2)):
        varies = np.ptp(columns, axis=0) > 0.0
        if varies.any():
            # A series that stops varying halfway divides by zero in the rule, which then asks for nothing.
            with np.errstate(all="ignore"):
                lengths = rule(columns[:, varies])["circular"].to_numpy()
            wanted[row, varies] = np.where(np.isfinite(lengths), lengths, 1.0)
    # The largest of many noisy lengths would grow with the number of pairs: the mean does not.
    length = math.ceil(float(wanted.max(axis=0).mean()))
    return min(max(length, 1), max(1, len(parts) // _FEWEST_BLOCKS))
