"""The studentised circular block bootstrap of functions of means: the one engine behind every interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.exceptions import ConfigError, DataError, MissingExtraError
from bt_llm.settings import whole
from bt_llm.statistics._inputs import Floats, codes_of, plain_array

__all__ = ["Functional", "Resampled", "arch_bootstrap", "automatic_block_length", "resample", "together"]

Functional: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]
"""From means, of shape (..., columns), to m numbers (..., m) and their gradients (..., m, columns)."""

_MIN_BARS = 30
_FEWEST_BLOCKS = 8
"""Fewer blocks in a resample have no spread worth dividing by."""
_CHUNK = 2_000_000
_FLOOR = 0.25
"""Least standard error of a resample, as a share of the sample's: one that drew a single trade has none."""


class Resampled(NamedTuple):
    """What was estimated, and what resampling gave; one row a number that is estimated.

    Attributes
    ----------
    estimates, errors : ndarray of shape (m,)
        The numbers, and their standard errors.
    draws : ndarray of shape (m, n)
        Each resample's number less the estimate, over its own standard error.
    scales : ndarray of shape (m, n)
        These standard errors.
    """

    estimates: Floats
    errors: Floats
    draws: Floats
    scales: Floats


def resample(
    columns: Floats,
    functional: Functional,
    *,
    length: int,
    n: int,
    seed: int,
    studentised: bool = True,
) -> Resampled:
    """Resample blocks of rows, all columns together.

    Parameters
    ----------
    columns : ndarray of shape (n_bars, n_columns)
        One row a bar (a date, of a panel).
    functional : Functional
        What is estimated, from the columns' means.
    length : int
        Of a block, in rows.
    n, seed : int
        How many resamples, and where chance comes from.
    studentised : bool
        Whether each resample's number is divided by its own standard error, or all by the sample's.

    Notes
    -----
    Blocks start anywhere and go round the end, so that every row is drawn as often. The standard error of a
    resample comes from its own blocks, and that of the sample from all blocks there are, so that both are the
    same thing; Goetze and Kuensch (1996), Ledoit and Wolf (2008, section 3.2.2).
    """
    bars, width = columns.shape
    centre = columns.mean(axis=0)
    sums = _block_sums(columns - centre, length)
    estimates, gradients = functional(centre)
    influence = sums @ gradients.T
    errors = np.sqrt(np.mean(influence**2, axis=0) / length / bars)
    blocks = max(2, bars // length)
    rng = np.random.default_rng(whole("seed", seed, 0))
    draws, scales = np.empty((2, len(estimates), n))
    step = max(1, _CHUNK // (blocks * width))
    for start in range(0, n, step):
        count = min(step, n - start)
        chosen = sums[rng.integers(0, bars, (count, blocks))]
        means = chosen.mean(axis=1) / length
        values, gradients = functional(centre + means)
        moved, scale = values - estimates, np.broadcast_to(errors, values.shape)
        if studentised:
            spread = (chosen - length * means[:, None, :]) @ gradients.swapaxes(1, 2)
            own = np.sqrt(np.sum(spread**2, axis=1) * blocks / (blocks - 1)) / (blocks * length)
            scale = np.maximum(own, _FLOOR * errors)
        draws[:, start : start + count] = np.divide(
            moved, scale, out=np.zeros_like(moved), where=scale > 0.0
        ).T
        scales[:, start : start + count] = scale.T
    return Resampled(estimates, errors, draws, scales)


def _block_sums(columns: Floats, length: int) -> Floats:
    """Return the sum of each block of rows, by its first row."""
    round_the_end = np.concatenate([columns, columns[: length - 1]])
    sums = np.cumsum(np.concatenate([np.zeros((1, columns.shape[1])), round_the_end]), axis=0)
    found: Floats = sums[length:] - sums[:-length]
    return found


def automatic_block_length(columns: Floats) -> int:
    """Return the longest block that Politis and White's rule asks for in the columns and in their squares.

    Returns have little memory, and their size has much: it is that which an interval has to live with.

    Raises
    ------
    ConfigError
        If there are fewer than 30 rows.
    MissingExtraError
        If ``arch`` is not installed.
    """
    bars = len(columns)
    if bars < _MIN_BARS:
        raise ConfigError(
            f"{bars} bars are too few to choose a block length from, expected at least {_MIN_BARS}: "
            f"give block_length"
        )
    series = np.column_stack([columns, (columns - columns.mean(axis=0)) ** 2])
    varying = series[:, np.ptp(series, axis=0) > 0.0]
    if not varying.shape[1]:
        return 1
    # A series that stops varying halfway divides by zero in the rule, which then asks for nothing.
    with np.errstate(all="ignore"):
        lengths = arch_bootstrap("paired_bootstrap").optimal_block_length(varying)["circular"].to_numpy()
    longest = max((float(length) for length in lengths if math.isfinite(length)), default=1.0)
    return min(max(math.ceil(longest), 1), max(1, bars // _FEWEST_BLOCKS))


def together(columns: Floats, blocks: ArrayLike) -> Floats:
    """Return the sum of the rows of each label, in the order in which labels come first.

    Rows of one label, such as all symbols' bars of one date, then move together in every resample.

    Raises
    ------
    DataError
        If there is not one label a row, or one is missing.

    Examples
    --------
    >>> together(np.array([[1.0], [2.0], [4.0]]), ["a", "b", "a"]).ravel().tolist()
    [5.0, 2.0]
    """
    labels = plain_array(blocks, "blocks")
    if labels.shape != (len(columns),):
        raise DataError(f"blocks of shape {labels.shape}: expected one label for each of {len(columns)} rows")
    place = codes_of(labels, "blocks")
    summed = np.zeros((place.max(initial=-1) + 1, columns.shape[1]))
    np.add.at(summed, place, columns)
    return summed


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
