"""The database file: opened such that nothing in it runs, and checked before anything in it is used."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import NoReturn

from bt_llm.cache._rows import FORMAT_ROW, MAX_TEXT
from bt_llm.exceptions import CacheCorruptError, CacheError

__all__ = [
    "HOW_TO_RECOVER",
    "SETTINGS",
    "OtherFormatError",
    "check_files",
    "harden",
    "inspect",
    "open_database",
]

HOW_TO_RECOVER = "bt-llm cache repair keeps what is sound of it; delete that file only to begin anew"
"""What to do about a database that cannot be trusted."""

# All of them are given whenever diskcache opens the database, so that no stored one is ever used.
SETTINGS: dict[str, int | str] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2**13,
    "sqlite_journal_mode": "delete",
    "sqlite_mmap_size": 0,  # a file that shrinks under a memory map kills the process
    "sqlite_synchronous": 2,
    "disk_min_file_size": 2**62,
    "disk_pickle_protocol": 0,
}
_COUNTERS = ("count", "size", "hits", "misses")

_UPDATE = "UPDATE Settings SET value = value"
_TEXTS: dict[tuple[str, str, str], str | None] = {
    ("table", "Settings", "Settings"): "CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)",
    ("index", "sqlite_autoindex_Settings_1", "Settings"): None,
    ("table", "Cache", "Cache"): (
        "CREATE TABLE Cache ( rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL,"
        " expire_time REAL, access_time REAL, access_count INTEGER DEFAULT 0, tag BLOB,"
        " size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0, filename TEXT, value BLOB)"
    ),
    ("index", "Cache_key_raw", "Cache"): "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)",
    ("index", "Cache_expire_time", "Cache"): "CREATE INDEX Cache_expire_time ON Cache (expire_time)",
    ("index", "Cache_tag_rowid", "Cache"): "CREATE INDEX Cache_tag_rowid ON Cache(tag, rowid)",
} | {
    ("trigger", f"Settings_{name}", "Cache"): (
        f"CREATE TRIGGER Settings_{name} AFTER {event} ON Cache FOR EACH ROW BEGIN {_UPDATE} {change}"
        f' WHERE key = "{name.partition("_")[0]}"; END'
    )
    for name, event, change in (
        ("count_insert", "INSERT", "+ 1"),
        ("count_delete", "DELETE", "- 1"),
        ("size_insert", "INSERT", "+ NEW.size"),
        ("size_update", "UPDATE", "+ NEW.size - OLD.size"),
        ("size_delete", "DELETE", "- OLD.size"),
    )
}
"""Everything that diskcache makes: (type, name, table) to its text. Anything else is refused."""


class OtherFormatError(CacheError):
    """A database of another version of bt_llm, as far as it says."""


def open_database(path: Path, mode: str, busy_s: float) -> sqlite3.Connection:
    """Return a connection on which nothing that stands in the file is run.

    Parameters
    ----------
    path : Path
        The file.
    mode : {'ro', 'rw', 'rwc'}
        What SQLite may do with it.
    busy_s : float
        How long SQLite itself waits for a lock.

    Raises
    ------
    CacheCorruptError
        If it, or a file that SQLite keeps beside it, is no ordinary file.
    """
    check_files(path)
    uri = f"{path.as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None)
    try:
        harden(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def harden(connection: sqlite3.Connection) -> None:
    """Have SQLite trust nothing that stands in the file."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * MAX_TEXT)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def check_files(path: Path) -> None:
    """Refuse a pipe or a device in the place of a file: opening one may never end.

    Raises
    ------
    CacheCorruptError
        If there is one.
    """
    for suffix in ("", "-journal", "-wal", "-shm"):
        file = f"{path}{suffix}"
        try:
            found = os.stat(file)
        except OSError:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise CacheCorruptError(
                f"{file}: it is no ordinary file, expected a SQLite database written by bt_llm; choose "
                "another folder with --cache or BT_LLM_CACHE_DIR"
            )


def inspect(connection: sqlite3.Connection, path: Path) -> bool:
    """Check that it is a database of ours, not a trap; return whether it has its tables yet.

    Raises
    ------
    CacheCorruptError
        If a table, index, trigger or view is not to the letter what a cache has, or a setting is none.
    CacheError
        If it is of another format.
    """
    names = set()
    for kind, name, table, sql in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        names.add(name)
        if (kind, name, table) not in _TEXTS:
            _refuse(path, f"it has a {kind} {str(name)[:60]!r} that no cache has")
        if sql != _TEXTS[kind, name, table]:
            _refuse(path, f"its {kind} {name!r} is not what a cache has under that name")
    if "Settings" in names:
        _check_settings(connection, path)
    if "Cache" not in names:
        return False
    rows = connection.execute("SELECT value FROM Cache WHERE key = ?", FORMAT_ROW[:1]).fetchall()
    if not rows and connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone():
        _refuse(path, "it is the cache of another program")
    if rows and rows != [FORMAT_ROW[1:]]:
        found = str(rows[0][0])[:60]
        raise OtherFormatError(
            f"{path}: format {found}, this bt_llm reads {FORMAT_ROW[1]}:"
            " use the bt_llm that wrote it, or another folder with --cache"
        )
    return True


def _check_settings(connection: sqlite3.Connection, path: Path) -> None:
    known = dict.fromkeys(_COUNTERS, 0) | SETTINGS
    for name, value in connection.execute("SELECT key, value FROM Settings"):
        right = name in known and type(value) is type(known[name])
        if not right or (isinstance(value, str) and not value.replace("-", "").isalpha()):
            _refuse(path, f"its setting {str(name)[:40]!r} has the value {str(value)[:40]!r}")


def _refuse(path: Path, problem: str) -> NoReturn:
    raise CacheCorruptError(f"{path}: {problem}; {HOW_TO_RECOVER}")
