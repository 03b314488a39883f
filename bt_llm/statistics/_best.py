"""Which of several series may be the best, and whether the best of them beats a benchmark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bt_llm.exceptions import ConfigError
from bt_llm.settings import in_short, whole
from bt_llm.statistics._blocks import arch_bootstrap
from bt_llm.statistics._influence import influence_of
from bt_llm.statistics._inputs import MOST_RESAMPLES, Floats, between, choose, in_blocks
from bt_llm.statistics._overfitting import Statistic
from bt_llm.statistics._stepwise import Series, draw_pairs, named_columns
from bt_llm.statistics._timing import detectable

__all__ = ["BestOf", "best_of", "model_confidence_set", "superior_predictive_ability"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOf:
    """Whether the best of several series is better than a benchmark.

    Parameters
    ----------
    p_value : float
        That it is no better, as a rank among the resamples: of `smallest` at the least.
    smallest : float
        The least that these resamples can give.
    detectable : float or None
        By how much one of the series would have to be truly better for that to be found in 80 % of samples,
        whichever it is; None where none differs, or no p-value could be small enough.
    """

    p_value: float
    smallest: float
    detectable: float | None


def model_confidence_set(
    series: Series,
    statistic: str = Statistic.SHARPE,
    *,
    n: int = 2000,
    seed: int = 0,
    block_length: int | None = None,
) -> dict[str, float]:
    """Return the p-value that each of several series is among the best.

    The *model confidence set* holds those whose p-value is above a level: it has the best one in it with one
    less that probability. Of series that cannot be told apart it holds all.

    Parameters
    ----------
    series : DataFrame or mapping of str to array_like of shape (n_bars,)
        As in `stepwise_differences`.
    statistic : {'sharpe', 'return'}
        What is best: the largest Sharpe ratio, or the largest mean.
    n, seed, block_length
        As in `stepwise_differences`.

    Returns
    -------
    dict of str to float
        By name, in the order given. That of the best is 1.

    Raises
    ------
    ConfigError, DataError, MissingExtraError
        As in `stepwise_differences`.

    Notes
    -----
    Hansen, Lunde and Nason's range statistic, the largest ``|t|`` of all pairs that are left, against its
    resamples; then the one that another beats by the largest t goes, and so on. The t are studentised in each
    resample, as in `stepwise_differences`: the first of these tests is its test of all pairs. (``arch.MCS``
    divides all resamples by one error, and left out one of four equal series in 8 of 100 samples of 1,000
    bars.)

    References
    ----------
    P. R. Hansen, A. Lunde and J. M. Nason, "The Model Confidence Set", Econometrica 79, 2011.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> noise = rng.normal(0.0, 0.01, (500, 3))
    >>> good = {"a": noise[:, 0] + 0.003, "b": noise[:, 1] + 0.003, "c": noise[:, 2] - 0.003}
    >>> [name for name, p in model_confidence_set(good, n=199).items() if p > 0.05]
    ['a', 'b']
    """
    drawn = draw_pairs(
        series, None, statistic, n=whole("n", n, 1, MOST_RESAMPLES), seed=seed, block_length=block_length
    )
    signed = np.sign(drawn.estimates) * drawn.t
    left, p_values, so_far = list(drawn.names), dict.fromkeys(drawn.names, 1.0), 0.0
    while len(left) > 1:
        inside = [k for k, pair in enumerate(drawn.pairs) if set(pair) <= set(left)]
        met = np.abs(drawn.t_star[:, inside]).max(axis=1) >= drawn.t[inside].max()
        so_far = max(so_far, (1 + int(met.sum())) / (1 + n))
        beaten = dict.fromkeys(left, -math.inf)
        for k in inside:
            first, second = drawn.pairs[k]
            beaten[first] = max(beaten[first], -signed[k])
            beaten[second] = max(beaten[second], signed[k])
        worst = max(left, key=beaten.__getitem__)
        p_values[worst] = so_far
        left.remove(worst)
    return p_values


def superior_predictive_ability(
    series: Series,
    benchmark: str,
    statistic: str = Statistic.SHARPE,
    *,
    n: int = 2000,
    seed: int = 0,
    block_length: int = 1,
) -> float:
    """Return the p-value that the best of several series is no better than a benchmark.

    It counts that the best one was looked for: one-sided, of Hansen's consistent kind.

    Parameters
    ----------
    series : DataFrame or mapping of str to array_like of shape (n_bars,)
        As in `stepwise_differences`, the benchmark among them.
    benchmark : str
        Its name.
    statistic, n, seed
        As in `model_confidence_set`.
    block_length : int
        Bars of a block.

    Returns
    -------
    float
        ``(1 + #{resamples as good}) / (1 + n)``; 1 if none of the series differs from the benchmark.

    Raises
    ------
    ConfigError, DataError, MissingExtraError
        As in `stepwise_differences`; or if there is no such benchmark.

    References
    ----------
    P. R. Hansen, "A Test for Superior Predictive Ability", Journal of Business and Economic Statistics 23,
    2005.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> market = rng.normal(0.0, 0.01, 500)
    >>> tries = {f"try {k}": market + rng.normal(0.0, 0.003, 500) for k in range(9)}
    >>> superior_predictive_ability({"market": market, **tries}, "market", "return", n=199) > 0.1
    True
    """
    found, _ = _tested(series, benchmark, statistic, n=n, seed=seed, block_length=block_length)
    return 1.0 if found is None else _p_value(found, n)


def best_of(
    series: Series,
    benchmark: str,
    statistic: str = Statistic.SHARPE,
    *,
    n: int = 2000,
    seed: int = 0,
    block_length: int = 1,
    alpha: float = 0.05,
) -> BestOf:
    """Return whether the best of several series is better than a benchmark, and what could have been found.

    Parameters
    ----------
    series, benchmark, statistic, n, seed, block_length
        As in `superior_predictive_ability`, whose test it is.
    alpha : float
        Level of the test, between 0 and 1.

    Raises
    ------
    ConfigError, DataError, MissingExtraError
        As in `superior_predictive_ability`.

    Notes
    -----
    What is found is a gain above the test's critical value, the quantile of the largest of all resampled
    gains; so it takes a true gain of that and 0.84 standard errors to be found 4 times in 5. The error is the
    largest of those of the series.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> market = rng.normal(0.0, 0.01, 500)
    >>> tries = {f"try {k}": market + rng.normal(0.0, 0.003, 500) for k in range(9)}
    >>> found = best_of({"market": market, **tries}, "market", "return", n=199)
    >>> found.p_value > 0.1, found.smallest, 0.0003 < found.detectable < 0.0006
    (True, 0.005, True)
    """
    alpha = between(alpha, 0.0, 1.0, "alpha")
    found, errors = _tested(series, benchmark, statistic, n=n, seed=seed, block_length=block_length)
    smallest = 1.0 / (1 + n)
    if found is None:
        return BestOf(p_value=1.0, smallest=smallest, detectable=None)
    critical = float(found.critical_values(alpha)["consistent"])
    more = detectable(float(errors.max()), alpha=0.5)
    return BestOf(
        p_value=_p_value(found, n),
        smallest=smallest,
        detectable=critical + more if smallest <= alpha else None,
    )


def _tested(
    series: Series, benchmark: str, statistic: str, *, n: int, seed: int, block_length: int
) -> tuple[Any, Floats]:
    """Return arch's test once it is computed, and the standard errors of the gains that differ.

    The test is None if none of the series differs from the benchmark.
    """
    names, gains = _gains(series, statistic, block_length)
    if not isinstance(benchmark, str) or benchmark not in names:
        raise ConfigError(f"benchmark={in_short(benchmark)}: expected one of {names!s:.300}")
    base = gains[:, [names.index(benchmark)]]
    differs = np.ptp(gains - base, axis=0) > 0.0
    if not differs.any():
        return None, np.zeros(0)
    found = arch_bootstrap("superior_predictive_ability").SPA(
        -base[:, 0],
        -gains[:, differs],
        reps=whole("n", n, 1, MOST_RESAMPLES),
        block_size=block_length,
        bootstrap="circular",
        seed=whole("seed", seed, 0),
    )
    found.compute()
    return found, _errors(gains[:, differs] - base, block_length)


def _p_value(found: Any, n: int) -> float:
    """Return the rank of what was found; of n resamples arch gives the share as good, which may be none."""
    return (1 + round(float(found.pvalues["consistent"]) * n)) / (1 + n)


def _errors(gains: Floats, block_length: int) -> Floats:
    """Return the standard errors of means by blocks of bars that are drawn in a circle."""
    centred = gains - gains.mean(axis=0)
    circle = np.concatenate([np.zeros((1, gains.shape[1])), centred, centred[: block_length - 1]])
    sums = np.cumsum(circle, axis=0)
    blocks = sums[block_length:] - sums[:-block_length]
    found: Floats = np.sqrt((blocks**2).mean(axis=0) / (block_length * len(gains)))
    return found


def _gains(series: Series, statistic: str, block_length: int) -> tuple[list[str], Floats]:
    """Return what each bar adds to each series' statistic, with that statistic for a mean."""
    names, x = named_columns(series)
    in_blocks(block_length, len(x))
    values, influence = influence_of(x, choose(Statistic, statistic, "statistic"))
    return names, values + influence
