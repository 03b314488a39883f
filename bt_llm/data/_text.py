"""Text files of bars, read block by block into arrays that are made once."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.data._block_bytes import all_alike, count_of, first_field
from bt_llm.data._columns import Columns, TimeColumns, headerless_roles, time_columns
from bt_llm.data._files import TextFile
from bt_llm.data._forms import form_of
from bt_llm.data._layout import Layout, find_layout, rows_of, time_field
from bt_llm.data._names import PRICES, Roles, fields_of, find_roles, prefixed
from bt_llm.data._numbers import decimal_of, parse_numbers
from bt_llm.data._reading import Floats, Reading, listed
from bt_llm.data._times import TimeReader, code_points
from bt_llm.exceptions import DataError

__all__ = ["TextTable", "open_text"]

_EXACT = {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}


@dataclass(kw_only=True)
class TextTable:
    """A text file whose layout is known."""

    reading: Reading
    file: TextFile
    layout: Layout

    def symbols(self) -> list[str]:
        """Return the instruments that columns are named after; empty where rows or nothing name them."""
        return list(dict.fromkeys(one for one in self._groups() if one))

    def read(self, symbol: str | None = None) -> Columns:
        """Return the columns of one instrument, or of all where rows name them."""
        reader = _Reader(reading=self.reading, file=self.file, layout=self.layout, taken=self._taken(symbol))
        return reader.read()

    def _groups(self) -> list[str]:
        names = self.layout.names or []
        if self.layout.groups:
            labels = zip(names, self.layout.groups, strict=True)
            return ["" if at == 0 else group for at, (_, group) in enumerate(labels)]
        groups = [""] * len(names)
        if not _has_close(self.reading, names):
            for prefix, columns in prefixed(names).items():
                for at, _ in columns:
                    groups[at] = prefix
        return groups

    def _taken(self, symbol: str | None) -> list[str] | None:
        """Return the name of each column for one instrument, empty for those of others."""
        names, groups = self.layout.names, self._groups()
        if names is None or not any(groups):
            return names
        short = (
            dict(pair for columns in prefixed(names).values() for pair in columns)
            if not self.layout.groups
            else {}
        )
        taken = []
        for at, name in enumerate(names):
            mine = groups[at] in ("", symbol or self.symbols()[0])
            taken.append(short.get(at, name) if mine else "")
        return taken


def _has_close(reading: Reading, names: Sequence[str]) -> bool:
    return bool(fields_of(names, reading.format.columns).keys() & {"close", "last"})


def open_text(reading: Reading, file: TextFile) -> TextTable:
    """Find out how a text file is laid out, in the first encoding that makes all of its header readable."""
    failed: DataError | None = None
    found: list[tuple[str, Layout]] = []
    for encoding in file.encodings:
        if encoding != file.encoding:
            file.use(encoding)
        try:
            found.append((encoding, find_layout(reading, file.head, file.tail, file.size)))
        except DataError as error:
            failed = failed or error
            continue
        if _is_readable(reading, found[-1][1]):
            found = found[-1:]
            break
    if not found:
        assert failed is not None
        raise failed
    encoding, layout = found[0]
    if encoding != file.encoding:
        file.use(encoding)
    if encoding not in ("utf-8", "utf-8-sig"):
        reading.assume(f"text in {encoding}")
    return TextTable(reading=reading, file=file, layout=layout)


def _is_readable(reading: Reading, layout: Layout) -> bool:
    """Return whether a header names a close, and all four prices or no other."""
    if layout.names is None or layout.groups or prefixed(layout.names):
        return True
    found = fields_of(layout.names, reading.format.columns).keys()
    return bool(found & {"close", "last"}) and len(found & {*PRICES[:3]}) in (0, 3)


@dataclass(kw_only=True)
class _Rows:
    """Arrays of all rows, with room for as many as the first block promises: large files are held once."""

    roles: list[str]
    size: int
    count: int = 0
    times: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    values: dict[str, Floats] = field(default_factory=dict)

    def add(self, times: NDArray[np.int64], numbers: dict[str, Floats], size: int) -> None:
        """Add the rows of a block of so many bytes."""
        end = self.count + len(times)
        if end > len(self.times):
            room = max(end, int(1.1 * len(times) * self.size / size)) + end // 4
            self.times = _longer(self.times, self.count, room)
            self.values = {role: _longer(self.values.get(role), self.count, room) for role in self.roles}
        self.times[self.count : end] = times
        for role, part in numbers.items():
            self.values[role][self.count : end] = part
        self.count = end


def _longer(array: NDArray[Any] | None, count: int, room: int) -> NDArray[Any]:
    longer = np.empty(room, dtype=np.float64 if array is None else array.dtype)
    if array is not None:
        longer[:count] = array[:count]
    return longer


@dataclass(kw_only=True)
class _Reader:
    """One pass over a file's bars."""

    reading: Reading
    file: TextFile
    layout: Layout
    taken: list[str] | None
    roles: Roles = field(init=False)
    when: TimeColumns = field(init=False)
    times: TimeReader = field(init=False)
    decimal: str = "."
    line: int = 1

    def __post_init__(self) -> None:
        """Find out what each column is."""
        layout, reading = self.layout, self.reading
        rows = [row for row in layout.rows if len(row) == layout.width and any(cell.strip() for cell in row)]
        if not rows:
            self._refuse_rows()
        if self.taken is None:
            self._without_header(rows)
        else:
            self._with_header(rows)
        self._say_layout()
        self.times = TimeReader(reading=reading)
        self._settle(rows)

    def _refuse_rows(self) -> None:
        """Say what is wrong with a file none of whose rows has as many fields as its header."""
        for block in self.file.blocks(self.layout.start, self.layout.stop):
            self._check_width(block, self.layout.line)
        raise self.reading.error("no bars: expected at least one row below the header")

    def _with_header(self, rows: list[list[str]]) -> None:
        names, reading = self.taken or [], self.reading
        self.roles = find_roles(reading, names, self.layout.names or [])
        _level_series(reading, self.roles, names)
        self.when = time_columns(reading, self.roles, rows, names)
        known = ["Ticker", "Price"] if self.layout.groups else self.layout.names
        self.reading.take(form_of(known, self.layout.delimiter, self._first(rows), len(names)))

    def _without_header(self, rows: list[list[str]]) -> None:
        at = time_field(self.reading, rows[0])
        if at is None:
            raise self.reading.error("no times: expected a time first in each row, or a header")
        self.roles, self.when = headerless_roles(self.reading, rows, at)
        self.reading.take(form_of(None, self.layout.delimiter, self._first(rows), self.layout.width))
        self.reading.assume(
            "no header: columns taken as time, "
            + ", ".join(sorted(self.roles.at, key=self.roles.at.__getitem__))
        )

    def _first(self, rows: list[list[str]]) -> str:
        """Return the shape of the first row's time."""
        cells = [self.when.date] if self.when.clock is None else [self.when.date, self.when.clock]
        return ",".join(re.sub(r"[0-9]", "0", rows[0][at].strip()) for at in cells)

    def _say_layout(self) -> None:
        layout, reading = self.layout, self.reading
        spelled = {";": "semicolons", "\t": "tabs", "|": "bars"}
        if layout.delimiter in spelled:
            reading.assume(f"columns separated by {spelled[layout.delimiter]}")
        for lines, where in (
            (layout.before, "above the header"),
            (layout.between, "below the header"),
            (layout.after, "at the end"),
        ):
            kept = [line.strip(layout.delimiter + " ") for line in lines]
            if any(kept):
                reading.assume(f"lines {where} that are no bars: {listed([one for one in kept if one], 3)}")

    def _settle(self, rows: list[list[str]]) -> None:
        """Find the decimal sign and the order of dates: in some rows, else in the whole file."""
        numbers = [at for role, at in self.roles.at.items() if role != "split"]
        if self.reading.whole and self.reading.format.decimal is None:
            prices = [row[self.roles.at[role]] for row in rows for role in PRICES if role in self.roles.at]
            if not any(re.search("[.,]", cell) for cell in prices):
                raise self.reading.error(f"prices without a decimal sign may be {self.reading.whole}")
        self.decimal = decimal_of(
            self.reading, lambda: (row[at] for row in rows for at in numbers), lambda: self._cells(numbers)
        )
        if self.decimal == ",":
            self.reading.assume("decimal comma")
        if self.reading.format.time_format is None:
            if self.roles.day_first and re.match(r"\d\d?\.\d\d?\.", rows[0][self.when.date].strip()):
                self.reading.order = self.reading.order or "dmy"
            self.times.settle_order(code_points(map(self.when.joined, rows)), self._time_codes)

    def _cells(self, columns: Sequence[int]) -> Iterator[str]:
        for block in self.file.blocks(self.layout.start, self.layout.stop):
            frame = self._text_frame(block, columns)
            for at in columns:
                yield from frame[at]

    def _time_codes(self) -> Iterator[NDArray[np.uint32]]:
        for block in self.file.blocks(self.layout.start, self.layout.stop):
            columns = [self.when.date] if self.when.clock is None else [self.when.date, self.when.clock]
            yield code_points(self._time_texts(self._text_frame(block, columns)))

    def read(self) -> Columns:
        """Return all columns."""
        layout = self.layout
        rows = _Rows(roles=list(self.roles.at), size=layout.stop - layout.start)
        symbols: list[NDArray[np.object_]] = []
        line = layout.line
        for block in self.file.blocks(layout.start, layout.stop):
            times, numbers, named = self._block(block, line)
            rows.add(times, numbers, len(block))
            if named is not None:
                symbols.append(named)
            line += count_of(block, "\n") or count_of(block, "\r")
        if not rows.count:
            raise self.reading.error("no bars: expected at least one row below the header")
        final, self.reading.zone = self.times.finish(rows.times[: rows.count])
        return Columns(
            times=final,
            values={role: rows.values[role][: rows.count] for role in rows.roles},
            symbols=np.concatenate(symbols) if symbols else None,
            labels=list(self.taken or []),
            taken=self.roles.at,
            left_out=self._left_out(),
        )

    def _left_out(self) -> list[int]:
        used = {
            *self.roles.at.values(),
            self.when.date,
            self.when.clock,
            self.roles.symbol,
            self.roles.period,
        }
        names = self.taken or []
        return [at for at, name in enumerate(names) if at not in used and name]

    def _block(
        self, block: bytes, line: int
    ) -> tuple[NDArray[np.int64], dict[str, Floats], NDArray[np.object_] | None]:
        fast = self._numbers_alone(block)
        if fast is not None:
            codes, numbers = fast
            return self.times.read(codes, lambda row: f"line {line + row}"), numbers, None
        return self._any_block(block, line)

    def _numbers_alone(self, block: bytes) -> tuple[NDArray[np.uint8], dict[str, Floats]] | None:
        """Return times and numbers of a block that holds nothing else; None if it has to be read as text.

        The times are of one width and first in each row; numbers are as `float` reads them, none is missing.
        """
        if self.when != TimeColumns(date=0) or self.roles.symbol is not None or b'"' in block:
            return None
        codes = first_field(block, ord(self.layout.delimiter))
        if codes is None or not all_alike(block, self.layout.delimiter, self.layout.width - 1, codes):
            return None
        try:
            frame = self._parse(block, sorted(self.roles.at.values()), np.float64)
        except (ValueError, IndexError, pd.errors.ParserError):
            return None
        numbers = {role: frame[at].to_numpy() for role, at in self.roles.at.items()}
        if len(frame) != len(codes) or any(np.isnan(one).any() for one in numbers.values()):
            return None
        return codes, numbers

    def _parse(self, block: bytes, columns: Sequence[int], dtype: type) -> pd.DataFrame:
        """Read columns of a block, by position."""
        options: dict[str, Any] = {**_EXACT, "dtype": dtype, "usecols": list(columns)}
        if dtype is np.float64:
            options["decimal"] = self.decimal
        else:
            options |= {"na_filter": False, "skipinitialspace": True}
        frame: pd.DataFrame = pd.read_csv(
            io.BytesIO(block),
            sep=self.layout.delimiter,
            header=None,
            names=list(range(self.layout.width)),
            index_col=False,
            engine="c",
            low_memory=False,
            **options,
        )
        return frame

    def _text_frame(self, block: bytes, columns: Sequence[int]) -> pd.DataFrame:
        try:
            return self._parse(block, sorted(set(columns)), object)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, IndexError):  # rows of too few fields
            return pd.DataFrame({at: [] for at in columns}, dtype=object)

    def _time_texts(self, frame: pd.DataFrame) -> list[str]:
        dates = [str(text).strip() for text in frame[self.when.date]]
        if self.when.clock is None:
            return dates
        clocks = frame[self.when.clock]
        return [
            f"{date} {str(clock).strip()}{self.when.suffix}"
            for date, clock in zip(dates, clocks, strict=True)
        ]

    def _any_block(
        self, block: bytes, line: int
    ) -> tuple[NDArray[np.int64], dict[str, Floats], NDArray[np.object_] | None]:
        """Read a block as text: what pandas leaves open is decided here."""
        numbers = self._check_width(block, line)
        extra = [at for at in (self.roles.symbol, self.roles.period, self.when.clock) if at is not None]
        frame = self._text_frame(block, [*self.roles.at.values(), self.when.date, *extra])
        filled = (frame.map(lambda cell: str(cell).strip()) != "").any(axis=1).to_numpy()
        frame, lines = (
            frame[filled].reset_index(drop=True),
            [n for n, some in zip(numbers, filled, strict=True) if some],
        )
        place: Callable[[int], str] = lambda row: f"line {lines[row]}"  # noqa: E731
        texts = self._time_texts(frame)
        times = self.times.read(code_points(texts), place)
        index = pd.DatetimeIndex(times)
        values = {
            role: parse_numbers(self.reading, role, frame[at], index, self.decimal)
            for role, at in self.roles.at.items()
        }
        if self.roles.period is not None and len(periods := set(frame[self.roles.period])) > 1:
            raise self.reading.error(
                f"bars of several lengths, {listed(sorted(periods))}: expected one; select one first"
            )
        named = None if self.roles.symbol is None else frame[self.roles.symbol].to_numpy(dtype=object)
        return times, values, named

    def _check_width(self, block: bytes, line: int) -> list[int]:
        """Return the line of each row; refuse a row of another number of fields."""
        numbers = []
        for number, row in rows_of(
            self.reading, block.decode("utf-8", "replace"), self.layout.delimiter, line
        ):
            if len(row) != self.layout.width:
                extra = "" if self.layout.names is None else ", as in the header"
                raise self.reading.error(
                    f"line {number} has {len(row)} fields: expected {self.layout.width}{extra}"
                )
            numbers.append(number)
        return numbers


def _level_series(reading: Reading, roles: Roles, names: Sequence[str]) -> None:
    """Take the one column beside the time as the close, where no name says what it is."""
    if "close" in roles.at or len(names) != 2 or roles.at:
        return
    others = [at for at in range(2) if at not in roles.times and str(names[at]).strip()]
    if len(others) == 1 and others[0] not in (roles.symbol, roles.period, roles.hour):
        roles.at["close"] = others[0]
        reading.assume(f"column {names[others[0]]!r} taken as the close")
