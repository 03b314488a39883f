"""How often an interval of `paired_bootstrap` holds the true difference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bt_llm.statistics import paired_bootstrap
from tests.size.markets import blink, garch, iid
from tests.size.setting import Found, Goal, Setting

__all__ = ["SETTINGS"]

Floats = NDArray[np.float64]
Make = Callable[..., Floats]
Pair = Callable[[int, np.random.Generator], tuple[Floats, Floats, float, float]]

RESAMPLES = 299


def related(
    n: int, rng: np.random.Generator, make: Callable[..., Floats]
) -> tuple[Floats, Floats, float, float]:
    """Two strategies of one market, with Sharpe ratios of 0.05 and 0.03 a bar."""
    one, other = make(n, rng), make(n, rng)
    return 0.05 + one, 0.03 + 0.7 * one + np.sqrt(0.51) * other, 0.02, 0.02


def gated(
    n: int, rng: np.random.Generator, make: Callable[..., Floats]
) -> tuple[Floats, Floats, float, float]:
    """A strategy with a gate that is open a third of the time, whatever comes, and without."""
    moves, share = 0.05 + make(n, rng), 1 / 3
    sharpe = share * 0.05 / np.sqrt(share * (1 + 0.05**2) - (share * 0.05) ** 2)
    return blink(n, rng, 20, 40) * moves, moves, float(sharpe) - 0.05, (share - 1) * 0.05


PAIRS: dict[str, Pair] = {
    "two strategies, normal returns": partial(related, make=iid),
    "two strategies, GARCH": partial(related, make=garch),
    "two strategies, persistent GARCH": partial(
        related, make=partial(garch, moved=0.05, kept=0.945, tails=6)
    ),
    "gated and ungated, GARCH": partial(gated, make=garch),
}


def study(seed: int, *, pair: str, bars: int) -> Found:
    """Return whether the intervals of both statistics hold the truth."""
    rng = np.random.default_rng([7, seed, bars])
    one, other, sharpe, mean = PAIRS[pair](bars, rng)
    found = {}
    for statistic, truth in (("sharpe", sharpe), ("return", mean)):
        result = paired_bootstrap(one, other, statistic, n=RESAMPLES, seed=seed)
        found[f"the interval of the difference in {statistic} holds the truth"] = bool(
            result.low <= truth <= result.high
        )
    return found


def covers(pair: str, bars: int) -> Setting:
    """Return a setting in which intervals should hold the truth 95 % of the time."""
    goal = Goal("coverage", 0.93, 0.97)
    names = ("sharpe", "return")
    return Setting(
        group="Intervals",
        name=f"{pair}; {bars:,} bars",
        study=partial(study, pair=pair, bars=bars),
        goals={f"the interval of the difference in {name} holds the truth": goal for name in names},
        repeats=1000,
    )


def better(seed: int, *, bars: int) -> Found:
    """Return whether intervals leave out no difference where one strategy is much the better."""
    rng = np.random.default_rng([8, seed, bars])
    one, other, _, _ = related(bars, rng, garch)
    found = {}
    for statistic in ("sharpe", "return"):
        result = paired_bootstrap(one + 0.15, other, statistic, n=RESAMPLES, seed=seed)
        found[f"the interval of the difference in {statistic} lies above 0"] = bool(result.low > 0.0)
    return found


CONTROL = Setting(
    group="Intervals",
    name="two strategies that differ by 0.17 deviations a bar, GARCH; 1,000 bars",
    study=partial(better, bars=1000),
    goals={
        f"the interval of the difference in {name} lies above 0": Goal("power", 0.9)
        for name in ("sharpe", "return")
    },
    repeats=300,
    control=True,
)

SETTINGS = [CONTROL, *(covers(pair, bars) for pair in PAIRS for bars in (250, 1000, 5000))]
