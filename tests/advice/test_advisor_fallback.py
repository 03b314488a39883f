from __future__ import annotations

import backtrader as bt
import numpy as np
import pytest

from bt_llm import LLMAdvice
from bt_llm.advice import Advisor, AdvisorConfig, NewsAnalyst, forget_answers
from bt_llm.cache import VerdictCache
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError, InsufficientMemoryError, ModelNotFoundError
from bt_llm.models import ModelManager, ScriptedBackend, forget_managers
from bt_llm.models.llama import _memory as memory
from tests.engines import array_feed

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


def failing(monkeypatch, name, after=0):
    """Have a scripted model run out of memory after so many calls; returns the names that were asked."""
    real, asked = ScriptedBackend.score, []

    def score(self, prompts, labels, *, numerics="canonical"):
        asked.append(self.identity.name)
        if self.identity.name == name and asked.count(name) > after:
            raise InsufficientMemoryError("too large")
        yield from real(self, prompts, labels, numerics=numerics)

    monkeypatch.setattr(ScriptedBackend, "score", score)
    return asked


BOTH = {"model": "scripted:random", "fallbacks": ["scripted:trend"], "calibration": "none"}


def test_a_model_that_cannot_be_loaded_is_replaced_before_the_first_answer(tmp_path, monkeypatch):
    asked = failing(monkeypatch, "scripted:random")
    advisor = Advisor(config(tmp_path, **BOTH))
    assert {verdict.model for verdict in advisor.advise_cells([1, 2])} == {"scripted:trend"}
    assert {verdict.model for verdict in advisor.advise_cells([1, 2, 3])} == {"scripted:trend"}
    assert asked == ["scripted:random", "scripted:trend", "scripted:trend"]
    assert list(VerdictCache(tmp_path).stats().by_model.values()) == [3]


@pytest.mark.parametrize("stored", [False, True])
def test_a_model_that_has_answered_is_not_replaced(tmp_path, monkeypatch, stored):
    if stored:  # an answer from the cache counts too: the run has begun with that model
        Advisor(config(tmp_path, model="scripted:random", calibration="none")).advise_cells([1])
    asked = failing(monkeypatch, "scripted:random", after=0 if stored else 1)
    advisor = Advisor(config(tmp_path, **BOTH))
    assert advisor.advise_cells([1])[0].model == "scripted:random"
    with pytest.raises(InsufficientMemoryError, match=r"too large\. scripted:random has answered earlier"):
        advisor.advise_cells([1, 2])
    assert "scripted:trend" not in asked
    assert advisor.advise_cells([1])[0].model == "scripted:random"


def test_all_who_ask_one_manager_fall_back_together(tmp_path, monkeypatch):
    failing(monkeypatch, "scripted:random")
    manager = ModelManager("scripted:random", fallback_paths=["scripted:trend"])
    advisor = Advisor(config(tmp_path, manager=manager, calibration="none"))
    news = NewsAnalyst(manager, cache=VerdictCache(tmp_path))
    assert news.identity.name == advisor.identity.name == "scripted:random"
    advisor.advise_cells([1])
    assert news.analyze("Rates are held").model == advisor.identity.name == "scripted:trend"
    assert manager.usage.answered == ("scripted:trend",)

    manager.unload_model()
    assert news.analyze("Rates are held").model == "scripted:random", "another run begins anew"


def test_who_has_answered_goes_on_whatever_others_decide(tmp_path):
    chosen = config(tmp_path, **BOTH)
    advisor, other = Advisor(chosen), Advisor(chosen)
    advisor.advise_cells([1])
    assert other.manager is advisor.manager
    assert other.identity.name == "scripted:random"
    other.manager.fall_back(0, InsufficientMemoryError("too large"))
    assert other.advise_cells([2])[0].model == "scripted:trend"
    assert {verdict.model for verdict in advisor.advise_cells([1, 2])} == {"scripted:random"}
    counts = VerdictCache(tmp_path).stats().by_model
    assert sorted(counts.values()) == [1, 2]


def test_an_answer_that_another_one_has_taken_over_from_is_not_given(tmp_path, monkeypatch):
    manager = ModelManager("scripted:random", fallback_paths=["scripted:trend"])
    advisor = Advisor(config(tmp_path, manager=manager, calibration="none"))
    real = ScriptedBackend.score

    def overtaken(self, prompts, labels, *, numerics="canonical"):
        yield from real(self, prompts, labels, numerics=numerics)
        manager.fall_back(0, InsufficientMemoryError("another thread has seen it"))

    monkeypatch.setattr(ScriptedBackend, "score", overtaken)
    assert advisor.advise_cells([1])[0].model == "scripted:trend"
    assert manager.usage.answered == ("scripted:trend",)


@pytest.mark.model
@pytest.mark.parametrize("runonce", [True, False])
def test_a_backtest_is_one_models_or_ends(tmp_path, monkeypatch, runonce):
    """The first cells are stored of a real model, which cannot be loaded when the next one is asked."""
    bars = load_bars(shipped("eurusd_hourly.csv"))[:300]
    stored = Advisor(config(tmp_path, model="smollm2", n_threads=1, calibration="none"))
    stored.advise_cells([52])
    forget_answers()
    forget_managers()
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 10.0)
    chosen = config(tmp_path, model="smollm2", fallbacks=["scripted:trend"], calibration="none")

    class Cells(bt.Strategy):
        def __init__(self):
            self.advice = LLMAdvice(self.data, advisor=chosen)

    cerebro = bt.Cerebro(stdstats=False, runonce=runonce)
    cerebro.adddata(array_feed(bars))
    cerebro.addstrategy(Cells)
    if runonce:  # all cells are asked at once, so that the fallback answers all of them
        (strategy,) = cerebro.run()
        assert strategy.advice.advisor.identity.name == "scripted:trend"
        probabilities = np.array(strategy.advice.lines.bullish.array)
        given = np.unique(np.round(probabilities[np.isfinite(probabilities)], 6))
        assert set(given) <= {0.111111, 0.222222, 0.666667}
        return
    cells = []
    monkeypatch.setattr(LLMAdvice, "advise", noting(LLMAdvice.advise, cells))
    monkeypatch.setattr(LLMAdvice, "_cell", lambda self: 52 if len(self) < 120 else 53)
    with pytest.raises(InsufficientMemoryError, match="smollm2 has answered earlier in this run"):
        cerebro.run()
    assert cells == [[52], [53]]


def noting(advise, cells):
    def noted(self, wanted):
        cells.append(list(wanted))
        return advise(self, wanted)

    return noted


def test_the_last_models_error_is_the_error(tmp_path):
    with pytest.raises(ModelNotFoundError, match="nor/this"):
        Advisor(config(tmp_path, model="/no/such.gguf", fallbacks=["/nor/this.gguf"])).advise(UP)
    with pytest.raises(ConfigError, match="fallbacks='smollm2': expected a list of models"):
        AdvisorConfig(fallbacks="smollm2")


def test_a_config_with_fallbacks_is_hashable_and_another_one():
    one, two = AdvisorConfig(fallbacks=["a"]), AdvisorConfig()
    assert len({one, two, AdvisorConfig(fallbacks=("a",))}) == 2
