"""Several series compared at once: intervals that hold together, p-values that count the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.equality import nan_equal
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.settings import in_short, instance, several
from bt_llm.statistics._blocks import resample
from bt_llm.statistics._influence import FLAT, block_length_of, columns_of, differences, influence_of
from bt_llm.statistics._inputs import (
    Floats,
    annual_factor,
    between,
    by_name,
    choose,
    finite,
    in_blocks,
    normal_quantile,
)
from bt_llm.statistics._overfitting import Statistic
from bt_llm.statistics._resampling import quantile_rank

__all__ = ["PairDifference", "StepwiseDifferences", "pooled", "stepwise_differences"]

Pair: TypeAlias = tuple[str, str]
Series: TypeAlias = "pd.DataFrame | Mapping[str, Any]"
"""A frame with one column a series, all on the same bars, or a mapping of names to such series."""

POWER = 0.8
"""Share of the time that an effect called detectable is found."""


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class PairDifference:
    """How two of several series differ, with all other pairs taken into account.

    Parameters
    ----------
    first, second : str
        Names of the series; what is said is of the first less the second.
    estimate : float
        The difference.
    low, high : float
        Its interval. All intervals of a family hold together with the family's confidence.
    p_value : float
        Two-sided, of no difference, adjusted for all pairs of the family (Romano and Wolf's step-down).
    standard_error : float
        Of the estimate; 0 where the two cannot differ.
    detectable : float
        True difference that would be called one in 80 % of samples like this one, by the family's largest
        critical value.
    confidence : float
        Of the family's intervals, 0 to 1.
    """

    first: str
    second: str
    estimate: float
    low: float
    high: float
    confidence: float
    p_value: float
    standard_error: float
    detectable: float


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class StepwiseDifferences:
    """The differences of several pairs of series, judged together.

    Parameters
    ----------
    pairs : tuple of PairDifference
        In the order that they were asked for.
    confidence : float
        Probability that all intervals hold, 0 to 1.
    smallest_p : float
        The smallest p-value that these resamples can give.
    block_length : int
        Bars of a block; 0 where nothing had to be resampled.
    n : int
        Number of resamples.
    bars : int
        Bars of the series.
    """

    pairs: tuple[PairDifference, ...]
    confidence: float
    smallest_p: float
    block_length: int
    n: int
    bars: int

    @property
    def p_value(self) -> float:
        """Of the one question whether any pair differs at all; NaN where no pair can be judged."""
        return min((one.p_value for one in self.pairs if not math.isnan(one.p_value)), default=math.nan)

    @property
    def detectable(self) -> float:
        """True difference that would be found 80 % of the time, whichever pair it is of."""
        return max(one.detectable for one in self.pairs)

    def shown(self, one: PairDifference) -> bool:
        """Return whether a pair's difference is more than luck explains, all pairs considered."""
        return one.p_value <= 1.0 - self.confidence + FLAT

    def of(self, first: str, second: str) -> PairDifference:
        """Return the difference of a pair.

        Raises
        ------
        KeyError
            If it is none of the family's.
        """
        for one in self.pairs:
            if (one.first, one.second) == (first, second):
                return one
        raise KeyError(f"no pair {(first, second)}, only {[(one.first, one.second) for one in self.pairs]}")


def pooled(returns: pd.DataFrame) -> pd.DataFrame:
    """Return one series a name from a panel: the mean over its symbols, bar by bar.

    Parameters
    ----------
    returns : DataFrame
        Returns by time; its columns are names, or pairs of a name and a symbol. A symbol without a bar at
        some time (NaN) has no part in that time's mean.

    Returns
    -------
    DataFrame
        One column a name, in the order in which they first stand. Each time holds all symbols, so that
        whatever resamples blocks of times moves all symbols together.

    Raises
    ------
    DataError
        If a time has a return of a symbol for one name and none for another.

    Examples
    --------
    >>> columns = pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")])
    >>> panel = pd.DataFrame([[0.1, 0.3, 0.0, 0.2], [0.2, None, 0.1, None]], columns=columns)
    >>> pooled(panel).round(6).to_numpy().tolist()
    [[0.2, 0.1], [0.2, 0.1]]
    """
    instance("returns", returns, pd.DataFrame, "a DataFrame")
    if returns.columns.nlevels == 1:
        return returns
    if returns.columns.nlevels > 2 or not returns.columns.is_unique:
        raise DataError(
            f"returns: {returns.columns.nlevels} levels of columns, expected names and symbols, each once"
        )
    names = list(dict.fromkeys(returns.columns.get_level_values(0)))
    there: Any = {name: returns[name].notna() for name in names}
    symbols = there[names[0]].columns
    if others := [name for name in names if set(there[name].columns) != set(symbols)]:
        raise DataError(
            f"returns of {others[0]!r} are of {list(there[others[0]].columns)} and those of {names[0]!r} of "
            f"{list(symbols)}: expected the same symbols of each"
        )
    uneven = sum((there[name][symbols] ^ there[names[0]]).any(axis=1) for name in names) > 0
    if uneven.any():
        raise DataError(
            f"{int(uneven.sum())} times have returns of some of {names} and not of others, the first "
            f"{returns.index[uneven][0]}: expected the same bars of each"
        )
    means = pd.DataFrame({name: returns[name].mean(axis=1) for name in names}, index=returns.index)
    return means.dropna()


def stepwise_differences(
    series: Series,
    pairs: Sequence[Pair] | None = None,
    statistic: str = Statistic.SHARPE,
    *,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    block_length: int | None = None,
    periods_per_year: float | None = None,
) -> StepwiseDifferences:
    """Compare several series on the same bars, pair by pair, and judge all pairs together.

    Parameters
    ----------
    series : DataFrame or mapping of str to array_like of shape (n_bars,)
        Simple returns per bar, or any score per bar where the statistic is the mean. A frame of a panel,
        whose columns are names and symbols, is pooled first; see `pooled`.
    pairs : sequence of (str, str), optional
        Which to compare; by default every two.
    statistic : {'sharpe', 'return'}
        The Sharpe ratio (ddof 1, risk-free rate 0; that of a series that never varies is 0) or the mean.
    n : int
        Number of resamples; at least ``confidence / (1 - confidence)``.
    seed : int
        Seeds the resampling; the same arguments give the same result.
    confidence : float
        That all intervals hold together, between 0 and 1.
    block_length : int, optional
        Bars of a block. By default what Politis and White's rule asks for in what a difference is made of,
        bar by bar, or in its square, whichever is longer; the mean over the pairs, and at most a twentieth
        of the bars. It needs 30 bars.
    periods_per_year : float, optional
        Bars in a year: Sharpe ratios are multiplied by its square root, means by itself.

    Raises
    ------
    ConfigError
        If a setting is out of range, or a pair names no two of the series.
    DataError
        If the series are not of the same bars, or hold a value that is not finite.
    MissingExtraError
        If ``arch`` is not installed.

    Notes
    -----
    Blocks of bars are drawn in a circle, the same for all series. Each difference d is divided by its own
    standard error s, in every resample by that of the resample, from the sums of its blocks (Götze and
    Künsch): ``t* = (d* - d) / s*``. The intervals are ``d +- c s`` with c the quantile of the largest
    ``|t*|`` of all pairs. The p-values step down: that of the largest ``|t|`` is its rank among the largest
    ``|t*|`` of all pairs, the next one's among those of the pairs that are left, and so on. So the
    probability that any true null hypothesis is rejected is at most ``1 - confidence``, and a pair may be
    found although its interval, which is for all pairs at once, holds zero.

    References
    ----------
    J. P. Romano and M. Wolf, "Stepwise Multiple Testing as Formalized Data Snooping", Econometrica 73, 2005,
    and "Efficient Computation of Adjusted p-Values for Resampling-Based Stepdown Multiple Testing",
    Statistics and Probability Letters 113, 2016. O. Ledoit and M. Wolf, "Robust Performance Hypothesis
    Testing with the Sharpe Ratio", Journal of Empirical Finance 15, 2008. F. Götze and H. R. Künsch,
    "Second-Order Correctness of the Blockwise Bootstrap for Stationary Observations", Annals of Statistics
    24, 1996.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> market = rng.normal(0.0, 0.01, 600)
    >>> better = market + rng.normal(0.001, 0.003, 600)
    >>> other = market + rng.normal(0.0, 0.003, 600)
    >>> found = stepwise_differences({"market": market, "better": better, "other": other}, n=199)
    >>> [(one.first, one.second) for one in found.pairs if found.shown(one)]
    [('market', 'better'), ('better', 'other')]
    """
    scale = annual_factor(periods_per_year)
    scale = math.sqrt(scale) if choose(Statistic, statistic, "statistic") is Statistic.SHARPE else scale
    rank = quantile_rank(n, between(confidence, 0.0, 1.0, "confidence"))
    drawn = draw_pairs(series, pairs, statistic, n=n, seed=seed, block_length=block_length)
    asked, estimate, errors, t, t_star = drawn.pairs, drawn.estimates, drawn.errors, drawn.t, drawn.t_star
    largest = np.sort(np.abs(t_star).max(axis=1))[rank - 1]
    adjusted = step_down(t, np.abs(t_star))
    # Without a varying part there is nothing to estimate an error from: equal is equal, else unknown.
    adjusted = np.where(errors > 0.0, adjusted, np.where(estimate == 0.0, 1.0, math.nan))
    found_by = float(largest) + normal_quantile(POWER)
    return StepwiseDifferences(
        pairs=tuple(
            PairDifference(
                first=one,
                second=other,
                estimate=float(d * scale),
                low=float((d - largest * s) * scale),
                high=float((d + largest * s) * scale),
                confidence=confidence,
                p_value=float(p),
                standard_error=float(s * scale),
                detectable=float(found_by * s * scale),
            )
            for (one, other), d, s, p in zip(asked, estimate, errors, adjusted, strict=True)
        ),
        confidence=confidence,
        smallest_p=1.0 / (1 + n),
        block_length=drawn.block_length,
        n=n,
        bars=drawn.bars,
    )


class DrawnPairs(NamedTuple):
    """What pairs of series differ by, and what resampling gave.

    Attributes
    ----------
    names : list of str
        Of the series.
    pairs : list of (str, str)
        As they were asked for.
    estimates, errors, t : ndarray of shape (n_pairs,)
        The differences, their standard errors, and one in the other; 0 where a pair cannot differ.
    t_star : ndarray of shape (n, n_pairs)
        The studentised errors of the resamples.
    block_length, bars : int
        Bars of a block, 0 where nothing was resampled; and of the series.
    """

    names: list[str]
    pairs: list[Pair]
    estimates: Floats
    errors: Floats
    t: Floats
    t_star: Floats
    block_length: int
    bars: int


def draw_pairs(
    series: Series,
    pairs: Sequence[Pair] | None,
    statistic: str,
    *,
    n: int,
    seed: int,
    block_length: int | None,
) -> DrawnPairs:
    """Resample the differences of pairs of series; see `stepwise_differences`."""
    names, x = named_columns(series)
    chosen = choose(Statistic, statistic, "statistic")
    asked = (
        list(itertools.combinations(names, 2))
        if pairs is None
        else list(several("pairs", pairs, "pairs of names"))
    )
    first, second = _places(asked, names)
    wanted = None if block_length is None else in_blocks(block_length, len(x))
    values, influence = influence_of(x, chosen)
    estimate = values[first] - values[second]
    parts = influence[:, first] - influence[:, second]
    alive = np.abs(parts).max(axis=0) > FLAT * max(1.0, float(np.abs(influence).max()))
    estimate = np.where(alive | (np.abs(estimate) > FLAT * np.abs(values).max()), estimate, 0.0)
    errors, t_star, length = np.zeros(len(asked)), np.zeros((n, len(asked))), 0
    if alive.any():
        length = block_length_of(parts[:, alive]) if wanted is None else wanted
        functional = differences(chosen, len(x), first[alive], second[alive])
        drawn = resample(columns_of(x, chosen), functional, length=length, n=n, seed=seed)
        errors[alive], t_star[:, alive] = drawn.errors, drawn.draws.T
    t = np.divide(np.abs(estimate), errors, out=np.zeros(len(asked)), where=errors > 0.0)
    return DrawnPairs(names, asked, estimate, errors, t, t_star, length, len(x))


def named_columns(series: Series) -> tuple[list[str], Floats]:
    frame: Any = by_name(series, "series", "returns on the same bars")
    frame = pooled(frame) if isinstance(frame, pd.DataFrame) else frame
    names = [str(name) for name in frame]
    if len(set(names)) < len(names) or len(names) < 2:
        raise DataError(f"series {names!s:.300}: expected two or more, each with a name of its own")
    columns = [finite(frame[name], str(name), minimum=2) for name in frame]
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"series of {lengths} values: expected the same bars in all")
    return names, np.column_stack(columns)


def _places(pairs: Sequence[Pair], names: list[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    for pair in pairs:
        known = isinstance(pair, tuple | list) and all(isinstance(name, str) for name in pair)
        if not known or len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(names):
            raise ConfigError(f"pair {in_short(pair)}: expected two different ones of {names!s:.300}")
    if not pairs or len(set(map(tuple, pairs))) < len(pairs):
        raise ConfigError(f"pairs {in_short(list(pairs))}: expected at least one, each once")
    places = np.array([[names.index(name) for name in pair] for pair in pairs], dtype=np.intp)
    return places[:, 0], places[:, 1]


def step_down(t: Floats, t_star: Floats) -> Floats:
    """Return the p-values of Romano and Wolf's step-down, in the order of `t`."""
    order = np.argsort(-t, kind="stable")
    adjusted = np.empty(len(t))
    # The largest of those that are left, from the last to the first.
    left = np.maximum.accumulate(t_star[:, order[::-1]], axis=1)[:, ::-1]
    so_far = 0.0
    for place, column in enumerate(order):
        so_far = max(so_far, (1 + int(np.sum(left[:, place] >= t[column]))) / (1 + len(t_star)))
        adjusted[column] = so_far
    return adjusted
