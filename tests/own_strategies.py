"""Strategies as people have them, without a gate, and what their scripts do before ``run()``."""

from __future__ import annotations

import datetime
from typing import Any

import backtrader as bt


def futures(cerebro: bt.Cerebro, market: Any) -> None:
    """Trade contracts on margin."""
    cerebro.broker.setcash(20_000.0)
    for name in market:
        cerebro.broker.setcommission(commission=2.0, margin=500.0, mult=10.0, name=name)


class Half(bt.Sizer):
    """Half of the cash."""

    def _getsizing(self, comminfo: Any, cash: float, data: Any, isbuy: bool) -> float:
        return cash / 2 / data.close[0]


class Pair(bt.Strategy):
    """Long the first and short the second contract while the first is cheap against it."""

    params = (("period", 10),)

    def __init__(self) -> None:
        ratio = self.data0.close / self.data1.close
        self.cheap = ratio < bt.ind.SMA(ratio, period=self.p.period)

    def next(self) -> None:
        """Enter and leave both legs."""
        if self.cheap[0] and not self.getposition(self.data0).size:
            self.buy(self.data0, size=1)
            self.sell(self.data1, size=1)
        elif not self.cheap[0]:
            self.close(self.data0)
            self.close(self.data1)


class Rotation(bt.Strategy):
    """Hold the strongest; those that are young join when they can be ranked."""

    params = (("period", 20), ("held", 3))

    def __init__(self) -> None:
        self.strength = {data: bt.ind.ROC(data, period=self.p.period) for data in self.datas}

    def prenext(self) -> None:
        """Trade those that are there."""
        self.next()

    def next(self) -> None:
        """Rank once a fortnight."""
        ready = [data for data in self.datas if len(data) > self.p.period]
        if len(self) % 14 or not ready:
            return
        best = sorted(ready, key=lambda data: -self.strength[data][0])[: self.p.held]
        for data in sorted(ready, key=best.__contains__):  # sales first: they pay for the others
            self.order_target_percent(data, 0.6 / self.p.held if data in best else 0.0)


class Rebalancer(bt.Strategy):
    """Back to half of the account at each month's first bar, and out at its fifteenth day."""

    params = (("share", 0.5),)

    def __init__(self) -> None:
        self.add_timer(bt.timer.SESSION_START, monthdays=[1, 15], monthcarry=True)

    def notify_timer(self, timer: Any, when: datetime.datetime, *args: Any, **kwargs: Any) -> None:
        """Send the orders of the day."""
        if len(self.data):
            self.order_target_percent(target=self.p.share if when.day < 15 else 0.0)


class Bracket(bt.Strategy):
    """An entry with a stop and a target, above a mean."""

    params = (("period", 10), ("far", 0.04))

    def __init__(self) -> None:
        self.mean = bt.ind.SMA(period=self.p.period)
        self.waiting: list[bt.Order] = []

    def next(self) -> None:
        """Enter once the last bracket is done."""
        self.waiting = [order for order in self.waiting if order is not None and order.alive()]
        price = self.data.close[0]
        if price > self.mean[0] and not self.position and not self.waiting:
            self.waiting = self.buy_bracket(
                exectype=bt.Order.Market,
                size=10,
                stopprice=price * (1 - self.p.far),
                limitprice=price * (1 + self.p.far),
            )
