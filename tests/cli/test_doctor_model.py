from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bt_llm.advice import Advisor, AdvisorConfig, checkup
from bt_llm.exceptions import ConfigError
from bt_llm.models import LabelScores, ScriptedBackend
from tests.cli_cases import Cli, one_line
from tests.models.architectures import write_model


@pytest.mark.model
def test_doctor_shows_what_a_model_reads_and_says(cli: Cli) -> None:
    outcome = cli("doctor", "--model", "smollm2", "--format", "json")
    assert outcome.code == 0
    found = json.loads(outcome.out)["model"]
    assert found["prompt"]["chunks"][-1].endswith("Verdict:")
    texts = [text for _, text in found["prompt"]["tokens"]]
    assert "".join(texts) == "".join(found["prompt"]["chunks"])
    assert texts[:3] == ["<|im_start|>", "system", "\n"]
    assert [text for _, text in found["labels"][" Bearish"]] == [" Bear", "ish"]
    assert len(found["states"]) == 10
    assert all(sum(state[name] for name in ("bullish", "neutral", "bearish")) for state in found["states"])
    assert 0.2 < found["label_mass"]["least"] < found["label_mass"]["most"] < 0.5
    assert (found["difference"], found["problems"], found["decoding"]) == (0.0, [], "tree")


@pytest.mark.model
def test_the_page_can_be_posted(cli: Cli) -> None:
    outcome = cli("doctor", "--model", "smollm2")
    assert outcome.code == 0
    assert "<|im_start|>\u2502system\u2502\u21b5\u2502\nYou\u2502 are\u2502 a\u2502 trading" in outcome.out
    assert "' Bull' 17489" in outcome.out
    assert "the same to the last bit" in outcome.out


def test_a_model_of_experts_is_asked_one_at_a_time(tmp_path: Path) -> None:
    path = write_model(tmp_path / "moe.gguf", "qwen3moe")
    config = AdvisorConfig(model=path, cache_mode="off", n_threads=1, min_label_mass=0)
    with Advisor(config) as advisor:
        found = checkup(advisor, states=4)
    assert (found.decoding, found.difference, len(found.states)) == ("one at a time", 0.0, 4)


class Moody(ScriptedBackend):
    """Says something else each time, and little of it with the labels."""

    asked = 0

    def score(self, prompts, labels, *, numerics="canonical"):
        for _ in prompts:
            self.asked += 1
            yield [LabelScores(tuple(math.log(1e-3 * p) for p in (0.5, 0.3, 0.2 + self.asked / 100)))]


def test_what_differs_or_cannot_be_read_is_said() -> None:
    moody = Moody(lambda prompt: (0.5, 0.3, 0.2), name="moody")
    found = checkup(Advisor(AdvisorConfig(cache_mode="off"), backend=moody))
    assert 0.01 < found.difference < 0.2
    first, second = found.problems
    assert first.startswith("asked again, probabilities differ by up to 0.")
    assert second.startswith("10 of 10 verdicts are invalid: the labels hold 0.001 of the probability")
    assert found.to_dict()["states"][0]["answer"] == "invalid"


def test_states_are_spread_over_the_space_and_put_back_in_order() -> None:
    steady = ScriptedBackend(lambda prompt: (0.2, len(prompt) / 1e4, 0.8 - len(prompt) / 1e4), name="steady")
    found = checkup(Advisor(AdvisorConfig(cache_mode="off"), backend=steady), states=7)
    assert found.difference == 0.0
    assert found.states[0] == "low, below 20, strong down"
    assert found.states[-1] == "high, above 80, strong up"
    assert (found.decoding, found.prompt_tokens) == ("", ())


def test_a_checkup_asks_about_one_state_at_least() -> None:
    with pytest.raises(ConfigError, match="states=0: expected a whole number, 1 or more"):
        checkup(Advisor(AdvisorConfig(model="scripted:trend")), states=0)


def test_a_checkup_reads_log_probabilities() -> None:
    with pytest.raises(ConfigError, match="reader='json': a checkup reads log-probabilities"):
        checkup(Advisor(AdvisorConfig(model="scripted:trend", reader="json")))


def test_doctor_refuses_a_model_that_is_not_there_in_one_line(cli: Cli) -> None:
    assert "no model 'absent'" in one_line(cli("doctor", "--model", "absent"))
