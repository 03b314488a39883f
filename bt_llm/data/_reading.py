"""What is being read: its name in messages, its repairs, and the fields of a CSV."""

from __future__ import annotations

import csv
import difflib
import io
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.exceptions import DataError

__all__ = ["Mask", "Reading", "listed", "name_bars", "read_csv"]

logger = logging.getLogger("bt_llm.data")
logger.addHandler(logging.NullHandler())

Mask: TypeAlias = NDArray[np.bool_]

_SHOWN = 3  # bars or file names that a message lists


@dataclass(kw_only=True)
class Reading:
    """One call of `load_bars`: what is read, and what had to be repaired on the way."""

    name: str
    time_format: str | None
    lines: Sequence[int] = ()
    repairs: list[str] = field(default_factory=list)

    def place(self, row: int) -> str:
        """Return where a row (from 0) stands, for a message."""
        return f"line {self.lines[row]}" if self.lines else f"row {row + 1}"

    def error(self, text: str) -> DataError:
        """Return the error to raise, which names the source first."""
        return DataError(f"{self.name}: {text}")

    def repaired(self, text: str) -> None:
        """Keep a repair for `attrs`, and log it."""
        self.repairs.append(text)
        logger.warning("%s: %s", self.name, text)


def listed(names: Iterable[object], most: int = 8) -> str:
    """Return names for a message, on one line and not too many."""
    shown = [repr(str(name)[:40]) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return (", ".join(shown[:most]) or "none") + more


def name_bars(times: pd.DatetimeIndex, where: Mask) -> str:
    """Return the bars of a mask for a message: how many, and the first few by time."""
    count = int(where.sum())
    shown = ", ".join(str(time) for time in times[where][:_SHOWN])
    return f"{count} bar{'s' if count > 1 else ''} ({shown}{', ...' if count > _SHOWN else ''})"


def read_csv(reading: Reading, path: Path) -> pd.DataFrame:
    """Return the fields of a CSV as text, and keep the number of each line."""
    numbered = _read_rows(reading, path)
    (_, header), body = numbered[0], numbered[1:]
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        raise reading.error(
            f"the header {header[0][:40]!r} has no comma: expected columns separated by commas"
        )
    for line, row in body:
        if len(row) != len(header):
            raise reading.error(
                f"line {line} has {len(row)} fields: expected {len(header)}, as in the header"
            )
    reading.lines = [line for line, _ in body]
    return pd.DataFrame([row for _, row in body], columns=pd.Index(header, dtype=object), dtype=object)


def _read_rows(reading: Reading, path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows of a CSV, header first, each with the number of its line; blank lines are skipped."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise reading.error(f"no such file{_near(path)}: give the path of a CSV") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise reading.error(f"cannot be read ({reason}): give the path of a CSV") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise reading.error(f"not text in UTF-8 (at byte {error.start}): expected a CSV in UTF-8") from error
    if "\0" in text:
        raise reading.error("binary, it holds null bytes: expected a CSV in UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        numbered = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise reading.error(
            f"not a CSV ({error} at line {reader.line_num}): expected commas and quotes"
        ) from error
    if not numbered:
        raise reading.error("the file is empty: expected a header and at least one row")
    return numbered


def _near(path: Path) -> str:
    """Return the names beside a missing file that resemble its own, for a message."""
    try:
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    except OSError:
        return f", nor a folder {str(path.parent)!r}"
    near = difflib.get_close_matches(path.name, beside, n=_SHOWN)
    return f" (near: {listed(near)})" if near else ""
