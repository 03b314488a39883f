"""Entries of a board, whose tasks may lie on one market: what `bt-llm board` says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.gates import AlwaysOpen
from bt_llm.research._board import BoardTasks, Task, _ranked
from tests.size.markets import SIGMA, blink, garch, iid
from tests.size.setting import Found, Goal, Setting

__all__ = ["SETTINGS"]

Floats = NDArray[np.float64]

RESAMPLES = 199

WORSE = "board: an entry is shown to be worse"
BEST = "board: the best is better than no gate at all"

FALSE = Goal("false positives", most=0.06)


@dataclass(frozen=True, eq=False)
class Run:
    """A run of a task, as far as a board looks at it."""

    returns: pd.Series
    problems: tuple[str, ...] = ()
    metrics: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("return", "sharpe", "max_drawdown", "trades"), 0.0)
    )

    @property
    def equity(self) -> pd.Series:
        """Of the account."""
        return (1.0 + self.returns).cumprod()


def study(
    seed: int,
    *,
    entries: int,
    markets: int,
    strategies: int,
    garched: bool = False,
    bars: int = 600,
    knows: float = 0.0,
) -> Found:
    """Return what is said of entries that open and close at random, the same in all tasks on one market.

    Every strategy is in its market half of the time, and mostly on the side of the others. `knows` is how
    much more a bar that the first entry lets in earns, in deviations.
    """
    rng = np.random.default_rng([23, seed, entries, markets, strategies])
    names = [f"entry {number}" for number in range(entries)]
    runs: dict[str, dict[str, Any]] = {name: {} for name in (*names, "ungated")}
    tasks = []
    for market in range(markets):
        moves = (garch if garched else iid)(bars, rng)
        lets = {name: blink(bars, rng, 20, 20) for name in names}
        common = np.where(blink(bars, rng, 20, 20), 1.0, -1.0)
        for strategy in range(strategies):
            # Strategies of one market take its trends at about the same time.
            side = np.where(blink(bars, rng, 40, 10), common, 0.0)
            task = Task(name=f"{market} {strategy}", strategy="a.py:A", data=f"{market}.csv")
            tasks.append(task)
            for name in runs:
                gain = knows * np.abs(side) if name == "entry 0" else 0.0
                let = lets.get(name, np.ones(bars, dtype=bool))
                index = pd.date_range("2000-01-03", periods=bars, freq="D")
                runs[name][task.name] = Run(pd.Series(SIGMA * let * (side * moves + gain), index))
    gates = dict.fromkeys(runs, AlwaysOpen())
    found = _ranked(BoardTasks(tasks=tuple(tasks), resamples=RESAMPLES), runs, cast(Any, gates))
    assert found.over_ungated is not None
    return {WORSE: len(found.best) < entries, BEST: found.over_ungated.found}


def knows_nothing(name: str, **settings: Any) -> Setting:
    """Return a setting whose entries are all as good."""
    return Setting(
        group="Board",
        name=name,
        study=partial(study, **settings),
        goals={WORSE: FALSE, BEST: FALSE},
        repeats=500,
    )


SETTINGS = [
    knows_nothing("five that know nothing, four tasks on four markets", entries=5, markets=4, strategies=1),
    knows_nothing("five that know nothing, four tasks on two markets", entries=5, markets=2, strategies=2),
    knows_nothing(
        "five that know nothing, four tasks on one market, GARCH",
        entries=5,
        markets=1,
        strategies=4,
        garched=True,
    ),
    Setting(
        group="Board",
        name="five, one of which earns 0.2 deviations a bar more, four tasks on two markets",
        study=partial(study, entries=5, markets=2, strategies=2, knows=0.2),
        goals={WORSE: Goal("power", 0.8), BEST: Goal("power", 0.8)},
        repeats=200,
        control=True,
    ),
]
