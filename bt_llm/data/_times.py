"""The times of bars, whatever their type, as one naive index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pandas as pd

from bt_llm.data._reading import Reading, listed
from bt_llm.exceptions import DataError

__all__ = ["TIME_NAMES", "read_times"]

TIME_NAMES = ("time", "date", "datetime", "timestamp")
_UNNAMED = ("", "unnamed: 0")  # the second is what pandas.read_csv calls the first

_TIME = re.compile(
    r"(?P<year>\d{4})(?P<separator>[-/.]?)(?P<month>\d\d)(?P=separator)(?P<day>\d\d)"
    r"(?:[T ](?P<clock>\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)"
    r" ?(?:(?P<utc>Z)|(?P<sign>[+-])(?P<hours>[01]\d):?(?P<minutes>[0-5]\d))?)?",
    re.ASCII,
)


def read_times(
    reading: Reading, frame: pd.DataFrame, columns: Mapping[str, int]
) -> tuple[pd.DatetimeIndex, str]:
    """Return the time of every row, and the name in `columns` that they came from; empty for the index."""
    values, name = _source(reading, frame, columns)
    return _parse(reading, values), name


def _source(
    reading: Reading, frame: pd.DataFrame, columns: Mapping[str, int]
) -> tuple[pd.Index | pd.Series, str]:
    """Return where the times stand, unread."""
    index, first = frame.index, next(iter(columns))
    named = [name for name in TIME_NAMES if name in columns]
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return index, ""
    if len(named) > 1:
        raise reading.error(f"columns {listed(named)} may each be the time: join them into one, 'time'")
    if named:
        return frame.iloc[:, columns[named[0]]], named[0]
    if first in _UNNAMED:
        return frame.iloc[:, 0], first
    if isinstance(index, pd.MultiIndex) or pd.api.types.is_numeric_dtype(index.dtype):
        raise reading.error(f"no times: expected a column 'time' among {listed(frame.columns)}")
    return index, ""


def _parse(reading: Reading, values: pd.Index | pd.Series) -> pd.DatetimeIndex:
    """Return times of any type as an index without a zone."""
    missing = np.asarray(values.isna(), dtype=bool)
    if missing.any():
        first = reading.place(int(missing.argmax()))
        raise reading.error(
            f"{missing.sum()} bars have no time (first: {first}): give each its time, or drop it"
        )
    if pd.api.types.is_numeric_dtype(values.dtype):
        raise reading.error(
            f"times are numbers, such as {next(iter(values))}: "
            "expected text or datetimes; convert them with pandas.to_datetime(..., unit=...)"
        )
    if isinstance(values.dtype, pd.PeriodDtype):
        reading.repaired("times are periods: each set to its start")
        return _nanoseconds(reading, pd.PeriodIndex(values).to_timestamp(how="start"))
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        zoned = pd.DatetimeIndex(values)
        return _drop_zone(reading, zoned.tz_localize(None), zoned.tz_convert("UTC").tz_localize(None))
    if pd.api.types.is_datetime64_dtype(values.dtype):
        return _nanoseconds(reading, pd.DatetimeIndex(values))
    return _parse_text(reading, [str(value).strip() for value in values])


def _parse_text(reading: Reading, texts: list[str]) -> pd.DatetimeIndex:
    """Return times written as text."""
    if reading.time_format is not None:
        texts = [_to_iso(reading, row, text) for row, text in enumerate(texts)]
    local: list[str] = []
    offsets: list[int | None] = []
    for row, text in enumerate(texts):
        found = _TIME.fullmatch(text)
        if found is None:
            raise _unreadable(reading, row, text)
        local.append(f"{found['year']}-{found['month']}-{found['day']}T{found['clock'] or '00:00'}")
        offsets.append(_offset_minutes(found))
    times = pd.DatetimeIndex(pd.to_datetime(local, format="ISO8601", errors="coerce"))
    if times.hasnans:
        row = int(times.isna().argmax())
        raise _unreadable(reading, row, texts[row])
    known = [offset for offset in offsets if offset is not None]
    if not known:
        return _nanoseconds(reading, times)
    if len(known) < len(offsets):
        row = offsets.index(None)
        raise reading.error(
            f"{reading.place(row)}: time {texts[row]!r} has no zone but others do: expected one way"
        )
    return _drop_zone(reading, times, times - pd.to_timedelta(known, unit="min"))


def _to_iso(reading: Reading, row: int, text: str) -> str:
    """Return a time written in the caller's format as ISO 8601."""
    try:
        return str(datetime.strptime(text, str(reading.time_format)))
    except ValueError as error:
        raise reading.error(
            f"{reading.place(row)}: time {text[:40]!r} does not fit time_format={reading.time_format!r}: "
            "expected a strptime format that fits every time"
        ) from error


def _offset_minutes(found: re.Match[str]) -> int | None:
    """Return a matched time's offset from UTC; None when it has none."""
    if found["utc"]:
        return 0
    if not found["sign"]:
        return None
    minutes = 60 * int(found["hours"]) + int(found["minutes"])
    return -minutes if found["sign"] == "-" else minutes


def _unreadable(reading: Reading, row: int, text: str) -> DataError:
    """Return the error of a time that cannot be read."""
    return reading.error(
        f"{reading.place(row)}: time {text[:40]!r}: expected year first, as 2024-01-31 or "
        "2024-01-31 09:30:00; for another order give time_format, such as '%m/%d/%Y' or '%d/%m/%Y'"
    )


def _drop_zone(reading: Reading, local: pd.DatetimeIndex, utc: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return zoned times without their zone: UTC, or the dates where all are at local midnight."""
    dates = bool((local == local.normalize()).all())
    reading.repaired(
        "times are midnight in a zone: taken as dates, zone dropped"
        if dates
        else "times have a zone: turned to UTC, zone dropped"
    )
    return _nanoseconds(reading, local if dates else utc)


def _nanoseconds(reading: Reading, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return times in the one resolution that every pandas has."""
    try:
        return pd.DatetimeIndex(times.as_unit("ns").to_numpy(), name="time")
    except pd.errors.OutOfBoundsDatetime as error:
        raise reading.error(f"a time is out of range ({error}): expected years 1678 to 2261") from error
