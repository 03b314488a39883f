from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.advice import json_sampling, read_json, read_logprobs
from bt_llm.advice._readers import parse_verdict
from bt_llm.models import Answer, LabelScores, Prompt, ScriptedBackend
from bt_llm.verdicts import DEFAULT_LABELS, Action, Verdict

WORDS = ("Bullish", "Neutral", "Bearish")
PROMPT = Prompt(("You judge.\n", "Trend: up\n"))


def test_logprobs_are_normalised_over_the_labels_and_the_rest_is_told() -> None:
    backend = ScriptedBackend(lambda _: (0.4, 0.2, 0.2))
    [[(verdict, extra)]] = list(read_logprobs(backend, [PROMPT], WORDS, DEFAULT_LABELS, "canonical"))
    assert verdict.probabilities == pytest.approx((0.5, 0.25, 0.25))
    assert verdict.label_mass == pytest.approx(0.8)
    assert extra == {"tokens": 0, "milliseconds": 0.0}


@pytest.mark.parametrize("logprobs", [(math.nan, -1.0, -1.0), (-math.inf,) * 3, (math.inf, 0.0, 0.0)])
def test_scores_that_are_no_numbers_are_invalid(logprobs: tuple[float, ...]) -> None:
    class Broken(ScriptedBackend):
        def score(self, prompts, labels, *, numerics="canonical"):  # type: ignore[no-untyped-def]
            yield [LabelScores(logprobs) for _ in prompts]

    [[(verdict, _)]] = list(read_logprobs(Broken(lambda _: ()), [PROMPT], WORDS, DEFAULT_LABELS, "canonical"))
    assert verdict.action is Action.INVALID


def test_batches_come_as_they_are_decoded() -> None:
    backend = ScriptedBackend(lambda _: (0.4, 0.2, 0.2), batch=2)
    sizes = [len(batch) for batch in read_logprobs(backend, [PROMPT] * 5, WORDS, DEFAULT_LABELS, "canonical")]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(("confidence", "probability"), [(0, 1 / 3), (25, 0.5), (70, 0.8), (100, 1.0)])
def test_confidence_becomes_a_probability(confidence: int, probability: float) -> None:
    text = json.dumps({"verdict": "Bearish", "confidence": confidence, "reason": "weak"})
    verdict = parse_verdict(text, DEFAULT_LABELS)
    assert verdict.bearish == pytest.approx(probability)
    assert verdict.reason == "weak"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "don't buy",
        "[]",
        "null",
        "NaN",
        '{"verdict": "Bullish"}',
        '{"verdict": "BUY", "confidence": 50, "reason": ""}',
        '{"verdict": ["Bullish"], "confidence": 50, "reason": ""}',
        '{"verdict": "Bullish", "confidence": NaN, "reason": ""}',
        '{"verdict": "Bullish", "confidence": 101, "reason": ""}',
        '{"verdict": "Bullish", "confidence": -1, "reason": ""}',
        '{"verdict": "Bullish", "confidence": true, "reason": ""}',
        '{"verdict": "Bullish", "confidence": 5e1, "reason": ""}',
        '{"verdict": "Bullish", "confidence": 50, "reason": 1}',
        '{"verdict": "Bullish", "confidence": 50, "reason": "' + "x" * 401 + '"}',
        '{"verdict": "Bullish", "confidence": 50, "reason": "", "more": 1}',
        '{"verdict": "Bullish", "confidence": 50, "reason": "cut',
        "[" * 100_000,
    ],
)
def test_what_the_schema_refuses_is_invalid(text: str) -> None:
    assert parse_verdict(text, DEFAULT_LABELS).action is Action.INVALID


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_no_text_raises(text: str) -> None:
    assert isinstance(parse_verdict(text, DEFAULT_LABELS), Verdict)


@given(st.data())
def test_no_mutation_of_an_answer_raises_or_goes_out_of_range(data: st.DataObject) -> None:
    good = json.dumps({"verdict": "Bullish", "confidence": 61, "reason": "trend is up"})
    position = data.draw(st.integers(0, len(good)))
    text = good[:position] + data.draw(st.text(max_size=3)) + good[position + data.draw(st.integers(0, 4)) :]
    verdict = parse_verdict(text, DEFAULT_LABELS)
    assert verdict.action is Action.INVALID or math.isclose(sum(verdict.probabilities), 1.0)


def test_control_characters_of_a_reason_are_taken_out() -> None:
    text = json.dumps({"verdict": "Bullish", "confidence": 61, "reason": "up\x1b[31m\nred"})
    assert parse_verdict(text, DEFAULT_LABELS).reason == "up [31m red"


def test_an_answer_cut_off_is_invalid_even_if_it_parses() -> None:
    class Cut(ScriptedBackend):
        def generate_json(self, prompts, schema, *, max_tokens, seed):  # type: ignore[no-untyped-def]
            for _ in prompts:
                yield Answer('{"verdict": "Bullish", "confidence": 1, "reason": ""}', finished=False)

    [[(verdict, _)]] = list(read_json(Cut(lambda _: ()), [PROMPT], DEFAULT_LABELS))
    assert verdict.action is Action.INVALID
    assert verdict.reason == "cut off by max_tokens"


def test_json_reader_end_to_end_with_the_script() -> None:
    backend = ScriptedBackend.named("scripted:trend")
    [[(verdict, _)]] = list(read_json(backend, [PROMPT], DEFAULT_LABELS))
    assert verdict.action is Action.BULLISH
    assert verdict.reason == "scripted"


def test_sampling_names_the_schema() -> None:
    assert json_sampling(WORDS)["schema_sha256"] != json_sampling(("Up", "Flat", "Down"))["schema_sha256"]
