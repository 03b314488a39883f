from __future__ import annotations

import math

import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.models import Prompt, ScriptedBackend
from bt_llm.models._scripted import SCRIPTS, RandomScript

LABELS = (" Bullish", " Neutral", " Bearish")


def scores(backend: ScriptedBackend, text: str) -> list[float]:
    [[answer]] = list(backend.score([Prompt((text,))], LABELS))
    return [round(math.exp(value), 6) for value in answer.logprobs]


def test_scripts_read_the_last_trend_of_the_prompt() -> None:
    text = "Trend: down\nVerdict: Bearish\n\nTrend: up\nVerdict:"
    assert scores(ScriptedBackend.named("scripted:trend"), text) == [0.6, 0.2, 0.1]
    assert scores(ScriptedBackend.named("scripted:contrarian"), text) == [0.1, 0.2, 0.6]
    assert scores(ScriptedBackend.named("scripted:bullish"), text) == [0.8, 0.1, 0.1]
    assert scores(ScriptedBackend.named("scripted:trend"), "no trend here") == [0.2, 0.5, 0.2]


def test_random_is_a_function_of_prompt_and_seed() -> None:
    assert RandomScript(1)("a") == RandomScript(1)("a")
    assert RandomScript(1)("a") != RandomScript(2)("a")
    assert RandomScript(1)("a") != RandomScript(1)("b")
    assert sum(RandomScript(1)("a")) == pytest.approx(1.0)


def test_two_scripts_are_two_models() -> None:
    hashes = {ScriptedBackend.named(f"scripted:{name}").identity.sha256 for name in SCRIPTS}
    hashes.add(ScriptedBackend.named("scripted:random:7").identity.sha256)
    assert len(hashes) == len(SCRIPTS) + 1


@pytest.mark.parametrize(
    "name",
    [
        "scripted",
        "scripted_trend",
        "scriptedfoo:trend",
        "scripted:trand",
        "scripted:trend:3",
        "scripted:random:x",
        "scripted:random:\u00b2",
    ],
)
def test_unknown_scripts_list_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\['bullish', 'contrarian', 'random', 'trend'\]"):
        ScriptedBackend.named(name)


def test_a_script_must_answer_every_label() -> None:
    with pytest.raises(ConfigError, match="1 probabilities for 3 labels"):
        scores(ScriptedBackend(lambda _: (1.0,)), "x")


def test_calls_are_counted() -> None:
    backend = ScriptedBackend.named("scripted:trend")
    list(backend.score([Prompt(("a",)), Prompt(("b",))], LABELS))
    list(backend.generate_json([Prompt(("a",))], {}, max_tokens=1, seed=0))
    backend.close()
    assert backend.calls == 3
