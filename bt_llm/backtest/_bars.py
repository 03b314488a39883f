"""The bars of one data as arrays, and how a frame or a feed of bars becomes them."""

from __future__ import annotations

import copy
import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.data import (
    COLUMNS,
    BarFormat,
    bar_length,
    bars_sha256,
    checked_format,
    frame_of_file,
    load_bars,
    load_many,
)
from bt_llm.exceptions import DataError
from bt_llm.feeds import ArrayFeed, data_name, feed_class, time_numbers, times_of

__all__ = ["Bars", "OneSource", "bars_of"]

Floats: TypeAlias = NDArray[np.float64]

OneSource: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | bt.feed.DataBase"
"""Bars of one data: the path of a file, a frame, or a feed of Backtrader's."""

_FRAMES = {
    "second": bt.TimeFrame.Seconds,
    "minute": bt.TimeFrame.Minutes,
    "day": bt.TimeFrame.Days,
    "week": bt.TimeFrame.Weeks,
    "month": bt.TimeFrame.Months,
    "year": bt.TimeFrame.Years,
}
_END_OF_DAY = pd.Timedelta("23:59:59.9")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bars:
    """The bars of one data, checked, as arrays: what a worker gets, and feeds are made of.

    Parameters
    ----------
    times : ndarray of int64, shape (n_bars,)
        Naive times in nanoseconds since 1970.
    numbers : ndarray of shape (n_bars,)
        Backtrader's numbers for them.
    values : ndarray of shape (n_lines, n_bars)
        Open, high, low, close, volume, and the further lines.
    lines : tuple of str
        Names of the further lines.
    timeframe, compression : int
        How long a bar is, in Backtrader's terms.
    said : mapping
        What `load_bars` says of them: ``source``, ``repairs`` and ``warnings``.
    format : BarFormat
        What was stated of the source.
    file : str, optional
        Where they were read from, as an absolute path.
    """

    times: NDArray[np.int64]
    numbers: Floats
    values: Floats
    lines: tuple[str, ...] = ()
    timeframe: int
    compression: int
    said: Mapping[str, Any] = field(default_factory=dict)
    format: BarFormat = field(default_factory=BarFormat)
    file: str | None = None

    @classmethod
    def of(cls, source: OneSource, lines: Sequence[str] = (), format: BarFormat | None = None) -> Bars:
        """Return bars from any source of them, checked by `load_bars`, with the further columns named.

        Parameters
        ----------
        source : path, DataFrame or feed
            Of the bars of one instrument.
        lines : sequence of str
            Further columns.
        format : BarFormat, optional
            What is stated of the source.

        Raises
        ------
        DataError
            If the bars cannot be used, or a named column is absent or holds something else than numbers.
        """
        format = checked_format(format)
        if isinstance(source, bt.AbstractDataBase):
            source = bars_of(source)
        if lines:
            bars, further = _read_lines(source, tuple(lines), format)
        else:
            bars, further = load_bars(source, format), {}
        return cls._made(bars, further, source, format)

    @classmethod
    def each_of(cls, source: OneSource, format: BarFormat | None = None) -> dict[str, Bars]:
        """Return the bars of every instrument of a source, by its name; one alone has the name ''."""
        format = checked_format(format)
        if isinstance(source, bt.AbstractDataBase):
            return {"": cls.of(source, format=format)}
        found = load_many(source, format)
        if len(found) == 1:
            return {"": cls._made(next(iter(found.values())), {}, source, format)}
        return {
            name: cls._made(bars, {}, source, replace(format, symbol=name)) for name, bars in found.items()
        }

    @classmethod
    def _made(
        cls, bars: pd.DataFrame, further: Mapping[str, Floats], source: OneSource, format: BarFormat
    ) -> Bars:
        times = pd.DatetimeIndex(bars.index).as_unit("ns").asi8
        timeframe, compression = _timeframe(pd.DatetimeIndex(bars.index))
        return cls(
            times=times,
            numbers=time_numbers(times),
            values=np.array([*(bars[name].to_numpy() for name in COLUMNS), *further.values()]),
            lines=tuple(further),
            timeframe=timeframe,
            compression=compression,
            said={name: bars.attrs[name] for name in ("source", "repairs", "warnings")},
            format=format,
            file=os.path.abspath(os.fsdecode(source)) if isinstance(source, str | os.PathLike) else None,
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def frame(self) -> pd.DataFrame:
        """The bars as `load_bars` returns them, and the further lines as columns behind."""
        index = pd.DatetimeIndex(self.times.view("datetime64[ns]"), name="time")
        frame = pd.DataFrame(self.values.T.copy(), index=index, columns=[*COLUMNS, *self.lines])
        frame.attrs.update(copy.deepcopy(dict(self.said)))
        return frame

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, repaired or warned of when they were read, one line each."""
        assumed = self.said.get("source", {}).get("assumed", ())
        return (*assumed, *self.said.get("repairs", ()), *self.said.get("warnings", ()))

    @property
    def zone(self) -> str | None:
        """Name of the zone of the times, where it is known."""
        zone: str | None = self.said.get("source", {}).get("zone")
        return zone

    @property
    def stamp(self) -> str | None:
        """Which end of its bar a time is, where it is known: 'open' or 'close'."""
        stamp: str | None = self.said.get("source", {}).get("stamp")
        return stamp

    @property
    def sha256(self) -> str:
        """Hash of the content: `bars_sha256`, and where there are further lines, of that and of them."""
        digest = bars_sha256(self.frame[list(COLUMNS)])
        if not self.lines:
            return digest
        whole = hashlib.sha256(f"bt_llm lines 1\n{digest}\n".encode())
        for name, values in zip(self.lines, self.values[len(COLUMNS) :], strict=True):
            whole.update(f"{name}\n".encode())
            whole.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
        return whole.hexdigest()

    def cut(self, start: int, stop: int) -> Bars:
        """Return some of the bars, by position; half-open."""
        return replace(
            self,
            times=self.times[start:stop],
            numbers=self.numbers[start:stop],
            values=self.values[:, start:stop],
        )

    def after(self, first: int, day: str, why: str = "") -> Bars:
        """Return the bars from a position on, which are those after a day; format and notes say so."""
        stated = max(day, self.format.after or day)
        note = f"only bars after {day}: {why or f'{first:,} left out'}"
        said = {**self.said, "repairs": [*self.said.get("repairs", ()), *([note] if first or why else [])]}
        return replace(self.cut(first, len(self)), format=replace(self.format, after=stated), said=said)

    def replaced(self, frame: pd.DataFrame) -> Bars:
        """Return bars of the same times and lines with the values of another frame."""
        columns = [*COLUMNS, *self.lines]
        if list(frame.columns) != columns or len(frame) != len(self):
            raise DataError(f"a frame of {len(frame)} bars: expected {len(self)} with the columns {columns}")
        return replace(self, values=np.ascontiguousarray(frame.to_numpy(dtype=np.float64).T))

    def feed(self, **params: Any) -> ArrayFeed:
        """Return a new feed of the bars, which says how long a bar is and what its times are.

        Parameters
        ----------
        **params
            Of the feed, such as ``plot=False`` or another ``timeframe``.
        """
        columns = dict(zip((*COLUMNS, *self.lines), self.values, strict=True))
        how = {
            "timeframe": self.timeframe,
            "compression": self.compression,
            "zone": self.zone,
            "stamp": self.stamp,
            **params,
        }
        return feed_class(self.lines)(dataname={"datetime": self.numbers, **columns}, **how)


def _timeframe(index: pd.DatetimeIndex) -> tuple[int, int]:
    """Return how long bars are in Backtrader's terms; a single bar is taken for a day."""
    if len(index) < 2:
        return bt.TimeFrame.Days, 1
    length = bar_length(index)
    return (bt.TimeFrame.Ticks, 1) if length is None else (_FRAMES[length.unit], length.count)


def _read_lines(
    source: Any, lines: tuple[str, ...], format: BarFormat
) -> tuple[pd.DataFrame, dict[str, Floats]]:
    """Return bars, and further columns of their source in the order of the bars."""
    frame = source if isinstance(source, pd.DataFrame) else frame_of_file(source, format)
    names = {str(label).strip().lower(): label for label in frame.columns}
    for line in lines:
        if line.lower() not in names:
            near = difflib.get_close_matches(line.lower(), names, n=3) or sorted(names)
            raise DataError(f"lines: no column {line!r}: expected one of {near}")
        if not line.isidentifier() or line.lower() in (*COLUMNS, "datetime"):
            raise DataError(f"lines: {line!r}: expected a name such as 'pe' that no line has yet")
    labels = [names[line.lower()] for line in lines]
    plain = frame.drop(columns=labels)
    bars = load_bars(plain, format)
    # Which row became which bar: the volume of these bars is the number of their row.
    volume = [label for label in plain.columns if str(label).strip().lower() == "volume"]
    numbered = load_bars(plain.drop(columns=volume).assign(volume=np.arange(len(plain))), format)
    if len(numbered) != len(bars):
        raise DataError(
            f"lines {list(lines)}: {len(numbered) - len(bars)} rows repeat others; leave them out"
        )
    rows = numbered["volume"].to_numpy().astype(int)
    return bars, {
        line: _numbers(line, frame[label].iloc[rows]) for line, label in zip(lines, labels, strict=True)
    }


def _numbers(line: str, column: pd.Series[Any]) -> Floats:
    try:
        values = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"lines: column {line!r}: {error}; expected numbers") from error
    if np.isinf(values).any():
        raise DataError(f"lines: column {line!r} has infinite values; expected numbers")
    return values


class _Collector(bt.Strategy):
    """Keeps every bar of its data; one that a replay repeats is overwritten."""

    def __init__(self) -> None:
        self.rows: dict[int, list[float]] = {}

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        self.rows[len(self.data)] = [line[0] for line in self.data.lines]


def bars_of(feed: bt.feed.DataBase) -> pd.DataFrame:
    """Return the bars of any Backtrader feed as a frame, as everything in bt_llm takes bars.

    Parameters
    ----------
    feed : data feed
        Such as a `bt.feeds.GenericCSVData`, with its filters, ``fromdate`` and ``todate``. It is run once.

    Returns
    -------
    DataFrame
        As `load_bars` returns it; lines beyond it that hold numbers, such as ``openinterest``, are columns
        behind, for ``Market.of(..., lines=("openinterest",))``.

    Raises
    ------
    DataError
        If the feed is live, or its bars cannot be used.

    Examples
    --------
    >>> frame = pd.DataFrame({"close": [10.0, 11.0]}, index=pd.date_range("2024-01-01", periods=2))
    >>> bars_of(bt.feeds.PandasData(dataname=load_bars(frame)))["close"].tolist()
    [10.0, 11.0]
    """
    if feed.islive():
        raise DataError(f"feed {data_name(feed)!r} is live: expected one whose bars are all there")
    cerebro = bt.Cerebro(stdstats=False, runonce=False)
    cerebro.adddata(feed)
    cerebro.addstrategy(_Collector)
    ran = cerebro.run()[0]
    names = feed.lines.getlinealiases()
    found = pd.DataFrame(list(ran.rows.values()), columns=list(names))
    times = pd.DatetimeIndex([bt.num2date(number) for number in found.pop("datetime")], name="time")
    if feed._timeframe >= bt.TimeFrame.Days and (times - times.normalize() >= _END_OF_DAY).all():
        times = times.normalize()  # Backtrader stamps days with the last moment of theirs
    further = [name for name in found if name not in COLUMNS and found[name].notna().any()]
    zone, stamp = times_of(feed)
    bars = load_bars(found[list(COLUMNS)].set_axis(times), zone=zone, stamp=stamp)
    return bars.join(found[further].set_axis(times)) if further else bars
