"""Other people's strategies with their orders judged: what must stay the same, and what may only get less."""

from __future__ import annotations

import functools
from collections import Counter

import backtrader as bt
import numpy as np
import pytest

from bt_llm.backtest import load_strategy
from bt_llm.data import load_bars
from bt_llm.gates import (
    LONG,
    AlwaysOpen,
    AttachedGate,
    Decision,
    EntryGate,
    Gate,
    NeverOpen,
    gated,
    order_gate_of,
)
from tests.conftest import ROOT
from tests.engines import TREND, QuickAdvice, array_feed, walk
from tests.strategies_of_others import CASES

SP500 = load_bars(ROOT / "data" / "sp500_daily.csv")
BARS = 170
TREND_GATE = Gate(advisor=TREND, indicator=QuickAdvice)
MODES = {
    "runonce": {},
    "next": {"runonce": False},
    "exactbars": {"exactbars": 1},
}
every_case = pytest.mark.parametrize("name", CASES)
every_mode = pytest.mark.parametrize("mode", MODES)


class Watch(bt.Analyzer):
    """Notes fills, and the positions at each close."""

    def start(self):
        self.fills, self.positions, self.opened, self.ends = [], [], [], Counter()

    def notify_order(self, order):
        if order.status in (order.Partial, order.Completed):
            done = order.executed
            last = list(done.exbits)[-1]
            self.fills.append((done.dt, order.data._name, last.size, last.price))
            if last.opened:
                self.opened.append((order.ref, order.isbuy()))
        if not order.alive():
            self.ends[order.getstatusname()] += 1

    def prenext(self):
        self.next()

    def next(self):
        held = tuple(self.strategy.getposition(data).size for data in self.strategy.datas)
        self.positions.append(held)

    def get_analysis(self):
        return self.fills


def run_case(name, mode="runonce", *, gate=None, judged=True):
    """Run a case in a Cerebro of its own, and return its strategy."""
    case = CASES[name]
    cerebro = bt.Cerebro(stdstats=False, **{**case.cerebro, **MODES[mode]})
    frames = [SP500[300 : 300 + BARS], walk(BARS, seed=1), walk(BARS, seed=2)[60:]]
    for number, frame in enumerate(frames[: case.datas]):
        times = frames[0].index[-len(frame) :]
        cerebro.adddata(array_feed(frame.set_axis(times)), name=f"data{number}")
    cerebro.broker.setcash(100_000)
    strategy = gated(case.strategy) if judged else case.strategy
    params = {**case.params, "gate": gate} if judged else case.params
    add = cerebro.signal_strategy if case.strategy is bt.SignalStrategy else cerebro.addstrategy
    add(strategy, *case.args, **params)
    case.setup(cerebro)
    cerebro.addanalyzer(Watch, _name="watch")
    return cerebro.run()[0]


def watch(*args, **kwargs):
    return run_case(*args, **kwargs).analyzers.watch


@functools.cache
def original(name, mode="runonce"):
    return watch(name, mode, judged=False)


@every_mode
@every_case
def test_an_open_gate_changes_nothing(name, mode):
    opened = watch(name, mode, gate=AlwaysOpen())
    assert len(opened.fills) >= 6
    assert opened.fills == original(name, mode).fills
    assert opened.positions == original(name, mode).positions
    assert opened.ends == original(name, mode).ends


@every_case
def test_no_gate_judges_nothing(name):
    strategy = run_case(name, gate=None)
    assert order_gate_of(strategy) is None
    assert strategy.analyzers.watch.fills == original(name).fills


@every_mode
@every_case
def test_a_closed_gate_opens_nothing(name, mode):
    strategy = run_case(name, mode, gate=NeverOpen())
    judge, seen = order_gate_of(strategy), strategy.analyzers.watch
    assert seen.fills == []
    assert not any(judged.allowed or judged.let_in for judged in judge.log)
    assert (
        len(judge.vetoed) - 3 <= seen.ends["Rejected"] <= len(judge.vetoed)
    )  # of the last bar's, none is told


class OpenUntil(EntryGate):
    """A gate that shuts at a bar of the strategy's and does not open again."""

    warm_up_bars = 0

    def __init__(self, bar):
        self.bar = bar

    def attach(self, strategy, data=None):
        attached = Shutting(strategy, data)
        attached.last = self.bar
        return attached


class Shutting(AttachedGate):
    def decide(self, side):
        return Decision(self.bar, side, len(self.strategy) < self.last)


@every_case
def test_what_was_let_in_is_left_when_the_original_leaves_it(name):
    before, after = original(name).positions, watch(name, gate=OpenUntil(90)).positions
    assert after != before
    for theirs, ours in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True):
        check_that_it_is_left(ours, theirs)


def check_that_it_is_left(ours, theirs):
    """Check that positions become no larger once they part from the original's, and 0 when it leaves."""
    parted = next((i for i in range(len(ours)) if ours[i] != theirs[i]), len(ours))
    side = np.sign(ours[parted - 1])
    left = next((i for i in range(parted, len(ours)) if np.sign(theirs[i]) != side), len(ours))
    assert set(np.sign(ours[parted:left])) <= {side, 0}
    assert not any(ours[left:])


@pytest.mark.parametrize(
    "shipped", ["donchian:GatedDonchian", "rsi_reversion:GatedRsiReversion", "sma_cross:GatedSmaCross"]
)
def test_the_shipped_strategies_which_ask_by_themselves_hold_no_exit(shipped):
    file, name = shipped.split(":")
    strategy = load_strategy(f"{ROOT / 'strategies' / file}.py:{name}")

    def positions(gate):
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.adddata(array_feed(SP500[:600]))
        cerebro.addstrategy(gated(strategy), gate=gate)
        cerebro.addanalyzer(Watch, _name="watch")
        return [held for (held,) in cerebro.run()[0].analyzers.watch.positions]

    theirs = positions(AlwaysOpen())
    for bar in range(50, 500, 75):
        ours = positions(OpenUntil(bar))
        assert ours != theirs
        check_that_it_is_left(ours, theirs)


@functools.cache
def with_trend(name):
    strategy = run_case(name, gate=TREND_GATE)
    return strategy.analyzers.watch, order_gate_of(strategy).log


@every_case
def test_what_a_real_gate_lets_in_is_all_that_comes_in(name):
    seen, log = with_trend(name)
    assert {judged.allowed for judged in log} == {True, False}
    assert {(judged.ref, judged.side == LONG) for judged in log if judged.allowed} >= set(seen.opened)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.nested])
def test_with_a_real_gate_exposure_is_a_part_of_what_it_was(name):
    ungated = watch(name, gate=TREND_GATE.baseline())
    for ours, theirs in zip(with_trend(name)[0].positions, ungated.positions, strict=True):
        assert all(min(0, full) <= held <= max(0, full) for held, full in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("mode", ["next", "exactbars"])
@every_case
def test_a_real_gate_judges_alike_in_every_mode(name, mode):
    seen, log = with_trend(name)
    strategy = run_case(name, mode, gate=TREND_GATE)
    first = log[0].ref - order_gate_of(strategy).log[0].ref
    assert strategy.analyzers.watch.fills == seen.fills
    assert [judged._replace(ref=judged.ref + first) for judged in order_gate_of(strategy).log] == log
