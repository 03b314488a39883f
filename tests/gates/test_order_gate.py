"""What the order gate makes of single orders: bars, orders and outcomes by hand."""

from __future__ import annotations

import pickle

import backtrader as bt
import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.gates import (
    LONG,
    SHORT,
    AlwaysOpen,
    NeverOpen,
    attach_gate,
    attached_gates,
    gated,
    judge_orders,
    order_gate_of,
)
from tests.engines import feed, run
from tests.gate_cases import FLAT, LIMIT, MARKET, STOP, Script, Sides, bars, buy, close, sell
from tests.strategies_of_others import LongOnly, Signals


def play(plan, gate, *frames, **more):
    """Return the script's strategy after a run, and its log as (bar, side, size, let in, reason)."""
    strategy = run(gated(Script), *(frames or [FLAT]), gate=gate, plan=plan, **more)
    log = order_gate_of(strategy).log
    return strategy, [(j.bar, j.side, j.size, j.let_in, j.reason) for j in log]


# One order


def test_a_vetoed_order_is_rejected_and_the_strategy_hears_of_it_at_the_next_bar():
    strategy, log = play({3: [buy(7, tradeid=2, note="mine")]}, NeverOpen())
    (order,) = strategy.orders
    assert (order.status, order.size, order.tradeid, order.parent) == (order.Rejected, 7, 2, None)
    assert order.info["vetoed"] is True
    assert order.info["note"] == "mine"
    assert strategy.heard == [(4, order.ref, "Rejected")]
    assert log == [(3, LONG, 7, 0, "vetoed")]
    assert order_gate_of(strategy).vetoed == {order.ref}


def test_an_order_that_is_let_in_is_backtraders_own():
    strategy, log = play({3: [buy(7)]}, AlwaysOpen())
    (order,) = strategy.orders
    assert [status for _, _, status in strategy.heard] == ["Submitted", "Accepted", "Completed"]
    assert order.info == {}
    assert log == [(3, LONG, 7, 7, "allowed")]
    assert order_gate_of(strategy).vetoed == set()


def test_exits_pass_and_ask_nobody():
    gate = Sides(short=False)
    strategy, log = play({2: [buy(5)], 4: [sell(2)], 6: [close], 8: [close]}, gate)
    assert (strategy.sizes[5], strategy.sizes[7]) == (3, 0)
    assert log == [(2, LONG, 5, 5, "allowed")]
    assert strategy.orders[3] is None  # nothing to close, as ever


def test_a_reversal_against_the_gate_is_cut_to_its_exit():
    strategy, log = play({2: [buy(5)], 4: [sell(8)], 6: [buy(1)]}, Sides(short=False))
    assert strategy.orders[1].size == -5
    assert (strategy.sizes[5], strategy.sizes[7]) == (0, 1)
    assert log[1] == (4, SHORT, 8, 5, "vetoed")
    assert order_gate_of(strategy).vetoed == set()


def test_close_and_an_entry_in_one_bar_are_an_exit_and_an_entry():
    strategy, log = play({2: [buy(5)], 4: [close, sell(5)]}, Sides(short=False))
    assert strategy.ends() == ["Completed", "Completed", "Rejected"]
    assert strategy.sizes[5] == 0
    assert log[1:] == [(4, SHORT, 5, 0, "vetoed")]


def test_closing_twice_in_one_bar_would_turn_the_position_and_asks():
    strategy, log = play({2: [buy(5)], 4: [close, close]}, Sides(short=False))
    assert strategy.sizes[6] == 0
    assert log[1:] == [(4, SHORT, 5, 0, "vetoed")]


def test_each_addition_asks():
    strategy, log = play({2: [buy()], 4: [buy()], 6: [buy()], 8: [close]}, Sides(bars=(2, 6)))
    assert [strategy.sizes[bar] for bar in (3, 5, 7, 9)] == [1, 1, 2, 0]
    assert [reason for *_, reason in log] == ["allowed", "vetoed", "allowed"]


@pytest.mark.parametrize(
    ("kind", "target"), [("size", -3), ("value", -300), ("percent", -0.03)], ids=["size", "value", "percent"]
)
def test_a_target_on_the_other_side_closes_at_least(kind, target):
    def act(strategy):
        return getattr(strategy, f"order_target_{kind}")(target=target)

    strategy, log = play({2: [buy(5)], 4: [act]}, Sides(short=False))
    assert strategy.sizes[5] == 0
    assert log[1] == (4, SHORT, 8, 5, "vetoed")


def test_a_gate_that_reduces_lets_in_a_share_and_never_of_an_exit():
    strategy, log = play({2: [buy(8)], 4: [sell(12)]}, Sides(fraction=0.25))
    assert (strategy.sizes[3], strategy.sizes[5]) == (2, -2.5)
    assert log == [(2, LONG, 8, 2, "allowed"), (4, SHORT, 12, 4.5, "allowed")]


def test_arguments_are_backtraders_in_every_form():
    plan = {
        2: [
            lambda s: s.buy(s.data1, 3),
            lambda s: s.sell("data1", 2, 99.0, None, LIMIT),
            lambda s: s.buy(data="data1", exectype=None),
            lambda s: s.buy(s.data1, -4),
        ]
    }
    strategy, log = play(plan, AlwaysOpen(), FLAT, FLAT)
    assert [order.size for order in strategy.orders] == [3, -2, 1, 4]
    assert {order.data._name for order in strategy.orders} == {"data1"}
    assert [size for _, _, size, *_ in log] == [3, 1, 4]


def test_what_has_no_size_is_no_order_and_asks_nobody():
    strategy, log = play(
        {2: [buy(0), buy(None)]},
        AlwaysOpen(),
        prepare=lambda cerebro: cerebro.addsizer(bt.sizers.FixedSize, stake=0),
    )
    assert strategy.orders == [None, None]
    assert log == []


# Orders that belong together


def test_a_bracket_goes_with_its_vetoed_entry():
    def bracket(strategy):
        strategy.orders += strategy.buy_bracket(size=3, exectype=MARKET, stopprice=98, limitprice=102)

    strategy, log = play({2: [bracket]}, NeverOpen(), bars(*[100] * 4, 90, 110, 100))
    assert strategy.ends()[:3] == ["Rejected"] * 3
    assert [order.size for order in strategy.orders[:3]] == [3, -3, -3]
    assert set(strategy.sizes.values()) == {0}
    assert log == [(2, LONG, 3, 0, "vetoed"), (2, SHORT, 3, 0, "follows"), (2, SHORT, 3, 0, "follows")]


def test_a_bracket_that_would_turn_the_position_still_closes_it():
    def bracket(strategy):
        strategy.orders += strategy.sell_bracket(size=6, exectype=MARKET, stopprice=102, limitprice=98)

    strategy, _ = play({2: [buy(2)], 4: [bracket]}, Sides(short=False))
    assert [order.size for order in strategy.orders[1:4]] == [-2, 2, 2]
    assert strategy.ends()[1:4] == ["Completed", "Rejected", "Rejected"]
    assert set(list(strategy.sizes.values())[4:]) == {0}


def test_a_loose_stop_and_target_go_with_the_entry_that_was_vetoed_in_the_same_bar():
    plan = {2: [buy(4), sell(4, exectype=STOP, price=98), sell(4, exectype=LIMIT, price=102)]}
    strategy, log = play(plan, Sides(long=False), bars(*[100] * 4, 90, 110, 100))
    assert strategy.ends() == ["Rejected"] * 3
    assert [reason for *_, reason in log] == ["vetoed", "follows", "follows"]
    assert [decision.side for decision in attached_gates(strategy)[0].log] == [LONG]


def test_on_the_next_bar_the_same_order_is_an_entry():
    plan = {2: [buy(4)], 3: [sell(4, exectype=STOP, price=98)]}
    strategy, log = play(plan, Sides(long=False), bars(*[100] * 4, 90, 90, 90))
    assert [reason for *_, reason in log] == ["vetoed", "allowed"]
    assert strategy.position.size == -4


def test_what_is_larger_than_the_vetoed_entry_asks_for_the_rest():
    strategy, log = play({2: [buy(4), sell(6)]}, Sides(long=False))
    assert log == [(2, LONG, 4, 0, "vetoed"), (2, SHORT, 6, 2, "allowed")]
    assert strategy.position.size == -2


def test_a_sale_of_what_was_vetoed_is_no_entry():
    strategy, log = play({2: [buy(4), sell(4), sell(1)]}, Sides(long=False))
    assert [reason for *_, reason in log] == ["vetoed", "follows", "allowed"]
    assert strategy.position.size == -1


def test_a_stop_for_what_is_held_passes_beside_a_vetoed_addition():
    plan = {2: [buy(2)], 4: [buy(3), sell(2, exectype=STOP, price=95)]}
    strategy, log = play(plan, Sides(bars=(2,)), bars(*[100] * 5, 90, 90))
    assert strategy.ends() == ["Completed", "Rejected", "Completed"]
    assert strategy.position.size == 0
    assert [reason for *_, reason in log] == ["allowed", "vetoed"]


def test_the_stop_of_an_entry_that_still_waits_is_no_entry():
    plan = {2: [buy(2, exectype=LIMIT, price=95)], 3: [sell(2, exectype=STOP, price=85)]}
    strategy, log = play(plan, Sides(short=False), bars(100, 100, 100, 90, 90, 80, 80))
    assert strategy.ends() == ["Completed", "Completed"]
    assert strategy.position.size == 0
    assert [reason for *_, reason in log] == ["allowed"]


def test_a_group_that_protects_a_vetoed_entry_goes_with_it():
    def group(strategy):
        stop = strategy.sell(size=1, exectype=STOP, price=95)
        strategy.orders += [stop, strategy.sell(size=1, exectype=LIMIT, price=110, oco=stop)]

    _, log = play({2: [buy(1), group]}, Sides(long=False))
    assert [reason for *_, reason in log] == ["vetoed", "follows", "follows"]


def test_of_a_group_the_part_that_is_let_in_stays_a_group():
    def group(strategy):
        first = strategy.buy(size=1, exectype=STOP, price=105)
        second = strategy.sell(size=1, exectype=STOP, price=95, oco=first)
        third = strategy.sell(size=1, exectype=LIMIT, price=110, oco=first)
        strategy.orders += [first, second, third]

    strategy, log = play({2: [group]}, Sides(long=False), bars(*[100] * 4, 90, 120, 120))
    assert strategy.ends()[:3] == ["Rejected", "Completed", "Canceled"]
    assert strategy.position.size == -1
    assert [reason for *_, reason in log] == ["vetoed", "allowed", "allowed"]


# Orders that wait


def test_an_order_that_waits_is_asked_when_it_is_sent():
    plan = {2: [buy(exectype=STOP, price=105)], 3: [buy(exectype=STOP, price=105)]}
    strategy, log = play(plan, Sides(bars=(2,)), bars(*[100] * 5, 110, 110))
    assert strategy.ends() == ["Completed", "Rejected"]
    assert log == [(2, LONG, 1, 1, "allowed"), (3, LONG, 1, 0, "vetoed")]
    assert strategy.position.size == 1


def test_an_exit_whose_position_has_gone_asks_before_it_fills():
    plan = {2: [buy(2), sell(2, exectype=STOP, price=95)], 4: [close]}
    frame = bars(*[100] * 6, 90, 90, 90)
    strategy, log = play(plan, Sides(short=False), frame)
    assert strategy.ends() == ["Completed", "Rejected", "Completed"]
    assert strategy.heard[-1] == (7, strategy.orders[1].ref, "Rejected")
    assert log[1:] == [(6, SHORT, 2, 0, "vetoed")]
    assert strategy.position.size == 0
    strategy, log = play(plan, Sides(), frame)
    assert log[1:] == [(6, SHORT, 2, 2, "allowed")]
    assert strategy.position.size == -2


def test_before_it_fills_a_gate_may_reduce_too():
    plan = {2: [buy(4)], 3: [sell(2, exectype=STOP, price=95)], 4: [sell(1)]}
    strategy, log = play(plan, Sides(fraction=0.5), bars(*[100] * 6, 90, 90, 90))
    assert log == [(2, LONG, 4, 2, "allowed"), (6, SHORT, 2, 1.5, "allowed")]
    assert strategy.orders[1].status == bt.Order.Completed
    assert strategy.position.size == -0.5


def test_an_exit_for_more_than_is_left_fills_what_is_left():
    plan = {2: [buy(3), sell(3, exectype=STOP, price=95)], 4: [sell(2)]}
    strategy, log = play(plan, Sides(short=False), bars(*[100] * 6, 90, 90, 90))
    assert strategy.ends() == ["Completed"] * 3
    assert strategy.orders[1].executed.size == -1
    assert log[1:] == [(6, SHORT, 3, 1, "vetoed")]
    assert strategy.position.size == 0


def test_two_exits_that_fill_on_one_bar_do_not_turn_the_position():
    plan = {2: [buy(2), sell(2, exectype=STOP, price=95), sell(2, exectype=LIMIT, price=99)]}
    strategy, _ = play(plan, Sides(short=False), bars(100, 100, 98, 98, 90, 101))
    assert strategy.position.size == 0
    assert sorted(strategy.ends()) == ["Completed", "Completed", "Rejected"]


def test_a_child_larger_than_its_parent_takes_off_no_more_than_there_is():
    def family(strategy):
        entry = strategy.buy(size=1, transmit=False)
        strategy.orders += [entry, strategy.sell(size=5, exectype=STOP, price=95, parent=entry)]

    strategy, log = play({2: [family]}, Sides(short=False), bars(*[100] * 5, 90, 90))
    assert strategy.orders[1].executed.size == -1
    assert strategy.position.size == 0
    assert log[1:] == [(5, SHORT, 5, 1, "vetoed")]


def test_a_child_is_reduced_as_its_parent_is():
    def family(strategy):
        entry = strategy.buy(size=8, transmit=False)
        strategy.orders += [entry, strategy.sell(size=8, exectype=STOP, price=95, parent=entry)]

    strategy, log = play({2: [family]}, Sides(fraction=0.25), bars(*[100] * 5, 90, 90))
    assert [order.executed.size for order in strategy.orders[:2]] == [2, -2]
    assert [reason for *_, reason in log] == ["allowed"]


def test_an_order_sent_past_the_strategy_is_judged_like_any_other():
    def direct(strategy):
        return strategy.broker.buy(strategy, strategy.data, size=2)

    strategy, log = play({2: [direct], 5: [direct]}, Sides(bars=(2,)))
    assert strategy.ends() == ["Completed", "Rejected"]
    assert log == [(2, LONG, 2, 2, "allowed"), (5, LONG, 2, 0, "vetoed")]


def test_a_brokers_own_filler_still_says_how_much_fills():
    def prepare(cerebro):
        cerebro.broker.set_filler(bt.broker.fillers.FixedSize(size=2))

    strategy, _ = play({2: [buy(5)], 7: [close]}, AlwaysOpen(), prepare=prepare)
    assert [strategy.sizes[bar] for bar in (3, 4, 5, 8, 9, 10)] == [2, 4, 5, 3, 1, 0]


def test_a_filler_that_a_strategy_sets_while_it_runs_lets_nothing_by():
    class Trickles(Script):
        def start(self):
            self.broker.set_filler(bt.broker.fillers.FixedSize(size=3))

    plan = {2: [buy(2), sell(2, exectype=STOP, price=95)], 4: [close], 5: [buy(4)]}
    frame = bars(*[100] * 6, 94, 94, 94)
    strategy = run(gated(Trickles), frame, gate=Sides(short=False, bars=(2,)), plan=plan)
    assert strategy.ends() == ["Completed", "Rejected", "Completed", "Rejected"]
    strategy = run(gated(Trickles), frame, gate=AlwaysOpen(), plan=plan)
    assert [strategy.sizes[bar] for bar in (3, 5, 6, 7, 8)] == [2, 0, 3, 2, 2]


def test_a_strategy_whose_own_buy_sends_nothing_sends_nothing():
    class Hesitates(Script):
        def buy(self, size, **given):
            return super().buy(size=size, **given) if size > 3 else None

    plan = {2: [buy(5)], 4: [buy(2)]}
    strategy = run(gated(Hesitates), FLAT, gate=AlwaysOpen(), plan=plan)
    assert strategy.ends() == ["Completed", None]
    assert [judged.size for judged in order_gate_of(strategy).log] == [5]


def test_one_broker_may_run_judged_and_other_strategies_in_turn():
    cerebro = bt.Cerebro(stdstats=False, maxcpus=1)
    cerebro.adddata(feed(FLAT))
    cerebro.optstrategy(
        gated(Script), plan=[{2: [buy()]}], gate=[NeverOpen(), None, AlwaysOpen(), NeverOpen()]
    )
    cerebro.p.optreturn = False
    assert [strategy.ends() for (strategy,) in cerebro.run()] == [
        ["Rejected"],
        ["Completed"],
        ["Completed"],
        ["Rejected"],
    ]


# What was decided when


def test_at_a_cheating_open_the_bar_before_decides():
    class AtOpen(Script):
        def next_open(self):
            if len(self.data) == 4:
                self.orders.append(self.buy())

    strategy = run(gated(AtOpen), FLAT, mode={"cheat_on_open": True}, gate=Sides(bars=(3,)))
    (judged,) = order_gate_of(strategy).log
    assert (judged.bar, judged.allowed) == (3, True)
    assert strategy.sizes[4] == 1


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"exactbars": 1}], ids=str)
def test_a_timer_is_judged_by_the_last_bar_that_the_indicators_know(mode):
    class Timed(Script):
        def __init__(self):
            super().__init__()
            self.add_timer(bt.timer.SESSION_START)

        def notify_timer(self, timer, when, *args, **kwargs):
            self.orders.append(self.buy())

    strategy = run(gated(Timed), FLAT, mode=mode, gate=NeverOpen())
    assert [judged.bar for judged in order_gate_of(strategy).log] == list(range(12))


def test_orders_from_notify_order_are_judged_by_the_bar_of_the_notification():
    class Chain(Script):
        def notify_order(self, order):
            if order.status == order.Completed and len(self.orders) == 1:
                self.orders.append(self.buy())

    strategy = run(gated(Chain), FLAT, gate=Sides(bars=(2,)), plan={2: [buy()]})
    assert [(j.bar, j.allowed) for j in order_gate_of(strategy).log] == [(2, True), (3, False)]


def test_before_the_warm_up_the_answer_is_no_and_no_entry():
    class Eager(Script):
        def prenext(self):
            self.next()

        def __init__(self):
            super().__init__()
            bt.ind.SMA(self.data, period=8)

    plan = {bar: [buy()] for bar in (2, 4, 5, 6)}
    strategy = run(gated(Eager), FLAT, gate=Sides(warm_up_bars=5), plan=plan)
    judge, (gate,) = order_gate_of(strategy), attached_gates(strategy)
    assert [(j.bar, j.reason) for j in judge.log] == [
        (2, "warm-up"), (4, "warm-up"), (5, "allowed"), (6, "allowed"),
    ]  # fmt: skip
    assert [j.early for j in judge.log] == [True, True, False, False]
    assert (gate.early, gate.allowed, gate.blocked) == (2, 2, 0)


# Several datas


def test_each_data_asks_its_own_gate():
    plan = {3: [lambda s: s.buy(s.data0), lambda s: s.sell(s.data1, size=2)]}
    strategy, _ = play(plan, Sides(short=False), FLAT, FLAT)
    assert strategy.ends() == ["Completed", "Rejected"]
    assert [j.data for j in order_gate_of(strategy).log] == ["data0", "data1"]
    assert [len(gate.log) for gate in attached_gates(strategy)] == [1, 1]


def test_a_resampled_copy_asks_the_gate_of_what_it_is_made_of():
    def prepare(cerebro):
        cerebro.resampledata(cerebro.datas[0], timeframe=bt.TimeFrame.Weeks, name="weekly")

    plan = {9: [lambda s: s.buy(s.data1)]}
    strategy, _ = play(plan, NeverOpen(), bars(*[100.0] * 30), prepare=prepare)
    assert len(attached_gates(strategy)) == 1
    assert [j.data for j in order_gate_of(strategy).log] == ["weekly"]


def test_a_data_that_compensates_another_changes_that_ones_position():
    def prepare(cerebro):
        cerebro.datas[1].compensate(cerebro.datas[0])

    plan = {
        2: [lambda s: s.buy(s.data0, 3)],
        4: [lambda s: s.sell(s.data1, 3)],
        6: [lambda s: s.sell(s.data1)],
    }
    strategy, _ = play(plan, Sides(short=False), FLAT, FLAT, prepare=prepare)
    assert strategy.ends() == ["Completed", "Completed", "Rejected"]
    assert strategy.getposition(strategy.data0).size == 0


# The class


def test_it_is_the_strategy_in_all_but_its_orders():
    made = gated(LongOnly)
    assert made is gated(LongOnly)
    assert gated(made) is made
    assert issubclass(made, LongOnly)
    assert (made.__name__, made.__module__, made.__doc__) == (
        "LongOnly", LongOnly.__module__, LongOnly.__doc__,
    )  # fmt: skip
    assert list(made.params._getkeys()) == ["fast", "slow", "gate"]


def test_it_pickles_as_what_it_is_made_of():
    for strategy in (LongOnly, Signals):
        assert pickle.loads(pickle.dumps(gated(strategy))) is gated(strategy)


class Heir(gated(LongOnly)):
    """A subclass of a gated class."""


def test_a_subclass_of_it_is_itself_and_judged_once():
    assert pickle.loads(pickle.dumps(Heir)) is Heir
    strategy = run(gated(Heir), FLAT, gate=NeverOpen())
    assert len(attached_gates(strategy)) == 1


class AsksItself(Script):
    params = (("gate", None),)

    def __init__(self):
        super().__init__()
        self.gate = attach_gate(self.p.gate, self)


def test_a_strategy_that_asks_by_itself_is_left_alone(caplog):
    with caplog.at_level("INFO"):
        strategy = run(gated(AsksItself), FLAT, gate=NeverOpen(), plan={2: [buy()]})
    assert order_gate_of(strategy) is None
    assert strategy.ends() == ["Completed"]
    assert "AsksItself attaches a gate itself: its orders are left alone" in caplog.text


def test_a_parameter_alone_is_enough():
    class Forgot(Script):
        params = (("gate", None),)

    strategy = run(gated(Forgot), FLAT, gate=NeverOpen(), plan={2: [buy()]})
    assert strategy.ends() == ["Rejected"]


def test_a_parameter_of_that_name_which_is_something_else_is_refused():
    class Opens(Script):
        params = (("gate", 0.5),)

    with pytest.raises(ConfigError, match=r"^Opens has a parameter gate=0\.5, which is no gate: give it"):
        gated(Opens)


@pytest.mark.parametrize("what", [None, "file.py:Name", AlwaysOpen, LongOnly.__init__])
def test_what_is_no_strategy_is_named(what):
    with pytest.raises(ConfigError, match="expected a class, a subclass of backtrader"):
        gated(what)


def test_what_is_no_gate_is_named():
    with pytest.raises(ConfigError, match="gate='open': expected None or a gate"):
        run(gated(Script), FLAT, gate="open")


def test_orders_are_judged_by_one_gate():
    class Twice(Script):
        def __init__(self):
            super().__init__()
            judge_orders(self, NeverOpen())

    with pytest.raises(ConfigError, match="the orders of Twice are judged by a gate already"):
        run(Twice, FLAT, prepare=lambda c: c.addindicator(Again))


class Again(bt.Indicator):
    def __init__(self):
        judge_orders(self._owner, NeverOpen())


def test_another_kind_of_broker_is_refused():
    class Elsewhere(bt.BrokerBase):
        def getcash(self):
            return 0.0

        def getvalue(self, datas=None):
            return 0.0

    with pytest.raises(ConfigError, match="broker Elsewhere: orders are judged with Backtrader's simulated"):
        run(gated(Script), FLAT, prepare=lambda c: setattr(c, "broker", Elsewhere()), gate=NeverOpen())
