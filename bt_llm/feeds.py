"""Backtrader feeds of bars in memory, and what a feed says of itself."""

from __future__ import annotations

import functools
import math
from array import array
from typing import Any

import backtrader as bt
import numpy as np

__all__ = ["ArrayFeed", "FrameFeed", "data_name", "feed_of", "is_live"]


_COLUMNS = ("open", "high", "low", "close", "volume")


class ArrayFeed(bt.feed.DataBase):
    """A feed of bars in an array, loaded in one go.

    Bar by bar, loading takes as long as a whole strategy. Here the columns become the lines at once, unless
    something stands between the two that must see every bar: a filter, a resampler, ``fromdate`` or
    ``todate``, a ``tzinput``. Then, and in runs that do not preload, the bars come one by one.

    Parameters
    ----------
    dataname : ndarray of shape (6, n_bars)
        Backtrader's time numbers, then open, high, low, close and volume.
    **params
        As of any feed of Backtrader's.

    Notes
    -----
    The line ``openinterest`` is NaN throughout.
    """

    def start(self) -> None:
        """Take the columns out of what was given; Backtrader calls it before every run."""
        super().start()
        self._columns = self._take_columns()
        self._loaded = 0

    def _take_columns(self) -> list[array[float]]:
        return [array("d", values.tobytes()) for values in self.p.dataname]

    def preload(self) -> None:
        """Fill the lines with all the bars."""
        all_times = (self.fromdate, self.todate) == (-math.inf, math.inf)
        if self._filters or self._ffilters or self._barstack or self._tzinput or not all_times:
            super().preload()
            return
        bars = len(self._columns[0])
        columns = [*self._columns, array("d", [math.nan]) * bars]
        for name, values in zip(("datetime", *_COLUMNS, "openinterest"), columns, strict=True):
            line = getattr(self.lines, name)
            line.array = values + line.array  # the room that Cerebro's `lookahead` made stays behind them
        self._loaded = bars
        self.home()

    def _load(self) -> bool:
        if self._loaded >= len(self._columns[0]):
            return False
        for name, values in zip(("datetime", *_COLUMNS), self._columns, strict=True):
            getattr(self.lines, name)[0] = values[self._loaded]
        self._loaded += 1
        return True


class FrameFeed(ArrayFeed):
    """An `ArrayFeed` of bars in a frame: line for line what `bt.feeds.PandasData` gives.

    Parameters
    ----------
    dataname : pandas.DataFrame
        Bars by naive time, with the columns open, high, low, close and volume, as `load_bars` gives them.
    **params
        As of any feed of Backtrader's.
    """

    def _take_columns(self) -> list[array[float]]:
        frame = self.p.dataname
        columns = [array("d", frame[name].to_numpy(np.float64).tobytes()) for name in _COLUMNS]
        return [_time_numbers(frame.index.as_unit("us").asi8.tobytes()), *columns]


@functools.lru_cache(maxsize=4)
def _time_numbers(microseconds: bytes) -> array[float]:
    """Return Backtrader's numbers for naive times; kept, as one study runs over the same bars many times."""
    times = np.frombuffer(microseconds, dtype="datetime64[us]").tolist()
    return array("d", [bt.date2num(time) for time in times])


def feed_of(source: Any) -> Any:
    """Return the data feed whose bars clock an indicator or line; None if there is none."""
    while source is not None and not isinstance(source, bt.AbstractDataBase):
        if isinstance(source, bt.lineseries.LineSeriesStub):  # owned by whoever made the wrapped line
            source = source.lines[0]
        clock = getattr(source, "_clock", None)
        source = clock if clock is not None else getattr(source, "_owner", None)
    return source


def is_live(source: Any) -> bool:
    """Return whether the run around an indicator or line is live: a feed of it says so, or Cerebro does."""
    feed = feed_of(source)
    cerebro = getattr(feed, "_env", None)
    if cerebro is None:
        return feed is not None and bool(feed.islive())
    return bool(cerebro.p.live) or any(data.islive() for data in cerebro.datas)


def data_name(data: Any) -> str:
    """Return what to call a data in a message."""
    return str(getattr(data, "_name", "") or type(data).__name__)
