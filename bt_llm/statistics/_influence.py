"""What a Sharpe ratio or a mean is made of, bar by bar, and its resampling in blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError, MissingExtraError
from bt_llm.statistics._inputs import Floats
from bt_llm.statistics._overfitting import Statistic

__all__ = ["FLAT", "arch_bootstrap", "block_length_of", "standard_errors", "statistics_of", "studentised"]

FLAT = 1e-12
"""What is smaller, in proportion, is rounding."""

_FEWEST_BARS = 30
_FEWEST_BLOCKS = 20
_AT_A_TIME = 2_000_000  # numbers drawn at once, so that memory stays small


def _gradient(
    m1: Floats, m2: Floats, statistic: Statistic, bars: int, floor: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return a statistic from the first two moments, and its derivatives by them."""
    if statistic is Statistic.RETURN:
        return m1, np.ones_like(m1), np.zeros_like(m1)
    variance = m2 - m1**2
    varies = variance > floor
    root = np.sqrt(np.where(varies, variance, 1.0))
    unbiased = math.sqrt((bars - 1) / bars)
    value = np.where(varies, unbiased * m1 / root, 0.0)
    return (
        value,
        np.where(varies, unbiased * m2 / root**3, 0.0),
        np.where(varies, -unbiased * m1 / (2.0 * root**3), 0.0),
    )


def statistics_of(x: Floats, statistic: Statistic) -> tuple[Floats, Floats]:
    """Return the statistic of each column, and what each bar adds to it (its influence)."""
    m1, m2 = x.mean(axis=0), (x**2).mean(axis=0)
    value, by_mean, by_square = _gradient(m1, m2, statistic, len(x), FLAT * m2)
    return value, by_mean * (x - m1) + by_square * (x**2 - m2)


def standard_errors(parts: Floats, length: int) -> Floats:
    """Return the standard error of the mean of each column, by the sums of all blocks of a length."""
    sums = _block_sums(parts, length)
    blocks = max(1, len(parts) // length)
    errors: Floats = np.sqrt((sums**2).mean(axis=0) / (blocks * length**2))
    return errors


def _block_sums(x: Floats, length: int) -> Floats:
    """Return the sum over each block of so many bars, one that begins at each bar, in a circle."""
    around = np.concatenate([x, x[: length - 1]])
    total: Floats = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(around, axis=0)])
    return total[length:] - total[:-length]


def studentised(
    x: Floats,
    statistic: Statistic,
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    length: int,
    n: int,
    seed: int,
) -> Floats:
    """Return the studentised error of each pair's difference in each resample."""
    first, second = pairs
    bars, columns = x.shape
    blocks = max(1, bars // length)
    drawn = blocks * length
    centre = x.mean(axis=0)
    sums = _block_sums(np.concatenate([x - centre, (x - centre) ** 2], axis=1), length)
    floor = FLAT * (x**2).mean(axis=0)
    # What the resamples scatter about: with whole blocks in a circle each bar is as likely as any other.
    truth, _ = statistics_of(x, statistic)
    rng = np.random.default_rng([seed, length])
    out = np.empty((n, len(first)))
    step = max(1, _AT_A_TIME // (blocks * 2 * columns))
    for start in range(0, n, step):
        count = min(step, n - start)
        chosen = sums[rng.integers(0, bars, (count, blocks))]
        b1, b2 = chosen[..., :columns], chosen[..., columns:]
        c1, c2 = b1.sum(axis=1) / drawn, b2.sum(axis=1) / drawn
        m1, m2 = c1 + centre, c2 + 2.0 * centre * c1 + centre**2
        value, by_mean, by_square = _gradient(m1, m2, statistic, bars, floor)
        # The influence of a block, by moments about the sample's mean.
        slope = (by_mean + 2.0 * centre * by_square)[:, None, :]
        part = slope * (b1 - length * c1[:, None, :]) + by_square[:, None, :] * (b2 - length * c2[:, None, :])
        difference = value[:, first] - value[:, second] - (truth[first] - truth[second])
        spread = np.sqrt(((part[..., first] - part[..., second]) ** 2).sum(axis=1)) / drawn
        out[start : start + count] = np.divide(
            difference, spread, out=np.zeros_like(difference), where=spread > 0.0
        )
    return out


def block_length_of(parts: Floats) -> int:
    """Return the bars of a block for what several differences are made of; see `stepwise_differences`."""
    if len(parts) < _FEWEST_BARS:
        raise ConfigError(
            f"{len(parts)} bars are too few to choose a block length from, expected at least "
            f"{_FEWEST_BARS}: give block_length"
        )
    rule = arch_bootstrap("stepwise_differences").optimal_block_length
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


def arch_bootstrap(needed_by: str) -> Any:
    """Return ``arch.bootstrap``.

    Raises
    ------
    MissingExtraError
        If ``arch`` is not installed.
    """
    try:
        import arch.bootstrap
    except ImportError:
        raise MissingExtraError(
            f"{needed_by} needs the package arch, which is not installed: run pip install 'bt-llm[research]'"
        ) from None
    return arch.bootstrap
