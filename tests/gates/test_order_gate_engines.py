"""Judged strategies in other processes, and a result that is known from Backtrader alone."""

from __future__ import annotations

import backtrader as bt
import pytest

from bt_llm.data import load_bars
from bt_llm.gates import AlwaysOpen, Gate, NeverOpen, gated, order_gate_of
from tests.conftest import ROOT
from tests.engines import TREND, QuickAdvice, array_feed
from tests.gates.test_order_gate_equality import Watch
from tests.strategies_of_others import CASES

SP500 = load_bars(ROOT / "data" / "sp500_daily.csv")
GATES = {
    "none": None,
    "open": AlwaysOpen(),
    "closed": NeverOpen(),
    "trend": Gate(advisor=TREND, indicator=QuickAdvice),
}


@pytest.mark.parametrize(
    "name",
    ["close_then_turn", "long_bracket", "breakout_oco", "signal_strategy", "month_timer", "takes_keywords"],
)
def test_an_optimisation_on_two_processes_gives_what_single_runs_give(name):
    case = CASES[name]
    cerebro = market(maxcpus=2)
    given = {key: [value] for key, value in case.params.items()}
    args = [[value] for value in case.args]
    cerebro.optstrategy(gated(case.strategy), *args, gate=list(GATES.values()), **given)
    found = [run[0].analyzers.watch.fills for run in cerebro.run()]
    assert found == [single(case, gate) for gate in GATES.values()]
    assert found[0] == found[1] != []
    assert found[2] == []


def market(**settings):
    cerebro = bt.Cerebro(stdstats=False, **settings)
    cerebro.adddata(array_feed(SP500[300:460]), name="data0")
    cerebro.broker.setcash(100_000)
    cerebro.addanalyzer(Watch, _name="watch")
    return cerebro


def single(case, gate):
    cerebro = market()
    cerebro.addstrategy(gated(case.strategy), *case.args, gate=gate, **case.params)
    return cerebro.run()[0].analyzers.watch.fills


def test_whole_strategies_come_back_from_other_processes():
    cerebro = market(maxcpus=2, optreturn=False)
    cerebro.optstrategy(gated(CASES["close_then_turn"].strategy), gate=[AlwaysOpen(), NeverOpen()])
    opened, closed = (run[0] for run in cerebro.run())
    assert type(opened) is gated(CASES["close_then_turn"].strategy)
    assert {judged.allowed for judged in order_gate_of(opened).log} == {True}
    assert {judged.allowed for judged in order_gate_of(closed).log} == {False}


def crossover(gate, **settings):
    cerebro = bt.Cerebro(stdstats=False, **settings)
    cerebro.adddata(array_feed(SP500))
    cerebro.addstrategy(gated(bt.strategies.MA_CrossOver), gate=gate)
    cerebro.addsizer(bt.sizers.PercentSizer, percents=95)
    cerebro.addanalyzer(bt.analyzers.TradeAnalyzer, _name="trades")
    strategy = cerebro.run()[0]
    return strategy.analyzers.trades.get_analysis()["total"]["closed"], round(cerebro.broker.getvalue(), 2)


@pytest.mark.parametrize("gate", [None, AlwaysOpen()], ids=["none", "open"])
def test_backtraders_own_crossover_on_the_shipped_index(gate):
    assert crossover(gate) == (88, 15_370.16)
