"""Backtrader feeds of bars in memory, and what a feed says of itself."""

from __future__ import annotations

import functools
import math
from array import array
from typing import Any

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayFeed", "data_name", "feed_class", "feed_of", "is_live", "time_numbers", "times_of"]


class ArrayFeed(bt.feed.DataBase):
    """A feed of bars in arrays, loaded in one go: line for line what `bt.feeds.PandasData` gives.

    Bar by bar, loading takes as long as a whole strategy. Here the arrays become the lines at once, unless
    something stands between the two that must see every bar: a filter, a resampler, ``fromdate`` or
    ``todate``, a ``tzinput``. Then, and in runs that do not preload, the bars come one by one.

    Parameters
    ----------
    dataname : mapping of str to ndarray
        The values of each line by its name: ``datetime``, in Backtrader's time numbers, ``open``, ``high``,
        ``low``, ``close``, ``volume``, and further ones of the class (see `feed_class`). A line without
        values is NaN throughout.
    zone : str, optional
        IANA name of the zone of the times, where it is known; what joins them with news takes it.
    stamp : {'open', 'close'}, optional
        Which end of its bar a time is, where that is known.
    **params
        As of any feed of Backtrader's.
    """

    params = (("zone", None), ("stamp", None))

    def start(self) -> None:
        """Take copies of what was given; Backtrader calls it before every run."""
        super().start()
        self._columns = {
            name: array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())
            for name, values in self.p.dataname.items()
        }
        self._loaded = 0

    def preload(self) -> None:
        """Fill the lines with all the bars."""
        all_times = (self.fromdate, self.todate) == (-math.inf, math.inf)
        if self._filters or self._ffilters or self._barstack or self._tzinput or not all_times:
            super().preload()
            return
        self._loaded = len(self._columns["datetime"])
        missing = array("d", [math.nan]) * self._loaded
        for name in self.lines.getlinealiases():
            line, values = getattr(self.lines, name), self._columns.pop(name, None)
            values = missing[:] if values is None else values
            values.extend(line.array)  # the room that Cerebro's `lookahead` made stays behind the bars
            line.array = values
        self._columns = {"datetime": array("d")}
        self.home()

    def _load(self) -> bool:
        if self._loaded >= len(self._columns["datetime"]):
            return False
        for name, values in self._columns.items():
            getattr(self.lines, name)[0] = values[self._loaded]
        self._loaded += 1
        return True


@functools.lru_cache(maxsize=32)
def feed_class(lines: tuple[str, ...] = ()) -> type[ArrayFeed]:
    """Return an `ArrayFeed` that has further lines, such as ``pe``; ``openinterest`` is one of any feed.

    Examples
    --------
    >>> feed_class(("pe", "openinterest")).lines.getlinealiases()[-3:]
    ('openinterest', 'datetime', 'pe')
    """
    further = tuple(name for name in lines if name not in ArrayFeed.lines.getlinealiases())
    if not further:
        return ArrayFeed

    class Wider(ArrayFeed):
        lines = further

    return Wider


def time_numbers(times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return Backtrader's numbers for naive times in nanoseconds since 1970.

    They are kept for the last few sets of times, as one study runs over the same bars many times.
    """
    return np.frombuffer(_time_numbers(times.astype("datetime64[ns]").astype("datetime64[us]").tobytes()))


@functools.lru_cache(maxsize=16)
def _time_numbers(microseconds: bytes) -> bytes:
    times = np.frombuffer(microseconds, dtype="datetime64[us]").tolist()
    return np.array([bt.date2num(time) for time in times], dtype=np.float64).tobytes()


def feed_of(source: Any) -> Any:
    """Return the data feed whose bars clock an indicator or line; None if there is none."""
    while source is not None and not isinstance(source, bt.AbstractDataBase):
        if isinstance(source, bt.lineseries.LineSeriesStub):  # owned by whoever made the wrapped line
            source = source.lines[0]
        clock = getattr(source, "_clock", None)
        source = clock if clock is not None else getattr(source, "_owner", None)
    return source


def times_of(data: Any) -> tuple[str | None, str | None]:
    """Return what the times of a feed are known to be: their zone, and which end of a bar they are.

    Either is None where it is not known. A feed of a frame that `load_bars` returned knows what that knew;
    resampled bars have the time of their close, whatever the bars had that they are made of.

    Examples
    --------
    >>> times_of(ArrayFeed(dataname={}, zone="Asia/Tokyo"))
    ('Asia/Tokyo', None)
    """
    feed = feed_of(data)
    resampled = getattr(feed, "resampling", 0) and not feed.replaying
    while isinstance(getattr(getattr(feed, "p", None), "dataname", None), bt.AbstractDataBase):
        feed = feed.p.dataname
    params = getattr(feed, "p", None)
    attrs = getattr(getattr(params, "dataname", None), "attrs", {})
    known = attrs.get("source", {}) if isinstance(attrs, dict) else {}
    zone = getattr(params, "zone", None) or known.get("zone")
    stamp = getattr(params, "stamp", None) or known.get("stamp")
    return zone, "close" if resampled else stamp


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
