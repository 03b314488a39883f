"""Kinds of models by name: which there are, who answers, and one of somebody else's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bt_llm import Advisor, AdvisorConfig, Gate, gate_study, run_backtest
from bt_llm.cache import VerdictCache
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.models import (
    Backend,
    LlamaModel,
    ModelConfig,
    ModelKind,
    ModelManager,
    ScriptedBackend,
    file_sha256,
    kind_of,
    model_kinds,
    register_model_kind,
)
from bt_llm.models import _registry as registry
from bt_llm.research._planning import plan
from tests.cache_cases import MODEL, identity

OFF = VerdictCache(mode="off")


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registers."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry._offered.cache_clear()
    yield
    registry._offered.cache_clear()


# Names


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("scripted:random:7", "scripted", "scripted:random:7"),
        ("openai:http://127.0.0.1:1/v1?model=m", "openai", "openai:http://127.0.0.1:1/v1?model=m"),
        ("models/llama-3.2-1b.gguf", "file", "models/llama-3.2-1b.gguf"),
        ("file:models/llama-3.2-1b.gguf", "file", "models/llama-3.2-1b.gguf"),
        ("smollm2", "file", "smollm2"),
        (r"C:\models\x.gguf", "file", r"C:\models\x.gguf"),
        ("scripted-llama.gguf", "file", "scripted-llama.gguf"),
    ],
)
def test_a_name_is_of_one_kind(name: str, kind: str, shown: str) -> None:
    model = kind_of(name)
    assert (model.kind, model.name) == (kind, shown)


@pytest.mark.parametrize("name", ["scriptedfoo", "scripted_trend", "scripted"])
def test_a_misspelt_kind_without_a_colon_is_no_script(name: str) -> None:
    with pytest.raises(
        ModelNotFoundError,
        match=r"kinds of models are dated, .*file, memory, ollama, openai, scripted, systemone: did",
    ):
        kind_of(name).identify(OFF)


def test_a_misspelt_kind_lists_the_kinds_and_repeats_no_password() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^no kind of models .opneai., only dated, .*file, memory, ollama, .*; did you mean openai\?$",
    ):
        kind_of("opneai:http://user:secret@host/v1")
    with pytest.raises(ConfigError, match="want scripted:NAME"):
        kind_of("scripted:no")


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llama:latest").write_text("")
    assert kind_of("llama:latest").kind == "file"


# Who answers


def test_a_script_is_its_own_backend() -> None:
    model = kind_of("scripted:random:7")
    backend = model.open(ModelConfig())
    assert isinstance(backend, ScriptedBackend)
    assert model.identify(OFF) == backend.identity


def test_replay_knows_a_model_by_any_of_its_names_without_its_file(tmp_path: Path) -> None:
    VerdictCache(tmp_path).put_model(identity())
    VerdictCache(tmp_path).put_model(identity(name="tiny"))
    for name in ("small", "tiny", "/elsewhere/tiny.gguf", MODEL[:8]):
        assert kind_of(name).identify(VerdictCache(tmp_path), replay=True).sha256 == MODEL
    with pytest.raises(ModelNotFoundError, match="no model file 'other' and none of that name"):
        kind_of("other").identify(VerdictCache(tmp_path), replay=True)
    with pytest.raises(ModelNotFoundError):
        kind_of("small").identify(VerdictCache(tmp_path))


def test_a_name_of_two_models_needs_the_start_of_a_hash(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path)
    cache.put_model(identity())
    cache.put_model(identity(sha256="12" * 32))
    with pytest.raises(ModelNotFoundError, match="knows 2 models named 'small'"):
        kind_of("small").identify(cache, replay=True)


@pytest.mark.model
def test_the_hash_of_a_file_is_remembered(
    tmp_path: Path, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kind_of(str(smollm2_path)).identify(VerdictCache(tmp_path))
    assert first.name == smollm2_path.stem
    monkeypatch.setattr("bt_llm.models.llama._files.hashed_file", None)
    assert kind_of(str(smollm2_path)).identify(VerdictCache(tmp_path)) == first


@pytest.mark.model
def test_other_weights_of_the_same_size_and_time_have_their_own_hash(
    tmp_path: Path, smollm2_path: Path
) -> None:
    file, cache = tmp_path / "m.gguf", VerdictCache(tmp_path / "v")
    content = bytearray(smollm2_path.read_bytes())
    file.write_bytes(content)
    os.utime(file, (1, 1))
    model = kind_of(str(file))
    first = model.identify(cache)
    content[-200_000:] = bytes(reversed(content[-200_000:]))
    for way in ("in place", "replaced"):
        target = file if way == "in place" else tmp_path / "new"
        content[-1] ^= 1
        target.write_bytes(content)
        os.utime(target, (1, 1))
        os.replace(target, file)
        for again in (model, kind_of(str(file))):
            found = again.identify(cache)
            assert found.sha256 == file_sha256(file) != first.sha256, way


# What plans ask


def test_kinds_say_what_they_cost_and_take(smollm2_path: Path) -> None:
    assert kind_of("scripted:trend").memory_mb(512) is None
    assert kind_of("no-such.gguf").memory_mb(512) is None
    small = kind_of(str(smollm2_path)).memory_mb(512)
    assert small is not None
    assert 100 < small < 400


def test_kinds_say_where_to_ask_again() -> None:
    facts = [{"server": "http://b/v1"}, {}, {"server": "http://a/v1"}]
    pinned = kind_of(f"openai:*?sha256={'ab' * 32}")
    assert [name.partition("?")[0] for name in pinned.names_to_ask(facts)] == [
        "openai:http://a/v1",
        "openai:http://b/v1",
    ]
    assert pinned.names_to_ask([]) == [pinned.name]
    assert kind_of("scripted:trend").names_to_ask(facts) == ["scripted:trend"]


# A kind of one's own: one file, nothing else is edited


class Weekday(ModelKind):
    """A toy that is bullish where the trend is up, and as sure as its name says."""

    kind: ClassVar[str] = "sure"
    form: ClassVar[str] = "sure:PERCENT"

    def __init__(self, rest: str) -> None:
        super().__init__(rest)
        if not (rest.isdigit() and 40 <= int(rest) <= 90):
            raise ConfigError(f"model {self.name!r}: expected 40 to 90")

    def open(self, config: ModelConfig) -> Backend:
        """Return a script: any object with the methods of a Backend would do."""
        sure = int(self.rest) / 100

        def says(prompt: str) -> tuple[float, float, float]:
            up = "up" in prompt.splitlines()[-2]
            return (sure, 0.1, 0.9 - sure) if up else (0.9 - sure, 0.1, sure)

        return ScriptedBackend(says, name=self.name)


def test_somebody_elses_kind_runs_backtests_and_is_planned_stored_and_replayed(tmp_path: Path) -> None:
    register_model_kind(Weekday)
    strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    bars = load_bars(shipped("eurusd_hourly.csv"))[:600]
    gate = Gate(advisor=AdvisorConfig(model="sure:80", cache_dir=tmp_path))
    made = plan([gate.advisor], bars=len(bars))
    assert (made.total("prompts"), made.total("money")) == (105, 0.0)
    run = run_backtest(strategy, bars, gate=gate)
    assert run.advice is not None
    assert run.advice["model_calls"] == 105
    assert run.advice["verdicts"]["bullish"] > 0
    replay = Gate(advisor=AdvisorConfig(model="sure:80", cache_dir=tmp_path, cache_mode="replay"))
    again = run_backtest(strategy, bars, gate=replay)
    assert (again.final_value, again.advice["model_calls"]) == (run.final_value, 0)  # type: ignore[index]
    study = gate_study(strategy, bars, gate)
    assert study.gated.final_value == run.final_value
    with pytest.raises(ConfigError, match="expected 40 to 90"):
        run_backtest(strategy, bars, gate=Gate(advisor=AdvisorConfig(model="sure:99")))
    with pytest.raises(ConfigError, match=r"model 'sure:80' writes no text: expected PATH\.gguf"):
        ModelManager("sure:80").get_model()


def test_what_a_kind_cannot_do_is_refused_before_it_is_asked() -> None:
    register_model_kind(Weekday)
    Weekday.capabilities, before = frozenset({"score"}), Weekday.capabilities
    try:
        assert Advisor(AdvisorConfig(model="sure:80", cache_mode="off")).advise_cells([0])
        with pytest.raises(ConfigError, match="model 'sure:80' cannot generate_json: expected PATH"):
            Advisor(AdvisorConfig(model="sure:80", cache_mode="off", reader="json")).advise_cells([0])
    finally:
        Weekday.capabilities = before


def test_a_package_adds_a_kind_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("sure", f"{__name__}:Weekday", registry.GROUP),
        EntryPoint("broken", "no_such_package:Kind", registry.GROUP),
        EntryPoint("other", f"{__name__}:Weekday", registry.GROUP),
        EntryPoint("scripted", "somebody:Else", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert kind_of("sure:50").identify(OFF).name == "sure:50"
    assert type(kind_of("scripted:trend")).__module__ == "bt_llm.models._scripted"
    with pytest.raises(
        ConfigError, match="kind 'broken' of models cannot be loaded from no_such_package:Kind"
    ):
        kind_of("broken:x")
    with pytest.raises(ConfigError, match=r"kind 'other' of models: .* is no ModelKind of that name"):
        kind_of("other:x")
    assert sorted(model_kinds()) == [
        "dated",
        "decisions",
        "file",
        "memory",
        "ollama",
        "openai",
        "scripted",
        "sure",
        "systemone",
    ]


def test_one_broken_kind_does_not_break_the_list(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = [EntryPoint("broken", "no_such_package:Kind", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with caplog.at_level(logging.WARNING):
        assert "broken" not in model_kinds()
    assert "cannot be loaded" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [("Sure", "expected a word in lower case"), ("scripted", "is taken"), (None, "expected a word")],
)
def test_a_kind_needs_a_name_of_its_own(name: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        register_model_kind(type("Wrong", (Weekday,), {"kind": name}))
    with pytest.raises(ConfigError, match="expected a subclass of ModelKind"):
        register_model_kind(LlamaModel)  # type: ignore[type-var]


def test_the_same_class_can_be_registered_again_and_another_one_not() -> None:
    assert register_model_kind(Weekday) is register_model_kind(Weekday)
    with pytest.raises(ConfigError, match="kind='sure' of Other is taken"):
        register_model_kind(type("Other", (Weekday,), {}))
