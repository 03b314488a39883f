"""Random orders of answers that keep their runs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bt_llm.exceptions import ConfigError
from bt_llm.statistics._inputs import Floats, finite

__all__ = ["log_arrangements", "permute_blocks", "permute_runs", "volatility_strata"]

_TRAILING = 20


def permute_runs(answers: ArrayLike, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return answers of 0 and 1 with the same runs in a random order.

    The lengths of the runs of 1 and those of the runs of 0 are shuffled, and the two kinds take turns. The
    kind of which there is one more comes first; if there are as many of both, a coin says which. So the
    share of 1 and the run lengths are exactly those of `answers`, itself one of the equally likely outcomes.

    Parameters
    ----------
    answers : array_like of shape (n,)
        0 and 1, oldest first.
    rng : numpy.random.Generator
        Where chance comes from.

    Examples
    --------
    >>> permute_runs([1, 1, 1, 0, 0, 1], np.random.default_rng(0)).tolist()
    [1, 0, 0, 1, 1, 1]
    """
    values = np.asarray(answers, dtype=np.uint8)
    if not len(values):
        return values
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(values)]]))
    first = int(values[0])
    kinds = {kind: rng.permutation(lengths[kind != first :: 2])[::-1] for kind in (1, 0)}
    more = len(kinds[1]) - len(kinds[0])
    begins = int(more > 0) if more else int(rng.integers(2))
    order = np.empty(len(lengths), dtype=np.int64)
    order[::2], order[1::2] = kinds[begins], kinds[1 - begins]
    turns = (begins + np.arange(len(lengths))) % 2
    return np.repeat(turns, order).astype(np.uint8)


def log_arrangements(answers: ArrayLike) -> float:
    """Return the logarithm of how many different outcomes `permute_runs` has.

    Examples
    --------
    >>> round(math.exp(log_arrangements([1, 0, 1, 1, 0, 0]))), math.exp(log_arrangements([1, 1, 1]))
    (8, 1.0)
    """
    values = np.asarray(answers, dtype=np.uint8)
    if not len(values):
        return 0.0
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(values)]]))
    total = math.log(2.0) if len(lengths) % 2 == 0 else 0.0
    for kind in (lengths[::2], lengths[1::2]):
        total += math.lgamma(len(kind) + 1)
        total -= sum(math.lgamma(count + 1) for count in np.unique(kind, return_counts=True)[1].tolist())
    return total


def permute_blocks(
    blocks: ArrayLike, rng: np.random.Generator, strata: ArrayLike | None = None
) -> NDArray[np.intp]:
    """Return an order of rows in which whole blocks have changed places.

    The same labels and the same chance give the same order, so that all symbols of a panel move together:
    what they have in common on a date stays in common.

    Parameters
    ----------
    blocks : array_like of shape (n,)
        A label for each row, such as its month; a block is the rows of one label, together.
    rng : numpy.random.Generator
        Where chance comes from.
    strata : array_like of shape (n,), optional
        A label for each row; a block changes places with blocks that begin with the same label only.

    Returns
    -------
    ndarray of int, of shape (n,)
        Position of the row that comes at each place.

    Examples
    --------
    >>> permute_blocks([1, 1, 2, 2, 3, 3], np.random.default_rng(2)).tolist()
    [4, 5, 0, 1, 2, 3]
    """
    labels = np.asarray(blocks)
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    by_time = np.argsort(first)
    rows = [np.flatnonzero(place == block) for block in by_time]
    kinds = np.zeros(len(rows)) if strata is None else np.asarray(strata)[first[by_time]]
    order = np.arange(len(rows))
    for kind in np.unique(kinds):
        same = np.flatnonzero(kinds == kind)
        order[same] = rng.permutation(same)
    return np.concatenate([rows[block] for block in order]) if rows else np.zeros(0, dtype=np.intp)


def volatility_strata(closes: ArrayLike, groups: int, *, first: int = 0) -> NDArray[np.uint8]:
    """Return how much each bar's market moves, as one of several groups with as many bars each.

    It is the mean size of the last 20 returns, known at the bar's close.

    Parameters
    ----------
    closes : array_like of shape (n_bars,)
        Prices.
    groups : int
        1 to 255.
    first : int
        Position of the first bar that counts; earlier ones are in the group that they would be in.

    Raises
    ------
    ConfigError
        If the number of groups is out of range.
    DataError
        If a price is not finite.

    Examples
    --------
    >>> closes = np.cumsum([1.0] * 60 + [5.0] * 60) + 1000
    >>> volatility_strata(closes, 2, first=20)[[30, 110]].tolist()
    [0, 1]
    """
    if not 1 <= groups <= 255:
        raise ConfigError(f"groups={groups!r}: expected 1 to 255")
    prices = finite(closes, "closes")
    before = np.concatenate([prices[:1], prices[:-1]])
    moves = np.abs(np.divide(prices - before, before, out=np.zeros_like(prices), where=before != 0.0))
    size = _trailing_mean(moves)
    if groups == 1 or first >= len(size):
        return np.zeros(len(size), dtype=np.uint8)
    edges = np.quantile(size[first:], np.arange(1, groups) / groups)
    return np.searchsorted(edges, size, side="left").astype(np.uint8)


def _trailing_mean(values: Floats) -> Floats:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - _TRAILING)
    found: Floats = (sums[stop] - sums[start]) / (stop - start)
    return found
