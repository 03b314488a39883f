"""A real llama.cpp server: the same question gets the same number twice, and the local scorer's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bt_llm.advice import _readers as readers
from bt_llm.exceptions import ModelNotFoundError
from bt_llm.models import LlamaModel, ModelConfig, Prompt, RemoteBackend
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import StateSpace
from tests.llama_cpp_server import running
from tests.tiny_gguf import write_tiny_model

pytestmark = pytest.mark.model

TOLERANCE = 0.08
"""Of a probability: the server rounds as llama.cpp does by default, not canonically."""


@pytest.fixture(scope="module")
def url(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(smollm2_path, tmp_path_factory.mktemp("server") / "log.txt") as address:
        yield address


def test_the_same_questions_get_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """In K-quants, whose kernels depend on how many rows come at once: 94 of these differ in its batches."""
    folder = tmp_path_factory.mktemp("tiny")
    model = write_tiny_model(folder / "tiny.gguf", ascii_only=True)
    shown = "Trend: up\nRSI: 70\nVerdict: x\nTrend: down\nRSI: 30\nVerdict: y\n"
    asked = [
        Prompt((f"{shown}Trend: {trend}\nRSI: {rsi}\nVerdict:",))
        for trend in ("up", "down", "flat", "mixed")
        for rsi in range(0, 100, 4)
    ]
    with running(model, folder / "log.txt") as url:
        backend = RemoteBackend.named(f"openai:{url}?connections=16&top=300")
        assert backend.identity.details["differs"] == 0.0
        one, other = (
            [scores.logprobs for batch in backend.score(order, ("x", "y", "z")) for scores in batch if scores]
            for order in (asked, asked[::-1])
        )
    assert one == other[::-1]
    assert len(one) == len(set(one)) == 100
    assert "inexact" not in caplog.text


def test_its_chat_template_and_its_verdicts_are_those_of_the_file(
    url: str, smollm2_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template, space = PromptTemplate.load("market"), StateSpace()
    local, backend = (
        LlamaModel(ModelConfig(model_path=smollm2_path, n_threads=2)),
        RemoteBackend.named(f"openai:{url}"),
    )
    assert backend.identity.chat_template == local.identity.chat_template
    asked = template.prompts(space, [0, 104], local.identity)

    def chances(of: LlamaModel | RemoteBackend) -> list[tuple[float, ...]]:
        batches = readers.read_logprobs(of, asked, template.continuations, template.choices, "canonical")
        return [reading[0].probabilities for batch in batches for reading in batch if reading]

    ours, theirs = chances(local), chances(backend)
    local.close()
    assert "rendered otherwise" not in caplog.text
    for mine, other in zip(ours, theirs, strict=True):
        assert other == pytest.approx(mine, abs=TOLERANCE)


def test_a_name_that_it_would_answer_with_another_model_is_refused(url: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"no model 'llama-70b'; name one with model=, of \['small'\]"
    ):
        _ = RemoteBackend.named(f"openai:{url}?model=llama-70b").identity
