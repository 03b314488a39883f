"""Your strategy. It knows nothing of the model: its orders ask the gate where they add to the exposure."""

import backtrader as bt


class Cross(bt.Strategy):
    """Long while a fast moving average is above a slow one, short while it is below."""

    params = (("fast", 10), ("slow", 30))

    def __init__(self):
        fast = bt.ind.SMA(self.data, period=self.p.fast)
        slow = bt.ind.SMA(self.data, period=self.p.slow)
        self.cross = bt.ind.CrossOver(fast, slow)

    def next(self):
        """Decide at the close; orders fill at the next bar's open."""
        if self.cross[0] > 0:
            self.order_target_percent(target=0.95)
        elif self.cross[0] < 0:
            self.order_target_percent(target=-0.95)
