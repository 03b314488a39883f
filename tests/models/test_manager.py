from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from types import SimpleNamespace

import backtrader as bt
import numpy as np
import psutil
import pytest

from bt_llm import LLMAdvice, LLMAnalyzer
from bt_llm.advice import AdvisorConfig, MarketAnalystAgent
from bt_llm.cache import VerdictCache
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import (
    ConfigError,
    GenerationTimeout,
    InsufficientMemoryError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
    ModelNotLoadedError,
)
from bt_llm.models import LlamaModel, ManagerUsage, ModelConfig, ModelManager, batch_analyze, forget_managers
from bt_llm.models.llama import _memory as memory
from tests.engines import array_feed


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
    with pytest.raises(ConfigError, match="prompts='a': expected a list of texts"):
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


# The life of a model, with one that takes no memory


class Writer:
    """What stands for a model in memory."""

    def __init__(self, fleet, path):
        self.fleet, self.path, self.closed = fleet, path, False
        self.weights = SimpleNamespace(repack=False, stamp=None)

    def write(self, text, sampling, stop, deadline):
        self.fleet.began.set()
        assert self.fleet.door.wait(60)
        assert not self.closed, "unloaded while it answers"
        self.fleet.during()
        return f"{self.path}: {text}"

    def close(self):
        assert not self.closed
        self.closed = True


class Fleet:
    """Models by path: how often each was loaded, what loading it raises, and what one says when asked."""

    def __init__(self, monkeypatch):
        self.loaded, self.errors, self.opened = [], {}, []
        self.door = threading.Event()
        self.door.set()
        self.began = threading.Event()
        self.during = self.noticed = lambda: None
        monkeypatch.setattr(LlamaModel, "_make_writer", lambda model: self.open(model))
        monkeypatch.setattr(memory, "total_memory_mb", lambda: 10_000.0)
        monkeypatch.setattr(memory, "available_memory_mb", lambda: self.free_mb)
        self.free_mb = 6_000.0

    def open(self, model):
        path = str(model.config.model_path)
        model.keeper.before_load()
        self.loaded.append(path)
        if path in self.errors:
            raise self.errors[path]
        self.opened.append(Writer(self, path))
        model.keeper.after_load(0.5)
        self.noticed()
        return self.opened[-1]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def fleet(monkeypatch):
    return Fleet(monkeypatch)


@pytest.fixture
def clock():
    return Clock()


def managed(clock, path="3b", **settings):
    """A manager that nobody but the test looks after."""
    manager = ModelManager(path, **{"clock": clock, **settings})
    manager._watch.notice = lambda: None
    return manager


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_memory_percent": 0}, "max_memory_percent=0: expected a number above 0, up to 100, or None"),
        ({"max_memory_percent": 101}, "max_memory_percent=101"),
        ({"max_memory_percent": "80"}, "max_memory_percent='80'"),
        ({"idle_seconds": 0}, "idle_seconds=0: expected a number of seconds above 0, or None"),
        ({"idle_seconds": float("inf")}, "idle_seconds=inf"),
        ({"idle_seconds": True}, "idle_seconds=True"),
        ({"fallback_paths": "smollm2"}, "fallback_paths='smollm2': expected a list of paths or names"),
    ],
)
def test_bad_limits_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        ModelManager("smollm2", **setting)


def test_a_model_without_use_is_unloaded_after_idle_seconds_and_comes_back(fleet, clock, caplog):
    manager = managed(clock, idle_seconds=300, max_memory_percent=None)
    assert manager._tend() is None, "there is nothing to look after yet"
    model = manager.get_model()
    clock.now += 200
    assert manager._tend() == 100
    assert model.generate("a") == "3b: a"
    clock.now += 299
    assert manager._tend() == 1
    assert manager.is_loaded
    clock.now += 1
    with caplog.at_level(logging.INFO):
        assert manager._tend() is None
    assert not manager.is_loaded
    assert manager.loaded_path is None
    assert fleet.opened[0].closed
    assert caplog.records[0].message == "3b: unloaded after 300 s without use"

    assert model.generate("b") == "3b: b", "who holds the model need not know"
    assert manager.is_loaded
    assert fleet.loaded == ["3b", "3b"]
    clock.now += 300
    assert manager._tend() is None
    assert manager.get_model() is model
    assert model.is_loaded


def test_a_model_that_was_unloaded_on_purpose_does_not_come_back_by_itself(fleet, clock):
    manager = managed(clock)
    model = manager.get_model()
    manager.unload_model()
    with pytest.raises(ModelNotLoadedError):
        model.generate("a")
    clock.now += 1000
    other = manager.get_model()
    assert manager._tend() == 5
    clock.now += 1000
    manager._tend()
    manager.unload_model()
    with pytest.raises(ModelNotLoadedError):
        other.generate("a")


def test_a_crowded_memory_unloads_a_model_that_has_been_idle_for_some_seconds(fleet, clock, caplog):
    manager = managed(clock, max_memory_percent=80, idle_seconds=None)
    model = manager.get_model()
    fleet.free_mb = 2_000.0
    clock.now += 60
    assert manager._tend() == 5, "80 % is not above 80 %"
    fleet.free_mb = 1_900.0
    model.generate("a")
    clock.now += 4
    assert manager._tend() == 5, "it has just been used"
    clock.now += 1
    assert manager._tend() is None
    assert not model.is_loaded
    (record,) = caplog.records
    assert (
        record.message
        == "3b: unloaded after 5 s without use, 81 % of the memory is used (max_memory_percent=80)"
    )


def test_limits_can_be_switched_off(fleet, clock):
    manager = ModelManager("3b", clock=clock, idle_seconds=None, max_memory_percent=None)
    fleet.free_mb = 1_100.0
    assert manager.load_model()
    assert manager._watch._thread is None
    clock.now += 1e9
    manager._tend()
    assert manager.is_loaded


def test_a_model_that_answers_is_not_idle_and_unloading_it_waits(fleet, clock):
    manager = managed(clock, idle_seconds=300)
    model = manager.get_model()
    fleet.door.clear()
    fleet.began.clear()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(model.generate("a")))
    asking.start()
    assert fleet.began.wait(60)
    clock.now += 1000
    assert manager._tend() == 5, "looked at again later"
    assert model.is_loaded
    unloading = threading.Thread(target=manager.unload_model)
    unloading.start()
    unloading.join(0.05)
    assert unloading.is_alive()
    assert not fleet.opened[0].closed
    fleet.door.set()
    for thread in (asking, unloading):
        thread.join(60)
    assert answers == ["3b: a"]
    assert fleet.opened[0].closed


def test_the_end_of_an_answer_begins_the_idle_time_an_error_too(fleet, clock):
    manager = managed(clock, idle_seconds=300, max_memory_percent=None)
    model = manager.get_model()

    def late():
        clock.now += 500
        raise GenerationTimeout("over")

    fleet.during = late
    with pytest.raises(GenerationTimeout):
        model.generate("a", timeout_s=1)
    assert manager._tend() == 300


def test_many_threads_share_one_load(fleet, clock):
    manager, barrier, found = managed(clock), threading.Barrier(8), []

    def work():
        barrier.wait()
        found.append(manager.get_model())
        found[-1].generate("a")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert fleet.loaded == ["3b"]


def test_threads_that_ask_while_others_unload_always_get_an_answer_or_a_clear_error(fleet, clock):
    manager, stop, answers, errors = managed(clock, idle_seconds=1e-9), threading.Event(), [], []

    def ask():
        for _ in range(200):
            try:
                answers.append(manager.get_model().generate("a"))
            except ModelNotLoadedError:
                pass
            except BaseException as error:
                errors.append(error)

    def unload():
        while not stop.is_set():
            clock.now += 1
            manager._tend()
            manager.unload_model()

    asking, unloading = [threading.Thread(target=ask) for _ in range(4)], threading.Thread(target=unload)
    for thread in (*asking, unloading):
        thread.start()
    for thread in asking:
        thread.join()
    stop.set()
    unloading.join()
    assert errors == []
    assert set(answers) == {"3b: a"}
    manager.unload_model()
    assert all(weights.closed for weights in fleet.opened)


# Fallbacks


def test_the_next_model_is_taken_logged_and_named(fleet, clock, caplog):
    fleet.errors = {
        "3b": InsufficientMemoryError("3b needs 9,000 MB"),
        "1b": ModelNotFoundError("no model '1b'"),
    }
    manager = managed(clock, fallback_paths=["1b", "small"])
    model = manager.get_model()
    assert fleet.loaded == ["3b", "1b", "small"]
    assert (manager.loaded_path, model.config.model_path, model.config.n_ctx) == ("small", "small", 2048)
    assert model.generate("a") == "small: a"
    assert [record.message for record in caplog.records] == [
        "3b needs 9,000 MB; using the fallback 1b",
        "no model '1b'; using the fallback small",
    ]
    assert manager.get_model() is model, "the first one is not tried at every call"
    assert fleet.loaded == ["3b", "1b", "small"]

    fleet.errors.clear()
    manager.unload_model()
    assert manager.get_model().generate("a") == "3b: a", "after an unload it is"


def test_a_fallback_that_was_set_aside_comes_back_as_itself(fleet, clock):
    fleet.errors = {"3b": ModelNotFoundError("no model '3b'")}
    manager = managed(clock, fallback_paths=["1b"], idle_seconds=10)
    model = manager.get_model()
    clock.now += 10
    manager._tend()
    fleet.errors.clear()
    assert model.generate("a") == "1b: a"


def test_if_no_fallback_loads_every_reason_is_given(fleet, clock, caplog):
    fleet.errors = {
        "3b": InsufficientMemoryError("3b needs 9,000 MB"),
        "1b": ModelNotFoundError("no model '1b'"),
    }
    manager = managed(clock, fallback_paths=["1b"])
    message = "none of 2 models can be used: 3b needs 9,000 MB; no model '1b'"
    with pytest.raises(InsufficientMemoryError, match=message):
        manager.get_model()
    assert manager.load_model() is False
    assert caplog.records[-1].message == message
    with pytest.raises(ModelError, match=r"^3b needs 9,000 MB$"):
        managed(clock).get_model()


def test_a_model_that_is_in_use_is_not_replaced(fleet, clock):
    manager = managed(clock, fallback_paths=["1b"], idle_seconds=10)
    model = manager.get_model()
    clock.now += 10
    manager._tend()
    fleet.errors = {"3b": InsufficientMemoryError("3b needs 9,000 MB")}
    with pytest.raises(InsufficientMemoryError, match="3b needs 9,000 MB"):
        model.generate("a")
    with pytest.raises(InsufficientMemoryError, match=r"9,000 MB\. 3b has answered earlier in this run"):
        manager.get_model()
    manager.unload_model()
    assert manager.get_model().generate("a") == "1b: a", "another run"


# What it has done, and its description


def test_what_was_done_is_counted(fleet, clock):
    manager = managed(clock, idle_seconds=10, max_memory_percent=None)
    assert manager.usage == ManagerUsage()
    manager.get_model().generate("a")
    before = manager.usage
    assert (before.loads, before.unloads, before.load_seconds, before.answered) == (1, 0, 0.5, ("3b",))
    assert before.peak_memory_mb == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.2)
    clock.now += 10
    manager._tend()
    manager.get_model()
    manager.unload_model()
    assert (manager.usage.loads, manager.usage.unloads) == (2, 2)
    done = manager.usage.since(before)
    assert (done.loads, done.unloads, done.load_seconds, done.answered) == (1, 2, 0.5, ("3b",))


def test_numbers_of_numpy_are_numbers():
    manager = ModelManager("3b", np.int64(512), max_memory_percent=np.float64(70), idle_seconds=np.float32(5))
    assert (manager.memory_threshold_mb, manager.max_memory_percent, manager.idle_seconds) == (512, 70.0, 5.0)


def test_a_manager_is_pickled_as_its_description_and_copied_as_itself(clock):
    manager = managed(clock, fallback_paths=["1b"], idle_seconds=7, config=ModelConfig(n_ctx=512))
    sent = pickle.dumps(manager)
    assert len(sent) < 1000
    one, two = pickle.loads(sent), pickle.loads(sent)
    assert one is two, "one in a process"
    assert (one.model_path, one.fallback_paths, one.idle_seconds, one.config.n_ctx) == ("3b", ("1b",), 7, 512)
    assert copy.copy(manager) is copy.deepcopy(manager) is manager


def test_two_names_of_one_file_are_one_description(smollm2_path):
    one = ModelManager.described("smollm2", memory_threshold_mb=10)
    assert ModelManager.described(smollm2_path, memory_threshold_mb=10) is one
    assert ModelManager.described("smollm2", memory_threshold_mb=20) is not one
    assert (
        ModelManager.described("smollm2", memory_threshold_mb=10, config=ModelConfig(n_threads=1)) is not one
    )
    forget_managers()
    assert ModelManager.described("smollm2", memory_threshold_mb=10) is not one


# The thread that looks after it


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "bt_llm model watch"]


def test_the_watch_unloads_an_idle_model_sleeps_meanwhile_and_ends(fleet):
    manager = ModelManager("3b", idle_seconds=0.05, max_memory_percent=None)
    looks, tend, unloaded = [], manager._tend, threading.Event()

    def look():
        looks.append(tend())
        if looks[-1] is None:
            unloaded.set()
        return looks[-1]

    manager._tend = look
    model = manager.get_model()
    assert unloaded.wait(60)
    assert not model.is_loaded
    for thread in watchers():
        thread.join(60)
    assert watchers() == []
    assert len(looks) < 20
    unloaded.clear()
    model.generate("a")
    assert unloaded.wait(60), "a model that comes back is looked after again"
    for thread in watchers():
        thread.join(60)
    assert watchers() == []


def test_the_watch_goes_on_when_it_looks_before_the_end_of_a_load(fleet):
    manager = ModelManager("3b", idle_seconds=0.05, max_memory_percent=None)
    looked, unloaded, tend = threading.Event(), threading.Event(), manager._tend

    def look():
        pause = tend()
        looked.set()
        if pause is None:
            unloaded.set()
        return pause

    manager._tend = look
    fleet.noticed = lambda: looked.wait(60)  # what is loaded is given to the model after the watch is told
    model = manager.get_model()
    assert unloaded.wait(60)
    assert not model.is_loaded


def test_the_watch_ends_with_the_model_and_with_the_manager(fleet):
    with ModelManager("3b") as manager:
        manager.get_model()
        (thread,) = watchers()
        manager.get_model()
        assert watchers() == [thread]
    thread.join(60)
    assert not thread.is_alive()

    manager = ModelManager("3b")
    manager.get_model()
    (thread,) = watchers()
    gone = weakref.ref(manager)
    del manager
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
    assert gone() is None


# The real model


@pytest.mark.model
def test_a_real_model_that_was_set_aside_gives_the_same_answer(smollm2_path, clock):
    manager = managed(clock, smollm2_path, memory_threshold_mb=100, idle_seconds=10)
    assert manager.load_model(manager.create_config(n_ctx=256, n_threads=1))
    model = manager.get_model()
    before = model.generate("Gold is", max_tokens=5)
    for _ in range(2):
        clock.now += 10
        manager._tend()
        assert not model.is_loaded
        assert model.generate("Gold is", max_tokens=5) == before
    manager.unload_model()


@pytest.mark.model
def test_loading_and_unloading_leaks_no_memory(smollm2_path):
    """A handful of rounds; ``BT_LLM_LOAD_ROUNDS=50`` for the whole test."""
    rounds, process = int(os.environ.get("BT_LLM_LOAD_ROUNDS", "4")), psutil.Process()
    manager = ModelManager(smollm2_path, memory_threshold_mb=100)
    config = manager.create_config(n_ctx=512, n_threads=1)

    def once():
        assert manager.load_model(config)
        manager.get_model().generate("Gold is", max_tokens=2)
        manager.unload_model()
        gc.collect()
        return process.memory_info().rss / 2**20

    warm = max(once() for _ in range(3))  # the library, its buffers and Python's own
    grown = [once() - warm for _ in range(rounds)]
    span = f"{min(grown):+.1f} to {max(grown):+.1f}, at last {grown[-1]:+.1f}"
    logging.getLogger("test").info("RSS in MB over %d rounds: %.0f, then %s", rounds, warm, span)
    assert grown[-1] < 20, f"a model takes over 100 MB: {grown}"


class Asking(bt.Strategy):
    """Asks one manager in each way: an indicator, an analyst, and text of its own."""

    params = (("manager", None), ("cache", None))

    def __init__(self):
        config = AdvisorConfig(manager=self.p.manager, cache_dir=self.p.cache, calibration="none")
        self.advice = LLMAdvice(self.data, advisor=config)
        self.analyst = MarketAnalystAgent(self.p.manager, cache=VerdictCache(self.p.cache))
        self.said = []

    def next(self):
        if len(self) == 120:
            self.said.append(self.p.manager.get_model().generate("The euro", max_tokens=2))
            self.said.append(self.analyst.analyze({"vix": 14.0}).model)


def asked(manager, cache, bars):
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(array_feed(bars))
    cerebro.addstrategy(Asking, manager=manager, cache=cache)
    cerebro.addanalyzer(LLMAnalyzer, _name="advice")
    (strategy,) = cerebro.run()
    return strategy, strategy.analyzers.advice.get_analysis()


@pytest.mark.model
def test_an_indicator_an_analyst_and_text_load_one_model_once(smollm2_path, clock, tmp_path):
    bars = load_bars(shipped("eurusd_hourly.csv"))[:125]
    settings = ModelConfig(n_threads=1, n_ctx=512)
    manager = managed(
        clock, tmp_path / "none.gguf", fallback_paths=[smollm2_path], idle_seconds=60, config=settings
    )
    strategy, found = asked(manager, tmp_path / "first", bars)
    name = smollm2_path.stem
    assert strategy.said[1] == name
    assert (found["answered_by"], found["loads"], found["unloads"]) == ([name], 1, 0), "all by the fallback"
    assert 0 < found["load_seconds"] < 60
    assert 100 < found["peak_memory_mb"] < 4000
    assert manager.usage.answered == (name, str(smollm2_path))

    clock.now += 60
    assert manager._tend() is None
    assert not manager.is_loaded, "between two runs"
    again, found = asked(manager, tmp_path / "second", bars)
    assert (again.said, found["loads"], manager.usage.loads) == (strategy.said, 1, 2)
    manager.unload_model()


MEMORY = """
import sys, tempfile
from importlib import resources
from pathlib import Path
import psutil
from bt_llm import AdvisorConfig, Gate, run_backtest
from bt_llm.data import load_bars, shipped
folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
words = (resources.files("bt_llm.prompts") / "templates" / "market.toml").read_text("utf-8")
bars = load_bars(shipped("eurusd_hourly.csv"))[:130]
strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
for number in range(3):
    file = folder / f"{number}.toml"
    file.write_text(words.replace("trading analyst", f"trading analyst number {number}"), "utf-8")
    config = AdvisorConfig(model="smollm2", template=file, calibration="none", n_threads=1, cache_dir=folder)
    found = run_backtest(strategy, bars, gate=Gate(advisor=config)).advice
    print(found["model_calls"], found["loads"], psutil.Process().memory_info().rss / 2**20)
"""


@pytest.mark.model
def test_three_templates_of_one_model_take_the_memory_of_one(tmp_path):
    script = tmp_path / "three.py"
    script.write_text(MEMORY)
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [int(row[1]) for row in rows] == [1, 0, 0]
    assert all(int(row[0]) > 0 for row in rows)
    first, *_, last = (float(row[2]) for row in rows)
    assert last < 1.1 * first
