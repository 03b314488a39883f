"""Lengths of a stretch of a record: numbers of bars, or times of the clock or of the calendar."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from bt_llm.exceptions import ConfigError
from bt_llm.settings import in_short

__all__ = ["Length", "Span", "length_of"]

Span: TypeAlias = int | str | dt.timedelta | pd.offsets.BaseOffset
"""A length: bars as an int, or time as a string, a timedelta or a pandas DateOffset."""

_FIXED = {
    "min": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "D": dt.timedelta(days=1),
    "W": dt.timedelta(weeks=1),
}
_MONTHS = {"MS": 1, "QS": 3, "YS": 12}
_TEXT = re.compile(r"(\d*)(min|h|D|W|MS|QS(?:-JAN)?|YS(?:-JAN)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """A size after parsing: bars, a fixed time, or a time of the calendar."""

    bars: int | None = None
    fixed: pd.Timedelta | None = None
    calendar: pd.DateOffset | None = None
    anchor: pd.offsets.BaseOffset | None = None

    def after(self, time: pd.Timestamp, times: int = 1) -> pd.Timestamp:
        """Return the time that many lengths later; counted at once, so that month ends do not drift."""
        step = self.fixed if self.fixed is not None else self.calendar
        return time + step * times  # type: ignore[operator]

    def before(self, time: pd.Timestamp) -> pd.Timestamp:
        step = self.fixed if self.fixed is not None else self.calendar
        return time - step  # type: ignore[operator]


def length_of(value: Span, name: str) -> Length:
    """Parse a size; `train_size` and `test_size` have to be positive, the gaps may be zero."""
    least = 1 if name in ("train_size", "test_size") else 0
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if value < least:
            raise ConfigError(f"{name}={value!r}: expected at least {least} bars")
        return Length(bars=int(value))
    epoch = pd.Timestamp("2000-01-01")
    try:
        length = _time_length(value)
        end = epoch if length is None else length.after(epoch)
    except (OverflowError, ValueError):
        length, end = None, epoch
    if length is None:
        raise ConfigError(
            f"{name}={in_short(value)}: expected a number of bars, or a time such as '36h', '90D', '2W', "
            f"'3MS' or '1YS', a timedelta or a pandas.DateOffset(months=3)"
        )
    if not epoch + pd.Timedelta(least) <= end <= epoch + pd.DateOffset(years=100):
        raise ConfigError(
            f"{name}={value!r}: expected a {'positive time' if least else 'time from 0'} of at most 100 years"
        )
    return length


def _time_length(value: object) -> Length | None:
    if type(value) is pd.DateOffset:
        # The singular keywords (month=3) set a field of the date: no length.
        return Length(calendar=value) if all(word.endswith("s") for word in value.kwds) else None
    if isinstance(value, pd.offsets.BaseOffset):
        value = value.freqstr
    if isinstance(value, dt.timedelta):
        return Length(fixed=pd.Timedelta(value))
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    count, unit = int(match[1] or 1), match[2].removesuffix("-JAN")
    if unit in _FIXED:
        return Length(fixed=pd.Timedelta(count * _FIXED[unit]))
    return Length(
        calendar=pd.DateOffset(months=count * _MONTHS[unit]), anchor=pd.tseries.frequencies.to_offset(unit)
    )
