"""One trial: a strategy on one window of bars, with nothing before it but indicators that warm up."""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import ShareOfAccount, bars_feed, in_range
from bt_llm.exceptions import BtLlmError, StrategyError
from bt_llm.feeds import ArrayFeed
from bt_llm.indicators import LLMAdvice, copy_values
from bt_llm.research._ledger import TrialOutcome
from bt_llm.verdicts import Verdict

__all__ = [
    "Account",
    "Bars",
    "Trade",
    "Window",
    "run_window",
    "strategy_warm_up",
    "trades_frame",
    "window_cells",
]

Floats = NDArray[np.float64]

_LINES = ("datetime", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of bars that a trial trades over, by position; half-open.

    Parameters
    ----------
    start : int
        First bar that the indicators see.
    first : int
        First bar whose close the strategy may decide at.
    stop : int
        One past the last bar.
    """

    start: int
    first: int
    stop: int

    @property
    def warm_up(self) -> int:
        """Number, from 1, of the window's first bar among those that the indicators see."""
        return self.first - self.start + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bars:
    """Bars as plain arrays, which a worker gets without pandas.

    Parameters
    ----------
    columns : ndarray of shape (6, n_bars)
        Backtrader's time numbers, then open, high, low, close and volume.
    timeframe, compression : int
        How long a bar is, in Backtrader's terms.
    name : str
        Of the data.
    """

    columns: Floats
    timeframe: int
    compression: int
    name: str

    @classmethod
    def of(cls, bars: pd.DataFrame, name: str) -> Bars:
        """Return a frame of bars, as `load_bars` gives it, as arrays."""
        times = [bt.date2num(time) for time in bars.index]
        feed = bars_feed(bars)
        columns = np.array([times, *(bars[line].to_numpy() for line in _LINES[1:])])
        return cls(columns=columns, timeframe=feed.p.timeframe, compression=feed.p.compression, name=name)

    def cut(self, window: Window) -> Bars:
        """Return the bars that a window's indicators see, and none after it."""
        columns = self.columns[:, window.start : window.stop].copy()
        return Bars(columns=columns, timeframe=self.timeframe, compression=self.compression, name=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a backtest starts with and pays; as in `run_backtest`."""

    cash: float
    commission: float
    slippage: float
    percent: float

    def __post_init__(self) -> None:
        """Check the numbers, once."""
        in_range("cash", self.cash, 1e-9, math.inf)
        in_range("commission", self.commission, 0, 1)
        in_range("slippage", self.slippage, 0, 1)
        in_range("percent", self.percent, 0, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """A closed trade; times are Backtrader's numbers."""

    opened: float
    closed: float
    direction: int
    bars: int
    pnl: float
    pnlcomm: float


def trades_frame(trades: Sequence[Trade]) -> pd.DataFrame:
    """Return closed trades with the columns of `BacktestResult.trades`."""
    columns = [field.name for field in fields(Trade)]
    rows = [[getattr(trade, name) for name in columns] for trade in trades]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("opened", "closed"):
        frame[name] = pd.DatetimeIndex([bt.num2date(time) for time in frame[name]])
    return frame


def _cerebro(bars: Bars) -> bt.Cerebro:
    cerebro = bt.Cerebro(stdstats=False)
    feed = ArrayFeed(dataname=bars.columns, timeframe=bars.timeframe, compression=bars.compression)
    cerebro.adddata(feed, name=bars.name)
    return cerebro


@dataclass(slots=True)
class _Log:
    """What a windowed strategy writes down; bars are counted from 1, as Backtrader counts them."""

    first: int
    leave: int
    seen: int = 0
    begun: bool = False
    held: int = 0
    traded: float = 0.0
    equity: array[float] = field(default_factory=lambda: array("d"))
    trades: list[Trade] = field(default_factory=list)


@functools.lru_cache(maxsize=32)
def _windowed(strategy: type[bt.Strategy]) -> type[bt.Strategy]:
    """Return a subclass that decides within its window only, and is flat at the end of it.

    Before the window the strategy's own methods are not called at all: `prenext` or `nextstart` may trade.
    """

    class Windowed(strategy):  # type: ignore[misc]
        params = (("bt_llm_log", None),)
        __module__ = strategy.__module__
        __doc__ = strategy.__doc__

    def prenext(self: Any) -> None:
        self.next()

    def nextstart(self: Any) -> None:
        self.next()

    def next(self: Any) -> None:
        log: _Log = self.p.bt_llm_log
        bar = len(self)
        if bar < log.first:
            return
        if bar != log.seen:
            log.seen = bar
            log.equity.append(self.broker.getvalue())
            log.held += self.broker.getposition(self.data).size != 0
        if bar < log.leave:
            if log.begun:
                strategy.next(self)
            else:
                log.begun = True
                _check_flat(self)
                strategy.nextstart(self)
        elif bar == log.leave:
            _go_flat(self)

    def notify_order(self: Any, order: Any) -> None:
        if order.status == order.Completed:
            self.p.bt_llm_log.traded += abs(order.executed.size * order.executed.price)
        strategy.notify_order(self, order)

    def notify_trade(self: Any, trade: Any) -> None:
        if trade.isclosed:
            closed = Trade(
                opened=trade.dtopen,
                closed=trade.dtclose,
                direction=1 if trade.long else -1,
                bars=trade.barlen,
                pnl=trade.pnl,
                pnlcomm=trade.pnlcomm,
            )
            self.p.bt_llm_log.trades.append(closed)
        strategy.notify_trade(self, trade)

    def notify_timer(self: Any, timer: Any, when: Any, *args: Any, **kwargs: Any) -> None:
        # Timers ring before the strategy's own count of bars moves on.
        if self.p.bt_llm_log.first <= len(self.data) < self.p.bt_llm_log.leave:
            strategy.notify_timer(self, timer, when, *args, **kwargs)

    # Set afterwards: SignalStrategy's metaclass would take a `next` of the class body for something else.
    for method in (prenext, nextstart, next, notify_order, notify_trade, notify_timer):
        setattr(Windowed, method.__name__, method)
    Windowed.__name__, Windowed.__qualname__ = strategy.__name__, strategy.__qualname__
    return Windowed


def _check_flat(strategy: bt.Strategy) -> None:
    if strategy.broker.getposition(strategy.data).size or strategy.broker.get_orders_open():
        raise StrategyError(
            f"{type(strategy).__name__} has orders or a position before its first bar: expected orders in "
            f"next() only"
        )


def _go_flat(strategy: bt.Strategy) -> None:
    """Cancel what is open and leave at the next open, the window's last; past any veto of the strategy's."""
    for order in strategy.broker.get_orders_open():
        strategy.broker.cancel(order)
    size = strategy.broker.getposition(strategy.data).size
    if size > 0:
        bt.Strategy.sell(strategy, data=strategy.data, size=size)
    elif size < 0:
        bt.Strategy.buy(strategy, data=strategy.data, size=-size)


def run_window(
    strategy: type[bt.Strategy],
    bars: Bars,
    warm_up: int,
    params: dict[str, Any],
    account: Account,
    on_end: Callable[[bt.Strategy], None] | None = None,
) -> tuple[TrialOutcome, list[Trade]]:
    """Run a strategy over a window.

    Parameters
    ----------
    strategy : type
        The strategy.
    bars : Bars
        What it sees: `warm_up` bars, the last of which is the window's first, and the rest of the window.
    warm_up : int
        Number of the bar, from 1, whose close is the first to decide at.
    params : dict
        Of the strategy, its gate included.
    account : Account
        Starting cash and costs.
    on_end : callable, optional
        Called with the strategy as the run left it.

    Returns
    -------
    TrialOutcome, list of Trade
        Facts from the window's first bar on, and its closed trades.
    """
    n_bars = bars.columns.shape[1]
    log = _Log(first=warm_up, leave=n_bars - 1)
    cerebro = _cerebro(bars)
    windowed = _windowed(strategy)  # type: ignore[arg-type]
    cerebro.addstrategy(windowed, bt_llm_log=log, **params)
    cerebro.addsizer(ShareOfAccount, percent=account.percent)
    cerebro.broker.setcash(account.cash)
    cerebro.broker.setcommission(commission=account.commission)
    cerebro.broker.set_slippage_perc(account.slippage)
    try:
        ran = cerebro.run()
    except BtLlmError:
        raise
    except Exception as error:
        raise StrategyError(
            f"{strategy.__name__} failed with {_shown(params)}: {type(error).__name__}: {error}"
        ) from error
    if not ran:
        raise StrategyError(
            f"{strategy.__name__} skipped itself with {_shown(params)}: expected every combination to run; "
            f"leave some out by constraints, such as 'fast < slow'"
        )
    if on_end is not None:
        on_end(ran[0])
    outcome = TrialOutcome(
        equity=np.array(log.equity),
        trades=len(log.trades),
        wins=sum(trade.pnlcomm > 0 for trade in log.trades),
        held=log.held,
        traded=log.traded,
    )
    return outcome, log.trades


def _shown(params: dict[str, Any]) -> str:
    return (
        ", ".join(f"{name}={value!r}" for name, value in params.items() if name != "gate") or "its defaults"
    )


class _NoBars(bt.feed.DataBase):  # type: ignore[misc]
    def _load(self) -> bool:
        return False


def strategy_warm_up(strategy: type[bt.Strategy], params: dict[str, Any]) -> int:
    """Return how many bars a strategy needs until its first ``next``, without data and without a model."""

    class Probe(strategy):  # type: ignore[misc]
        __module__ = strategy.__module__

        def start(self) -> None:
            pass

        def stop(self) -> None:
            pass

    Probe.__name__ = strategy.__name__
    cerebro = bt.Cerebro(stdstats=False, runonce=False, preload=False)
    cerebro.adddata(_NoBars())
    cerebro.addstrategy(Probe, **params)
    try:
        ran = cerebro.run()
    except BtLlmError:
        raise
    except Exception as error:
        raise StrategyError(
            f"{strategy.__name__} failed with {_shown(params)}: {type(error).__name__}: {error}"
        ) from error
    return int(ran[0]._minperiod) if ran else 1


class _Holder(bt.Strategy):  # type: ignore[misc]
    params = (("make", None), ("advisor", None))

    def __init__(self) -> None:
        self.advice = self.p.make(self.data, advisor=self.p.advisor)


@functools.lru_cache(maxsize=8)
def _silent(indicator: type[LLMAdvice]) -> type[LLMAdvice]:
    """Return the indicator without its verdicts: the states cost no model."""

    class Silent(indicator):  # type: ignore[misc, valid-type]
        def advise(self, cells: Any) -> list[Verdict]:
            return [Verdict.invalid("not asked")] * len(cells)

    return Silent


def window_cells(indicator: type[LLMAdvice], advisor: Any, bars: Bars, warm_up: int) -> NDArray[np.int64]:
    """Return the cell of the state space of each bar of a window; -1 where a state is not finite.

    Parameters
    ----------
    indicator : type
        `LLMAdvice`, or a subclass.
    advisor : AdvisorConfig
        Whose state space.
    bars : Bars
        As for `run_window`.
    warm_up : int
        As for `run_window`.
    """
    cerebro = _cerebro(bars)
    silent = _silent(indicator)  # type: ignore[arg-type]
    cerebro.addstrategy(_Holder, make=silent, advisor=advisor)
    advice = cerebro.run()[0].advice
    space = advisor.state_space
    columns = [copy_values(getattr(advice.lines, name))[warm_up - 1 :] for name in space.names]
    return np.asarray(space.cells(columns))
