from __future__ import annotations

import pytest

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import ConfigError, InsufficientMemoryError, ModelNotFoundError
from bt_llm.models import ScriptedBackend

UP = {"trend": 0.2, "rsi": 60.0, "volatility": 1.0}


def config(tmp_path, **settings):
    return AdvisorConfig(cache_dir=tmp_path, cache_mode="record", **settings)


def test_a_missing_model_is_replaced_and_verdicts_are_those_of_the_one_that_answers(tmp_path, caplog):
    advisor = Advisor(config(tmp_path, model="/no/such.gguf", fallbacks=("/nor/this.gguf", "scripted:trend")))
    expected = Advisor(config(tmp_path / "other", model="scripted:trend"))
    verdict = advisor.advise(UP)
    assert verdict == expected.advise(UP)
    assert verdict.model == "scripted:trend"
    assert [record.message.rsplit("; ", 1)[1] for record in caplog.records] == [
        "using the fallback /nor/this.gguf",
        "using the fallback scripted:trend",
    ]
    assert advisor.cache.stats().by_model == {ScriptedBackend.named("scripted:trend").identity.sha256: 105}


def test_a_model_too_large_for_the_memory_is_replaced_and_not_mixed_with(tmp_path, monkeypatch):
    real, asked = ScriptedBackend.score, []

    def score(self, prompts, labels, *, numerics="canonical"):
        asked.append(self.identity.name)
        for batch in real(self, prompts, labels, numerics=numerics):
            if self.identity.name == "scripted:random" and asked.count("scripted:random") > 1:
                raise InsufficientMemoryError("too large")
            yield batch

    monkeypatch.setattr(ScriptedBackend, "score", score)
    advisor = Advisor(
        config(tmp_path, model="scripted:random", fallbacks=["scripted:trend"], calibration="none")
    )
    first = advisor.advise_cells([1, 2])
    assert {verdict.model for verdict in first} == {"scripted:random"}
    later = advisor.advise_cells([1, 2, 3])
    assert {verdict.model for verdict in later} == {"scripted:trend"}
    assert asked == ["scripted:random", "scripted:random", "scripted:trend"]
    assert advisor.identity.name == "scripted:trend"
    counts = VerdictCache(tmp_path).stats().by_model
    assert sorted(counts.values()) == [2, 3]
    raw = Advisor(config(tmp_path, model="scripted:random", fallbacks=["scripted:trend"], calibration="none"))
    assert [verdict.model for verdict in raw.raw_cells([3])] == ["scripted:trend"]


def test_the_last_models_error_is_the_error(tmp_path):
    with pytest.raises(ModelNotFoundError, match="nor/this"):
        Advisor(config(tmp_path, model="/no/such.gguf", fallbacks=["/nor/this.gguf"])).advise(UP)
    with pytest.raises(ConfigError, match="fallbacks='smollm2': expected a list of models"):
        AdvisorConfig(fallbacks="smollm2")


def test_a_config_with_fallbacks_is_hashable_and_another_one():
    one, two = AdvisorConfig(fallbacks=["a"]), AdvisorConfig()
    assert len({one, two, AdvisorConfig(fallbacks=("a",))}) == 2
