from __future__ import annotations

import dataclasses
import math
import pickle
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bt_llm.advice import Advisor, AdvisorConfig, Usage, forget_answers, telling
from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError, ModelFileError, ModelNotFoundError, ReplayMiss
from bt_llm.models import ModelConfig, ModelIdentity, ModelManager, ScriptedBackend, file_sha256
from bt_llm.models.llama import _device
from bt_llm.models.llama._kind import FileModel
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import Action, MarketState, Prior, StateSpace

UP = MarketState(trend=0.2, rsi=60.0, volatility=1.0)
FLAT = MarketState(trend=0.0, rsi=50.0, volatility=1.0)
DOWN = MarketState(trend=-0.2, rsi=40.0, volatility=1.0)


def scripted(tmp_path: Path, backend: ScriptedBackend | None = None, **settings: object) -> Advisor:
    config = AdvisorConfig(**({"model": "scripted:trend", "cache_dir": tmp_path / "v"} | settings))  # type: ignore[arg-type]
    return Advisor(config, backend=backend)


def test_states_get_verdicts_in_their_order(tmp_path: Path) -> None:
    verdicts = scripted(tmp_path).advise_many([UP, DOWN, FLAT, UP])
    assert [v.action for v in verdicts] == [Action.BULLISH, Action.BEARISH, Action.NEUTRAL, Action.BULLISH]


def test_grid_calibration_asks_the_grid_once_and_nothing_after(tmp_path: Path) -> None:
    backend = ScriptedBackend.named("scripted:trend")
    advisor, usage = scripted(tmp_path, backend), Usage()
    advisor.advise_cells([3, 4, 3], usage)
    assert (backend.calls, usage.model_calls, usage.distinct, usage.cache_hits) == (105, 105, 2, 0)
    advisor.advise_cells([3, 5], usage)
    assert (backend.calls, usage.distinct, usage.cache_hits) == (105, 4, 1)


def test_another_process_finds_the_verdicts_on_disk(tmp_path: Path) -> None:
    first = scripted(tmp_path).advise_many([UP, DOWN])
    backend, usage = ScriptedBackend.named("scripted:trend"), Usage()
    again = scripted(tmp_path, backend)
    cells = [again.space.cell(UP), again.space.cell(DOWN)]
    second = again.advise_cells(cells, usage)
    assert second == first
    assert (backend.calls, usage.model_calls, usage.cache_hits, usage.distinct) == (0, 0, 2, 2)
    assert all(verdict.cached for verdict in second)
    assert not any(verdict.cached for verdict in first)
    assert all(verdict.model == "scripted:trend" for verdict in second)


def test_grid_calibration_takes_out_the_constant(tmp_path: Path) -> None:
    def biased(prompt: str) -> tuple[float, float, float]:
        last = prompt.splitlines()[-2]
        lift = 0.02 if "up" in last else -0.02 if "down" in last else 0.0
        return 0.1 + lift, 0.8, 0.1 - lift

    backend = ScriptedBackend(biased, name="biased")
    raw = scripted(tmp_path, backend, calibration="none").advise_many([UP, FLAT, DOWN])
    assert {v.action for v in raw} == {Action.NEUTRAL}
    lifted = scripted(tmp_path, backend).advise_many([UP, FLAT, DOWN])
    assert [v.action for v in lifted] == [Action.BULLISH, Action.NEUTRAL, Action.BEARISH]


def test_changing_the_calibration_asks_nothing(tmp_path: Path) -> None:
    scripted(tmp_path).advise(UP)
    backend = ScriptedBackend.named("scripted:trend")
    prior = Prior(bullish=0.8, neutral=0.1, bearish=0.1)
    assert scripted(tmp_path, backend, calibration=prior).advise(UP).action is Action.NEUTRAL
    assert scripted(tmp_path, backend, calibration="none").advise(UP).bullish == pytest.approx(0.6 / 0.9)
    assert backend.calls == 0


def test_without_calibration_only_what_is_needed_is_asked(tmp_path: Path) -> None:
    backend = ScriptedBackend.named("scripted:trend")
    scripted(tmp_path, backend, calibration="none").advise_many([UP, UP, DOWN])
    assert backend.calls == 2


def test_a_state_that_is_not_finite_is_invalid_and_not_asked(tmp_path: Path) -> None:
    backend = ScriptedBackend.named("scripted:trend")
    state = MarketState(trend=math.nan, rsi=50, volatility=1)
    assert scripted(tmp_path, backend).advise(state).action is Action.INVALID
    assert backend.calls == 0


def test_json_reader_has_a_reason_and_no_calibration(tmp_path: Path) -> None:
    config = AdvisorConfig(model="scripted:trend", reader="json", cache_dir=tmp_path)
    assert (config.calibration, config.template_source) == ("none", "market_json")
    verdict = Advisor(config).advise(UP)
    assert (verdict.action, verdict.reason) == (Action.BULLISH, "scripted")


def test_a_run_that_is_killed_keeps_the_batches_before(tmp_path: Path) -> None:
    calls = 0

    def dies(prompt: str) -> tuple[float, float, float]:
        nonlocal calls
        calls += 1
        if calls > 70:
            raise KeyboardInterrupt
        return 0.5, 0.3, 0.2

    with pytest.raises(KeyboardInterrupt):
        scripted(tmp_path, ScriptedBackend(dies, name="mortal", batch=32)).advise(UP)
    assert len(list(VerdictCache(tmp_path / "v").keys())) == 64
    backend = ScriptedBackend(lambda _: (0.5, 0.3, 0.2), name="mortal")
    scripted(tmp_path, backend).advise(UP)
    assert backend.calls == 105 - 64


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    advisor = scripted(tmp_path)

    def tell(done: int, total: int) -> None:
        seen.append((done, total))

    advisor.advise_cells([52], on_progress=tell)
    assert seen[-1] == (105, 105)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_replay_needs_no_model_and_a_miss_names_the_state(tmp_path: Path) -> None:
    recorded = scripted(tmp_path, calibration="none").advise(UP)
    backend = ScriptedBackend.named("scripted:trend")
    replay = scripted(tmp_path, backend, calibration="none", cache_mode="replay")
    assert replay.advise(UP) == recorded
    with pytest.raises(ReplayMiss, match="strong down"):
        replay.advise(DOWN)
    assert backend.calls == 0


def test_replay_of_a_file_that_is_gone_finds_its_identity_in_the_cache(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "v")
    backend = ScriptedBackend(lambda _: (0.5, 0.3, 0.2), name="tiny")
    Advisor(AdvisorConfig(model="tiny", cache_dir=tmp_path / "v"), backend=backend, cache=cache).advise(UP)
    replay = Advisor(AdvisorConfig(model="tiny", cache_dir=tmp_path / "v", cache_mode="replay"))
    assert replay.advise(UP).cached
    absent = Advisor(AdvisorConfig(model="other", cache_dir=tmp_path / "v", cache_mode="replay"))
    with pytest.raises(ModelNotFoundError, match="import a pack"):
        absent.advise(UP)


def test_whoever_asks_deep_inside_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with telling(lambda done, total: seen.append((done, total))):
        scripted(tmp_path).advise(UP)
    scripted(tmp_path / "other").advise(UP)
    assert (seen[0], seen[-1], len(seen)) == ((0, 105), (105, 105), 5)


def test_off_stores_nothing(tmp_path: Path) -> None:
    scripted(tmp_path, cache_mode="off").advise(UP)
    assert not (tmp_path / "v").exists()


class Counting:
    """Counts what the scripted models of this process are asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts = 0
        score = ScriptedBackend._score

        def counted(backend: ScriptedBackend, *arguments: Any) -> Any:
            self.prompts += 1
            return score(backend, *arguments)

        monkeypatch.setattr(ScriptedBackend, "_score", counted)


def test_advisors_on_which_verdicts_depend_alike_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counting(monkeypatch)
    config = AdvisorConfig(model="scripted:random:3", cache_mode="off", calibration="none")
    first = Advisor(config).advise_cells(range(10))
    usage = Usage()
    assert Advisor(config).advise_cells(range(10), usage) == first
    assert (asked.prompts, usage.cache_hits, usage.model_calls) == (10, 10, 0)
    trained = dataclasses.replace(config, calibration=Prior(bullish=0.5, neutral=0.2, bearish=0.3))
    Advisor(trained).advise_cells(range(10))
    assert asked.prompts == 10, "calibration is applied to what is known"
    for change in (
        {"model": "scripted:random:4"},
        {"identify": "EUR/USD"},
        {"numerics": "fast"},
        {"cache_dir": tmp_path},
        {"cache_mode": "refresh", "cache_dir": tmp_path},
    ):
        before = asked.prompts
        Advisor(dataclasses.replace(config, **change)).advise_cells(range(10))  # type: ignore[arg-type]
        assert asked.prompts == before + 10, change
    forget_answers()
    Advisor(config).advise_cells(range(10))
    assert asked.prompts == 70


def test_an_edited_template_is_another_one_in_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, file = Counting(monkeypatch), tmp_path / "mine.toml"
    words = (resources.files("bt_llm.prompts") / "templates" / "market.toml").read_text("utf-8")
    config = AdvisorConfig(model="scripted:random:1", template=file, cache_dir=tmp_path / "v")
    texts = (words, words.replace("You are a trading analyst.", "You are a contrarian."), words)
    answers = []
    for text in texts:
        file.write_text(text, "utf-8")
        answers.append([v.bullish for v in Advisor(config).raw_cells(range(105))])
    assert asked.prompts == 210, "the first words are known"
    assert answers[0] == answers[2] != answers[1]


def test_an_advisor_pickles_as_its_configuration() -> None:
    advisor = Advisor(AdvisorConfig(model="scripted:trend", cache_mode="off"))
    advisor.advise(UP)
    again = pickle.loads(pickle.dumps(advisor))
    assert (type(again), again.config) == (Advisor, advisor.config)
    assert len(pickle.dumps(advisor)) < 2500


def test_an_advisor_takes_along_what_it_was_given_or_stays() -> None:
    config = AdvisorConfig(model="scripted:trend", cache_mode="off")
    other = PromptTemplate.load("market/brief")
    assert pickle.loads(pickle.dumps(Advisor(config, template=other))).template == other
    managed = Advisor(config, backend=ModelManager("scripted:contrarian"))
    assert pickle.loads(pickle.dumps(managed)).identity == managed.identity
    backend, cache = ScriptedBackend.named("scripted:random"), VerdictCache(mode="off")
    for brought in ({"backend": backend}, {"cache": cache}):
        with pytest.raises(ConfigError, match=f"Advisor with a {next(iter(brought))} of its own goes to no"):
            pickle.dumps(Advisor(config, **brought))  # type: ignore[arg-type]


def test_a_key_says_what_computed_beside_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "gpu_names", lambda: ["CUDA0", "CUDA1"])
    identity = ModelIdentity(name="m", sha256="ab" * 32)
    monkeypatch.setattr(FileModel, "identify", lambda *_, **__: identity)
    on_cpu = AdvisorConfig(model="m.gguf", cache_mode="off")
    keys = {}
    for layers in (0, 20, -1):
        advisor = Advisor(dataclasses.replace(on_cpu, n_gpu_layers=layers))
        keys[advisor.numerics] = advisor.keys([0])[0]
        assert advisor._question(advisor.prompts([0])[0]).numerics == advisor.numerics
    assert list(keys) == ["canonical", "canonical:cuda:20", "canonical:cuda"]
    assert len(set(keys.values())) == 3
    monkeypatch.setattr(_device, "gpu_names", list)
    without = Advisor(dataclasses.replace(on_cpu, n_gpu_layers=-1))
    assert without.keys([0]) == [keys["canonical"]], "this build has no GPU to put layers on"


def test_config_is_small_hashable_and_picklable(tmp_path: Path) -> None:
    config = AdvisorConfig(model=tmp_path / "m.gguf", cache_mode="replay")
    assert config.model == str(tmp_path / "m.gguf")
    assert config.cache_mode is CacheMode.REPLAY
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(AdvisorConfig(model=str(tmp_path / "m.gguf"), cache_mode="replay"))
    assert len(pickle.dumps(config)) < 2000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reader": "logprob"}, r"reader='logprob': expected one of \['logprobs', 'json', 'contrast'\]"),
        ({"numerics": "exact"}, "numerics='exact'"),
        ({"calibration": "gird"}, "calibration='gird': expected 'grid', 'none' or a Prior"),
        ({"cache_mode": "reply"}, "reply"),
        ({"n_threads": 0}, "n_threads=0"),
        ({"n_gpu_layers": -2}, "n_gpu_layers=-2"),
        ({"manager": "smollm2"}, "manager='smollm2': expected a ModelManager"),
    ],
)
def test_misspelt_settings_list_the_choices(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdvisorConfig(**settings)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    config = AdvisorConfig(n_threads=np.int64(2), n_gpu_layers=np.int32(0))
    assert config == AdvisorConfig(n_threads=2)
    assert type(config.n_threads) is int


def test_a_manager_stands_for_the_model_and_its_settings() -> None:
    settings = ModelConfig(n_threads=3)
    manager = ModelManager("scripted:trend", fallback_paths=["scripted:bullish"], config=settings)
    config = AdvisorConfig(manager=manager)
    assert (config.model, config.fallbacks, config.n_threads) == ("scripted:trend", ("scripted:bullish",), 3)
    assert Advisor(config).manager is manager
    assert dataclasses.replace(config, calibration="none").manager is manager
    with pytest.raises(ConfigError, match="model='scripted:random' and a manager of 'scripted:trend'"):
        AdvisorConfig(model="scripted:random", manager=manager)
    assert len(pickle.dumps(config)) < 2500
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.manager is pickle.loads(pickle.dumps(config)).manager, "one in a process"


def test_closing_frees_what_a_configuration_describes_and_nothing_that_was_brought() -> None:
    class Closing(ScriptedBackend):
        closed = 0

        def close(self) -> None:
            Closing.closed += 1

    config = AdvisorConfig(model="scripted:trend", cache_mode="off")
    Advisor(config).advise(UP)
    manager = Advisor(config).manager
    assert manager is not None
    manager._backend = Closing.named("scripted:trend")
    Advisor(config).close()
    assert Closing.closed == 1
    Advisor(config, backend=manager._backend).close()
    Advisor(dataclasses.replace(config, manager=manager)).close()
    assert Closing.closed == 1


@pytest.mark.model
def test_a_file_replaced_between_its_hash_and_its_load_is_noticed(tmp_path: Path, smollm2_path: Path) -> None:
    file = tmp_path / "model.gguf"
    content = bytearray(smollm2_path.read_bytes())
    file.write_bytes(content)
    chosen = AdvisorConfig(model=file, cache_dir=tmp_path / "v", calibration="none", n_threads=1)
    advisor = Advisor(chosen)
    before = advisor.identity.sha256
    content[-200_000:] = bytes(reversed(content[-200_000:]))
    (tmp_path / "new").write_bytes(content)
    (tmp_path / "new").replace(file)
    with pytest.raises(ModelFileError, match="not the file whose hash was taken any more"):
        advisor.advise_cells([52])
    assert VerdictCache(tmp_path / "v").keys() == []
    again = Advisor(chosen)
    again.advise_cells([52])
    assert again.identity.sha256 == file_sha256(file) != before
    assert set(VerdictCache(tmp_path / "v").stats().by_model) == {file_sha256(file)}


def test_a_custom_space_is_judged_whole(tmp_path: Path) -> None:
    from bt_llm.verdicts import Feature

    band = Feature(name="percent_b", edges=(0.0, 1.0), labels=("below", "inside", "above"))
    backend = ScriptedBackend.named("scripted:trend")
    advisor = scripted(tmp_path, backend, state_space=StateSpace().with_feature(band))
    advisor.advise(MarketState(trend=0.2, rsi=60, volatility=1, percent_b=1.2))
    assert backend.calls == 315
