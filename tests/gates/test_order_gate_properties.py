"""Random strategies that send random orders of all kinds: what holds of a judged run, whatever is sent."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.gates import (
    LONG,
    SHORT,
    AlwaysOpen,
    AttachedGate,
    Decision,
    EntryGate,
    NeverOpen,
    gated,
    order_gate_of,
)
from tests.engines import array_feed, walk

BARS = walk(24, seed=5)
KINDS = {
    "market": {},
    "close": {"exectype": bt.Order.Close},
    "limit": {"exectype": bt.Order.Limit},
    "stop": {"exectype": bt.Order.Stop},
    "stop_limit": {"exectype": bt.Order.StopLimit},
    "trail": {"exectype": bt.Order.StopTrail},
}


class Step(NamedTuple):
    """One thing that a strategy does, at a price that many percent away from the close."""

    act: str
    side: int
    size: int
    away: float
    link: str


class Random(bt.Strategy):
    """Follows a plan without a look at what came of it; keeps its orders in the plan's order."""

    params = (("plan", ()),)

    def __init__(self):
        self.orders, self.fills, self.held = [], [], []

    def notify_order(self, order):
        if order.status in (order.Partial, order.Completed):
            bit = list(order.executed.exbits)[-1]
            self.fills.append((len(self), self.orders.index(order), bit.size, bit.price, bit.opened))

    def next(self):
        self.held.append(self.position.size)
        for step in self.p.plan[len(self) - 1] if len(self) <= len(self.p.plan) else ():
            self.take(step)

    def take(self, step):
        alive = [order for order in self.orders if order is not None and order.alive()]
        if step.act == "cancel":
            if alive:
                self.cancel(alive[0])
        elif step.act == "flat":
            self.orders.append(self.close())
        elif step.act == "target":
            self.orders.append(self.order_target_size(target=step.side * step.size))
        elif step.act == "bracket":
            self.bracket(step)
        else:
            self.orders.append(self.send(step, alive))

    def send(self, step, alive):
        price = self.data.close[0] * (1 + step.away / 100)
        given = dict(KINDS[step.act])
        if step.act in ("limit", "stop", "stop_limit"):
            given["price"] = price
        if step.act == "stop_limit":
            given["plimit"] = price * (1 + step.side * 0.005)
        if step.act == "trail":
            given["trailpercent"] = 0.005 + abs(step.away) / 100
        if step.link == "oco" and alive:
            given["oco"] = alive[-1]
        return (self.buy if step.side > 0 else self.sell)(size=step.size, **given)

    def bracket(self, step):
        price, away = self.data.close[0], 0.5 + abs(step.away)
        send = self.buy_bracket if step.side > 0 else self.sell_bracket
        entry = {"exectype": bt.Order.Market} if step.link == "oco" else {"price": price}
        stop, limit = (price * (1 + sign * step.side * away / 100) for sign in (-1, 1))
        self.orders += send(size=step.size, stopprice=stop, limitprice=limit, **entry)


@dataclass(frozen=True)
class ByBar(EntryGate):
    """Open where its bits say: one for each bar and side."""

    bits: int
    warm_up_bars: int = 0

    def attach(self, strategy, data=None):
        attached = AttachedByBar(strategy, data)
        attached.bits = self.bits
        return attached


class AttachedByBar(AttachedGate):
    def decide(self, side):
        return Decision(self.bar, side, bool(self.bits >> (2 * self.bar + (side > 0)) & 1))


def sized(*acts, links=("", "", "oco")):
    return st.builds(
        Step,
        st.sampled_from(acts),
        st.sampled_from([LONG, SHORT]),
        st.integers(1, 5),
        st.floats(-2, 2).map(lambda number: round(number, 2)),
        st.sampled_from(links),
    )


def plans(*acts, **links):
    return st.lists(st.lists(sized(*acts, **links), max_size=3), min_size=6, max_size=20)


EVERY = (*KINDS, "flat", "target", "cancel", "bracket")
GATES = st.integers(0, 2**50 - 1).map(ByBar)
some = settings(max_examples=40)


def ran(plan, gate=None, mode=None):
    cerebro = bt.Cerebro(stdstats=False, **(mode or {}))
    cerebro.adddata(array_feed(BARS))
    cerebro.broker.setcash(1e6)
    cerebro.addstrategy(gated(Random), plan=plan, gate=gate)
    return cerebro.run()[0]


@some
@given(plan=plans(*EVERY))
def test_an_open_gate_is_no_gate(plan):
    free, opened = ran(plan), ran(plan, AlwaysOpen())
    assert opened.fills == free.fills
    assert opened.held == free.held
    assert [o and o.status for o in opened.orders] == [o and o.status for o in free.orders]


@some
@given(plan=plans(*EVERY))
def test_a_closed_gate_lets_nothing_in(plan):
    strategy = ran(plan, NeverOpen())
    assert strategy.fills == []
    assert not any(strategy.held)


@some
@given(plan=plans(*EVERY), gate=GATES)
def test_what_opens_was_let_in_by_its_side_at_a_bar_at_which_the_gate_was_open(plan, gate):
    strategy = ran(plan, gate)
    log = order_gate_of(strategy).log
    let_in = {(judged.ref, judged.side): judged for judged in log if judged.allowed}
    for bar, number, size, _, opened in strategy.fills:
        if opened:
            judged = let_in[strategy.orders[number].ref, int(np.sign(size))]
            assert judged.bar < bar
            assert gate.bits >> (2 * judged.bar + (judged.side > 0)) & 1
            assert abs(opened) <= judged.let_in


@pytest.mark.parametrize("side", [LONG, SHORT])
@some
@given(plan=plans(*EVERY))
def test_a_gate_for_one_side_keeps_the_position_on_it(side, plan):
    bits = sum(1 << (2 * bar + (side > 0)) for bar in range(30))
    strategy = ran(plan, ByBar(bits))
    assert all(side * position >= 0 for position in strategy.held)


@some
@given(plan=plans("market", links=[""]), gate=GATES)
def test_every_exit_of_the_free_run_that_meets_a_position_happens(plan, gate):
    free, strategy = ran(plan), ran(plan, gate)
    done = defaultdict(float)
    for _, number, size, *_ in strategy.fills:
        done[number] += size
    position = 0.0
    for number, order in enumerate(free.orders):
        if order.executed.size * position < 0:
            assert abs(done[number]) >= min(abs(order.executed.size), abs(position))
        position += done[number]


@some
@given(plan=plans(*EVERY), gate=GATES)
def test_an_order_that_was_sent_on_takes_off_what_it_meets(plan, gate):
    free, strategy = ran(plan), ran(plan, gate)
    ours, theirs = by_bar(strategy), by_bar(free)
    for bar, fills in theirs.items():
        position = strategy.held[bar - 2] if bar > 1 else 0
        if len(fills) != 1 or not position:
            continue
        ((number, size),) = fills
        order = strategy.orders[number]
        sent_on = order is not None and order.ref not in order_gate_of(strategy).vetoed
        if sent_on and size * position < 0 and len(ours.get(bar, ())) <= 1:
            assert ours[bar][0][0] == number
            assert abs(ours[bar][0][1]) >= min(abs(position), abs(order.size))


def by_bar(strategy):
    found = defaultdict(list)
    for bar, number, size, *_ in strategy.fills:
        found[bar].append((number, size))
    return found


@settings(max_examples=15)
@given(plan=plans(*EVERY), gate=GATES)
def test_it_is_the_same_in_every_mode(plan, gate):
    first, *others = (ran(plan, gate, mode) for mode in ({}, {"runonce": False}, {"exactbars": 1}))
    for other in others:
        assert other.fills == first.fills
        assert other.held == first.held
