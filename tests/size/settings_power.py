"""Negative controls: gates that know something, which has to be found."""

from __future__ import annotations

from functools import partial

import numpy as np

from bt_llm.research._null_runs import random_runs
from bt_llm.research._timing import timing_question
from tests.size.accounts import Account
from tests.size.markets import walk, words
from tests.size.setting import Found, Goal, Setting
from tests.size.settings_gates import ANY, BETTER, TEST, said_of

__all__ = ["SETTINGS"]

SHARPE = "for comparison: the same, ranked by Sharpe ratio, volatile markets or not"


def study(seed: int, *, strategy: str, bars: int, drift: float) -> Found:
    """Return what is said of verdicts that are right: the market drifts as they say while they last."""
    rng = np.random.default_rng([3, seed, bars])
    said = words(bars, rng, 20, (0.5, 0.5))
    toward = np.where(said == 0, 1.0, -1.0)
    # What is said at a close is of the bars after it.
    moves = rng.standard_normal(bars) + drift * np.concatenate([[0.0], toward[:-1]])
    account = Account.of(strategy, walk(moves, rng))
    lines = (said == 0, said == 1)
    found = dict(said_of(account, lines, seed, intervals=bars <= 2000))
    found.pop(ANY)
    found[SHARPE] = _by_sharpe(account, lines, seed)
    return found


def _by_sharpe(account: Account, lines: tuple[np.ndarray, np.ndarray], seed: int) -> bool | None:
    """Return what ranking Sharpe ratios says, to compare the power with."""
    run = account.with_lines(*lines)
    answers, dated = account.log(run)

    def evaluate(gates: object) -> list[dict[str, float]]:
        masks = np.array([account.mask_of(gate) for gate in gates])  # type: ignore[attr-defined]
        return [{"timing": value} for value in account.sharpes(masks)]

    observed = {"timing": account.sharpes(account.mask(run)[None])[0]}
    block = account.moments.block(dated, account.trades(run))
    nulls = random_runs(
        dated, observed, evaluate, moments=account.moments, block=block, n=99, seed=seed, strata=False
    )
    return timing_question(nulls, answers, 0.0).found


def knows(strategy: str, bars: int, drift: float, least: float, repeats: int = 500) -> Setting:
    """Return a setting in which something is there to be found."""
    goals = {TEST: Goal("power", least)} if least else {}
    return Setting(
        group="Gates that know something",
        name=f"verdicts after which the market drifts by {drift:g} deviations a bar; strategy: {strategy}; "
        f"{bars:,} bars",
        study=partial(study, strategy=strategy, bars=bars, drift=drift),
        goals=goals if bars > 2000 or not least else goals | {BETTER: Goal("power", least - 0.1)},
        repeats=repeats,
        control=True,
    )


SETTINGS = [
    knows("alternate", 5000, 0.05, 0.88, 300),
    knows("alternate", 1000, 0.2, 0.95),
    knows("cross", 5000, 0.05, 0.0, 300),
]
