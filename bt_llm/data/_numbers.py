"""Numbers as people write them: decimal comma, thousands, currency signs, 1.2M."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.data._reading import Floats, Reading

__all__ = ["decimal_of", "is_number", "parse_number", "parse_numbers"]

MISSING = frozenset(
    {"", ".", "-", "na", "n/a", "nan", "nat", "none", "null", "<na>", "#n/a", "#n/a n/a", "-nan"}
)
_CURRENCY = "$€£¥₹₩₽"
_SPACES = " \u00a0\u202f'\u2019"  # between thousands, in Europe
_SIGNED = re.compile(rf"([+-]?)[{_CURRENCY}]?\s*([+-]?)(.*?)\s*([{_CURRENCY}]?)", re.DOTALL)
_SUFFIX = {"k": "e3", "m": "e6", "b": "e9", "t": "e12"}
_PLAIN = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_GROUPED = {
    sign: re.compile(
        rf"\d{{1,3}}(?:{re.escape(group)}\d{{2,3}})*{re.escape(group)}\d{{3}}(?:{re.escape(sign)}\d*)?"
    )
    for sign, group in ((".", ","), (",", "."))
}
_SPACED = re.compile(rf"\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?:[.,]\d*)?")
_ONE_SIGN = re.compile(r"(\d*)([.,])(\d*)")


def parse_number(text: str, decimal: str = ".", *, suffixes: bool = False) -> float | None:
    """Return a cell's number; NaN where it is empty, None where it is something else.

    Examples
    --------
    >>> parse_number("1,234.5"), parse_number("1.234,5", ","), parse_number("$10"), parse_number("ten")
    (1234.5, 1234.5, 10.0, None)
    >>> parse_number("882.32M", suffixes=True)
    882320000.0
    """
    text = text.strip()
    if text.lower() in MISSING:
        return float("nan")
    if text.lstrip("+-").lower() in ("inf", "infinity"):
        return float(text)
    found = _SIGNED.fullmatch(text.replace("\u2212", "-"))
    if found is None or (found[1] and found[2]):
        return None
    sign, digits, power = found[1] or found[2], found[3], ""
    if suffixes and digits[-1:].lower() in _SUFFIX:
        digits, power = digits[:-1].rstrip(), _SUFFIX[digits[-1].lower()]
    digits = _without_groups(digits, decimal)
    if _PLAIN.fullmatch(digits) is None or (power and "e" in digits.lower()):
        return None
    return float(sign + digits + power)


def _without_groups(digits: str, decimal: str) -> str:
    """Return digits with a decimal point and no signs between thousands; else something unreadable."""
    if _SPACED.fullmatch(digits):
        digits = re.sub(f"[{_SPACES}]", "", digits)
    group = "," if decimal == "." else "."
    if group in digits:
        if _GROUPED[decimal].fullmatch(digits) is None:
            return "unreadable"
        digits = digits.replace(group, "")
    return digits.replace(decimal, ".")


def is_number(text: str) -> bool:
    """Return whether a cell holds a number in either way of writing it."""
    return any(
        (number := parse_number(text, sign, suffixes=True)) is not None and number == number for sign in ".,"
    )


def proved_decimal(cells: Iterable[str]) -> str | None:
    """Return the decimal sign that cells prove; empty if they are whole numbers, None if they leave it open.

    ``23.477`` alone is about twenty-three or about twenty-three thousand; one cell with other than three
    digits after the sign decides for all of them. A cell that contradicts it is refused where it is read.
    """
    undecided = False
    for cell in cells:
        sign = _proof(cell)
        if sign in (".", ","):
            return sign
        undecided |= sign == "open"
    return None if undecided else ""


def decimal_of(
    reading: Reading, sample: Callable[[], Iterable[str]], rest: Callable[[], Iterable[str]]
) -> str:
    """Return the decimal sign: stated, proved by a sample or by all cells, or the form's; else refuse."""
    if reading.format.decimal is not None:
        return reading.format.decimal
    found = proved_decimal(sample())
    if found is None:
        found = reading.decimal
    found = found or proved_decimal(rest())
    if found is None:
        cells = itertools.chain(sample(), rest())
        example = next(cell for cell in cells if _proof(cell) == "open").strip()
        raise reading.error(
            f"{example[:40]!r} and all other numbers could have a decimal sign or one between "
            "thousands: give decimal='.' or decimal=','",
            "decimal",
        )
    return found or "."


def _proof(cell: str) -> str:
    """Return the decimal sign that a cell proves, ``open`` if it has a sign that proves none, else empty."""
    text = cell.strip().strip("+-" + _CURRENCY + "\u2212 ")
    suffixed = text[-1:].lower() in _SUFFIX
    text = text[:-1].rstrip() if suffixed else text
    if not re.search("[.,]", text) or not re.fullmatch(rf"[\d.,{_SPACES}]+(?:[eE][+-]?\d+)?", text, re.ASCII):
        return ""
    if "e" in text.lower() or _SPACED.fullmatch(text) or suffixed:
        single = [sign for sign in ".," if text.count(sign) == 1]
        return single[-1] if len(single) == 1 or not suffixed else _last_sign(text)
    if "." in text and "," in text:
        return _last_sign(text)
    one = _ONE_SIGN.fullmatch(text)
    if one is None:  # the sign occurs again and again: it stands between thousands
        sign = "," if "." in text else "."
        return sign if _GROUPED[sign].fullmatch(text) else ""
    before, sign, after = one.groups()
    return "open" if len(after) == 3 and 1 <= len(before) <= 3 and before[0] != "0" else sign


def _last_sign(text: str) -> str:
    sign = max(".,", key=text.rfind)
    return sign if _GROUPED[sign].fullmatch(text) else ""


def parse_numbers(
    reading: Reading, name: str, column: pd.Series, times: pd.DatetimeIndex, decimal: str = "."
) -> Floats:
    """Return a column of any type as float64, NaN where a value is missing; all else is finite."""
    if pd.api.types.is_float_dtype(column.dtype) or pd.api.types.is_integer_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        suffixes = name == "volume"
        cells = [_cell_number(value, decimal, suffixes) for value in column]
        if None in cells:
            row = cells.index(None)
            value = str(column.iloc[row])[:40]
            raise reading.error(f"{name}={value!r} at {times[row]}: expected a number such as 1234.5")
        numbers = np.array(cells, dtype=np.float64)
    return numbers


def _cell_number(value: Any, decimal: str, suffixes: bool) -> float | None:
    if isinstance(value, str):
        return parse_number(value, decimal, suffixes=suffixes)
    if value is None or value is pd.NA or value is pd.NaT:
        return float("nan")
    if isinstance(value, bool | np.bool_):
        return None  # float() would take it
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
