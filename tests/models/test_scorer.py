from __future__ import annotations

import itertools
import json
import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.exceptions import (
    ConfigError,
    GenerationTimeout,
    InsufficientMemoryError,
    ModelError,
    ModelFileError,
)
from bt_llm.models import Prompt, estimate_memory_mb, giving_up_when, read_facts
from bt_llm.models.llama import _memory as memory
from bt_llm.models.llama import _session as session
from bt_llm.models.llama._context import MIN_ROWS, Context
from bt_llm.models.llama._label_trie import LabelTrie
from bt_llm.models.llama._native import cpu_threads, library
from bt_llm.models.llama._scorer import Scorer, log_softmax_at
from bt_llm.models.llama._session import Session
from bt_llm.models.llama._weights import Weights
from bt_llm.progress import partly
from tests.tiny_gguf import BOS, write_tiny_model

LABELS = ("Bullish", "Neutral", "Bearish")  # (50, 1274, 621), (9042, 22728), (50, 517, 621) in SmolLM2
HEAD = "<|im_start|>system\nAnswer with Bullish, Bearish or Neutral.<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
STATES = tuple(
    itertools.product(("up", "strong down"), ("20", "55 to 70"), ("low", "higher than usual for this hour"))
)
PROMPTS = [Prompt((HEAD, f"Trend: {a}\n", f"RSI: {b}\n", f"Volatility: {c}{TAIL}")) for a, b, c in STATES]


@pytest.fixture(scope="module")
def scorer(smollm2_path: Path) -> Iterator[Scorer]:
    held = Session(smollm2_path, n_threads=1)  # the child processes below use two: it makes no difference
    yield Scorer(held)
    held.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Iterator[Scorer]:
    """K-quants, the kernels of which depend on the number of rows."""
    held = Session(write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf"), n_threads=1, n_seq=12)
    yield Scorer(held)
    held.close()


def ask(scorer: Scorer, prompts: Sequence[Prompt], labels: Sequence[str] = LABELS, **options):
    scores = [one for batch in scorer.score(prompts, labels, **options) for one in batch]
    assert len(scores) == len(prompts)
    return [one.logprobs for one in scores]


@pytest.fixture(scope="module")
def expected(scorer: Scorer) -> list[tuple[float, ...]]:
    """Every prompt alone, the first ones on an empty memory."""
    alone = []
    for i, prompt in enumerate(PROMPTS):
        if i < 3:
            scorer.session.close()
        alone += ask(scorer, [prompt])
    return alone


# -- without a model


def test_log_softmax_is_that_of_the_whole_row():
    row = np.log(np.array([1.0, 2.0, 5.0], dtype=np.float32))
    assert log_softmax_at(row, [2, 0]) == pytest.approx([math.log(5 / 8), math.log(1 / 8)], abs=1e-7)
    assert log_softmax_at(row + np.float32(1000), [1])[0] == pytest.approx(math.log(2 / 8), abs=1e-4)


def test_labels_of_one_token_need_no_branch():
    trie = LabelTrie.of([(1,), (2,)])
    assert (trie.branches, trie.depth, trie.decoded) == ((), 0, 0)
    assert trie.totals({(1,): -0.5, (2,): -1.5}) == (-0.5, -1.5)


def test_branches_are_the_longest_beginnings_of_labels():
    trie = LabelTrie.of([(1, 2, 3), (1, 2, 4), (1, 5), (6,)])
    assert trie.branches == ((1, 2),)
    assert trie.following(()) == [1, 6]
    assert trie.following((1,)) == [2, 5]
    assert trie.following((1, 2)) == [3, 4]
    assert (trie.depth, trie.decoded) == (2, 2)
    steps = {(1,): -1.0, (6,): -2.0, (1, 2): -0.25, (1, 5): -0.5, (1, 2, 3): -0.125, (1, 2, 4): -4.0}
    assert trie.totals(steps) == (-1.375, -5.25, -1.5, -2.0)


@pytest.mark.parametrize("labels", [[(1,), (1, 2)], [(1, 2), (1,)], [(1, 2), (1, 2)]])
def test_a_label_that_begins_another_is_refused(labels):
    with pytest.raises(ConfigError, match="is the beginning of"):
        LabelTrie.of(labels)


def test_a_label_without_tokens_is_refused():
    with pytest.raises(ConfigError, match="label 1 has no tokens"):
        LabelTrie.of([(1,), ()])


@pytest.mark.parametrize("options", [{"n_seq": 0}, {"n_batch": 7}])
def test_bad_sizes_are_refused(tmp_path, options):
    with pytest.raises(ConfigError, match="expected at least"):
        Session(tmp_path / "x.gguf", **options)


def test_threads_are_at_least_one_and_at_most_the_cores():
    assert cpu_threads(0) == 1
    assert 1 <= cpu_threads() <= cpu_threads(10**6) == cpu_threads()


# -- the same to the last bit


@pytest.mark.model
def test_alone_and_together_are_the_same(scorer, expected):
    assert ask(scorer, PROMPTS) == expected
    assert ask(scorer, PROMPTS) == expected, "and again, on the kept prefix"


@pytest.mark.model
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_batches_of_any_size_and_order_are_the_same(scorer, expected, size):
    order = [5, 0, 7, 2, 6, 1, 4, 3]
    got = [ask(scorer, [PROMPTS[i] for i in order[k : k + size]]) for k in range(0, 8, size)]
    assert [row for part in got for row in part] == [expected[i] for i in order]


@pytest.mark.model
def test_a_longer_neighbour_changes_nothing(scorer, expected):
    """It pads the others, makes attention look at twice as many cells, and needs another context."""
    long = Prompt((HEAD, "Trend: up and then " + "up and down, " * 60 + TAIL))
    assert ask(scorer, [PROMPTS[0], long, PROMPTS[1]])[::2] == expected[:2]
    assert ask(scorer, PROMPTS[:2]) == expected[:2], "and in the larger context"


@pytest.mark.model
def test_other_questions_in_between_change_nothing(scorer, expected):
    ask(scorer, [Prompt(("The sky is",))], [" blue", " green"])
    assert ask(scorer, PROMPTS[:2]) == expected[:2]
    ask(scorer, PROMPTS[2:4], [" up", " down"])
    assert ask(scorer, PROMPTS[:2]) == expected[:2]


@pytest.mark.model
@pytest.mark.parametrize("labels", [LABELS[::-1], (" Bullish", " Neutral", " Bearish"), ("Bullish",)])
def test_other_labels_are_the_same_alone_and_together(scorer, expected, labels):
    together = ask(scorer, PROMPTS[:5], labels)
    assert together == [ask(scorer, [prompt], labels)[0] for prompt in PROMPTS[:5]]
    if labels[0] != " Bullish":
        columns = [LABELS.index(label) for label in labels]
        same = [tuple(row[c] for c in columns) for row in expected[:5]]
        if len(labels) == len(LABELS):
            assert together == same
        else:  # another branch than before is decoded with the prompt: equal but for rounding
            assert np.array(together) == pytest.approx(np.array(same), abs=0.01)


@pytest.mark.model
@pytest.mark.parametrize(
    "prompts",
    [
        [Prompt(("Up", " or", " down?")), Prompt(("Up", " and", " then it goes up again?"))],
        [Prompt(("", "Gold is")), Prompt(("", "Oil, which everybody wants, is"))],
        [Prompt(("Gold is",)), Prompt(("Gold is", " rarely")), Prompt(("Gold",))],
    ],
    ids=["a prefix of one token", "no prefix", "single chunks"],
)
def test_short_prefixes_are_the_same_alone_and_together(scorer, prompts):
    assert ask(scorer, prompts) == [ask(scorer, [prompt])[0] for prompt in prompts]


@pytest.mark.model
def test_prompts_of_several_prefixes_come_back_in_their_order(scorer, expected):
    other = [Prompt((HEAD + "Be careful. ", f"RSI: {n}{TAIL}")) for n in (10, 90)]
    alone = [ask(scorer, [prompt])[0] for prompt in other]
    mixed = [PROMPTS[0], other[0], PROMPTS[1], other[1], PROMPTS[2]]
    assert ask(scorer, mixed) == [expected[0], alone[0], expected[1], alone[1], expected[2]]


@pytest.mark.model
def test_chunks_are_where_tokens_end_but_not_where_sums_do(scorer, expected):
    """Cutting between lines changes no token of these prompts, so it changes no result."""
    whole = Prompt((HEAD, "".join(PROMPTS[0].chunks[1:])))
    assert ask(scorer, [whole]) == expected[:1]


@pytest.mark.model
def test_fewer_rows_a_decode_change_nothing(smollm2_path, expected):
    held = Session(smollm2_path, n_threads=1, n_seq=3, n_batch=64)
    assert ask(Scorer(held), PROMPTS[:4]) == expected[:4]
    held.close()


CHILD = """
import json, os, sys
from pathlib import Path
from bt_llm.models import Prompt
from bt_llm.models.llama._scorer import Scorer
from bt_llm.models.llama._session import Session

chunks, labels = json.load(sys.stdin)
prompts = [Prompt(tuple(c)) for c in chunks]
scorer = Scorer(Session(Path(sys.argv[1]), n_threads=int(sys.argv[2])))

def ask():
    return [one.logprobs for batch in scorer.score(prompts, labels) for one in batch]

rows = [ask()]
if sys.argv[3] == "fork":
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(into, json.dumps(ask()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    rows += [json.loads(os.read(out, 100_000)), ask()]
print(json.dumps(rows))
"""


def in_another_process(path: Path, tmp_path: Path, threads: int, mode: str) -> list[list[tuple[float, ...]]]:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(threads), mode],
        input=json.dumps([[p.chunks for p in PROMPTS[:3]], LABELS]),
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # quicker on a machine that is busy otherwise
    )
    assert done.stderr == "", "llama.cpp is quiet"
    return [[tuple(row) for row in rows] for rows in json.loads(done.stdout)]


@pytest.mark.model
def test_another_process_with_two_threads_is_the_same(smollm2_path, tmp_path, expected):
    assert in_another_process(smollm2_path, tmp_path, 2, "plain") == [expected[:3]]


@pytest.mark.model
def test_a_forked_child_makes_its_own_context_and_is_the_same(smollm2_path, tmp_path, expected):
    assert in_another_process(smollm2_path, tmp_path, 2, "fork") == [expected[:3]] * 3


STATE = st.text("abcdef :\n", max_size=30)


@settings(max_examples=25, deadline=None)
@given(states=st.lists(STATE, min_size=1, max_size=12, unique=True), data=st.data())
@pytest.mark.parametrize("labels", [("Bullish", "Neutral", "Bearish", "B0"), ("Bu", "Ne", "Be"), ("u", "n")])
def test_k_quants_are_the_same_alone_and_in_any_company(tiny, labels, states, data):
    """Labels of many tokens, of two and of one; batches of any size and order; suffixes of 1 to 31 tokens."""
    prompts = [Prompt(("The market today. ", state, ":")) for state in states]
    order = data.draw(st.permutations(range(len(prompts))))
    together = ask(tiny, [prompts[i] for i in order], labels)
    alone = [ask(tiny, [prompts[i]], labels)[0] for i in order[:3]]
    assert together[:3] == alone


@pytest.mark.parametrize("words", [0, 1, 3, 40, 150])
def test_k_quants_are_the_same_after_prefixes_of_any_length(tiny, words):
    """Also of fewer tokens than the kernels want rows, and of more than attention looks at by default."""
    head = "Flat. " * words
    prompts = [Prompt((head, f"Trend: {trend}")) for trend in ("up", "down", "sideways, mostly")]
    together = ask(tiny, prompts)
    tiny.session.close()
    assert [ask(tiny, [prompt])[0] for prompt in prompts] == together


def test_a_prefix_longer_than_a_decode_is_cut_where_it_does_not_matter(tiny):
    prompts = [Prompt(("Flat. " * 50, f"Trend: {trend}")) for trend in ("up", "down")]
    held = Session(
        tiny.session.path, n_threads=1, n_batch=MIN_ROWS * 37
    )  # 301 tokens: 296, and 5 padded to 8
    assert ask(Scorer(held), prompts) == ask(tiny, prompts)
    held.close()


# -- lines decoded once for all prompts that begin with them

GRID = [
    Prompt(("Today. ", f"Trend: {trend}\n", f"RSI: {rsi}\n", f"Volatility: {volatility}\n:"))
    for trend in ("up", "down", "sideways")
    for rsi in ("low", "so-so", "high")
    for volatility in ("low", "normal", "higher")
]


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """Sizes of the decodes, in tokens with padding."""
    sizes: list[int] = []
    decode = Context.decode

    def counting(self, tokens, *args, **options):
        sizes.append(tokens.size)
        return decode(self, tokens, *args, **options)

    monkeypatch.setattr(Context, "decode", counting)
    return sizes


def test_sharing_lines_is_exact_and_decodes_fewer_tokens(tiny, counted):
    tiny.session.close()
    alone = [ask(tiny, [prompt])[0] for prompt in GRID]
    assert tiny.session.sharing_is_exact is None, "too few prompts to find out"
    assert ask(tiny, GRID) == alone
    assert tiny.session.sharing_is_exact is True
    counted.clear()
    assert ask(tiny, GRID) == alone
    shared = sum(counted)
    tiny.session.sharing_is_exact = False
    counted.clear()
    assert ask(tiny, GRID) == alone
    assert shared < 0.8 * sum(counted)
    tiny.session.sharing_is_exact = True
    assert ask(tiny, GRID[:2] + GRID[9:11]) == alone[:2] + alone[9:11], "once known, also for few"
    tiny.session.close()


def test_labels_of_one_token_decode_nothing_of_their_own_and_are_exact(tiny, counted):
    ask(tiny, GRID[:1], ["up", "down", "flat"])  # the prefix is kept
    counted.clear()
    alone = [ask(tiny, [prompt], ["u", "d", "f"])[0] for prompt in GRID]
    assert len(counted) == len(GRID)
    tiny.session.sharing_is_exact = None
    assert ask(tiny, GRID, ["u", "d", "f"]) == alone, "as a tree"
    assert tiny.session.sharing_is_exact is True
    tiny.session.sharing_is_exact = False
    assert ask(tiny, GRID, ["u", "d", "f"]) == alone, "in batches"
    tiny.session.sharing_is_exact = True


@pytest.mark.model
def test_sharing_lines_is_exact_on_the_real_model(scorer):
    together = ask(scorer, GRID[:18])
    assert scorer.session.sharing_is_exact is True
    scorer.session.sharing_is_exact = False
    assert ask(scorer, GRID[1:18:5]) == together[1::5]
    scorer.session.sharing_is_exact = True


def test_lines_of_very_different_lengths_are_exact_too(tiny):
    prompts = [
        Prompt(("Today. ", "a" * size, "b" * (200 - size), f"{n}:"))
        for size in (2, 100, 198)
        for n in range(6)
    ]
    tiny.session.close()
    together = ask(tiny, prompts)
    assert tiny.session.sharing_is_exact is True
    assert [ask(tiny, [prompt])[0] for prompt in prompts[::4]] == together[::4]
    tiny.session.close()


def test_many_long_labels_are_exact_too(tiny):
    """More rows of logits than the context has room for, if all were decoded at once."""
    labels = [f"{letter}-label" for letter in "abcdefghijk"]
    together = ask(tiny, GRID[:7], labels)
    assert [ask(tiny, [prompt], labels)[0] for prompt in GRID[:3]] == together[:3]


@pytest.mark.parametrize(("count", "length"), [(2, 200), (17, 8)])
def test_a_decode_that_does_not_fit_is_an_error_and_not_the_end(tiny, count, length):
    shape = session.ContextShape(n_seq=16, n_ctx_seq=256, n_batch=256, n_outputs=16)
    context = Context(tiny.session.weights(), shape, numerics="canonical", n_threads=1)
    tokens = np.zeros((count, length), dtype=np.int32)
    with pytest.raises(ModelError, match="does not fit"):
        context.decode(tokens, np.zeros(count, dtype=np.int32), tokens == 0)
    context.close()


def test_tokens_are_counted_once_with_sharing(tiny):
    tiny.session.close()
    tiny.session.sharing_is_exact = True
    scores = [one for batch in tiny.score(GRID, ["u", "n"]) for one in batch]
    paths = [tiny.session.tokenise(prompt).paths for prompt in GRID]
    # Three trends of three RSIs of three volatilities, 12 sequences: each trend and RSI once a forest.
    assert sum(one.tokens for one in scores) < sum(sum(map(len, path)) for path in paths)
    assert scores[1].tokens == len(paths[1][2])
    tiny.session.close()


def test_where_sharing_is_not_exact_prompts_are_decoded_whole(tiny, monkeypatch, caplog):
    tiny.session.close()
    alone = [ask(tiny, [prompt])[0] for prompt in GRID]
    honest = Scorer._decode_forest

    def rounding(self, context, forest, trie, deadline):
        rows = honest(self, context, forest, trie, deadline)
        off = 1e-9 if len(forest.levels()) > 1 else 0.0
        return {number: tuple(value + off for value in row) for number, row in rows.items()}

    monkeypatch.setattr(Scorer, "_decode_forest", rounding)
    assert ask(tiny, GRID) == alone
    assert tiny.session.sharing_is_exact is False
    assert "decoding shared lines once changes the scores; not done" in caplog.text
    tiny.session.close()


# -- right, not only the same


@pytest.mark.model
def test_probabilities_agree_with_llama_cpps_own_class(smollm2_path, expected):
    """An independent way: every token's logits from one pass over prompt and label."""
    lc = library()
    llama = lc.Llama(str(smollm2_path), n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    text, vocabulary = PROMPTS[3].text.encode(), []
    for label in LABELS:
        llama.reset()
        before = llama.tokenize(text, add_bos=False, special=True)
        tokens = llama.tokenize(label.encode(), add_bos=False)
        llama.eval([*before, *tokens])
        rows = llama.scores[len(before) - 1 : len(before) + len(tokens) - 1].astype(float)
        norms = np.log(np.exp(rows).sum(axis=1))
        vocabulary.append(sum(rows[i, token] - norms[i] for i, token in enumerate(tokens)))
    llama.close()
    assert expected[3] == pytest.approx(vocabulary, abs=0.02)


@pytest.mark.model
def test_labels_are_probabilities(expected):
    for row in expected:
        assert 0.005 < sum(math.exp(value) for value in row) < 1.0
    assert len(set(expected)) == len(expected), "states differ"


@pytest.mark.model
def test_control_tokens_are_read_in_prompts_and_not_in_labels(scorer):
    weights = scorer.session.weights()
    assert len(weights.tokens("<|im_end|>", special=True)) == 1
    (trie,) = scorer.questions(PROMPTS, ["<|im_end|>"])
    assert len(trie.labels[0]) > 1
    assert weights.piece(weights.tokens("Bull", special=False)[0]) == b"B"


def test_a_bos_is_added_exactly_once(tiny):
    weights = tiny.session.weights()
    assert weights.opening("up") == [BOS, ord("u"), ord("p")]
    assert weights.opening("<s>up") == weights.opening("up"), "the text begins with it"
    assert weights.opening("") == [BOS]
    assert tiny.session.tokenise(Prompt(("up", "<s>"))).suffix == (BOS,), "and not before other chunks"


@pytest.mark.model
def test_a_model_that_wants_no_bos_gets_none(scorer):
    weights = scorer.session.weights()
    assert weights.opening("Gold") == weights.tokens("Gold", special=True)


@pytest.mark.model
def test_counts_and_times_are_of_one_prompt(scorer):
    (first, second), *rest = scorer.score(PROMPTS[:2], LABELS)
    assert rest == []
    assert first.tokens == len(scorer.session.tokenise(PROMPTS[0]).suffix) + 5  # 2 + 2 + 1 tokens of labels
    assert first.milliseconds == second.milliseconds > 0


@pytest.mark.model
def test_batches_are_told_as_they_come(smollm2_path):
    held = Session(smollm2_path, n_threads=1, n_seq=2)
    assert [len(batch) for batch in Scorer(held).score(PROMPTS[:5], [" up", " down"])] == [2, 2, 1]
    assert list(Scorer(held).score([], LABELS)) == []
    held.close()


def test_whoever_is_told_hears_inside_each_decode_and_changes_nothing(tiny, counted, monkeypatch):
    monkeypatch.setattr("bt_llm.progress._HEARD", 0.0)
    expected = ask(tiny, GRID)
    counted.clear()
    seen: list[int] = []
    with partly(lambda done, _: seen.append(done), [], 1000):
        assert ask(tiny, GRID) == expected
    assert len(seen) > 5 * len(counted)
    assert seen == sorted(seen)
    assert len(set(seen)) > 2 * len(counted), "and not the same share all the while"
    assert seen[-1] == 999


def test_what_whoever_is_told_raises_ends_the_decode_and_reaches_the_caller(tiny, monkeypatch):
    monkeypatch.setattr("bt_llm.progress._HEARD", 0.0)
    expected = ask(tiny, GRID)
    calls = 0

    def listener(*_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise LookupError("enough")

    with partly(listener, [], len(GRID)), pytest.raises(LookupError, match="enough"):
        ask(tiny, GRID)
    assert calls == 40
    assert ask(tiny, GRID) == expected


# -- fast numerics


@pytest.mark.model
def test_fast_numerics_are_close_and_leave_the_canonical_ones_exact(scorer, expected):
    fast = ask(scorer, PROMPTS[:3], numerics="fast")
    assert np.abs(np.array(fast) - np.array(expected[:3])).max() < 0.3
    assert ask(scorer, PROMPTS[:3]) == expected[:3]


# -- what can go wrong


@pytest.mark.model
@pytest.mark.parametrize(
    ("prompts", "labels", "words"),
    [
        (PROMPTS[:1], [], "no labels"),
        (PROMPTS[:1], ["Bull", "Bullish"], "labels"),
        (PROMPTS[:1], ["up", ""], "label 1 has no tokens"),
        ([Prompt(())], ["up", "down"], "empty prompt"),
        ([Prompt(("", ""))], ["up", "down"], "empty prompt"),
        ([Prompt(("up " * 9000,))], ["up", "down"], "trained for 8192"),
        ([Prompt(("\ud800",))], ["up", "down"], "UTF-8"),
    ],
)
def test_questions_that_cannot_be_asked(scorer, prompts, labels, words):
    with pytest.raises(ConfigError, match=words):
        ask(scorer, prompts, labels)


@pytest.mark.model
def test_a_timeout_stops_inside_a_decode_and_leaves_the_scorer_usable(scorer, expected):
    ask(scorer, PROMPTS[:1])
    with pytest.raises(GenerationTimeout, match=r"timeout_s=0\.02: over after 0 of 8 prompts"):
        ask(scorer, PROMPTS, timeout_s=0.02)
    assert ask(scorer, PROMPTS[:2], timeout_s=600) == expected[:2]


@pytest.mark.model
def test_ctrl_c_stops_inside_a_decode(scorer, expected, monkeypatch):
    import signal

    decode, looks = Context.decode, itertools.count()

    def announced(self, *args, **options):
        with giving_up_when(interrupt):  # which llama.cpp asks while it decodes
            return decode(self, *args, **options)

    def interrupt() -> bool:
        if next(looks) == 5:
            signal.raise_signal(signal.SIGINT)
        return False

    monkeypatch.setattr(Context, "decode", announced)
    with pytest.raises(KeyboardInterrupt):
        ask(scorer, PROMPTS)
    assert 5 < next(looks) < 50
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert ask(scorer, PROMPTS[:2]) == expected[:2]


@pytest.mark.model
def test_a_failed_decode_is_an_error_and_leaves_the_scorer_usable(scorer, expected, monkeypatch):
    weights = scorer.session.weights()
    with monkeypatch.context() as patch:
        patch.setattr(weights._lc, "llama_decode", lambda *_: -3)
        with pytest.raises(ModelError, match=r"failed to decode .* tokens \(code -3\)"):
            ask(scorer, PROMPTS[:2])
    assert ask(scorer, PROMPTS[:2]) == expected[:2]


@pytest.mark.model
def test_short_memory_means_fewer_side_by_side_and_the_same_scores(smollm2_path, expected, monkeypatch):
    facts = read_facts(smollm2_path)
    held = Session(smollm2_path, n_threads=1, facts=facts, memory_threshold_mb=10)
    free = estimate_memory_mb(facts, 256, n_seq_max=12, n_batch=2048, n_outputs=32) + 10
    monkeypatch.setattr(memory, "available_memory_mb", lambda: free)
    assert ask(Scorer(held), PROMPTS * 2) == expected * 2
    assert held._context is not None
    assert held._context.shape.n_seq == MIN_ROWS
    held.close()


def test_more_or_longer_prompts_get_a_larger_context_and_no_smaller_one_follows(tiny):
    held = Session(tiny.session.path, n_threads=1)
    shapes = []
    for prompts in (GRID[:1], GRID[:20], [Prompt(("Today. ", "up " * 90))], GRID[:1]):
        ask(Scorer(held), prompts)
        shapes.append((held._context.shape.n_seq, held._context.shape.n_ctx_seq))
    assert shapes == [(8, 256), (32, 256), (32, 512), (32, 512)]
    held.close()


@pytest.mark.model
def test_no_memory_at_all_is_an_error_before_loading(smollm2_path, monkeypatch):
    held = Session(smollm2_path, facts=read_facts(smollm2_path))
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 60.0)
    with pytest.raises(InsufficientMemoryError, match="60 MB are free"):
        ask(Scorer(held), PROMPTS)
    assert not held.loaded


@pytest.mark.model
def test_no_memory_for_the_fewest_sequences_is_an_error_too(smollm2_path, monkeypatch):
    held = Session(smollm2_path, n_threads=1)
    monkeypatch.setattr(
        session, "Context", lambda *_, **__: (_ for _ in ()).throw(InsufficientMemoryError("full"))
    )
    with pytest.raises(InsufficientMemoryError, match="full"):
        ask(Scorer(held), PROMPTS)
    held.close()


@pytest.mark.model
def test_a_context_too_large_for_llama_cpp_is_an_error(scorer):
    weights = scorer.session.weights()
    shape = session.ContextShape(n_seq=100_000, n_ctx_seq=256, n_batch=256, n_outputs=16)
    with pytest.raises(InsufficientMemoryError, match="100000 sequences of 256 tokens"):
        Context(weights, shape, numerics="canonical", n_threads=1)


def test_a_file_that_llama_cpp_refuses_is_one_line(tmp_path, capfd):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelFileError, match=r"llama\.cpp cannot load") as caught:
        ask(Scorer(Session(path)), PROMPTS)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.model
def test_llama_cpps_log_goes_to_logging_and_to_stderr_when_asked(smollm2_path, caplog, capfd):
    with caplog.at_level(logging.DEBUG, logger="bt_llm.llama"):
        held = Session(smollm2_path, load=lambda _: Weights(smollm2_path, verbose=True))
        held.weights()
    held.close()
    assert any("llama_model_loader" in record.message for record in caplog.records)
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
    assert "llama_model_loader" in capfd.readouterr().err
    library(verbose=False)
    held.weights()
    held.close()


@pytest.mark.model
def test_threads_of_python_may_ask_at_the_same_time(scorer, expected):
    got: dict[int, list[tuple[float, ...]]] = {}
    threads = [
        threading.Thread(target=lambda k=k: got.update({k: ask(scorer, PROMPTS[k : k + 2])}))
        for k in (0, 2, 4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {k: expected[k : k + 2] for k in (0, 2, 4)}


@pytest.mark.model
def test_a_closed_session_loads_again(scorer, expected):
    scorer.session.close()
    assert not scorer.session.loaded
    assert ask(scorer, PROMPTS[:1]) == expected[:1]
    assert scorer.session.loaded
