"""What a number depends on, exactly, where it is known for every combination of some factors' levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.exceptions import DataError
from bt_llm.settings import several, whole
from bt_llm.statistics._inputs import as_floats, codes_of, plain_array

__all__ = ["FactorShare", "changed_share", "factor_shares"]


class FactorShare(NamedTuple):
    """What a factor has of a variance.

    `main` is its share alone; `total` is that with its part in every interaction. NaN where nothing varies.
    """

    main: float
    total: float


def factor_shares(values: ArrayLike, factors: int) -> list[FactorShare]:
    """Return each factor's share of the variance of numbers that are known for all combinations of levels.

    Parameters
    ----------
    values : array_like
        Its first axes are the factors, an entry a level; what follows are units, such as the cells of a
        policy and the labels in each, whose variances are added up.
    factors : int
        How many axes are factors.

    Returns
    -------
    list of FactorShare
        One a factor, in order. Of levels that are all as likely, `main` is the variance of the means over
        all else, and `total` the mean of the variance over the factor's levels, all else held: Sobol's first
        and total indices. They are exact, not estimated: nothing is sampled.

    Raises
    ------
    DataError
        If a value is not finite, or there are fewer axes.
    ConfigError
        If `factors` is no whole number of 1 or more.

    References
    ----------
    I. M. Sobol', "Sensitivity Estimates for Nonlinear Mathematical Models", Mathematical Modelling and
    Computational Experiment 1, 1993. T. Homma and A. Saltelli, "Importance Measures in Global Sensitivity
    Analysis of Nonlinear Models", Reliability Engineering and System Safety 52, 1996.

    Examples
    --------
    >>> factor_shares([[0.0, 1.0], [2.0, 3.0]], 2)  # 2 a + b
    [FactorShare(main=0.8, total=0.8), FactorShare(main=0.2, total=0.2)]
    >>> factor_shares([[0.0, 1.0], [1.0, 0.0]], 2)  # a exclusive-or b
    [FactorShare(main=0.0, total=1.0), FactorShare(main=0.0, total=1.0)]
    """
    whole("factors", factors, 1)
    known = as_floats(values, "values", plain_array(values, "values").ndim)
    if known.ndim < factors or not known.size or not np.isfinite(known).all():
        raise DataError(f"values of shape {known.shape}: expected {factors} factors, and finite numbers")
    axes = tuple(range(factors))
    spread = float(np.var(known, axis=axes).sum())
    tiny = 1e-24 * max(1.0, float(np.square(known).sum()))
    found = []
    for factor in axes:
        others = tuple(axis for axis in axes if axis != factor)
        means = known.mean(axis=others, keepdims=True) if others else known
        main = float(np.var(means, axis=factor).sum())
        within = np.var(known, axis=factor, keepdims=True)
        total = float((within.mean(axis=others) if others else within).sum())
        found.append(
            FactorShare(main / spread, total / spread) if spread > tiny else FactorShare(math.nan, math.nan)
        )
    return found


def changed_share(answers: ArrayLike, axes: Sequence[int] | None = None) -> list[float]:
    """Return how often an answer is another one when one factor alone is changed.

    Parameters
    ----------
    answers : array_like
        For every combination of levels, an answer; its axes are the factors.
    axes : sequence of int, optional
        Which; by default all.

    Returns
    -------
    list of float
        One a factor: of all pairs of combinations that differ in its level alone, the share whose answers
        differ. NaN of a factor with one level.

    Raises
    ------
    ConfigError
        If an axis is none of the answers'.
    DataError
        If there is no answer, or one is missing.

    Examples
    --------
    >>> changed_share([["up", "up"], ["up", "down"]])
    [0.5, 0.5]
    """
    given = plain_array(answers, "answers")
    if not given.size:
        raise DataError(f"answers of shape {given.shape}: expected one for every combination of levels")
    table = codes_of(given.ravel(), "answers").reshape(given.shape)
    chosen = range(table.ndim) if axes is None else several("axes", axes, "factors")
    found = []
    for axis in [whole("axes", one, 0, table.ndim - 1) for one in chosen]:
        levels: int = table.shape[axis]
        lines = np.moveaxis(table, axis, -1).reshape(-1, levels)
        same = sum(
            (count * (count - 1)).sum() for count in ((lines == one).sum(axis=1) for one in np.unique(table))
        )
        pairs = len(lines) * levels * (levels - 1)
        found.append(1.0 - float(same) / pairs if pairs else math.nan)
    return found
