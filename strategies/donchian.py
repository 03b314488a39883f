"""Breakout: go with a close beyond the range of the previous bars, as the Turtles did."""

import backtrader as bt

from bt_llm import attach_gate


class GatedDonchian(bt.Strategy):
    """Enter on a breakout, leave on one of a shorter channel the other way; only entries ask the gate.

    Both channels are those of the bars before the current one: a close cannot break a range it is part of.

    Parameters
    ----------
    gate : gate or None
        None runs it ungated.
    period : int
        Bars of the entry channel, from the highest high to the lowest low.
    exit_period : int
        Bars of the exit channel.
    """

    params = (("gate", None), ("period", 20), ("exit_period", 10))

    def __init__(self):
        high, low = self.data.high(-1), self.data.low(-1)
        self.top = bt.ind.Highest(high, period=self.p.period)
        self.bottom = bt.ind.Lowest(low, period=self.p.period)
        self.exit_top = bt.ind.Highest(high, period=self.p.exit_period)
        self.exit_bottom = bt.ind.Lowest(low, period=self.p.exit_period)
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        """Decide at the close; orders fill at the next bar's open."""
        close, size = self.data.close[0], self.position.size
        if (size > 0 and close < self.exit_bottom[0]) or (size < 0 and close > self.exit_top[0]):
            self.close()
            size = 0
        if not size and close > self.top[0] and self.gate.allows_long():
            self.buy()
        elif not size and close < self.bottom[0] and self.gate.allows_short():
            self.sell()
