from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError, GenerationTimeout
from bt_llm.models import Prompt
from bt_llm.models.llama._generation import Grammar, GrammarWriter, json_grammar
from bt_llm.models.llama._session import Session

HEAD = "<|im_start|>system\nAnswer as JSON.<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = [
    Prompt((HEAD, f"Trend: {t}{TAIL}")) for t in ("up", "strong down", "flat", "up, then flat, then down")
]
SCHEMA = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["Bullish", "Bearish"]},
        "reason": {"type": "string", "maxLength": 12},
    },
    "required": ["verdict", "reason"],
    "additionalProperties": False,
}
GRAMMAR = 'root ::= "yes" " sir"? | "no"'


@pytest.fixture(scope="module")
def writer(smollm2_path: Path) -> Iterator[GrammarWriter]:
    held = Session(smollm2_path, n_threads=1)
    yield GrammarWriter(held)
    held.close()


@pytest.fixture(scope="module")
def expected(writer: GrammarWriter) -> list[str]:
    """Every answer alone."""
    return [next(writer.write([p], json_grammar(SCHEMA), max_tokens=40)).text for p in PROMPTS]


def write(writer: GrammarWriter, prompts, grammar: str | None = None, **options) -> list[str]:
    options = {"max_tokens": 40} | options
    return [one.text for one in writer.write(prompts, grammar or json_grammar(SCHEMA), **options)]


def logits(writer: GrammarWriter, **texts: float) -> np.ndarray:
    weights = writer.session.weights()
    row = np.zeros(weights.n_vocab, dtype=np.float32)
    for text, value in texts.items():
        (token,) = weights.tokens(text, special=False)
        row[token] = value
    return row


@pytest.mark.model
def test_answers_follow_the_schema(expected):
    for text in expected:
        answer = json.loads(text)
        assert answer["verdict"] in ("Bullish", "Bearish")
        assert len(answer["reason"]) <= 12


@pytest.mark.model
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0]])
def test_answers_are_the_same_alone_and_together(writer, expected, order):
    assert write(writer, [PROMPTS[i] for i in order]) == [expected[i] for i in order]


@pytest.mark.model
def test_answers_of_different_lengths_leave_the_others_alone(writer):
    """Those that end first make room: the last one moves into the place of the first."""
    grammar = r'root ::= [a-z]+ "."'
    prompts = [
        Prompt((HEAD, f"Say {word}.{TAIL}")) for word in ("a", "hello to everybody out there", "b", "no")
    ]
    alone = [write(writer, [p], grammar, max_tokens=12)[0] for p in prompts]
    assert len({len(text) for text in alone}) > 1
    assert write(writer, prompts, grammar, max_tokens=12) == alone


@pytest.mark.model
def test_scoring_in_between_changes_nothing(writer, expected):
    from bt_llm.models.llama._scorer import Scorer

    scorer = Scorer(writer.session)
    before = next(scorer.score(PROMPTS[:2], ["Bullish", "Bearish"]))
    assert write(writer, PROMPTS[:2]) == expected[:2]
    after = next(scorer.score(PROMPTS[:2], ["Bullish", "Bearish"]))
    assert [one.logprobs for one in before] == [one.logprobs for one in after]


@pytest.mark.model
def test_an_answer_that_is_cut_off_says_so(writer):
    cut, whole = (next(writer.write(PROMPTS[:1], GRAMMAR, max_tokens=n)) for n in (1, 40))
    assert (cut.finished, whole.finished) == (False, True)
    assert whole.text.startswith(cut.text)
    assert cut.tokens == len(writer.session.tokenise(PROMPTS[0]).suffix) + 1
    assert whole.text in ("yes", "yes sir", "no")


@pytest.mark.model
def test_the_best_allowed_token_is_taken_wherever_it_stands(writer):
    weights = writer.session.weights()
    names = {text: weights.tokens(text, special=False)[0] for text in ("yes", "no", "maybe")}
    grammar = Grammar(weights, GRAMMAR)
    assert grammar.best(logits(writer, no=3.0, yes=2.0, maybe=9.0)) == names["no"]
    # Below a hundred forbidden tokens, so that the first look finds none allowed.
    row = logits(writer, yes=1.0, no=0.5)
    row[1000:1100] = 5.0
    row[[names["yes"], names["no"]]] = 1.0, 0.5
    assert grammar.best(row) in (names["yes"], weights.tokens("y", special=False)[0])
    grammar.accept(names["yes"])
    allowed = grammar.best(logits(writer, no=3.0))
    assert weights.ends_generation(allowed) or weights.piece(allowed).startswith(b" ")
    grammar.close()


@pytest.mark.model
def test_a_timeout_stops_and_leaves_the_writer_usable(writer, expected):
    with pytest.raises(GenerationTimeout, match=r"timeout_s=0\.05: over after 0 of 4 answers"):
        write(writer, PROMPTS, timeout_s=0.05)
    assert write(writer, PROMPTS[:1], timeout_s=600) == expected[:1]


@pytest.mark.model
def test_no_prompts_no_answers(writer):
    assert write(writer, []) == []


@pytest.mark.model
@pytest.mark.parametrize(
    ("grammar", "options", "words"),
    [
        ("root ::= (", {}, "cannot parse the grammar"),
        (GRAMMAR, {"max_tokens": 0}, "max_tokens=0"),
        (GRAMMAR, {"max_tokens": 8190}, "8190 for the answer: the model was trained for 8192"),
    ],
)
def test_bad_requests_are_refused(writer, grammar, options, words):
    with pytest.raises(ConfigError, match=words):
        write(writer, PROMPTS[:1], grammar, **options)


def test_a_schema_that_cannot_be_expressed_is_refused():
    with pytest.raises(ConfigError, match="schema cannot be turned into a grammar"):
        json_grammar({"type": "no such type"})
