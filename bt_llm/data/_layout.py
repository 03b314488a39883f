"""How a text file is laid out: delimiter, header, and what stands before and after the bars."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bt_llm.data._files import TextFile, kind_of
from bt_llm.data._names import PRICES, fields_of, prefixed
from bt_llm.data._numbers import MISSING, is_number
from bt_llm.data._reading import Reading, listed
from bt_llm.data._shapes import clock_shape
from bt_llm.data._times import TimeReader

__all__ = ["Layout", "find_layout", "is_clock", "read_csv", "rows_of", "time_field"]

_DELIMITERS = (",", ";", "\t", "|")
_BEFORE = 40  # lines that may stand before the header
_SAMPLED = 60  # lines at either end that decide


@dataclass(kw_only=True)
class Layout:
    """How a text file is laid out.

    Parameters
    ----------
    delimiter : str
        Between fields.
    names : list of str, optional
        The header; None if there is none.
    groups : list of str
        The instrument of each column, where a second header line or a prefix names several; else empty.
    width : int
        Fields of a row, an empty one after a last delimiter included.
    start, stop : int
        Offsets of the bars in the file's text as UTF-8.
    line : int
        Number of the line at `start`.
    rows : list of list of str
        Some rows at the beginning and end, for what has to be found by content.
    before, between, after : list of str
        Lines that are not bars: above the header, below it, and at the end.
    """

    delimiter: str
    names: list[str] | None
    groups: list[str] = field(default_factory=list)
    width: int = 0
    start: int = 0
    stop: int = 0
    line: int = 1
    rows: list[list[str]] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    between: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


@dataclass
class _Line:
    number: int
    offset: int
    text: str


def rows_of(reading: Reading, text: str, delimiter: str, line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Return the rows of a text, each with the number of its last line; refuse what is no CSV."""
    reader = csv.reader(_lines_kept(text), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield line + reader.line_num - 1, row
    except csv.Error as error:
        where = line + reader.line_num - 1
        raise reading.error(f"not a CSV ({error} at line {where}): expected delimiters and quotes") from error


def _lines_kept(text: str) -> Iterator[str]:
    """Return lines as `csv` wants them; not `splitlines`, which also ends them at other characters."""
    return (found[0] for found in re.finditer(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text))


def _lines(data: bytes, number: int = 1, offset: int = 0) -> list[_Line]:
    """Return the lines of UTF-8 bytes; those that go on inside quotes are one."""
    lines: list[_Line] = []
    pending = ""
    for text in _lines_kept(data.decode("utf-8", "replace")):
        if not pending:
            lines.append(_Line(number, offset, ""))
        lines[-1].text += text
        pending = lines[-1].text if lines[-1].text.count('"') % 2 else ""
        number += 1
        offset += len(text.encode())
    return lines


def _split(text: str, delimiter: str) -> list[str]:
    """Return the fields of a line; none if it is no CSV."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error:
        return []


def find_layout(reading: Reading, head: bytes, tail: bytes, size: int) -> Layout:
    """Return the layout of a file by its first and last bytes; refuse one that is not clear."""
    whole = len(head) == size
    lines = _lines(head)
    if not whole and len(lines) > 1:
        lines.pop()
    lines = [line for line in lines if line.text.strip(" \r\n")][: _SAMPLED + _BEFORE]
    if not lines:
        raise reading.error("the file is empty: expected a header and at least one row")
    layout = _with_header(reading, lines) or _without_header(reading, lines)
    if layout is None:
        raise _not_bars(reading, lines)
    _trim_end(reading, layout, tail, size)
    return layout


def _with_header(reading: Reading, lines: list[_Line]) -> Layout | None:
    """Return the layout of a file with a header, the first line that names a close or several prices."""
    best: Layout | None = None
    for delimiter in _DELIMITERS:
        for at, line in enumerate(lines[:_BEFORE]):
            names = [name.strip() for name in _split(line.text, delimiter)]
            if len(names) > 1 and _is_header(reading, names):
                layout = _below(reading, lines, at, names, delimiter)
                if best is None or len(names) > len(best.names or ()):
                    best = layout
                break
    return best


def _is_header(reading: Reading, names: Sequence[str]) -> bool:
    """Return whether fields are names of columns."""
    if any(is_number(name) for name in names):
        return False
    found = fields_of(names, reading.format.columns)
    prices = [role for role in (*PRICES, "last") if role in found]
    if "close" in prices or len(prices) > 1 or ("time" in found and (prices or "adj close" in found)):
        return True
    return bool(prefixed(names)) or (
        len(names) == 2 and ("time" in found or names[0] == "") and names[1] != "" and "volume" not in found
    )


def _below(reading: Reading, lines: list[_Line], at: int, names: list[str], delimiter: str) -> Layout:
    """Return the layout below a header; lines between it and the first bar may name instruments."""
    layout = Layout(delimiter=delimiter, names=names, before=[line.text.strip() for line in lines[:at]])
    first = at + 1
    between: list[list[str]] = []
    while first < len(lines) and len(between) < 3:
        row = _split(lines[first].text, delimiter)
        if not row or is_bar(reading, row) or any(is_number(cell) for cell in row[1:]) or len(row) < 2:
            break
        between.append([cell.strip() for cell in row])
        first += 1
    if between and len(between[-1]) != len(names) and first >= len(lines):
        first, between = at + 1, []
    above = _split(lines[at - 1].text, delimiter) if at else []
    _name_groups(layout, above, between)
    layout.between = [layout.delimiter.join(row) for row in between if row != layout.groups]
    if layout.groups and layout.before and above and len(above) == len(names):
        layout.before.pop()
    layout.width = len(names)
    if first < len(lines):
        layout.start, layout.line = lines[first].offset, lines[first].number
        row = _split(lines[first].text, delimiter)
        if len(row) == len(names) + 1 and row[-1].strip() == "":
            layout.width += 1
    else:
        layout.start = lines[-1].offset + len(lines[-1].text.encode())
        layout.line = lines[-1].number + 1
    layout.rows = [_split(line.text, delimiter) for line in lines[first:]]
    return layout


def _name_groups(layout: Layout, above: list[str], between: list[list[str]]) -> None:
    """Take the instruments of columns from the line above or below the header, as yfinance writes them."""
    assert layout.names is not None
    names, width = layout.names, len(layout.names)
    if between and [cell for cell in between[-1] if cell] == between[-1][:1]:  # the name of the times, alone
        names[0] = between.pop()[0]
    for labels in (*between[:1], above):
        priced = [
            label for label, name in zip(labels, names, strict=False) if fields_of([name]).keys() & {*PRICES}
        ]
        if len(labels) == width and priced and all(priced):
            layout.groups = [label.strip() for label in labels]
            return


def is_bar(reading: Reading, row: Sequence[str]) -> bool:
    """Return whether one of a row's fields is a time."""
    reader = TimeReader(reading=reading)
    return any(_is_time(reader, cell) for cell in row)


def _is_time(reader: TimeReader, cell: str) -> bool:
    text = cell.strip()
    return 6 <= len(text) <= 40 and reader.accepts(text)


def _without_header(reading: Reading, lines: list[_Line]) -> Layout | None:
    """Return the layout of a file without a header: time, open, high, low, close, volume."""
    fitting: list[Layout] = []
    for delimiter in _DELIMITERS:
        rows = [[cell.strip() for cell in _split(line.text, delimiter)] for line in lines]
        width = len(rows[0])
        if width < 2 or not _is_row(reading, rows[0]):
            continue
        layout = Layout(delimiter=delimiter, names=None, width=width, rows=rows)
        layout.start, layout.line = lines[0].offset, lines[0].number
        fitting.append(layout)
    return max(fitting, key=lambda layout: layout.width, default=None)


def _is_row(reading: Reading, row: Sequence[str]) -> bool:
    """Return whether fields are a bar: a time, a clock where it stands alone, and numbers."""
    at = time_field(reading, row)
    if at is None:
        return False
    rest = row[at + 1 :]
    if rest and is_clock(rest[0]) and len(rest) > 4:
        rest = rest[1:]
    prices = rest[:4] if len(rest) >= 4 else rest[:1]
    return bool(prices) and all(is_number(cell) for cell in prices)


def time_field(reading: Reading, row: Sequence[str]) -> int | None:
    """Return the first field that is a time; an instrument and a period may stand before it."""
    reader = TimeReader(reading=reading)
    return next((at for at, cell in enumerate(row[:3]) if _is_time(reader, cell)), None)


def is_clock(cell: str) -> bool:
    """Return whether a field is a time of day."""
    return clock_shape(re.sub(r"\d", "0", cell.strip(), flags=re.ASCII))


def _not_bars(reading: Reading, lines: list[_Line]) -> Exception:
    """Return the error of a file in which neither header nor bars are found."""
    names = max((_split(lines[0].text, delimiter) for delimiter in _DELIMITERS), key=len)
    list(rows_of(reading, lines[0].text, ","))  # an error of its quotes says more
    return reading.error(
        f"no column 'close' among {listed(names)}: expected open, high, low, close, volume; "
        "give columns, such as columns={'close': 'Last'}",
        "columns",
    )


def _trim_end(reading: Reading, layout: Layout, tail: bytes, size: int) -> None:
    """Set where the bars end: lines after them have no time and no prices."""
    lines = _lines(tail, offset=size - len(tail))
    if size > len(tail):
        lines = lines[1:]  # it begins before the tail
    layout.stop = size
    last = [line for line in lines if line.offset >= layout.start]
    reader = TimeReader(reading=reading)
    at = next(
        (at for at, cell in enumerate(layout.rows[0] if layout.rows else ()) if _is_time(reader, cell)), 0
    )
    while last:
        text = last[-1].text.strip(" \r\n")
        row = _split(text, layout.delimiter)
        timed = len(row) > at and _is_time(reader, row[at])
        if text and (timed or _priced(row, layout.width) or not row):
            break
        if text:
            layout.after.insert(0, text)
        layout.stop = last.pop().offset
    if last:
        layout.rows += [_split(line.text, layout.delimiter) for line in last[-_SAMPLED:]]


def _priced(row: Sequence[str], width: int) -> bool:
    """Return whether a row without a time has the numbers of a bar."""
    numbers = sum(is_number(cell) for cell in row if cell.strip().lower() not in MISSING)
    return len(row) == width and numbers > 0


def read_csv(reading: Reading, path: Path) -> pd.DataFrame:
    """Return the fields of a CSV with commas and a header as text, and keep the number of each line."""
    file = TextFile(reading, path, kind_of(reading, path))
    text = b"".join(file.blocks(0, file.size)).decode("utf-8", "replace")
    numbered = list(rows_of(reading, text, ","))
    if not numbered:
        raise reading.error("the file is empty: expected a header and at least one row")
    (_, header), body = numbered[0], numbered[1:]
    for line, row in body:
        if len(row) != len(header):
            raise reading.error(
                f"line {line} has {len(row)} fields: expected {len(header)}, as in the header"
            )
    reading.place = lambda row: f"line {body[row][0]}"
    return pd.DataFrame([row for _, row in body], columns=pd.Index(header, dtype=object), dtype=object)
