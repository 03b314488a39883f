from __future__ import annotations

import backtrader as bt
import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.gates import Gate, NeverOpen, attached_gates, gated, order_gate_of
from bt_llm.sizers import LLMSizer
from tests.engines import BULLISH, QuickAdvice, run, walk


class Script(bt.Strategy):
    """Does at each bar what `plan` says: a list of words by the bar's number."""

    params = (("plan", None),)

    def __init__(self):
        self.orders = {}
        self.sizes = {}

    def next(self):
        words = self.p.plan.get(len(self.data), [])
        self.orders[len(self.data)] = [getattr(self, word)() for word in words]
        self.sizes[len(self.data)] = self.position.size


def script(plan, strategy=Script, **sizer):
    def prepare(cerebro):
        cerebro.addindicator(QuickAdvice, advisor=BULLISH)
        cerebro.addsizer(LLMSizer, **sizer)

    return run(strategy, walk(60), prepare=prepare, plan=plan)


def test_the_base_sizer_says_how_much():
    strategy = script({20: ["buy"]}, base=bt.sizers.FixedSize, base_params={"stake": 3})
    assert strategy.sizes[21] == 3


def test_the_base_sizer_knows_the_strategy_and_the_broker():
    strategy = script({20: ["buy"]}, base=bt.sizers.PercentSizer, base_params={"percents": 50})
    assert strategy.sizes[21] == pytest.approx(5000 / strategy.data.close.array[19])


def test_the_strategys_orders_are_judged():
    strategy = script({20: ["sell"], 22: ["buy"], 25: ["close", "sell"]})
    assert [order.getstatusname() for order in strategy.orders[20]] == ["Rejected"]
    assert [order.getstatusname() for order in strategy.orders[25]] == ["Completed", "Rejected"]
    assert (strategy.sizes[23], strategy.sizes[26]) == (1, 0)
    assert [judged.allowed for judged in order_gate_of(strategy).log] == [False, True, False]


def test_by_default_it_asks_the_advice_that_is_there():
    strategy = script({20: ["buy"]})
    (gate,) = attached_gates(strategy)
    assert gate.advice is strategy.getindicators()[0]
    assert gate.gate == Gate(advisor=BULLISH, indicator=QuickAdvice)


def test_a_vetoed_entry_takes_its_stop_along():
    class EntryAndStop(Script):
        def enter(self):
            entry = self.buy(transmit=False)
            self.stop_order = self.sell(
                exectype=bt.Order.Stop, price=self.data.close[0] * 0.999, parent=entry
            )
            return entry

    strategy = script({20: ["enter"]}, EntryAndStop, gate=NeverOpen())
    assert strategy.orders[20][0].status == strategy.stop_order.status == bt.Order.Rejected
    assert set(strategy.sizes.values()) == {0}


def test_a_strategy_may_set_it_for_itself():
    class SetsItself(Script):
        def __init__(self):
            super().__init__()
            self.setsizer(LLMSizer(gate=NeverOpen()))

    strategy = run(SetsItself, walk(30), plan={20: ["buy"]})
    assert strategy.orders[20][0].status == bt.Order.Rejected


def test_orders_are_judged_by_one_gate():
    prepare = lambda cerebro: cerebro.addsizer(LLMSizer, gate=NeverOpen())  # noqa: E731
    with pytest.raises(
        ConfigError, match="the orders of Script are judged by a gate already: give them one only"
    ):
        run(gated(Script), walk(30), prepare=prepare, gate=NeverOpen(), plan={})
    assert run(gated(Script), walk(30), prepare=prepare, plan={20: ["buy"]}).position.size == 0


def test_what_is_no_gate_is_named():
    with pytest.raises(ConfigError, match="gate='agree': expected None or a gate"):
        run(bt.Strategy, walk(30), prepare=lambda c: c.addsizer(LLMSizer, gate="agree"))
