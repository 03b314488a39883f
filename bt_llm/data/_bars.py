"""Bars: read from a CSV or a DataFrame, checked, and given one form."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.data._reading import Reading, listed, name_bars, read_csv
from bt_llm.data._times import TIME_NAMES, read_times
from bt_llm.exceptions import DataError

__all__ = ["COLUMNS", "bars_sha256", "load_bars"]

COLUMNS = ("open", "high", "low", "close", "volume")
"""Columns of a frame of bars, in order."""

Floats: TypeAlias = NDArray[np.float64]

_PRICES = COLUMNS[:4]
_MISSING = frozenset({"", ".", "-", "na", "n/a", "nan", "nat", "none", "null", "<na>"})
_ROUNDING = 1e-9  # relative: far below a tick, far above what adjusting prices for dividends leaves


def load_bars(
    source: str | os.PathLike[str] | pd.DataFrame, *, time_format: str | None = None
) -> pd.DataFrame:
    """Read bars, check them, and return them in the one form that the rest of the package takes.

    Parameters
    ----------
    source : path or DataFrame
        A CSV in UTF-8 with commas and a header, or a frame, which is not changed. Names of columns are
        matched without regard to case; ``close`` is needed, and never taken from ``Adj Close``. Times are
        those of a `DatetimeIndex` or `PeriodIndex`; else of the column ``time``, ``date``, ``datetime``
        or ``timestamp``; else of a first column without a name; else of an index of text or dates.
    time_format : str, optional
        `strptime` format of times written as text. Without it they are read year first (``2024-01-31``,
        ``2024-01-31 09:30``, ``20240131``; ``/`` and ``.`` serve too; an offset from UTC may follow);
        the order of day and month is never guessed.

    Returns
    -------
    DataFrame
        One row a bar, oldest first. The index ``time`` is a `DatetimeIndex` in nanoseconds without a
        time zone, without repeats. Columns ``open``, ``high``, ``low``, ``close``, ``volume`` are float64
        without NaN. ``attrs["repairs"]`` lists, as text, everything that was not taken as it was; each
        entry is logged as a warning too, and the list is empty when there was nothing. What is repaired:

        - times with a zone: turned to UTC, the zone dropped. Where each is midnight in its own zone they
          are dates, and the dates are kept (midnight in Tokyo is the day before in UTC);
        - periods: each becomes its start;
        - times out of order: sorted; bars that repeat an earlier one in every value: dropped;
        - open, high and low all absent: set to close; volume absent or missing: 0;
        - high or low off the open or close by rounding (1e-9 of the price): widened to contain them;
        - columns of one ticker in two levels, as yfinance gives them: flattened; other columns: left out.

        Prices of zero and below are taken as they are: crude oil settled at -37.63 in April 2020.

    Raises
    ------
    DataError
        If there is no such file (near names are suggested), it is not a CSV, it has no bars, no close or
        no times, or if a time or number cannot be read, a price is missing or infinite, high, low, open
        and close contradict each other, or two different bars have one time. Bars are named by time.

    Notes
    -----
    What a time stands for, the open or the close of its bar, cannot be seen from a file. Backtrader takes
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
    if time_format is not None and (not isinstance(time_format, str) or "%" not in time_format):
        raise DataError(f"time_format={time_format!r}: expected a strptime format such as '%m/%d/%Y'")
    if isinstance(source, pd.DataFrame):
        reading = Reading(name="the DataFrame", time_format=time_format)
        frame = _flatten(reading, source)
    elif isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        reading = Reading(name=repr(str(path)), time_format=time_format)
        frame = read_csv(reading, path)
    else:
        raise DataError(f"source={type(source).__name__}: expected the path of a CSV, or a pandas DataFrame")
    if not len(frame):
        raise reading.error("no bars: expected at least one row below the header")
    columns = _columns(reading, frame)
    times, used = read_times(reading, frame, columns)
    left_out = [position for name, position in columns.items() if name not in (*COLUMNS, used)]
    if left_out:
        reading.repaired(f"columns {listed(frame.columns[left_out])}: left out")
    bars = pd.DataFrame(_values(reading, frame, columns, times), index=times, columns=list(COLUMNS))
    _contain(reading, bars)
    bars = _order(reading, bars)
    bars.attrs["repairs"] = reading.repairs
    return bars


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


def _flatten(reading: Reading, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with one level of columns: yfinance's second level holds the ticker."""
    columns = frame.columns
    if not isinstance(columns, pd.MultiIndex):
        return frame
    priced = [
        level
        for level in range(columns.nlevels)
        if "close" in {str(label).strip().lower() for label in columns.get_level_values(level)}
    ]
    if len(priced) != 1:
        raise reading.error(f"columns in {columns.nlevels} levels, {listed(columns)}: expected one level")
    rest = columns.droplevel([level for level in range(columns.nlevels) if level != priced[0]])
    tickers = list(dict.fromkeys(columns.droplevel(priced[0])))
    if len(tickers) != 1:
        raise reading.error(f"bars of {len(tickers)} tickers, {listed(tickers)}: select one of them first")
    reading.repaired(f"columns in {columns.nlevels} levels: flattened, ticker {str(tickers[0])!r}")
    return frame.set_axis(rest, axis="columns")


def _columns(reading: Reading, frame: pd.DataFrame) -> dict[str, int]:
    """Return the position of every column, by its name in lower case."""
    names = [str(label).strip().lower() for label in frame.columns]
    repeated = [name for name in (*COLUMNS, *TIME_NAMES) if names.count(name) > 1]
    if repeated:
        raise reading.error(f"columns {listed(repeated)} occur more than once: expected one of each")
    absent = [name for name in _PRICES if name not in names]
    if "close" in absent:
        there = listed(frame.columns)
        raise reading.error(f"no column 'close' among {there}: expected open, high, low, close, volume")
    if 0 < len(absent) < 3:
        raise reading.error(f"no column {listed(absent)}: expected open, high, low and close, or close alone")
    return {name: position for position, name in enumerate(names)}


def _values(
    reading: Reading, frame: pd.DataFrame, columns: dict[str, int], times: pd.DatetimeIndex
) -> dict[str, Floats]:
    """Return the numbers of each column, complete and finite."""
    values = {
        name: _numbers(reading, name, frame.iloc[:, columns[name]], times)
        for name in COLUMNS
        if name in columns
    }
    for name in _PRICES:
        if name in values and np.isnan(values[name]).any():
            where = name_bars(times, np.isnan(values[name]))
            raise reading.error(f"no {name} at {where}: expected a number; drop or fill these bars first")
    if "open" not in values:
        reading.repaired("no open, high and low: set to close")
        values |= dict.fromkeys(("open", "high", "low"), values["close"])
    if "volume" not in values:
        reading.repaired("no volume: set to 0")
        values["volume"] = np.zeros(len(times))
    elif np.isnan(values["volume"]).any():
        reading.repaired(f"no volume at {name_bars(times, np.isnan(values['volume']))}: set to 0")
        values["volume"] = np.nan_to_num(values["volume"], nan=0.0)
    if (values["volume"] < 0).any():
        raise reading.error(f"volume below 0 at {name_bars(times, values['volume'] < 0)}: expected 0 or more")
    return values


def _numbers(reading: Reading, name: str, column: pd.Series, times: pd.DatetimeIndex) -> Floats:
    """Return a column as float64, NaN where a value is missing; all else is finite."""
    if pd.api.types.is_float_dtype(column.dtype) or pd.api.types.is_integer_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        cells = [_number(value) for value in column]
        if None in cells:
            row = cells.index(None)
            value = str(column.iloc[row])[:40]
            raise reading.error(f"{name}={value!r} at {times[row]}: expected a number such as 1234.5")
        numbers = np.array(cells, dtype=np.float64)
    if np.isinf(numbers).any():
        raise reading.error(
            f"infinite {name} at {name_bars(times, np.isinf(numbers))}: expected finite numbers"
        )
    return numbers


def _number(value: Any) -> float | None:
    """Return a cell's number, NaN when the cell is empty, None when it is something else."""
    if value is None or value is pd.NA or value is pd.NaT:
        return float("nan")
    if isinstance(value, str) and value.strip().lower() in _MISSING:
        return float("nan")
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and "_" in value):
        return None  # float() would take both
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _contain(reading: Reading, bars: pd.DataFrame) -> None:
    """Refuse bars whose prices contradict each other; widen those that are off by rounding."""
    opened, high, low, close = (bars[name].to_numpy() for name in _PRICES)
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    slack = _ROUNDING * np.maximum(np.abs(top), np.abs(bottom))
    wrong = (high < top - slack) | (low > bottom + slack)
    if wrong.any():
        row = int(wrong.argmax())
        first = ", ".join(f"{name} {bars[name].iloc[row]:.12g}" for name in _PRICES)
        where = name_bars(pd.DatetimeIndex(bars.index), wrong)
        raise reading.error(
            f"prices contradict each other at {where}: {first}; expected low <= open, close <= high"
        )
    rounded = (high < top) | (low > bottom)
    if rounded.any():
        where = name_bars(pd.DatetimeIndex(bars.index), rounded)
        reading.repaired(f"high or low off the open or close by rounding at {where}: widened")
        bars["high"], bars["low"] = np.maximum(high, top), np.minimum(low, bottom)


def _order(reading: Reading, bars: pd.DataFrame) -> pd.DataFrame:
    """Return bars oldest first, each time once."""
    if not bars.index.is_monotonic_increasing:
        reading.repaired("times out of order: sorted, oldest first")
        bars = bars.sort_index(kind="stable")
    again = bars.reset_index().duplicated().to_numpy()
    if again.any():
        reading.repaired(
            f"repeats of an equal bar at {name_bars(pd.DatetimeIndex(bars.index), again)}: dropped"
        )
        bars = bars[~again]
    conflicting = bars.index.duplicated()
    if conflicting.any():
        where = name_bars(pd.DatetimeIndex(bars.index), conflicting)
        raise reading.error(
            f"another bar of the same time at {where}: expected one bar a time; keep the right one"
        )
    return bars
