"""Random orders of answers that keep their runs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bt_llm.exceptions import DataError
from bt_llm.settings import instance
from bt_llm.statistics._inputs import plain_array

__all__ = ["log_arrangements", "permute_runs"]


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
    values = _zeros_and_ones(answers)
    instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
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


def _zeros_and_ones(answers: ArrayLike) -> NDArray[np.uint8]:
    """Return answers; numbers between are no answers, and a cast would make them 0.

    Raises
    ------
    DataError
        If they are not all 0 or 1.
    """
    given = plain_array(answers, "answers")
    if given.ndim != 1 or given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all():
        raise DataError(f"answers of shape {given.shape} and type {given.dtype}: expected one row of 0 and 1")
    return given.astype(np.uint8)


def log_arrangements(answers: ArrayLike) -> float:
    """Return the logarithm of how many different outcomes `permute_runs` has.

    Examples
    --------
    >>> round(math.exp(log_arrangements([1, 0, 1, 1, 0, 0]))), math.exp(log_arrangements([1, 1, 1]))
    (8, 1.0)
    """
    values = _zeros_and_ones(answers)
    if not len(values):
        return 0.0
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(values)]]))
    total = math.log(2.0) if len(lengths) % 2 == 0 else 0.0
    for kind in (lengths[::2], lengths[1::2]):
        total += math.lgamma(len(kind) + 1)
        total -= sum(math.lgamma(count + 1) for count in np.unique(kind, return_counts=True)[1].tolist())
    return total
