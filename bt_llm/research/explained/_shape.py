"""The shape of a policy: whether it goes one way along each feature, and whether its two sides are alike."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bt_llm.verdicts import StateSpace

__all__ = ["Monotonicity", "Symmetry", "monotonicity", "symmetry"]

Floats = NDArray[np.float64]

_SIDED = ("trend", "rsi")
"""Built-in features whose low end is to the short side what the high end is to the long one."""

_TINY = 1e-12
_EVEN = 0.005  # less is told as 0.00


@dataclass(frozen=True, kw_only=True)
class Monotonicity:
    """Whether answers go one way along a feature.

    Attributes
    ----------
    feature, title : str
        Which.
    direction : str
        ``up`` if the answers' worth rises with it more often than it falls, ``down`` if less often, else
        ``neither``.
    pairs : int
        Neighbouring cells that differ in it alone, both with a valid answer.
    changed : int
        Of these, those with answers of different worth.
    against : int
        Of these, those that go against the direction.
    bias_against : int
        Of all pairs, those whose expected worth goes against it.
    """

    feature: str
    title: str
    direction: str
    pairs: int
    changed: int
    against: int
    bias_against: int

    @property
    def sentence(self) -> str:
        """It in words."""
        if not self.changed:
            return f"{self.title}: the answer never changes along it."
        if self.direction == "neither":
            return f"{self.title}: the answers rise as often as they fall, {self.against} times each."
        way, other = ("bullish", "bearish") if self.direction == "up" else ("bearish", "bullish")
        if not self.against:
            return f"{self.title}: the higher, the more {way}, without exception."
        return (
            f"{self.title}: not one way; one bucket higher, {self.changed - self.against} of "
            f"{self.changed} changes are to the more {way} and {self.against} to the more {other}."
        )


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """Whether a policy says of a mirrored state the opposite.

    Attributes
    ----------
    features : tuple of str
        Those that are mirrored.
    pairs : int
        Cells and their mirror images, each two once; a cell that is its own image is a pair with itself.
    opposite : int
        Of these, those whose answers are worth the opposite; of a cell with itself, nothing.
    lean : float
        Mean expected worth over all cells: of a policy that treats both sides alike, 0.
    """

    features: tuple[str, ...]
    pairs: int
    opposite: int
    lean: float

    @property
    def sentence(self) -> str:
        """It in words."""
        leans = f"on average it leans {abs(self.lean):.2f} to the {'long' if self.lean > 0 else 'short'} side"
        if abs(self.lean) < _EVEN:
            leans = "on average it leans to neither side"
        return (
            f"Long and short: on {self.opposite} of {self.pairs} pairs of a state and its mirror image "
            f"({' and '.join(self.features)} turned round) it says the opposite; {leans}."
        )


def monotonicity(space: StateSpace, worths: Floats, bias: Floats) -> list[Monotonicity]:
    """Return it of each feature, from the answers' worths and the expected worths, in the space's shape."""
    found = []
    for axis, feature in enumerate(space.features):
        steps, leans = np.diff(worths, axis=axis), np.diff(bias, axis=axis)
        up, down = int((steps > 0).sum()), int((steps < 0).sum())
        direction = "up" if up > down else "down" if down > up else "neither"
        sign = {"up": 1.0, "down": -1.0, "neither": 0.0}[direction]
        found.append(
            Monotonicity(
                feature=feature.name,
                title=feature.title,
                direction=direction,
                pairs=int(np.isfinite(steps).sum()),
                changed=up + down,
                against=min(up, down),
                bias_against=int((sign * leans < -_TINY).sum()),
            )
        )
    return found


def symmetry(space: StateSpace, worths: Floats, bias: Floats) -> Symmetry | None:
    """Return it of the built-in features with two sides whose buckets lie evenly about their middle."""
    axes = tuple(
        axis
        for axis, feature in enumerate(space.features)
        if feature.name in _SIDED and _is_even(feature.edges)
    )
    if not axes:
        return None
    turned = np.flip(worths, axis=axes)
    opposite = worths == -turned
    numbers = np.arange(worths.size, dtype=np.float64).reshape(worths.shape)
    once = numbers <= np.flip(numbers, axis=axes)
    return Symmetry(
        features=tuple(space.features[axis].title for axis in axes),
        pairs=int(once.sum()),
        opposite=int((opposite & once).sum()),
        lean=float(np.nanmean(bias)) if np.isfinite(bias).any() else 0.0,
    )


def _is_even(edges: tuple[float, ...]) -> bool:
    sums = [low + high for low, high in zip(edges, reversed(edges), strict=True)]
    return all(abs(one - two) < 1e-9 for one, two in itertools.pairwise(sums))
