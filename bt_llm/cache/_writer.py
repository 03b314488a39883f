"""diskcache, which writes the database, kept from everything else that it would do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import diskcache

from bt_llm.cache._database import HOW_TO_RECOVER, SETTINGS, inspect, open_database
from bt_llm.cache._rows import FORMAT_ROW
from bt_llm.exceptions import CacheCorruptError

__all__ = ["RAW_MODE", "JsonTextDisk", "Writer", "kind_of_key", "kind_of_value"]

RAW_MODE = 1
"""How diskcache marks a value that stands in the row as it is."""

_MODES = {0: "nothing", 2: "a binary file", 3: "a text file", 4: "a pickle"}


def kind_of_key(key: Any, raw: Any) -> str:
    """Return what a key that is no text is, for messages."""
    return "a pickle" if not raw else f"of type {type(key).__name__}"


def kind_of_value(mode: Any, otherwise: str) -> str:
    """Return what a value that is no text is, for messages."""
    return _MODES.get(mode, otherwise)


class JsonTextDisk(diskcache.Disk):  # type: ignore[misc, unused-ignore]
    """A diskcache Disk that takes text for keys and values, in the row itself, and nothing else."""

    def put(self, key: Any) -> tuple[str, bool]:
        """Return the database's form of a key, which is the key."""
        if type(key) is not str:
            raise CacheCorruptError(f"cache key {key!r}: expected text; nothing is pickled")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        """Return the key of a row; a pickled or binary one is refused unread."""
        if not raw or type(key) is not str:
            raise CacheCorruptError(
                f"{self._directory}: the key of a row is {kind_of_key(key, raw)}, expected text: refused"
                f" unread; {HOW_TO_RECOVER}"
            )
        return key

    def store(self, value: Any, read: Any, key: Any = None) -> tuple[int, int, None, str]:
        """Return (size, mode, file name, value) of a row."""
        if read or type(value) is not str:
            raise CacheCorruptError(f"cache value of type {type(value).__name__}: expected text")
        return 0, RAW_MODE, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> str:
        """Return the value of a row; anything but text in the row is refused unread."""
        if read or mode != RAW_MODE or filename is not None or type(value) is not str:
            raise CacheCorruptError(
                f"{self._directory}: a row holds {kind_of_value(mode, 'bytes')}, expected text: refused"
                f" unread; {HOW_TO_RECOVER}"
            )
        return value


class Writer(diskcache.Cache):  # type: ignore[misc, unused-ignore]
    """A diskcache Cache that is opened in one transaction, and without a write where all is in place.

    diskcache commits every setting, table, index and trigger by itself, and every setting again whenever a
    folder is opened: dozens of times that the disk has to be waited for. And it takes the settings of a
    connection from the database; here they are ours, and the database is checked while its lock is held.
    """

    def __init__(self, path: Path, busy_s: float) -> None:
        self._path, self._busy_s = path, busy_s
        self._opening = True
        try:
            super().__init__(str(path.parent), timeout=busy_s, disk=JsonTextDisk, **SETTINGS)
        except BaseException:
            self._opening = False
            self.close()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        if getattr(self._local, "pid", None) != os.getpid():  # a forked process shares no connection
            self._local.con, self._local.pid = None, os.getpid()
        if getattr(self._local, "con", None) is None:
            self._local.con = open_database(self._path, "rwc", self._busy_s)
            for name in ("journal_mode", "synchronous", "cache_size", "mmap_size"):
                self._local.con.execute(f"PRAGMA {name} = {SETTINGS[f'sqlite_{name}']}")
        connection: sqlite3.Connection = self._local.con
        if self._opening and not connection.in_transaction:
            self._begin(connection)
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        # Of a new file it has to come before the first page; of any it takes the lock for writing.
        connection.execute(f"PRAGMA auto_vacuum = {SETTINGS['sqlite_auto_vacuum']}")
        inspect(connection, self._path)
        self._before = _made(connection)

    def inspect(self) -> None:
        """Check again, within a transaction, that the database is one of ours: others can write to it too."""
        inspect(self._con, self._path)

    def close(self) -> None:
        """Close the connection; the one that opened the folder ends its transaction first."""
        connection = getattr(self._local, "con", None)
        if self._opening and connection is not None:
            connection.execute(
                "INSERT OR IGNORE INTO Cache (key, raw, mode, value) VALUES (?, 1, ?, ?)",
                (FORMAT_ROW[0], RAW_MODE, FORMAT_ROW[1]),
            )
            connection.execute("ROLLBACK" if _made(connection) == self._before else "COMMIT")
            self._opening = False
        super().close()


def _made(connection: sqlite3.Connection) -> list[list[tuple[Any, ...]]]:
    """Return all that opening a folder makes: tables and the like, then the settings."""
    schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    if ("table", "Settings") not in (row[:2] for row in schema):
        return [schema]
    return [schema, connection.execute("SELECT key, value FROM Settings ORDER BY key").fetchall()]
