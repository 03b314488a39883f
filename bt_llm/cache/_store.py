"""JSON texts by key in a diskcache folder that is trusted with nothing.

The database is written by diskcache and read here, straight from SQLite and without writing anything, so
that a read-only folder can be read and a lookup costs one query. Nothing is ever unpickled: diskcache's own
JSONDisk still unpickles a planted row (CVE-2025-69872), so the `JsonTextDisk` below takes text alone, and
the settings that diskcache reads from the database, and would run as PRAGMAs, are checked before it opens it.

The journal is SQLite's rollback journal, not diskcache's default WAL: the cache is then one file that can be
copied, read in a read-only folder and kept on a network drive. Every write is one transaction, on disk when
it returns (``synchronous=FULL``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import diskcache

from bt_llm.exceptions import CacheCorruptError, CacheError, ConfigError
from bt_llm.locks import IN_SQLITE, ForkableLock
from bt_llm.plain_json import strict_json

__all__ = ["JsonStore", "JsonTextDisk", "Row", "seal", "unseal"]

T = TypeVar("T")
Query = Callable[[str, Collection[Any]], list[tuple[Any, ...]]]

FORMAT = 1
"""Version of the rows; a database of another version is refused."""

MAX_TEXT = 4 * 2**20
"""Longest text of a row, in characters."""

_FORMAT_ROW = ("format", f'{{"bt_llm_cache":{FORMAT}}}')
_LOCK_SECONDS = 120.0
_BUSY_SECONDS = 1.0  # SQLite waits so long at a time, deaf to Ctrl-C
_KEYS_PER_QUERY = 500
_RAW_MODE = 1
_MODES = {0: "nothing", 2: "a binary file", 3: "a text file", 4: "a pickle"}

# All of them are given whenever diskcache opens the database, so that no stored one is ever used.
_SETTINGS: dict[str, int | str] = {
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
_NAMES = {
    "table": {"Cache", "Settings"},
    "index": {"Cache_key_raw", "Cache_expire_time", "sqlite_autoindex_Settings_1"},
    "trigger": {f"Settings_{name}" for name in ("count_insert", "count_delete", "size_insert", "size_update")}
    | {"Settings_size_delete"},
}
_PLANTED = (
    "typeof(key) != 'text' OR raw IS NOT 1 OR mode IS NOT 1 OR filename IS NOT NULL"
    " OR expire_time IS NOT NULL OR typeof(value) != 'text'"
)
_COLUMNS = "rowid, key, raw, mode, filename, expire_time, tag, value"
HOW_TO_RECOVER = "delete that file, then record again or import a pack"
"""What to do about a database that cannot be trusted."""


class Row(NamedTuple):
    """One stored text; `tag` groups rows that are counted and deleted together."""

    key: str
    text: str
    tag: str | None = None


def seal(key: str, body: str) -> str:
    """Return the row of a JSON text: itself, its format version and a hash that shows damage.

    The hash is for damaged files and interrupted copies: who can write the file can write a hash too.
    """
    digest = hashlib.sha256(f"{key}\n{body}".encode()).hexdigest()
    return f'{{"format":{FORMAT},"sha256":"{digest}","content":{body}}}'


def unseal(key: str, text: str) -> Any:
    """Return the content of a row that `seal` made.

    Raises
    ------
    ValueError
        If the row is of another format, damaged, or belongs to another key.

    Examples
    --------
    >>> unseal("a", seal("a", '{"x":1}'))
    {'x': 1}
    >>> unseal("b", seal("a", '{"x":1}'))
    Traceback (most recent call last):
    ValueError: the row is damaged: its SHA-256 is another one
    """
    head, digest_head, end = f'{{"format":{FORMAT},"sha256":"', 64, '","content":'
    start = len(head) + digest_head + len(end)
    body = text[start:-1]
    if text[: len(head)] != head or text[start - len(end) : start] != end or text[-1:] != "}":
        raise ValueError(f"the row does not start with {head}...")
    if hashlib.sha256(f"{key}\n{body}".encode()).hexdigest() != text[len(head) : len(head) + digest_head]:
        raise ValueError("the row is damaged: its SHA-256 is another one")
    return strict_json(body)


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
                f"{self._directory}: the key of a row is {_kind(key, raw)}, expected text: refused unread;"
                f" {HOW_TO_RECOVER}"
            )
        return key

    def store(self, value: Any, read: Any, key: Any = None) -> tuple[int, int, None, str]:
        """Return (size, mode, file name, value) of a row."""
        if read or type(value) is not str:
            raise CacheCorruptError(f"cache value of type {type(value).__name__}: expected text")
        return 0, _RAW_MODE, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> str:
        """Return the value of a row; anything but text in the row is refused unread."""
        if read or mode != _RAW_MODE or filename is not None or type(value) is not str:
            raise CacheCorruptError(
                f"{self._directory}: a row holds {_MODES.get(mode, 'bytes')}, expected text: refused unread;"
                f" {HOW_TO_RECOVER}"
            )
        return value


class _Writer(diskcache.Cache):  # type: ignore[misc, unused-ignore]
    """A diskcache Cache that is opened in one transaction, and without a write where all is in place.

    diskcache commits every setting, table, index and trigger by itself, and every setting again whenever a
    folder is opened: dozens of times that the disk has to be waited for.
    """

    def __init__(self, directory: str) -> None:
        self._opening = True
        try:
            super().__init__(directory, timeout=_BUSY_SECONDS, disk=JsonTextDisk, **_SETTINGS)
        except BaseException:
            self._opening = False
            self.close()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._con
        if self._opening and not connection.in_transaction:
            self._begin(connection)
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {1000 * _BUSY_SECONDS:.0f}")
        for name in ("journal_mode", "synchronous"):  # cannot be changed within a transaction
            connection.execute(f"PRAGMA {name} = {_SETTINGS[f'sqlite_{name}']}")
        connection.execute("BEGIN")
        # Of a new file it has to come before the first page; of any it takes the lock for writing.
        connection.execute(f"PRAGMA auto_vacuum = {_SETTINGS['sqlite_auto_vacuum']}")
        self._before = _made(connection)

    def close(self) -> None:
        """Close the connection; the one that opened the folder ends its transaction first."""
        connection = getattr(self._local, "con", None)
        if self._opening and connection is not None:
            connection.execute(
                "INSERT OR IGNORE INTO Cache (key, raw, mode, value) VALUES (?, 1, ?, ?)",
                (_FORMAT_ROW[0], _RAW_MODE, _FORMAT_ROW[1]),
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


def _kind(key: Any, raw: Any) -> str:
    return "a pickle" if not raw else f"of type {type(key).__name__}"


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
        if os.path.expandvars(self.directory) != str(self.directory):  # diskcache would write elsewhere
            raise ConfigError(
                f"cache folder {self.directory}: a variable in it is not replaced; write it out"
            )
        self._writer: diskcache.Cache | None = None
        self._lock = ForkableLock()

    def close(self) -> None:
        """Forget the opened writer; the next write opens it again."""
        with self._lock:
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
        with self._reading() as query:
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
            with self._reading() as query:
                if last is None:
                    self._look_for_planted(query)
                sql = f"SELECT {_COLUMNS} FROM Cache WHERE key > ? ORDER BY key LIMIT {_KEYS_PER_QUERY}"
                rows = [self._checked(row) for row in query(sql, (last or "",))]
            if not rows:
                return
            yield from (row for row in rows if row.key != _FORMAT_ROW[0])
            last = rows[-1].key

    def keys(self, *, prefix: str = "", tag: str | None = None) -> list[str]:
        """Return the sorted keys that begin with `prefix`, of one tag or any."""
        condition, values = "key >= ? AND key < ?", [prefix, f"{prefix}\U0010ffff"]
        if tag is not None:
            condition, values = f"{condition} AND tag = ?", [*values, tag]
        with self._reading() as query:
            if not prefix:
                self._look_for_planted(query)
            rows = query(f"SELECT key FROM Cache WHERE {condition} ORDER BY key", values)
        return [str(key) for (key,) in rows if key != _FORMAT_ROW[0]]

    def tags(self) -> dict[str, int]:
        """Return how many rows each tag has."""
        with self._reading() as query:
            rows = query("SELECT tag, COUNT(*) FROM Cache WHERE tag IS NOT NULL GROUP BY tag", ())
        return {str(tag): int(count) for tag, count in rows}

    def damage(self) -> list[str]:
        """Return what SQLite's own integrity check finds, which reads the whole file; empty when sound."""
        with self._reading() as query:
            return [str(line) for (line,) in query("PRAGMA integrity_check(20)", ()) if line != "ok"]

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
                    attempt(cache)
            finally:
                cache.close()  # rolls back what a failed COMMIT or a Ctrl-C left open

        with self._lock, IN_SQLITE:
            self._patiently(transaction, action)

    def _opened(self) -> diskcache.Cache:
        if self._writer is None:
            with self._reading():  # checks the database before diskcache acts on what is in it
                pass
            self._writer = _Writer(str(self.directory))
        return self._writer

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Query]:
        with IN_SQLITE:
            yield from self._queries()

    def _queries(self) -> Iterator[Query]:
        if not self._patiently(self.path.exists, "looking for it"):
            yield lambda sql, values: []
            return
        connection = self._patiently(self._connect, "reading it")
        try:
            if not self._patiently(lambda: self._inspect(connection), "reading it"):
                yield lambda sql, values: []
                return
            yield lambda sql, values: self._patiently(
                lambda: connection.execute(sql, tuple(values)).fetchall(), "reading it"
            )
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._sqlite("ro")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") != "SQLITE_READONLY_ROLLBACK":
                raise
        self._sqlite("rw").close()  # undoes what a killed process left half done
        return self._sqlite("ro")

    def _sqlite(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * MAX_TEXT)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _inspect(self, connection: sqlite3.Connection) -> bool:
        """Check that it is a database of ours, not a trap; return whether it has its tables yet."""
        names = set()
        for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
            names.add(name)
            ordinary = sql is None or str(sql).upper().startswith(f"CREATE {kind.upper()} ")
            if name not in _NAMES.get(kind, ()) and not (kind == "index" and name == "Cache_tag_rowid"):
                self._refuse(f"it has a {kind} {name!r} that no cache has")
            if not ordinary and not str(sql).upper().startswith("CREATE UNIQUE INDEX "):
                self._refuse(f"its {kind} {name!r} is not an ordinary one")
        if "Settings" in names:
            self._check_settings(connection)
        if "Cache" not in names:
            return False
        rows = connection.execute("SELECT value FROM Cache WHERE key = ?", _FORMAT_ROW[:1]).fetchall()
        if not rows and connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone():
            self._refuse("it is the cache of another program")
        if rows and rows != [_FORMAT_ROW[1:]]:
            found = str(rows[0][0])[:60]
            raise CacheError(
                f"{self.path}: format {found}, this bt_llm reads {_FORMAT_ROW[1]}:"
                " use the bt_llm that wrote it, or another folder with --cache"
            )
        return True

    def _check_settings(self, connection: sqlite3.Connection) -> None:
        known = dict.fromkeys(_COUNTERS, 0) | _SETTINGS
        for name, value in connection.execute("SELECT key, value FROM Settings"):
            right = name in known and type(value) is type(known[name])
            if not right or (isinstance(value, str) and not value.replace("-", "").isalpha()):
                self._refuse(f"its setting {str(name)[:40]!r} has the value {str(value)[:40]!r}")

    def _look_for_planted(self, query: Query) -> None:
        for row in query(f"SELECT {_COLUMNS} FROM Cache WHERE {_PLANTED} LIMIT 1", ()):
            self._checked(row)

    def _checked(self, row: tuple[Any, ...]) -> Row:
        rowid, key, raw, mode, filename, expires, tag, value = row
        if type(key) is not str or raw != 1:
            self._refuse(f"row {rowid}: its key is {_kind(key, raw)}, expected text: refused unread")
        if mode != _RAW_MODE or filename is not None or type(value) is not str:
            held = _MODES.get(mode, f"a value of type {type(value).__name__}")
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
            except (sqlite3.Error, sqlite3.Warning, diskcache.Timeout, OSError) as error:
                cause = _root(error)
                name = getattr(cause, "sqlite_errorname", "")
                if not name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or time.monotonic() > deadline:
                    raise self._explained(cause, name, action) from error
            time.sleep(0.005)

    def _explained(self, cause: BaseException, name: str, action: str) -> CacheError:
        failed = f"{self.path}: {action} failed ({cause})"
        elsewhere = "choose another folder with --cache or BT_LLM_CACHE_DIR"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return CacheError(
                f"{failed}: another process has held it for {_LOCK_SECONDS:g} s; end it, or {elsewhere}"
            )
        if name == "SQLITE_READONLY_ROLLBACK":
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


def _root(error: BaseException) -> BaseException:
    """Return the first error of a chain: diskcache hides it behind its Timeout and a failed ROLLBACK."""
    while isinstance(error.__context__, sqlite3.Error):
        error = error.__context__
    return error
