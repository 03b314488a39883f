"""A dated run is, bar by bar, the runs of its members on their own spans."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, Market, gate_study, run_backtest
from bt_llm.advice import DatedAdvisor, drift_of, member_configs
from bt_llm.advice import Policy as PolicyTable
from bt_llm.advice._advisor import Advisor
from bt_llm.backtest import BacktestResult
from bt_llm.cache import VerdictCache, export_pack, import_pack
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError
from bt_llm.manifest import read_manifest, reproduce, write_manifest
from bt_llm.research import WalkForward, after_cutoff, compare_models
from bt_llm.research._planning import plan
from tests.tiny_gguf import write_tiny_model

STRATEGY = f"{shipped('sma_cross.py')}:GatedSmaCross"
SPLITS = ("2017-05-05", "2017-05-12", "2017-05-19")


def bars(count: int = 700) -> pd.DataFrame:
    return load_bars(shipped("eurusd_hourly.csv"))[:count]


def run(model: str, frame: Any = None, **advisor: Any) -> BacktestResult:
    gate = Gate(advisor=AdvisorConfig(model=model, **advisor))
    return run_backtest(STRATEGY, bars() if frame is None else frame, gate=gate)


def verdicts(result: BacktestResult) -> pd.DataFrame:
    (found,) = result.verdicts.values()
    return found


def assert_spliced(dated: BacktestResult, alone: list[BacktestResult], days: tuple[str, ...]) -> None:
    """Assert that each member's span has its answers, and what comes before has none."""
    frame = verdicts(dated)
    ends = [pd.Timestamp(day) + pd.Timedelta(days=1) for day in days]
    assert frame[frame.index < ends[0]]["confidence"].isna().all()
    for start, stop, one in zip(
        ends, [*ends[1:], frame.index[-1] + pd.Timedelta(hours=1)], alone, strict=True
    ):
        span = (frame.index >= start) & (frame.index < stop)
        assert span.sum() > 20
        pd.testing.assert_frame_equal(frame[span], verdicts(one)[span], check_exact=True)


def test_a_dated_run_equals_the_runs_of_its_members_on_their_spans() -> None:
    members = ["scripted:trend", "scripted:random:3", "scripted:contrarian"]
    dated = run("dated:" + ",".join(f"{day}={name}" for day, name in zip(SPLITS, members, strict=True)))
    assert_spliced(dated, [run(name) for name in members], SPLITS)
    assert [one.identity.name for one in dated.asked] == members


def test_it_equals_them_with_weights_of_several_quantizations_and_shares_their_answers(
    tmp_path: Path,
) -> None:
    files = [
        write_tiny_model(tmp_path / f"{name}.gguf", file_type=kind) for name, kind in (("a", 2), ("b", 7))
    ]
    (tmp_path / "models.toml").write_text(
        "format = 1\n"
        + "".join(
            f'[[member]]\nmodel = "{f.name}"\nknowledge_ends = {d}\n'
            for f, d in zip(files, SPLITS, strict=False)
        )
    )
    settings = {"calibration": "none", "min_label_mass": 0.0}
    dated = run(f"dated:{tmp_path / 'models.toml'}", **settings)
    asked = dated.advice and dated.advice["model_calls"]
    assert asked
    alone = [run(str(file), **settings) for file in files]
    assert_spliced(dated, alone, SPLITS[:2])
    again = run(f"dated:{tmp_path / 'models.toml'}", **settings)
    assert again.advice is not None
    assert (again.advice["model_calls"], again.advice["cache_hits"]) == (0, again.advice["distinct"])
    keys = [set(one.used()) for one in dated.asked]
    assert keys[0] <= set(alone[0].asked[0].used())
    assert not keys[0] & keys[1]


@pytest.mark.model
def test_it_equals_them_with_a_requantised_model(smollm2_path: Path, tmp_path: Path) -> None:
    from bt_llm.models.llama._native import library

    lc = library()
    params = lc.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = 7, 2, True  # Q8_0
    other = tmp_path / "q8.gguf"
    assert lc.llama_model_quantize(os.fsencode(smollm2_path), os.fsencode(other), params) == 0
    frame, days = bars(190), ("2017-04-25", "2017-04-26")
    dated = run(f"dated:{days[0]}={smollm2_path},{days[1]}={other}", frame, calibration="none")
    alone = [run(str(path), frame, calibration="none") for path in (smollm2_path, other)]
    assert_spliced(dated, alone, days)
    shared = verdicts(alone[0])["confidence"].to_numpy(), verdicts(alone[1])["confidence"].to_numpy()
    assert not np.array_equal(*shared, equal_nan=True)


FAMILY = "dated:2017-05-05=scripted:trend,2017-05-12=scripted:random:3"


@pytest.mark.parametrize(
    "modes", [{"runonce": False}, {"preload": False, "runonce": False}, {"exactbars": -2}]
)
def test_every_engine_mode_gives_the_same(modes: dict[str, Any]) -> None:
    gate = Gate(advisor=AdvisorConfig(model=FAMILY))
    usual = run_backtest(STRATEGY, bars(), gate=gate)
    other = run_backtest(STRATEGY, bars(), gate=gate, **modes)
    assert other.metrics == usual.metrics
    assert other.problems == usual.problems


def test_what_a_bar_shows_does_not_depend_on_the_bars_after_it() -> None:
    whole, cut = verdicts(run(FAMILY)), verdicts(run(FAMILY, bars(520)))
    pd.testing.assert_frame_equal(whole[:520], cut, check_exact=True, check_freq=False)


def test_bars_before_the_first_member_are_counted_among_the_problems() -> None:
    early = run(FAMILY)
    frame = verdicts(early)
    counted = (frame.index >= early.equity.index[0]) & (frame.index < pd.Timestamp("2017-05-06"))
    assert f"{counted.sum()} bars have no verdict" in early.problems[0]
    assert early.gate_problems == early.problems
    late = gate_study(STRATEGY, after_cutoff(bars(), FAMILY), Gate(advisor=AdvisorConfig(model=FAMILY)))
    assert late.problems == ()
    assert verdicts(late.gated).index[0] >= pd.Timestamp("2017-05-06")


def test_a_manifest_names_the_members_and_is_reproduced_from_their_pack(tmp_path: Path) -> None:
    market = Market.of(shipped("eurusd_hourly.csv"))
    study = gate_study(STRATEGY, market, Gate(advisor=AdvisorConfig(model=FAMILY)))
    write_manifest(tmp_path / "run.json", study, strategy=STRATEGY, data=market)
    manifest = read_manifest(tmp_path / "run.json")
    assert sorted(one.name for one in manifest.models) == ["scripted:random:3", "scripted:trend"]
    with VerdictCache() as cache:
        export_pack(cache, tmp_path / "pack.jsonl")
    with VerdictCache(tmp_path / "other") as other:
        import_pack(other, tmp_path / "pack.jsonl")
    again = reproduce(manifest, cache_dir=tmp_path / "other")
    assert [str(one) for one in again.differences] == []
    members = manifest.gate["advisor"]["members"]
    changed = dataclasses.replace(
        manifest, gate={**manifest.gate, "advisor": {**manifest.gate["advisor"], "members": members[:1]}}
    )
    assert reproduce(changed, cache_dir=tmp_path / "other").differences


def test_files_of_members_are_reproduced_without_them(tmp_path: Path) -> None:
    files = [
        write_tiny_model(tmp_path / f"{name}.gguf", file_type=kind) for name, kind in (("a", 2), ("b", 7))
    ]
    model = f"dated:{SPLITS[0]}={files[0]},{SPLITS[1]}={files[1]}"
    frame = bars(600)
    frame.to_csv(tmp_path / "bars.csv")
    gate = Gate(advisor=AdvisorConfig(model=model, calibration="none", min_label_mass=0.0))
    study = gate_study(STRATEGY, tmp_path / "bars.csv", gate)
    write_manifest(tmp_path / "run.json", study, strategy=STRATEGY, data=tmp_path / "bars.csv")
    for file in files:
        file.unlink()
    assert reproduce(read_manifest(tmp_path / "run.json")).identical


def test_a_walk_forward_study_asks_each_member_and_its_workers_need_no_file(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(
        'format = 1\n[[member]]\nmodel = "scripted:trend"\nknowledge_ends = 2017-03-31\n'
        '[[member]]\nmodel = "scripted:contrarian"\nknowledge_ends = 2017-05-12\n'
    )
    gate = Gate(advisor=AdvisorConfig(model=f"dated:{tmp_path / 'models.toml'}"))
    how = WalkForward(train_size=250, test_size=100)
    told: dict[str, Any] = {"gate": gate, "grid": {"fast": [5, 10]}, "metric": "return"}
    one = how.run(STRATEGY, bars(), **told)
    assert {model.name for model in one.models} == {"scripted:trend", "scripted:contrarian"}
    two = how.run(STRATEGY, bars(), n_jobs=2, **told)
    pd.testing.assert_series_equal(one.equity, two.equity)
    trained = {**told, "params": {"gate.advisor.calibration": "train"}}
    with pytest.raises(ConfigError, match="calibration='train'"):
        how.run(STRATEGY, bars(), **trained)


def test_dated_is_compared_with_undated_on_the_bars_that_both_may_judge() -> None:
    market = after_cutoff(bars(), FAMILY)
    found = compare_models(STRATEGY, market, {"dated": FAMILY, "undated": "scripted:random:3"}, resamples=99)
    assert found.pairs[0].models == ("dated", "undated")
    assert 0.0 < found.pairs[0].agreed < 1.0  # the second member is the undated model


def test_a_plan_has_a_line_for_each_member() -> None:
    made = plan([AdvisorConfig(model=FAMILY, cache_mode="off")], bars=700)
    assert [(one.model, one.prompts) for one in made.models] == [
        ("scripted:trend", 105),
        ("scripted:random:3", 105),
    ]


def test_a_policy_is_of_each_member_and_drifts() -> None:
    policies = [PolicyTable.of(Advisor(one)) for one in member_configs(AdvisorConfig(model=FAMILY))]
    (drift,) = drift_of(policies)
    assert drift.models == ("scripted:random:3", "scripted:trend")
    same = np.mean(policies[0].answers() == policies[1].answers())
    assert drift.agreement == same


def test_what_answers_by_the_bar_is_not_asked_about_states_alone() -> None:
    with pytest.raises(ConfigError, match="answers by the bar"):
        Advisor(AdvisorConfig(model=FAMILY))
    with pytest.raises(ConfigError, match="fallbacks"):
        DatedAdvisor(AdvisorConfig(model=FAMILY, fallbacks=["scripted:trend"]))
