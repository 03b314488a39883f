"""Follow the trend: long while a fast moving average is above a slow one, short while it is below."""

import backtrader as bt

from bt_llm import attach_gate


class GatedSmaCross(bt.Strategy):
    """Enter when the averages cross, leave when they cross back; the gate may veto an entry, never an exit.

    A vetoed cross is not tried again: the strategy waits for the next one.

    Parameters
    ----------
    gate : gate or None
        None runs it ungated.
    fast, slow : int
        Bars of the two simple moving averages of the close.
    """

    params = (("gate", None), ("fast", 10), ("slow", 30))

    def __init__(self):
        fast = bt.ind.SMA(self.data, period=self.p.fast)
        slow = bt.ind.SMA(self.data, period=self.p.slow)
        self.cross = bt.ind.CrossOver(fast, slow)
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        """Decide at the close; orders fill at the next bar's open."""
        if self.cross[0] > 0:
            self.leave(self.position.size < 0)
            if self.gate.allows_long():
                self.buy()
        elif self.cross[0] < 0:
            self.leave(self.position.size > 0)
            if self.gate.allows_short():
                self.sell()

    def leave(self, wrong_side):
        """Close a position that the cross speaks against."""
        if wrong_side:
            self.close()
