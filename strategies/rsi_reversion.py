"""Fade the extremes: buy what is oversold, sell what is overbought, leave at the middle of the RSI."""

import backtrader as bt

from bt_llm import attach_gate


class GatedRsiReversion(bt.Strategy):
    """Enter when the RSI crosses into an extreme; the gate may veto an entry, never an exit.

    Parameters
    ----------
    gate : gate or None
        None runs it ungated.
    period : int
        Bars of Wilder's RSI.
    lower, upper : float
        Below `lower` is oversold, above `upper` overbought; 0 to 100.
    middle : float
        Where a position is closed.
    """

    params = (("gate", None), ("period", 14), ("lower", 30.0), ("upper", 70.0), ("middle", 50.0))

    def __init__(self):
        self.rsi = bt.ind.RSI(self.data, period=self.p.period, safediv=True)
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        """Decide at the close; orders fill at the next bar's open."""
        now, before = self.rsi[0], self.rsi[-1]
        size = self.position.size
        if (size > 0 and now >= self.p.middle) or (size < 0 and now <= self.p.middle):
            self.close()
        elif not size and now < self.p.lower <= before and self.gate.allows_long():
            self.buy()
        elif not size and now > self.p.upper >= before and self.gate.allows_short():
            self.sell()
