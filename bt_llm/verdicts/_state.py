"""The market state of a bar, and the finite grid of buckets it falls into."""

from __future__ import annotations

import itertools
import keyword
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError
from bt_llm.settings import instance, number, several

__all__ = ["RSI", "TREND", "VOLATILITY", "Feature", "MarketState", "StateSpace"]

RESERVED = frozenset({"verdict", "confidence", "bullish", "bearish", "neutral", "age", "label"})
"""Line names of the advice indicator that a feature cannot take."""


class MarketState(Mapping[str, float]):
    """The numbers that describe one bar at its close, by feature name; immutable and hashable.

    Parameters
    ----------
    trend : float
        Slope of the EMA in ATR units a bar: ``(EMA[t] - EMA[t-k]) / (k * ATR[t])``.
    rsi : float
        Relative strength index, 0 to 100 (Wilder's smoothing).
    volatility : float
        ATR as a percentage of the close, over its own trailing median: 1 is normal.
    **others : float
        Any feature that a user's `StateSpace` adds.

    Examples
    --------
    >>> state = MarketState(trend=0.12, rsi=61.0, volatility=0.9)
    >>> state.rsi, state["trend"]
    (61.0, 0.12)
    """

    __slots__ = ("_values",)
    _values: dict[str, float]

    def __init__(self, **values: float) -> None:
        object.__setattr__(self, "_values", {name: float(value) for name, value in values.items()})

    def __getitem__(self, name: str) -> float:
        """Return the value of a feature."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the features' names."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of features."""
        return len(self._values)

    def __getattr__(self, name: str) -> float:
        """Return the value of a feature as an attribute."""
        if name == "_values":  # not there yet while unpickling
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"market state has no feature {name!r}, only {list(self._values)}") from None

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a state is a value."""
        raise AttributeError(f"a MarketState cannot be changed; cannot set {name!r}")

    def __reduce__(self) -> tuple[Callable[[dict[str, float]], MarketState], tuple[dict[str, float]]]:
        """Pickle as the plain numbers."""
        return _state_from_dict, (self._values,)

    def __hash__(self) -> int:
        """Hash the features and their values, whatever their order."""
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        """Return a call that makes the state again."""
        return f"MarketState({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"


def _state_from_dict(values: dict[str, float]) -> MarketState:
    return MarketState(**values)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One dimension of the state: bucket edges, and a label for each bucket.

    Parameters
    ----------
    name : str
        A Python identifier: the name of the indicator's line and of the template's variable.
    edges : sequence of float
        Strictly increasing. A value v is in bucket i when ``edges[i-1] <= v < edges[i]``.
    labels : sequence of str
        What the prompt says for each bucket; one more than the edges, all different.
    title : str, optional
        What the prompt calls the feature; by default the name, capitalised.
    indicator : callable, optional
        Takes a data feed and returns the line to bucket: an indicator class or a function at module
        level (it must pickle). Not needed for trend, rsi and volatility, which are built in.

    Examples
    --------
    >>> band = Feature(name="percent_b", title="Bollinger %B", edges=(0.0, 1.0),
    ...                labels=("below the band", "inside the band", "above the band"))
    >>> band.labels[band.bucket(1.2)]
    'above the band'
    """

    name: str
    edges: tuple[float, ...]
    labels: tuple[str, ...]
    title: str = ""
    indicator: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        """Check edges and labels, once."""
        for name in ("name", "title"):
            instance(name, getattr(self, name), str, "a text")
        what = f"feature {self.name!r}: "
        edges = several(f"{what}edges", self.edges, "numbers")
        object.__setattr__(self, "edges", tuple(number(f"{what}edge", edge) for edge in edges))
        object.__setattr__(self, "labels", several(f"{what}labels", self.labels, "texts"))
        for label in self.labels:
            instance(f"{what}label", label, str, "a text")
        if self.indicator is not None and not callable(self.indicator):
            raise ConfigError(f"{what}indicator={self.indicator!r:.60}: expected a function of a data feed")
        object.__setattr__(self, "title", self.title or self.name.replace("_", " ").capitalize())
        if not self.name.isidentifier() or keyword.iskeyword(self.name) or self.name in RESERVED:
            raise ConfigError(
                f"feature name {self.name!r}: expected a Python identifier that is not a keyword "
                f"nor one of {sorted(RESERVED)}"
            )
        if any(a >= b for a, b in itertools.pairwise(self.edges)):
            raise ConfigError(f"feature {self.name!r}: edges {self.edges} are not strictly increasing")
        if len(self.labels) != len(self.edges) + 1:
            raise ConfigError(
                f"feature {self.name!r}: {len(self.edges)} edges make {len(self.edges) + 1} buckets, "
                f"but there are {len(self.labels)} labels"
            )
        if len(set(self.labels)) != len(self.labels) or not all(
            label.strip() and label.isprintable() for label in self.labels
        ):
            raise ConfigError(
                f"feature {self.name!r}: labels {self.labels} must differ and be one printable line each"
            )

    def bucket(self, value: float) -> int:
        """Return the index of the bucket that holds `value`, or -1 if it is not finite."""
        return int(self.buckets(np.array([value]))[0])

    def buckets(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the bucket of each value, shape as given; -1 where it is not finite."""
        found = np.searchsorted(np.array(self.edges), values, side="right")
        return np.where(np.isfinite(values), found, -1)


TREND = Feature(
    name="trend",
    edges=(-0.12, -0.04, 0.04, 0.12),
    labels=("strong down", "down", "flat", "up", "strong up"),
)
RSI = Feature(
    name="rsi",
    title="RSI",
    edges=(20, 30, 45, 55, 70, 80),
    labels=("below 20", "20 to 30", "30 to 45", "45 to 55", "55 to 70", "70 to 80", "above 80"),
)
VOLATILITY = Feature(name="volatility", edges=(0.85, 1.2), labels=("low", "normal", "high"))


@dataclass(frozen=True, kw_only=True)
class StateSpace:
    """The grid of all states a prompt can describe: the product of the features' buckets.

    A state's *cell* is its number in that grid, counted with the last feature fastest (C order).

    Parameters
    ----------
    features : sequence of Feature
        By default volatility (3 buckets), RSI (7) and trend (5): 105 cells. The order is that of the
        prompt's lines: long lines with few values first make the least to decode.

    Examples
    --------
    >>> space = StateSpace()
    >>> len(space)
    105
    >>> cell = space.cell(MarketState(trend=0.2, rsi=60, volatility=1.0))
    >>> space.describe(cell)
    {'volatility': 'normal', 'rsi': '55 to 70', 'trend': 'strong up'}
    """

    features: tuple[Feature, ...] = field(default=(VOLATILITY, RSI, TREND))

    def __post_init__(self) -> None:
        """Check the names, once."""
        object.__setattr__(self, "features", several("features", self.features, "Feature"))
        for feature in self.features:
            instance("features", feature, Feature, "a list of Feature")
        if not self.features or len(set(self.names)) != len(self.features):
            raise ConfigError(f"state space with features {self.names}: expected at least one, all different")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of buckets of each feature."""
        return tuple(len(feature.labels) for feature in self.features)

    def __len__(self) -> int:
        """Return the number of cells."""
        return math.prod(self.shape)

    def __getitem__(self, name: str) -> Feature:
        """Return the feature of that name."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(f"state space has no feature {name!r}, only {list(self.names)}")

    def with_feature(self, feature: Feature) -> StateSpace:
        """Return a space with one more feature, or with the one of that name replaced."""
        kept = [feature if f.name == feature.name else f for f in self.features]
        return replace(self, features=tuple(kept if feature in kept else [*kept, feature]))

    def cell(self, state: Mapping[str, float]) -> int:
        """Return the cell of a state, or -1 if one of its numbers is not finite.

        Raises
        ------
        ConfigError
            If the state lacks a feature of this space.
        """
        if missing := [name for name in self.names if name not in state]:
            raise ConfigError(f"state {dict(state)} lacks {missing}; the state space has {list(self.names)}")
        return int(self.cells([np.array([state[name]]) for name in self.names])[0])

    def cells(self, columns: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
        """Return the cell of each bar.

        Parameters
        ----------
        columns : sequence of array of float
            One array a feature, in the space's order, all of shape (bars,).

        Returns
        -------
        array of int, shape (bars,)
            -1 where any feature is not finite.
        """
        buckets = [f.buckets(np.asarray(c)) for f, c in zip(self.features, columns, strict=True)]
        bad = np.any([b < 0 for b in buckets], axis=0)
        flat = np.ravel_multi_index([np.maximum(b, 0) for b in buckets], self.shape)
        return np.where(bad, -1, flat).astype(np.int64)

    def buckets(self, cell: int) -> tuple[int, ...]:
        """Return the bucket of each feature for a cell."""
        if not 0 <= cell < len(self):
            raise ConfigError(f"cell {cell}: expected 0 to {len(self) - 1}")
        return tuple(int(i) for i in np.unravel_index(cell, self.shape))

    def describe(self, cell: int) -> dict[str, str]:
        """Return the label of each feature for a cell, by name and in order."""
        pairs = zip(self.features, self.buckets(cell), strict=True)
        return {feature.name: feature.labels[bucket] for feature, bucket in pairs}

    def titles(self) -> dict[str, str]:
        """Return what the prompt calls each feature, by name and in order."""
        return {feature.name: feature.title for feature in self.features}
