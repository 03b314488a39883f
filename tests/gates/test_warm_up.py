"""Before a gate's warm-up the answer is no, whatever the gate: all runs of a study start on the same bar."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.gates import (
    AlwaysOpen,
    Answers,
    Gate,
    NeverOpen,
    RandomGate,
    RuleGate,
    ShiftedGate,
    attach_gate,
    attached_gates,
    gated,
)
from bt_llm.research import gate_test
from tests.engines import BULLISH, MODES, QuickAdvice, run, walk

WARM_UP = 16
GATE = Gate(advisor=BULLISH, indicator=QuickAdvice)
BARS = walk(150)
ANSWERS = {
    per: Answers(long=bytes([1] * 150), short=bytes([1] * 150), per=per, warm_up=WARM_UP)
    for per in ("entry", "bar")
}
OPEN = [
    GATE,
    GATE.baseline(),
    RandomGate(answers=ANSWERS["entry"]),
    RandomGate(answers=ANSWERS["bar"]),
    ShiftedGate(answers=ANSWERS["bar"], bars=5),
]


class Trades(bt.Strategy):
    """Buys wherever it is called, and notes the bar at which it was let in."""

    params = (("gate", None),)
    ask_first = True

    def __init__(self):
        self.gate = attach_gate(self.p.gate, self) if self.ask_first else None
        self.bought = []

    def trade(self):
        if self.gate is None or self.gate.allows_long():
            self.buy(size=0.1)

    def notify_order(self, order):
        if order.status == order.Completed:
            self.bought.append(len(self))


class Timed(Trades):
    def __init__(self):
        super().__init__()
        self.add_timer(bt.timer.SESSION_START)

    def notify_timer(self, timer, when, *args, **kwargs):
        self.trade()


class Eager(Trades):
    def prenext(self):
        self.trade()

    next = prenext


class TimedUnchanged(Timed):
    ask_first = False


class EagerUnchanged(Eager):
    ask_first = False


@pytest.mark.parametrize("gate", OPEN, ids=lambda gate: type(gate).__name__)
@pytest.mark.parametrize(
    ("strategy", "first"), [(Timed, 18), (Eager, 17), (TimedUnchanged, 18), (EagerUnchanged, 17)]
)
def test_every_gate_lets_the_first_entry_in_at_the_same_bar(strategy, first, gate):
    ran = run(gated(strategy), BARS, gate=gate)
    assert ran.bought == list(range(first, 151))
    assert attached_gates(ran)[0].early == first - 2
    assert len(attached_gates(ran)[0].log) == 152 - first


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_in_every_mode(mode):
    assert run(gated(Timed), BARS, mode=mode, gate=GATE).bought[0] == 18


def test_early_answers_are_no_answers_of_the_null_that_takes_its_place():
    answers = Answers(long=bytes([1, 0, 0]), short=b"", per="entry", warm_up=WARM_UP)
    ran = run(Eager, BARS, gate=RandomGate(answers=answers))
    given = RandomGate(answers=answers).given().long
    assert [decision.allowed for decision in attached_gates(ran)[0].log[:3]] == [
        bool(answer) for answer in given
    ]
    assert attached_gates(ran)[0].log[0].bar == WARM_UP


@pytest.mark.parametrize("gate", [AlwaysOpen(), NeverOpen(), None], ids=str)
def test_without_a_warm_up_nothing_is_early(gate):
    attached = attached_gates(run(Eager, BARS, gate=gate))[0]
    assert (attached.early, len(attached.log)) == (0, 150)


def test_a_rule_waits_for_its_features():
    rule = RuleGate(indicator=QuickAdvice, advisor=BULLISH)
    assert attached_gates(run(Eager, BARS, gate=rule))[0].early == rule.warm_up_bars - 1


def test_answers_by_bar_at_a_cheating_open_are_those_of_the_bar_before():
    answers = Answers(long=bytes([1, 0] * 75), short=bytes(150), per="bar", warm_up=1)

    class AtOpen(bt.Strategy):
        def __init__(self):
            self.gate = attach_gate(ShiftedGate(answers=answers, bars=0), self)

        def next_open(self):
            self.gate.allows_long()

    log = run(AtOpen, BARS, mode={"cheat_on_open": True}).gate.log
    assert {(decision.bar % 2 == 1, decision.allowed) for decision in log} == {(True, True), (False, False)}


@pytest.mark.parametrize("strategy", [Timed, Eager])
def test_a_gate_that_blocks_nothing_has_no_skill(strategy):
    rng = np.random.default_rng(3)
    moves = rng.normal(0.001, 0.01, 150)
    moves[:WARM_UP] -= 0.02  # a crash that only who trades in the warm-up meets
    close = 100 * np.exp(np.cumsum(moves))
    opening = np.concatenate([[100.0], close[:-1]])
    columns = {"open": opening, "high": np.maximum(opening, close), "low": np.minimum(opening, close)}
    bars = pd.DataFrame({**columns, "close": close, "volume": 1.0}, index=BARS.index)
    tested = gate_test(strategy, bars, GATE, n=9, shifts=0, resamples=20)
    assert set(tested.random.values("return")) == {tested.gated.metrics["return"]}
    assert tested.random.p_value("return") == 1.0
    assert not tested.beats_random
