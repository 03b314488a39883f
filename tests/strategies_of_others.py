"""Strategies as other people write them: none of them knows of a gate.

Each is after a kind of strategy that Backtrader's samples, documentation and users have.
A `Case` is a strategy with the Cerebro that it needs.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import backtrader as bt


def _nothing(cerebro: bt.Cerebro) -> None:
    """Add nothing."""


class Case(NamedTuple):
    """A strategy and its Cerebro.

    `nested` says that neither its exits nor its sizes depend on when it entered: with fewer entries its
    exposure is, at every bar, a part of what it would have been.
    """

    strategy: type[bt.Strategy]
    setup: Callable[[bt.Cerebro], None] = _nothing
    datas: int = 1
    cerebro: Mapping[str, Any] = {}
    args: tuple[Any, ...] = ()
    params: Mapping[str, Any] = {}
    nested: bool = True


class Crossing(bt.Strategy):
    """Two averages that the others watch."""

    params = (("fast", 4), ("slow", 11))

    def __init__(self):
        self.fast, self.slow = (bt.ind.SMA(self.data, period=n) for n in (self.p.fast, self.p.slow))
        self.cross = bt.ind.CrossOver(self.fast, self.slow)


class LongOnly(Crossing):
    """Leaves with sell(), without a size."""

    def next(self):
        if self.position and self.cross < 0:
            self.sell()
        elif not self.position and self.cross > 0:
            self.buy()


class ShortOnly(Crossing):
    """Covers with buy()."""

    def next(self):
        if self.position and self.cross > 0:
            self.buy(size=abs(self.position.size))
        elif not self.position and self.cross < 0:
            self.sell(size=7)


class CloseThenTurn(Crossing):
    """Closes and enters the other side in one bar."""

    def next(self):
        if self.cross:
            self.close()
            self.buy(size=3) if self.cross > 0 else self.sell(size=3)


class TurnInOneOrder(Crossing):
    """Reverses with one order; its sizer makes it twice as large."""

    def next(self):
        if self.cross > 0:
            self.buy()
        elif self.cross < 0:
            self.sell()


class WaitsForItsOrder(Crossing):
    """The quick start's form: one order at a time, by a reference that notify_order clears."""

    def __init__(self):
        super().__init__()
        self.order = None

    def notify_order(self, order):
        if order.status in (order.Submitted, order.Accepted):
            return
        self.order = None

    def next(self):
        if self.order:
            return
        if not self.position and self.data.close[0] > self.slow[0]:
            self.order = self.buy()
        elif self.position and self.data.close[0] < self.slow[0]:
            self.order = self.sell()


class Targets(bt.Strategy):
    """Walks through targets, of a kind, on a calendar."""

    params = (("kind", "size"), ("targets", (40, 10, -25, 0)), ("every", 9))

    def next(self):
        step, rest = divmod(len(self), self.p.every)
        if not rest:
            target = self.p.targets[step % len(self.p.targets)]
            getattr(self, f"order_target_{self.p.kind}")(target=target)


class LongBracket(Crossing):
    """A limit entry with a stop and a target."""

    def next(self):
        if self.cross > 0 and not self.position:
            price = self.data.close[0]
            self.buy_bracket(
                price=price,
                oargs={"valid": datetime.timedelta(6)},
                stopprice=price * 0.985,
                limitprice=price * 1.015,
            )


class ShortBracket(Crossing):
    """A short entry at market with both exits, of a size of its own."""

    def next(self):
        if self.cross < 0 and not self.position:
            price = self.data.close[0]
            self.sell_bracket(
                size=5, exectype=bt.Order.Market, stopprice=price * 1.02, limitprice=price * 0.98
            )


class TurnsByBracket(Crossing):
    """Enters by a bracket that is large enough to turn the position, and reverses it as often as it likes."""

    def next(self):
        price = self.data.close[0]
        near, far = {"exectype": bt.Order.Market}, 0.01
        if self.cross > 0:
            size = 2 + abs(min(0, self.position.size))
            self.buy_bracket(size=size, stopprice=price * (1 - far), limitprice=price * (1 + far), **near)
        elif self.cross < 0:
            size = 2 + max(0, self.position.size)
            self.sell_bracket(size=size, stopprice=price * (1 + far), limitprice=price * (1 - far), **near)


class EntryAndChildStop(Crossing):
    """An entry at market that takes a stop along by parent=."""

    params = (("trail", False),)

    def next(self):
        if self.cross > 0 and not self.position:
            entry = self.buy(transmit=False)
            if self.p.trail:
                self.sell(exectype=bt.Order.StopTrail, trailpercent=0.02, parent=entry)
            else:
                self.sell(exectype=bt.Order.Stop, price=self.data.close[0] * 0.98, parent=entry)


class EntryAndLooseStop(Crossing):
    """An entry and its stop in one call, tied by nothing; the stop is cancelled on the way out."""

    def __init__(self):
        super().__init__()
        self.stop_order = None

    def next(self):
        if not self.position and self.cross > 0:
            self.buy(size=4)
            self.stop_order = self.sell(size=4, exectype=bt.Order.Stop, price=self.data.close[0] * 0.97)
        elif self.position and self.cross < 0:
            self.cancel(self.stop_order)
            self.close()


class StopAfterTheFill(Crossing):
    """Sends its stop from notify_order, when the entry has filled."""

    params = (("kind", bt.Order.StopTrail),)

    def __init__(self):
        super().__init__()
        self.entry = self.exit = None

    def notify_order(self, order):
        if order.status == order.Completed and order == self.entry:
            self.exit = self.sell(exectype=self.p.kind, trailamount=self.data.close[0] * 0.02)
        elif not order.alive() and order in (self.entry, self.exit):
            self.entry = self.exit = None

    def next(self):
        if self.entry is None and not self.position and self.cross > 0:
            self.entry = self.buy()


class LimitsInGroup(Crossing):
    """Three limit entries of which the first to fill cancels the others."""

    def __init__(self):
        super().__init__()
        self.held_since = 0

    def notify_order(self, order):
        if order.status == order.Completed:
            self.held_since = len(self)

    def next(self):
        if self.position and len(self) - self.held_since >= 6:
            self.close()
        elif not self.position and self.cross > 0:
            price, valid = self.data.close[0], datetime.timedelta(5)
            first = self.buy(exectype=bt.Order.Limit, price=price * 0.999, valid=valid)
            self.buy(exectype=bt.Order.Limit, price=price * 0.99, valid=valid, oco=first)
            self.buy(exectype=bt.Order.Limit, price=price * 0.98, valid=valid, oco=first)


class Breakout(bt.Strategy):
    """A stop above and a stop below the channel, sent anew each week; one fills, the other is called off."""

    params = (("together", True),)

    def __init__(self):
        self.high = bt.ind.Highest(self.data.high, period=8)
        self.low = bt.ind.Lowest(self.data.low, period=8)

    def next(self):
        if len(self) % 7:
            return
        valid = datetime.timedelta(6)
        if self.position:
            self.close()
            return
        up = self.buy(size=2, exectype=bt.Order.Stop, price=self.high[0], valid=valid)
        group = up if self.p.together else None
        self.sell(size=2, exectype=bt.Order.Stop, price=self.low[0], valid=valid, oco=group)


class StopLimitEntries(Crossing):
    """Enters above the market, but not too far above."""

    def next(self):
        if not self.position and self.cross > 0:
            price = self.data.close[0]
            self.buy(
                exectype=bt.Order.StopLimit,
                price=price * 1.002,
                plimit=price * 1.01,
                valid=datetime.timedelta(8),
            )
        elif self.position and self.cross < 0:
            self.close()


class Pyramid(Crossing):
    """Adds while it goes well, up to four times, and leaves at once."""

    def next(self):
        if self.position.size < 4 and self.fast[0] > self.slow[0] and len(self) % 3 == 0:
            self.buy()
        elif self.position and self.fast[0] < self.slow[0]:
            self.close()


class ScalesOut(Crossing):
    """Enters at once and leaves in thirds."""

    def next(self):
        if not self.position and self.cross > 0:
            self.buy(size=9)
        elif self.position and self.fast[0] < self.slow[0]:
            self.sell(size=min(3, self.position.size))


class AtTheClose(Crossing):
    """Orders for the closing auction."""

    def next(self):
        if self.cross > 0:
            self.buy(exectype=bt.Order.Close, size=2 if self.position else 1)
        elif self.cross < 0:
            self.sell(exectype=bt.Order.Close, size=2 if self.position else 1)


class Signals(bt.SignalStrategy):
    """Trades a signal, and keeps count in a next of its own."""

    def __init__(self):
        self.signal_add(bt.SIGNAL_LONGSHORT, self.data.close - bt.ind.SMA(self.data, period=12))
        self.seen = 0

    def next(self):
        self.seen += 1


class AboveAverage(bt.Indicator):
    """A signal for cerebro.add_signal."""

    lines = ("signal",)

    def __init__(self):
        self.lines.signal = self.data - bt.ind.EMA(self.data, period=10)


def _add_signals(cerebro):
    cerebro.add_signal(bt.SIGNAL_LONG, AboveAverage)
    cerebro.add_signal(bt.SIGNAL_LONGEXIT, AboveAverage)
    cerebro.signal_accumulate(False)


class MonthTimer(bt.Strategy):
    """In on the 1st, out on the 15th, by a timer."""

    def __init__(self):
        self.add_timer(bt.timer.SESSION_START, monthdays=[1, 15], monthcarry=True)

    def notify_timer(self, timer, when, *args, **kwargs):
        if self.position:
            self.close()
        else:
            self.buy()


class WeekTimerBeforeTheOpen(bt.Strategy):
    """Sets its target before the broker sees the bar."""

    def __init__(self):
        self.add_timer(bt.timer.SESSION_START, weekdays=[1], cheat=True)
        self.average = bt.ind.SMA(self.data, period=10)
        self.weeks = 0

    def notify_timer(self, timer, when, *args, **kwargs):
        self.weeks += 1
        if len(self) > 10:
            self.order_target_size(target=(3, -3, 0)[self.weeks % 3])


class AtTheOpen(Crossing):
    """Decides at the open, with cheat-on-open: on the average of the bars before."""

    def next_open(self):
        if self.position and self.cross < 0:
            self.close()
        elif not self.position and self.cross > 0:
            self.buy()


class FromTheFirstBar(bt.Strategy):
    """Does not wait for its indicators: prenext calls next."""

    def __init__(self):
        self.average = bt.ind.SMA(self.data, period=20)

    def prenext(self):
        self.next()

    def next(self):
        if len(self) % 10 == 0 and not self.position:
            self.buy()
        elif len(self) % 10 == 5 and self.position:
            self.close()


class TakesKeywords(Crossing):
    """Its own __init__ takes what is no parameter, by position and by name."""

    def __init__(self, stake, *extra, **settings):
        super().__init__()
        self.stake, self.extra, self.settings = stake, extra, settings

    def next(self):
        if self.cross > 0:
            self.buy(self.data, self.stake)
        elif self.cross < 0 and self.position:
            self.close(self.data, self.position.size)


class OwnGate(LongOnly):
    """Has a parameter of that name already."""

    params = (("gate", None),)


class Pair(bt.Strategy):
    """Long one data, short the other, by their ratio."""

    def __init__(self):
        self.ratio = self.data0.close / self.data1.close
        self.score = self.ratio - bt.ind.SMA(self.ratio, period=15)

    def next(self):
        side = 1 if self.score[0] < 0 else -1
        if len(self) % 4 == 0:
            self.order_target_size(self.data0, side * 2)
            self.order_target_size(self.data1, -side * 3)


class Rotation(bt.Strategy):
    """Holds the strongest of several datas, which it calls by their names, and joins them as they start."""

    def __init__(self):
        self.strength = {data: bt.ind.ROC(data, period=12) for data in self.datas}

    def prenext(self):
        self.next()

    def next(self):
        ready = [data for data in self.datas if len(data) > 12]
        if len(self) % 8 or not ready:
            return
        best = max(ready, key=lambda data: self.strength[data][0])
        for data in ready:
            if data is not best:
                self.order_target_percent(data._name, target=0.0)
        self.order_target_percent(best._name, target=0.6)


class TwoTradesAtOnce(Crossing):
    """Keeps a slow and a quick trade apart by their tradeid."""

    def next(self):
        if self.cross > 0:
            self.buy(size=2, tradeid=1)
        elif self.cross < 0 and self.position.size > 0:
            self.sell(size=self.position.size, tradeid=1)
        if len(self) % 6 == 0:
            self.buy(size=1, tradeid=2)
        elif len(self) % 6 == 2 and self.position.size > 0:
            self.sell(size=1, tradeid=2)


class NotOnMondays(bt.Sizer):
    """Takes no entry on a Monday: a size of 0."""

    def _getsizing(self, comminfo, cash, data, isbuy):
        position = self.broker.getposition(data).size
        return abs(position) or (0 if data.datetime.date().weekday() == 0 else 6)


class CountsItsBuys(LongOnly):
    """Has a buy() of its own."""

    def __init__(self):
        super().__init__()
        self.bought = []

    def buy(self, **kwargs):
        self.bought.append(super().buy(**kwargs))
        return self.bought[-1]


class OwnWords(Crossing):
    """Has a buy() and a sell() of other arguments, and a size where none is given."""

    def buy(self, percent=None):
        percent = 3 if percent is None else percent
        return super().buy(size=int(self.broker.getvalue() * percent / 100 / self.data.close[0]))

    def sell(self, why):
        return super().sell(size=self.position.size, why=why)

    def next(self):
        if self.cross > 0 and not self.position:
            self.buy() if len(self) % 2 else self.buy(2.5)
        elif self.cross < 0 and self.position:
            self.sell("crossed")


class KeepsItsMethods(Crossing):
    """Makes in its __init__ what it calls later: parts of its methods, and a buy() in place of its own."""

    def __init__(self):
        super().__init__()
        self.buy = functools.partial(self.buy, size=4)
        self.turn = {1: self.buy, -1: functools.partial(self.sell, size=5)}

    def next(self):
        if self.cross:
            self.close()
            self.turn[int(self.cross[0])]()


class PastItself(Crossing):
    """Sends its orders to the broker itself, an entry with a stop as its child."""

    def __init__(self):
        super().__init__()
        self.guard = None

    def next(self):
        broker, data = self.broker, self.data
        if self.cross > 0 and not self.position:
            entry = broker.buy(self, data, 5, exectype=bt.Order.Market, transmit=False)
            stop = data.close[0] * 0.98
            self.guard = broker.sell(self, data, 5, stop, exectype=bt.Order.Stop, parent=entry)
        elif self.cross < 0 and self.position:
            broker.cancel(self.guard)
            broker.sell(owner=self, data=data, size=broker.getposition(data).size)


class ForgetsItsStop(Crossing):
    """Leaves its stop behind when it closes, so that the stop may open the other side later."""

    def next(self):
        if not self.position and self.cross > 0:
            self.buy(size=2)
            self.sell(size=2, exectype=bt.Order.Stop, price=self.data.close[0] * 0.96)
        elif self.position.size * self.cross[0] < 0:
            self.close()


def _reverser(cerebro):
    cerebro.addsizer(bt.sizers.FixedReverser, stake=1)


def _by_percent(cerebro):
    cerebro.addsizer(bt.sizers.PercentSizer, percents=50)


def _not_on_mondays(cerebro):
    cerebro.addsizer(NotOnMondays)


def _with_volume(cerebro):
    cerebro.broker.set_filler(bt.broker.fillers.FixedBarPerc(perc=2.5e-7))


CASES = {
    "long_only": Case(bt.strategies.MA_CrossOver, _by_percent, params={"fast": 5, "slow": 15}, nested=False),
    "short_only": Case(ShortOnly),
    "close_then_turn": Case(CloseThenTurn),
    "turn_in_one_order": Case(TurnInOneOrder, _reverser),
    "waits_for_its_order": Case(WaitsForItsOrder),
    "quick_notify": Case(WaitsForItsOrder, cerebro={"quicknotify": True}),
    "target_size": Case(Targets),
    "target_value": Case(Targets, params={"kind": "value", "targets": (40_000, 90_000, -20_000, 0)}),
    "target_percent": Case(
        Targets, params={"kind": "percent", "targets": (0.9, 0.3, -0.5, 0.0)}, nested=False
    ),
    "long_bracket": Case(LongBracket, nested=False),
    "short_bracket": Case(ShortBracket, nested=False),
    "turns_by_bracket": Case(TurnsByBracket, nested=False),
    "child_stop": Case(EntryAndChildStop, nested=False),
    "child_trail": Case(EntryAndChildStop, params={"trail": True}, nested=False),
    "loose_stop": Case(EntryAndLooseStop, nested=False),
    "stop_after_the_fill": Case(StopAfterTheFill, nested=False),
    "limits_in_group": Case(LimitsInGroup, nested=False),
    "breakout_oco": Case(Breakout, nested=False),
    "breakout_loose": Case(Breakout, params={"together": False}, nested=False),
    "stop_limit": Case(StopLimitEntries, nested=False),
    "pyramid": Case(Pyramid),
    "scales_out": Case(ScalesOut),
    "at_the_close": Case(AtTheClose),
    "signal_strategy": Case(Signals),
    "add_signal": Case(bt.SignalStrategy, _add_signals),
    "month_timer": Case(MonthTimer, nested=False),
    "timer_before_the_open": Case(WeekTimerBeforeTheOpen, cerebro={"cheat_on_open": True}),
    "at_the_open": Case(AtTheOpen, cerebro={"cheat_on_open": True}),
    "from_the_first_bar": Case(FromTheFirstBar),
    "takes_keywords": Case(TakesKeywords, args=(3, "more"), params={"note": "mine"}),
    "own_gate": Case(OwnGate),
    "pair": Case(Pair, datas=2),
    "rotation": Case(Rotation, datas=3, nested=False),
    "two_trades": Case(TwoTradesAtOnce, nested=False),
    "no_size_on_mondays": Case(LongOnly, _not_on_mondays),
    "partial_fills": Case(ShortOnly, _with_volume, nested=False),
    "own_buy": Case(CountsItsBuys),
    "own_words": Case(OwnWords, nested=False),
    "keeps_its_methods": Case(KeepsItsMethods),
    "past_itself": Case(PastItself, nested=False),
    "forgets_its_stop": Case(ForgetsItsStop, nested=False),
}
