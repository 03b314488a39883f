"""A gate that the strategy asks itself: its veto holds entries, never an exit."""

from __future__ import annotations

import backtrader as bt
import pytest

from bt_llm.gates import LONG, SHORT, Gate, attach_gate, gated
from tests.engines import RANDOM, TREND, QuickAdvice, feed, run, walk
from tests.gate_cases import FLAT, STOP, Script, Sides, bars, buy, close, sell


class Reverser(bt.Strategy):
    """Turns from one side to the other by one order; without a gate of its own."""

    params = (("gate", None),)
    asks = False

    def __init__(self):
        self.cross = bt.ind.CrossOver(self.data, bt.ind.SMA(period=15))
        self.sizes, self.fills = [], []
        self.gate = attach_gate(self.p.gate, self) if self.asks else None

    def notify_order(self, order):
        if order.status == order.Completed:
            self.fills.append((bt.num2date(order.executed.dt), order.executed.size, order.executed.price))

    def next(self):
        self.sizes.append(self.position.size)
        if self.cross[0] > 0 and (not self.asks or self.gate.allows_long()):
            self.buy(size=1 + abs(self.position.size))
        elif self.cross[0] < 0 and (not self.asks or self.gate.allows_short()):
            self.sell(size=1 + abs(self.position.size))


class AskingReverser(Reverser):
    """The same, with the line."""

    asks = True


class Asks(Script):
    """Asks the gate for a side before each bar's orders, and sends them if it may."""

    params = (("gate", None), ("side", SHORT), ("from_bar", 4))

    def __init__(self):
        super().__init__()
        self.gate, self.answers = attach_gate(self.p.gate, self), []

    def next(self):
        self.sizes[len(self)] = [self.getposition(data).size for data in self.datas]
        if len(self) >= self.p.from_bar and len(self) in self.p.plan:
            ask = self.gate.allows_long if self.p.side == LONG else self.gate.allows_short
            self.answers.append(ask())
            if not self.answers[-1]:
                return
        for act in self.p.plan.get(len(self), ()):
            self.orders.append(act(self))


@pytest.mark.parametrize(
    "gate",
    [
        Gate(advisor=TREND, indicator=QuickAdvice),
        Gate(advisor=RANDOM, indicator=QuickAdvice),
        Sides(long=False),
        Sides(bars=tuple(range(0, 400, 3))),
    ],
)
def test_a_reversal_by_one_order_is_what_the_order_gate_makes_of_it(gate):
    asks, judged = run(AskingReverser, walk(400), gate=gate), run(gated(Reverser), walk(400), gate=gate)
    assert asks.fills == judged.fills
    assert asks.sizes == judged.sizes
    assert set(asks.sizes) <= {-1, 0, 1}
    assert asks.gate.blocked > 5


def test_the_log_has_the_veto_that_an_exit_passed():
    strategy = run(Asks, FLAT, gate=Sides(short=False), plan={2: [buy(3)], 5: [sell(6)]})
    assert (strategy.answers, strategy.gate.blocked, strategy.gate.allowed) == ([True], 1, 0)
    assert [order.created.size for order in strategy.orders] == [3, -3]
    assert strategy.sizes[7] == [0]


def test_flat_a_veto_is_a_no():
    strategy = run(Asks, FLAT, gate=Sides(short=False), plan={5: [sell(6)]})
    assert (strategy.answers, strategy.orders) == ([False], [])


@pytest.mark.parametrize(
    ("acts", "ends"),
    [
        ([close, sell(2)], ["Completed", "Rejected"]),  # it closes by itself
        ([sell(3), sell(2)], ["Completed", "Rejected"]),
        ([sell(5), buy(2, exectype=STOP, price=104)], ["Completed", "Rejected"]),  # the stop of the entry
        ([sell(1), sell(1)], ["Completed", "Completed"]),
        ([buy(1)], ["Completed"]),  # the other side was not vetoed
    ],
)
def test_beyond_the_exit_nothing_passes(acts, ends):
    strategy = run(Asks, FLAT, gate=Sides(short=False), plan={2: [buy(3)], 5: acts})
    assert strategy.ends() == ["Completed", *ends]
    assert min(strategy.sizes[8]) >= 0


def test_who_has_sent_the_close_is_told_no():
    closes_first = [close, lambda s: s.answers.append(s.gate.allows_short())]
    strategy = run(Asks, FLAT, gate=Sides(short=False), plan={2: [buy(3)], 5: closes_first}, from_bar=99)
    assert strategy.answers == [False]


def test_an_exit_whose_position_a_stop_took_first_adds_nothing():
    stop = sell(3, exectype=STOP, price=97)
    gap = bars(100, 100, 100, 100, 100, 90, 90, 90, 90)
    limit = sell(6, exectype=bt.Order.Limit, price=85)
    strategy = run(Asks, gap, gate=Sides(short=False), plan={2: [buy(3)], 3: [stop], 5: [limit]}, from_bar=5)
    assert [position for (position,) in strategy.sizes.values()][-1] == 0
    assert strategy.ends()[:2] == ["Completed", "Completed"]


def test_the_other_leg_of_a_vetoed_decision_is_cut_too():
    first, other = (lambda s: s.sell(s.data0, size=2)), (lambda s: s.buy(s.data1, size=2))
    enter = [lambda s: s.buy(s.data0, size=1), lambda s: s.sell(s.data1, size=1)]
    strategy = run(Asks, FLAT, FLAT, gate=Sides(short=False), plan={2: enter, 5: [first, other]})
    assert strategy.sizes[4] == [1, -1]
    assert strategy.sizes[8] == [0, 0]


def test_with_another_broker_a_veto_is_a_no():
    class Broker(bt.BrokerBase):
        def getposition(self, data):
            return bt.Position(5)

        def getcash(self):
            return 1.0

        getvalue = getcash

        def buy(self, *args, **kwargs):
            raise AssertionError("nothing is sent")

        startingcash, sell, cancel = 1.0, buy, buy

        def get_notification(self):
            return None

    cerebro = bt.Cerebro()
    cerebro.adddata(feed(FLAT))
    cerebro.setbroker(Broker())
    cerebro.addstrategy(Asks, gate=Sides(short=False), plan={5: [sell(6)]})
    (strategy,) = cerebro.run()
    assert strategy.answers == [False]
