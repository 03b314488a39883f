"""Walk-forward records of settings that are worth nothing, and of settings that are."""

from __future__ import annotations

from functools import partial

import numpy as np

from bt_llm.research.walk_forward._question import sharpe_question
from bt_llm.statistics import deflated_sharpe_ratio
from tests.size.markets import garch, iid
from tests.size.setting import Found, Goal, Setting

__all__ = ["SETTINGS"]

SAYS = "walkforward: the true Sharpe ratio is above 0, as the best of all tried"
TRIALS, TRAIN, TEST, FOLDS = 10, 250, 125, 8


def study(seed: int, *, market: str, drift: float) -> Found:
    """Return what is said of a record whose folds each chose the best of 10 settings in sample."""
    rng = np.random.default_rng([13, seed])
    make = iid if market == "normal" else garch
    bars = TRAIN + TEST * FOLDS
    trials = np.array([make(bars, rng, drift if trial == 0 else 0.0) for trial in range(TRIALS)])
    record, ratios = [], []
    for fold in range(FOLDS):
        train = trials[:, fold * TEST : fold * TEST + TRAIN]
        scores = train.mean(axis=1) / train.std(axis=1)
        chosen = int(np.argmax(scores))
        first = fold * TEST + TRAIN
        record.append(0.01 * trials[chosen, first : first + TEST])
        ratios.append(scores)
    returns = np.concatenate(record)
    deflated = deflated_sharpe_ratio(returns, np.mean(ratios, axis=0))
    question = sharpe_question(returns, deflated, n_trials=TRIALS, trades=50.0, periods_per_year=250.0)
    return {SAYS: question.found}


SETTINGS = [
    Setting(
        group="Walk-forward",
        name=f"the best of 10 settings, {kind}; {market} returns",
        study=partial(study, market=market, drift=drift),
        goals={SAYS: goal},
        control=drift > 0.0,
    )
    for kind, drift, goal in (
        ("all worth nothing", 0.0, Goal("false positives", most=0.06)),
        ("one worth a Sharpe ratio of 5 a year", 0.3, Goal("power", 0.8)),
    )
    for market in ("normal", "GARCH")
]
