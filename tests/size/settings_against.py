"""Gates against no gate and against a plain rule: better or worse for whatever reason."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from bt_llm.backtest import Bootstrap
from bt_llm.research._against import against
from bt_llm.research._standing import standing
from tests.size.accounts import WARM_UP, Account
from tests.size.markets import Bars, iid, walk, words
from tests.size.setting import Found, Goal, Setting
from tests.size.settings_gates import FALSE, Lines, markets

__all__ = ["SETTINGS"]

RESAMPLES = 199

TEST = "test: gated, it is better or worse than the ungated strategy, or than the plain rule"
COMPARE = "compare: a model is better or worse than ungated, or than the plain rule"
BETWEEN = "compare: one model is better than another"
BEST = "compare: the best is better than ungated (superior predictive ability)"


def of_gates(account: Account, gates: list[Lines], seed: int) -> Found:
    """Return what is said of gates of a strategy, the first of them alone and all together."""
    bars = account.bars
    rule = (bars.trend > 0.04, bars.trend < -0.04)
    runs = {
        **{f"model {number}": account.with_lines(*lines) for number, lines in enumerate(gates)},
        "ungated": account.made(lambda _: True),
        "rule": account.with_lines(*rule),
    }
    days = pd.date_range("2000-01-03", periods=len(bars) - WARM_UP, freq="B")
    masks = np.array([account.mask(run) for run in runs.values()])
    returns = pd.DataFrame(dict(zip(runs, account.returns(masks), strict=True)), days)
    trades = {name: account.trades(run) for name, run in runs.items()}
    bootstrap = Bootstrap(resamples=RESAMPLES, seed=seed)
    three = {"gated": "model 0", "ungated": "ungated", "rule": "rule"}
    alone = against(
        {name: returns[of] for name, of in three.items()},
        bootstrap,
        {name: trades[of] for name, of in three.items()},
    )
    models = [name for name in runs if name.startswith("model")]
    made = {
        name: pd.Index(list(frame[["opened", "direction"]].itertuples(index=False, name=None)))
        for name, frame in trades.items()
    }
    stands = standing(returns, models, bootstrap, trades=made)
    assert stands.between is not None
    assert stands.against is not None
    return {
        TEST: any(map(alone.shown, alone.sharpe.pairs)),
        BETWEEN: any(map(stands.shown, stands.between.pairs)),
        COMPARE: any(stands.shown(one) for one in stands.against.pairs if one.second in stands.benchmarks),
        BEST: stands.spa["ungated"] <= 0.05,
    }


def _drawn(bars: Bars, rng: np.random.Generator) -> Lines:
    said = words(len(bars), rng, 20, (1 / 3, 1 / 3, 1 / 3))
    return said == 0, said == 1


def study(seed: int, *, market: str, strategy: str, models: int = 3, bars: int = 1000) -> Found:
    """Return what is said of models that draw their words in a market where nothing pays."""
    rng = np.random.default_rng([37, seed, models, bars])
    prices = walk(markets()[market](bars, rng), rng)
    return of_gates(Account.of(strategy, prices), [_drawn(prices, rng) for _ in range(models)], seed)


def right(seed: int, *, drift: float, models: int = 3, bars: int = 1000) -> Found:
    """Return what is said of models of which the first is right, and the others draw their words."""
    rng = np.random.default_rng([41, seed, models, bars])
    said = words(bars, rng, 20, (0.5, 0.5)) == 0
    toward = np.where(said, 1.0, -1.0)
    prices = walk(iid(bars, rng) + drift * np.concatenate([[0.0], toward[:-1]]), rng)
    lines = [(said, ~said), *(_drawn(prices, rng) for _ in range(models - 1))]
    return of_gates(Account.of("alternate", prices), lines, seed)


def knows_nothing(market: str, strategy: str) -> Setting:
    """Return a setting in which no difference should be found."""
    return Setting(
        group="Against no gate and a plain rule",
        name=f"three models that draw their words, kept for 20 bars; strategy: {strategy}; market: {market}",
        study=partial(study, market=market, strategy=strategy),
        goals=dict.fromkeys((TEST, BETWEEN, COMPARE, BEST), FALSE),
        repeats=300,
    )


SETTINGS = [
    knows_nothing("random walk", "cross"),
    knows_nothing("random walk", "alternate"),
    knows_nothing("GARCH", "alternate"),
    Setting(
        group="Against no gate and a plain rule",
        name="three models, after the verdicts of one of which the market drifts by 0.2 deviations a bar; "
        "strategy: alternate; 1,000 bars",
        study=partial(right, drift=0.2),
        goals=dict.fromkeys((TEST, BETWEEN, COMPARE, BEST), Goal("power", 0.8)),
        repeats=100,
        control=True,
    ),
]
