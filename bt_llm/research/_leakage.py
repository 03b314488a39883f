"""Does the future leak into a strategy? Change it, and see whether anything before it changes."""

from __future__ import annotations

import datetime
import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Market
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.feeds import feed_of
from bt_llm.gates import EntryGate
from bt_llm.indicators import copy_values
from bt_llm.models import Progress
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.progress import shows_progress
from bt_llm.research._runs import Source, inspect_run
from bt_llm.settings import whole
from bt_llm.shown import Shown

__all__ = ["Leak", "LeakReport", "Moment", "other_futures", "perturbation_check"]

Moment: TypeAlias = int | str | datetime.datetime
"""A bar: its number, the first being 1, or its time."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """The first thing up to bar `at` that changed when only later bars did.

    Attributes
    ----------
    what : str
        A line, as ``SMA.sma``, or ``order``.
    bar : int
        Number of the bar where it differs; the first bar is 1.
    time : pandas.Timestamp
        Its time.
    before, after : str
        What it was with the bars as they are, and with others after bar `at`.
    at : int
        Number of the last bar that was left as it is.
    """

    what: str
    bar: int
    time: pd.Timestamp
    before: str
    after: str
    at: int


@dataclass(frozen=True, kw_only=True, repr=False)
class LeakReport(Shown):
    """What `perturbation_check` found.

    Attributes
    ----------
    leaks : tuple of Leak
        The first difference of each run that had one.
    at : tuple of int
        Numbers of the bars after which the bars were changed.
    runs : int
        Runs with another future.
    lines, orders : int
        Lines of indicators and orders that were compared, in the run with the bars as they are.
    """

    leaks: tuple[Leak, ...]
    at: tuple[int, ...]
    runs: int
    lines: int
    orders: int

    @property
    def clean(self) -> bool:
        """Whether nothing changed."""
        return not self.leaks

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        looked = (
            f"{counted(self.lines, 'line')} and {counted(self.orders, 'order')} compared in "
            f"{counted(self.runs, 'run')} with another future"
        )
        if self.clean:
            return f"No look-ahead found: {looked}."
        leak = min(self.leaks, key=lambda leak: (leak.bar, leak.at))
        return (
            f"Look-ahead: {leak.what} at bar {leak.bar} ({leak.time}) was {leak.before} and became "
            f"{leak.after} when only bars after bar {leak.at} were changed; {looked}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found: dict[str, Any] = plain(vars(self))
        return {**found, "clean": self.clean, "sentence": self.sentence}


@shows_progress("other futures")
def perturbation_check(
    strategy: Source,
    data: DataSource,
    at: Moment | Sequence[Moment] | None = None,
    *,
    gate: EntryGate | None = None,
    points: int = 6,
    seed: int = 0,
    on_progress: Progress | None = None,
    format: BarFormat | None = None,
    **settings: Any,
) -> LeakReport:
    """Look for look-ahead in a strategy: change the bars after some bar, and compare everything up to it.

    For each bar of `at` the strategy is run twice with another future: once with every later move mirrored
    (what rose falls as much), once with later prices redrawn at random. Every line of every indicator of
    the strategy, those inside others too, must be the same to the last bit up to that bar, and every order
    made up to it the same in time, side, size, kind and price.

    Parameters
    ----------
    strategy : type or str
        As in `run_backtest`.
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars; of several datas, all are changed after the same time, and bars are counted over all times.
    at : int, time, or sequence of them, optional
        The last bar that is left as it is: its number (the first bar is 1) or a time, by default some of
        those at whose close the strategy made an order: a strategy that looks one bar ahead before it acts
        is caught at no other.
    gate : gate, optional
        Given to the strategy; None runs it ungated.
    points : int
        How many bars are chosen when `at` is not given.
    seed : int
        Of the random prices.
    on_progress : callable, optional
        Called with (runs done, runs in all).
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If a bar of `at` does not exist, is the last one, or the engine is told to keep no history.
    DataError
        If the bars cannot be used.

    Notes
    -----
    What is found is there. What is not found may still be there: a look ahead that happened to change
    nothing at these bars, or one into a file that was made with knowledge of the future.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> bars = load_bars(shipped("sp500_daily.csv"))[-300:]
    >>> report = perturbation_check(f"{shipped('sma_cross.py')}:GatedSmaCross", bars, points=2)
    >>> report.clean, report.runs
    (True, 4)
    """
    if settings.get("exactbars"):
        raise ConfigError(
            f"exactbars={settings['exactbars']!r}: expected False; lines are compared as a whole"
        )
    points, seed = whole("points", points, 1), whole("seed", seed, 0)
    market = Market.of(data, format=format)
    _, ran = inspect_run(strategy, market, gate=gate, **settings)
    original = _Trace.of(ran, market)
    times = market.index
    moments = _acting_bars(original, len(times), points) if at is None else _bar_numbers(times, at)
    leaks: list[Leak] = []
    total, done = 2 * len(moments), 0
    for moment in moments:
        for future in other_futures(market, moment, seed):
            _, other = inspect_run(strategy, future, gate=gate, **settings)
            leak = _first_difference(original, _Trace.of(other, market), moment, market)
            leaks += [leak] if leak is not None else []
            done += 1
            if on_progress is not None:
                on_progress(done, total)
    return LeakReport(
        leaks=tuple(leaks),
        at=tuple(moments),
        runs=total,
        lines=len(original.lines),
        orders=len(original.orders),
    )


@dataclass(frozen=True)
class _Trace:
    """What is compared of a run: lines by name with their times, and orders as (bar, description)."""

    lines: list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]
    orders: list[tuple[int, str]]

    @classmethod
    def of(cls, strategy: bt.Strategy, market: Market) -> _Trace:
        orders = [
            (int(np.searchsorted(market.numbers, order.created.dt, side="right")), _describe(order))
            for order in strategy.broker.orders
        ]
        return cls(list(_lines(strategy, "")), orders)


def _lines(owner: Any, path: str) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    for indicator in owner.getindicators():
        name = f"{path}{type(indicator).__name__}"
        times = copy_values(feed_of(indicator).lines.datetime)
        if isinstance(indicator, bt.linebuffer.LineBuffer):  # such as the result of fast - slow
            yield name, times, copy_values(indicator)
            continue
        for number, alias in enumerate(indicator.lines.getlinealiases()):
            yield f"{name}.{alias}", times, copy_values(indicator.lines[number])
        yield from _lines(indicator, f"{name} > ")


def _describe(order: Any) -> str:
    side = "buy" if order.isbuy() else "sell"
    created = order.created
    prices = [f"{price:.10g}" for price in (created.price, created.pricelimit) if price]
    return " ".join([side, f"{abs(created.size):.10g}", order.getordername(), *prices])


def _acting_bars(trace: _Trace, n_bars: int, points: int) -> list[int]:
    """Return bars where the strategy made an order, evenly chosen, and the middle one if there are none."""
    acting = sorted({bar for bar, _ in trace.orders if bar < n_bars})
    if not acting:
        return [max(1, n_bars // 2)]
    chosen = np.linspace(0, len(acting) - 1, min(points, len(acting))).round().astype(int)
    return [acting[i] for i in chosen]


def _bar_numbers(times: pd.DatetimeIndex, at: Moment | Sequence[Moment]) -> list[int]:
    moments = at if isinstance(at, Sequence) and not isinstance(at, str | bytes) else [at]
    if not moments:
        raise ConfigError(f"at={at!r}: expected at least one bar, or None; nothing is compared without one")
    numbers = []
    for moment in moments:
        try:
            number = moment if type(moment) is int else _place(times, moment)
        except (TypeError, ValueError):
            raise ConfigError(
                f"at={moment!r}: expected a bar's number or time, such as '2024-01-31'"
            ) from None
        if not 1 <= number < len(times):
            raise ConfigError(f"at={moment!r}: expected a bar from 1 to {len(times) - 1}, with bars after it")
        numbers.append(number)
    return numbers


def _place(times: pd.DatetimeIndex, moment: object) -> int:
    """Return the number of the last bar up to a time."""
    if not isinstance(moment, str | datetime.date):
        raise TypeError
    return int(times.searchsorted(pd.Timestamp(moment), side="right"))


def other_futures(market: Market, at: int, seed: int = 0) -> Iterator[Market]:
    """Yield the market with another future, twice: every move after bar `at` mirrored, and prices redrawn.

    Parameters
    ----------
    market : Market
        Bars of one or several datas.
    at : int
        Number of the last bar that is left as it is, over all times; the first is 1.
    seed : int
        Of the random prices.
    """
    for change in (_mirrored, functools.partial(_redrawn, seed=seed)):
        yield _changed(market, change, at)


_PRICES = ["open", "high", "low", "close"]


def _changed(market: Market, change: Callable[[pd.DataFrame, int], pd.DataFrame], at: int) -> Market:
    """Return the market with other bars of every data after bar `at`, counted over all times."""
    last = market.index[at - 1]

    def of_data(name: str, bars: pd.DataFrame) -> pd.DataFrame:
        kept = _place(pd.DatetimeIndex(bars.index), last)
        return change(bars, kept) if 0 < kept < len(bars) else bars

    return market.map(of_data)


def _mirrored(bars: pd.DataFrame, at: int) -> pd.DataFrame:
    """Return bars whose moves after bar `at` are turned around."""
    future = bars.copy()
    prices, pivot = bars[_PRICES].iloc[at:], float(bars["close"].iloc[at - 1])
    turned = pivot**2 / prices if _all_positive(bars) else 2.0 * pivot - prices
    # The highest price becomes the lowest.
    future.iloc[at:, :4] = turned[["open", "low", "high", "close"]].to_numpy()
    return future


def _redrawn(bars: pd.DataFrame, at: int, seed: int) -> pd.DataFrame:
    """Return bars whose levels after bar `at` wander, by steps of three times the usual, and their volume."""
    rng = np.random.default_rng([seed, at])
    future, prices = bars.copy(), bars[_PRICES].iloc[at:].to_numpy()
    closes = bars["close"].to_numpy()
    positive = _all_positive(bars)
    usual = float(np.std(np.diff(np.log(closes) if positive else closes))) or 0.01
    walk = np.cumsum(3.0 * usual * rng.standard_normal(len(prices)))[:, None]
    future.iloc[at:, :4] = prices * np.exp(walk) if positive else prices + walk
    future.iloc[at:, 4] = 1.0 + bars["volume"].iloc[at:].to_numpy() * rng.random(len(prices))
    return future


def _all_positive(bars: pd.DataFrame) -> bool:
    return bool((bars[_PRICES] > 0.0).to_numpy().all())


def _first_difference(one: _Trace, two: _Trace, at: int, market: Market) -> Leak | None:
    found: list[tuple[int, str, str, str]] = []
    names, others = ([name for name, *_ in trace.lines] for trace in (one, two))
    if names != others:
        gone = difflib.unified_diff(names, others, lineterm="", n=0)
        found.append((1, "list of indicators", "as it is", ", ".join(list(gone)[3:])))
    for (name, times, before), (*_, after) in zip(one.lines, two.lines, strict=False):
        known = int(np.searchsorted(times, market.numbers[at - 1], side="right"))
        a, b = before[:known], after[:known]
        differs = np.flatnonzero((a != b) & ~(np.isnan(a) & np.isnan(b)))
        if len(differs):
            row = int(differs[0])
            bar = int(np.searchsorted(market.numbers, times[row], side="right"))
            found.append((bar, name, f"{a[row]:.10g}", f"{b[row]:.10g}"))
    made = [[order for order in trace.orders if order[0] <= at] for trace in (one, two)]
    for number in range(max(map(len, made))):
        first, second = (orders[number] if number < len(orders) else None for orders in made)
        if first != second:
            bar = min(order[0] for order in (first, second) if order is not None)
            was, became = (order[1] if order is not None else "no order" for order in (first, second))
            found.append((bar, "order", was, became))
            break
    if not found:
        return None
    bar, what, was, became = min(found, key=lambda difference: difference[0])
    return Leak(what=what, bar=bar, time=market.index[bar - 1], before=was, after=became, at=at)
