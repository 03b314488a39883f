"""The lean engine against Backtrader's own: whatever can be seen of a run is the same to the last bit."""

from __future__ import annotations

import math
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.analyzers import LLMAnalyzer
from bt_llm.backtest import Market, Setup, _line_store, load_strategy, run_backtest, run_strategy
from bt_llm.backtest._brokers import PlainBroker, RestingBroker
from bt_llm.backtest._lean import LeanCerebro
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AlwaysOpen, Answers, Gate, RandomGate, gated
from tests.engines import MODES, QuickAdvice, array_feed, feed, walk
from tests.strategies_of_others import CASES, Case, Crossing, LongOnly

BARS = walk(160, seed=8)
RANDOM = RandomGate(
    answers=Answers(long=bytes([1, 0, 1, 1, 0]), short=bytes([0, 1, 1, 0]), per="entry", warm_up=14)
)


class Spy(bt.Analyzer):
    """Keeps all that can be seen of an account, bar by bar."""

    def start(self) -> None:
        self.seen: list[Any] = []

    def notify_order(self, order: Any) -> None:
        bits = [
            (bit.dt, bit.size, bit.price, bit.closedcomm, bit.openedcomm) for bit in order.executed.exbits
        ]
        self.seen.append(("order", order.status, order.created.dt, order.created.size, bits))

    def notify_trade(self, trade: Any) -> None:
        self.seen.append(("trade", trade.status, trade.baropen, trade.barlen, trade.pnl, trade.pnlcomm))

    def prenext(self) -> None:
        self.look("prenext")

    def nextstart(self) -> None:
        self.look("nextstart")

    def next(self) -> None:
        self.look("next")

    def look(self, when: str) -> None:
        strategy, broker = self.strategy, self.strategy.broker
        held = [broker.getposition(data) for data in strategy.datas]
        self.seen.append(
            (
                when,
                len(strategy),
                strategy.datetime[0],
                [(len(data), data.close[0] if len(data) else None) for data in strategy.datas],
                [(position.size, position.price) for position in held],
                (broker.getcash(), broker.getvalue(), broker.get_leverage(), broker.fundvalue),
                (broker.fundshares, broker.get_value(lever=True), broker.get_value(mkt=True)),
                [len(one) for one in strategy.getindicators()],
                [one[0] for one in strategy.getindicators() if len(one)],
                getattr(strategy.data, "tick_close", None),
            )
        )


class HearsCash(Spy):
    """Listens to what is told of the cash at every bar."""

    def notify_cashvalue(self, cash: float, value: float) -> None:
        self.seen.append(("cash", cash, value))

    def notify_fund(self, cash: float, value: float, fundvalue: float, shares: float) -> None:
        self.seen.append(("fund", cash, value, fundvalue, shares))


def seen(case: Case, kind: Any, broker: Any, *, spy: Any = Spy, mode: Any = None, **params: Any) -> str:
    """Return what can be seen of a run."""
    cerebro = kind(stdstats=False, **dict(case.cerebro), **(mode or {}))
    cerebro.broker = broker()
    cerebro.broker.setcommission(commission=0.001)
    for number in range(case.datas):
        cerebro.adddata(array_feed(walk(160, seed=8 + number)), name=f"data{number}")
    case.setup(cerebro)
    add = cerebro.signal_strategy if cerebro.signals else cerebro.addstrategy
    add(gated(case.strategy), *case.args, **case.params, **params)
    cerebro.addanalyzer(spy, _name="spy")
    strategy = cerebro.run()[0]
    return repr(strategy.analyzers.spy.seen)  # NaN is equal to itself in text, and floats are whole


@pytest.mark.parametrize("name", list(CASES))
def test_strategies_of_others_run_the_same_to_the_last_bit(name: str) -> None:
    case = CASES[name]
    for gate in (None, RANDOM):
        plain = seen(case, bt.Cerebro, PlainBroker, gate=gate)
        assert seen(case, LeanCerebro, RestingBroker, gate=gate) == plain
    assert seen(case, LeanCerebro, RestingBroker, spy=HearsCash) == seen(
        case, bt.Cerebro, PlainBroker, spy=HearsCash
    )


@pytest.mark.parametrize("mode", MODES[::3], ids=str)
def test_every_engine_mode_is_the_same(mode: dict[str, Any]) -> None:
    for name in ("close_then_turn", "long_bracket", "pair"):
        plain = seen(CASES[name], bt.Cerebro, PlainBroker, mode=mode, gate=RANDOM)
        assert seen(CASES[name], LeanCerebro, RestingBroker, mode=mode, gate=RANDOM) == plain


class Reads(Crossing):
    """Keeps lines of its own, an indicator of an indicator, and whatever a broker can be asked."""

    lines = ("mine",)

    def __init__(self) -> None:
        super().__init__()
        self.second = bt.ind.EMA(self.fast, period=3)
        self.band = bt.ind.BollingerBands(self.data.high - self.data.low, period=5)
        self.kept: list[Any] = []

    def next(self) -> None:
        self.lines.mine[0] = self.second[0]
        self.kept.append((self.lines.mine[0], self.lines.mine[-1], self.band.top[0], self.data.tick_high))
        if self.cross > 0 and not self.position:
            self.buy(size=3)
        elif self.cross < 0:
            self.close()
        if len(self) == 60:
            self.broker.add_cash(500.0)
        if len(self) == 90:
            self.broker.setcash(self.broker.getcash() + 1.0)


class Dear(bt.CommInfoBase):
    """Stocks with interest on short and long positions."""

    params = (("stocklike", True), ("commtype", bt.CommInfoBase.COMM_PERC), ("interest", 0.2))


def _interest(cerebro: bt.Cerebro) -> None:
    cerebro.broker.addcommissioninfo(Dear(commission=0.1, interest_long=True))


def _futures(cerebro: bt.Cerebro) -> None:
    cerebro.broker.setcommission(commission=2.0, margin=50.0, mult=2.0)


def _leverage(cerebro: bt.Cerebro) -> None:
    cerebro.broker.setcommission(commission=0.001, leverage=4.0)


def _observed(cerebro: bt.Cerebro) -> None:
    cerebro.addobserver(bt.observers.Value)
    cerebro.addobserver(bt.observers.DrawDown)
    cerebro.addanalyzer(bt.analyzers.TimeReturn, timeframe=bt.TimeFrame.Weeks)
    cerebro.addanalyzer(bt.analyzers.PyFolio)


@pytest.mark.parametrize("setup", [_interest, _futures, _leverage, _observed])
@pytest.mark.parametrize("strategy", [Reads, CASES["close_then_turn"].strategy])
def test_interest_margin_leverage_and_observers_are_the_same(setup: Any, strategy: Any) -> None:
    case = Case(strategy, setup)
    assert seen(case, LeanCerebro, RestingBroker) == seen(case, bt.Cerebro, PlainBroker)


def test_lines_and_ticks_that_a_strategy_reads_are_the_same() -> None:
    kept = []
    for kind, broker in ((LeanCerebro, RestingBroker), (bt.Cerebro, PlainBroker)):
        cerebro = kind(stdstats=False)
        cerebro.broker = broker()
        cerebro.adddata(feed(BARS))
        cerebro.addstrategy(Reads)
        kept.append(repr(cerebro.run()[0].kept))
    assert kept[0] == kept[1]
    assert len(kept[0]) > 1000


EXAMPLES = {
    "sma_cross.py:GatedSmaCross": {},
    "rsi_reversion.py:GatedRsiReversion": {},
    "donchian.py:GatedDonchian": {},
}
TREND = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"), indicator=QuickAdvice)


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_examples_give_the_same_result_in_every_mode(example: str, mode: dict[str, Any]) -> None:
    strategy = load_strategy(str(shipped(example.partition(":")[0])) + ":" + example.partition(":")[2])
    bars = load_bars(shipped("eurusd_hourly.csv"))[-260:]
    settings = {"commission": 0.0002, "slippage": 0.0001, **mode}
    for gate in (TREND, AlwaysOpen(warm_up=20)):
        lean, plain = (
            run_backtest(strategy, bars, gate=gate, engine=engine, **settings) for engine in ("lean", "plain")
        )
        assert lean.equity.to_numpy().tobytes() == plain.equity.to_numpy().tobytes()
        for table in ("fills", "trades", "order_log"):
            pd.testing.assert_frame_equal(getattr(lean, table), getattr(plain, table), check_exact=True)
        assert repr(lean.metrics) == repr(plain.metrics)
        for name in ("bars", "verdicts", "forward", "gate") if lean.advice else ():
            assert lean.advice[name] == plain.advice[name]


def test_ruin_ends_both_engines_at_the_same_bar() -> None:
    class Short(bt.Strategy):
        def next(self) -> None:
            if not self.position:
                self.sell(size=90)

    bars = BARS.copy()
    bars *= np.linspace(1.0, 6.0, len(bars))[:, None]
    lean, plain = (run_backtest(Short, bars, engine=engine) for engine in ("lean", "plain"))
    assert lean.ruined is not None
    assert (lean.ruined, lean.equity.tolist()) == (plain.ruined, plain.equity.tolist())


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine='fast': expected one of \['lean', 'plain'\]"):
        run_backtest(LongOnly, BARS, engine="fast")  # type: ignore[arg-type]


def test_the_lean_loop_is_what_runs() -> None:
    class Counts(RestingBroker):
        rested = 0

        def _get_value(self, datas: Any = None, lever: bool = False) -> Any:
            type(self).rested += 1
            return super()._get_value(datas=datas, lever=lever)

    cerebro = LeanCerebro(stdstats=False)
    cerebro.broker = Counts()
    cerebro.adddata(feed(BARS))
    cerebro.addstrategy(LongOnly)
    strategy = cerebro.run()[0]
    fills = sum(bool(order.executed.size) for order in cerebro.broker.orders)
    assert fills > 5
    assert len(strategy) == len(BARS)
    assert Counts.rested < 3 * fills + 5 < len(BARS)
    assert math.isfinite(cerebro.broker.getvalue())


class Counting(LLMAnalyzer):
    """Has a `next` of its own."""

    def start(self) -> None:
        super().start()
        self.calls = 0

    def next(self) -> None:
        super().next()
        self.calls += 1


class Namesake(bt.Analyzer):
    """Calls something of its own as the engine calls what it asks of its own analyzers."""

    def start(self) -> None:
        self.rests = self.follows = True
        self.calls = 0

    def next(self) -> None:
        self.calls += 1


@pytest.mark.parametrize("analyzer", [Counting, Namesake])
@pytest.mark.parametrize("engine", ["lean", "plain"])
def test_other_peoples_analyzers_are_called_at_every_bar(analyzer: Any, engine: Any) -> None:
    ran = run_strategy(LongOnly, Market.of(BARS), Setup(), {}, analyzers={"theirs": analyzer}, engine=engine)

    assert ran.strategy.analyzers.theirs.calls == len(BARS)


class Delivers(bt.brokers.BackBroker):
    """Keeps what is to be told in a queue of its own."""

    def __init__(self) -> None:
        self.mail: list[Any] = []
        super().__init__()

    def notify(self, order: Any) -> None:
        self.mail.append(order.clone())

    def get_notification(self) -> Any:
        return self.mail.pop(0) if self.mail else None


@pytest.mark.parametrize("engine", ["lean", "plain"])
def test_a_broker_is_heard_that_delivers_in_its_own_way(engine: Any) -> None:
    def setup(cerebro: bt.Cerebro, market: Market) -> None:
        cerebro.broker = Delivers()

    ran = run_strategy(LongOnly, Market.of(BARS), Setup(function=setup), {}, engine=engine)

    assert len(ran.account.fills) > 5


class Recalls(LongOnly):
    """Says how many orders Backtrader has told it of, which it keeps in a private list."""

    def stop(self) -> None:
        self.told = [(order.created.dt, order.status) for order in self._orders]


def test_orders_as_they_were_told_are_kept_only_where_somebody_may_read_them() -> None:
    market = Market.of(BARS)
    lean, plain = (
        run_strategy(Recalls, market, Setup(), {}, engine=engine).strategy for engine in ("lean", "plain")
    )
    assert lean.told == plain.told != []
    shipped_one = run_strategy(load_strategy(f"{shipped('sma_cross.py')}:GatedSmaCross"), market, Setup(), {})
    assert len(shipped_one.account.orders) > 0
    assert shipped_one.strategy._orders == []


class Bands(bt.Strategy):
    """Indicators of Backtrader's with parameters, inputs and operations that differ a little."""

    params = (("period", 5), ("source", "close"), ("factor", 2.0))

    def __init__(self) -> None:
        source = getattr(self.data, self.p.source)
        self.made = [
            bt.ind.BollingerBands(source, period=self.p.period),
            bt.ind.EMA(source * self.p.factor, period=4),
            bt.ind.SMA(source(-1) - bt.ind.RSI(self.data, period=6, safediv=True), period=3),
            bt.ind.ATR(self.data, period=self.p.period, movav=bt.ind.MovAv.Exponential),
        ]
        self.rows: list[Any] = []

    def next(self) -> None:
        self.rows.append([line[0] for one in self.made for line in one.lines])


@pytest.mark.parametrize(
    ("bars", "params"),
    [
        (BARS, {}),
        (BARS, {"period": 6}),
        (BARS, {"source": "high"}),
        (BARS, {"factor": 2.5}),
        (walk(160, seed=9), {}),
        (BARS[:-1], {}),
    ],
)
def test_lines_that_are_kept_are_those_of_the_same_indicator_on_the_same_bars(bars: Any, params: Any) -> None:
    _line_store.forget_lines()
    kept = []
    for kind in (LeanCerebro, LeanCerebro, bt.Cerebro):
        for more in ({}, params):
            cerebro = kind(stdstats=False)
            cerebro.adddata(feed(bars if more or not params else BARS))
            cerebro.addstrategy(Bands, **more)
            kept.append(repr(cerebro.run()[0].rows))
    assert kept[0] == kept[2] == kept[4]
    assert kept[1] == kept[3] == kept[5]


class Inside(bt.Indicator):
    """Has an indicator inside that whoever has this one can read."""

    lines: Any = ("twice",)

    def __init__(self) -> None:
        self.inner = bt.ind.EMA(self.data, period=3)
        self.lines.twice = 2.0 * self.inner


class KeepsTwo(bt.Strategy):
    def __init__(self) -> None:
        self.read = [bt.ind.CrossOver(self.data.close, bt.ind.SMA(self.data, period=4)), Inside(self.data)]


@pytest.mark.parametrize(("objcache", "let_go"), [(False, True), (True, False)])
def test_only_lines_that_nobody_can_see_are_let_go(objcache: bool, let_go: bool) -> None:
    _line_store.forget_lines()
    for _ in range(2):  # worked out, and kept
        cerebro = LeanCerebro(stdstats=False, objcache=objcache)
        cerebro.adddata(feed(BARS))
        cerebro.addstrategy(KeepsTwo)
        crossed, inside = cerebro.run()[0].read
        assert len(inside.inner.lines.ema.array) == len(crossed.lines.crossover.array) == len(BARS)
        inner = [line for child in _line_store._tree(crossed) for line in _line_store._lines(child)][1:]
        assert {len(line.array) for line in inner} == {0 if let_go else len(BARS)}


def test_lines_of_other_peoples_indicators_are_worked_out_in_every_run() -> None:
    calls = []

    class Counted(bt.Indicator):
        lines = ("seen",)

        def __init__(self) -> None:
            self.inner = bt.ind.SMA(self.data, period=3)

        def once(self, start: int, end: int) -> None:
            calls.append(1)
            self.lines.seen.array[start:end] = self.inner.lines.sma.array[start:end]

    class Holds(bt.Strategy):
        def __init__(self) -> None:
            self.counted = Counted(self.data)

    for _ in range(3):
        cerebro = LeanCerebro(stdstats=False)
        cerebro.adddata(feed(BARS))
        cerebro.addstrategy(Holds)
        counted = cerebro.run()[0].counted
        assert counted.lines.seen.array[20] == pytest.approx(BARS["close"][18:21].mean())
    assert len(calls) >= 3
