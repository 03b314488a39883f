"""Bars, gates and orders by hand, for the tests of gates."""

from __future__ import annotations

from dataclasses import dataclass

import backtrader as bt
import pandas as pd

from bt_llm.gates import LONG, AttachedGate, Decision, EntryGate

STOP, LIMIT, MARKET = bt.Order.Stop, bt.Order.Limit, bt.Order.Market


def bars(*closes, wick=0.5):
    """Return bars that open at the close before; highs and lows are `wick` beyond."""
    opens = [closes[0], *closes[:-1]]
    frame = {
        "open": opens,
        "high": [max(pair) + wick for pair in zip(opens, closes, strict=True)],
        "low": [min(pair) - wick for pair in zip(opens, closes, strict=True)],
        "close": closes,
        "volume": [1000.0] * len(closes),
    }
    index = pd.date_range("2024-01-01", periods=len(closes), name="time")
    return pd.DataFrame(frame, index=index, dtype=float)


FLAT = bars(*[100.0] * 12)


@dataclass(frozen=True)
class Sides(EntryGate):
    """Open to the sides named; with `bars`, only at those."""

    long: bool = True
    short: bool = True
    bars: tuple[int, ...] | None = None
    fraction: float = 1.0
    warm_up_bars: int = 0

    def attach(self, strategy, data=None):
        attached = AttachedSides(strategy, data)
        attached.gate, attached.fraction = self, self.fraction
        return attached


class AttachedSides(AttachedGate):
    def decide(self, side):
        of_side = self.gate.long if side == LONG else self.gate.short
        return Decision(self.bar, side, of_side and (self.gate.bars is None or self.bar in self.gate.bars))


class Script(bt.Strategy):
    """Does at each bar what the plan says, and keeps what came of it."""

    params = (("plan", {}),)

    def __init__(self):
        self.orders, self.heard, self.sizes = [], [], {}

    def notify_order(self, order):
        self.heard.append((len(self), order.ref, order.getstatusname()))

    def next(self):
        self.sizes[len(self)] = self.position.size
        for act in self.p.plan.get(len(self), ()):
            self.orders.append(act(self))

    def ends(self):
        return [order if order is None else order.getstatusname() for order in self.orders]


def buy(size=1, **given):
    return lambda strategy: strategy.buy(size=size, **given)


def sell(size=1, **given):
    return lambda strategy: strategy.sell(size=size, **given)


def close(strategy):
    return strategy.close()
