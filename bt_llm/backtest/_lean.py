"""Backtrader's loop without the work that changes nothing: the same run to the last bit, faster.

At every bar Backtrader asks each feed for its next time, has the broker value every position, converts
times to check for interest, tells every analyzer the cash, and moves every line by itself. `LeanCerebro`
runs a strategy on one preloaded data in a loop that does what can be seen of this, in the same order; any
other run goes through Backtrader's own loop.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import backtrader as bt

from bt_llm.analyzers import LLMAnalyzer
from bt_llm.backtest._account_analyzer import AccountAnalyzer
from bt_llm.backtest._brokers import RestingBroker
from bt_llm.backtest._line_store import fill_lines

__all__ = ["Drive", "LeanCerebro"]


Drive: TypeAlias = Callable[[bt.Strategy], Iterator[int]]
"""Given the strategy, yields the place of each bar that it is to be called at, from 0, in any order."""


class LeanCerebro(bt.Cerebro):
    """Backtrader's Cerebro with a lean loop where that gives the same run.

    Attributes
    ----------
    drive : Drive or None
        Says where the strategy is called instead of every bar in turn. Where the loop is not lean the run
        ends before its first bar, and `drive` is not called.
    """

    drive: Drive | None = None

    def _runonce(self, runstrats: list[bt.Strategy]) -> None:
        if self._is_lean(runstrats):
            _Loop(self, runstrats[0]).run(self.drive)
        elif self.drive is None:
            super()._runonce(runstrats)

    def _runnext(self, runstrats: list[bt.Strategy]) -> None:
        if self.drive is None:
            super()._runnext(runstrats)

    def _is_lean(self, runstrats: list[bt.Strategy]) -> bool:
        """Return whether all that this run does bar by bar is what the lean loop does."""
        if len(runstrats) != 1 or len(self.datas) != 1:
            return False
        if self.p.cheat_on_open or self.runwriters or self._timers or self._timerscheat:
            return False
        strategy, data, told = runstrats[0], self.datas[0], bt.brokers.BackBroker.get_notification
        kind, feed, base = type(strategy), type(data), bt.feed.AbstractDataBase
        return (
            getattr(type(self._broker), "get_notification", None) is told
            and not strategy._lineiterators[strategy.ObsType]
            and all(getattr(kind, name) is getattr(bt.Strategy, name) for name in _STRATEGYS_OWN)
            and all(getattr(feed, name) is getattr(base, name) for name in _FEEDS_OWN)
            and all(line.mode == line.UnBounded and line._idx == -1 for line in data.lines.lines)
            and not any(line.bindings for line in strategy.lines.lines)
        )


_STRATEGYS_OWN = (
    "_once",
    "preonce",
    "oncestart",
    "once",
    "_oncepost",
    "_getminperstatus",
    "_next_analyzers",
    "_next_observers",
    "clear",
    "forward",
    "advance",
    "__len__",
)
_FEEDS_OWN = ("advance", "advance_peek", "_tick_nullify", "_tick_fill", "__len__")
_SETTLED = 4
"""Bars after which indicators move as they go on to, each at every bar or at none."""


class _Loop:
    """One run of a strategy on one data."""

    def __init__(self, cerebro: bt.Cerebro, strategy: bt.Strategy) -> None:
        self.cerebro, self.strategy, self.data = cerebro, strategy, cerebro.datas[0]

    def run(self, drive: Drive | None = None) -> None:
        """Do what ``Cerebro._runonce`` does."""
        cerebro, strategy, data = self.cerebro, self.strategy, self.data
        fill_lines(strategy, data)
        strategy.reset()  # it is called bar by bar
        broker, bars, times = cerebro._broker, data.buflen(), data.lines.datetime.array
        own_lines = strategy.lines.lines
        clock, others = own_lines[0], own_lines[1:]
        turn, moving = _turning(data), _Moving(strategy._lineiterators[strategy.IndType])
        period = strategy._minperiods[0]
        hears, clear = self._hears_cash(), self._clear()
        account = self._account(broker) if drive is None else None
        analyzers = list(self._analyzers(account))
        done, turns, risky, due = 0, -1, False, 0
        for bar in range(bars) if drive is None else drive(strategy):
            now = times[bar]
            if clock.lencount != bar:
                self._jump(bar, settled=moving.settled)
            turn(bar)
            broker.next()
            if broker.notifs:
                self._deliver()
            if cerebro._event_stop:
                break
            moving.to(bar)
            done = bar + 1
            clock._idx = bar
            clock.lencount = done
            clock.array.append(now)
            for line in others:
                line.forward()
            if hears or strategy._orderspending or strategy._tradespending:
                strategy._notify()
            strategy._minperstatus = status = period - done
            if status < 0:
                strategy.next()
                for one in analyzers:
                    one[0]()
            elif status == 0:
                strategy.nextstart()
                for one in analyzers:
                    one[1]()
            else:
                strategy.prenext()
                for one in analyzers:
                    one[2]()
            if account is not None:
                if broker.turns != turns:
                    turns, risky = broker.turns, account.turn(bar)
                if risky:
                    account.check(now)
                if bar == due:
                    due = account.pass_by(bar)
            if strategy._orderspending or strategy._tradespending:
                clear()
            if cerebro._event_stop:
                break
        if account is not None:
            account.finish(done)

    def _jump(self, bar: int, *, settled: bool) -> None:
        """Make the strategy's own lines as long as they would be at a bar; others are moved by it."""
        if not settled:
            raise ValueError(f"a jump to bar {bar} while indicators are not moved by place")
        times = self.data.lines.datetime.array
        for number, line in enumerate(self.strategy.lines.lines):
            missing = bar - len(line.array)
            line.array = line.array[:bar]
            line.array.extend(times[bar - missing : bar] if number == 0 else [math.nan] * missing)
            line._idx, line.lencount = bar - 1, bar

    def _deliver(self) -> None:
        """Tell the strategy what the broker has to say."""
        broker, cerebro = self.cerebro._broker, self.cerebro
        while (order := broker.get_notification()) is not None:
            owner = self.strategy if order.owner is None else order.owner
            owner._addnotification(order, quicknotify=cerebro.p.quicknotify)

    def _hears_cash(self) -> bool:
        """Return whether anyone listens to what is told of the cash at every bar."""
        kind = type(self.strategy)
        if kind._notify is not bt.Strategy._notify:
            return True
        if any(getattr(kind, name) is not getattr(bt.Strategy, name) for name in _CASH):
            return True
        every = [*self.strategy.analyzers, *self.strategy._slave_analyzers]
        return any(
            one._children or any(getattr(type(one), n) is not getattr(bt.Analyzer, n) for n in _ALL_CASH)
            for one in every
        )

    def _clear(self) -> Callable[[], None]:
        """Return what is called when all has been told: Backtrader keeps every order as it was each time."""
        strategy = self.strategy
        told = (strategy, strategy._sizer, *strategy.analyzers)
        if any(_names_orders(kind) for one in told for kind in type(one).__mro__):
            clear: Callable[[], None] = strategy.clear
            return clear

        def forget() -> None:
            strategy._orderspending, strategy._tradespending = [], []

        return forget

    def _account(self, broker: Any) -> AccountAnalyzer | None:
        """Return the analyzer that keeps the account, if it need not be called bar by bar."""
        if type(broker) is not RestingBroker:
            return None
        kept = [one for one in self.strategy.analyzers if isinstance(one, AccountAnalyzer)]
        return kept[0] if len(kept) == 1 and kept[0].follows(self.data) else None

    def _analyzers(self, account: AccountAnalyzer | None) -> Iterator[tuple[Callable[[], None], ...]]:
        """Yield what is called of each analyzer but one: ``next``, ``nextstart``, ``prenext``."""
        own = ("next", "nextstart", "prenext")
        for one in self.strategy.analyzers:
            kind = type(one)
            if one is account or (isinstance(one, LLMAnalyzer) and one.rests):
                continue
            plain = all(getattr(kind, f"_{name}") is getattr(bt.Analyzer, f"_{name}") for name in own)
            names = own if plain and not one._children else [f"_{name}" for name in own]
            yield tuple(getattr(one, name) for name in names)


def _names_orders(kind: type) -> bool:
    """Return whether the file of a class may read ``_orders``, a private list that Backtrader never does."""
    if kind.__module__.startswith(("backtrader.", "bt_llm.", "builtins")):
        return False
    try:
        return bool(re.search(r"\b_orders\b", inspect.getsource(sys.modules[kind.__module__])))
    except (KeyError, OSError, TypeError):
        return True


_CASH = ("notify_cashvalue", "notify_fund")
_ALL_CASH = (*_CASH, "_notify_cashvalue", "_notify_fund")


def _turning(data: Any) -> Callable[[int], None]:
    """Return what moves a feed to a bar: its lines, and what it says of its newest tick."""
    lines, bars, ticks = data.lines.lines, data.buflen(), vars(data)
    tick_lines = [
        (f"tick_{name}", getattr(data.lines, name).array)
        for name in data.getlinealiases()
        if name != "datetime"
    ]
    tick_lines.append(("tick_last", getattr(data.lines, data._getlinealias(0)).array))

    def turn(bar: int) -> None:
        length = bar + 1
        for line in lines:
            line._idx = bar
            line.lencount = length
        if length < bars:
            for name, values in tick_lines:
                ticks[name] = values[bar]
        else:  # as in Backtrader, which has looked for the next one by then
            for name, _ in tick_lines:
                ticks[name] = None

    return turn


class _Moving:
    """A strategy's indicators as they move on: each in its own way at first, then by place."""

    def __init__(self, indicators: list[Any]) -> None:
        self._indicators = indicators
        self._lines: list[tuple[Any, int]] | None = None
        self._before: list[Any] = []

    @property
    def settled(self) -> bool:
        """Whether they are moved by place, and so to any bar."""
        return self._lines is not None

    def to(self, bar: int) -> None:
        """Move them to a bar."""
        if self._lines is not None:
            length = bar + 1
            for line, lag in self._lines:
                line._idx = bar - lag
                line.lencount = length - lag
            return
        moved = [one for one in self._indicators if _advance(one)]
        if bar >= _SETTLED and moved == self._before:
            self._lines = _lines_of(self._indicators, moved, bar)
        self._before = moved


def _advance(indicator: Any) -> bool:
    """Move an indicator on if its clock has, as ``Strategy._oncepost`` does; return whether it moved."""
    before = len(indicator)
    if len(indicator._clock) > before:
        indicator.advance()
    return len(indicator) > before


def _lines_of(indicators: list[Any], moved: list[Any], bar: int) -> list[tuple[Any, int]] | None:
    """Return the lines to move at each bar, and by how many bars each lags behind.

    None if some have to be moved in a way of their own.
    """
    plain = (bt.Indicator.advance, bt.linebuffer.LineBuffer.advance)
    if any(type(one).advance not in plain for one in indicators):
        return None
    found = [line for one in moved for line in (one.lines.lines if isinstance(one, bt.Indicator) else [one])]
    if any(line.mode != line.UnBounded or line._idx + 1 != line.lencount for line in found):
        return None
    return [(line, bar - line._idx) for line in found]
