from __future__ import annotations

import hashlib
import json
import pickle
from typing import Any

import numpy as np
import pytest

from bt_llm.cache import Record
from bt_llm.cache._models import checked_model, model_document, model_from_document
from bt_llm.cache._records import Question
from bt_llm.exceptions import CacheCorruptError, ConfigError
from bt_llm.verdicts import Verdict
from tests.cache_cases import MODEL, identity, question, record, verdict

EVERY_INGREDIENT: dict[str, Any] = {
    "model_sha256": "ef" * 32,
    "chat_template_sha256": "01" * 32,
    "prompt": ("Trend: up.", "Bias:"),
    "labels": (" Up", " Flat", " Down"),
    "reader": "json",
    "sampling": {"max_tokens": 64},
    "numerics": "fast",
}


def test_the_key_is_the_hash_of_the_canonical_json_of_the_ingredients() -> None:
    text = (
        '{"chat_template_sha256":"' + "cd" * 32 + '","format":1,"labels":[" Bullish"," Neutral"," Bearish"],'
        '"model_sha256":"' + "ab" * 32 + '","numerics":"canonical","prompt":["Trend: \\u2191\\n","Bias:"],'
        '"reader":"logprobs","sampling":{}}'
    )
    asked = question(prompt=("Trend: ↑\n", "Bias:"))
    assert asked.key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", EVERY_INGREDIENT)
def test_each_ingredient_alone_changes_the_key(name: str) -> None:
    assert question(**{name: EVERY_INGREDIENT[name]}).key != question().key
    assert question().differs(question(**{name: EVERY_INGREDIENT[name]})) == (name,)


def test_the_cut_between_chunks_and_the_order_of_labels_change_the_key() -> None:
    assert question(prompt=("ab", "c")).key != question(prompt=("a", "bc")).key
    assert question(labels=("A", "B", "C")).key != question(labels=("C", "B", "A")).key


def test_the_order_of_the_sampling_settings_does_not_change_the_key() -> None:
    one = question(reader="json", sampling={"seed": 1, "max_tokens": 9})
    other = question(reader="json", sampling={"max_tokens": 9, "seed": 1})
    assert one.key == other.key
    assert one == other
    assert hash(one) == hash(other)


def test_a_question_takes_a_copy_and_can_be_pickled() -> None:
    sampling = {"stop": ["a"]}
    asked = question(reader="json", sampling=sampling)
    key = asked.key
    sampling["stop"].append("b")
    again: Question = pickle.loads(pickle.dumps(asked))
    assert again == asked
    assert again.key == key == question(reader="json", sampling={"stop": ["a"]}).key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_sha256": "AB" * 32}, "expected 64 hex digits in lower case"),
        ({"chat_template_sha256": "cd"}, "expected 64 hex digits in lower case"),
        ({"prompt": "one text"}, "expected several texts"),
        ({"prompt": ()}, "expected 2 up, all different, and 1 up"),
        ({"prompt": (1,)}, "expected several texts"),
        ({"labels": ("a",)}, "expected 2 up, all different, and 1 up"),
        ({"labels": ("a", "b", "b")}, "expected 2 up, all different, and 1 up"),
        ({"labels": ("a", "b", "")}, "expected several texts"),
        ({"reader": "guess"}, "expected one of logprobs, json"),
        ({"numerics": "exact"}, "expected one of canonical, fast"),
        ({"sampling": {"x": float("nan")}}, "expected a mapping of JSON values"),
        ({"sampling": {"x": object()}}, "expected a mapping of JSON values"),
        ({"sampling": {1: 2}}, "expected names that are text"),
        ({"sampling": 7}, "expected a mapping of JSON values"),
    ],
)
def test_a_wrong_ingredient_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        question(**changes)


def test_a_question_is_read_back_from_its_document() -> None:
    asked = question(3, reader="json", sampling={"seed": 1})
    assert Question.from_document(json.loads(json.dumps(asked.document))) == asked


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"extra": 1},
        {"prompt": "text"},
        {"prompt": [1]},
        {"labels": None},
        {"model_sha256": 1},
        {"reader": ["json"]},
        {"sampling": [1]},
    ],
)
def test_a_wrong_document_of_a_question_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CacheCorruptError, match="stored question"):
        Question.from_document(question().document | changes)
    with pytest.raises(CacheCorruptError, match="stored question"):
        Question.from_document([changes])


def content(**changes: Any) -> dict[str, Any]:
    return json.loads(record(1, tokens=9, model="small").body) | changes


def test_a_record_is_read_back_as_cached_under_the_name_of_its_model() -> None:
    read = Record.from_content(question(1).key, content())
    assert read == record(1, tokens=9, model="small")
    assert (read.verdict.cached, read.verdict.model) == (True, "small")
    assert read.key == question(1).key


def test_an_invalid_verdict_is_read_back() -> None:
    unread = Record(question(), Verdict.invalid("no JSON"), {})
    read = Record.from_content(unread.key, json.loads(unread.body))
    assert (read.verdict.valid, read.verdict.reason, read.verdict.cached) == (False, "no JSON", True)


@pytest.mark.parametrize(
    "numbers",
    [
        {"probabilities": (1, 0, 0)},
        {"bullish": 1, "neutral": 0, "bearish": 0},
        {"probabilities": np.array([0.5, 0.25, 0.25], dtype=np.float32)},
        {"probabilities": (0.5, 0.25, 0.25), "label_mass": 1},
    ],
    ids=["whole", "by-name", "single-precision", "mass"],
)
def test_numbers_of_any_kind_are_read_back(numbers: dict[str, Any]) -> None:
    written = Record(question(), Verdict(**numbers), {})

    read = Record.from_content(written.key, json.loads(written.body))

    assert read.verdict == written.verdict


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        content(extra=1),
        content(verdict=[]),
        content(verdict={"bullish": 1.0}),
        content(verdict={**verdict(1).to_dict(), "bullish": 0.99}),
        content(provenance="x"),
        content(question=question(2).document),
    ],
)
def test_a_wrong_record_is_refused(wrong: Any) -> None:
    with pytest.raises(CacheCorruptError):
        Record.from_content(question(1).key, wrong)


def test_a_provenance_that_is_no_json_is_refused() -> None:
    with pytest.raises(ConfigError, match="provenance"):
        record(1, milliseconds=float("inf"))


def test_an_identity_is_read_back_under_any_of_its_names() -> None:
    document = json.loads(json.dumps(model_document(identity(), ["tiny", "small"])))
    assert checked_model(MODEL, document) == document
    assert model_from_document(document) == identity()
    assert model_from_document(document, "tiny") == identity(name="tiny")
    assert model_from_document(document).details == {"parameters": 135}


@pytest.mark.parametrize(
    "changes",
    [
        {"names": []},
        {"names": [1]},
        {"names": "x"},
        {"bos_token": None},
        {"sha256": "x"},
        {"x": 1},
        {"details": 1},
    ],
)
def test_a_wrong_identity_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CacheCorruptError, match="stored identity of model abababababab"):
        checked_model(MODEL, model_document(identity(), ["small"]) | changes)
