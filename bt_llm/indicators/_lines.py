"""Lines that know nothing of models: a trailing median, warm-up, and the value at the current bar."""

from __future__ import annotations

import functools
import math
from array import array
from typing import Any, ClassVar

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import DataError
from bt_llm.feeds import ArrayFeed, data_name, feed_of

__all__ = [
    "TrailingMedian",
    "WarmUp",
    "closed_bars",
    "copy_values",
    "joins_late",
    "require_bars",
    "value_now",
    "warm_up_bars",
]


class TrailingMedian(bt.Indicator):
    """Median of the last `period` values, the current one included; NaN where one of them is not finite.

    Parameters
    ----------
    period : int
        Length of the window, in bars. An even one takes the mean of the two middle values.
    """

    lines: Any = ("median",)
    params = (("period", 100),)
    plotinfo: ClassVar[Any] = {"plotname": "Trailing median"}

    def __init__(self) -> None:
        super().__init__()
        self.addminperiod(self.p.period)

    def next(self) -> None:
        """Sort the window: it may be called several times a bar, so nothing is carried over."""
        window = sorted(self.data.get(size=self.p.period))
        upper, odd = divmod(self.p.period, 2)
        middle = window[upper] if odd else (window[upper - 1] + window[upper]) / 2
        self.lines.median[0] = middle if all(map(math.isfinite, window)) else math.nan

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` covers the first bar too."""

    def once(self, start: int, end: int) -> None:
        """Compute all bars in one pass."""
        import pandas as pd  # here, so that using an indicator does not load pandas before a run

        first = self._minperiod - 1
        medians = pd.Series(self.data.array).rolling(self.p.period).median().to_numpy()
        self.lines.median.array[first:end] = array("d", medians[first:end].tobytes())


class WarmUp(bt.Indicator):
    """A line of NaN that makes its strategy wait for `bars` bars of a data, as a longer indicator would."""

    lines: Any = ("warm_up",)
    params = (("bars", 1),)
    plotinfo: ClassVar[Any] = {"plot": False}

    def __init__(self) -> None:
        super().__init__()
        self.addminperiod(self.p.bars)


def copy_values(line: Any) -> NDArray[np.float64]:
    """Return a copy: a view kept on the line's array would forbid it to grow."""
    return np.array(line.array, dtype=np.float64)


def value_now(indicator: Any, line_name: str) -> float:
    """Return the value of an indicator's line at the current bar, NaN before its first one.

    In vectorised runs Backtrader leaves an indicator inside another one parked before the first bar, where
    ``line[0]`` is the last bar of the data: look-ahead. This reads the right one. In ``next_open`` (cheat on
    open) it is the value of the previous close.
    """
    line = getattr(indicator.lines, line_name)
    if len(indicator):
        return float(line[0])
    strategy, feed = _strategy(indicator), feed_of(indicator)
    if feed is None or not len(feed) or not len(strategy):
        return math.nan
    index = closed_bars(strategy, feed) - 1
    return float(line.array[index]) if 0 <= index < len(line.array) else math.nan


def closed_bars(strategy: bt.Strategy, data: Any) -> int:
    """Return how many bars of a data have closed by the strategy's reckoning: those that its indicators know.

    In ``next``, ``prenext`` and ``notify_order`` that is every bar of the data. Before the strategy has moved
    on to a new bar (``next_open``, timers, and while the broker fills orders) the new one does not count.
    """
    if not len(data):
        return 0
    opening = not len(strategy) or data.datetime[0] > strategy.datetime[0]
    return len(data) - opening


def _strategy(indicator: Any) -> bt.Strategy:
    owner = indicator._owner
    while not isinstance(owner, bt.Strategy):
        owner = owner._owner
    return owner


class _NoBars(bt.feed.DataBase):
    """A feed without a bar."""

    def _load(self) -> bool:
        return False


class _Probe(bt.Strategy):
    """Makes an indicator, to see how many bars it needs."""

    params = (("indicator", None), ("settings", None))

    def __init__(self) -> None:
        self.found = self.p.indicator(self.data, **self.p.settings)


def warm_up_bars(indicator: type[bt.Indicator], **settings: Any) -> int:
    """Return how many bars an indicator needs for its first value, without data and without a model.

    Parameters
    ----------
    indicator : type
        The indicator's class.
    **settings
        Its parameters; hashable.

    Examples
    --------
    >>> warm_up_bars(bt.ind.RSI, period=14)
    15
    """
    probed: Any = indicator  # mypy takes no class for hashable
    return _probed_bars(probed, tuple(sorted(settings.items())))


@functools.lru_cache(maxsize=256)  # every gate that is attached wants to know
def _probed_bars(indicator: Any, settings: tuple[tuple[str, Any], ...]) -> int:
    cerebro = bt.Cerebro(stdstats=False, runonce=False, preload=False)
    cerebro.adddata(_NoBars())
    cerebro.addstrategy(_Probe, indicator=indicator, settings=dict(settings))
    return int(cerebro.run()[0].found._minperiod)


def joins_late(strategy: type[bt.Strategy]) -> bool:
    """Return whether a strategy acts before all its datas have warmed up, and so can trade those that have.

    Backtrader calls ``next`` when all are ready; such a strategy has a ``prenext`` of its own, or timers.
    """
    return any(getattr(strategy, name) is not getattr(bt.Strategy, name) for name in _EARLY)


_EARLY = ("prenext", "prenext_open", "notify_timer")


def require_bars(strategy: bt.Strategy, *, joins: bool | None = None) -> None:
    """Check, once a strategy is made, that its preloaded datas outlast its indicators' warm-up.

    A strategy that trades each data when it is ready goes on without the others. Backtrader's vectorised
    mode fails with an IndexError on data shorter than an indicator's warm-up, and mixes bars of different
    times where a line has inputs of several datas: such a run goes bar by bar, as the other modes do.
    In all modes a line whose input begins later than its clock reads a bar that is not there yet.

    Parameters
    ----------
    strategy : bt.Strategy
        At its start.
    joins : bool, optional
        Whether it trades datas before all have warmed up; by default as `joins_late` says.

    Raises
    ------
    DataError
        If no data has bars enough, or one of a strategy that waits for all of them; or if a line has an input
        of a data that begins later than its clock.
    """
    needs = list(zip(strategy.datas, strategy._minperiods, strict=True))
    preloaded = strategy.cerebro._dopreload
    short = [(data, needed) for data, needed in needs if preloaded and data.buflen() < needed]
    joins = joins_late(type(strategy)) if joins is None else joins
    if short and (len(short) == len(needs) or not joins):
        data, needed = short[0]
        hint = ", or trade those that are ready from prenext()" if len(needs) > 1 else ""
        raise DataError(
            f"data {data_name(data)!r} has {data.buflen()} bars, but {type(strategy).__name__} needs "
            f"{needed} to warm up; give more bars or shorter periods{hint}"
        )
    mixed = [_feeds_of(line) for line in strategy.getindicators()] if len(needs) > 1 else []
    for clock, *others in mixed:
        for other in others:
            _check_begin(clock, other)
    differ = any(_times_of(other) != _times_of(clock) for clock, *others in mixed for other in others)
    coupled = len(needs) > 1 and any(isinstance(line, _COUPLERS) for line in strategy.getindicators())
    if short or differ or coupled:
        strategy.cerebro._disable_runonce()


def _feeds_of(line: Any) -> list[Any]:
    """Return the feeds that a line is computed from, its clock first."""
    inputs = [*getattr(line, "datas", ()), *getattr(line, "_datas", ())]
    inputs += [getattr(line, operand, None) for operand in ("a", "b")]
    found = [feed_of(one) for one in (line, *inputs) if isinstance(one, bt.lineroot.LineRoot)]
    return list({id(feed): feed for feed in found if feed is not None}.values())


def _times_of(feed: Any) -> list[float]:
    """Return the times of a feed's bars, in Backtrader's numbers; none of one that is read bar by bar."""
    if isinstance(feed, ArrayFeed):
        return list(feed.p.dataname["datetime"])
    return list(feed.lines.datetime.array)


def _check_begin(clock: Any, other: Any) -> None:
    first, begins = _times_of(clock)[:1], _times_of(other)[:1]
    if first and (not begins or begins[0] > first[0]) and not other.islive():
        when = f"at {bt.num2date(begins[0])}" if begins else "not at all"
        raise DataError(
            f"a line of data {data_name(clock)!r} is computed from data {data_name(other)!r} too, which "
            f"begins {when}, not by {bt.num2date(first[0])}: give bars that begin together"
        )


_COUPLERS = (bt.lineiterator.SingleCoupler, bt.lineiterator.MultiCoupler)  # which have no vectorised form
