"""What an account was worth at every close, worked out after the run, against a broker that was asked."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.backtest import Market, Setup
from bt_llm.backtest._account_analyzer import AccountAnalyzer
from bt_llm.backtest._engine import run_strategy
from tests.engines import walk

BARS = walk(400, seed=21)


class Eventful(bt.Strategy):
    """Goes long, short and flat, and does to its broker what a plan says, at given bars."""

    params = (("plan", {}), ("size", 20))

    def next(self) -> None:
        bar = len(self)
        if bar in self.p.plan:
            self.p.plan[bar](self.broker)
        if bar % 40 == 5:
            self.buy(size=self.p.size)
        elif bar % 40 == 20:
            self.sell(size=2 * self.p.size)
        elif bar % 40 == 31:
            self.close()
        elif bar % 80 == 72:
            self.buy(exectype=bt.Order.Limit, price=0.9 * self.data.close[0], valid=None)


def account(engine: Any, plan: Any, size: float, bars: pd.DataFrame, **more: Any) -> Any:
    """Return what an engine's account holds, to the last bit."""
    setup = Setup.of(cash=10_000.0, commission=more.pop("commission", 0.001))
    params = {"plan": plan, "size": size}
    found = run_strategy(Eventful, Market.of(bars), setup, params, engine=engine, **more).account
    return (
        found.numbers.tobytes(),
        found.equity.tobytes(),
        found.held,
        found.ruined,
        found.ruin_value,
        len(found.fills),
    )


def futures(broker: Any) -> None:
    """Trade on margin from now on."""
    broker.setcommission(commission=2.0, margin=50.0, mult=5.0)


PLANS = {
    "as it is": {},
    "cash is set while it holds": {10: lambda broker: broker.set_cash(9_000.0)},
    "the same cash is set": {10: lambda broker: broker.set_cash(broker.get_cash())},
    "cash is added": {28: lambda broker: broker.add_cash(123.0), 33: lambda broker: broker.add_cash(-9.0)},
    "leverage while it holds": {10: lambda broker: broker.setcommission(leverage=3.0, stocklike=True)},
    "terms while it is flat": {36: lambda broker: broker.setcommission(mult=2.0, stocklike=True)},
    "futures while it holds": {10: futures, 60: lambda broker: broker.setcommission(commission=0.01)},
    "interest": {1: lambda broker: broker.setcommission(interest=0.1, interest_long=True)},
    "short sales add no cash": {90: lambda broker: broker.set_shortcash(False)},
    "the run is ended": {77: lambda broker: broker.cerebro.runstop()},
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_an_account_is_worth_the_same_to_the_last_bit(plan: Any) -> None:
    assert account("lean", plan, 20, BARS) == account("plain", plan, 20, BARS)


@pytest.mark.parametrize("first", [0, 3, 50, 399])
def test_it_begins_at_the_bar_that_counts(first: int) -> None:
    number = float(Market.of(BARS).numbers[first])
    lean, plain = (account(engine, {}, 7, BARS, first=number) for engine in ("lean", "plain"))
    assert lean == plain
    assert len(lean[0]) == 8 * (len(BARS) - first)


def test_a_short_position_is_ruined_at_the_same_close() -> None:
    rising = BARS.copy()
    rising[["open", "high", "low", "close"]] *= np.exp(np.linspace(0.0, 2.0, len(BARS)))[:, None]
    plan = {24: lambda broker: broker.set_checksubmit(False)}
    lean, plain = (account(engine, plan, 400, rising) for engine in ("lean", "plain"))
    assert lean == plain
    assert lean[3] is not None
    assert lean[4] <= 0.0


def test_the_lean_loop_asks_a_broker_only_when_it_has_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Any) -> None:
        raise AssertionError("called bar by bar")

    monkeypatch.setattr(AccountAnalyzer, "next", refused)
    assert account("lean", {}, 20, BARS)
    with pytest.raises(Exception, match="called bar by bar"):
        account("plain", {}, 20, BARS)
