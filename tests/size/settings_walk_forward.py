"""Walk-forward records of settings that are worth nothing, and of settings that are."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Bootstrap
from bt_llm.research._standing import standing
from bt_llm.research.walk_forward._question import sharpe_question
from bt_llm.statistics import (
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
    probability_of_backtest_overfitting,
)
from tests.size.markets import SIGMA, garch, iid
from tests.size.setting import Found, Goal, Setting

__all__ = ["SETTINGS"]

Floats = NDArray[np.float64]

SAYS = "walkforward: the true Sharpe ratio is above 0, as the best of all tried"
ALONE = "walkforward: it is above 0 with a probability of 95 % or more, if this was the only study"
HALVES = "described: the best of one half is below the median of the other in at most 5 % of the ways"
BETTER = "walkforward: one model, each searched for itself, is better than another"
AGAINST = "walkforward: a model is better or worse than no gate"
TRIALS, TRAIN, TEST, FOLDS = 10, 250, 125, 8
BARS = TRAIN + TEST * FOLDS
RESAMPLES = 199

FALSE = Goal("false positives", most=0.06)


def searched(trials: Floats) -> tuple[Floats, Floats]:
    """Return the record of the best in sample of each fold, and the mean Sharpe ratio of each trial."""
    record, ratios = [], []
    for fold in range(FOLDS):
        train = trials[:, fold * TEST : fold * TEST + TRAIN]
        scores = train.mean(axis=1) / train.std(axis=1)
        chosen = int(np.argmax(scores))
        first = fold * TEST + TRAIN
        record.append(SIGMA * trials[chosen, first : first + TEST])
        ratios.append(scores)
    return np.concatenate(record), np.mean(ratios, axis=0)


def study(seed: int, *, market: str, drift: float, symbols: int = 1) -> Found:
    """Return what is said of a record whose folds each chose the best of 10 settings in sample.

    Of several symbols, which have half of what they do in common, the pooled record is judged.
    """
    rng = np.random.default_rng([13, seed, symbols] if symbols > 1 else [13, seed])
    make = iid if market == "normal" else garch
    trials = np.array([_pooled(make, rng, symbols, drift if trial == 0 else 0.0) for trial in range(TRIALS)])
    returns, ratios = searched(trials)
    deflated = deflated_sharpe_ratio(returns, ratios)
    question = sharpe_question(returns, deflated, n_trials=TRIALS, trades=50.0, periods_per_year=250.0)
    found: dict[str, bool | None] = {
        SAYS: question.found,
        ALONE: bool(probabilistic_sharpe_ratio(returns) >= 0.95),
    }
    if symbols == 1:
        found[HALVES] = probability_of_backtest_overfitting(trials.T, n_splits=8).pbo <= 0.05
    return found


def _pooled(make: object, rng: np.random.Generator, symbols: int, drift: float) -> Floats:
    """Return the mean of what a setting earns on each symbol, in deviations of one."""
    assert callable(make)
    if symbols == 1:
        return np.asarray(make(BARS, rng, drift))
    common = make(BARS, rng)
    own = [np.sqrt(0.5) * (common + make(BARS, rng)) + drift for _ in range(symbols)]
    return np.asarray(np.mean(own, axis=0))


def contenders(seed: int, *, market: str, drift: float) -> Found:
    """Return what is said of two models, each searched over five settings; all hold half of one market."""
    rng = np.random.default_rng([43, seed])
    make = iid if market == "normal" else garch
    common = make(BARS, rng)
    records = {}
    for model in ("first", "second"):
        gain = drift if model == "first" else 0.0
        trials = np.array([np.sqrt(0.5) * (common + make(BARS, rng)) + gain for _ in range(TRIALS // 2)])
        records[model] = searched(trials)[0]
    records["ungated"] = SIGMA * common[TRAIN:]
    returns = pd.DataFrame(records, pd.date_range("2000-01-03", periods=BARS - TRAIN, freq="B"))
    found = standing(returns, ["first", "second"], Bootstrap(resamples=RESAMPLES, seed=seed))
    assert found.between is not None
    assert found.against is not None
    return {
        BETTER: any(map(found.shown, found.between.pairs)),
        AGAINST: any(found.shown(one) for one in found.against.pairs if one.second == "ungated"),
    }


SETTINGS = [
    *(
        Setting(
            group="Walk-forward",
            name=f"the best of 10 settings, {kind}; {market} returns",
            study=partial(study, market=market, drift=drift),
            goals={SAYS: goal, ALONE: goal},
            control=drift > 0.0,
        )
        for kind, drift, goal in (
            ("all worth nothing", 0.0, FALSE),
            ("one worth a Sharpe ratio of 5 a year", 0.3, Goal("power", 0.8)),
        )
        for market in ("normal", "GARCH")
    ),
    *(
        Setting(
            group="Walk-forward",
            name=f"five symbols pooled, the best of 10 settings for all, {kind}; GARCH returns",
            study=partial(study, market="GARCH", drift=drift, symbols=5),
            goals={SAYS: goal, ALONE: goal},
            repeats=500,
            control=drift > 0.0,
        )
        for kind, drift, goal in (
            ("all worth nothing", 0.0, FALSE),
            ("one worth 0.25 deviations a bar on each", 0.25, Goal("power", 0.8)),
        )
    ),
    *(
        Setting(
            group="Walk-forward",
            name=f"two models, the best of five settings of each, {kind}; {market} returns",
            study=partial(contenders, market=market, drift=drift),
            goals=dict.fromkeys((BETTER, AGAINST), goal),
            repeats=500,
            control=drift > 0.0,
        )
        for kind, market, drift, goal in (
            ("all worth nothing", "normal", 0.0, FALSE),
            ("all worth nothing", "GARCH", 0.0, FALSE),
            ("the first worth 0.15 deviations a bar", "GARCH", 0.15, Goal("power", 0.8)),
        )
    ),
]
