"""A strategy whose result can be worked out without Backtrader, and bars with and without an edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import Market, periods_per_year
from bt_llm.gates import LONG, SHORT, Answers, DatesGate, EntryGate, Gate, attach_gate
from bt_llm.research import NullRuns
from bt_llm.research._moments import Moments
from bt_llm.research._null_runs import dated_entries, entry_log, random_runs
from tests.engines import QuickAdvice

HOLD, SIZE, CASH = 3, 50, 10_000.0


class Alternate(bt.Strategy):
    """Ask to go long, then short, then long, every `HOLD` bars, and leave after as many: no view at all."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        turn, rest = divmod(len(self), HOLD)
        if rest:
            return
        if self.position:
            self.close()
        if turn % 2 == 0 and self.gate.allows_long():
            self.buy(size=SIZE)
        elif turn % 2 and self.gate.allows_short():
            self.sell(size=SIZE)


class AlternateByHand:
    """What `Alternate` earns with given answers, without Backtrader."""

    def __init__(self, bars: pd.DataFrame, warm_up: int) -> None:
        opens, closes = bars["open"].to_numpy(), bars["close"].to_numpy()
        first = max(1, warm_up)
        asked = [bar for bar in range(first, len(bars) + 1) if bar % HOLD == 0]
        self.times = np.array([bt.date2num(bars.index[bar - 1]) for bar in asked])
        self.sides = np.array([LONG if bar // HOLD % 2 == 0 else SHORT for bar in asked])
        self.gains = np.zeros((len(asked), len(bars)))
        for row, bar, side in zip(self.gains, asked, self.sides, strict=True):
            if bar < len(bars):
                leaves = bar + HOLD
                row[bar:] = closes[bar:] - opens[bar]
                if leaves < len(bars):
                    row[leaves:] = opens[leaves] - opens[bar]
                row *= side * SIZE
        self.gains = self.gains[:, first - 1 :]
        self.yearly = periods_per_year(pd.DatetimeIndex(bars.index[first - 1 :]))

    def metrics(self, answers: Answers) -> dict[str, float]:
        allowed = np.zeros(len(self.sides))
        for side in (LONG, SHORT):
            allowed[self.sides == side] = list(answers.of_side(side))
        return self._metrics(allowed)

    def _metrics(self, allowed: np.ndarray) -> dict[str, float]:
        equity = CASH + allowed @ self.gains
        returns = np.diff(equity) / equity[:-1]
        return {
            "return": equity[-1] / CASH - 1.0,
            "sharpe": statistics.sharpe_ratio(returns, periods_per_year=self.yearly),
        }

    def evaluate(self, gates: Sequence[DatesGate]) -> list[dict[str, float]]:
        lines = [{side: gate.line("data", side, self.times) for side in (LONG, SHORT)} for gate in gates]
        return [self._metrics(np.where(self.sides == LONG, one[LONG], one[SHORT])) for one in lines]


def random_gates_of(
    strategy: Any, bars: pd.DataFrame, gate: EntryGate, observed: Any, evaluate: Any, *, n: int, **ways: Any
) -> NullRuns:
    """Return a gate's result among those of random gates, as its test has them."""
    told = dated_entries(entry_log(strategy, bars, gate, **ways.pop("settings", {})))
    moments = Moments.of(Market.of(bars), gate.warm_up_bars)
    block = moments.block(told, pd.DataFrame(columns=["opened", "closed"]))
    warm_up = gate.warm_up_bars
    return random_runs(
        told, observed, evaluate, moments=moments, block=block, n=n, warm_up=warm_up, strata=False, **ways
    )


def gate_of(model: str, **settings: object) -> Gate:
    """Return a gate on a scripted model that is warm after 16 bars."""
    return Gate(advisor=AdvisorConfig(model=model, cache_mode="off"), indicator=QuickAdvice, **settings)


def regimes(bars: int = 400, seed: int = 0, drift: float = 0.006) -> pd.DataFrame:
    """Return bars that rise or fall for some 30 bars on end: the trend says where the next move goes."""
    rng = np.random.default_rng(seed)
    signs = np.repeat(rng.permutation(np.tile([1.0, -1.0], bars // 50 + 1)), 25)[:bars]
    return _bars(drift * signs + 0.004 * rng.standard_normal(bars), rng)


def random_walk(bars: int = 300, seed: int = 0) -> pd.DataFrame:
    """Return bars that nothing can be known about."""
    rng = np.random.default_rng(seed)
    return _bars(0.01 * rng.standard_normal(bars), rng)


def walks_in_common(count: int, bars: int, rho: float, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Return bars of symbols that nothing can be known about, and whose moves have a correlation."""
    rng = np.random.default_rng(seed)
    market, own = rng.standard_normal(bars), rng.standard_normal((count, bars))
    moves = 0.01 * (np.sqrt(rho) * market + np.sqrt(1.0 - rho) * own)
    return {f"s{number}": _bars(one, rng) for number, one in enumerate(moves)}


def _bars(moves: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    close = 100.0 * np.exp(np.cumsum(moves))
    opens = np.concatenate([[100.0], close[:-1]])
    spread = 0.003 * close * rng.random((2, len(close)))
    frame = {
        "open": opens,
        "high": np.maximum(opens, close) + spread[0],
        "low": np.minimum(opens, close) - spread[1],
        "close": close,
        "volume": np.full(len(close), 100.0),
    }
    return pd.DataFrame(frame, index=pd.date_range("2020-01-01", periods=len(close), freq="D"))
