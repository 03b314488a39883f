from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diskcache
import pytest

from bt_llm.cache import _store as store_module
from bt_llm.cache._database import SETTINGS
from bt_llm.cache._rows import MAX_TEXT, Row
from bt_llm.cache._store import JsonStore
from bt_llm.cache._writer import JsonTextDisk
from bt_llm.exceptions import CacheCorruptError, CacheError, ConfigError


@pytest.fixture
def store(tmp_path: Path) -> JsonStore:
    """A store with three rows."""
    filled = JsonStore(tmp_path / "cache")
    write(filled, Row("a", "1", "x"), Row("b", "2", "x"), Row("c", "3"))
    return filled


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder whose files can be read and not written, by a user who is not root."""
    folder = Path(tempfile.mkdtemp())
    write(JsonStore(folder / "cache"), Row("a", "1"))
    for path, mode in ((folder, 0o755), (folder / "cache", 0o555), (folder / "cache" / "cache.db", 0o444)):
        path.chmod(mode)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write anywhere
    yield folder / "cache"
    if root:
        os.seteuid(0)
    (folder / "cache").chmod(0o755)
    shutil.rmtree(folder)


def write(store: JsonStore, *rows: Row) -> None:
    store.update([], lambda stored: rows, action="testing")


def sql(store: JsonStore, statement: str, *values: Any) -> None:
    """Change the database behind the store's back."""
    with sqlite3.connect(store.path) as connection:
        connection.execute(statement, values)
    connection.close()


def bomb(path: Path) -> bytes:
    """A pickle that makes a folder when it is loaded."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(path),)

    return pickle.dumps(Bomb())


def plant(store: JsonStore, key: Any, raw: int, mode: int, filename: str | None, value: Any) -> None:
    sql(
        store,
        "INSERT INTO Cache (key, raw, mode, filename, value) VALUES (?, ?, ?, ?, ?)",
        *(key, raw, mode, filename, value),
    )


def test_rows_are_read_back_in_the_order_asked_for(store: JsonStore) -> None:
    assert store.read(["c", "missing", "a", "a"]) == {"c": Row("c", "3"), "a": Row("a", "1", "x")}
    assert list(store.read(["c", "a"])) == ["c", "a"]
    assert [row.key for row in store.scan()] == ["a", "b", "c"]
    assert store.keys(tag="x") == ["a", "b"]
    assert store.keys(prefix="c") == ["c"]
    assert store.tags() == {"x": 2}
    assert store.damage() == []


def test_many_rows_are_read_and_scanned_in_pages(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    rows = [Row(f"{number:04}", str(number)) for number in range(1203)]
    write(store, *rows)
    assert list(store.scan()) == rows
    assert list(store.read([row.key for row in rows]).values()) == rows


def test_an_update_sees_what_is_stored_and_a_failed_one_changes_nothing(store: JsonStore) -> None:
    def fails(stored: Any) -> Iterator[Row]:
        assert stored == {"a": "1"}
        yield Row("a", "changed")
        raise CacheError("stop")

    with pytest.raises(CacheError, match="stop"):
        store.update(["a", "zz"], fails, action="testing")
    assert store.read(["a"])["a"].text == "1"


def test_rows_are_deleted(store: JsonStore) -> None:
    assert store.delete(["a", "c", "missing"]) == 2
    assert store.keys() == ["b"]
    assert store.delete(["missing"]) == 0
    assert JsonStore(store.directory / "nothing").delete(["a"]) == 0


def test_a_text_that_is_too_long_is_refused_before_it_is_stored(store: JsonStore) -> None:
    with pytest.raises(CacheError, match=f"at most {MAX_TEXT} fit"):
        write(store, Row("long", "x" * (MAX_TEXT + 1)))
    assert store.keys() == ["a", "b", "c"]


def commits(store: JsonStore) -> int:
    """How often the file was written: SQLite counts it in the file's header."""
    return int.from_bytes(store.path.read_bytes()[24:28], "big")


def test_opening_a_folder_is_one_transaction_and_opening_it_again_is_none(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    store.prepare()
    assert commits(store) == 1
    write(store, Row("a", "1"))
    assert commits(store) == 2
    again = JsonStore(tmp_path)
    again.prepare()
    assert commits(again) == 2
    write(again, Row("b", "2"))
    assert commits(again) == 3
    assert not list(tmp_path.glob("*-journal"))


def test_a_folder_that_was_opened_is_as_diskcache_makes_it(store: JsonStore, tmp_path: Path) -> None:
    with diskcache.Cache(str(tmp_path / "plain"), **SETTINGS) as plain:
        plain.set("format", "text")
    made = []
    for path in (store.path, tmp_path / "plain" / "cache.db"):
        connection = sqlite3.connect(path)
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        settings = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
        pragmas = [
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("auto_vacuum", "journal_mode")
        ]
        made.append((schema, settings | {"count": 0}, pragmas))
        connection.close()
    assert made[0] == made[1]


def test_a_setting_that_was_changed_is_set_again(store: JsonStore) -> None:
    sql(store, "UPDATE Settings SET value = 5 WHERE key = 'cull_limit'")
    JsonStore(store.directory).prepare()
    connection = sqlite3.connect(store.path)
    assert connection.execute("SELECT value FROM Settings WHERE key = 'cull_limit'").fetchall() == [(0,)]
    connection.close()


def test_reading_makes_nothing(tmp_path: Path) -> None:
    store = JsonStore(tmp_path / "no" / "cache")
    assert (store.read(["a"]), list(store.scan()), store.keys(), store.tags()) == ({}, [], [], {})
    assert not (tmp_path / "no").exists()


def test_an_empty_file_is_a_cache_that_was_not_written_yet(tmp_path: Path) -> None:
    (tmp_path / "cache.db").touch()
    store = JsonStore(tmp_path)
    assert store.keys() == []
    write(store, Row("a", "1"))
    assert store.keys() == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="expandvars differs")
def test_a_folder_that_diskcache_would_rename_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN", "elsewhere")
    with pytest.raises(ConfigError, match="write it out"):
        JsonStore("/tmp/$HIDDEN")


# Rows that somebody else put there.


def test_a_pickle_in_a_value_is_refused_unread(store: JsonStore, tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    sql(store, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'b'", bomb(trap))
    for read in (lambda: store.read(["b"]), lambda: list(store.scan()), store.keys, lambda: overwrite(store)):
        with pytest.raises(
            CacheCorruptError, match=r"a pickle.*expected text: refused unread; bt-llm cache repair"
        ):
            read()
    assert store.read(["a"])["a"].text == "1"
    assert not trap.exists()
    with diskcache.Cache(str(store.directory)) as careless:
        careless.get("b")
    assert trap.exists(), "the trap works on a plain diskcache"


def overwrite(store: JsonStore) -> None:
    store.update(["b"], lambda stored: [Row("b", "new")], action="testing")


def test_a_pickle_in_a_key_is_refused_unread(store: JsonStore, tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    plant(store, bomb(trap), 0, 1, None, "text")
    for read in (lambda: list(store.scan()), store.keys):
        with pytest.raises(CacheCorruptError, match="its key is a pickle, expected text: refused unread"):
            read()
    assert not trap.exists()
    with diskcache.Cache(str(store.directory)) as careless:
        list(careless)
    assert trap.exists(), "the trap works on a plain diskcache"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("z", 1, 4, "evil.val", None), "holds a pickle"),
        (("z", 1, 3, "../../etc/passwd", None), "holds a text file"),
        (("z", 1, 2, "evil.val", None), "holds a binary file"),
        (("z", 1, 1, None, b"bytes"), "holds a value of type bytes"),
        (("z", 1, 1, None, 7), "holds a value of type int"),
        (("z", 1, 0, None, "text"), "holds nothing"),
        (("z", 1, 1, "file", "text"), "holds a value of type str"),
        (("z", 0, 1, None, "text"), "its key is a pickle"),
        ((b"z", 1, 1, None, "text"), "its key is of type bytes"),
        ((7, 1, 1, None, "text"), "its key is of type int"),
        ((None, 1, 1, None, "text"), "its key is of type NoneType"),
    ],
)
def test_planted_rows_are_refused(store: JsonStore, row: tuple[Any, ...], message: str) -> None:
    plant(store, *row)
    with pytest.raises(CacheCorruptError, match=message):
        list(store.scan())
    if isinstance(row[0], str):
        with pytest.raises(CacheCorruptError, match=message):
            store.read(["z"])


def test_an_expiry_or_a_tag_that_is_no_text_is_refused(store: JsonStore) -> None:
    sql(store, "UPDATE Cache SET expire_time = 1 WHERE key = 'a'")
    sql(store, "UPDATE Cache SET tag = 7 WHERE key = 'b'")
    for key in "ab":
        with pytest.raises(CacheCorruptError, match="an expiry or a tag that no row has"):
            store.read([key])


def test_a_text_that_is_not_utf8_is_refused(store: JsonStore) -> None:
    sql(store, "UPDATE Cache SET value = CAST(x'ff' AS TEXT) WHERE key = 'a'")
    with pytest.raises(CacheCorruptError, match="expected a SQLite database written by bt_llm"):
        store.read(["a"])


def test_a_row_that_is_far_too_long_is_refused(store: JsonStore) -> None:
    sql(store, f"UPDATE Cache SET value = printf('%.{3 * MAX_TEXT}c', 'x') WHERE key = 'a'")
    with pytest.raises(CacheCorruptError, match="too big"):
        store.read(["a"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sqlite_writable_schema", 1),
        ("sqlite_synchronous = 0; --", 1),
        ("sqlite_synchronous", "0; --"),
        ("disk_anything", 1),
        ("_disk", "text"),
        ("unknown", None),
        ("sqlite_journal_mode", "wal; DROP TABLE Cache"),
    ],
)
def test_settings_that_diskcache_would_act_on_are_refused(store: JsonStore, name: str, value: Any) -> None:
    sql(store, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", name, value)
    for act in (lambda: store.read(["a"]), lambda: write(JsonStore(store.directory), Row("d", "4"))):
        with pytest.raises(CacheCorruptError, match="its setting"):
            act()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END", "a trigger 'evil'"),
        ("CREATE VIEW Other AS SELECT 1", "a view 'Other'"),
        ("CREATE TABLE Other (x)", "a table 'Other'"),
        ("CREATE INDEX Cache_tag_rowid ON Cache(tag, rowid) WHERE tag > 'x'", "its index 'Cache_tag_rowid'"),
    ],
)
def test_things_that_no_cache_has_are_refused(store: JsonStore, statement: str, message: str) -> None:
    sql(store, statement)
    with pytest.raises(CacheCorruptError, match=message):
        store.read(["a"])


ENDLESS = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)"


@pytest.mark.parametrize(
    "body",
    [
        "DELETE FROM Cache WHERE key <> 'format' AND rowid <> new.rowid",
        "DELETE FROM Cache WHERE rowid = new.rowid",
        f"DELETE FROM Cache WHERE key = {ENDLESS}",
        'UPDATE Settings SET value = value + 1 WHERE key = "count"; SELECT 1',
    ],
)
def test_a_trigger_of_a_known_name_and_another_text_is_refused_and_never_run(
    store: JsonStore, body: str
) -> None:
    opened = JsonStore(store.directory)
    opened.prepare()  # it was sound when it was opened, and is changed by another process
    sql(store, "DROP TRIGGER Settings_count_insert")
    sql(
        store,
        f"CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache FOR EACH ROW BEGIN {body}; END",
    )
    for act in (store.keys, lambda: write(opened, Row("d", "4")), lambda: write(store, Row("d", "4"))):
        with pytest.raises(
            CacheCorruptError, match="its trigger 'Settings_count_insert' is not what a cache"
        ):
            act()
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM Cache").fetchone() == (4,)
    connection.close()


def test_no_connection_trusts_what_stands_in_the_file(
    store: JsonStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remembered(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **options))
        return opened[-1]

    trusting: list[Any] = []
    close = diskcache.Cache.close

    def asked(cache: Any) -> None:
        if (connection := getattr(cache._local, "con", None)) is not None:
            trusting.append(connection.execute("PRAGMA trusted_schema").fetchone())
        close(cache)

    monkeypatch.setattr(sqlite3, "connect", remembered)
    monkeypatch.setattr(diskcache.Cache, "close", asked)
    write(JsonStore(store.directory), Row("d", "4"))
    assert trusting
    assert set(trusting) == {(0,)}
    reading = store._sqlite("ro")
    assert reading.execute("PRAGMA trusted_schema").fetchone() == (0,)
    reading.close()
    assert len(opened) == 4  # to inspect it, to open it, to write to it; and the last one


@pytest.mark.parametrize("keyword", [b"CREATE TABLE Cache", b"CREATE TRIGGER", b"Cache_key_raw ON"])
def test_a_schema_that_is_no_text_is_one_line(store: JsonStore, keyword: bytes) -> None:
    data = bytearray(store.path.read_bytes())
    data[data.index(keyword) + 3] = 0xD4
    store.path.write_bytes(data)
    for act in (store.keys, store.damage, lambda: write(JsonStore(store.directory), Row("d", "4"))):
        with pytest.raises(CacheCorruptError):
            act()


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes and devices")
@pytest.mark.parametrize("name", ["cache.db", "cache.db-journal"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_before_it_is_opened(
    store: JsonStore, tmp_path: Path, name: str, kind: str
) -> None:
    file = store.directory / name
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    for act in (store.keys, lambda: write(JsonStore(store.directory), Row("d", "4"))):
        with pytest.raises(CacheCorruptError, match=f"{name}: it is no ordinary file"):
            act()


def test_a_folder_with_a_nul_in_its_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        JsonStore(f"{tmp_path}/a\0b")


def test_a_virtual_table_in_the_place_of_an_ordinary_one_is_refused(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    sql(store, "CREATE VIRTUAL TABLE Settings USING fts5(x)")
    with pytest.raises(CacheCorruptError, match="Settings"):
        store.keys()


def test_the_disk_takes_text_alone(tmp_path: Path) -> None:
    disk = JsonTextDisk(str(tmp_path))
    assert disk.get(*disk.put("key")) == "key"
    _, mode, filename, value = disk.store("text", False)
    assert disk.fetch(mode, filename, value, False) == "text"
    for refused in (
        lambda: disk.put(b"key"),
        lambda: disk.put(1),
        lambda: disk.get(b"key", True),
        lambda: disk.get("key", False),
        lambda: disk.store(b"value", False),
        lambda: disk.store("value", True),
        lambda: disk.store({"x": 1}, False),
        lambda: disk.fetch(4, None, b"x", False),
        lambda: disk.fetch(2, "x", None, False),
        lambda: disk.fetch(3, "x", None, False),
        lambda: disk.fetch(1, None, b"x", False),
        lambda: disk.fetch(1, None, "x", True),
    ):
        with pytest.raises(CacheCorruptError, match="expected text"):
            refused()


# A file that is not what it was.


def test_a_cache_of_another_program_is_refused(tmp_path: Path) -> None:
    with diskcache.Cache(str(tmp_path), disk_min_file_size=100, eviction_policy="none") as other:
        other["x"] = "y"
    store = JsonStore(tmp_path)
    for act in (store.keys, lambda: write(store, Row("a", "1"))):
        with pytest.raises(CacheCorruptError, match="the cache of another program"):
            act()


def test_another_format_is_refused_and_left_as_it_is(store: JsonStore) -> None:
    sql(store, "UPDATE Cache SET value = ? WHERE key = 'format'", '{"bt_llm_cache":2}')
    before = store.path.read_bytes()
    for act in (lambda: store.read(["a"]), lambda: write(JsonStore(store.directory), Row("d", "4"))):
        with pytest.raises(CacheError, match=r'format \{"bt_llm_cache":2\}, this bt_llm reads'):
            act()
    assert store.path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"garbage " * 1000)
    store = JsonStore(tmp_path)
    for act in (store.keys, lambda: write(store, Row("a", "1"))):
        with pytest.raises(CacheCorruptError, match=r"file is not a database.*cache repair"):
            act()
    assert store.path.read_bytes() == b"garbage " * 1000


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    write(store, *(Row(f"{n:03}", "x" * 500) for n in range(200)))
    whole = store.path.read_bytes()
    for kept in (50, 1000, 4096, len(whole) // 2, len(whole) - 4096):
        store.path.write_bytes(whole[:kept])
        with pytest.raises(CacheCorruptError):
            list(store.scan())


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    write(store, *(Row(f"{n:03}", "x" * 500) for n in range(200)))
    data = bytearray(store.path.read_bytes())
    for page in range(8, len(data) // 4096 - 1):  # leave the schema and the settings whole
        data[page * 4096 : page * 4096 + 200] = b"\xaa" * 200
    store.path.write_bytes(bytes(data))
    try:
        found = store.damage()
    except CacheCorruptError:
        found = ["malformed"]
    assert found


def hot_journal(store: JsonStore, target: Path) -> None:
    """Copy the store as a process leaves it that is killed in the middle of writing pages."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE Cache SET value = value || 'changed' WHERE key != 'format'")
    connection.execute(
        "WITH n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO Cache"
        " (key, raw, mode, value) SELECT 'new' || i, 1, 1, printf('%.1000c', 'x') FROM n"
    )
    shutil.copytree(store.directory, target)
    connection.execute("ROLLBACK")
    connection.close()
    assert (target / "cache.db-journal").stat().st_size > 0
    assert (target / "cache.db").read_bytes() != store.path.read_bytes()


def test_a_write_that_was_cut_off_is_undone_by_the_next_read(store: JsonStore, tmp_path: Path) -> None:
    hot_journal(store, tmp_path / "killed")
    killed = JsonStore(tmp_path / "killed")
    assert list(killed.scan()) == list(store.scan())
    assert killed.damage() == []


def test_a_write_that_is_cut_off_while_another_process_reads_is_undone_too(
    store: JsonStore, tmp_path: Path
) -> None:
    hot_journal(store, tmp_path / "killed")
    whole = list(store.scan())
    with store.reading() as query:
        for file in (tmp_path / "killed").iterdir():
            shutil.copyfile(file, store.directory / file.name)
        assert query("SELECT COUNT(*) FROM Cache WHERE key != 'format'", ()) == [(len(whole),)]
    assert list(store.scan()) == whole


def test_a_write_that_was_cut_off_in_a_folder_that_cannot_be_written_is_named(
    store: JsonStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hot_journal(store, tmp_path / "killed")
    killed = JsonStore(tmp_path / "killed")
    read_only = killed._sqlite
    monkeypatch.setattr(killed, "_sqlite", lambda mode: read_only("ro"))
    with pytest.raises(CacheError, match="a killed process left it half written; copy the folder"):
        killed.keys()


# A folder that cannot be written, and a lock.


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_read_only_folder_is_read_and_not_written(locked: Path) -> None:
    store = JsonStore(locked)
    assert store.read(["a"])["a"].text == "1"
    for act in (store.prepare, lambda: write(store, Row("b", "2"))):
        with pytest.raises(CacheError, match=r"readonly.*BT_LLM_CACHE_MODE=replay.*--cache"):
            act()
    with pytest.raises(CacheError, match=r"opening it for writing failed .*--cache"):
        JsonStore(locked / "sub").prepare()
    assert os.listdir(locked) == ["cache.db"]


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(CacheError, match="opening it for writing failed"):
        JsonStore(tmp_path / "cache").prepare()


def test_a_lock_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_BUSY_SECONDS", 0.01)
    store = JsonStore(tmp_path)
    write(store, Row("a", "1"))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    tries = iter((True, True, False))
    with monkeypatch.context() as patch:
        patch.setattr(store_module.time, "sleep", lambda _: None if next(tries) else other.execute("COMMIT"))
        assert store.read(["a"])["a"].text == "1"
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(store_module, "_LOCK_SECONDS", 0.0)
    with pytest.raises(CacheError, match="another process has held it for 0 s; end it, or choose another"):
        write(store, Row("b", "2"))
    other.execute("COMMIT")
    other.close()
    write(store, Row("b", "2"))
    assert store.keys() == ["a", "b"]


def test_what_is_damaged_is_said_in_one_line(store: JsonStore) -> None:
    sql(store, "UPDATE Cache SET value = CAST(x'0a0aff0a' AS TEXT) WHERE key = 'a'")
    with pytest.raises(CacheCorruptError) as caught:
        store.read(["a"])
    assert "\n" not in str(caught.value)
    data = bytearray(store.path.read_bytes())
    data[36:40] = b"\0\1\0\0"  # the number of free pages
    store.path.write_bytes(data)
    assert store.damage() == ["Main freelist: size is 0 but should be 65536"]
