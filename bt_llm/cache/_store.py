"""JSON texts by key in a diskcache folder that is trusted with nothing.

The database is written by diskcache and read here, straight from SQLite and without writing anything, so
that a read-only folder can be read and a lookup costs one query. Nothing is ever unpickled: diskcache's own
JSONDisk still unpickles a planted row (CVE-2025-69872), so `JsonTextDisk` takes text alone. Before a read,
and within the transaction of a write, every table, index, trigger and setting is compared with what a cache
has: SQLite would run a trigger, and diskcache would run a setting as a PRAGMA.

The journal is SQLite's rollback journal, not diskcache's default WAL: the cache is then one file that can be
copied, read in a read-only folder and kept on a network drive. Every write is one transaction, on disk when
it returns (``synchronous=FULL``).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import diskcache

from bt_llm.cache._database import HOW_TO_RECOVER, check_files, inspect, open_database
from bt_llm.cache._rows import FORMAT_ROW, MAX_TEXT, Row
from bt_llm.cache._writer import RAW_MODE, Writer, kind_of_key, kind_of_value
from bt_llm.exceptions import CacheCorruptError, CacheError, ConfigError
from bt_llm.locks import IN_SQLITE, ForkableLock
from bt_llm.plain_text import one_line

__all__ = ["JsonStore"]

T = TypeVar("T")
Query = Callable[[str, Collection[Any]], list[tuple[Any, ...]]]

_LOCK_SECONDS = 120.0
_BUSY_SECONDS = 1.0  # SQLite waits so long at a time, deaf to Ctrl-C
_HALF_DONE = "SQLITE_READONLY_ROLLBACK"
_KEYS_PER_QUERY = 500
_PLANTED = (
    "typeof(key) != 'text' OR raw IS NOT 1 OR mode IS NOT 1 OR filename IS NOT NULL"
    " OR expire_time IS NOT NULL OR typeof(value) != 'text'"
)
_COLUMNS = "rowid, key, raw, mode, filename, expire_time, tag, value"


class JsonStore:
    """The rows of one cache folder; several threads and processes can use it at once.

    Nothing is kept open between calls: a killed process leaves no lock behind, and a forked one shares none.

    Parameters
    ----------
    directory : path
        The folder. It is made by the first write.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).expanduser().absolute()
        self.path = self.directory / "cache.db"
        if "\0" in str(self.directory):
            raise ConfigError(f"cache folder {str(self.directory)!r}: it has a NUL character in it")
        if os.path.expandvars(self.directory) != str(self.directory):  # diskcache would write elsewhere
            raise ConfigError(
                f"cache folder {self.directory}: a variable in it is not replaced; write it out"
            )
        self._writer: Writer | None = None
        self._lock = ForkableLock()

    def close(self) -> None:
        """Forget the opened writer; the next write opens it again."""
        with self._lock, IN_SQLITE:
            if self._writer is not None:
                self._writer.close()
            self._writer = None

    def read(self, keys: Collection[str]) -> dict[str, Row]:
        """Return the rows that are stored, by key, in the order of `keys`.

        Raises
        ------
        CacheCorruptError
            If the database or one of the rows cannot be trusted.
        CacheError
            If it cannot be read.
        """
        wanted, found = list(dict.fromkeys(keys)), {}
        with self.reading() as query:
            for start in range(0, len(wanted), _KEYS_PER_QUERY):
                part = wanted[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                for row in query(f"SELECT {_COLUMNS} FROM Cache WHERE key IN ({marks})", part):
                    checked = self._checked(row)
                    found[checked.key] = checked
        return {key: found[key] for key in wanted if key in found}

    def scan(self) -> Iterator[Row]:
        """Yield every row, sorted by key, after one look for planted ones."""
        last: str | None = None
        while True:
            with self.reading() as query:
                if last is None:
                    self._look_for_planted(query)
                sql = f"SELECT {_COLUMNS} FROM Cache WHERE key > ? ORDER BY key LIMIT {_KEYS_PER_QUERY}"
                rows = [self._checked(row) for row in query(sql, (last or "",))]
            if not rows:
                return
            yield from (row for row in rows if row.key != FORMAT_ROW[0])
            last = rows[-1].key

    def keys(self, *, prefix: str = "", tag: str | None = None) -> list[str]:
        """Return the sorted keys that begin with `prefix`, of one tag or any."""
        condition, values = "key >= ? AND key < ?", [prefix, f"{prefix}\U0010ffff"]
        if tag is not None:
            condition, values = f"{condition} AND tag = ?", [*values, tag]
        with self.reading() as query:
            if not prefix:
                self._look_for_planted(query)
            rows = query(f"SELECT key FROM Cache WHERE {condition} ORDER BY key", values)
        return [str(key) for (key,) in rows if key != FORMAT_ROW[0]]

    def tags(self) -> dict[str, int]:
        """Return how many rows each tag has."""
        with self.reading() as query:
            rows = query("SELECT tag, COUNT(*) FROM Cache WHERE tag IS NOT NULL GROUP BY tag", ())
        return {str(tag): int(count) for tag, count in rows}

    def damage(self) -> list[str]:
        """Return what SQLite's own integrity check finds, which reads the whole file; empty when sound."""
        with self.reading() as query:
            found = "\n".join(str(line) for (line,) in query("PRAGMA integrity_check(20)", ()))
        return [line for line in found.splitlines() if line != "ok" and not line.startswith("***")]

    def update(
        self, keys: Collection[str], decide: Callable[[Mapping[str, str]], Iterable[Row]], *, action: str
    ) -> None:
        """Write rows in one transaction: all of them or none.

        Parameters
        ----------
        keys : collection of str
            The rows to look at.
        decide : callable
            Given the texts stored under `keys`, returns the rows to write. It may be called again if
            another process held the database, and must not change anything itself.
        action : str
            What is being done, for messages.
        """

        def attempt(cache: diskcache.Cache) -> None:
            texts = {key: cache.get(key) for key in keys}
            for row in decide({key: text for key, text in texts.items() if text is not None}):
                if len(row.text) > MAX_TEXT:
                    raise CacheError(
                        f"row {row.key[:40]} of {len(row.text)} characters: at most {MAX_TEXT} fit"
                    )
                cache.set(row.key, row.text, tag=row.tag)

        self._write(attempt, action)

    def delete(self, keys: Collection[str]) -> int:
        """Delete rows in one transaction; return how many there were."""
        if not self.read(keys):
            return 0
        deleted = 0

        def attempt(cache: diskcache.Cache) -> None:
            nonlocal deleted
            deleted = sum(cache.delete(key) for key in keys)

        self._write(attempt, "deleting from it")
        return deleted

    def prepare(self) -> None:
        """Raise now what the first write would: before a model is asked for minutes."""
        self._write(lambda cache: None, "opening it for writing")

    def _write(self, attempt: Callable[[diskcache.Cache], None], action: str) -> None:
        def transaction() -> None:
            cache = self._opened()
            try:
                with cache.transact():
                    cache.inspect()
                    attempt(cache)
            finally:
                cache.close()  # rolls back what a failed COMMIT or a Ctrl-C left open

        with self._lock, IN_SQLITE:
            self._patiently(transaction, action)

    def _opened(self) -> Writer:
        if self._writer is None:
            with self.reading():  # checks the database before diskcache acts on what is in it
                pass
            self._writer = Writer(self.path, _BUSY_SECONDS)
        return self._writer

    @contextlib.contextmanager
    def reading(self) -> Iterator[Query]:
        """Yield what queries the checked database; it gives nothing where there is none yet."""
        with IN_SQLITE:
            yield from self._queries()

    def _queries(self) -> Iterator[Query]:
        check_files(self.path)
        if not self._patiently(self.path.exists, "looking for it"):
            yield lambda sql, values: []
            return
        connection = self._patiently(lambda: self._sqlite("ro"), "reading it")
        try:
            if not self._patiently(lambda: inspect(connection, self.path), "reading it"):
                yield lambda sql, values: []
                return
            yield lambda sql, values: self._patiently(
                lambda: connection.execute(sql, tuple(values)).fetchall(), "reading it"
            )
        finally:
            connection.close()

    def _undone(self) -> bool:
        """Undo what a killed process left half done; return whether it is, or somebody else is at it."""
        try:
            self._sqlite("rw").close()
        except sqlite3.Error as error:
            return _is_busy(getattr(error, "sqlite_errorname", ""))
        return True

    def _sqlite(self, mode: str) -> sqlite3.Connection:
        connection = open_database(self.path, mode, _BUSY_SECONDS)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _look_for_planted(self, query: Query) -> None:
        for row in query(f"SELECT {_COLUMNS} FROM Cache WHERE {_PLANTED} LIMIT 1", ()):
            self._checked(row)

    def _checked(self, row: tuple[Any, ...]) -> Row:
        rowid, key, raw, mode, filename, expires, tag, value = row
        if type(key) is not str or raw != 1:
            self._refuse(f"row {rowid}: its key is {kind_of_key(key, raw)}, expected text: refused unread")
        if mode != RAW_MODE or filename is not None or type(value) is not str:
            held = kind_of_value(mode, f"a value of type {type(value).__name__}")
            self._refuse(f"row {rowid}, key {key[:80]!r}: it holds {held}, expected text: refused unread")
        if expires is not None or not isinstance(tag, str | None):
            self._refuse(f"row {rowid}, key {key[:80]!r}: it has an expiry or a tag that no row has")
        return Row(key, value, tag)

    def _refuse(self, problem: str) -> NoReturn:
        raise CacheCorruptError(f"{self.path}: {problem}; {HOW_TO_RECOVER}")

    def _patiently(self, operation: Callable[[], T], action: str) -> T:
        """Run it, again while another process holds the lock, and say plainly what went wrong."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return operation()
            except (sqlite3.Error, sqlite3.Warning, diskcache.Timeout, OSError, UnicodeError) as error:
                cause = _root(error)
                name = getattr(cause, "sqlite_errorname", "")
                passes = _is_busy(name) or (name == _HALF_DONE and self._undone())
                if not passes or time.monotonic() > deadline:
                    raise self._explained(cause, name, action) from error
            time.sleep(0.005)

    def _explained(self, cause: BaseException, name: str, action: str) -> CacheError:
        failed = (
            f"{self.path}: {action} failed ({one_line(cause)[:200]})"  # SQLite repeats what it cannot read
        )
        elsewhere = "choose another folder with --cache or BT_LLM_CACHE_DIR"
        if _is_busy(name):
            return CacheError(
                f"{failed}: another process has held it for {_LOCK_SECONDS:g} s; end it, or {elsewhere}"
            )
        if name == _HALF_DONE:
            return CacheError(
                f"{failed}: a killed process left it half written; copy the folder to where it can be written"
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")) or isinstance(
            cause, OSError
        ):
            return CacheError(
                f"{failed}: to use what is stored and write nothing, set BT_LLM_CACHE_MODE=replay; to store"
                f" more, {elsewhere}"
            )
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            return CacheError(
                f"{failed}: the disk is full or failing; what was stored before is intact. Free some space,"
                f" or {elsewhere}"
            )
        return CacheCorruptError(f"{failed}: expected a SQLite database written by bt_llm; {HOW_TO_RECOVER}")


def _is_busy(name: str) -> bool:
    """Return whether an error of SQLite's means that somebody else has the database."""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _root(error: BaseException) -> BaseException:
    """Return the first error of a chain: diskcache hides it behind its Timeout and a failed ROLLBACK."""
    while isinstance(error.__context__, sqlite3.Error):
        error = error.__context__
    return error
