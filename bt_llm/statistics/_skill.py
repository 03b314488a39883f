"""Whether a forecaster is right at the right times, or only says what is common."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bt_llm.equality import nan_equal
from bt_llm.exceptions import DataError
from bt_llm.settings import several
from bt_llm.statistics._inputs import (
    Floats,
    as_floats,
    between,
    by_name,
    codes_of,
    distributions,
    finite,
    normal_quantile,
)
from bt_llm.statistics._stepwise import POWER, Pair, step_down

__all__ = ["RolledScore", "RolledSkill", "rolled_skill"]

_ROUNDING = 1e-9


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class RolledScore:
    """A mean score, and what the same forecasts score at other times.

    Parameters
    ----------
    observed : float
        Mean score of the forecasts where they stand; of a pair, the first less the second.
    expected : float
        Mean over all rolls of the outcomes against the forecasts: what their words are worth at any time.
    p_value : float
        That the two differ by chance, with all others that were asked about taken into account. One-sided
        of a single forecaster (is it better than its words at other times?), two-sided of a pair.
    detectable : float
        True difference between the two that would be found 80 % of the time.
    """

    observed: float
    expected: float
    p_value: float
    detectable: float

    @property
    def skill(self) -> float:
        """What the timing of the forecasts adds to their score."""
        return self.observed - self.expected


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class RolledSkill:
    """Several forecasters on the same bars, and every two of them.

    Parameters
    ----------
    each : dict of str to RolledScore
        By the forecaster's name.
    pairs : dict of (str, str) to RolledScore
        By both names.
    smallest_p : float
        The smallest p-value there is: one over the number of rolls. Forecasts that change seldom cannot come
        near it, since rolls by a few bars leave them as they are.
    alpha : float
        Level at which p-values are judged.
    """

    each: dict[str, RolledScore]
    pairs: dict[Pair, RolledScore]
    smallest_p: float
    alpha: float

    def shown(self, score: RolledScore) -> bool:
        """Return whether a difference is more than luck explains, all others considered."""
        return score.p_value <= self.alpha + _ROUNDING


def rolled_skill(
    scores: Mapping[str, ArrayLike],
    outcomes: ArrayLike,
    *,
    groups: Iterable[object] | None = None,
    alpha: float = 0.05,
) -> RolledSkill:
    """Test whether forecasters are right at the right times, by rolling the outcomes against all of them.

    A forecaster that says the commonest word scores well, and two that prefer different words score
    differently, without either knowing anything. Rolled by any number of bars, round and round, the same
    words meet the same outcomes at other times: how often each is said, how often each comes true, and how
    long both last, stay as they are. What is left is timing.

    Parameters
    ----------
    scores : mapping of str to array_like of shape (n_bars, n_classes)
        What each forecast scores under each outcome; more is better. For labels a row is 1 in the column of
        the label and else 0; see also `brier_rows` and `log_rows`.
    outcomes : array_like of shape (n_bars,)
        Column number of what happened.
    groups : iterable of length n_bars, optional
        What each bar is of, such as its symbol: each is rolled within itself, all by the same number of bars,
        so that symbols on the same dates stay together. Bars of a group stand in order of time.
    alpha : float
        Level at which p-values are judged, between 0 and 1.

    Raises
    ------
    ConfigError
        If `alpha` is out of range.
    DataError
        If shapes do not fit, a value is not finite or no outcome, or a group is missing.

    Notes
    -----
    Every roll is used, so the p-value is that of a permutation test over the group of rolls: exact where
    forecasts and outcomes are independent and one of them is stationary round the circle, whatever the
    dependence over time in either. That is so of groups of one length: shorter ones beside
    a longer are rolled round again, and p is approximate. Each score, of a forecaster or a pair, has its rank
    among the rolls; the p-values step down over the smallest such rank of all of them, so that all that is
    said holds together.

    References
    ----------
    P. R. Peres-Neto and others use such "toroidal shifts" in ecology; see M.-J. Fortin and M. Dale,
    "Spatial Analysis", Cambridge, 2005, section 5.5. P. H. Westfall and S. S. Young, "Resampling-Based
    Multiple Testing", Wiley, 1993 (the largest, stepping down).

    Examples
    --------
    One says "up" for ever and the market mostly rises; the other follows the outcomes half of the time.

    >>> rng = np.random.default_rng(0)
    >>> outcome = (rng.random(400) < 0.3).astype(int)
    >>> always = np.tile([1.0, 0.0], (400, 1))
    >>> knows = np.eye(2)[np.where(rng.random(400) < 0.5, outcome, rng.integers(0, 2, 400))]
    >>> found = rolled_skill({"always up": always, "knows": knows}, outcome)
    >>> {name: (round(one.observed, 2), one.p_value <= 0.05) for name, one in found.each.items()}
    {'always up': (0.74, False), 'knows': (0.75, True)}
    """
    names = list(by_name(scores, "scores", "scores"))
    happened = finite(outcomes, "outcomes")
    tables = {name: as_floats(scores[name], f"scores of {name}", 2) for name in names}
    _check(tables, happened)
    level = between(alpha, 0.0, 1.0, "alpha")
    codes = None if groups is None else codes_of(several("groups", groups, "labels"), "groups")
    rolls = {name: _rolled(table, happened, codes) for name, table in tables.items()}
    pairs = list(itertools.combinations(names, 2))
    apart = [rolls[first] - rolls[second] for first, second in pairs]
    found = _judged(np.column_stack([*rolls.values(), *apart]), len(names), level)
    return RolledSkill(
        each=dict(zip(names, found, strict=False)),
        pairs=dict(zip(pairs, found[len(names) :], strict=True)),
        smallest_p=1.0 / max(len(one) for one in rolls.values()),
        alpha=level,
    )


def _check(tables: Mapping[str, Floats], happened: Floats) -> None:
    if not tables:
        raise DataError("scores: expected at least one forecaster")
    classes = {table.shape[1] for table in tables.values()}
    for name, table in tables.items():
        if len(table) != len(happened) or len(classes) > 1 or not np.isfinite(table).all():
            raise DataError(
                f"scores of {name} of shape {table.shape}: expected finite numbers, a row for each of the "
                f"{len(happened)} outcomes and a column for each class, as many for all"
            )
    if not set(np.unique(happened).tolist()) <= set(range(min(classes))):
        raise DataError(f"outcomes: expected whole numbers 0 to {min(classes) - 1}")


def _rolled(table: Floats, happened: Floats, groups: NDArray[np.intp] | None) -> Floats:
    """Return the mean score by the number of bars that the outcomes are rolled; the first is as it is."""
    codes = np.zeros(len(happened), np.intp) if groups is None else groups
    if len(codes) != len(happened):
        raise DataError(f"groups of {len(codes)} bars and {len(happened)} outcomes: expected as many")
    came = np.eye(table.shape[1])[happened.astype(np.intp)]
    sums = []
    for code in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == code)
        # The correlation round the circle, of all rolls at once.
        product = np.conj(np.fft.rfft(table[rows], axis=0)) * np.fft.rfft(came[rows], axis=0)
        sums.append(np.fft.irfft(product.sum(axis=1), n=len(rows)))
    longest = max(map(len, sums))
    total: Floats = np.sum([np.resize(one, longest) for one in sums], axis=0) / len(happened)
    return total


def _judged(table: Floats, one_sided: int, alpha: float) -> list[RolledScore]:
    """Judge scores by roll, in columns; of the first columns only a larger score is better than chance."""
    expected, spread = table.mean(axis=0), table.std(axis=0)
    # Words that never change score the same at all times, but for rounding.
    moves = spread > _ROUNDING * np.maximum(1.0, np.abs(table).max(axis=0))
    z = np.where(moves, (table - expected) / np.where(moves, spread, 1.0), 0.0)
    z[:, one_sided:] = np.abs(z[:, one_sided:])
    ranks = np.column_stack([_share_as_large(column) for column in z.T])
    p_values = step_down(-ranks[0], -ranks[1:])
    # The rank that the best of all columns has to have, and where each column reaches it.
    best = np.sort(ranks.min(axis=1))
    needed = float(best[max(0, math.floor(alpha * len(best)) - 1)])
    critical = np.quantile(z, 1.0 - needed, axis=0)
    return [
        RolledScore(
            observed=float(table[0, k]),
            expected=float(expected[k]),
            p_value=float(p_values[k]),
            detectable=float((critical[k] + normal_quantile(POWER)) * spread[k]),
        )
        for k in range(table.shape[1])
    ]


def _share_as_large(values: Floats) -> Floats:
    """Return for each value the share of all that are as large, rounding apart."""
    ordered = np.sort(values)
    return 1.0 - np.searchsorted(ordered, values - _ROUNDING) / len(values)


def brier_rows(probabilities: ArrayLike) -> Floats:
    """Return what forecasts score under each outcome by Brier's rule, turned so that more is better.

    Parameters
    ----------
    probabilities : array_like of shape (n_bars, n_classes)
        Each row sums to 1.

    Raises
    ------
    DataError
        If a row does not sum to 1, or holds what is no probability.

    Examples
    --------
    >>> brier_rows([[0.5, 0.2, 0.3]]).round(2).tolist()
    [[-0.38, -0.98, -0.78]]
    """
    p = distributions(probabilities, "probabilities")
    rows: Floats = -((p**2).sum(axis=1, keepdims=True) - 2.0 * p + 1.0)
    return rows


def log_rows(probabilities: ArrayLike, *, least: float = 1e-6) -> Floats:
    """Return the logarithm of what forecasts gave each outcome: their score under it; more is better.

    Parameters
    ----------
    probabilities : array_like of shape (n_bars, n_classes)
        Each row sums to 1.
    least : float
        Smaller probabilities count as this, so that one impossible outcome does not decide everything.

    Raises
    ------
    ConfigError
        If `least` is not between 0 and 1.
    DataError
        If a row does not sum to 1, or holds what is no probability.

    References
    ----------
    I. J. Good, "Rational Decisions", Journal of the Royal Statistical Society B 14, 1952.

    Examples
    --------
    >>> log_rows([[0.5, 0.5, 0.0]]).round(2).tolist()
    [[-0.69, -0.69, -13.82]]
    """
    lowest = between(least, 0.0, 1.0, "least")
    logs: Floats = np.log(np.maximum(distributions(probabilities, "probabilities"), lowest))
    return logs
