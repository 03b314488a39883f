"""Digits of times as nanoseconds since 1970: dates of the calendar and times of day, column by column."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bt_llm.data._shapes import Shape

__all__ = ["Codes", "Ints", "civil", "number_in"]

Ints: TypeAlias = NDArray[np.int64]
Codes: TypeAlias = NDArray[Any]  # one row a time, one column a character, as unsigned numbers

_DAY = 86_400 * 10**9


def number_in(codes: Codes, span: tuple[int, int]) -> Ints:
    """Return the whole number that stands in some columns."""
    start, stop = span
    total = (codes[:, start] - 48).astype(np.int64)
    for column in range(start + 1, stop):
        total *= 10
        total += codes[:, column] - 48
    return total


def civil(shape: Shape, codes: Codes, order: str | None) -> tuple[Ints, NDArray[np.bool_]]:
    """Return nanoseconds since 1970 by the clock as written, and which rows are no such date or time."""
    parts = dict(shape.parts)
    if "E" in parts:
        start, stop = parts["E"]
        unit = 10 ** (19 - (stop - start))
        found = number_in(codes, (start, stop)) * unit
        if "f" in parts:
            first, end = parts["f"]
            found += number_in(codes, (first, end)) * unit // 10 ** (end - first)
        return found, np.zeros(len(codes), dtype=bool)
    if "a" in parts:
        letters = order or "mdy"
        for letter, slot in zip(letters if "c" in parts else letters.replace("y", ""), "abc", strict=False):
            parts[letter] = parts.pop(slot)
    value = {name: number_in(codes, span) for name, span in parts.items()}
    year = value["Y"] if "Y" in value else value["y"] + np.where(value["y"] < 69, 2000, 1900)  # as strptime
    if "j" in value:
        month, day = np.ones_like(year), np.ones_like(year)
    else:
        month, day = value.get("m", np.full_like(year, shape.month or 1)), value.get("d", np.ones_like(year))
    bad = (month < 1) | (month > 12) | (day < 1) | (year < 1678) | (year > 2261)
    months = ((np.where(bad, 1970, year) - 1970) * 12 + np.where(bad, 1, month) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + _days(np.where(bad, 1, day) - 1)
    bad |= days.astype("datetime64[M]") != months
    if "j" in value:
        days = days + _days(value["j"] - 1)
        bad |= days.astype("datetime64[Y]") != months.astype("datetime64[Y]")
    clock, wrong = _clock(value, shape, parts)
    return days.astype(np.int64) * _DAY + clock, bad | wrong


def _days(count: Ints) -> NDArray[np.timedelta64]:
    return count.astype("timedelta64[D]")


def _clock(
    value: dict[str, Ints], shape: Shape, parts: dict[str, tuple[int, int]]
) -> tuple[Ints, NDArray[np.bool_]]:
    """Return nanoseconds since midnight, and which rows are no time of day."""
    zero = np.zeros_like(next(iter(value.values())))
    hour, minute, second = (value.get(letter, zero) for letter in "HiS")
    bad = (hour > 23) | (minute > 59) | (second > 59)
    if "oh" in value:
        bad |= (value["oh"] > 19) | (value.get("om", zero) > 59)
    if shape.half:
        bad |= (hour < 1) | (hour > 12)
        hour = hour % 12 + (12 if shape.half == "p" else 0)
    fraction = zero
    if "f" in value:
        start, stop = parts["f"]
        fraction = value["f"] * 10 ** (9 - (stop - start))
    return ((hour * 60 + minute) * 60 + second) * 10**9 + fraction, bad
