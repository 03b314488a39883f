"""Times of any type as naive nanoseconds, with what is known of their zone."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.data._civil import Codes, Ints, civil, number_in
from bt_llm.data._reading import Reading
from bt_llm.data._shapes import Shape, compile_format, read_shape, stated_shape
from bt_llm.exceptions import DataError

__all__ = ["TimeReader", "code_points", "typed_times"]

_MINUTE, _DAY = 60 * 10**9, 86_400 * 10**9
_ABBREVIATIONS = {  # minutes east of UTC; left out are those that name several zones, such as CST
    "UTC": 0, "GMT": 0, "Z": 0, "EST": -300, "EDT": -240, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420,
    "WET": 0, "WEST": 60, "CET": 60, "CEST": 120, "EET": 120, "EEST": 180, "MSK": 180, "JST": 540, "KST": 540,
    "HKT": 480, "SGT": 480, "AEST": 600, "AEDT": 660,
}  # fmt: skip


def code_points(texts: Iterable[str]) -> Codes:
    """Return texts as rows of code points, padded with 0."""
    array = np.array([str(text).strip() for text in texts], dtype=np.str_)
    width = max(array.dtype.itemsize // 4, 1)
    return (
        array.view(np.uint32).reshape(len(array), width)
        if array.dtype.itemsize
        else np.zeros((len(array), 1), np.uint32)
    )


def _text(row: Codes) -> str:
    return "".join(map(chr, row)).rstrip("\0")


@dataclass(kw_only=True)
class TimeReader:
    """Reads a source's times, block by block, all in one way.

    Parameters
    ----------
    reading : Reading
        Whose errors and assumptions these are.
    order : str, optional
        Order of day, month and year where a date leaves it open, as ``mdy``; found by `prove_order`.
    """

    reading: Reading
    order: str | None = None
    family: str = ""
    offsets: list[Ints | None] = field(default_factory=list)
    zones: set[str] = field(default_factory=set)
    texts: tuple[str, str] = ("", "")  # a time with and one without a zone, for the message
    seconds: bool | None = None  # whether clocks that are numbers have seconds

    def read(self, codes: Codes, place: Callable[[int], str]) -> Ints:
        """Return local nanoseconds since 1970 of each row; keep the offsets from UTC."""
        local = np.empty(len(codes), dtype=np.int64)
        if not len(codes):
            return local
        offsets = np.zeros(len(codes), dtype=np.int64)
        zoned = np.zeros(len(codes), dtype=bool)
        for rows, shape_text in _grouped(codes):
            part = codes[rows]
            shape = self._shape(shape_text)
            if shape is None or not self._fits(shape, part):
                row = int(np.arange(len(codes))[rows][0])
                raise self.unreadable(_text(codes[row]), place(row))
            values, bad = civil(shape, part, self.order)
            if bad.any():
                row = int(np.arange(len(codes))[rows][int(bad.argmax())])
                raise self.unreadable(_text(codes[row]), place(row))
            self._check_digits(shape, shape_text, part, place, int(np.arange(len(codes))[rows][0]))
            local[rows] = values
            if shape.zone:
                offsets[rows] = self._offsets(shape, part, values)
                zoned[rows] = True
        self._keep_offsets(codes, offsets, zoned, place)
        return local

    def accepts(self, text: str) -> bool:
        """Return whether a text is a time in any order of its parts."""
        codes = code_points([text])
        shape = self._shape(_text(_shapes_of(codes)[0]))
        return shape is not None and any(
            not civil(shape, codes, order)[1].any()
            for order in ((self.order,) if self.order else _open_orders(shape))
        )

    def orders(self, codes: Codes) -> set[str]:
        """Return the orders of day, month and year in which every row is a date; empty where none is open."""
        found: set[str] | None = None
        first = self._shape(_text(_shapes_of(codes[:1])[0])) if len(codes) else None
        if first is None or "a" not in first.parts:
            return set()  # other times than the first are refused where they are read
        for rows, shape_text in _grouped(codes):
            shape = self._shape(shape_text)
            if shape is None or shape.family != first.family:
                continue
            fitting = {
                str(order) for order in _open_orders(shape) if not civil(shape, codes[rows], order)[1].any()
            }
            found = fitting if found is None else found & fitting
        return found or set()

    def settle_order(self, sample: Codes, rest: Callable[[], Iterable[Codes]] = tuple) -> None:
        """Find the order of day, month and year: stated, the form's, or the only one that all times allow.

        The rest of the times is looked through only where a sample leaves the order open.
        """
        possible = self.orders(sample)
        self.order = self._stated_order(possible)
        if not possible or self.order:
            return
        for codes in rest():
            possible &= self.orders(codes)
            self.order = self._stated_order(possible)
            if not possible or self.order:
                return
        raise self.reading.error(
            f"day and month may be in either order in every date, such as {_text(sample[0])!r}: "
            "give day_first=True or False, or a time_format such as '%d/%m/%Y'",
            "time_format",
        )

    def _stated_order(self, possible: set[str]) -> str | None:
        day_first = self.reading.format.day_first
        if possible and day_first is not None:
            return "dmy" if day_first else "mdy"
        if len(possible) == 1:
            order = next(iter(possible))
            self.reading.assume(f"dates are {_SPELLED[order]}: none of the dates allows another order")
            return order
        if self.reading.order in possible:
            self.reading.assume(f"dates are {_SPELLED[str(self.reading.order)]}, as in this form")
            return self.reading.order
        return None

    def _shape(self, text: str) -> Shape | None:
        time_format = self.reading.format.time_format
        return read_shape(text) if time_format is None else stated_shape(time_format, text)

    def _fits(self, shape: Shape, codes: Codes) -> bool:
        """Return whether a shape is of the family of those before it, and its fixed digits are right."""
        if self.reading.format.time_format is None:
            self.family = self.family or shape.family
            if shape.family != self.family:
                return False
        elif "E" in shape.parts:
            self.family = shape.family
        return all((codes[:, at] == ord(digit)).all() for at, digit in shape.literals)

    def _check_digits(
        self, shape: Shape, text: str, codes: Codes, place: Callable[[int], str], row: int
    ) -> None:
        """Refuse digits that may mean something else: hours of a day, or a clock that has lost its zeros."""
        if self.reading.format.time_format is not None:
            return
        first = f"{place(row)}: time {_text(codes[0])!r}"
        if text == "0" * 10 and not civil(_HOURS, codes, None)[1].any():
            raise self.reading.error(
                f"{first} may be seconds since 1970, or year, month, day and hour: give time_format='%s' or "
                "'%Y%m%d%H'",
                "time_format",
            )
        if not _NUMBER_CLOCK.search(text):
            return
        with_seconds = "S" in shape.parts
        if self.seconds not in (None, with_seconds):
            raise self.reading.error(
                f"{first} has a clock with{'' if with_seconds else 'out'} seconds, unlike others: zeros in "
                "front may be lost; write all digits, as 000500 for five minutes past midnight"
            )
        self.seconds = with_seconds

    def _offsets(self, shape: Shape, codes: Codes, local: Ints) -> Ints:
        """Return minutes east of UTC."""
        if shape.zone in "+-":
            minutes = 60 * number_in(codes, shape.parts["oh"])
            if "om" in shape.parts:
                minutes = minutes + number_in(codes, shape.parts["om"])
            return -minutes if shape.zone == "-" else minutes
        name = shape.zone
        if name.upper() in _ABBREVIATIONS:
            if name.upper() in ("UTC", "GMT", "Z"):
                self.zones.add("UTC")
            return np.full(len(codes), _ABBREVIATIONS[name.upper()], dtype=np.int64)
        stated = self.reading.format.zone
        try:
            zone = zoneinfo.ZoneInfo(stated if stated and "/" not in name else name)
            utc = pd.DatetimeIndex(local).tz_localize(zone).tz_convert("UTC").tz_localize(None)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise self.reading.error(
                f"time {_text(codes[0])[:40]!r}: zone {name!r} is not known or leaves an hour open "
                f"({error}); expected an offset, UTC or an IANA name; give zone, such as 'America/Chicago'",
                "zone",
            ) from error
        self.zones.add(zone.key)
        return (local - utc.as_unit("ns").asi8) // _MINUTE

    def _keep_offsets(
        self, codes: Codes, offsets: Ints, zoned: NDArray[np.bool_], place: Callable[[int], str]
    ) -> None:
        """Keep a block's offsets; all times have a zone, or none has."""
        for row, has in ((int(zoned.argmax()), zoned.any()), (int(zoned.argmin()), not zoned.all())):
            if has and not self.texts[int(not zoned[row])]:
                text = f"{place(row)}: time {_text(codes[row])!r}"
                self.texts = (text, self.texts[1]) if zoned[row] else (self.texts[0], text)
        if all(self.texts):
            raise self.reading.error(f"{self.texts[1]} has no zone but others do: expected one way")
        self.offsets.append(offsets if zoned.any() else None)

    def finish(self, local: Ints) -> tuple[Ints, str | None]:
        """Return all times as they are kept, and their zone if it is known.

        Times with a zone become UTC; where each is midnight in its own zone, they are dates and stay.
        """
        stated = self.reading.format.zone
        if self.family == "seconds since 1970":
            if stated is not None:
                _check_stated(self.reading, local, local)
            return local, "UTC"
        if not any(part is not None for part in self.offsets):
            return local, stated or self.reading.zone
        offsets = np.concatenate([part for part in self.offsets if part is not None])
        return zoned_times(self.reading, local, local - offsets * _MINUTE, self._zone_name(offsets))

    def _zone_name(self, offsets: Ints) -> str | None:
        if len(self.zones) == 1:
            return next(iter(self.zones))
        single = offsets[0] if len(offsets) and (offsets == offsets[0]).all() else None
        if single is None or single % 60:
            return self.reading.zone
        return f"Etc/GMT{-single // 60:+d}" if single else "UTC"

    def unreadable(self, text: str, place: str) -> DataError:
        """Return the error of a time that cannot be read."""
        time_format = self.reading.format.time_format
        if time_format is not None:
            return self.reading.error(
                f"{place}: time {text[:40]!r} does not fit time_format={time_format!r}: "
                "expected a strptime format that fits every time"
            )
        if re.fullmatch(r"\d{5}(\.\d+)?", text):
            return self.reading.error(
                f"{place}: time {text!r} looks like Excel's count of days: save dates as dates, or give the "
                "frame in which pandas.to_datetime(..., unit='D', origin='1899-12-30') has read them"
            )
        family = (
            f", all {self.family} as the times before it" if self.family not in ("", "year first") else ""
        )
        return self.reading.error(
            f"{place}: time {text[:40]!r}: expected year first, as 2024-01-31 or 2024-01-31 09:30:00"
            f"{family}; for another form give time_format, such as '%m/%d/%Y' or '%d/%m/%Y'",
            "time_format",
        )


_HOURS = Shape(parts={"Y": (0, 4), "m": (4, 6), "d": (6, 8), "H": (8, 10)})
_NUMBER_CLOCK = re.compile(r"[^0]0{3,6}$")  # a shape that ends in a clock without colons
_SPELLED = {"mdy": "month first", "dmy": "day first", "ymd": "year first"}


def _open_orders(shape: Shape) -> Sequence[str | None]:
    """Return the orders that a shape leaves open."""
    if "a" not in shape.parts:
        return (None,)
    return ("mdy", "dmy", "ymd") if "c" in shape.parts else ("mdy", "dmy")


def _shapes_of(codes: Codes) -> Codes:
    """Return codes with 0 for every digit."""
    return np.where((codes >= 48) & (codes <= 57), np.array(48, codes.dtype), codes)


def _grouped(codes: Codes) -> list[tuple[Any, str]]:
    """Return the rows of each shape, and the shape; in the order in which they first occur."""
    shapes = _shapes_of(codes)
    if not len(shapes):
        return []
    if (shapes == shapes[0]).all():
        return [(slice(None), _text(shapes[0]))]
    joined = np.ascontiguousarray(shapes.astype(np.uint32)).view(f"<U{shapes.shape[1]}").ravel()
    unique, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    return [(np.flatnonzero(inverse == number), str(unique[number])) for number in np.argsort(first)]


def zoned_times(reading: Reading, local: Ints, utc: Ints, zone: str | None) -> tuple[Ints, str | None]:
    """Return zoned times without their zone: UTC, or the dates where all are at local midnight."""
    stated = reading.format.zone
    if stated is not None:
        _check_stated(reading, local, utc)
        zone = stated
    dates = bool((local % _DAY == 0).all())
    if dates and bool((utc == local).all()):
        reading.assume("times are midnight in UTC: taken as dates")
        return local, stated or "UTC"
    reading.repaired(
        "times are midnight in a zone: taken as dates, zone dropped"
        if dates
        else "times have a zone: turned to UTC, zone dropped"
    )
    return (local, zone) if dates else (utc, "UTC")


def _check_stated(reading: Reading, local: Ints, utc: Ints) -> None:
    """Refuse a stated zone that is not the one that times carry."""
    stated = reading.format.zone
    there = pd.DatetimeIndex(utc).tz_localize("UTC").tz_convert(stated).tz_localize(None)
    if (there.as_unit("ns").asi8 != local).any():
        raise reading.error(
            f"zone={stated!r}: the times carry a zone of their own, and differ from it; leave zone out"
        )


def typed_times(reading: Reading, values: pd.Index | pd.Series) -> tuple[Ints, str | None] | None:
    """Return times that have a type of pandas; None if they are text or numbers."""
    stated = reading.format.zone
    if isinstance(values.dtype, pd.PeriodDtype):
        reading.repaired("times are periods: each set to its start")
        return _nanoseconds(reading, pd.PeriodIndex(values).to_timestamp(how="start")), stated
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        zoned = pd.DatetimeIndex(values)
        local = _nanoseconds(reading, zoned.tz_localize(None))
        utc = _nanoseconds(reading, zoned.tz_convert("UTC").tz_localize(None))
        return zoned_times(reading, local, utc, _zone_key(zoned))
    if pd.api.types.is_datetime64_dtype(values.dtype):
        return _nanoseconds(reading, pd.DatetimeIndex(values)), stated or reading.zone
    return None


def _zone_key(zoned: pd.DatetimeIndex) -> str | None:
    """Return the IANA name of an index's zone, where it has one."""
    name = str(zoned.tz)
    return name if name in zoneinfo.available_timezones() else None


def _nanoseconds(reading: Reading, times: pd.DatetimeIndex) -> Ints:
    """Return times in the one resolution that every pandas has."""
    try:
        return times.as_unit("ns").asi8
    except pd.errors.OutOfBoundsDatetime as error:
        raise reading.error(f"a time is out of range ({error}): expected years 1678 to 2261") from error


def check_format(reading: Reading) -> None:
    """Refuse a time format with a directive that is not known."""
    time_format = reading.format.time_format
    if time_format is not None and isinstance(wrong := compile_format(time_format), str):
        raise reading.error(
            f"time_format={time_format!r}: {wrong}; expected a strptime format such as '%m/%d/%Y'"
        )
