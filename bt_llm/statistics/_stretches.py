"""Whether an effect is the same in two stretches of time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.exceptions import DataError
from bt_llm.settings import in_short, whole
from bt_llm.statistics._blocks import Resampled, automatic_block_length, resample
from bt_llm.statistics._influence import columns_of, differences
from bt_llm.statistics._inputs import Floats, annual_factor, between, choose, in_blocks, normal_quantile, pair
from bt_llm.statistics._overfitting import Statistic
from bt_llm.statistics._resampling import quantile_rank
from bt_llm.statistics._stepwise import POWER, PairDifference

__all__ = ["change_of_effect"]


def change_of_effect(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    statistic: str = Statistic.SHARPE,
    *,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    block_length: int | None = None,
    periods_per_year: float | None = None,
) -> PairDifference:
    """Return how a difference between two strategies differs between two stretches of time.

    An effect that is found in one stretch and not in another need not have changed: only the difference
    between the two, with its own interval, says that it has.

    Parameters
    ----------
    before, after : pair of array_like of shape (n_bars,)
        Simple returns per bar of two strategies, on the same bars, in each stretch.
    statistic : {'sharpe', 'return'}
        As in `paired_bootstrap`.
    n, seed, confidence, periods_per_year
        As in `paired_bootstrap`.
    block_length : int, optional
        Bars of a block in both stretches; by default that of `paired_bootstrap` in each.

    Returns
    -------
    PairDifference
        The effect after less the effect before.

    Raises
    ------
    ConfigError, DataError, MissingExtraError
        As in `paired_bootstrap`.

    Notes
    -----
    The stretches are resampled apart from each other; what differs by resample is divided by the two standard
    errors of that resample together, as in Welch's test.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> market = 0.01 * rng.standard_normal((2, 600))
    >>> gated = market + 0.003 * rng.standard_normal((2, 600))
    >>> gated[0] += 0.001
    >>> gone = change_of_effect((gated[0], market[0]), (gated[1], market[1]), "return", n=199)
    >>> gone.estimate < 0.0, gone.p_value
    (True, 0.005)
    """
    chosen = choose(Statistic, statistic, "statistic")
    rank = quantile_rank(n, between(confidence, 0.0, 1.0, "confidence"))
    scale = annual_factor(periods_per_year)
    scale = math.sqrt(scale) if chosen is Statistic.SHARPE else scale
    for name, both in (("before", before), ("after", after)):
        if not isinstance(both, tuple | list) or len(both) != 2:
            raise DataError(f"{name}={in_short(both)}: expected the returns of two strategies")
    rng = np.random.default_rng(whole("seed", seed, 0))
    earlier, later = (
        _drawn(np.column_stack(pair(*stretch, minimum=2)), chosen, block_length, n, int(rng.integers(2**31)))
        for stretch in (before, after)
    )
    estimate = float(later.estimates[0] - earlier.estimates[0])
    error = math.hypot(float(later.errors[0]), float(earlier.errors[0]))
    moved = later.draws[0] * later.scales[0] - earlier.draws[0] * earlier.scales[0]
    scales = np.hypot(later.scales[0], earlier.scales[0])
    t = np.abs(np.divide(moved, scales, out=np.zeros_like(moved), where=scales > 0.0))
    reach = float(np.sort(t)[rank - 1])
    met = int(np.sum(t * error >= abs(estimate)))
    unknown = 1.0 if estimate == 0.0 else math.nan
    return PairDifference(
        first="after",
        second="before",
        estimate=estimate * scale,
        low=(estimate - reach * error) * scale,
        high=(estimate + reach * error) * scale,
        confidence=confidence,
        p_value=(1 + met) / (1 + n) if error > 0.0 else unknown,
        standard_error=error * scale,
        detectable=(reach + normal_quantile(POWER)) * error * scale,
    )


def _drawn(x: Floats, statistic: Statistic, length: int | None, n: int, seed: int) -> Resampled:
    if length is None:
        length = automatic_block_length(np.column_stack([x, x[:, 0] - x[:, 1]]))
    else:
        length = in_blocks(length, len(x), "bars of the shorter stretch")
    first, second = np.array([0]), np.array([1])
    functional = differences(statistic, len(x), first, second)
    return resample(columns_of(x, statistic), functional, length=length, n=n, seed=seed)
