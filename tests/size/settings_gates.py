"""Gates that know nothing, and gates that do: what `bt-llm test` and `bt-llm run` say of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bt_llm.gates import Answers
from bt_llm.research._null_runs import random_runs, shifted_runs
from bt_llm.research._timing import timing_question
from bt_llm.statistics import take_apart
from tests.size.accounts import WARM_UP, Account
from tests.size.markets import Bars, blink, garch, iid, walk, words
from tests.size.setting import Found, Goal, Setting

__all__ = ["SETTINGS"]

Lines = tuple[NDArray[np.bool_], NDArray[np.bool_]]
Market = Callable[[int, np.random.Generator], NDArray[np.float64]]
GateOf = Callable[[Bars, np.random.Generator], Lines]

RANDOM, SHIFTED, RESAMPLES = 99, 39, 199

TEST = "test: the gate's timing is better than luck"
BETTER = "run: timing is worth more than nothing (its interval lies above 0)"
WHOLE = "described: the interval of the whole effect lies above 0"
EXPOSURE = "described: the interval of exposure lies above 0"
SHIFT = "described: rank among shifted gates in the best 5 %"
ANY = "test: any good news, cannot tell being none"


def markets() -> dict[str, Market]:
    """Return the markets by name; drift in deviations a bar."""
    return {
        "random walk": iid,
        "GARCH": garch,
        "rising": partial(iid, drift=0.05),
        "falling": partial(iid, drift=-0.05),
        "rising GARCH": partial(garch, drift=0.05),
    }


def both(line: NDArray[np.bool_]) -> Lines:
    """Open or closed to both sides at once."""
    return line, line


def gates() -> dict[str, GateOf]:
    """Return gates that know nothing of what comes, by name."""

    def verdicts(bars: Bars, rng: np.random.Generator) -> Lines:
        said = words(len(bars), rng, 20, (1 / 3, 1 / 3, 1 / 3))
        return said == 0, said == 1

    def biased(bars: Bars, rng: np.random.Generator) -> Lines:
        said = words(len(bars), rng, 20, (0.8, 0.2))
        return said == 0, said == 1

    return {
        "verdicts at random, kept for 20 bars": verdicts,
        "open at random, a third of the time": lambda bars, rng: both(blink(len(bars), rng, 20, 40)),
        "bullish for ever": lambda bars, rng: (
            np.ones(len(bars), dtype=bool),
            np.zeros(len(bars), dtype=bool),
        ),
        "bullish 80, bearish 20 % at random": biased,
        "with the trend": lambda bars, rng: (bars.trend > 0.04, bars.trend < -0.04),
        "against the trend": lambda bars, rng: (bars.trend < -0.04, bars.trend > 0.04),
        "open when quiet": lambda bars, rng: both(bars.volatility < 1.0),
        "open when wild": lambda bars, rng: both(bars.volatility >= 1.0),
    }


def study(
    seed: int,
    *,
    market: str,
    strategy: str,
    gate: str,
    bars: int = 1000,
    cost: float = 0.0,
    shifted: bool = False,
    intervals: bool = True,
) -> Found:
    """Return what is said of one gate in one market."""
    rng = np.random.default_rng([seed, bars])
    prices = walk(markets()[market](bars, rng), rng)
    account = Account.of(strategy, prices, cost)
    return said_of(account, gates()[gate](prices, rng), seed, shifted=shifted, intervals=intervals)


def said_of(
    account: Account, lines: Lines, seed: int, *, shifted: bool = False, intervals: bool = True
) -> Found:
    """Return what `bt-llm test` and `bt-llm run` say of a gate, sentence by sentence."""
    run = account.with_lines(*lines)
    mask = account.mask(run)
    timing = account.timing(mask)
    observed = {"timing": account.scores(mask[None])[0], "trades": float(mask.sum())}
    answers, dated = account.log(run)
    block = account.moments.block(dated, account.trades(run))
    nulls = random_runs(
        dated, observed, account.evaluate, moments=account.moments, block=block, n=RANDOM, seed=seed
    )
    question = timing_question(nulls, answers, timing.error)
    found: dict[str, bool | None] = {TEST: question.found}
    good = bool(question.found)
    if intervals:
        parts = take_apart(account.legs(mask), account.legs(account.everything), n=RESAMPLES, seed=seed)
        found[BETTER] = parts["timing"].low > 0.0
        found[WHOLE] = parts["whole"].low > 0.0
        found[EXPOSURE] = parts["exposure"].low > 0.0
    if shifted:
        long, short = (np.asarray(line[WARM_UP - 1 :], dtype=np.uint8).tobytes() for line in lines)
        line = Answers(long=long, short=short, per="bar", warm_up=WARM_UP)
        moved = shifted_runs(line, observed, account.evaluate, n=SHIFTED)
        found[SHIFT] = None if moved.refused else moved.p_value("timing") <= 0.05
    found[ANY] = good
    return found


FALSE = Goal("false positives", most=0.06)
ONE_SIDE = Goal("false positives", most=0.035)


def knows_nothing(market: str, strategy: str, gate: str, **settings: float | bool) -> Setting:
    """Return a setting in which nothing good should be said of timing."""
    goals = {TEST: FALSE, BETTER: ONE_SIDE, ANY: FALSE} | ({SHIFT: FALSE} if settings.get("shifted") else {})
    cost = f", costs of {100 * float(settings['cost']):g} %" if settings.get("cost") else ""
    return Setting(
        group="Gates that know nothing",
        name=f"{gate}; strategy: {strategy}; market: {market}{cost}",
        study=partial(study, market=market, strategy=strategy, gate=gate, **settings),  # type: ignore[arg-type]
        goals=goals,
    )


NOTHING = [
    knows_nothing("random walk", "cross", "verdicts at random, kept for 20 bars"),
    knows_nothing("rising", "cross", "bullish for ever"),
    knows_nothing("rising", "alternate", "bullish for ever"),
    knows_nothing("rising", "cross", "bullish 80, bearish 20 % at random"),
    knows_nothing("rising", "alternate", "bullish 80, bearish 20 % at random"),
    knows_nothing("random walk", "cross", "with the trend", cost=0.01),
    knows_nothing("random walk", "breakout", "with the trend", cost=0.01),
    knows_nothing("random walk", "cross", "against the trend", cost=0.005, shifted=True),
    knows_nothing("random walk", "alternate", "against the trend", cost=0.005, shifted=True),
    knows_nothing("GARCH", "cross", "open when quiet"),
    knows_nothing("GARCH", "alternate", "open when quiet"),
    knows_nothing("rising GARCH", "alternate", "open when wild"),
    knows_nothing("falling", "long cross", "open at random, a third of the time"),
    knows_nothing("falling", "hold", "open at random, a third of the time"),
    knows_nothing("random walk", "reversion", "open at random, a third of the time"),
    knows_nothing("random walk", "breakout", "verdicts at random, kept for 20 bars"),
    knows_nothing("rising GARCH", "breakout", "open when quiet"),
]

SETTINGS = [*NOTHING]
