"""Which cells of a state space a prior is the mean over: all of them, or of a large space a fixed sample.

The sample are the first points of a Halton sequence, each point's coordinates read as buckets: the coordinate
of the n-th point in dimension i is n written in the i-th prime, its digits mirrored at the point and each
scrambled by ``(factor * digit + shift) % prime``. Such points spread over a space, and over any two of its
features, more evenly than random ones, and the mean over them is closer to the mean over all.

They know nothing of bars: factors and shifts are a hash of the words in which the space is told to a model.
All is computed in whole numbers, and therefore the same on every machine.

Sources: Halton 1960, "On the efficiency of certain quasi-random sequences of points"; Faure & Lemieux 2009,
"Generalized Halton sequences in 2008", on scrambling by factors.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import struct
from collections.abc import Iterator, Sequence

from bt_llm.plain_json import canonical_json
from bt_llm.verdicts._state import StateSpace

__all__ = ["PRIOR_CELLS", "prior_cells", "prior_source"]

PRIOR_CELLS = 512
"""Cells of a state space that its prior comes from, at most.

Calibrated verdicts on larger spaces depend on it, and on the sequence: change neither without need.
"""

_FINE = 2**32  # parts that a coordinate is told apart in, at least


def prior_cells(space: StateSpace, most: int = PRIOR_CELLS) -> Sequence[int]:
    """Return the cells over which the mean raw verdict is the prior of a grid, ascending.

    Parameters
    ----------
    space : StateSpace
        The grid.
    most : int
        How many, at most: all of a space of so many cells, and of a larger one a sample that depends on what
        its features and buckets are called alone. Moving an edge asks nothing new.

    Examples
    --------
    >>> len(prior_cells(StateSpace()))
    105
    >>> prior_cells(StateSpace(), most=6)
    (11, 15, 66, 68, 79, 92)
    """
    if len(space) <= most:
        return range(len(space))
    words = canonical_json([[feature.name, feature.title, *feature.labels] for feature in space.features])
    return _sample(space.shape, words, most)


def prior_source(space: StateSpace) -> str:
    """Return what a prior of a grid is the mean over, in words.

    Examples
    --------
    >>> prior_source(StateSpace())
    'all 105 market states'
    """
    used, count = len(prior_cells(space)), len(space)
    if used == count:
        return f"all {count:,} market states"
    return f"a sample of {used:,} of {count:,} market states"


@functools.lru_cache(maxsize=32)
def _sample(shape: tuple[int, ...], words: str, count: int) -> tuple[int, ...]:
    """Return the first distinct cells of the sequence; every cell has the same share of its points."""
    scrambles, found, number = _scrambles(len(shape), words), set[int](), 0
    while len(found) < count:
        cell = 0
        for size, (prime, digits) in zip(shape, scrambles, strict=True):
            cell = cell * size + size * _mirrored(number, prime, digits) // prime ** len(digits)
        found.add(cell)
        number += 1
    return tuple(sorted(found))


def _mirrored(number: int, prime: int, digits: Sequence[tuple[int, int]]) -> int:
    """Return a number with its last digit first, each scrambled by its factor and shift."""
    mirrored = 0
    for factor, shift in digits:
        number, digit = divmod(number, prime)
        mirrored = mirrored * prime + (factor * digit + shift) % prime
    return mirrored


def _scrambles(dimensions: int, words: str) -> list[tuple[int, list[tuple[int, int]]]]:
    """Return the prime of each dimension, and a factor and a shift for each of its digits."""
    found = []
    for prime in itertools.islice(_primes(), dimensions):
        count = next(digits for digits in itertools.count(1) if prime**digits >= _FINE)
        drawn = hashlib.shake_256(f"{prime} {words}".encode()).digest(8 * count)
        draws = struct.iter_unpack(">II", drawn)
        found.append((prime, [(1 + one % (prime - 1), other % prime) for one, other in draws]))
    return found


def _primes() -> Iterator[int]:
    known: list[int] = []
    for number in itertools.count(2):
        if all(number % prime for prime in known):
            known.append(number)
            yield number
