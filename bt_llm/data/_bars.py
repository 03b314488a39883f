"""Bars: read from a file or a frame as people have them, checked, and given one form."""

from __future__ import annotations

import copy
import datetime
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.data._checks import COLUMNS, make_bars
from bt_llm.data._columns import Columns
from bt_llm.data._files import TextFile, kind_of, read_all
from bt_llm.data._format import BarFormat, stated_format
from bt_llm.data._frames import FrameTable, frame_of_json, frame_of_parquet
from bt_llm.data._length import bar_length
from bt_llm.data._prices import adjust, warn_of
from bt_llm.data._reading import Reading, listed
from bt_llm.data._text import TextTable, open_text
from bt_llm.data._times import check_format
from bt_llm.exceptions import DataError

__all__ = ["bars_sha256", "frame_of_file", "load_bars", "load_many"]

_KEPT = ("repairs", "warnings", "source")


def load_bars(
    source: str | os.PathLike[str] | pd.DataFrame, format: BarFormat | None = None, **stated: Any
) -> pd.DataFrame:
    """Read bars, check them, and return them in the one form that the rest of the package takes.

    Parameters
    ----------
    source : path or DataFrame
        A file as vendors give it: CSV of any delimiter, with a header or without; JSON; parquet or feather;
        packed with gzip, zip, xz or bzip2; text in UTF-8, UTF-16 or what its bytes prove. Or a frame, which
        is not changed. What the source proves is taken; what two readings leave open is refused, and the
        option named that decides it. ``close`` is needed, and taken from ``Adj Close`` only where that is
        stated.
    format : BarFormat, optional
        What is stated about the source.
    **stated
        Fields of `BarFormat`, which go before those of `format`: ``time_format``, ``day_first``, ``zone``,
        ``columns``, ``decimal``, ``adjusted``, ``symbol``, ``stamp``, ``repair``, ``max_megabytes``.

    Returns
    -------
    DataFrame
        One row a bar, oldest first. The index ``time`` is a `DatetimeIndex` in nanoseconds without a
        time zone, without repeats. Columns ``open``, ``high``, ``low``, ``close``, ``volume`` are float64
        without NaN. Three entries of ``attrs`` hold text and numbers only, so that JSON keeps them:

        - ``source``: ``form``, the vendor's form as it was recognised; ``assumed``, what was concluded on the
          way; ``zone`` of the times, None if it is not known; ``stamp``, whether they are of the bars' open
          or close; ``symbol``; ``adjusted``, whether adjusted prices were taken;
        - ``repairs``: everything that was not taken as it was;
        - ``warnings``: prices that may lie: jumps, gaps, raw prices beside adjusted ones.

        Repairs and warnings are logged too. What is repaired without being asked for:

        - times with a zone: turned to UTC, the zone dropped. Where each is midnight in its own zone they
          are dates, and the dates are kept (midnight in Tokyo is the day before in UTC);
        - periods: each becomes its start;
        - times out of order: sorted; bars that repeat an earlier one in every value: dropped;
        - rows with a time and no price at all, beside rows of four prices: left out;
        - open, high and low all absent: set to close; volume absent or missing: 0;
        - high or low off the open or close by rounding (1e-9 of the price): widened to contain them;
        - columns of one ticker in two levels, as yfinance gives them: flattened; other columns: left out.

        Prices below zero are taken as they are: crude oil settled at -37.63 in April 2020.

    Raises
    ------
    DataError
        If there is no such file (near names are suggested), it is not one of bars, it has no close or no
        times, several instruments, or if a time or number cannot be read or could be read in two ways, a
        price is missing, infinite, or zero among prices above zero, high, low, open and close contradict each
        other, or two different bars have one time. Bars are named by time.
    MissingExtraError
        If a parquet or feather file is given and pyarrow is not installed.

    Notes
    -----
    What a time stands for, the open or the close of its bar, cannot be seen from most files. Backtrader takes
    a bar as complete when it arrives, so either works as long as one feed is used.

    Examples
    --------
    >>> frame = pd.DataFrame({"Close": [10.0, 11.0]}, index=["2024-01-02", "2024-01-03"])
    >>> bars = load_bars(frame)
    >>> bars.loc["2024-01-03"].to_dict()
    {'open': 11.0, 'high': 11.0, 'low': 11.0, 'close': 11.0, 'volume': 0.0}
    >>> bars.attrs["repairs"]
    ['no open, high and low: set to close', 'no volume: set to 0']
    """
    stated_once = stated_format(format, stated)
    reading, table = _open(source, stated_once)
    symbol = _one_of(reading, table.symbols())
    columns = table.read(symbol)
    if columns.symbols is not None:
        columns = _select(reading, columns)
    elif symbol is None:
        _check_unnamed(reading)
    return _finish(reading, columns, source)


def load_many(
    source: str | os.PathLike[str] | pd.DataFrame, format: BarFormat | None = None, **stated: Any
) -> dict[str, pd.DataFrame]:
    """Read the bars of every instrument in one file or frame.

    Parameters
    ----------
    source, format, **stated
        As for `load_bars`. Instruments are named by a column, or in a second level of the columns; a
        ``symbol`` that is stated is the only one that is read.

    Returns
    -------
    dict of str to DataFrame
        Bars by instrument, in the source's order, each as `load_bars` returns it; of a source that names
        none, its bars under ``""``. Instruments whose times have nothing in common are warned of.

    Raises
    ------
    DataError
        As for `load_bars`.

    Examples
    --------
    >>> day = "2024-01-02"
    >>> frame = pd.DataFrame({"ticker": ["A", "B"], "date": [day, day], "close": [1.0, 2.0]})
    >>> {name: bars["close"].to_list() for name, bars in load_many(frame).items()}
    {'A': [1.0], 'B': [2.0]}
    """
    stated_once = stated_format(format, stated)
    reading, table = _open(source, stated_once)
    wanted, found = stated_once.symbol, dict[str, pd.DataFrame]()
    if named := table.symbols():
        if len(named) == 1 or wanted is not None:
            chosen = _one_of(reading, named)
            return {wanted or named[0]: _finish(reading, table.read(chosen), source)}
        for symbol in named:
            one, again = _open(source, stated_once)
            one.symbol = symbol
            found[symbol] = _finish(one, again.read(symbol), source)
    else:
        columns = table.read()
        if columns.symbols is None:
            _check_unnamed(reading)
            return {"": _finish(reading, columns, source)}
        for symbol in dict.fromkeys(columns.symbols) if wanted is None else [wanted]:
            one = copy.deepcopy(reading)
            found[symbol] = _finish(one, _select(one, columns, symbol), source)
    _warn_of_disjoint(reading, found)
    return found


def frame_of_file(source: str | os.PathLike[str], format: BarFormat | None = None) -> pd.DataFrame:
    """Return the columns of a file of bars as they are, for what stands in it beside the bars.

    Parameters
    ----------
    source : path
        Of a CSV, JSON, parquet or feather file, packed or not.
    format : BarFormat, optional
        What is stated of the source: how far it may unpack, and its decimal sign.

    Raises
    ------
    DataError
        If it cannot be read as a table.
    """
    path = Path(os.fsdecode(source))
    reading = Reading(name=repr(str(path)), format=format or BarFormat())
    table = _open_path(reading, path)
    if isinstance(table, FrameTable):
        return table.frame
    text = b"".join(table.file.blocks(0, table.file.size))
    decimal = reading.format.decimal or "."
    try:
        return pd.read_csv(io.BytesIO(text), sep=table.layout.delimiter, decimal=decimal)
    except (ValueError, pd.errors.ParserError) as error:
        raise reading.error(
            f"not a table ({error}): expected a header, and as many fields in each row"
        ) from error


def _open(source: object, stated: BarFormat) -> tuple[Reading, TextTable | FrameTable]:
    """Return a source, recognised."""
    if isinstance(source, pd.DataFrame):
        reading = Reading(name="the DataFrame", format=stated)
        if set(_KEPT) <= set(source.attrs):  # bars that were read before: what was said of them stays
            reading.repairs, reading.warnings = list(source.attrs["repairs"]), list(source.attrs["warnings"])
        check_format(reading)
        return reading, FrameTable(reading=reading, frame=source)
    if not isinstance(source, str | os.PathLike):
        raise DataError(
            f"source={type(source).__name__}: expected the path of a CSV or another file of bars, "
            "or a pandas DataFrame"
        )
    path = Path(os.fsdecode(source))
    reading = Reading(name=repr(str(path)), format=stated)
    check_format(reading)
    return reading, _open_path(reading, path)


def _open_path(reading: Reading, path: Path) -> TextTable | FrameTable:
    kind = kind_of(reading, path)
    if kind in ("parquet", "feather"):
        reading.form = kind
        return FrameTable(reading=reading, frame=frame_of_parquet(reading, path, kind))
    if kind not in ("", "gzip", "zip", "xz", "bzip2"):
        raise reading.error(f"{kind}: expected a CSV, JSON, parquet or feather file")
    file = TextFile(reading, path, kind)
    if file.head.lstrip()[:1] in (b"{", b"["):
        reading.form = "JSON"
        text = read_all(reading, path, kind).decode(file.encoding, "replace")
        return FrameTable(reading=reading, frame=frame_of_json(reading, text))
    return open_text(reading, file)


def _one_of(reading: Reading, symbols: list[str]) -> str | None:
    """Return the instrument to read among those that columns are named after."""
    wanted = reading.format.symbol
    if not symbols:
        return None
    if wanted is None and len(symbols) > 1:
        raise _several(reading, symbols)
    if wanted is not None and wanted not in symbols:
        raise reading.error(f"symbol={wanted!r}: expected one of {listed(symbols)}")
    reading.symbol = wanted or symbols[0]
    return wanted


def _check_unnamed(reading: Reading) -> None:
    """Refuse to look for one instrument where none is named."""
    if reading.format.symbol is not None:
        raise reading.error(
            f"symbol={reading.format.symbol!r}: no instrument is named in it; leave symbol out"
        )


def _several(reading: Reading, symbols: list[str]) -> DataError:
    return reading.error(
        f"bars of {len(symbols)} tickers, {listed(symbols)}: select one of them first; "
        "give symbol, or read all with load_many",
        "symbol",
    )


def _select(reading: Reading, columns: Columns, symbol: str | None = None) -> Columns:
    """Return the rows of one instrument."""
    assert columns.symbols is not None
    there = list(dict.fromkeys(columns.symbols))
    wanted = symbol or reading.format.symbol
    if wanted is None and len(there) > 1:
        raise _several(reading, there)
    if wanted is not None and wanted not in there:
        raise reading.error(f"symbol={wanted!r}: expected one of {listed(there)}")
    reading.symbol = wanted or there[0]
    mine = columns.symbols == reading.symbol
    return Columns(
        times=columns.times[mine],
        values={role: values[mine] for role, values in columns.values.items()},
        labels=columns.labels,
        taken=columns.taken,
        left_out=columns.left_out,
    )


def _finish(reading: Reading, columns: Columns, source: object) -> pd.DataFrame:
    """Return the bars of one instrument, checked."""
    values = adjust(reading, columns)
    times = pd.DatetimeIndex(columns.times.view("datetime64[ns]"), name="time")
    if "close" not in values:
        raise reading.error(
            f"no column 'close' among {listed(columns.labels)}: expected open, high, low, close, volume; "
            "give columns, such as columns={'close': 'Last'}",
            "columns",
        )
    missing = [name for name in ("open", "high", "low") if name not in values]
    if 0 < len(missing) < 3:
        raise reading.error(
            f"no column {listed(missing)}: expected open, high, low and close, or close alone"
        )
    unused = columns.left_out + (
        [] if reading.adjusted else [at for role, at in columns.taken.items() if role not in values]
    )
    if unused:
        reading.repaired(f"columns {listed(columns.labels[at] for at in sorted(unused))}: left out")
    bars = _only_after(reading, make_bars(reading, times, values))
    warn_of(reading, bars)
    _describe_source(reading, bars, source)
    return bars


def _only_after(reading: Reading, bars: pd.DataFrame) -> pd.DataFrame:
    """Leave out the bars up to a day, if one is stated."""
    day = reading.format.after
    if day is None:
        return bars
    kept = bars[pd.DatetimeIndex(bars.index).normalize() > pd.Timestamp(datetime.date.fromisoformat(day))]
    if not len(kept):
        raise reading.error(f"no bar after {day}: they go from {bars.index[0]} to {bars.index[-1]}", "after")
    if len(kept) < len(bars):
        reading.repairs.append(f"only bars after {day}: {len(bars) - len(kept):,} left out")
    return kept


def _describe_source(reading: Reading, bars: pd.DataFrame, source: object) -> None:
    """Keep what was recognised, repaired and warned of; a frame of bars keeps what it is known to be."""
    stated = reading.format
    known = source.attrs if isinstance(source, pd.DataFrame) and set(_KEPT) <= set(source.attrs) else None
    bars.attrs["repairs"], bars.attrs["warnings"] = reading.repairs, reading.warnings
    bars.attrs["source"] = {
        "form": reading.form,
        "assumed": reading.assumed,
        "zone": reading.zone,
        "stamp": stated.stamp or reading.stamp or _stamp_of(bars),
        "symbol": reading.symbol,
        "adjusted": reading.adjusted,
    }
    if known is not None:
        newly = {"zone": stated.zone, "stamp": stated.stamp}
        bars.attrs["source"] = {
            **copy.deepcopy(known["source"]),
            **{k: v for k, v in newly.items() if v is not None},
        }


def _stamp_of(bars: pd.DataFrame) -> str | None:
    """Return which end of their bars times are that prove it: the last days of months are the closes."""
    index = pd.DatetimeIndex(bars.index)
    ends = len(index) > 1 and bool(index.is_month_end.all())
    length = bar_length(index) if ends else None
    return "close" if length is not None and length.unit in ("month", "year") else None


def _warn_of_disjoint(reading: Reading, found: dict[str, pd.DataFrame]) -> None:
    """Warn of instruments whose times have nothing in common with any other's."""
    if len(found) < 2:
        return
    for symbol, bars in found.items():
        others = [other.index for name, other in found.items() if name != symbol]
        if not any(bars.index[0] <= other[-1] and other[0] <= bars.index[-1] for other in others):
            text = f"the times of {symbol!r} have nothing in common with those of the others"
            reading.warn(text)
            bars.attrs["warnings"].append(text)


def bars_sha256(bars: pd.DataFrame) -> str:
    """Return the SHA-256, in hex, of the content of bars: their times and numbers.

    It does not depend on where the bars came from, on the machine or on the version of pandas, so it tells
    whether two backtests ran on the same data. Hashed are the line ``bt_llm bars 1``, the times as
    nanoseconds since 1970 (int64), then each of `COLUMNS` (float64), all little-endian.

    Parameters
    ----------
    bars : DataFrame
        As `load_bars` returns it.

    Raises
    ------
    DataError
        If it is not such a frame.

    Examples
    --------
    >>> bars = load_bars(pd.DataFrame({"Close": [10.0]}, index=["2024-01-02"]))
    >>> bars_sha256(bars)[:16]
    'bad5f9c3d2f7da45'
    """
    index = bars.index
    timed = isinstance(index, pd.DatetimeIndex) and index.tz is None
    if not timed or tuple(bars.columns) != COLUMNS or set(bars.dtypes) != {np.dtype(np.float64)}:
        raise DataError(f"columns {listed(bars.columns)}: expected bars as load_bars returns them")
    if bars.isna().to_numpy().any():
        raise DataError("bars with NaN: expected them complete, as load_bars returns them")
    digest = hashlib.sha256(b"bt_llm bars 1\n")
    digest.update(index.to_numpy().astype("datetime64[ns]").astype("<i8").tobytes())
    for name in COLUMNS:
        values = bars[name].to_numpy(dtype=np.float64) + 0.0  # -0.0 equals 0.0, and becomes it
        digest.update(values.astype("<f8").tobytes())
    return digest.hexdigest()
