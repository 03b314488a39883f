"""A gate on histories that never happened: what `bt-llm leakage --synthetic` says of one that remembers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.research._null_runs import NullRuns
from bt_llm.research.leakage._synthetic import HISTORIES, SyntheticHistories
from bt_llm.statistics import holm
from tests.size.accounts import Account
from tests.size.markets import SIGMA, Bars, walk
from tests.size.setting import Found, Goal, Setting
from tests.size.settings_gates import FALSE, Lines, gates, markets

__all__ = ["SETTINGS"]

Floats = NDArray[np.float64]

NUMBER = 39

SAYS = "leakage --synthetic: what the gate adds comes from the order of the real history"


def effect(bars: Bars, lines: Lines) -> dict[str, float]:
    """Return what a gate changes in the Sharpe ratio a bar."""
    account = Account.of("alternate", bars)
    gated = account.mask(account.with_lines(*lines))
    one, other = account.sharpes(np.array([gated, account.everything]))
    return {"sharpe": one - other}


def _bars(moves: Floats, ranges: Floats) -> Bars:
    """Return the bars of returns; how far each reaches beyond its open and close is `ranges`."""
    close = 100.0 * np.cumprod(1.0 + moves)
    opens = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(opens, close), np.minimum(opens, close)
    return Bars(opens, high + ranges[0] * close, low - ranges[1] * close, close)


def study(seed: int, *, market: str, gate: str, knows: float = 0.0, bars: int = 400) -> Found:
    """Return what is said of a gate of the market's state, which is told the next five bars on a share."""
    rng = np.random.default_rng([47, seed, bars])
    prices = walk(markets()[market](bars, rng), rng)
    ranges = 0.35 * SIGMA * np.abs(rng.standard_normal((2, bars)))
    moves = np.diff(prices.close, prepend=100.0) / np.concatenate([[100.0], prices.close[:-1]])

    def lines(history: Bars) -> Lines:
        return gates()[gate](history, np.random.default_rng(seed))

    real = lines(prices)
    if knows:
        came = pd.Series(prices.close).pct_change(5).shift(-5).fillna(0.0).to_numpy()
        told = rng.random(bars) < knows
        real = (np.where(told, came > 0.0, real[0]), np.where(told, came < 0.0, real[1]))
    observed, runs = effect(prices, real), {}
    for kind, order_of in HISTORIES.items():
        found = []
        for number in range(NUMBER):
            order = order_of(moves[1:], seed=1000 * seed + number)
            history = _bars(np.concatenate([moves[:1], moves[1:][order]]), ranges)
            found.append(effect(history, lines(history)))
        runs[kind] = NullRuns(kind=kind, observed=observed, nulls=pd.DataFrame(found), tested="sharpe")
    adjusted = holm({kind: one.p_value("sharpe") for kind, one in runs.items()})
    return {SAYS: SyntheticHistories(runs=runs, adjusted=adjusted, alpha=0.05).found}


SETTINGS = [
    Setting(
        group="Histories that never happened",
        name=f"a gate that remembers nothing: {gate}; market: {market}",
        study=partial(study, market=market, gate=gate),
        goals={SAYS: FALSE},
        repeats=150,
    )
    for market, gate in (("random walk", "with the trend"), ("GARCH", "open when quiet"))
] + [
    Setting(
        group="Histories that never happened",
        name="a gate that follows the trend, and on half of the bars is told the next five",
        study=partial(study, market="random walk", gate="with the trend", knows=0.5),
        goals={SAYS: Goal("power", 0.8)},
        repeats=50,
        control=True,
    )
]
