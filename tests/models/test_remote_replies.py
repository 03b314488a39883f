from __future__ import annotations

import json
import math
from typing import Any

import pytest

from bt_llm.models import ModelIdentity
from bt_llm.models.openai._readers import stored_reader
from bt_llm.models.openai._replies import (
    NoLogprobsError,
    ReplyError,
    chat_text,
    next_tokens,
    read_json,
    refusal,
    served_models,
    tokens_used,
)
from bt_llm.models.openai._scores import written_scores

WORDS = ["Up", "Flat", "Down"]


def content(entries: Any) -> Any:
    return {"choices": [{"logprobs": {"content": [{"token": "a", "logprob": -1, "top_logprobs": entries}]}}]}


def legacy(tokens: Any) -> Any:
    return {"choices": [{"logprobs": {"top_logprobs": [tokens]}}]}


def test_both_forms_of_log_probabilities_are_read() -> None:
    entries = [{"token": "\u2581Up", "logprob": -1.0}, {"token": "\u0120Down", "logprob": -2}]
    assert next_tokens(content(entries)) == {" Up": -1.0, " Down": -2.0}
    assert next_tokens(legacy({" Up": -1.0, " Down": -2})) == {" Up": -1.0, " Down": -2.0}


def test_of_two_tokens_of_one_text_the_more_probable_counts() -> None:
    assert next_tokens(legacy({" Up": -2.0, "\u2581Up": -1.0})) == {" Up": -1.0}


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"logprobs": None}]},
        {"choices": [{}]},
        {"choices": [{"logprobs": {}}]},
        legacy({}),
        legacy(None),
        content([]),
    ],
)
def test_missing_log_probabilities_are_told_from_wrong_ones(document: Any) -> None:
    with pytest.raises(NoLogprobsError):
        next_tokens(document)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"choices": {}},
        {"choices": [7]},
        {"choices": [{"logprobs": "many"}]},
        legacy({" Up": "-1"}),
        legacy({" Up": True}),
        legacy({" Up": 0.5}),
        legacy({" Up": -0.1, " Down": -0.1}),
        content([7]),
        content([{"token": 7, "logprob": -1.0}]),
        content([{"token": "a"}]),
    ],
)
def test_wrong_replies_are_refused(document: Any) -> None:
    with pytest.raises(ReplyError) as caught:
        next_tokens(document)
    assert not isinstance(caught.value, NoLogprobsError)


@pytest.mark.parametrize(
    "document",
    [None, 7, {}, {"data": "small"}, {"data": ["small"]}, {"data": [{"id": ""}]}, {"data": [{"id": "a\nb"}]}],
)
def test_wrong_lists_of_models_are_refused(document: Any) -> None:
    with pytest.raises(ReplyError, match="list of models"):
        served_models(document)


def test_only_facts_that_stay_the_same_are_kept_of_a_model() -> None:
    meta = {"n_params": 7, "size": "big", "n_ctx": 4096}
    entry = {"id": "a", "created": 5, "meta": meta, "root": "/models/a", "owned_by": "vllm"}
    expected = {"a": ({"n_params": 7, "root": "/models/a"}, "vllm")}
    assert (
        served_models({"data": [entry]}) == served_models([entry]) == expected
    )  # Together's is a list alone


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (200, {"choices": []}, None),
        (200, {"choices": [{"text": "a", "error": None}], "error": {}}, None),
        (200, [], None),
        (200, {"error": "crashed"}, (200, "crashed")),
        (200, {"error": {"message": "busy", "code": 429}}, (429, "busy")),
        (200, {"error": {"message": "busy", "code": "rate_limit"}}, (200, "busy")),
        (200, {"error": {"message": "lost", "code": 200}}, (200, "lost")),
        (200, {"object": "error", "message": "no", "code": 50001}, (200, "no")),
        (200, {"choices": [{"error": {"message": "cut", "code": 502}}]}, (502, "cut")),
        (400, {"error": {"message": "no", "code": 503}}, (400, "no")),
        (422, {"detail": "no"}, (422, "no")),
        (500, "oops", (500, "oops")),
        (503, None, (503, "")),
        (404, {"error": {"message": 7}}, (404, "")),
    ],
)
def test_errors_are_told_from_answers_whatever_the_status(status: int, document: Any, expected: Any) -> None:
    assert refusal(status, document) == expected


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ReplyError, match="not JSON"):
        read_json(body)


def test_a_chat_without_text_is_refused() -> None:
    assert chat_text({"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}) == ("a", False)
    for message in (None, {}, {"content": None}, {"content": 7}):
        with pytest.raises(ReplyError, match="no message"):
            chat_text({"choices": [{"message": message}]})


@pytest.mark.parametrize(
    "usage", [None, [], {"prompt_tokens": "9"}, {"prompt_tokens": -9}, {"prompt_tokens": True}]
)
def test_senseless_counts_of_tokens_count_nothing(usage: Any) -> None:
    assert tokens_used({"usage": usage}) == 0


@pytest.mark.parametrize(
    "answer",
    [
        "Up",
        "[]",
        "[" * 100_000,
        '{"verdict": "Up"}',
        '{"verdict": "Sideways", "confidence": 5}',
        '{"verdict": ["Up"], "confidence": 5}',
        '{"verdict": "Up", "confidence": 101}',
        '{"verdict": "Up", "confidence": 5.0}',
        '{"verdict": "Up", "confidence": 5, "note": ""}',
    ],
)
def test_written_verdicts_that_cannot_be_read_have_no_scores(answer: str) -> None:
    assert written_scores(answer, WORDS).logprobs == (-math.inf,) * 3


def test_a_certain_written_verdict_has_all_the_probability() -> None:
    text = json.dumps({"verdict": "Down", "confidence": 100})
    assert written_scores(text, WORDS).logprobs == (-math.inf, -math.inf, 0.0)


@pytest.mark.parametrize(
    "reader",
    [
        None,
        "completions",
        {"via": "completions", "method": "tokens"},
        {"via": "completions", "method": "first_token", "top": 5},
        {"via": ["chat"], "method": "first_token", "top": 5},
        {"via": "chat", "method": "first_token", "top": -5},
        {"via": "chat", "method": "first_token", "top": True},
        {"via": "chat", "method": "first_token", "top": 5, "wording": "shouted"},
        {"via": "chat", "method": "first_token", "top": 5, "alone": 1},
        {"via": "chat", "method": "first_token", "top": 5, "colour": "red"},
    ],
)
def test_readers_from_strangers_are_checked(reader: Any) -> None:
    assert stored_reader(ModelIdentity(name="x", sha256="0" * 64, details={"reader": reader})) is None
