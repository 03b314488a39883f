from __future__ import annotations

import os
import pickle
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bt_llm.cache import CacheMode, Record, VerdictCache
from bt_llm.cache._cache import VerdictMiss, default_directory
from bt_llm.cache._models import model_document
from bt_llm.cache._records import Question
from bt_llm.cache._rows import Row, seal
from bt_llm.exceptions import CacheCorruptError, CacheError, ConfigError, ReplayMiss
from tests.cache_cases import MODEL, Model, identity, question, record, verdict


@pytest.fixture
def cache(tmp_path: Path) -> VerdictCache:
    """A cache that holds the verdicts on questions 0 to 4, by voice 0."""
    filled = VerdictCache(tmp_path / "cache")
    filled.fetch([question(n) for n in range(5)], Model())
    return filled


def opened(cache: VerdictCache, mode: str) -> VerdictCache:
    return VerdictCache(cache.directory, mode)


def never(questions: list[Question]) -> Iterator[Any]:
    raise AssertionError("the model was asked")


def rows(cache: VerdictCache) -> dict[str, str]:
    return {one.key: one.body for one in cache.records()}


# Settings.


def test_a_mode_is_told_by_its_name() -> None:
    assert [CacheMode.parse(mode.value) for mode in CacheMode] == list(CacheMode)
    with pytest.raises(
        ConfigError, match=r"cache mode 'Record' \(did you mean 'record'\?\): expected record,"
    ):
        CacheMode.parse("Record")
    with pytest.raises(ConfigError, match=r"cache mode 'x': expected record, replay, refresh or off"):
        CacheMode.parse("x")


def test_folder_and_mode_come_from_the_argument_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BT_LLM_CACHE_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("BT_LLM_CACHE_MODE", "replay")
    assert (VerdictCache().directory, VerdictCache().mode) == (tmp_path / "a", CacheMode.REPLAY)
    given = VerdictCache(tmp_path / "b", "off")
    assert (given.directory, given.mode) == (tmp_path / "b", CacheMode.OFF)
    assert repr(given) == f"VerdictCache({str(tmp_path / 'b')!r}, mode='off')"
    monkeypatch.setenv("BT_LLM_CACHE_DIR", "")
    monkeypatch.setenv("BT_LLM_CACHE_MODE", "")
    assert VerdictCache().mode is CacheMode.RECORD
    assert default_directory().name == "bt_llm"


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = VerdictCache("here")
    monkeypatch.chdir("/")
    assert cache.directory == tmp_path / "here"


# The four modes.


def test_record_asks_for_each_distinct_question_that_is_not_stored_once(cache: VerdictCache) -> None:
    model = Model(voice=1)
    asked = [question(n) for n in (7, 1, 7, 8, 1)]
    verdicts = cache.fetch(asked, model)
    assert model.asked == [question(7), question(8)]
    assert verdicts == [verdict(7, 1), verdict(1), verdict(7, 1), verdict(8, 1), verdict(1)]
    assert [one.cached for one in verdicts] == [False, True, False, False, True]
    assert [one.cached for one in cache.fetch(asked, never)] == [True] * 5


def test_record_keeps_the_provenance_and_says_when_it_was_written(cache: VerdictCache) -> None:
    (stored,) = cache.get_many([question(1).key]).values()
    assert stored.provenance["tokens"] == 9
    assert datetime.fromisoformat(stored.provenance["written"]).utcoffset() is not None


def test_replay_answers_from_disk_and_never_asks_nor_writes(cache: VerdictCache) -> None:
    replay = opened(cache, "replay")
    before = cache._store.path.read_bytes()
    assert replay.fetch([question(3), question(0)], never) == [verdict(3), verdict(0)]
    with pytest.raises(ReplayMiss):
        replay.fetch([question(3), question(99)], never)
    replay.put_model(identity())
    replay.put_document("facts", "x", {"y": 1})
    assert cache._store.path.read_bytes() == before
    assert os.listdir(cache.directory) == ["cache.db"]


def test_replay_without_a_cache_is_a_miss_and_makes_nothing(tmp_path: Path) -> None:
    replay = VerdictCache(tmp_path / "none", "replay")
    assert replay.fetch([], never) == []
    assert replay.get_model(MODEL) is None
    with pytest.raises(
        ReplayMiss, match=r"a verdict is not stored in .*none, first [0-9a-f]{12}: record"
    ) as miss:
        replay.fetch([question()], never)
    assert "No verdict at all is stored there." in str(miss.value)
    assert not (tmp_path / "none").exists()


def test_refresh_asks_for_all_and_replaces_what_is_stored(cache: VerdictCache) -> None:
    refreshed = opened(cache, "refresh").fetch([question(1), question(9)], Model(voice=1))
    assert refreshed == [verdict(1, 1), verdict(9, 1)]
    assert not any(one.cached for one in refreshed)
    assert cache.fetch([question(n) for n in (0, 1, 9)], never) == [verdict(0), verdict(1, 1), verdict(9, 1)]


def test_off_asks_for_all_and_touches_nothing(cache: VerdictCache, tmp_path: Path) -> None:
    before = rows(cache)
    off = opened(cache, "off")
    assert off.fetch([question(1), question(9)], Model(voice=1)) == [verdict(1, 1), verdict(9, 1)]
    off.put_model(identity())
    off.put_document("facts", "x", {"y": 1})
    assert off.get_document("facts", "x") is None
    assert rows(cache) == before
    assert cache.models() == []
    VerdictCache(tmp_path / "none", "off").fetch([question(1)], Model())
    assert not (tmp_path / "none").exists()


def test_progress_counts_what_is_asked(cache: VerdictCache) -> None:
    seen: list[tuple[int, int]] = []
    cache.fetch([question(n) for n in range(8)], Model(), on_progress=lambda *at: seen.append(at))
    assert seen == [(0, 3), (2, 3), (3, 3)]
    cache.fetch([question(n) for n in range(8)], never, on_progress=lambda *at: seen.append(at))
    assert len(seen) == 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_each_batch_is_stored_before_the_next_is_asked_for(tmp_path: Path, stop: type[BaseException]) -> None:
    cache = VerdictCache(tmp_path / "cache")

    def ask(questions: list[Question]) -> Iterator[Any]:
        yield from Model()(questions[:4])
        assert len(cache.keys()) == 4
        raise stop

    with pytest.raises(stop):
        cache.fetch([question(n) for n in range(6)], ask)
    assert sorted(cache.keys()) == sorted(question(n).key for n in range(4))


def test_a_model_that_answers_something_else_is_found_out(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path)
    with pytest.raises(CacheError, match="answered a question that it was not asked"):
        cache.fetch([question(1)], lambda _: Model()([question(2)]))
    with pytest.raises(CacheError, match="was asked 2 questions and left 1 unanswered"):
        cache.fetch([question(1), question(2)], lambda _: Model()([question(2)]))


def test_record_says_before_the_model_is_asked_that_it_cannot_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="opening it for writing failed"):
        VerdictCache(tmp_path / "file").fetch([question()], never)


# The first of two verdicts on one question.


def test_a_stored_verdict_is_never_altered_by_recording(cache: VerdictCache) -> None:
    before = rows(cache)
    kept = cache.put_many([record(1, voice=1), record(6, voice=1), record(6, voice=2), record(1)])
    assert [one.verdict for one in kept] == [verdict(1), verdict(6, 1), verdict(6, 1), verdict(1)]
    assert [one.verdict.cached for one in kept] == [True, False, False, True]
    after = rows(cache)
    assert {key: after[key] for key in before} == before
    assert cache.put_many([]) == []


def test_what_another_process_stored_meanwhile_is_what_the_caller_gets(cache: VerdictCache) -> None:
    def ask(questions: list[Question]) -> Iterator[Any]:
        cache.put_many([record(9, voice=2)])
        yield from Model(voice=1)(questions)

    (given,) = VerdictCache(cache.directory).fetch([question(9)], ask)
    assert given == verdict(9, 2)
    assert given.cached


# A replay miss.


def test_a_miss_names_the_bar_the_nearest_question_and_what_differs(cache: VerdictCache) -> None:
    asked = [question(1), question(30), question(31)]
    with pytest.raises(VerdictMiss) as caught:
        opened(cache, "replay").fetch(asked, never, where=lambda one: f"2024-05-06, {one.prompt[1].strip()}")
    miss, near = caught.value, question(3)
    assert str(miss).splitlines() == [
        f"replay: 2 of 3 verdicts are not stored in {cache.directory}, first {question(30).key[:12]}"
        " (2024-05-06, Trend: 30): record (BT_LLM_CACHE_MODE=record), or import a pack that has them",
        f"The nearest stored one, {near.key[:12]}, differs in prompt:",
        "--- stored prompt",
        "+++ asked prompt",
        "@@ -2,3 +2,3 @@",
        " Answer with one word.",
        "-Trend: 3",
        "+Trend: 30",
        " Bias:",
    ]
    assert (miss.question, miss.nearest, miss.differs) == (question(30), near, ("prompt",))
    again = pickle.loads(pickle.dumps(miss))
    assert (str(again), again.nearest) == (str(miss), near)


def test_a_miss_prefers_the_same_prompt_of_another_model(cache: VerdictCache) -> None:
    cache.put_many([Record(question(30, model_sha256="ef" * 32, numerics="fast"), verdict(30))])
    with pytest.raises(VerdictMiss) as caught:
        opened(cache, "replay").fetch([question(30, model_sha256="ef" * 32, reader="json")], never)
    assert caught.value.differs == ("reader", "numerics")
    with pytest.raises(VerdictMiss) as caught:
        opened(cache, "replay").fetch([question(2, model_sha256="77" * 32)], never)
    assert caught.value.nearest == question(2)
    assert "  model_sha256: stored abababababab, asked 777777777777" in str(caught.value)
    with pytest.raises(VerdictMiss, match=r"numerics: stored \"canonical\", asked \"fast\""):
        opened(cache, "replay").fetch([question(2, numerics="fast")], never)


def test_a_miss_shows_that_only_the_chunks_differ(cache: VerdictCache) -> None:
    whole = question(2, prompt=(question(2).text,))
    with pytest.raises(VerdictMiss, match="the same text, cut into other chunks"):
        opened(cache, "replay").fetch([whole], never)


# Looking at it.


def test_records_and_keys_are_sorted(cache: VerdictCache) -> None:
    cache.put_model(identity())
    cache.put_document("facts", "x", {"y": 1})
    keys = sorted(question(n).key for n in range(5))
    assert cache.keys() == keys
    assert [one.key for one in cache.records()] == keys
    assert [one.key for one in cache.records([keys[3], keys[1], "00" * 32])] == [keys[1], keys[3]]
    assert cache.check() == 5


def test_stats_count_and_delete_takes_one_model(cache: VerdictCache) -> None:
    other = "ef" * 32
    cache.put_many([Record(question(n, model_sha256=other), verdict(n)) for n in range(3)])
    cache.put_model(identity())
    cache.put_model(identity(name="large", sha256=other))
    cache.put_document("facts", "x", {"y": 1})
    stats = cache.stats()
    assert (stats.verdicts, stats.by_model, stats.documents) == (8, {MODEL: 5, other: 3}, 1)
    assert [one.name for one in stats.models] == ["small", "large"]
    assert stats.bytes == cache._store.path.stat().st_size
    assert cache.delete(model_sha256=MODEL) == 5
    assert (cache.stats().verdicts, cache.get_model(MODEL)) == (3, None)
    assert cache.delete(model_sha256=MODEL) == 0


def test_stats_of_no_cache(tmp_path: Path) -> None:
    stats = VerdictCache(tmp_path / "none").stats()
    assert (stats.verdicts, stats.bytes, dict(stats.by_model)) == (0, 0, {})


def test_a_closed_cache_can_be_used_again(cache: VerdictCache) -> None:
    with cache as same:
        same.close()
    cache.put_many([record(50)])
    assert len(cache.keys()) == 6


# Models and documents.


def test_a_model_is_found_by_each_of_its_names_and_by_its_hash(cache: VerdictCache) -> None:
    cache.put_model(identity(name="small"))
    cache.put_model(identity(name="b"))
    cache.put_model(identity(name="small"))
    assert cache.get_model(MODEL) == identity(name="b")
    assert [one.name for one in cache.find_models("small")] == ["small"]
    assert [one.name for one in cache.find_models(MODEL[:8])] == ["b"]
    assert cache.find_models(MODEL[:7]) == cache.find_models("smal") == []
    found = cache.find_models("small")[0]
    assert found.chat_template_sha256 == identity().chat_template_sha256
    assert found.details == {"parameters": 135}


def test_a_name_that_another_process_stores_meanwhile_is_kept(cache: VerdictCache) -> None:
    other, seen = VerdictCache(cache.directory), []

    def change(known: Mapping[str, Any]) -> dict[str, Any]:
        if not seen:
            other.put_model(identity(name="faster"))
        seen.append(known)
        return model_document(identity(), sorted({*known.get("names", ()), "slower"}))

    cache.change_model(MODEL, change)
    assert seen == [{}, model_document(identity(), ["faster"])]
    assert cache.model_documents() == [model_document(identity(), ["faster", "slower"])]


def test_writers_that_name_one_model_at_once_lose_no_name(tmp_path: Path) -> None:
    names = [f"name {number}" for number in range(6)]
    barrier = threading.Barrier(len(names))

    def work(name: str) -> None:
        mine = VerdictCache(tmp_path / "new")
        barrier.wait(60)
        mine.put_model(identity(name=name))

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, names))
    assert VerdictCache(tmp_path / "new").model_documents() == [model_document(identity(), names)]


def test_documents_are_replaced_and_told_apart_by_kind(cache: VerdictCache) -> None:
    cache.put_document("facts", "/a b/ä.gguf:1", {"sha256": "x"})
    cache.put_document("facts", "/a b/ä.gguf:1", {"sha256": "y"})
    cache.put_document("other", "/a b/ä.gguf:1", {})
    assert cache.get_document("facts", "/a b/ä.gguf:1") == {"sha256": "y"}
    assert cache.get_document("other", "/a b/ä.gguf:1") == {}
    assert cache.get_document("facts", "nothing") is None
    undecodable = os.fsdecode(b"\xff.gguf")
    cache.put_document("facts", undecodable, {"z": 1})
    assert cache.get_document("facts", undecodable) == {"z": 1}
    with pytest.raises(ConfigError, match="expected a word in lower case"):
        cache.put_document("two words", "x", {})


# Rows that are not what was written.


def overwrite(cache: VerdictCache, key: str, text: str) -> None:
    with sqlite3.connect(cache._store.path) as connection:
        connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (text, key))
    connection.close()


def test_an_altered_row_is_refused_and_named(cache: VerdictCache) -> None:
    key = question(1).key
    (row,) = cache._store.read([key]).values()
    flipped = row.text.replace('"bearish":0.', '"bearish":1.')
    assert flipped != row.text
    other = cache._store.read([question(2).key])[question(2).key].text
    for text in (flipped, other, row.text[:-1], "", "null", '{"format":2' + row.text[11:]):
        overwrite(cache, key, text)
        for read in (lambda: cache.fetch([question(1)], never), lambda: list(cache.records()), cache.check):
            with pytest.raises(
                CacheCorruptError, match=rf"cache.db, key {key[:80]}: .*; bt-llm cache repair"
            ):
                read()
    overwrite(cache, key, row.text)
    assert cache.fetch([question(1)], never) == [verdict(1)]


def test_a_sealed_row_of_another_question_is_refused(cache: VerdictCache) -> None:
    key = question(1).key
    overwrite(cache, key, seal(key, record(2).body))
    with pytest.raises(CacheCorruptError, match="the question stored under"):
        cache.get_many([key])


def test_a_wrong_tag_is_refused(cache: VerdictCache) -> None:
    row = Row(question(1).key, seal(question(1).key, record(1).body), "ef" * 32)
    cache._store.update([], lambda _: [row], action="testing")
    with pytest.raises(CacheCorruptError, match="is not its model"):
        cache.get_many([row.key])


def test_a_wrong_identity_is_refused_and_named(cache: VerdictCache) -> None:
    key = f"model:{MODEL}"
    cache._store.update([], lambda _: [Row(key, seal(key, "{}"))], action="testing")
    with pytest.raises(CacheCorruptError, match=rf"key {key}: stored identity"):
        cache.get_model(MODEL)


def test_damage_of_the_file_is_found_by_check(cache: VerdictCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache._store, "damage", lambda: ["row 3 missing from index"])
    with pytest.raises(CacheCorruptError, match=r"damaged \(row 3 missing from index\); bt-llm cache repair"):
        cache.check()
