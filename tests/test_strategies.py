"""The strategies in strategies/, loaded by path as the command does."""

from __future__ import annotations

import inspect
import math

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.backtest import load_strategy
from bt_llm.gates import LONG, SHORT, Gate, NeverOpen
from tests.engines import BULLISH, MODES, RANDOM, TREND, QuickAdvice, bits, run, walk

NAMES = ["sma_cross.py:GatedSmaCross", "rsi_reversion.py:GatedRsiReversion", "donchian.py:GatedDonchian"]
QUICK = {
    "sma_cross.py:GatedSmaCross": {"fast": 3, "slow": 8},
    "rsi_reversion.py:GatedRsiReversion": {"period": 5, "lower": 35.0, "upper": 65.0},
    "donchian.py:GatedDonchian": {"period": 8, "exit_period": 4},
}


@pytest.fixture
def load(repository):
    return lambda name: load_strategy(str(repository / "strategies" / name))


class Fills(bt.Analyzer):
    """Every fill: the bar's number, the size and the price."""

    def start(self):
        self.rets["fills"] = []

    def notify_order(self, order):
        if order.status == order.Completed:
            self.rets["fills"].append((len(self.data), order.executed.size, order.executed.price))


def trade(strategy, frame, mode=None, **params):
    ran = run(strategy, frame, mode=mode, prepare=lambda c: c.addanalyzer(Fills), **params)
    return ran, ran.analyzers[0].get_analysis()["fills"]


def bars(closes, spread=0.0):
    """Return bars that open at the previous close."""
    closes = np.array(closes, dtype=float)
    opens = np.concatenate([closes[:1], closes[:-1]])
    frame = {
        "open": opens,
        "high": np.maximum(opens, closes) + spread,
        "low": np.minimum(opens, closes) - spread,
        "close": closes,
        "volume": np.ones(len(closes)),
    }
    return pd.DataFrame(frame, index=pd.date_range("2020-01-01", periods=len(closes)))


# Ideas, by hand


def test_sma_cross_by_hand(load):
    #  bar:  1  2  3  4  5   6   7   8  9 10 11 12 13
    closes = [9, 9, 9, 8, 12, 13, 14, 9, 5, 5, 5, 9, 9]
    _, fills = trade(load(NAMES[0]), bars(closes), fast=1, slow=3)
    # below the average of 3 at bar 4, above it from bar 5, below from 8, above at 12; filled a bar later
    assert fills == [(6, 1, 12.0), (9, -1, 9.0), (9, -1, 9.0), (13, 1, 9.0), (13, 1, 9.0)]


def test_rsi_reversion_by_hand(load):
    closes = [10, 10.1, 10, 10.1, 10, 9, 8, 7, 8, 9, 10, 11, 12, 13, 12, 11, 10]
    strategy, fills = trade(load(NAMES[1]), bars(closes), period=2, lower=20, upper=85, middle=50)
    rsi = [value if not math.isnan(value) else 50.0 for value in strategy.rsi.lines.rsi.array]
    oversold = next(i for i in range(1, 17) if rsi[i] < 20 <= rsi[i - 1]) + 1
    back = next(i for i in range(oversold, 17) if rsi[i] >= 50) + 1
    overbought = next(i for i in range(back, 17) if rsi[i] > 85 >= rsi[i - 1]) + 1
    down = next(i for i in range(overbought, 17) if rsi[i] <= 50) + 1
    assert [(bar, size) for bar, size, _ in fills] == [
        (oversold + 1, 1),
        (back + 1, -1),
        (overbought + 1, -1),
        (down + 1, 1),
    ]


def test_donchian_by_hand(load):
    #  bar:   1   2   3   4   5   6   7   8   9  10  11 12
    closes = [10, 11, 10, 11, 10, 12, 13, 12, 10, 8, 10, 9]
    _, fills = trade(load(NAMES[2]), bars(closes), period=4, exit_period=2)
    # bar 6 closes at 12 above 11, the high of bars 2 to 5; bar 9 closes at 10 below 12, the low of 7 and 8;
    # bar 10 closes at 8 below 10, the low of bars 6 to 9; no close is above 12 or 10 afterwards
    assert fills == [(7, 1, 12.0), (10, -1, 10.0), (11, -1, 8.0)]


def test_donchian_channel_leaves_the_current_bar_out(load):
    strategy, _ = trade(load(NAMES[2]), walk(60), period=5, exit_period=3)
    frame = walk(60)
    top = frame["high"].shift(1).rolling(5).max().to_numpy()
    exit_bottom = frame["low"].shift(1).rolling(3).min().to_numpy()
    assert bits(strategy.top.lines[0].array[5:]) == bits(top[5:])
    assert bits(strategy.exit_bottom.lines[0].array[5:]) == bits(exit_bottom[5:])


# The gate alone


@pytest.mark.parametrize("name", NAMES)
def test_a_gate_that_agrees_with_every_long_trades_as_the_open_baseline(load, name):
    """Long only, to the last digit: the warm-up is the same, and nothing else differs."""

    class LongOnly(load(name)):
        def sell(self, *args, **kwargs):
            pass

        def close(self, *args, **kwargs):
            return super(LongOnly.__bases__[0], self).sell(size=self.position.size) if self.position else None

    gate = Gate(advisor=BULLISH, indicator=QuickAdvice)
    gated, fills = trade(LongOnly, walk(400), gate=gate, **QUICK[name])
    baseline, expected = trade(LongOnly, walk(400), gate=gate.baseline(), **QUICK[name])
    assert [bits(fill) for fill in fills] == [bits(fill) for fill in expected]
    assert bits([gated.broker.getvalue()]) == bits([baseline.broker.getvalue()])
    assert len(fills) > 10
    assert all(decision.allowed for decision in gated.gate.log if decision.side == LONG)


@pytest.mark.parametrize("name", NAMES)
def test_a_closed_gate_lets_nothing_in(load, name):
    strategy, fills = trade(load(name), walk(400), gate=NeverOpen(), **QUICK[name])
    assert fills == []
    assert {decision.side for decision in strategy.gate.log} == {LONG, SHORT}
    assert strategy.broker.getvalue() == 10_000


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_was_allowed_and_every_exit_passed(load, name):
    strategy, fills = trade(
        load(name), walk(600), gate=Gate(advisor=RANDOM, indicator=QuickAdvice), **QUICK[name]
    )
    allowed = {(decision.bar + 1, decision.side) for decision in strategy.gate.log if decision.allowed}
    position, entries, exits = 0, set(), 0
    for bar, size, _ in fills:
        if position == 0:
            entries.add((bar, int(np.sign(size))))
        else:
            assert size == -position
            exits += 1
        position += size
    assert entries == {entry for entry in allowed if entry[0] <= 600}
    assert exits in (len(entries), len(entries) - 1)
    assert len(entries) > 5
    assert strategy.gate.blocked > 5


@pytest.mark.parametrize("name", NAMES)
def test_engine_modes_give_the_same_trades(load, name):
    gate = Gate(advisor=TREND, indicator=QuickAdvice, require="not_against")
    runs = [trade(load(name), walk(200), mode=mode, gate=gate, **QUICK[name]) for mode in MODES[::3]]
    for strategy, fills in runs:
        assert fills == runs[0][1]
        assert bits([strategy.broker.getvalue()]) == bits([runs[0][0].broker.getvalue()])


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_run_ungated_and_read_like_the_idea(load, name):
    strategy = load(name)
    assert strategy.params.gate is None
    assert len(inspect.getsource(inspect.getmodule(strategy)).splitlines()) < 60
    ran, fills = trade(strategy, walk(400))
    assert len(fills) > 4
    assert ran.gate.blocked == 0
