"""Frames of pandas as a source of bars, and what JSON, parquet and feather files hold as frames."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.data._columns import Columns, TimeColumns, headerless_roles, time_columns
from bt_llm.data._files import open_file
from bt_llm.data._forms import form_of
from bt_llm.data._layout import time_field
from bt_llm.data._names import PRICES, Roles, fields_of, find_roles, prefixed
from bt_llm.data._numbers import decimal_of, parse_numbers
from bt_llm.data._reading import Reading, listed
from bt_llm.data._times import TimeReader, code_points, typed_times
from bt_llm.exceptions import MissingExtraError
from bt_llm.plain_text import counted

__all__ = ["FrameTable", "frame_of_json", "frame_of_parquet"]

_DEPTH = 8  # levels of JSON that are looked through


@dataclass(kw_only=True)
class FrameTable:
    """A frame whose columns are instruments in one level, or names alone."""

    reading: Reading
    frame: pd.DataFrame

    def symbols(self) -> list[str]:
        """Return the instruments that columns are named after."""
        columns = self.frame.columns
        if isinstance(columns, pd.MultiIndex):
            level = self._price_level(columns)
            tickers = [str(ticker) for ticker in columns.droplevel(level)]
            return list(dict.fromkeys(tickers))
        names = [str(label) for label in columns]
        return (
            []
            if fields_of(names, self.reading.format.columns).keys() & {"close", "last"}
            else list(prefixed(names))
        )

    def _price_level(self, columns: pd.MultiIndex) -> int:
        levels = [
            level
            for level in range(columns.nlevels)
            if fields_of([str(label) for label in columns.get_level_values(level).unique()]).keys()
            & {"close", "last"}
        ]
        if len(levels) != 1:
            raise self.reading.error(
                f"columns in {columns.nlevels} levels, {listed(columns)}: expected one level"
            )
        return levels[0]

    def _of(self, symbol: str | None) -> pd.DataFrame:
        """Return the columns of one instrument under plain names."""
        symbols = self.symbols()
        if not symbols:
            return self.frame
        chosen = symbol if symbol is not None else symbols[0]
        columns = self.frame.columns
        if isinstance(columns, pd.MultiIndex):
            level = self._price_level(columns)
            chosen_ones = [str(ticker) == chosen for ticker in columns.droplevel(level)]
            if symbol is None or len(symbols) == 1:
                self.reading.repaired(f"columns in {columns.nlevels} levels: flattened, ticker {chosen!r}")
            names = columns.get_level_values(level)[chosen_ones]
            return self.frame.loc[:, chosen_ones].set_axis(names, axis="columns")
        pairs = dict(prefixed([str(label) for label in columns])[chosen])
        mine = [at for at in range(len(columns)) if at in pairs or "time" in fields_of([str(columns[at])])]
        return self.frame.iloc[:, mine].set_axis([pairs.get(at, columns[at]) for at in mine], axis="columns")

    def read(self, symbol: str | None = None) -> Columns:
        """Return the columns of one instrument, or of all where rows name them."""
        reading, frame = self.reading, self._of(symbol)
        if not len(frame):
            raise reading.error("no bars: expected at least one row below the header")
        labels: list[object] = list(frame.columns)
        names = [str(label) for label in labels]
        rows = _Rows(frame)
        if all(isinstance(label, int) for label in labels) and len(labels) >= 5 and _lists(frame):
            at = time_field(reading, rows[0])
            if at is None:
                raise reading.error(
                    f"no column 'close' among {listed(names)}: expected open, high, low, close, volume"
                )
            when: TimeColumns | None
            roles, when = headerless_roles(reading, rows, at)
            self._take_form(None, rows, at)
            times: tuple[np.ndarray[Any, Any], str | None] | None = None
        else:
            self._take_form(names, rows, 0)
            roles = find_roles(reading, names, labels)
            times, when = self._times(frame, roles, rows, labels)
        if times is None:
            times = self._text_times(frame, when)
        local, reading.zone = times
        index = pd.DatetimeIndex(local)
        cells = [*_texts(frame, roles.at.values())]
        decimal = decimal_of(reading, lambda: cells, tuple)
        values = {
            role: parse_numbers(reading, role, frame.iloc[:, at], index, decimal)
            for role, at in roles.at.items()
        }
        used = {*roles.at.values(), roles.symbol, roles.period, *([when.date, when.clock] if when else [])}
        symbols = (
            None if roles.symbol is None else frame.iloc[:, roles.symbol].astype(str).to_numpy(dtype=object)
        )
        return Columns(
            times=np.asarray(local),
            values=values,
            symbols=symbols,
            labels=names,
            taken=roles.at,
            left_out=[at for at, name in enumerate(names) if at not in used and name],
        )

    def _take_form(self, names: list[str] | None, rows: _Rows, at: int) -> None:
        first = "" if names is not None else "0" * len(rows[0][at])
        self.reading.form = self.reading.form or "frame"
        delimiter = "{" if self.reading.form == "JSON" else ""
        self.reading.take(form_of(names, delimiter, first, len(rows[0]) if names is None else len(names)))

    def _times(
        self, frame: pd.DataFrame, roles: Roles, rows: _Rows, labels: Sequence[object]
    ) -> tuple[tuple[np.ndarray[Any, Any], str | None] | None, TimeColumns | None]:
        """Return the times of the index or of a typed column, or where they stand as text."""
        reading, index = self.reading, frame.index
        if "time" not in reading.format.columns and isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
            _refuse_missing(reading, index)
            return typed_times(reading, index), None
        plain = isinstance(index, pd.MultiIndex) or pd.api.types.is_numeric_dtype(index.dtype)
        if not roles.times and not plain and not (labels and _unnamed(labels[0])):
            _refuse_missing(reading, index)
            when_codes = [str(value).strip() for value in index]
            return self._read_texts(when_codes), None
        typed = [at for at in roles.times if pd.api.types.is_datetime64_any_dtype(frame.iloc[:, at].dtype)]
        if len(typed) == 1:
            _refuse_missing(reading, frame.iloc[:, typed[0]])
            return typed_times(reading, frame.iloc[:, typed[0]]), TimeColumns(date=typed[0])
        when = time_columns(reading, roles, rows, labels)
        return typed_times(reading, frame.iloc[:, when.date]) if when.clock is None else None, when

    def _text_times(
        self, frame: pd.DataFrame, when: TimeColumns | None
    ) -> tuple[np.ndarray[Any, Any], str | None]:
        assert when is not None
        _refuse_missing(self.reading, frame.iloc[:, when.date])
        texts = [_time_text(value) for value in frame.iloc[:, when.date]]
        if when.clock is not None:
            texts = [
                f"{date} {str(clock).strip()}{when.suffix}"
                for date, clock in zip(texts, frame.iloc[:, when.clock], strict=True)
            ]
        return self._read_texts(texts)

    def _read_texts(self, texts: list[str]) -> tuple[np.ndarray[Any, Any], str | None]:
        codes = code_points(texts)
        times = TimeReader(reading=self.reading)
        if self.reading.format.time_format is None:
            times.settle_order(codes)
        return times.finish(times.read(codes, self.reading.place))


class _Rows(Sequence[list[str]]):
    """The first and last rows of a frame as text."""

    def __init__(self, frame: pd.DataFrame) -> None:
        some = frame if len(frame) <= 400 else pd.concat([frame[:200], frame[-200:]])
        columns = [[_time_text(value) for value in some.iloc[:, at]] for at in range(some.shape[1])]
        self._rows = [list(row) for row in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        return self._rows[at]


def _time_text(value: Any) -> str:
    """Return a cell as text; a whole number without ``.0``."""
    if isinstance(value, float | np.floating) and value == value and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _lists(frame: pd.DataFrame) -> bool:
    first = _time_text(frame.iloc[0, 0])
    return first.isdigit() and len(first) >= 10


def _unnamed(label: object) -> bool:
    return str(label) == "" or str(label).lower().startswith("unnamed: 0")


def _refuse_missing(reading: Reading, values: pd.Index | pd.Series) -> None:
    missing = np.asarray(values.isna(), dtype=bool)
    if missing.any():
        first = reading.place(int(missing.argmax()))
        raise reading.error(
            f"no time for {counted(missing.sum(), 'bar')} (first: {first}): give each its time, or drop it"
        )


def _texts(frame: pd.DataFrame, columns: Any) -> Iterator[str]:
    for at in columns:
        column = frame.iloc[:, at]
        if not pd.api.types.is_numeric_dtype(column.dtype):
            yield from (value for value in column if isinstance(value, str))


def frame_of_parquet(reading: Reading, path: Path, kind: str) -> pd.DataFrame:
    """Return the frame that a parquet or feather file holds."""
    limit = reading.format.max_megabytes << 20
    try:
        import pyarrow.feather
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{reading.name}: a {kind} file needs pyarrow; install it with: pip install 'bt-llm[parquet]'"
        ) from error
    try:
        with open_file(reading, path, kind) as file:
            if kind == "parquet":
                described = pyarrow.parquet.ParquetFile(file)
                groups = range(described.metadata.num_row_groups)
                size = sum(described.metadata.row_group(group).total_byte_size for group in groups)
                _refuse_large(reading, max(size, 8 * described.metadata.num_rows), limit)
                table = described.read()
            else:
                _refuse_large(reading, path.stat().st_size, limit)
                table = pyarrow.feather.read_table(file)
        _refuse_large(reading, table.nbytes, limit)
        frame: pd.DataFrame = table.to_pandas()
        return frame
    except pyarrow.ArrowException as error:
        said = str(error).splitlines()[0][:200]
        raise reading.error(f"not a whole {kind} file ({said}): expected one as pandas writes it") from error


def _refuse_large(reading: Reading, size: int, limit: int) -> None:
    if size > limit:
        raise reading.error(
            f"over {limit >> 20} MB unpacked: expected no more; give max_megabytes for a file that you trust"
        )


def frame_of_json(reading: Reading, text: str) -> pd.DataFrame:
    """Return the one table of bars in a JSON text: records, lists, columns, or rows by time."""
    found = list(_tables(reading, _parsed(reading, text), 0))
    if len(found) != 1:
        many = "no bars in it" if not found else f"{len(found)} tables of bars in it"
        raise reading.error(f"{many}: expected one list of bars, or columns, in the JSON")
    return found[0]


def _parsed(reading: Reading, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and error.msg == "Extra data":
            try:
                return [json.loads(line) for line in lines]
            except (json.JSONDecodeError, RecursionError):
                pass
        raise reading.error(
            f"not JSON ({error.msg} at line {error.lineno}): expected a list of bars"
        ) from error
    except (RecursionError, ValueError) as error:
        raise reading.error("JSON that cannot be read: expected a list of bars") from error


def _tables(reading: Reading, node: Any, depth: int) -> Iterator[pd.DataFrame]:
    """Return what in a JSON value is a table of bars."""
    table = _as_table(node)
    if table is not None:
        yield table
    elif depth < _DEPTH:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        for child in children:
            if isinstance(child, dict | list):
                yield from _tables(reading, child, depth + 1)


def _as_table(node: Any) -> pd.DataFrame | None:
    if isinstance(node, list) and node:
        if all(isinstance(row, dict) for row in node):
            rows = [_flat(row) for row in node]
            return pd.DataFrame(rows, dtype=object) if _priced(rows[0]) else None
        if all(isinstance(row, list) and len(row) == len(node[0]) >= 5 for row in node) and not _nested(
            node[0]
        ):
            return pd.DataFrame(node, dtype=object)
        return None
    if not isinstance(node, dict) or not node:
        return None
    if "timestamp" in node and isinstance(node.get("indicators"), dict):  # Yahoo's chart
        quote = node["indicators"].get("quote")
        return (
            _as_table({"timestamp": node["timestamp"], **quote[0]})
            if isinstance(quote, list) and quote
            else None
        )
    if isinstance(node.get("columns"), list) and isinstance(node.get("data"), list):  # pandas, orient="split"
        index = node.get("index")
        frame = pd.DataFrame(node["data"], columns=node["columns"], dtype=object)
        return (
            frame.set_axis(list(map(str, index)), axis="index")
            if isinstance(index, list) and _no_time(frame)
            else frame
        )
    if all(isinstance(row, dict) and _priced(row) for row in node.values()):  # rows by time
        return pd.DataFrame([{"time": time, **row} for time, row in node.items()], dtype=object)
    columns = {name: column for name, column in node.items() if isinstance(column, list | dict)}
    if _priced(columns) and len({len(column) for column in columns.values()}) == 1:
        return _of_columns(columns)
    return None


def _of_columns(columns: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return a table of columns, each a list or a mapping by time."""
    if all(isinstance(column, list) for column in columns.values()):
        return pd.DataFrame(dict(columns), dtype=object)
    if not all(isinstance(column, dict) for column in columns.values()):
        return None
    keys = list(next(iter(columns.values())))
    if any(list(column) != keys for column in columns.values()):
        return None
    frame = pd.DataFrame({name: list(column.values()) for name, column in columns.items()}, dtype=object)
    if _no_time(frame):
        frame.insert(0, "time", keys)
    return frame


def _no_time(frame: pd.DataFrame) -> bool:
    return "time" not in fields_of([str(label) for label in frame.columns])


def _nested(row: list[Any]) -> bool:
    return any(isinstance(cell, list | dict) for cell in row)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without levels: OANDA's prices stand under ``mid``."""
    levels = [name for name, value in row.items() if isinstance(value, dict)]
    if len(levels) != 1:
        return dict(row)
    return {
        **{name: value for name, value in row.items() if name not in levels},
        levels[0]: None,
        **row[levels[0]],
    }


def _priced(columns: Mapping[str, Any]) -> bool:
    found = fields_of([str(name) for name in columns]).keys()
    return bool(found & {"close", "last"}) and bool(found & {"time", *PRICES[:3]} or len(found) > 1)
