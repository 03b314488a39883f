"""Columns of one instrument: what was read of them, and which of them is the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bt_llm.data._layout import is_clock
from bt_llm.data._names import PRICES, Roles
from bt_llm.data._reading import Floats, Reading, listed
from bt_llm.data._times import TimeReader, code_points

__all__ = ["Columns", "TimeColumns", "headerless_roles", "time_columns"]


@dataclass(kw_only=True)
class Columns:
    """What was read: times as naive nanoseconds, numbers by role, and of several instruments which.

    Parameters
    ----------
    times : ndarray of int64
    values : dict of str to ndarray
        By role; NaN where a value is missing.
    symbols : ndarray, optional
        The instrument of each row.
    labels : list of str
        Names of all columns, as the source has them; empty where it has none.
    taken : dict of str to int
        Position of the column of each role.
    left_out : list of int
        Positions of the columns that were not read.
    """

    times: NDArray[np.int64]
    values: dict[str, Floats]
    symbols: NDArray[np.object_] | None = None
    labels: list[str] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TimeColumns:
    """Where the times stand: one column, or a date and a clock beside it.

    Parameters
    ----------
    date : int
        Position of the time, or of its date.
    clock : int, optional
        Position of the time of day.
    suffix : str
        What completes the clock: ``:00`` after an hour.
    """

    date: int
    clock: int | None = None
    suffix: str = ""

    def joined(self, row: Sequence[str]) -> str:
        """Return a row's time as one text."""
        if self.clock is None:
            return row[self.date].strip()
        return f"{row[self.date].strip()} {row[self.clock].strip()}{self.suffix}"


def time_columns(
    reading: Reading, roles: Roles, rows: Sequence[Sequence[str]], labels: Sequence[object]
) -> TimeColumns:
    """Return which columns are the time, by their names and by what stands in some rows."""
    candidates = roles.times
    if not candidates:
        taken = {*roles.at.values(), roles.symbol, roles.period}
        free = [at for at in range(len(labels)) if at not in taken]
        if "" in map(str, labels) or str(labels[0]).lower().startswith("unnamed: 0"):
            free = [0]
        candidates = [at for at in free if _all_times(reading, rows, at)][:1] or (free if free == [0] else [])
        if not candidates:
            raise reading.error(f"no times: expected a column 'time' among {listed(labels)}")
        if str(labels[candidates[0]]) not in ("", "Unnamed: 0"):
            reading.assume(f"column {str(labels[candidates[0]])!r} taken as the time")
    if len(candidates) == 1:
        only = candidates[0]
        return _with_hour(roles, rows, only)
    clocks = [at for at in candidates if _all_clocks(rows, at)]
    dates = [at for at in candidates if at not in clocks]
    whole = [at for at in dates if _all_times(reading, rows, at)]
    if len(whole) == 1 and len(dates) == 1:
        if clocks and not any(_has_clock(row[whole[0]]) for row in rows):
            return TimeColumns(date=whole[0], clock=clocks[0])
        return TimeColumns(date=whole[0])
    if len(whole) >= 1 and len(whole) == len(dates) and _agree(reading, rows, whole):
        finest = [at for at in whole if any(_has_clock(row[at]) for row in rows)]
        return TimeColumns(date=(finest or whole)[0])
    names = listed(labels[at] for at in candidates)
    raise reading.error(
        f"columns {names} may each be the time: join them into one, or give columns={{'time': ...}}",
        "columns",
    )


def _with_hour(roles: Roles, rows: Sequence[Sequence[str]], date: int) -> TimeColumns:
    if roles.hour is None or any(_has_clock(row[date]) for row in rows):
        return TimeColumns(date=date)
    whole = any(":" in row[roles.hour] for row in rows)
    return TimeColumns(date=date, clock=roles.hour, suffix="" if whole else ":00")


def _all_times(reading: Reading, rows: Sequence[Sequence[str]], at: int) -> bool:
    reader = TimeReader(reading=reading)
    return bool(rows) and all(len(row[at].strip()) >= 6 and reader.accepts(row[at]) for row in rows[:50])


def _all_clocks(rows: Sequence[Sequence[str]], at: int) -> bool:
    return bool(rows) and all(is_clock(row[at]) for row in rows)


def _has_clock(cell: str) -> bool:
    text = cell.strip()
    return ":" in text or (text.isdigit() and len(text) >= 10)


def _agree(reading: Reading, rows: Sequence[Sequence[str]], columns: Sequence[int]) -> bool:
    """Return whether columns say the same time, or the same day where one has no clock."""
    read = []
    for at in columns:
        codes = code_points(row[at] for row in rows[:50])
        reader = TimeReader(reading=reading)
        possible = reader.orders(codes)
        reader.order = sorted(possible)[0] if possible else None
        local = reader.read(codes, reading.place)
        read.append(local // (86_400 * 10**9) if not any(_has_clock(row[at]) for row in rows) else local)
    finest = max(read, key=lambda times: int(np.abs(times).max(initial=0)))
    days = finest // (86_400 * 10**9)
    return all(np.array_equal(times, finest) or np.array_equal(times, days) for times in read)


def headerless_roles(reading: Reading, rows: Sequence[Sequence[str]], at: int) -> tuple[Roles, TimeColumns]:
    """Return what the columns of a file without a header are; highs and lows prove their order."""
    width = len(rows[0])
    clock = (
        at + 1
        if width - at > 5 and all(is_clock(row[at + 1]) for row in rows) and not _has_clock(rows[0][at])
        else None
    )
    first = at + 1 if clock is None else clock + 1
    roles = Roles(times=[at], symbol=0 if at else None, period=1 if at > 1 else None)
    if width - first < 4:
        roles.at = {"close": first} if width - first == 1 else {}
        if not roles.at:
            raise reading.error(
                f"{width} columns without names: expected time, open, high, low, close, volume; add a header"
            )
        return roles, TimeColumns(date=at, clock=clock)
    roles.at = dict(zip(_price_order(reading, rows, first), range(first, first + 4), strict=True))
    if width > first + 4:
        roles.at["volume"] = first + 4
        _check_volume(reading, rows, roles)
    return roles, TimeColumns(date=at, clock=clock)


_ORDERS = (PRICES, ("low", "high", "open", "close"))  # the second is Coinbase's


def _price_order(reading: Reading, rows: Sequence[Sequence[str]], first: int) -> Sequence[str]:
    """Return the order of four price columns: the only one in which highs and lows hold the others."""
    try:
        prices = np.array(
            [[float(row[at].replace(",", ".")) for at in range(first, first + 4)] for row in rows]
        )
    except (ValueError, IndexError):
        return PRICES  # what is not a number is refused where it is read
    fitting = []
    for order in _ORDERS:
        columns = dict(zip(order, prices.T, strict=True))
        body = np.array([columns["open"], columns["close"]])
        if (columns["high"] >= body.max(axis=0)).all() and (columns["low"] <= body.min(axis=0)).all():
            fitting.append(order)
    if len(fitting) > 1 and not (prices == prices[:, :1]).all():
        raise reading.error(
            "columns without names whose order could be open, high, low, close or low, high, open, close: "
            "add a header such as time,open,high,low,close,volume"
        )
    return fitting[0] if fitting else PRICES


def _check_volume(reading: Reading, rows: Sequence[Sequence[str]], roles: Roles) -> None:
    """Take the column after next as the volume where the one after the close is an average price."""
    at = roles.at["volume"]
    try:
        low, high, value = (
            np.array([float(row[one]) for row in rows]) for one in (roles.at["low"], roles.at["high"], at)
        )
    except (ValueError, IndexError):
        return
    if ((value >= low) & (value <= high)).all() and (high > 0).all():
        if len(rows[0]) < at + 2:
            raise reading.error("the last column could be an average price or the volume: add a header")
        roles.at["volume"] = at + 1
        reading.assume("the column after the close is an average price: left out")
