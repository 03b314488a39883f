"""Decisions of another tool are judged as a model's verdicts are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, Market, gate_study, run_backtest
from bt_llm.backtest import BacktestResult
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError
from bt_llm.manifest import read_manifest, reproduce, write_manifest
from bt_llm.research import WalkForward, bar_answers, compare_models
from bt_llm.research._planning import plan

STRATEGY = f"{shipped('sma_cross.py')}:GatedSmaCross"
WORDS = {"bullish": "BUY", "neutral": "HOLD", "bearish": "SELL"}


def bars(count: int = 500) -> pd.DataFrame:
    return load_bars(shipped("eurusd_hourly.csv"))[:count]


def run(model: str, frame: pd.DataFrame | None = None, **modes: Any) -> BacktestResult:
    frame = bars() if frame is None else frame
    gate = Gate(advisor=AdvisorConfig(model=model))
    return run_backtest(STRATEGY, {"EURUSD": frame}, gate=gate, **modes)


def verdicts(result: BacktestResult) -> pd.DataFrame:
    return result.verdicts["EURUSD"]


@pytest.fixture
def log(tmp_path: Path) -> str:
    """What a model said at each close, written down as its decisions: the bar's open is their time."""
    said = verdicts(run("scripted:trend"))
    said = said[said["confidence"].notna()]
    rows = [
        f"{time.isoformat()},EUR/USD,{WORDS[str(row['answer'])]},{row['confidence']!r}"
        for time, row in said.iterrows()
    ]
    (tmp_path / "log.csv").write_text("\n".join(["time,symbol,decision,probability", *rows]) + "\n")
    return f"decisions:{tmp_path / 'log.csv'}"


def test_a_models_own_verdicts_as_a_file_trade_as_the_model_does(log: str) -> None:
    asked, read = run("scripted:trend"), run(log)
    assert read.metrics == asked.metrics
    pd.testing.assert_frame_equal(read.fills, asked.fills)
    pd.testing.assert_series_equal(verdicts(read)["answer"], verdicts(asked)["answer"])
    pd.testing.assert_series_equal(verdicts(read)["confidence"], verdicts(asked)["confidence"])
    assert read.problems == asked.problems


def test_decisions_are_answers_at_every_bar_as_the_models_own_are(log: str) -> None:
    market = Market.of({"EURUSD": bars()})
    asked, read = (
        bar_answers(market, Gate(advisor=AdvisorConfig(model=model))) for model in ("scripted:trend", log)
    )
    assert read == asked
    assert 0 < sum(read.long) < len(read.long)


@pytest.mark.parametrize("modes", [{"runonce": False}, {"preload": False, "runonce": False}])
def test_every_engine_mode_gives_the_same(log: str, modes: dict[str, Any]) -> None:
    assert run(log, **modes).metrics == run(log).metrics


def test_what_a_bar_shows_does_not_depend_on_what_comes_after_it(log: str, tmp_path: Path) -> None:
    whole = verdicts(run(log))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    (tmp_path / "log.csv").write_text("\n".join(lines[:200]) + "\n")
    last = pd.Timestamp(lines[199].split(",")[0])
    cut = verdicts(run(log, bars(400)))
    pd.testing.assert_frame_equal(cut[:last], whole[:last], check_exact=True, check_freq=False)
    assert cut[cut.index > last]["confidence"].isna().all()


def test_bars_without_a_decision_have_no_verdict_and_are_counted(log: str, tmp_path: Path) -> None:
    lines = (tmp_path / "log.csv").read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if number == 0 or number % 3 == 1]
    (tmp_path / "log.csv").write_text("\n".join([*kept, "2030-01-01T00:00:00,EURUSD,buy,1"]) + "\n")
    found = run(log)
    missing = int(verdicts(found)[found.equity.index[0] :]["confidence"].isna().sum())
    (note,) = [note for note in found.notes if note.startswith("decisions of log.csv")]
    assert f"none for {missing} bars, and 1 decision of no bar" in note
    assert found.problems == ()
    carried = run(f"{log}?valid=3h")
    assert verdicts(carried)[found.equity.index[0] :]["confidence"].isna().sum() < missing


def test_decisions_of_another_symbol_are_no_ground_for_a_conclusion(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time,symbol,decision\n2017-05-02T10:00:00,AAPL,buy\n")
    found = run(f"decisions:{tmp_path / 'log.csv'}")
    assert "no decision of log.csv belongs to a bar of EURUSD: they are on AAPL" in found.problems[0]
    assert str(tmp_path) not in " ".join(found.warnings)


def test_decisions_at_other_times_are_told_with_theirs_and_those_of_the_bars(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time,symbol,decision\n2010-05-02T10:00:00,eur/usd,buy\n")
    found = run(f"decisions:{tmp_path / 'log.csv'}")
    assert "1 on EURUSD were made at 2010-05-02 10:00:00+00:00, and the bars" in found.problems[0]
    assert "2017-" in found.problems[0]


def test_a_row_that_no_bar_comes_to_has_to_be_a_decision_too(tmp_path: Path) -> None:
    rows = "2010-05-02T10:00:00,AAPL,buy\n2010-05-03T10:00:00,AAPL,yolo\n"
    (tmp_path / "log.csv").write_text(f"time,symbol,decision\n{rows}")
    with pytest.raises(ConfigError, match="row 2: decision 'yolo' is no label"):
        run(f"decisions:{tmp_path / 'log.csv'}")


def test_what_is_no_decision_is_refused(tmp_path: Path) -> None:
    for row, said in (("yolo,0.9", "decision 'yolo' is no label"), ("buy,0.2", "below 1/3")):
        (tmp_path / "log.csv").write_text(f"time,decision,probability\n2017-05-02T10:00:00,{row}\n")
        with pytest.raises(ConfigError, match=said):
            run(f"decisions:{tmp_path / 'log.csv'}")
    with pytest.raises(ConfigError, match="prior, fallbacks"):
        Gate(advisor=AdvisorConfig(model="decisions:log.csv", fallbacks=["smollm2"])).asker()


def test_a_manifest_names_the_file_and_is_reproduced(log: str, tmp_path: Path) -> None:
    bars().to_csv(tmp_path / "bars.csv")
    market = Market.of({"EURUSD": tmp_path / "bars.csv"})
    study = gate_study(STRATEGY, market, Gate(advisor=AdvisorConfig(model=log)))
    manifest = write_manifest(tmp_path / "run.json", study, strategy=STRATEGY, data=market)
    assert manifest.gate["advisor"]["decisions"]["file"] == "log.csv"
    assert str(tmp_path) not in (tmp_path / "run.json").read_text()
    assert [str(one) for one in reproduce(read_manifest(tmp_path / "run.json")).differences] == []
    (tmp_path / "log.csv").write_text((tmp_path / "log.csv").read_text().replace("SELL", "HOLD"))
    (difference, *_) = reproduce(read_manifest(tmp_path / "run.json")).differences
    assert difference.what == "data"


def test_it_is_compared_searched_and_planned_like_any_model(log: str) -> None:
    market = Market.of({"EURUSD": bars()})
    found = compare_models(STRATEGY, market, {"file": log, "trend": "scripted:trend"}, resamples=99)
    assert found.pairs[0].agreed == 1.0
    gate = Gate(advisor=AdvisorConfig(model=log))
    told: dict[str, Any] = {"grid": {"fast": [5, 10]}, "metric": "return"}
    how = WalkForward(train_size=200, test_size=60)
    read, asked = (
        how.run(STRATEGY, market, gate=gate, **told),
        how.run(STRATEGY, market, gate=Gate(advisor=AdvisorConfig(model="scripted:trend")), **told),
    )
    pd.testing.assert_series_equal(read.equity, asked.equity)
    (planned,) = plan([gate.advisor], bars=500).models
    assert (planned.prompts, planned.source) == (0, "a file: nobody is asked")
