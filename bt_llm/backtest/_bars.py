"""The bars of one data as arrays, and how a frame or a feed of bars becomes them."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.data import COLUMNS, bars_sha256, load_bars
from bt_llm.exceptions import DataError
from bt_llm.feeds import ArrayFeed, data_name, feed_class, time_numbers

__all__ = ["Bars", "OneSource", "bars_of"]

Floats: TypeAlias = NDArray[np.float64]

OneSource: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | bt.feed.DataBase"
"""Bars of one data: the path of a file, a frame, or a feed of Backtrader's."""

_DAY = 24 * 60.0
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
    notes : tuple of str
        What `load_bars` repaired or warned of.
    """

    times: NDArray[np.int64]
    numbers: Floats
    values: Floats
    lines: tuple[str, ...] = ()
    timeframe: int
    compression: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: OneSource, lines: Sequence[str] = ()) -> Bars:
        """Return bars from any source of them, checked by `load_bars`, with the further columns named.

        Raises
        ------
        DataError
            If the bars cannot be used, or a named column is absent or holds something else than numbers.
        """
        if isinstance(source, bt.AbstractDataBase):
            source = bars_of(source)
        bars, further = (load_bars(source), {}) if not lines else _read_lines(source, tuple(lines))
        times = pd.DatetimeIndex(bars.index).as_unit("ns").asi8
        timeframe, compression = bar_length(times)
        return cls(
            times=times,
            numbers=time_numbers(times),
            values=np.array([*(bars[name].to_numpy() for name in COLUMNS), *further.values()]),
            lines=tuple(further),
            timeframe=timeframe,
            compression=compression,
            notes=tuple(note for kind in ("repairs", "warnings") for note in bars.attrs.get(kind, ())),
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def frame(self) -> pd.DataFrame:
        """The bars as `load_bars` returns them, and the further lines as columns behind."""
        index = pd.DatetimeIndex(self.times.view("datetime64[ns]"), name="time")
        return pd.DataFrame(self.values.T.copy(), index=index, columns=[*COLUMNS, *self.lines])

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
        return Bars(
            times=self.times[start:stop],
            numbers=self.numbers[start:stop],
            values=self.values[:, start:stop],
            lines=self.lines,
            timeframe=self.timeframe,
            compression=self.compression,
            notes=self.notes,
        )

    def replaced(self, frame: pd.DataFrame) -> Bars:
        """Return bars of the same times and lines with the values of another frame."""
        columns = [*COLUMNS, *self.lines]
        if list(frame.columns) != columns or len(frame) != len(self):
            raise DataError(f"a frame of {len(frame)} bars: expected {len(self)} with the columns {columns}")
        return Bars(
            times=self.times,
            numbers=self.numbers,
            values=np.ascontiguousarray(frame.to_numpy(dtype=np.float64).T),
            lines=self.lines,
            timeframe=self.timeframe,
            compression=self.compression,
            notes=self.notes,
        )

    def feed(self, **params: Any) -> ArrayFeed:
        """Return a new feed of the bars, which tells Backtrader how long a bar is.

        Parameters
        ----------
        **params
            Of the feed, such as ``plot=False`` or another ``timeframe``.
        """
        columns = dict(zip((*COLUMNS, *self.lines), self.values, strict=True))
        how = {"timeframe": self.timeframe, "compression": self.compression, **params}
        return feed_class(self.lines)(dataname={"datetime": self.numbers, **columns}, **how)


def bar_length(times: NDArray[np.int64]) -> tuple[int, int]:
    """Return how long bars are, as Backtrader's timeframe and compression, by their usual distance.

    Parameters
    ----------
    times : ndarray of int64
        In nanoseconds. A single bar is taken for a day.

    Examples
    --------
    >>> weeks = pd.date_range("2024-01-05", periods=9, freq="W-FRI").as_unit("ns").asi8
    >>> bar_length(weeks) == (bt.TimeFrame.Weeks, 1)
    True
    """
    if len(times) < 2:
        return bt.TimeFrame.Days, 1
    minutes = float(np.median(np.diff(times))) / 60e9
    days = minutes / _DAY
    if minutes < 1:
        return bt.TimeFrame.Seconds, max(1, int(60 * minutes))
    if days < 1:
        return bt.TimeFrame.Minutes, int(minutes)
    if days < 5:
        return bt.TimeFrame.Days, int(days)
    if days < 27:
        return bt.TimeFrame.Weeks, max(1, round(days / 7))
    if days < 300:
        return bt.TimeFrame.Months, max(1, round(days / 30.44))
    return bt.TimeFrame.Years, max(1, round(days / 365.25))


def _read_lines(source: Any, lines: tuple[str, ...]) -> tuple[pd.DataFrame, dict[str, Floats]]:
    """Return bars, and further columns of their source in the order of the bars."""
    frame = source if isinstance(source, pd.DataFrame) else pd.read_csv(Path(os.fsdecode(source)))
    names = {str(label).strip().lower(): label for label in frame.columns}
    for line in lines:
        if line.lower() not in names:
            near = difflib.get_close_matches(line.lower(), names, n=3) or sorted(names)
            raise DataError(f"lines: no column {line!r}: expected one of {near}")
        if not line.isidentifier() or line.lower() in (*COLUMNS, "datetime"):
            raise DataError(f"lines: {line!r}: expected a name such as 'pe' that no line has yet")
    labels = [names[line.lower()] for line in lines]
    plain = frame.drop(columns=labels)
    bars = load_bars(plain)
    # Which row became which bar: the volume of these bars is the number of their row.
    volume = [label for label in plain.columns if str(label).strip().lower() == "volume"]
    numbered = load_bars(plain.drop(columns=volume).assign(volume=np.arange(len(plain))))
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
    bars = load_bars(found[list(COLUMNS)].set_axis(times))
    return bars.join(found[further].set_axis(times)) if further else bars
