"""What a walk-forward result keeps of its gates: the verdicts they were told, and by which models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, attach_gate
from bt_llm.advice import Advisor, Policy, forget_answers
from bt_llm.gates import AlwaysOpen
from bt_llm.models import ScriptedBackend
from bt_llm.report import write_csv, write_report
from bt_llm.research import WalkForward, WalkForwardResult
from bt_llm.research._runs import inspect_run
from bt_llm.verdicts import Verdict
from tests.engines import QuickAdvice, walk
from tests.walk_forward_cases import QUICK, straight

BARS = walk(260, seed=3)
SPLIT = WalkForward(train_size=80, test_size=40)
GRID = {
    "gate.advisor.model": ["scripted:random", "scripted:trend"],
    "gate.advisor.calibration": ["train", "grid", "none"],
    "gate.require": ["agree", "not_against"],
}
ANSWERS = {1.0: "bullish", 0.0: "neutral", -1.0: "bearish"}


class Told(bt.Strategy):
    """Trade on every second bar, and write down what the gate is told."""

    told: ClassVar[list[tuple[Any, float, float]]] = []
    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        advice = self.gate.advice
        self.told.append((bt.num2date(self.data.datetime[0]), advice.verdict[0], advice.confidence[0]))
        if self.position:
            self.close()
        elif len(self) % 2 and self.gate.allows_long():
            self.buy()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    forget_answers()
    yield
    forget_answers()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what models are asked."""
    texts: list[str] = []
    score = ScriptedBackend._score

    def counting(self: ScriptedBackend, text: str, n_labels: int) -> Any:
        texts.append(text)
        return score(self, text, n_labels)

    monkeypatch.setattr(ScriptedBackend, "_score", counting)
    return texts


def chosen_otherwise(grid: dict[str, list[Any]] = GRID, **settings: Any) -> WalkForwardResult:
    """Return a study whose folds do not all choose the same model and calibration."""
    result = SPLIT.run(Told, BARS, gate=settings.pop("gate", QUICK), grid=grid, **settings)
    assert len({repr(fold.gate) for fold in result.folds}) > 1
    return result


class TestVerdicts:
    def test_they_are_what_the_strategy_saw_in_the_run(self) -> None:
        Told.told.clear()
        result = chosen_otherwise()
        # Each fold trades out of sample after all trials, so the last word on a bar is that of the fold.
        seen = {time: (verdict, confidence) for time, verdict, confidence in Told.told}
        for fold in result.folds:
            assert fold.verdicts is not None
            assert list(fold.verdicts.index) == list(BARS.index[fold.fold.test])
            for time, row in fold.verdicts.iloc[:-2].iterrows():  # on the last two bars it may not decide
                verdict, confidence = seen[time]
                assert row["answer"] == ANSWERS[verdict]
                assert row["confidence"] == confidence

    def test_they_are_those_of_the_folds_gate_on_its_own_bars(self) -> None:
        result = chosen_otherwise()
        for fold in result.folds:
            assert fold.verdicts is not None
            cut = BARS.iloc[fold.fold.test.start - result.warm_up + 1 : fold.fold.test.stop]
            _, ran = inspect_run(Told, cut, gate=fold.gate)
            for name in ("confidence", "bullish", "neutral", "bearish"):
                own = np.array(getattr(ran.gate.advice.lines, name).array)[result.warm_up - 1 :]
                np.testing.assert_array_equal(fold.verdicts[name], own)

    def test_another_folds_gate_would_say_something_else(self) -> None:
        """Or else the tests above would not notice that all folds were drawn with the gate of one."""
        result = chosen_otherwise()
        differ = 0
        for fold in result.folds:
            assert fold.verdicts is not None
            cut = BARS.iloc[fold.fold.test.start - result.warm_up + 1 : fold.fold.test.stop]
            for gate in {other.gate for other in result.folds if other.gate != fold.gate}:
                _, ran = inspect_run(Told, cut, gate=gate)
                own = np.array(ran.gate.advice.lines.bullish.array)[result.warm_up - 1 :]
                differ += not np.array_equal(fold.verdicts["bullish"], own)
        assert differ > 0

    def test_a_train_prior_is_in_the_gate(self) -> None:
        grid = {**GRID, "gate.advisor.calibration": ["train"]}
        result = chosen_otherwise(grid)
        for fold in result.folds:
            assert isinstance(fold.gate, Gate)
            assert fold.prior is not None
            assert fold.gate.advisor.calibration == fold.prior

    def test_joined_they_have_fold_and_model(self) -> None:
        result = chosen_otherwise()
        joined = result.verdicts
        assert list(joined.columns) == [
            *("fold", "model", "answer", "worth", "confidence", "bullish", "neutral", "bearish"),
        ]
        assert joined.index.is_monotonic_increasing
        assert list(joined.index) == list(result.equity.index)
        for fold in result.folds:
            part = joined[joined["fold"] == fold.fold.number]
            assert set(part["model"]) == {fold.settings["gate.advisor.model"]}

    def test_bars_without_an_answer_are_left_out(self) -> None:
        class Rarely(QuickAdvice):
            params = (("every", 4), ("max_age", 1))

        gate = dataclasses.replace(QUICK, indicator=Rarely)
        result = SPLIT.run(Told, BARS, gate=gate)
        first = result.folds[0].verdicts
        assert first is not None
        assert len(first) == 40
        assert (first["answer"] == "").sum() == 20
        assert len(result.verdicts) == sum((f.verdicts["answer"] != "").sum() for f in result.folds)  # type: ignore[index]

    @pytest.mark.parametrize("gate", [None, AlwaysOpen(warm_up=16)])
    def test_without_a_model_there_are_none(self, gate: Any, tmp_path: Path) -> None:
        class Plain(bt.Strategy):
            params = (("gate", None),)

            def __init__(self) -> None:
                self.gate = attach_gate(self.p.gate, self)

            def next(self) -> None:
                if not self.position and self.gate.allows_long():
                    self.buy()

        result = SPLIT.run(Plain, BARS, gate=gate)
        assert [fold.verdicts for fold in result.folds] == [None] * len(result.folds)
        assert result.models == ()
        assert result.verdicts.empty
        assert result.to_dict()["folds"][0]["verdicts"] is None
        write_report(tmp_path / "a.html", result, data=BARS)
        assert "no model gated the trades" in (tmp_path / "a.html").read_text(encoding="utf-8")
        assert [path.name for path in write_csv(tmp_path, result)] == ["trades.csv"]

    def test_a_ruined_account_was_told_nothing(self) -> None:
        falls = straight([10.0] * 20 + [10.0, 10.0, 40.0, 90.0] + [90.0] * 40)
        shorts = dataclasses.replace(QUICK, require="not_against")
        split = WalkForward(train_size=20, test_size=10)
        result = split.run(Shorts, falls, gate=shorts, cash=100.0, percent=99.0)
        assert result.metrics["final_value"] < 0
        assert result.folds[0].verdicts is not None
        assert result.folds[-1].verdicts is None
        assert set(result.verdicts["fold"]) == {1}


class Shorts(bt.Strategy):
    """Sell short, whatever the gate says."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        if not self.position:
            self.sell()


class TestModels:
    def test_each_way_of_asking_has_its_folds_hash_and_policy(self) -> None:
        result = chosen_otherwise()
        numbers = [number for model in result.models for number in model.folds]
        assert sorted(numbers) == [fold.fold.number for fold in result.folds]
        assert len({model.advisor for model in result.models}) == len(result.models) > 1
        for model in result.models:
            assert model.sha256 == Advisor(model.advisor).identity.sha256
            for number in model.folds:
                gate = result.folds[number - 1].gate
                assert isinstance(gate, Gate)
                assert gate.advisor == model.advisor
            whole = Policy.of(Advisor(model.advisor))
            known = ~np.isnan(model.policy.raw[:, 0])
            np.testing.assert_array_equal(model.policy.raw[known], whole.raw[known])
            np.testing.assert_array_equal(model.policy.calibrated[known], whole.calibrated[known])

    def test_what_no_bar_needed_is_not_asked(self, asked: list[str]) -> None:
        raw = dataclasses.replace(QUICK, advisor=AdvisorConfig(model="scripted:trend", calibration="none"))
        result = SPLIT.run(Told, BARS, gate=raw)
        known = int(np.isfinite(result.models[0].policy.raw[:, 0]).sum())
        assert 0 < len(asked) == len(set(asked)) == known < 105

    def test_what_was_asked_for_the_grid_is_known_of_every_calibration(self) -> None:
        result = chosen_otherwise({**GRID, "gate.advisor.model": ["scripted:random"]})
        assert {str(model.advisor.calibration)[:5] for model in result.models} - {"grid"}
        for model in result.models:
            assert np.isfinite(model.policy.raw).all()

    def test_an_indicator_that_asks_elsewhere_has_verdicts_and_no_policy(self) -> None:
        class Own(QuickAdvice):
            def advise(self, cells: Any) -> list[Verdict]:
                return [Verdict(bullish=0.5, neutral=0.25, bearish=0.25)] * len(cells)

        result = SPLIT.run(Told, BARS, gate=dataclasses.replace(QUICK, indicator=Own))
        assert result.models == ()
        assert set(result.verdicts["answer"]) == {"bullish"}


class TestReport:
    @pytest.mark.parametrize("mode", ["record", "off", "replay"])
    def test_drawing_asks_no_model(self, mode: str, asked: list[str], tmp_path: Path) -> None:
        gate = dataclasses.replace(QUICK, advisor=dataclasses.replace(QUICK.advisor, cache_mode=mode))
        if mode == "replay":
            chosen_otherwise()
            forget_answers()
        result = chosen_otherwise(gate=gate)
        before, files = len(asked), _files(tmp_path)
        forget_answers()  # nothing that this process remembers is needed
        write_report(tmp_path / "report.html", result, data=BARS)
        write_csv(tmp_path, result)
        json.dumps(result.to_dict(), allow_nan=False)
        result.save(tmp_path / "saved")
        assert len(asked) == before > 0
        assert _files(tmp_path) - files == {"report.html", "trades.csv", "verdicts.csv", "saved"}

    def test_json_and_csv_carry_them(self, tmp_path: Path) -> None:
        result = chosen_otherwise()
        found = result.to_dict()
        for fold, said in zip(found["folds"], result.verdicts.groupby("fold"), strict=True):
            assert fold["fold"] == said[0]
            assert list(fold["verdicts"]) == ["bullish", "neutral", "bearish", "invalid"]
            counts = said[1]["answer"].value_counts().to_dict()
            assert {name: count for name, count in fold["verdicts"].items() if count} == counts
        assert [model["sha256"] for model in found["models"]] == [model.sha256 for model in result.models]
        assert sum(len(model["folds"]) for model in found["models"]) == len(result.folds)
        priors = [m["calibration"] for m in found["models"] if isinstance(m["calibration"], dict)]
        assert priors == [f["prior"] for f in found["folds"] if f["prior"]]
        write_csv(tmp_path / "csv", result)  # no bars are needed: the result has its verdicts
        result.save(tmp_path / "saved")
        for folder in ("csv", "saved"):
            table = pd.read_csv(tmp_path / folder / "verdicts.csv", index_col="time", parse_dates=True)
            table.index = pd.DatetimeIndex(table.index).as_unit("ns")
            expected = result.verdicts
            pd.testing.assert_frame_equal(
                table.sort_index()[list(expected.columns)], expected, check_freq=False, check_names=False
            )


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
