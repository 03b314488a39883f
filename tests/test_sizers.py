from __future__ import annotations

import backtrader as bt
import numpy as np
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.analyzers import LLMAnalyzer
from bt_llm.exceptions import ConfigError
from bt_llm.gates import Gate
from bt_llm.indicators import find_advice
from bt_llm.sizers import LLMSizer
from tests.engines import BULLISH, RANDOM, QuickAdvice, line, run, walk

BEARISH = AdvisorConfig(model="scripted:contrarian", cache_mode="off", calibration="none")


class Script(bt.Strategy):
    """Does at each bar what `plan` says: a list of words by the bar's number."""

    params = (("plan", None), ("advisor", BULLISH))

    def __init__(self):
        self.advice = QuickAdvice(self.data, advisor=self.p.advisor)
        self.orders = {}
        self.sizes = {}

    def next(self):
        words = self.p.plan.get(len(self.data), [])
        self.orders[len(self.data)] = [getattr(self, word)() for word in words]
        self.sizes[len(self.data)] = self.position.size


def script(plan, base=bt.sizers.FixedSize, base_params=None, gate=None, **params):
    def prepare(cerebro):
        cerebro.addsizer(LLMSizer, base=base, base_params=base_params or {"stake": 3}, gate=gate)
        cerebro.addanalyzer(LLMAnalyzer)

    return run(Script, walk(60), prepare=prepare, plan=plan, **params)


def test_an_entry_that_the_verdict_supports_has_the_base_sizers_size():
    strategy = script({20: ["buy"]})
    assert strategy.orders[20][0].created.size == 3
    assert strategy.sizes[21] == 3


def test_an_entry_against_the_verdict_sends_no_order():
    strategy = script({20: ["sell"]})
    assert strategy.orders[20] == [None]
    assert strategy.sizes[21] == 0


def test_exits_pass_whatever_the_verdict():
    strategy = script({20: ["buy"], 25: ["sell"], 30: ["buy"], 35: ["close"]})
    assert strategy.sizes[26] == 0
    assert strategy.sizes[36] == 0
    assert strategy.analyzers[0].get_analysis()["gate"] == {"allowed": 2, "blocked": 0, "missing": 0}


def test_adding_to_a_position_is_an_entry():
    assert script({20: ["buy"], 25: ["buy"]}).sizes[26] == 6
    strategy = script({20: ["buy"], 25: ["buy"]}, gate=Gate(advisor=BULLISH, min_confidence=0.9))
    assert strategy.orders == {**strategy.orders, 20: [None], 25: [None]}


@pytest.mark.parametrize(("require", "after"), [("agree", 0), ("not_against", 0)])
def test_a_reversal_against_the_verdict_is_cut_to_the_exit(require, after):
    gate = Gate(advisor=BULLISH, require=require)
    strategy = script({20: ["buy"], 25: ["sell"]}, base=bt.sizers.FixedReverser, gate=gate)
    assert strategy.sizes[21] == 3
    assert strategy.orders[25][0].created.size == -3
    assert strategy.sizes[26] == after
    assert strategy.analyzers[0].get_analysis()["gate"] == {"allowed": 1, "blocked": 1, "missing": 0}


def test_a_reversal_that_the_verdict_supports_goes_through():
    class Short(Script):
        def next(self):
            if len(self.data) == 20:
                self.sell(size=3)  # a size of its own: no sizer is asked
            super().next()

    def prepare(cerebro):
        cerebro.addsizer(LLMSizer, base=bt.sizers.FixedReverser, base_params={"stake": 3})

    strategy = run(Short, walk(60), prepare=prepare, plan={25: ["buy"]})
    assert strategy.sizes[21] == -3
    assert strategy.sizes[26] == 3


def test_close_and_sell_in_one_bar_is_an_exit_and_an_entry():
    strategy = script({20: ["buy"], 25: ["close", "sell"]})
    assert strategy.orders[25][1] is None
    assert strategy.sizes[26] == 0


def test_each_entry_follows_the_verdict_of_its_bar():
    plan = {bar: ["buy"] if bar % 2 else ["close"] for bar in range(17, 60)}
    strategy = script(plan, advisor=RANDOM)
    verdicts = line(strategy.advice, "verdict")
    sent = [strategy.orders[bar][0] is not None for bar in range(17, 60, 2)]
    assert sent == [verdicts[bar - 1] == 1 for bar in range(17, 60, 2)]
    assert len(set(sent)) == 2


def test_the_base_sizer_knows_the_strategy_and_the_broker():
    strategy = script({20: ["buy"]}, base=bt.sizers.PercentSizer, base_params={"percents": 50})
    assert strategy.sizes[21] == pytest.approx(5000 / strategy.data.close.array[19])


def test_the_gates_advisor_picks_among_several():
    class Two(Script):
        def __init__(self):
            super().__init__()
            QuickAdvice(self.data, advisor=BEARISH)

    def entered(gate):
        prepare = lambda cerebro: cerebro.addsizer(LLMSizer, gate=gate)  # noqa: E731
        strategy = run(Two, walk(60), prepare=prepare, plan={bar: ["buy", "close"] for bar in range(17, 60)})
        return [bar for bar, orders in strategy.orders.items() if orders and orders[0] is not None], strategy

    first, _ = entered(None)
    assert first == list(range(17, 60))
    second, strategy = entered(Gate(advisor=BEARISH))
    verdicts = line(find_advice(strategy)[1], "verdict")
    assert second == [int(bar) for bar in np.flatnonzero(verdicts == 1) + 1 if 17 <= bar < 60]
    assert 0 < len(second) < 43


def test_advice_can_be_added_from_outside_to_a_strategy_that_cannot_be_changed():
    class Plain(bt.Strategy):
        def next(self):
            if len(self.data) == 20:
                self.order = self.sell()

    def prepare(cerebro):
        cerebro.addindicator(QuickAdvice, advisor=BULLISH)
        cerebro.addsizer(LLMSizer)

    assert run(Plain, walk(60), prepare=prepare).order is None


def test_a_strategy_without_advice_is_an_error_at_its_first_entry():
    class Plain(bt.Strategy):
        def next(self):
            self.buy()

    with pytest.raises(ConfigError, match="Plain has no such LLMAdvice on data 'data0': make one"):
        run(Plain, walk(30), prepare=lambda c: c.addsizer(LLMSizer))


def test_what_is_no_gate_is_named():
    with pytest.raises(ConfigError, match="gate='agree': expected a Gate"):
        run(bt.Strategy, walk(30), prepare=lambda c: c.addsizer(LLMSizer, gate="agree"))
