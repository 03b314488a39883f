from __future__ import annotations

import math
import pickle
from dataclasses import dataclass

import backtrader as bt
import numpy as np
import pytest

from bt_llm.advice import AdvisorConfig, AnalystConfig
from bt_llm.data import Headlines
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import (
    LONG,
    SHORT,
    AlwaysOpen,
    AttachedGate,
    Decision,
    EntryGate,
    Gate,
    NeverOpen,
    NewsGate,
    RuleGate,
    TradeAdviceGate,
    attach_gate,
    attached_gates,
)
from bt_llm.indicators import LLMAdvice, find_advice
from tests.engines import BULLISH, MODES, RANDOM, TREND, QuickAdvice, bits, line, run, walk

NAN = math.nan


class Crosser(bt.Strategy):
    """Long above a moving average, flat below; it has a state that a later start would change."""

    params = (("gate", None), ("period", 5))

    def __init__(self):
        self.average = bt.ind.SMA(self.data, period=self.p.period)
        self.gate = attach_gate(self.p.gate, self)
        self.started = None
        self.signals = 0
        self.fills = []

    def next(self):
        self.started = self.started or len(self.data)
        self.signals += self.data.close[0] > self.average[0]
        if self.position and self.data.close[0] < self.average[0]:
            self.close()
        elif not self.position and self.data.close[0] > self.average[0] and self.gate.allows_long():
            self.buy(size=1 + self.signals % 3)

    def notify_order(self, order):
        if order.status == order.Completed:
            self.fills.append(
                (len(self.data), order.executed.size, order.executed.price, order.executed.value)
            )


# The rule


@pytest.mark.parametrize(
    ("settings", "verdict", "confidence", "long", "short"),
    [
        ({}, 1.0, 0.4, True, False),
        ({}, -1.0, 0.4, False, True),
        ({}, 0.0, 0.9, False, False),
        ({}, NAN, NAN, False, False),
        ({}, NAN, 0.0, False, False),
        ({"min_confidence": 0.5}, 1.0, 0.5, True, False),
        ({"min_confidence": 0.5}, 1.0, 0.49, False, False),
        ({"require": "not_against"}, 1.0, 0.4, True, False),
        ({"require": "not_against"}, -1.0, 0.4, False, True),
        ({"require": "not_against"}, 0.0, 0.9, True, True),
        ({"require": "not_against", "min_confidence": 0.5}, -1.0, 0.49, True, True),
        ({"require": "not_against", "min_confidence": 0.5}, -1.0, 0.5, False, True),
        ({"require": "not_against"}, NAN, NAN, False, False),
        ({"on_missing": "pass"}, NAN, NAN, True, True),
        ({"on_missing": "pass", "min_confidence": 1.0}, NAN, 0.0, True, True),
    ],
)
def test_the_rule_by_hand(settings, verdict, confidence, long, short):
    gate = Gate(**settings)
    assert gate.allows(LONG, verdict, confidence) is long
    assert gate.allows(SHORT, verdict, confidence) is short


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"advisor": "smollm2"}, "advisor='smollm2': expected an AdvisorConfig"),
        ({"min_confidence": 1.5}, "min_confidence=1.5: expected a number from 0 to 1"),
        ({"min_confidence": math.nan}, "min_confidence=nan"),
        ({"min_confidence": True}, "min_confidence=True"),
        ({"require": "agrees"}, r"require='agrees': expected one of \['agree', 'not_against'\]"),
        ({"on_missing": "hold"}, r"on_missing='hold': expected one of \['block', 'pass'\]"),
        ({"indicator": bt.ind.RSI}, "expected LLMAdvice or a subclass"),
        ({"indicator": "LLMAdvice"}, "expected LLMAdvice or a subclass"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Gate(**settings)


@pytest.mark.parametrize("warm_up", [-1, 1.0, True, "5"])
def test_a_wrong_warm_up_is_named(warm_up):
    with pytest.raises(ConfigError, match=f"warm_up={warm_up!r}: expected a whole number"):
        AlwaysOpen(warm_up=warm_up)


def test_gates_are_values():
    for gate in (Gate(advisor=TREND, indicator=QuickAdvice), AlwaysOpen(warm_up=3), NeverOpen()):
        assert pickle.loads(pickle.dumps(gate)) == gate
        assert len({gate, pickle.loads(pickle.dumps(gate))}) == 1
        assert len(pickle.dumps(gate)) < 2000
        assert isinstance(gate, EntryGate)
    assert AlwaysOpen() != NeverOpen()
    with pytest.raises(AttributeError):
        Gate().min_confidence = 0.5


# On a strategy


@pytest.mark.parametrize("mode", [{"runonce": True}, {"runonce": False}])
def test_each_decision_is_the_verdict_of_its_bar(mode):
    strategy = run(Crosser, walk(200), mode=mode, gate=Gate(advisor=RANDOM, indicator=QuickAdvice))
    verdicts, confidences = (line(strategy.gate.advice, name) for name in ("verdict", "confidence"))
    gate = strategy.gate
    assert len(gate.log) > 20
    for decision in gate.log:
        at = decision.bar - 1
        assert decision == Decision(
            decision.bar, LONG, verdicts[at] == 1, verdicts[at], confidences[at], False
        )
    assert gate.allowed + gate.blocked == len(gate.log)
    assert gate.allowed == sum(verdicts[d.bar - 1] == 1 for d in gate.log)
    assert 0 < gate.allowed < len(gate.log)
    assert gate.missing == 0
    assert attached_gates(strategy) == [gate]


def test_short_entries_are_asked_as_shorts():
    class Shorts(bt.Strategy):
        def __init__(self):
            self.gate = attach_gate(Gate(advisor=TREND, indicator=QuickAdvice), self)

        def next(self):
            assert self.gate.allows_short() == (self.gate.advice.verdict[0] == -1)

    gate = run(Shorts, walk(80)).gate
    assert {decision.side for decision in gate.log} == {SHORT}
    assert 0 < gate.allowed < 65


def test_bars_without_a_verdict_are_missing_and_follow_the_policy():
    class Sometimes(bt.Strategy):
        params = (("policy", "block"),)

        def __init__(self):
            gate = Gate(advisor=BULLISH, indicator=Rarely, on_missing=self.p.policy)
            self.gate = attach_gate(gate, self)

        def next(self):
            self.gate.allows_long()

    blocking, passing = (run(Sometimes, walk(60), policy=policy).gate for policy in ("block", "pass"))
    asked = blocking.advice.asked
    assert 0 < asked < 45
    assert (blocking.allowed, blocking.blocked, blocking.missing) == (asked, 45 - asked, 45 - asked)
    assert (passing.allowed, passing.blocked, passing.missing) == (45, 0, 45 - asked)


class Rarely(QuickAdvice):
    """Has no state on bars that fall."""

    def _make_rsi(self):
        return bt.If(self.data.close > self.data.open, super()._make_rsi(), math.nan)


def test_none_is_open_asks_nobody_and_makes_nothing():
    strategy = run(Crosser, walk(60), gate=None)
    assert len(strategy.getindicators()) == len(run(Crosser, walk(60), gate=NeverOpen()).getindicators())
    assert find_advice(strategy) == []
    assert strategy.started == 5
    assert strategy.gate.allowed == len(strategy.gate.log) > 0
    assert strategy.gate.missing == 0


def test_never_open_holds_every_entry_back():
    strategy = run(Crosser, walk(60), gate=NeverOpen())
    assert strategy.gate.blocked == len(strategy.gate.log) > 0
    assert strategy.fills == []
    assert strategy.broker.getvalue() == 10_000


@pytest.mark.parametrize("gate", ["open", AlwaysOpen, Gate(advisor=RANDOM).advisor, True, object()])
def test_what_is_no_gate_is_named(gate):
    with pytest.raises(ConfigError, match="expected None or a gate, such as Gate"):
        run(Crosser, walk(60), gate=gate)


# The same warm-up for all


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_open_baseline_trades_exactly_as_a_gate_that_always_agrees(mode):
    gate = Gate(advisor=BULLISH, indicator=QuickAdvice)
    gated = run(Crosser, walk(150), mode=mode, gate=gate)
    baseline = run(Crosser, walk(150), mode=mode, gate=gate.baseline())
    assert gated.gate.blocked == 0
    assert baseline.started == gated.started == 16
    assert len(gated.fills) > 10
    assert [bits(fill) for fill in baseline.fills] == [bits(fill) for fill in gated.fills]
    assert bits([baseline.broker.getvalue()]) == bits([gated.broker.getvalue()])


def test_without_the_baseline_the_warm_up_itself_changes_the_trades():
    gate = Gate(advisor=BULLISH, indicator=QuickAdvice)
    assert run(Crosser, walk(150)).fills != run(Crosser, walk(150), gate=gate).fills


def test_a_longer_warm_up_of_the_strategys_own_stands():
    gate = Gate(advisor=BULLISH, indicator=QuickAdvice)
    starts = [run(Crosser, walk(150), gate=g, period=40).started for g in (None, gate, gate.baseline())]
    assert starts == [40, 40, 40]


def test_the_baseline_of_every_gate_has_its_warm_up():
    assert Gate(advisor=RANDOM).baseline() == AlwaysOpen(warm_up=114)
    assert Gate(advisor=RANDOM, indicator=QuickAdvice).warm_up_bars == 16
    assert NeverOpen(warm_up=7).baseline() == AlwaysOpen(warm_up=7)
    assert AlwaysOpen().baseline() == AlwaysOpen()


# Attaching


def attach_in(init):
    class Attaching(bt.Strategy):
        def __init__(self):
            init(self)

    return run(Attaching, walk(60), walk(60, seed=1))


def test_an_equal_advice_on_the_data_is_used_again():
    gate = Gate(advisor=RANDOM, indicator=QuickAdvice)

    def init(s):
        s.mine = QuickAdvice(s.data, advisor=RANDOM)
        s.gates = [attach_gate(gate, s), attach_gate(gate, s, s.data1), attach_gate(gate, s, s.data1)]

    strategy = attach_in(init)
    first, second, third = (attached.advice for attached in strategy.gates)
    assert first is strategy.mine
    assert second is third
    assert second.data is strategy.data1
    assert len(find_advice(strategy)) == 2
    assert attached_gates(strategy) == strategy.gates


def test_an_advice_that_differs_is_not_used():
    gate = Gate(advisor=RANDOM, indicator=QuickAdvice)

    def init(s):
        QuickAdvice(s.data1, advisor=RANDOM)
        QuickAdvice(s.data, advisor=TREND)
        QuickAdvice(s.data, advisor=RANDOM, rsi=6)
        QuickAdvice(s.data, s.data.close > s.data.open, advisor=RANDOM)
        LLMAdvice(s.data, advisor=RANDOM, median=10)
        s.gate = attach_gate(gate, s)

    strategy = attach_in(init)
    assert strategy.gate.advice is find_advice(strategy)[-1]
    assert len(find_advice(strategy)) == 6


def test_a_gate_on_another_data_judges_that_data():
    gate = Gate(advisor=RANDOM, indicator=QuickAdvice)

    class Second(bt.Strategy):
        def __init__(self):
            self.gate = attach_gate(gate, self, self.data1)

        def next(self):
            self.gate.allows_long()

    strategy = run(Second, walk(60), walk(60, seed=1))
    assert strategy.gate.data is strategy.data1
    assert [d.verdict for d in strategy.gate.log] == line(strategy.gate.advice, "verdict")[15:].tolist()


BY_THE_CLOSE = {
    "verdict": Gate(advisor=RANDOM, indicator=QuickAdvice),
    "news": NewsGate(headlines=Headlines(())),
    "trade": TradeAdviceGate(analyst=AnalystConfig(model="scripted:trend", cache_mode="off")),
    "rule": RuleGate(indicator=QuickAdvice),
}


@pytest.mark.parametrize("gate", [*BY_THE_CLOSE.values(), NeverOpen()], ids=[*BY_THE_CLOSE, "never"])
def test_a_running_strategy_cannot_attach_a_gate(gate):
    class Late(bt.Strategy):
        def start(self):
            attach_gate(gate, self)

    with pytest.raises(ConfigError, match="Late is already running: attach gates in its __init__"):
        run(Late, walk(150))


def test_too_little_data_is_said_before_the_run():
    with pytest.raises(DataError, match="has 100 bars, but LLMAdvice needs 114"):
        run(Crosser, walk(100), gate=Gate(advisor=RANDOM))


@pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning")  # Backtrader's
@pytest.mark.parametrize("gate", BY_THE_CLOSE.values(), ids=BY_THE_CLOSE)
def test_cheat_on_close_is_warned_of(gate):
    with pytest.warns(UserWarning, match="orders fill at the very close that the verdict was made from"):
        run(
            Crosser,
            walk(130),
            prepare=lambda cerebro: cerebro.broker.set_coc(True),
            gate=gate,
        )


def test_at_a_cheating_open_the_gate_sees_the_previous_close():
    class AtOpen(bt.Strategy):
        def __init__(self):
            self.gate = attach_gate(Gate(advisor=RANDOM, indicator=QuickAdvice), self)

        def next_open(self):
            self.gate.allows_long()

    gate = run(AtOpen, walk(60), mode={"cheat_on_open": True}).gate
    verdicts = line(gate.advice, "verdict")
    assert [d.verdict for d in gate.log] == verdicts[15:-1].tolist()
    assert len(set(verdicts[15:])) == 3


# A gate of one's own


@dataclass(frozen=True)
class Odd(EntryGate):
    """Lets entries through on odd bars."""

    warm_up_bars = 1
    phase: int = 1

    def attach(self, strategy, data=None):
        return AttachedOdd(strategy, data)


class AttachedOdd(AttachedGate):
    def decide(self, side):
        return Decision(len(self.data), side, len(self.data) % 2 == 1)


def test_a_gate_of_ones_own_runs_in_the_same_strategy():
    strategy = run(Crosser, walk(60), gate=Odd())
    assert strategy.gate.allowed == sum(d.bar % 2 for d in strategy.gate.log) > 0
    assert strategy.gate.blocked > 0
    assert attached_gates(strategy) == [strategy.gate]
    assert Odd().baseline() == AlwaysOpen(warm_up=1)


def test_a_gate_that_lacks_a_method_says_which():
    class Lazy(EntryGate):
        warm_up_bars = 1

    with pytest.raises(ConfigError, match=r"^gate Lazy lacks attach: define it in the class$"):
        Lazy()
    with pytest.raises(ConfigError, match=r"^gate EntryGate lacks attach and warm_up_bars: "):
        EntryGate()


def test_what_only_looks_like_a_gate_is_told_what_it_lacks():
    class Duck:
        def attach(self, strategy, data=None):
            raise AssertionError("it is not asked")

        @property
        def warm_up_bars(self):
            raise AssertionError("it is not evaluated")

    with pytest.raises(ConfigError, match="Duck is no EntryGate and lacks baseline, describe: derive"):
        run(Crosser, walk(60), gate=Duck())


def test_asking_whether_something_is_a_gate_runs_nothing(monkeypatch):
    def running(*_, **__):
        raise AssertionError("a Cerebro was run")

    monkeypatch.setattr(bt.Cerebro, "run", running)
    assert isinstance(Gate(), EntryGate)
    assert not isinstance(Gate().advisor, EntryGate)


@pytest.mark.parametrize("value", [np.float64(0.4), np.float32(0.5), np.int64(1)])
def test_numbers_of_numpy_are_kept_as_pythons_own(value):
    gate = Gate(min_confidence=value)
    assert type(gate.min_confidence) is float
    assert gate == Gate(min_confidence=float(value))
    assert type(AlwaysOpen(warm_up=np.int64(3)).warm_up) is int
    with pytest.raises(ConfigError, match="min_confidence="):
        Gate(min_confidence=np.bool_(True))


def test_the_default_advisor_is_the_embedded_model():
    assert Gate().advisor == AdvisorConfig()
