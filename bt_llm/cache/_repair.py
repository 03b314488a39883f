"""A damaged cache written anew with all that is sound in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bt_llm.cache._carving import carve
from bt_llm.cache._database import OtherFormatError, check_files
from bt_llm.cache._models import checked_model
from bt_llm.cache._records import Question, Record
from bt_llm.cache._rows import FORMAT_ROW, Row, unseal
from bt_llm.cache._store import JsonStore
from bt_llm.exceptions import CacheCorruptError, CacheError
from bt_llm.plain_json import strict_json

__all__ = ["RepairReport", "repair_cache"]

_KEY = re.compile(r"[0-9a-f]{64}")
_MODEL = "model:"
_ROWS_PER_QUERY = 500
_UNFINISHED = ".repair-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What `repair_cache` did.

    Parameters
    ----------
    verdicts : int
        Verdicts and generated texts that are sound.
    others : int
        Other rows that are: identities of models, remembered facts of files.
    lost : tuple of str
        Keys of rows that are not, sorted, as far as the keys can be read.
    counted : int or None
        Rows that the damaged file said to have; None where that cannot be read.
    damaged : Path or None
        Where the damaged file is kept; None where nothing was wrong, and nothing was changed.
    """

    verdicts: int
    others: int
    lost: tuple[str, ...]
    counted: int | None
    damaged: Path | None


def repair_cache(directory: str | os.PathLike[str]) -> RepairReport:
    """Write a damaged cache anew with every row that is sound by its digest; the old file stays beside it.

    Where SQLite can read the file, its rows are taken. Where it cannot, they are looked for in its bytes;
    then a verdict that was deleted shortly before may come back, and of one that was asked again both answers
    may be found: the later one is kept. Nothing may write to the folder meanwhile.

    Parameters
    ----------
    directory : path
        The cache folder.

    Raises
    ------
    CacheCorruptError
        If nothing in it is sound; it is left as it is.
    CacheError
        If there is no cache, or it cannot be read or written.
    """
    store = JsonStore(directory)
    check_files(store.path)
    if not store.path.is_file():
        raise CacheError(f"{store.directory}: no cache to repair; expected a folder with a cache.db")
    for left in store.directory.glob(f"{_UNFINISHED}*"):  # by a repair that was killed
        shutil.rmtree(left, ignore_errors=True)
    found = _Found()
    _read(store, found)
    if not found.in_order:
        _carve(store.path, found)
    rows = {**found.carved, **found.rows}
    damaged = None
    if not found.in_order or found.to_rewrite:
        if not rows:
            raise CacheCorruptError(f"{store.path}: nothing in it is sound; it is left as it is")
        damaged = _replace(store, list(rows.values()))
    verdicts = sum(_KEY.fullmatch(key) is not None for key in rows)
    lost = tuple(sorted(found.unsound - rows.keys()))
    return RepairReport(
        verdicts=verdicts, others=len(rows) - verdicts, lost=lost, counted=found.counted, damaged=damaged
    )


@dataclass(slots=True)
class _Found:
    """Sound rows that SQLite gave, and those found in the bytes; keys of unsound ones; the file's state."""

    rows: dict[str, Row] = field(default_factory=dict)
    carved: dict[str, Row] = field(default_factory=dict)
    unsound: set[str] = field(default_factory=set)
    in_order: bool = False
    to_rewrite: bool = False
    counted: int | None = None

    def take(self, key: Any, raw: Any, mode: Any, filename: Any, expires: Any, tag: Any, value: Any) -> None:
        """Keep a row that SQLite gave, if it is sound; what is not as it should be is written anew."""
        keys = [key] if type(key) is str else []
        row = _sound(value, keys) if type(value) is str else None
        if row is not None:
            self.rows[row.key] = row
        else:
            self.unsound.update(keys)
        if row is None or (*row, 1, 1, None, None) != (key, value, tag, raw, mode, filename, expires):
            self.to_rewrite = True

    def take_carved(self, text: str, keys: list[str]) -> bool:
        """Keep a row that was found in the bytes, the later one of two; return whether it is sound."""
        row = _sound(text, keys)
        if row is None:
            return False
        before = self.carved.get(row.key)
        if before is None or _age(before) <= _age(row):
            self.carved[row.key] = row
        return True


def _read(store: JsonStore, found: _Found) -> None:
    """Take what SQLite gives; what it refuses leaves the file not in order."""
    with contextlib.suppress(CacheCorruptError, OtherFormatError), store.reading() as query:
        whole = query("PRAGMA integrity_check(1)", ()) == [("ok",)]
        for (count,) in query("SELECT value FROM Settings WHERE key = 'count'", ()):
            found.counted = count - 1  # the row of the format
        last = 0
        while rows := query(
            "SELECT rowid, key, raw, mode, filename, expire_time, tag, value FROM Cache"
            f" WHERE rowid > ? ORDER BY rowid LIMIT {_ROWS_PER_QUERY}",
            (last,),
        ):
            for _, *columns in rows:
                if columns[0] != FORMAT_ROW[0]:
                    found.take(*columns)
            last = rows[-1][0]
        found.in_order = whole


def _carve(path: Path, found: _Found) -> None:
    """Look for rows in the bytes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CacheError(f"{path}: cannot be read ({error.strerror or error})") from error
    for keys in carve(data, found.take_carved):
        found.unsound.update(key for key in keys[:1] if _KEY.fullmatch(key))


def _sound(text: str, keys: list[str]) -> Row | None:
    """Return the row of a text whose digest is right, under the key of its content, or one of those."""
    try:
        content = strict_json(text)["content"]
        own = _own_key(content)
    except (CacheError, ValueError, TypeError, KeyError):
        return None
    for key in keys if own is None else [own]:
        with contextlib.suppress(CacheError, ValueError):
            content = unseal(key, text)
            if _KEY.fullmatch(key):
                return Row(key, text, Record.from_content(key, content).question.model_sha256)
            if key.startswith(_MODEL):
                checked_model(key.removeprefix(_MODEL), content)
            return Row(key, text)
    return None


def _own_key(content: Any) -> str | None:
    """Return the key of a verdict or of a model, which its content says."""
    if "question" in content:
        return Question.from_document(content["question"]).key
    return f"{_MODEL}{content['sha256']}" if "names" in content and "sha256" in content else None


def _age(row: Row) -> tuple[str, int]:
    """Return what is larger for the later one of two rows of one key."""
    content = strict_json(row.text)["content"]
    return str(content.get("provenance", {}).get("written", "")), len(content.get("names", ()))


def _replace(store: JsonStore, rows: list[Row]) -> Path:
    """Put a database of these rows in the place of the damaged one; return where that is kept."""
    path = store.path
    try:
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=store.directory))
        try:
            fresh = JsonStore(folder)
            fresh.update([], lambda _: rows, action="writing what is sound")
            fresh.close()
            kept = next(
                name
                for number in itertools.count(1)
                if not (name := path.with_name(f"{path.name}.damaged-{number}")).exists()
            )
            try:
                os.link(path, kept)  # so that at no moment a name is without its file
            except OSError:
                shutil.copy2(path, kept)
            for suffix in ("-journal", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{path}{suffix}", f"{kept}{suffix}")
            os.replace(fresh.path, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise CacheError(
            f"{store.directory}: cannot be repaired ({error.strerror or error}); free some space, or copy "
            "the folder to where it can be written"
        ) from error
    return kept
