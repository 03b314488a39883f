"""What is sound in a damaged cache is kept, the rest is said, and nothing else is lost."""

from __future__ import annotations

import os
import pickle
import sqlite3
from pathlib import Path

import pytest

from bt_llm.cache import VerdictCache, repair_cache
from bt_llm.exceptions import CacheCorruptError, CacheError
from tests.cache.flipped_bits import Tally, count, flip_and_repair, pristine, ranges
from tests.cache_cases import MODEL, identity, question, record
from tests.cache_cases import verdict as verdict_of

PAGE = 4096


def sql(folder: Path, *statements: str) -> None:
    """Change the database behind the cache's back."""
    with sqlite3.connect(folder / "cache.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache with five verdicts, the identity of their model, and a document."""
    cache = VerdictCache(tmp_path / "cache")
    cache.put_many([record(number) for number in range(5)])
    cache.put_model(identity())
    cache.put_document("facts", "models/a.gguf", {"size": 7})
    return cache.directory


def stored(folder: Path) -> set[str]:
    cache = VerdictCache(folder)
    cache.check()
    assert all(one == record(number) for number, one in enumerate(sorted(cache.records(), key=_number)))
    return {one.key for one in cache.records()}


def _number(one: object) -> int:
    return int(one.question.prompt[1].removeprefix("Trend: "))  # type: ignore[attr-defined]


def test_every_verdict_without_a_flipped_bit_comes_back(tmp_path: Path) -> None:
    tally = flip_and_repair(tmp_path, 40, rows=25)
    assert tally.files == 40
    assert tally.unread > 10  # the others have their bits where nothing stands
    assert tally.sound > 900
    assert (tally.recovered, tally.wrong) == (tally.sound, 0)


def test_the_head_of_the_file_and_its_links_can_be_lost(tmp_path: Path) -> None:
    records, tally = pristine(tmp_path / "pristine", 24), Tally()
    where = ranges(tmp_path / "pristine")
    whole = (tmp_path / "pristine" / "cache.db").read_bytes()
    links = [pieces[0].stop for pieces in where.values() if len(pieces) > 1]
    further = [pieces[1].start - 4 for pieces in where.values() if len(pieces) > 2]
    assert links
    assert further
    # The page size, the encoding, the first bytes of the schema; pages' kinds; links to the next page.
    for place in (
        0,
        16,
        18,
        28,
        59,
        101,
        PAGE,
        4 * PAGE,
        4 * PAGE + 4,
        *links[:4],
        links[0] + 3,
        *further[:3],
    ):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        count(tally, tmp_path / "damaged", bytes(damaged), records, list(records))
    assert (tally.recovered, tally.wrong) == (tally.sound, 0)


def test_a_cache_without_damage_is_left_as_it_is(folder: Path) -> None:
    before = (folder / "cache.db").read_bytes()
    report = repair_cache(folder)
    assert (report.verdicts, report.others, report.lost, report.damaged) == (5, 2, (), None)
    assert (folder / "cache.db").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["cache.db"]


def test_a_damaged_verdict_is_named_and_the_damaged_file_kept(folder: Path) -> None:
    key = question(3).key
    sql(folder, f"UPDATE Cache SET value = replace(value, 'bearish', 'bearisH') WHERE key = '{key}'")
    before = (folder / "cache.db").read_bytes()
    report = repair_cache(folder)
    assert (report.verdicts, report.others, report.lost, report.counted) == (4, 2, (key,), 7)
    assert report.damaged == folder / "cache.db.damaged-1"
    assert report.damaged.read_bytes() == before
    assert question(3).key not in {one.key for one in VerdictCache(folder).records()}
    assert VerdictCache(folder).get_document("facts", "models/a.gguf") == {"size": 7}
    assert VerdictCache(folder).get_model(MODEL) == identity()
    assert VerdictCache(folder).fetch([question(3)], lambda asked: [[(q, verdict_of(3), {}) for q in asked]])
    assert repair_cache(folder).damaged is None


def test_documents_are_found_where_nothing_can_be_read(folder: Path) -> None:
    file = folder / "cache.db"
    file.write_bytes(b"\0" * 100 + file.read_bytes()[100:])
    report = repair_cache(folder)
    assert (report.verdicts, report.others, report.lost, report.counted) == (5, 2, (), None)
    assert VerdictCache(folder).get_document("facts", "models/a.gguf") == {"size": 7}
    assert len(stored(folder)) == 5


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
        "INSERT OR REPLACE INTO Settings VALUES ('sqlite_writable_schema', 1)",
        f"UPDATE Cache SET tag = 'x' WHERE key = '{question(1).key}'",
        f"UPDATE Cache SET key = '{'0' * 64}' WHERE key = '{question(1).key}'",
        f"UPDATE Cache SET mode = 4, expire_time = 1 WHERE key = '{question(1).key}'",
        "UPDATE Cache SET value = '{\"bt_llm_cache\":3}' WHERE key = 'format'",
        "DELETE FROM Cache WHERE key = 'format'",
    ],
)
def test_what_does_not_belong_there_is_left_behind(folder: Path, statement: str) -> None:
    sql(folder, statement)
    report = repair_cache(folder)
    assert report.damaged is not None
    assert (report.verdicts, report.others, report.lost) == (5, 2, ())
    assert len(stored(folder)) == 5


class Trap:
    """What makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_planted_pickle_is_never_read(folder: Path, tmp_path: Path) -> None:
    with sqlite3.connect(folder / "cache.db") as connection:
        row = ("z", 1, 4, None, pickle.dumps(Trap(tmp_path / "read")))
        connection.execute("INSERT INTO Cache (key, raw, mode, filename, value) VALUES (?, ?, ?, ?, ?)", row)
    connection.close()
    report = repair_cache(folder)
    assert (report.verdicts, report.lost) == (5, ("z",))
    assert len(stored(folder)) == 5
    assert not (tmp_path / "read").exists()


def test_half_a_file_gives_what_is_in_it(tmp_path: Path) -> None:
    records = pristine(tmp_path, 40)
    file = tmp_path / "cache.db"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    report = repair_cache(tmp_path)
    assert 5 < report.verdicts < 40
    assert all(one.body == records[one.key].body for one in VerdictCache(tmp_path).records())


def test_the_later_of_two_answers_is_kept(tmp_path: Path) -> None:
    VerdictCache(tmp_path).put_many([record(0, voice=9, written="2026-01-02T00:00:00+00:00")])
    later = (tmp_path / "cache.db").read_bytes()
    (tmp_path / "cache.db").unlink()
    VerdictCache(tmp_path).put_many([record(0, voice=1, written="2026-01-01T00:00:00+00:00")])
    earlier = (tmp_path / "cache.db").read_bytes()
    for both in (earlier + later, later + earlier):
        (tmp_path / "cache.db").write_bytes(b"\0" * PAGE + both)
        assert repair_cache(tmp_path).verdicts == 1
        assert [one.answer for one in VerdictCache(tmp_path).records()] == [verdict_of(0, 9)]


def test_what_has_nothing_sound_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"garbage " * 1000)
    with pytest.raises(CacheCorruptError, match="nothing in it is sound; it is left as it is"):
        repair_cache(tmp_path)
    assert (tmp_path / "cache.db").read_bytes() == b"garbage " * 1000
    with pytest.raises(CacheError, match="no cache to repair"):
        repair_cache(tmp_path / "none")


def test_a_repair_that_was_killed_leaves_nothing_behind(folder: Path) -> None:
    (folder / ".repair-abc").mkdir()
    (folder / ".repair-abc" / "cache.db").touch()
    repair_cache(folder)
    assert [path.name for path in folder.iterdir()] == ["cache.db"]
