"""A gated strategy less the ungated one, taken apart: exposure, side, cost, and what is left, timing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bt_llm.exceptions import DataError
from bt_llm.settings import flag, instance, number, several
from bt_llm.statistics._blocks import Resampled, automatic_block_length, resample
from bt_llm.statistics._inputs import Floats, annual_factor, as_floats, between, in_blocks, normal_quantile
from bt_llm.statistics._resampling import BootstrapResult, quantile_rank, result_of

__all__ = [
    "PARTS",
    "CostPoint",
    "Legs",
    "Timing",
    "breakeven_cost",
    "cost_curve",
    "detectable",
    "parts_made",
    "parts_of",
    "point",
    "same_bars",
    "take_apart",
    "timing_of",
]

PARTS = ("whole", "exposure", "side", "cost", "timing")
"""What a difference is taken apart into; the first is the sum of the others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Legs:
    """What an account earned bar by bar, its long and its short positions apart.

    Parameters
    ----------
    long, short : ndarray of shape (n_bars,)
        What the positions of either side gained, before costs, as a share of the account a bar before.
    long_exposure, short_exposure : ndarray of shape (n_bars,)
        Their value at the bar's close as a share of the account, positive.
    cost : ndarray of shape (n_bars,)
        Commission and slippage, as a share of the account a bar before, positive.
    traded : ndarray of shape (n_bars,)
        Value traded, as that share.

    Raises
    ------
    DataError
        If they differ in length, or hold a value that is not finite.
    """

    long: Floats
    short: Floats
    long_exposure: Floats
    short_exposure: Floats
    cost: Floats
    traded: Floats

    def __post_init__(self) -> None:
        """Check them, once."""
        series = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, given in series.items():
            values = as_floats(given, name, 1)
            object.__setattr__(self, name, values)
            if values.shape != self.long.shape or not np.isfinite(values).all():
                raise DataError(f"{name}: expected {len(self.long)} finite values, as long has")
            if np.abs(values).max(initial=0.0) > 1e100:
                raise DataError(f"{name}: expected shares of the account, got {np.abs(values).max():g}")

    def __len__(self) -> int:
        return len(self.long)

    @property
    def returns(self) -> Floats:
        """Return of the account, a bar."""
        found: Floats = self.long + self.short - self.cost
        return found

    @cached_property
    def rows(self) -> Floats:
        """The five series that a difference is taken apart by."""
        return np.stack([self.long, self.short, self.cost, self.long_exposure, self.short_exposure])


class Timing(NamedTuple):
    """What timing is worth a bar, and its standard error; the score is the one over the other."""

    estimate: float
    error: float

    @property
    def score(self) -> float:
        """The estimate in standard errors; 0 where nothing varies."""
        return self.estimate / self.error if self.error > 0.0 else 0.0


def same_bars(gated: Legs, ungated: Legs) -> None:
    """Check that two are the legs of accounts over the same bars.

    Raises
    ------
    ConfigError
        If one is no `Legs`.
    DataError
        If they have other bars, or none.
    """
    for name, legs in (("gated", gated), ("ungated", ungated)):
        instance(name, legs, Legs, "the Legs of an account")
    if len(gated) != len(ungated) or not len(gated):
        raise DataError(f"{len(gated)} bars gated and {len(ungated)} ungated: expected the same bars")


def parts_of(means: Floats) -> tuple[Floats, Floats]:
    """Return `PARTS` from the means of ten columns, the gated five and the ungated five, with gradients."""
    long, short, cost, x_long, x_short = (means[..., k] for k in range(5))
    u_long, u_short, u_cost, u_x_long, u_x_short = (means[..., k] for k in range(5, 10))
    own = (_share(x_long, u_x_long), _share(x_short, u_x_short))
    exposure_u, ungated = u_x_long + u_x_short, u_long + u_short
    share = _share(x_long + x_short, exposure_u)
    # What a side earns per unit of exposure, and all sides together.
    rate = (_share(u_long, u_x_long), _share(u_short, u_x_short), _share(ungated, exposure_u))

    values = np.stack(
        [
            long + short - cost - ungated + u_cost,
            (share - 1.0) * ungated,
            (own[0] - share) * u_long + (own[1] - share) * u_short,
            u_cost - cost,
            long - own[0] * u_long + short - own[1] * u_short,
        ],
        axis=-1,
    )
    gradients = np.zeros((*means.shape[:-1], 5, 10))
    gradients[..., 0, [0, 1, 7]] = 1.0
    gradients[..., 0, [2, 5, 6]] = -1.0
    gradients[..., 3, 2], gradients[..., 3, 7] = -1.0, 1.0
    for side in (0, 1):
        gradients[..., 1, 5 + side] = share - 1.0
        gradients[..., 1, 3 + side] = rate[2]
        gradients[..., 1, 8 + side] = -share * rate[2]
        gradients[..., 2, 5 + side] = own[side] - share
        gradients[..., 2, 3 + side] = rate[side] - rate[2]
        gradients[..., 2, 8 + side] = share * rate[2] - own[side] * rate[side]
        gradients[..., 4, side] = 1.0
        gradients[..., 4, 5 + side] = -own[side]
        gradients[..., 4, 3 + side] = -rate[side]
        gradients[..., 4, 8 + side] = own[side] * rate[side]
    return values, gradients


def _share(part: Floats, whole: Floats) -> Floats:
    """Return a ratio; 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.abs(whole) > 1e-15)


def timing_of(gated: Legs, ungated: Legs) -> Timing:
    """Return what the timing of a gated strategy is worth a bar, with a standard error.

    The score of it, the one over the other, is what gates that know nothing are compared by. A gate that
    leaves the account in the market for as long, on either side, has the same timing whatever the market
    did; what is left are its own choices, measured by their own spread. So neither a share of the exposure,
    nor a side, nor quiet bars, nor fewer trades make a score higher or lower by themselves.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> move, held = rng.normal(0.1, 1.0, 400), np.ones(400)
    >>> def legs(at):
    ...     names = ("short", "short_exposure", "cost", "traded")
    ...     return Legs(long=at * move, long_exposure=at, **dict.fromkeys(names, np.zeros(400)))
    >>> knows, guesses = legs((move > 0.0) * held), legs((rng.random(400) < 0.5) * held)
    >>> timing_of(knows, legs(held)).score > 10.0 > 3.0 > abs(timing_of(guesses, legs(held)).score)
    True
    """
    same_bars(gated, ungated)
    sides = (gated.rows, ungated.rows)
    means = np.concatenate([rows.mean(axis=1) for rows in sides])
    values, gradients = parts_of(means)
    own, other = np.split(gradients[4], 2)
    influence = own @ sides[0] + other @ sides[1] - gradients[4] @ means
    error = float(np.sqrt(influence @ influence)) / len(gated)
    scale = max(float(np.abs(rows[:2]).max(initial=0.0)) for rows in sides)
    if error <= 1e-12 * scale:
        return Timing(float(values[4]) if abs(values[4]) > 1e-12 * scale else 0.0, 0.0)
    return Timing(float(values[4]), error)


def take_apart(
    gated: Legs,
    ungated: Legs,
    *,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    block_length: int | None = None,
    periods_per_year: float | None = None,
) -> dict[str, BootstrapResult]:
    """Return the mean return of a gated strategy less that of the ungated one, taken apart.

    Parameters
    ----------
    gated, ungated : Legs
        Over the same bars.
    n, seed, confidence, block_length, periods_per_year
        As in `paired_bootstrap`.

    Returns
    -------
    dict of str to BootstrapResult
        ``whole``, and its parts, whose estimates sum to it: ``exposure`` (the gated strategy is in the market
        for another share of the time), ``side`` (it is long for another share of that), ``cost`` (what it
        pays less), and ``timing``.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    DataError
        If the two have other bars.

    Notes
    -----
    With L and S what longs and shorts earn before costs, x their exposures, C the costs, of the gated
    strategy, and the same of the ungated one (u): ``l = x_L / x_uL``, ``s = x_S / x_uS`` and ``e`` are the
    shares of exposure that the gate left of longs, of shorts, and of both. Then

    - exposure is ``(e - 1) (L_u + S_u)``,
    - side is ``(l - e) L_u + (s - e) S_u``,
    - cost is ``C_u - C``,
    - timing is ``L - l L_u + S - s S_u``.

    Timing is the active part of Lo's decomposition, with each side of the strategy as an asset of its own:
    a gate that says one word for ever, or is open more often in a market that rises, has none.

    References
    ----------
    A. W. Lo, "Where Do Alphas Come From? A Measure of the Value of Active Investment Management", Journal
    of Investment Management 6(2), 2008.
    """
    same_bars(gated, ungated)
    rank = quantile_rank(n, between(confidence, 0.0, 1.0, "confidence"))
    scale = annual_factor(periods_per_year)
    columns = np.column_stack([*gated.rows, *ungated.rows])
    if block_length is None:
        returns = [gated.returns, ungated.returns, gated.returns - ungated.returns]
        length = automatic_block_length(np.column_stack(returns))
    else:
        length = in_blocks(block_length, len(columns))
    found = resample(columns, parts_of, length=length, n=n, seed=seed)
    size = 1e-12 * float(np.abs(columns[:, [0, 1, 2, 5, 6, 7]]).max(initial=0.0))
    return parts_made(found, rank, scale, confidence, length, size)


def parts_made(
    found: Resampled, rank: int, scale: float, confidence: float, length: int, size: float
) -> dict[str, BootstrapResult]:
    """Return the parts that were resampled by name, each with an interval of its own.

    What is no larger than `size` is rounding.
    """
    made = {}
    for row, name in enumerate(PARTS):
        estimate = float(found.estimates[row])
        if found.errors[row] <= size:
            estimate = estimate if abs(estimate) > size else 0.0
            made[name] = point(estimate * scale, confidence)
        else:
            made[name] = result_of(found, row, rank, estimate * scale, scale, confidence, length)
    return made


def point(estimate: float, confidence: float) -> BootstrapResult:
    """Return what has no sampling error to estimate."""
    return BootstrapResult(
        estimate=estimate,
        low=estimate,
        high=estimate,
        confidence=confidence,
        p_value=1.0 if estimate == 0.0 else math.nan,
        block_length=0,
        n=0,
    )


class CostPoint(NamedTuple):
    """The whole effect a year where trading costs `cost` of the value traded, with its interval."""

    cost: float
    effect: BootstrapResult


def breakeven_cost(gated: Legs, ungated: Legs) -> float | None:
    """Return the cost, as a share of the value traded, at which both strategies earn the same.

    Returns
    -------
    float or None
        None where they differ by as much at any cost of 0 or more: both trade as much, or the one that
        trades less is better without costs too.
    """
    same_bars(gated, ungated)
    gross = float(np.mean(gated.long + gated.short - ungated.long - ungated.short))
    saved = float(np.mean(ungated.traded - gated.traded))
    if abs(saved) <= 1e-15 or -gross / saved < 0.0:
        return None
    return -gross / saved


def cost_curve(
    gated: Legs,
    ungated: Legs,
    costs: Sequence[float],
    *,
    n: int = 999,
    seed: int = 0,
    block_length: int | None = None,
    periods_per_year: float | None = None,
) -> list[CostPoint]:
    """Return the whole effect at each of several costs, shares of the value traded, all else the same."""
    same_bars(gated, ungated)
    shares = [number("costs", cost, 0) for cost in several("costs", costs, "shares of the value traded")]
    return list(_curve(gated, ungated, shares, n, seed, block_length, annual_factor(periods_per_year)))


def _curve(
    gated: Legs,
    ungated: Legs,
    costs: Sequence[float],
    n: int,
    seed: int,
    block_length: int | None,
    scale: float,
) -> Iterator[CostPoint]:
    gross = gated.long + gated.short - ungated.long - ungated.short
    saved = ungated.traded - gated.traded
    columns = np.column_stack([gross, saved])
    length = (
        automatic_block_length(columns) if block_length is None else in_blocks(block_length, len(columns))
    )
    rank = quantile_rank(n, 0.95)
    weights = np.column_stack([np.ones(len(costs)), costs])

    def effects(means: Floats) -> tuple[Floats, Floats]:
        return means @ weights.T, np.broadcast_to(weights, (*means.shape[:-1], *weights.shape))

    found = resample(columns, effects, length=length, n=n, seed=seed)
    for row, cost in enumerate(costs):
        estimate = float(found.estimates[row]) * scale
        if found.errors[row] > 0.0:
            yield CostPoint(float(cost), result_of(found, row, rank, estimate, scale, 0.95, length))
        else:
            yield CostPoint(float(cost), point(estimate, 0.95))


def detectable(error: float, *, alpha: float = 0.05, power: float = 0.8, two_sided: bool = False) -> float:
    """Return the smallest true effect that a test would find with a given power.

    Parameters
    ----------
    error : float
        Standard error of the effect.
    alpha, power : float
        Level of the test, and how often it is to find the effect.
    two_sided : bool
        Whether the test is.

    References
    ----------
    H. S. Bloom, "Minimum Detectable Effects", Evaluation Review 19(5), 1995.

    Examples
    --------
    >>> round(detectable(1.0), 2), round(detectable(1.0, two_sided=True), 2)
    (2.49, 2.8)
    """
    number("error", error, 0)
    flag("two_sided", two_sided)
    level = between(alpha, 1e-15, 1.0, "alpha") / (2.0 if two_sided else 1.0)
    return error * (normal_quantile(1.0 - level) + normal_quantile(between(power, 0.0, 1.0, "power")))
