"""The matrix: what a prompt's scores are alone, in batches and in a tree, for each architecture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import LlamaFileType

from bt_llm.models import LlamaModel, ModelConfig, Prompt, identify
from bt_llm.models.llama._native import library
from bt_llm.models.llama._scorer import Scorer
from tests.models.architectures import ARCHITECTURES, write_model

LABELS = (" Bullish", " Neutral", " Bearish")
GRID = [
    Prompt(("Judge the market by its state.\n", f"Volatility: {v}\n", f"RSI: {r}\n", f"Trend: {t}\nVerdict:"))
    for v in ("low", "high")
    for r in ("20", "45 to 55", "80")
    for t in ("down", "flat", "strong up")
]
SCHEMA = {"type": "object", "properties": {"verdict": {"enum": ["Up", "Down"]}}, "required": ["verdict"]}


HOW = {"tree": (True, None), "batches": (None, True), "one at a time": (None, None)}
KINDS = {"qwen3moe": "one at a time"} | dict.fromkeys(
    ("falcon-h1", "granitehybrid", "lfm2", "mamba", "mamba2", "qwen3.5"), "batches"
)
"""How prompts are decoded; all other architectures share the lines that prompts have in common."""


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = write_model(tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf", request.param)
    made = LlamaModel(ModelConfig(model_path=path, n_threads=1), n_seq=24)
    yield made
    made.close()


def scores(model: LlamaModel, prompts: list[Prompt]) -> list[tuple[float, ...]]:
    return [one.logprobs for batch in model.score(prompts, LABELS) for one in batch]


def test_scores_are_the_same_alone_in_batches_and_in_a_tree(model: LlamaModel) -> None:
    alone = [row for prompt in GRID for row in scores(model, [prompt])]
    assert scores(model, GRID[:5]) == alone[:5], "a batch"
    assert scores(model, GRID[::-3]) == alone[::-3], "another batch in another order"
    assert scores(model, GRID) == alone, "all of them: a tree where the model can be cut back"
    assert len(set(alone)) == len(GRID), "and not the same for all"
    found = model.session.sharing_is_exact, model.session.company_is_exact
    assert found == HOW[KINDS.get(model.path.stem, "tree")]


def test_json_is_the_same_alone_and_in_company(model: LlamaModel) -> None:
    together = [one.text for one in model.generate_json(GRID[:3], SCHEMA, max_tokens=24)]
    assert all(json.loads(text)["verdict"] in ("Up", "Down") for text in together)
    assert [one.text for one in model.generate_json(GRID[2:3], SCHEMA, max_tokens=24)] == together[2:3]


def test_where_a_prompt_is_cut_changes_none_of_its_tokens(model: LlamaModel) -> None:
    session = model.session
    whole = [Prompt((prompt.text,)) for prompt in GRID[:2]]
    found = [scores(model, prompts) for prompts in (GRID[:2], whole)]
    tokens = [[session.tokenise(prompt).joined() for prompt in prompts] for prompts in (GRID[:2], whole)]
    assert tokens[0] == tokens[1]
    if KINDS.get(model.path.stem) != "one at a time":  # which experts share a decode depends on the cut
        assert found[0] == found[1]


@pytest.mark.parametrize("family", ["mamba", "qwen3.5", "lfm2"])
def test_a_state_goes_on_over_a_prefix_of_several_decodes(family: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / f"{family}.gguf", family)
    prompts = [
        Prompt(("Judge. " * 75 + "\n", f"Trend: {trend}\nVerdict:")) for trend in ("down", "strong up")
    ]
    held = LlamaModel(ModelConfig(model_path=path, n_threads=1))
    assert len(held.session.tokenise(prompts[0]).prefix) > 512
    together = scores(held, prompts)
    held.close()
    assert scores(held, prompts[1:]) == together[1:]
    assert together[0] != together[1]
    held.close()


def test_json_needs_no_prefix_and_little_text(tmp_path: Path) -> None:
    """A suffix is as long as a decode must be, and the whole prompt if it is shorter than that."""
    path = write_model(tmp_path / "lfm2.gguf", "lfm2")
    held = LlamaModel(ModelConfig(model_path=path, n_threads=1))
    for chunks in (("Judge the market. ", "x"), ("Up or down?", "")):
        (one,) = held.generate_json([Prompt(chunks)], SCHEMA, max_tokens=24)
        assert json.loads(one.text)["verdict"] in ("Up", "Down")
    held.close()


# -- SentencePiece with a space prefix


@pytest.fixture(scope="module")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = write_model(tmp_path_factory.mktemp("tiny") / "spaced.gguf", "mistral", LlamaFileType.ALL_F32)
    made = LlamaModel(ModelConfig(model_path=path, n_threads=1))
    yield made
    made.close()


def test_labels_are_what_they_are_in_the_whole_text(spaced: LlamaModel) -> None:
    weights = spaced.session.weights()
    alone = [weights.tokens(label, special=False) for label in LABELS]
    assert len({tokens[0] for tokens in alone}) == 1, "tokenised alone they all begin with a space"
    (trie,) = Scorer(spaced.session).questions(GRID, LABELS)
    assert [b"".join(map(weights.piece, label)) for label in trie.labels] == [
        b" Bullish",
        b" Neutral",
        b" Bearish",
    ]
    assert all(len(label) == 1 for label in trie.labels)


def test_spaced_scores_are_those_of_llama_cpps_own_class(spaced: LlamaModel) -> None:
    """An independent way: the whole text, tokenised and evaluated at once."""
    own = library().Llama(str(spaced.path), n_ctx=512, logits_all=True, verbose=False, n_threads=1)
    for prompt, row in zip(GRID[:2], scores(spaced, GRID[:2]), strict=True):
        before = own.tokenize(prompt.text.encode(), add_bos=True, special=True)
        for label, found in zip(LABELS, row, strict=True):
            tokens = own.tokenize((prompt.text + label).encode(), add_bos=True, special=True)
            assert tokens[: len(before)] == before
            own.reset()
            own.eval(tokens)
            logits = own.scores[len(before) - 1].astype(float)
            expected = logits[tokens[-1]] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            assert found == pytest.approx(expected, abs=1e-4)
    own.close()


def test_lines_are_shared_by_prompts_of_a_spaced_vocabulary_too(spaced: LlamaModel) -> None:
    prompts = [spaced.session.tokenise(prompt) for prompt in GRID]
    assert len({prompt.prefix for prompt in prompts}) == 1
    assert len({prompt.paths[0] for prompt in prompts}) == 2
    weights = spaced.session.weights()
    for prompt, tokens in zip(GRID, prompts, strict=True):
        assert tokens.prefix + tokens.suffix == weights.whole(prompt.text)


def test_a_label_that_changes_the_prompts_last_token_takes_it_along(spaced: LlamaModel) -> None:
    (prompt,), weights = [Prompt(("Judge. ", "Trend: down\nVerdict: "))], spaced.session.weights()
    ((trie, tokens),) = Scorer(spaced.session).questions([prompt], ["Bullish", "Bearish"]).items()
    assert [weights.piece(label[0]) for label in trie.labels] == [b" Bullish", b" Bearish"]
    assert tokens[0].prefix + tokens[0].suffix == weights.whole(prompt.text.rstrip(" "))


def test_answers_of_a_spaced_vocabulary_have_keys_of_their_own(spaced: LlamaModel, tmp_path: Path) -> None:
    identity = spaced.identity
    assert identity.details["tokens"] == "of the whole text"
    details = {name: value for name, value in identity.details.items() if name != "tokens"}
    before = dataclasses.replace(identity, details=details)
    assert before.chat_template_sha256 != identity.chat_template_sha256
    plain = identify(write_model(tmp_path / "plain.gguf", "llama"))
    assert "tokens" not in plain.details


def test_the_matrix_in_the_docs_is_the_one_that_is_tested(repository: Path) -> None:
    text = (repository / "docs" / "models.md").read_text(encoding="utf-8")
    table = text.partition("| family |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table]
    tested = [
        (name, architecture, KINDS.get(name, "tree"), "yes")
        for name, (architecture, *_) in sorted(ARCHITECTURES.items())
    ]
    assert rows == tested


@pytest.mark.parametrize("family", ["lfm2", "qwen3moe"])
def test_a_model_that_leaves_the_memory_between_two_batches_is_read_as_before(
    family: str, tmp_path: Path
) -> None:
    path = write_model(tmp_path / f"{family}.gguf", family)
    held = LlamaModel(ModelConfig(model_path=path, n_threads=1), n_seq=8)
    expected, found = scores(held, GRID), []
    for batch in held.score(GRID, LABELS):
        found += [one.logprobs for one in batch]
        held.close()
    assert found == expected
