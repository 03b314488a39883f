"""Wordings that would have done as well: what `bt-llm multiverse` says of all of them."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from bt_llm.research.multiverses._joint import Entries, joint_null
from tests.size.accounts import WARM_UP, Account
from tests.size.markets import iid, walk, words
from tests.size.setting import Found, Goal, Setting
from tests.size.settings_gates import FALSE, Lines, gates, markets

__all__ = ["SETTINGS"]

DRAWS = 99

TEST = "multiverse: the timing of the specifications, by their median, is better than luck"
MORE = "described: more specifications have a p of 5 % or less alone than in 19 of 20 that know nothing"


def of_specifications(account: Account, specifications: list[Lines], seed: int) -> Found:
    """Return what is said of a strategy with each of several gates."""
    runs = [account.with_lines(*lines) for lines in specifications]
    scores = np.array(account.scores(np.array([account.mask(run) for run in runs])))
    bars = np.array([one.bar for one in account.entries], dtype=np.int64)
    long = account.sides > 0
    allowed = np.stack([np.where(long, lines[0][bars], lines[1][bars]) for lines in specifications], axis=1)
    asked = Entries(data="bars", times=account.times[bars], sides=account.sides, allowed=allowed)
    joint = joint_null(
        asked,
        scores,
        account.evaluate,
        moments=account.moments,
        trades=account.trades(account.made(lambda _: True)),
        n=DRAWS,
        seed=seed,
        warm_up=WARM_UP,
    )
    luck = joint.significant_by_luck
    more = bool(joint.significant > np.quantile(luck, 0.95, method="higher")) if len(luck) else None
    return {TEST: joint.question.found, MORE: more if joint.question.found is not None else None}


def varied(
    said: NDArray[np.bool_], count: int, kept: float, rng: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Return as many lines that say what one says on a share of the bars, and else what they like."""
    own = [words(len(said), rng, 20, (0.5, 0.5)) == 0 for _ in range(count)]
    agrees = [words(len(said), rng, 20, (kept, 1.0 - kept)) == 0 for _ in range(count)]
    return [np.where(same, said, other) for same, other in zip(agrees, own, strict=True)]


def study(
    seed: int, *, market: str, strategy: str, gate: str, alike: float, count: int = 8, bars: int = 1000
) -> Found:
    """Return what is said of specifications that know nothing, and agree on a share of the bars."""
    rng = np.random.default_rng([29, seed, count, bars])
    prices = walk(markets()[market](bars, rng), rng)
    lines = gates()[gate](prices, rng)
    sides = [varied(line, count, alike, rng) for line in lines]
    return of_specifications(
        Account.of(strategy, prices), [(one, two) for one, two in zip(*sides, strict=True)], seed
    )


def right(seed: int, *, drift: float, alike: float, count: int = 8, bars: int = 1000) -> Found:
    """Return what is said of specifications that are right as often as they agree with one that is."""
    rng = np.random.default_rng([31, seed, count, bars])
    said = words(bars, rng, 20, (0.5, 0.5)) == 0
    toward = np.where(said, 1.0, -1.0)
    prices = walk(iid(bars, rng) + drift * np.concatenate([[0.0], toward[:-1]]), rng)
    lines = [(line, ~line) for line in varied(said, count, alike, rng)]
    return of_specifications(Account.of("alternate", prices), lines, seed)


def knows_nothing(market: str, strategy: str, gate: str, alike: float) -> Setting:
    """Return a setting in which no timing should be found."""
    return Setting(
        group="Multiverse",
        name=f"eight wordings that agree on {100 * alike:g} % of the bars: {gate}; strategy: {strategy}; "
        f"market: {market}",
        study=partial(study, market=market, strategy=strategy, gate=gate, alike=alike),
        goals={TEST: FALSE},
        repeats=300,
    )


SETTINGS = [
    knows_nothing("random walk", "cross", "verdicts at random, kept for 20 bars", 0.8),
    knows_nothing("random walk", "alternate", "verdicts at random, kept for 20 bars", 0.2),
    knows_nothing("rising GARCH", "alternate", "open when quiet", 0.8),
    Setting(
        group="Multiverse",
        name="eight wordings that agree on 60 % of the bars with one that is right: the market drifts by 0.2 "
        "deviations a bar; strategy: alternate",
        study=partial(right, drift=0.2, alike=0.6),
        goals={TEST: Goal("power", 0.8)},
        repeats=100,
        control=True,
    ),
]
