"""The ledger: every trial that a search has run, on disk, counted once.

A search is judged by how many trials it took, those of yesterday included. So each trial is written down when
it is done, under a hash of everything that its outcome depends on: a search that was interrupted goes on
where it was, and a trial that is run again is not a new one.

The file is SQLite with JSON text and arrays of plain floats in it; nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bt_llm.equality import nan_equal
from bt_llm.exceptions import BtLlmError, CacheCorruptError, CacheError, ConfigError
from bt_llm.locks import IN_SQLITE
from bt_llm.plain_text import one_line

__all__ = ["TrialLedger", "TrialOutcome", "TrialRecord"]

T = TypeVar("T")

FORMAT = 1
"""Version of the table; a ledger of another version is refused."""

_HEX = re.compile(r"[0-9a-f]{64}")
_KEYS_PER_QUERY = 500
_BUSY_SECONDS = 30.0
_LONGEST_ROW = 2**28
"""In bytes: an equity of 33 million bars."""
_HOW_TO_RECOVER = "move the file away and run the search again"
_TABLE = """
CREATE TABLE trials (
    key TEXT PRIMARY KEY,
    configuration TEXT NOT NULL,
    description TEXT NOT NULL,
    sharpe REAL,
    trades INTEGER NOT NULL,
    wins INTEGER NOT NULL,
    held INTEGER NOT NULL,
    traded REAL NOT NULL,
    equity BLOB NOT NULL,
    seal TEXT NOT NULL
) WITHOUT ROWID
"""
_MADE = ("table", "trials", _TABLE.lstrip())
"""All that stands in a ledger's schema: type, name and text."""

_OUTCOME = "trades, wins, held, traded, equity"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialOutcome:
    """What came of one trial: facts only, so that any metric can be computed from them later.

    Parameters
    ----------
    equity : ndarray of shape (n_bars,)
        Value of the account at the close of each bar of the window.
    trades, wins : int
        Closed trades, and those of them that gained after commission.
    held : int
        Bars with a position at their close.
    traded : float
        Sum of the absolute values of all fills.
    """

    equity: NDArray[np.float64]
    trades: int
    wins: int
    held: int
    traded: float

    def __eq__(self, other: object) -> bool:
        """Return whether all facts are equal, to the last bit."""
        if not isinstance(other, TrialOutcome):
            return NotImplemented
        return self._facts() == other._facts()

    __hash__ = None  # type: ignore[assignment]

    def _facts(self) -> tuple[int, int, int, float, bytes]:
        equity = np.ascontiguousarray(self.equity, dtype="<f8").tobytes()
        # SQLite does not keep the sign of a negative zero; adding zero drops it.
        return self.trades, self.wins, self.held, float(self.traded) + 0.0, equity


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One row of the ledger.

    Parameters
    ----------
    key : str
        SHA-256, in hex, of everything that the outcome depends on, the bars included.
    configuration : str
        SHA-256, in hex, of the same without the window: what was tried, wherever it was tried.
    description : str
        JSON for people: the parameters and the window.
    sharpe : float
        Sharpe ratio per bar within the window; NaN for an account that never moved.
    outcome : TrialOutcome
        What came of it.
    """

    key: str
    configuration: str
    description: str
    sharpe: float
    outcome: TrialOutcome

    def __post_init__(self) -> None:
        """Check the hashes, once."""
        for name in ("key", "configuration"):
            if not _HEX.fullmatch(getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected a SHA-256, 64 hex digits")

    @property
    def seal(self) -> str:
        """Hash of the row, by which a changed or damaged one is recognised."""
        sharpe = _stored(self.sharpe)
        *facts, equity = self.outcome._facts()
        text = repr([FORMAT, self.key, self.configuration, self.description, sharpe, *facts])
        return hashlib.sha256(text.encode() + b"|" + equity).hexdigest()


def _stored(value: float) -> float | None:
    """Return a float as SQLite keeps it: without NaN and without negative zero."""
    return None if math.isnan(value) else float(value) + 0.0


class TrialLedger:
    """Trials on disk, by the hash of everything that their outcome depends on.

    Several processes can add to one ledger. Each trial is written when `add` returns: a search that is
    killed loses what was not finished, and nothing else.

    Parameters
    ----------
    path : path, optional
        The file, made by the first write; its folder is made too. Without one the ledger is in memory.

    Raises
    ------
    CacheError
        If the file cannot be opened.
    CacheCorruptError
        If it is no ledger, or one of another version.

    Examples
    --------
    >>> outcome = TrialOutcome(equity=np.array([100.0, 101.0]), trades=1, wins=1, held=1, traded=95.0)
    >>> record = TrialRecord(key="ab" * 32, configuration="cd" * 32, description="{}", sharpe=0.1,
    ...                      outcome=outcome)
    >>> with TrialLedger() as ledger:
    ...     ledger.add(record), ledger.add(record), len(ledger), ledger.sharpes()
    (True, False, 1, {'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd': 0.1})
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(os.fsdecode(path)).absolute()
        self._check_path()
        self._connection = self._try(self._open, "opened")

    def __enter__(self) -> TrialLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return how many trials have been run, each window of a configuration being one."""
        return int(self._query("SELECT count(*) FROM trials")[0][0])

    def add(self, record: TrialRecord) -> bool:
        """Write a trial down; return False, and change nothing, if it was there already.

        Raises
        ------
        CacheError
            If it cannot be written.
        """
        *facts, equity = record.outcome._facts()
        sharpe = _stored(record.sharpe)
        row = (record.key, record.configuration, record.description, sharpe, *facts, equity, record.seal)
        places = ", ".join("?" * len(row))
        cursor = self._try(
            lambda: self._connection.execute(
                f"INSERT INTO trials VALUES ({places}) ON CONFLICT (key) DO NOTHING", row
            ),
            "written",
        )
        return cursor.rowcount == 1

    def get(self, keys: Iterable[str]) -> dict[str, TrialOutcome]:
        """Return the outcomes of those trials that have been run, by key.

        Raises
        ------
        CacheCorruptError
            If a row is not what was written under its key.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[str, TrialOutcome] = {}
        for start in range(0, len(wanted), _KEYS_PER_QUERY):
            part = wanted[start : start + _KEYS_PER_QUERY]
            marks = ", ".join("?" * len(part))
            query = (
                f"SELECT key, configuration, description, sharpe, seal, {_OUTCOME} "
                f"FROM trials WHERE key IN ({marks})"
            )
            for row in self._query(query, part):
                record = self._record(row)
                found[record.key] = record.outcome
        return found

    def records(self) -> list[TrialRecord]:
        """Return all trials, sorted by key.

        Raises
        ------
        CacheCorruptError
            If a row is not what was written under its key.
        """
        return list(self._records())

    def _records(self) -> Iterator[TrialRecord]:
        """Yield all trials, sorted by key, checked, some at a time."""
        query = (
            f"SELECT key, configuration, description, sharpe, seal, {_OUTCOME} FROM trials "
            f"WHERE key > ? ORDER BY key LIMIT {_KEYS_PER_QUERY}"
        )
        last = ""
        while rows := self._query(query, [last]):
            yield from map(self._record, rows)
            last = str(rows[-1][0])

    def sharpes(self) -> dict[str, float]:
        """Return, for every configuration ever tried, its mean Sharpe ratio per bar over its windows.

        Their number is the number of trials that a deflated Sharpe ratio asks for: windows overlap, and
        a configuration on twelve of them is one idea. NaN for one that never traded in any.

        Raises
        ------
        CacheCorruptError
            If a row is not what was written under its key.
        """
        ratios: dict[str, list[float]] = {}
        for record in self._records():
            ratio = record.sharpe
            ratios.setdefault(record.configuration, []).extend([] if math.isnan(ratio) else [ratio])
        return {
            name: math.fsum(found) / len(found) if found else math.nan
            for name, found in sorted(ratios.items())
        }

    def close(self) -> None:
        """Close the file."""
        with IN_SQLITE:
            self._connection.close()

    def _check_path(self) -> None:
        """Refuse what is no file: opening a pipe or a device may never end."""
        if "\0" in str(self.path or ""):
            raise ConfigError(f"ledger {str(self.path)!r}: it has a NUL character in its name")
        for suffix in ("", "-wal", "-shm", "-journal"):
            file = f"{self.path}{suffix}"
            if self.path is not None and os.path.exists(file) and not os.path.isfile(file):
                raise CacheCorruptError(f"ledger {file}: it is no ordinary file; choose another path")

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level=None: each statement is a transaction of its own.
        connection = sqlite3.connect(self.path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_ROW)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            self._write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._check_version(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            version = self._create(connection)
        if version != FORMAT:
            raise CacheCorruptError(
                f"{self.path}: a database of format {version}, expected a ledger of format {FORMAT}; "
                f"{_HOW_TO_RECOVER}"
            )
        for made in connection.execute("SELECT type, name, sql FROM sqlite_master"):
            if made != _MADE:
                raise CacheCorruptError(
                    f"{self.path}: its {made[0]} {str(made[1])[:60]!r} is not what a ledger has; "
                    f"{_HOW_TO_RECOVER}"
                )

    @staticmethod
    def _write_ahead(connection: sqlite3.Connection) -> None:
        """Let readers and a writer go on beside each other; SQLite itself does not wait for others here."""
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(0.01)

    @staticmethod
    def _create(connection: sqlite3.Connection) -> int:
        """Make an empty file a ledger, as one step of whoever comes first, and return the file's format.

        Once it was two steps: a table of ours, without a version, is what a kill between them has left.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            made = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
            if not made:
                connection.execute(_TABLE)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0 and made in ([], [_MADE]):
                connection.execute(f"PRAGMA user_version = {FORMAT}")
                version = FORMAT
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return int(version)

    def _record(self, row: tuple[Any, ...]) -> TrialRecord:
        key, configuration, description, sharpe, seal, trades, wins, held, traded, equity = row
        try:
            if not isinstance(equity, bytes) or len(equity) % 8:
                raise ValueError("its equity is no array of floats")
            outcome = TrialOutcome(
                equity=np.frombuffer(equity, dtype="<f8").astype(np.float64),
                trades=trades,
                wins=wins,
                held=held,
                traded=traded,
            )
            record = TrialRecord(
                key=str(key),
                configuration=str(configuration),
                description=str(description),
                sharpe=math.nan if sharpe is None else float(sharpe),
                outcome=outcome,
            )
            if record.seal != seal:
                raise ValueError("it is not what was written")
        except (TypeError, ValueError) as error:
            raise CacheCorruptError(
                f"{self.path}, trial {str(key)[:12]}: {error}; {_HOW_TO_RECOVER}"
            ) from None
        return record

    def _query(self, query: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        return self._try(lambda: self._connection.execute(query, tuple(values)).fetchall(), "read")

    def _try(self, action: Callable[[], T], verb: str) -> T:
        """Do something with the database; say in one line what went wrong."""
        try:
            with IN_SQLITE:
                return action()
        except BtLlmError:
            raise
        except (sqlite3.Error, OSError, UnicodeError) as error:
            code = getattr(error, "sqlite_errorname", "")
            damaged = (
                code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_TOOBIG"))
                or "no such" in str(error)
                or "UTF-8" in str(error)
                or isinstance(error, UnicodeError)
            )
            kind = CacheCorruptError if damaged else CacheError
            way_out = f"; {_HOW_TO_RECOVER}" if damaged else ""
            said = one_line(error)[:200]  # SQLite repeats what it cannot read
            raise kind(f"ledger {self.path} cannot be {verb} ({said}){way_out}") from error
