"""Do forecasts follow what came, beyond what was seen? Outcomes exchanged among bars that looked alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bt_llm.equality import nan_equal
from bt_llm.exceptions import DataError
from bt_llm.settings import in_short, is_number, python_scalar, several, whole
from bt_llm.statistics._inputs import (
    MOST_RESAMPLES,
    Floats,
    between,
    by_name,
    codes_of,
    finite,
    normal_quantile,
)

__all__ = ["Exchange", "exchange_test", "holm"]


@nan_equal
@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Whether weights follow outcomes among bars that looked alike.

    Attributes
    ----------
    correlation : float
        Of weights and outcomes, each less the mean of its stratum; NaN where nothing varies.
    p_value : float
        One-sided: how often exchanged outcomes correlate as much, 1 where no weight varies in any stratum.
    smallest : float
        The least p-value that these bars could have given.
    detectable : float
        The correlation that would have been found in four of five such tests.
    n : int
        Bars in strata of two or more.
    moving : int
        Of these, in strata in which the weight varies.
    """

    correlation: float
    p_value: float
    smallest: float
    detectable: float
    n: int
    moving: int


def exchange_test(
    weights: Mapping[str, ArrayLike],
    outcome: ArrayLike,
    strata: Sequence[int] | NDArray[np.int64],
    *,
    n: int = 999,
    seed: int = 0,
    alpha: float = 0.05,
) -> dict[str, Exchange]:
    """Test whether each of several weights is larger where the outcome is, among bars that looked alike.

    Parameters
    ----------
    weights : mapping of str to array of shape (bars,)
        What may follow the outcomes.
    outcome : array of shape (bars,)
        What came after each bar. Outcomes of two bars should not overlap.
    strata : sequence of int, shape (bars,)
        Which bars looked alike: outcomes are exchanged only among these.
    n : int
        Exchanges that are drawn, the same ones for every weight.
    seed : int
        Where chance comes from.
    alpha : float
        Level that `Exchange.detectable` is worked out for.

    Raises
    ------
    DataError
        If there are no bars, they differ in number or a value is not finite.
    ConfigError
        If a setting is out of range.

    Notes
    -----
    A conditional permutation test: if a weight is a function of what was seen of a bar, and of anything that
    does not depend on what came, every exchange of outcomes among bars that looked alike is as likely as the
    real one, and p is exact whatever outcomes are distributed like. A weight that is a function of what was
    seen alone is the same on all of them, and p is 1. The test is not exact if both weights and outcomes
    wander slowly over time.

    References
    ----------
    T. B. Berrett, Y. Wang, R. F. Barber, R. J. Samworth, "The Conditional Permutation Test for Independence
    While Controlling for Confounders", Journal of the Royal Statistical Society B 82(1), 2020.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> came, looked = rng.normal(size=200), rng.integers(0, 5, 200)
    >>> said = {"knows": np.sign(came), "guesses": rng.normal(size=200), "reasons": looked}
    >>> {name: one.p_value for name, one in exchange_test(said, came, looked).items()}
    {'knows': 0.001, 'guesses': 0.95, 'reasons': 1.0}
    """
    came = finite(outcome, "outcome", minimum=1)
    groups = codes_of(several("strata", strata, "labels"), "strata")
    given = by_name(weights, "weights", "what may follow the outcomes")
    rows = {name: finite(row, str(name)) for name, row in given.items()}
    if not rows:
        raise DataError("weights: expected at least one")
    for name, row in (("strata", groups), *rows.items()):
        if len(row) != len(came):
            raise DataError(f"{name}: {len(row)} bars, expected {len(came)} as outcome has")
    draws, level = whole("n", n, 1, MOST_RESAMPLES), between(alpha, 1e-15, 1.0, "alpha")
    sizes = np.bincount(groups)
    residual = _within(came, groups, sizes)
    moved = {name: _within(row, groups, sizes) for name, row in rows.items()}
    matrix = np.stack(list(moved.values()))
    sums = matrix @ residual
    drawn = np.concatenate([matrix @ part.T for part in _exchanged(residual, groups, draws, seed)], axis=1)
    return {
        name: _found(moved[name], residual, groups, sizes, float(sums[at]), drawn[at], level)
        for at, name in enumerate(rows)
    }


def _within(values: Floats, groups: NDArray[np.int64], sizes: NDArray[np.int64]) -> Floats:
    """Return values less the mean of their group; rounding is no variation."""
    means = np.bincount(groups, weights=values) / sizes
    found: Floats = values - means[groups]
    found[np.abs(found) <= 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0)))] = 0.0
    return found


def _exchanged(residual: Floats, groups: NDArray[np.int64], draws: int, seed: int) -> list[Floats]:
    """Return outcomes exchanged within groups, one row a draw, in chunks."""
    rng = np.random.default_rng(whole("seed", seed, 0))
    base = np.argsort(groups, kind="stable")
    found = []
    step = max(1, 1_000_000 // len(groups))
    for start in range(0, draws, step):
        keys = groups + rng.random((min(step, draws - start), len(groups)))
        part = np.empty_like(keys)
        part[:, base] = residual[np.argsort(keys, axis=1)]
        found.append(part)
    return found


def _found(
    moved: Floats,
    residual: Floats,
    groups: NDArray[np.int64],
    sizes: NDArray[np.int64],
    total: float,
    drawn: Floats,
    alpha: float,
) -> Exchange:
    alive = np.bincount(groups, weights=np.abs(moved)) > 0.0
    scale = math.sqrt(float(moved @ moved) * float(residual @ residual))
    enough = int(sizes[sizes > 1].sum())
    if scale == 0.0:
        return Exchange(
            correlation=math.nan, p_value=1.0, smallest=1.0, detectable=math.nan, n=enough, moving=0
        )
    at_least = int(np.count_nonzero(drawn >= total - 1e-9 * scale))
    reach = normal_quantile(1.0 - alpha) + normal_quantile(0.8)
    return Exchange(
        correlation=total / scale,
        p_value=(1 + at_least) / (1 + len(drawn)),
        smallest=max(1.0 / (1 + len(drawn)), math.exp(_log_share_of_the_best(moved, residual, groups))),
        detectable=reach * float(np.std(drawn)) / scale,
        n=enough,
        moving=int(sizes[alive].sum()),
    )


def _log_share_of_the_best(moved: Floats, residual: Floats, groups: NDArray[np.int64]) -> float:
    """Return the logarithm of the share of all exchanges in which weights follow outcomes as far as they can.

    In these both are sorted alike in every group; orders that differ among equal values alone are as good.
    """
    weights, outcomes = _starts(moved, groups), _starts(residual, groups)
    alike = _log_orders(weights) + _log_orders(outcomes) - _log_orders(weights | outcomes)
    return alike - _log_orders(_starts(np.zeros(len(groups)), groups))


def _starts(values: Floats, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where another value begins, or another group, once values are sorted within their groups."""
    order = np.lexsort((values, groups))
    apart = np.diff(values[order]) > 1e-12 * max(1.0, float(np.abs(values).max()))
    return np.concatenate([[True], apart | (np.diff(groups[order]) > 0)])


def _log_orders(starts: NDArray[np.bool_]) -> float:
    """Return the logarithm of how many orders there are within stretches, by where each begins."""
    counts = np.diff(np.append(np.flatnonzero(starts), len(starts)))
    return math.fsum(math.lgamma(count + 1) for count in counts.tolist())


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for each other so that the chance of any false finding stays below the level.

    Raises
    ------
    DataError
        If one is no number from 0 to 1.

    References
    ----------
    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics
    6(2), 1979.

    Examples
    --------
    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    for name, p in by_name(p_values, "p_values", "p-values").items():
        if not is_number(found := python_scalar(p)) or not 0.0 <= found <= 1.0:
            raise DataError(f"p_values: {in_short(name)} has {in_short(p)}: expected a number from 0 to 1")
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}
