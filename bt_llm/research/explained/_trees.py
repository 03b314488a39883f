"""Decision trees over a grid of cells that are the best there are, not the best that a greedy search finds.

A node of a tree over a grid is a box: a stretch of buckets of each feature. There are few of them (2,520 of
the 105 cells), so that the best tree of each box follows from those of the smaller ones: dynamic programming,
as Demirovic et al. solve the problem that Bertsimas and Dunn put, without their bounds. Of several best ones
it is the one whose first cut is on the first feature and at the lowest bucket.

References
----------
D. Bertsimas and J. Dunn, "Optimal Classification Trees", Machine Learning 106, 2017. E. Demirovic et al.,
"MurTree: Optimal Decision Trees via Dynamic Programming and Search", JMLR 23, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError

__all__ = ["MOST_BOXES", "Cut", "Leaf", "Tree", "best_tree", "smallest_tree"]

MOST_BOXES = 100_000
"""Boxes of a grid whose trees are searched through."""

Box: TypeAlias = tuple[tuple[int, int], ...]
"""Of each feature the first bucket, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where a tree ends: the cells of a box, and their answer."""

    box: Box
    answer: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a tree parts: buckets of a feature below `bucket`, and from it on."""

    feature: int
    bucket: int
    below: Tree
    above: Tree


Tree: TypeAlias = Leaf | Cut


class _Best(NamedTuple):
    """How good the best tree of a box is, less is better; and its first cut, if any."""

    errors: int
    leaves: int
    depth: int
    feature: int = -1
    bucket: int = -1


class _Search:
    """Finds the best tree of every box of a grid, of a depth at most."""

    def __init__(self, answers: NDArray[np.int64]) -> None:
        self.shape = answers.shape
        boxes = math.prod(size * (size + 1) // 2 for size in self.shape)
        if boxes > MOST_BOXES:
            raise ConfigError(
                f"{math.prod(self.shape):,} cells in {boxes:,} boxes: the smallest tree is searched for "
                f"among at most {MOST_BOXES:,}; expected a state space with fewer features or buckets"
            )
        self.kinds = np.unique(answers).tolist()
        sums = []
        for kind in self.kinds:  # of each kind, how many there are below every corner
            table = np.zeros([size + 1 for size in self.shape], dtype=np.int64)
            table[(slice(1, None),) * len(self.shape)] = answers == kind
            for axis in range(len(self.shape)):
                table = np.cumsum(table, axis=axis)
            sums.append(table)
        self._sums = np.stack(sums, axis=-1)
        self._known: dict[tuple[Box, int], _Best] = {}
        self._counts: dict[Box, tuple[int, ...]] = {}

    @property
    def whole(self) -> Box:
        return tuple((0, size) for size in self.shape)

    def counts(self, box: Box) -> tuple[int, ...]:
        """Return how many cells of each kind a box has."""
        if (found := self._counts.get(box)) is None:
            total = np.zeros(len(self.kinds), dtype=np.int64)
            for corner in range(1 << len(box)):
                place = tuple(end[corner >> axis & 1] for axis, end in enumerate(box))
                lower = len(box) - corner.bit_count()
                total += (-1) ** lower * self._sums[place]
            found = self._counts[box] = tuple(total.tolist())
        return found

    def cuts(self, box: Box) -> Iterator[tuple[int, int, Box, Box]]:
        """Yield feature and bucket of each cut, and the two boxes."""
        for feature, (low, high) in enumerate(box):
            for bucket in range(low + 1, high):
                below, above = ((low, bucket),), ((bucket, high),)
                yield (
                    feature,
                    bucket,
                    box[:feature] + below + box[feature + 1 :],
                    box[:feature] + above + box[feature + 1 :],
                )

    def best(self, box: Box, depth: int) -> _Best:
        """Return the best of the trees of a box: fewest cells told wrongly, then leaves, then depth."""
        if (found := self._known.get((box, depth))) is not None:
            return found
        counts = self.counts(box)
        found = _Best(sum(counts) - max(counts), 1, 0)
        if depth and found.errors:
            for feature, bucket, below, above in self.cuts(box):
                one, two = self.best(below, depth - 1), self.best(above, depth - 1)
                made = _Best(
                    one.errors + two.errors,
                    one.leaves + two.leaves,
                    1 + max(one.depth, two.depth),
                    feature,
                    bucket,
                )
                if made[:3] < found[:3]:
                    found = made
        self._known[box, depth] = found
        return found

    def tree(self, box: Box, depth: int) -> Tree:
        """Return that tree."""
        found = self.best(box, depth)
        if found.feature < 0:
            counts = self.counts(box)
            return Leaf(box, self.kinds[counts.index(max(counts))])
        halves = next(
            (below, above)
            for feature, bucket, below, above in self.cuts(box)
            if (feature, bucket) == (found.feature, found.bucket)
        )
        below, above = (self.tree(half, depth - 1) for half in halves)
        return Cut(found.feature, found.bucket, below, above)


def best_tree(answers: NDArray[np.int64], depth: int) -> Tree:
    """Return the tree of a depth at most that agrees on most cells; of such, one with the fewest leaves.

    Parameters
    ----------
    answers : array of int
        One a cell, in the shape of the grid. Of as common ones a leaf has the least.
    depth : int
        Cuts in a row, at most.

    Raises
    ------
    ConfigError
        If the grid has too many boxes.

    Examples
    --------
    >>> best_tree(np.array([[0, 0, 1], [0, 0, 2]]), 1)
    Cut(feature=1, bucket=2, below=Leaf(box=((0, 2), (0, 2)), answer=0), above=Leaf(box=((0, 2), ...
    """
    search = _Search(answers)
    return search.tree(search.whole, depth)


def smallest_tree(answers: NDArray[np.int64]) -> Tree:
    """Return the tree with the fewest leaves that agrees on every cell; of such, the least deep.

    Examples
    --------
    >>> tree = smallest_tree(np.array([[0, 0, 1], [0, 0, 2]]))
    >>> len(list(leaves(tree))), depth_of(tree)
    (3, 2)
    """
    search = _Search(answers)
    return search.tree(search.whole, sum(size - 1 for size in search.shape))


def leaves(tree: Tree) -> Iterator[Leaf]:
    """Yield the leaves, from below to above."""
    if isinstance(tree, Leaf):
        yield tree
    else:
        yield from leaves(tree.below)
        yield from leaves(tree.above)


def depth_of(tree: Tree) -> int:
    """Return the number of cuts in a row, at most."""
    return 0 if isinstance(tree, Leaf) else 1 + max(depth_of(tree.below), depth_of(tree.above))


def told(tree: Tree, shape: Sequence[int]) -> NDArray[np.int64]:
    """Return what a tree says of every cell."""
    found = np.empty(shape, dtype=np.int64)
    for leaf in leaves(tree):
        found[tuple(slice(low, high) for low, high in leaf.box)] = leaf.answer
    return found
