"""Generated texts are stored, replayed and packed as verdicts are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bt_llm.cache import Pack, Record, VerdictCache, export_pack, import_pack, merge_packs
from bt_llm.cache._pack_files import read_pack
from bt_llm.cache._records import GeneratedText, Question
from bt_llm.exceptions import CacheCorruptError, ConfigError, PackError, ReplayMiss
from tests.cache_cases import Model, identity, question, record, verdict


def asked(number: int = 0, **changes: Any) -> Question:
    return question(number, **({"labels": (), "reader": "text", "sampling": {"max_tokens": 9}} | changes))


def text(number: int, voice: int = 0) -> GeneratedText:
    return GeneratedText(text=f'{{"n": {number}, "voice": {voice}}} \u2191', finished=number != 3)


def answer(questions: list[Question], voice: int = 0) -> Iterator[Any]:
    for one in questions:
        yield [(one, text(Model.number(one), voice), {"tokens": 5})]


def never(questions: list[Question]) -> Iterator[Any]:
    raise AssertionError("the model was asked")


def test_a_text_is_stored_once_and_replayed_as_it_was(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path)
    first = cache.fetch([asked(1), asked(3), asked(1)], answer)
    again = VerdictCache(tmp_path, "replay").fetch([asked(3), asked(1)], never)
    assert first == [text(1), text(3), text(1)]
    assert again == [text(3), text(1)]
    assert [one.cached for one in first + again] == [False, False, False, True, True]
    assert [one.finished for one in again] == [False, True]
    assert cache.check() == 2
    with pytest.raises(ReplayMiss):
        VerdictCache(tmp_path, "replay").fetch([asked(2)], never)


def test_a_text_and_a_verdict_on_the_same_prompt_have_two_keys(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path)
    cache.fetch([asked(1)], answer)
    assert cache.fetch([question(1)], Model()) == [verdict(1)]
    assert {one.question.reader for one in cache.records()} == {"text", "logprobs"}
    assert asked(1).key != asked(1, sampling={"max_tokens": 10}).key


@pytest.mark.parametrize("labels", [("a",), (" Bullish", " Neutral", " Bearish")])
def test_a_question_for_a_text_has_no_labels(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected none and 1 up"):
        asked(labels=labels)
    with pytest.raises(ConfigError, match="expected 2 up, all different, and 1 up"):
        question(labels=())


def test_a_record_holds_what_its_reader_gives() -> None:
    with pytest.raises(ConfigError, match="answer of type Verdict to a question of reader 'text'"):
        Record(asked(1), verdict(1))
    with pytest.raises(ConfigError, match=r"answer of type GeneratedText .* expected Verdict"):
        Record(question(1), text(1))
    with pytest.raises(ConfigError, match="holds a generated text"):
        _ = Record(asked(1), text(1)).verdict
    assert record(1).verdict == verdict(1)


def content(**changes: Any) -> dict[str, Any]:
    return json.loads(Record(asked(1), text(1), {"model": "small"}).body) | changes


def test_a_text_is_read_back_under_the_name_of_its_model() -> None:
    read = Record.from_content(asked(1).key, content())
    assert isinstance(read.answer, GeneratedText)
    assert (read.answer, read.answer.cached, read.answer.model) == (text(1), True, "small")


@pytest.mark.parametrize(
    "wrong",
    [
        content(text={"text": "x"}),
        content(text={"text": "x", "finished": 1}),
        content(text={"text": 1, "finished": True}),
        content(text={"text": "x", "finished": True, "more": 1}),
        content(text=[]),
        content(extra=1),
        content(verdict=verdict(1).to_dict()),
        {**{k: v for k, v in content().items() if k != "text"}, "verdict": verdict(1).to_dict()},
        {k: v for k, v in content().items() if k != "text"},
    ],
)
def test_a_wrong_record_of_a_text_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CacheCorruptError):
        Record.from_content(asked(1).key, wrong)


def test_a_pack_carries_texts_beside_verdicts(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "a")
    cache.put_model(identity())
    cache.fetch([asked(1), asked(3)], answer)
    cache.fetch([question(1)], Model())
    export_pack(cache, tmp_path / "all.jsonl")
    assert len(read_pack(tmp_path / "all.jsonl").records) == 3
    other = VerdictCache(tmp_path / "b", "replay")
    assert import_pack(other, tmp_path / "all.jsonl").added == 3
    assert other.fetch([asked(3), asked(1)], never) == [text(3), text(1)]
    assert import_pack(other, tmp_path / "all.jsonl").unchanged == 3


def test_packs_with_two_texts_for_one_key_are_in_conflict(tmp_path: Path) -> None:
    paths = []
    for voice in (0, 1):
        paths.append(tmp_path / f"{voice}.jsonl")
        pack = Pack(records=(Record(asked(1), text(1, voice), {}),))
        paths[-1].write_text(pack.text, encoding="ascii", newline="\n")
    with pytest.raises(PackError, match="different verdicts for 1 keys"):
        merge_packs(paths, tmp_path / "m.jsonl")
    merged = merge_packs(paths, tmp_path / "m.jsonl", "theirs")
    assert [one.answer for one in merged.records] == [text(1, 1)]


def test_a_pack_whose_text_was_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    pack = Pack(records=(Record(asked(1), text(1), {}),))
    path.write_text(pack.text.replace("voice", "noise"), encoding="ascii", newline="\n")
    with pytest.raises(PackError, match="altered"):
        read_pack(path)
    path.write_text(pack.text.replace('"text":{', '"verdict":{'), encoding="ascii", newline="\n")
    with pytest.raises(PackError, match="line 7: stored record: expected a question, a text"):
        read_pack(path)
