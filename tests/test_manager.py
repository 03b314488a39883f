from __future__ import annotations

import logging

import psutil
import pytest

from bt_llm.backends import memory
from bt_llm.config import ModelConfig
from bt_llm.exceptions import ConfigError, InsufficientMemoryError, ModelFileError, ModelNotFoundError
from bt_llm.manager import ModelManager, batch_analyze


class Echo:
    """A model that says what it was asked."""

    def generate(self, prompt, **overrides):
        return f"{prompt} {overrides}"


def test_defaults_are_the_documented_ones():
    manager = ModelManager(model_path="models/llama-3.2-1b.gguf")
    assert manager.memory_threshold_mb == 1024
    assert manager.create_config() == ModelConfig(model_path="models/llama-3.2-1b.gguf")


def test_a_config_has_the_managers_model_and_the_given_settings():
    config = ModelManager("smollm2").create_config(n_ctx=2048, n_threads=4, temperature=0.7)
    assert (config.model_path, config.n_ctx, config.n_threads, config.temperature) == (
        "smollm2",
        2048,
        4,
        0.7,
    )


def test_a_misspelt_setting_names_the_near_one():
    with pytest.raises(ConfigError, match=r"unknown setting 'n_thread'; did you mean n_threads\?"):
        ModelManager("smollm2").create_config(n_thread=2)
    with pytest.raises(ConfigError, match=r"unknown setting 'zzz' \(settings: model_path, "):
        ModelManager("smollm2").create_config(zzz=2)


@pytest.mark.parametrize("bad", [-1, float("nan"), "1024", True])
def test_bad_thresholds_are_refused(bad):
    with pytest.raises(ConfigError, match="memory_threshold_mb"):
        ModelManager("smollm2", memory_threshold_mb=bad)


def test_a_missing_file_is_false_and_one_line_that_says_where_to_get_it(caplog):
    manager = ModelManager("/no/such/model.gguf", memory_threshold_mb=0)
    with caplog.at_level(logging.ERROR):
        assert manager.load_model() is False
    (record,) = caplog.records
    assert "models/README.md" in record.message
    assert "\n" not in record.message
    with pytest.raises(ModelNotFoundError):
        manager.get_model()
    assert not manager.is_loaded


def test_a_file_that_is_no_gguf_is_false(tmp_path, caplog):
    path = tmp_path / "page.gguf"
    path.write_text("<html>")
    manager = ModelManager(path, memory_threshold_mb=0)
    assert manager.load_model() is False
    assert "is not a GGUF file" in caplog.text
    with pytest.raises(ModelFileError):
        manager.get_model()


def test_below_the_threshold_nothing_is_loaded(monkeypatch, caplog):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 800.0)
    manager = ModelManager("smollm2", memory_threshold_mb=1024)
    assert manager._check_memory_available() is False
    assert manager.load_model() is False
    assert "800 MB of memory are available, and memory_threshold_mb=1024 must be" in caplog.text
    with pytest.raises(InsufficientMemoryError):
        manager.get_model()
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 1024.0)
    assert manager._check_memory_available() is True


def test_memory_stats_add_up(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 250.0)
    monkeypatch.setattr(memory, "total_memory_mb", lambda: 1000.0)
    stats = ModelManager("smollm2").get_memory_stats()
    assert set(stats) == {"total_mb", "available_mb", "used_mb", "percent", "process_mb"}
    assert (stats["total_mb"], stats["available_mb"], stats["used_mb"], stats["percent"]) == (
        1000,
        250,
        750,
        75,
    )
    assert stats["process_mb"] == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.2)


def test_available_memory_is_static_and_real():
    assert 0 < ModelManager.get_available_memory_mb() <= psutil.virtual_memory().total / 2**20


def test_prompts_are_answered_in_order():
    assert batch_analyze(Echo(), ["a", "b"], max_tokens=3) == ["a {'max_tokens': 3}", "b {'max_tokens': 3}"]
    assert batch_analyze(Echo(), []) == []
    with pytest.raises(ConfigError, match="not one text"):
        batch_analyze(Echo(), "a")


@pytest.mark.model
def test_the_documented_use(smollm2_path):
    with ModelManager(smollm2_path, memory_threshold_mb=100) as manager:
        assert not manager.is_loaded, "loaded when asked for"
        config = manager.create_config(n_ctx=256, n_threads=1)
        assert manager.load_model(config)
        model = manager.get_model()
        assert manager.load_model(config)
        assert manager.get_model() is model, "the same configuration shares the model"
        texts = batch_analyze(model, ["Gold is", "Oil is"], max_tokens=3)
        assert [type(text) for text in texts] == [str, str]

        assert manager.load_model(manager.create_config(n_ctx=512, n_threads=1))
        other = manager.get_model()
        assert other is not model
        assert not model.is_loaded, "another configuration replaces it"

        manager.unload_model()
        assert not other.is_loaded
        assert manager.get_model().config.n_ctx == 512, "loaded again as it was"
        last = manager.get_model()
    assert not last.is_loaded
    assert not manager.is_loaded
