"""Walk-forward on a panel: one set of settings for all symbols, or one for each, on the same dates."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm.backtest import (
    Market,
    Member,
    Setup,
    Window,
    aligned_returns,
    load_strategy,
    pooled_returns,
)
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.research import PanelWalkForwardResult, TrialLedger, WalkForward
from bt_llm.research.walk_forward._windows import run_trial
from bt_llm.statistics import sharpe_ratio
from tests.engines import walk
from tests.research_cases import Alternate, gate_of, random_walk, regimes
from tests.walk_forward_cases import QUICK, cross_file

SPLIT = WalkForward(train_size=100, test_size=50, warm_up=20)
GRID = {"fast": [2, 4, 6]}


def frames(count: int = 3) -> dict[str, pd.DataFrame]:
    return {f"s{number}": walk(260, seed=number) for number in range(count)}


@pytest.fixture
def strategy(tmp_path: Path) -> str:
    return cross_file(tmp_path)


def run(strategy: str, universe: Any, **options: Any) -> PanelWalkForwardResult:
    return SPLIT.run_panel(strategy, universe, grid=GRID, commission=0.001, **options)


class TestChoice:
    @pytest.mark.parametrize("parameters", ["panel", "symbol"])
    def test_of_one_symbol_it_is_the_walk_forward_of_that_symbol(
        self, strategy: str, parameters: str
    ) -> None:
        alone = SPLIT.run(strategy, frames()["s0"], gate=QUICK, grid=GRID, commission=0.001)
        panel = run(strategy, {"s0": frames()["s0"]}, gate=QUICK, parameters=parameters)
        found = panel.symbols["s0"]
        assert [one.settings for one in found.folds] == [one.settings for one in alone.folds]
        assert found.equity.equals(alone.equity)
        assert panel.metrics["return"] == pytest.approx(alone.metrics["return"])
        assert panel.metrics["sharpe"] == pytest.approx(alone.metrics["sharpe"])
        assert panel.n_trials == alone.n_trials == 3

    def test_each_symbol_may_choose_for_itself(self, strategy: str) -> None:
        panel = run(strategy, frames(), parameters="symbol")
        for name, frame in frames().items():
            alone = SPLIT.run(strategy, frame, grid=GRID, commission=0.001)
            assert [one.settings for one in panel.symbols[name].folds] == [
                one.settings for one in alone.folds
            ]
        assert panel.n_trials == 9
        assert all(one.settings is None for one in panel.folds)

    def test_one_set_for_all_is_the_best_of_the_pooled_train_records(self, strategy: str) -> None:
        panel = run(strategy, frames())
        singles = run(strategy, frames(), parameters="symbol")
        for place, fold in enumerate(panel.folds):
            pooled = []
            for fast in GRID["fast"]:
                equities = {
                    name: train_equity(strategy, frame, fold.fold.train, fast)
                    for name, frame in frames().items()
                }
                returns = pooled_returns(aligned_returns(equities), dict.fromkeys(equities, 1.0))
                pooled.append(sharpe_ratio(returns.to_numpy()))
            assert fold.settings == {"fast": GRID["fast"][int(np.argmax(pooled))]}
            assert fold.scores == pytest.approx([ratio * np.sqrt(365.25) for ratio in pooled], rel=1e-6)
            assert {one.folds[place].settings["fast"] for one in panel.symbols.values()} == {
                fold.settings["fast"]
            }
        chosen = [{f.settings["fast"] for f in one.folds} for one in singles.symbols.values()]
        assert any(part != chosen[0] for part in chosen) or len(chosen[0]) > 1

    def test_the_tests_are_pooled_on_the_same_dates(self, strategy: str) -> None:
        panel = run(strategy, frames())
        tested = [one.equity for one in panel.symbols.values()]
        assert all(one.index.equals(tested[0].index) for one in tested)
        means = np.mean([one.pct_change().iloc[1:].to_numpy() for one in tested], axis=0)
        assert panel.returns.to_numpy() == pytest.approx(means)
        assert panel.trades["symbol"].nunique() == 3


def train_equity(strategy: str, frame: pd.DataFrame, train: slice, fast: int) -> pd.Series:
    """Return the equity of a combination on a train stretch."""
    window = Window(start=max(train.start, 19) - 19, first=max(train.start, 19), stop=train.stop)
    made = load_strategy(strategy)
    outcome, _ = run_trial(made, Market.of(frame), window, {"fast": fast}, Setup(commission=0.001))
    return pd.Series(outcome.equity, index=frame.index[window.first : window.stop])


class TestMembership:
    def test_a_symbol_that_ends_within_a_test_is_closed_at_its_last_close(self, strategy: str) -> None:
        gone = frames()["s1"].iloc[:130]
        panel = run(strategy, {"s0": frames()["s0"], "gone": gone})
        (only,) = panel.symbols["gone"].folds
        assert only.fold.test == slice(100, 130)
        value = panel.symbols["gone"].equity
        assert value.index[-1] == gone.index[-1]
        assert value.iloc[-1] == pytest.approx(10_000.0 + panel.symbols["gone"].trades["pnlcomm"].sum())
        pooled = panel.returns
        s0 = panel.symbols["s0"].equity.pct_change()
        after = pooled.index > gone.index[-1]
        assert pooled[after].to_numpy() == pytest.approx(s0.loc[pooled.index[after]].to_numpy())

    def test_nothing_is_traded_before_a_membership_begins(self, strategy: str) -> None:
        bars = Market.of(frames()["s1"])
        start = bars.index[120]
        late = Member(market=bars, start=start)
        panel = run(strategy, {"s0": frames()["s0"], "late": late})
        found = panel.symbols["late"]
        assert [one.fold.number for one in found.folds] == [2, 3]
        assert found.folds[0].fold.train_start == start
        assert found.trades["opened"].min() > start

    def test_a_setting_is_one_trial_whichever_symbols_are_there_in_a_fold(self, strategy: str) -> None:
        panel = run(strategy, {"s0": frames()["s0"], "gone": frames()["s1"].iloc[:130]})
        assert {one.symbols for one in panel.folds} == {("s0", "gone"), ("s0",)}
        assert panel.n_trials == len(GRID["fast"])

    def test_a_symbol_without_a_fold_is_left_out_by_name(self, strategy: str) -> None:
        panel = run(strategy, {"s0": frames()["s0"], "young": frames()["s1"].iloc[-40:]})
        assert list(panel.symbols) == ["s0"]
        assert panel.left_out == {"young": "40 bars are enough for no fold"}
        with pytest.raises((DataError, ConfigError)):
            run(strategy, {"young": frames()["s1"].iloc[-40:]})


class TestLedger:
    def test_a_panel_is_counted_once_and_goes_on_where_it_was(self, strategy: str, tmp_path: Path) -> None:
        first = run(strategy, frames(), output=tmp_path / "out")
        again = run(strategy, frames(), output=tmp_path / "out")
        assert (first.trials_run, again.trials_run, again.n_trials) == (9, 0, 3)
        assert first.to_dict() == again.to_dict()
        other = run(strategy, {**frames(), "s2": walk(260, seed=9)}, output=tmp_path / "out")
        assert other.n_trials == 6
        with TrialLedger(tmp_path / "out" / "symbols.sqlite") as parts:
            assert len(parts) == 4 * 9  # of the new symbol alone: the others' were there

    def test_what_is_written_of_a_trial_does_not_depend_on_what_its_key_leaves_out(
        self, strategy: str, tmp_path: Path
    ) -> None:
        found = {}
        for embargo in (0, 5):
            split, folder = dataclasses.replace(SPLIT, embargo=embargo), tmp_path / str(embargo)
            result = split.run_panel(strategy, frames(2), grid=GRID, commission=0.001, output=folder)
            with TrialLedger(folder / "trials.sqlite") as ledger:
                found[embargo] = result.folds[-1].scores, ledger.records()
        assert found[0][0] != found[5][0]
        assert found[0][1] == found[5][1]

    def test_names_of_symbols_do_not_count(self, strategy: str, tmp_path: Path) -> None:
        run(strategy, frames(), output=tmp_path / "out")
        renamed = {f"x{number}": frame for number, frame in enumerate(reversed(frames().values()))}
        assert run(strategy, renamed, output=tmp_path / "out").trials_run == 0

    def test_several_processes_give_the_same(self, strategy: str) -> None:
        one, two = (run(strategy, frames(2), gate=QUICK, n_jobs=jobs) for jobs in (None, 2))
        assert one.to_dict() == two.to_dict()

    def test_what_is_saved_is_there(self, strategy: str, tmp_path: Path) -> None:
        panel = run(strategy, frames(2))
        panel.save(tmp_path / "out")
        found = (tmp_path / "out").rglob("result.json")
        names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in found)
        assert names == ["result.json", "symbols/000-s0/result.json", "symbols/001-s1/result.json"]

    def test_no_p_value_of_a_symbol_is_told_that_knows_nothing_of_the_others(
        self, strategy: str, tmp_path: Path
    ) -> None:
        panel = run(strategy, frames(2))
        panel.save(tmp_path / "out")
        told = [*panel.to_dict()["symbols"].values()]
        told += [json.loads(path.read_text()) for path in (tmp_path / "out" / "symbols").rglob("result.json")]
        assert len(told) == 4
        for one in told:
            assert [one[name] for name in ("question", "probabilistic_sharpe", "deflated_sharpe")] == [
                None
            ] * 3
            assert one["out_of_sample"]["sharpe"] is not None


MODELS = ["scripted:trend", "scripted:contrarian"]


class TestContenders:
    @pytest.mark.parametrize("parameters", ["panel", "symbol"])
    def test_of_one_symbol_they_stand_as_in_the_walk_forward_of_that_symbol(
        self, strategy: str, parameters: str
    ) -> None:
        grid = {**GRID, "gate.advisor.model": MODELS}
        told = {"gate": QUICK, "grid": grid, "commission": 0.001}
        alone = SPLIT.run(strategy, frames()["s0"], **told).standing
        panel = SPLIT.run_panel(strategy, {"s0": frames()["s0"]}, parameters=parameters, **told).standing
        assert alone is not None
        assert panel is not None
        assert panel.answer == alone.answer
        assert panel.spa == alone.spa
        assert panel.confidence_set == alone.confidence_set

    @pytest.mark.parametrize("parameters", ["panel", "symbol"])
    def test_each_model_stands_as_if_it_had_been_searched_alone(
        self, strategy: str, parameters: str, tmp_path: Path
    ) -> None:
        def study(models: list[str], output: Path | None = None) -> PanelWalkForwardResult:
            grid = {"fast": [2, 6], "gate.advisor.model": models}
            few = {name: frame[:200] for name, frame in frames(2).items()}
            return SPLIT.run_panel(strategy, few, gate=QUICK, grid=grid, parameters=parameters, output=output)

        found = study(MODELS, tmp_path)
        alone = [study([name]).metrics["sharpe"] for name in MODELS]
        standing = found.standing
        assert standing is not None
        assert (standing.candidates, standing.benchmarks) == (tuple(MODELS), ("ungated",))
        (pair,) = standing.between.pairs
        assert pair.estimate == pytest.approx(alone[0] - alone[1])
        assert set(standing.differing) == {tuple(MODELS), *((name, "ungated") for name in MODELS)}
        # What is only compared is no trial.
        assert found.n_trials == (4 if parameters == "panel" else 8)
        assert study(MODELS, tmp_path).trials_run == 0

    def test_one_model_stands_to_the_same_choice_without_a_gate(self, strategy: str) -> None:
        panel = run(strategy, frames(2), gate=QUICK)
        opened = []
        for name, frame in frames(2).items():
            chosen = panel.symbols[name].folds
            value, parts = 10_000.0, []
            for fold in chosen:
                window = Window(
                    start=fold.fold.test.start - 19, first=fold.fold.test.start, stop=fold.fold.test.stop
                )
                params = {**fold.settings, "gate": QUICK.baseline()}
                outcome, _ = run_trial(
                    load_strategy(strategy),
                    Market.of(frame),
                    window,
                    params,
                    Setup(commission=0.001),
                    cash=value,
                )
                parts.append(outcome.equity)
                value = float(outcome.equity[-1])
            equity = np.concatenate(parts)
            opened.append(equity[1:] / equity[:-1] - 1.0)
        assert panel.contenders is not None
        assert list(panel.contenders.returns) == ["chosen", "ungated"]
        assert panel.contenders.returns["ungated"].to_numpy() == pytest.approx(np.mean(opened, axis=0))
        assert panel.contenders.returns["chosen"].equals(panel.returns)

    def test_it_is_said_after_the_one_question_shown_and_in_json(self, strategy: str) -> None:
        panel = run(strategy, frames(2), gate=QUICK)
        assert panel.question is not None
        assert panel.sentences[:2] == [panel.question.sentence, panel.standing.answer]
        assert "Who is better" in [one.title for one in panel.sections()]
        told = panel.to_dict()
        assert told["standing"]["primary"]["answer"] == panel.standing.answer
        assert told["question"]["p_value"] == panel.question.p_value

    def test_without_a_model_there_is_nothing_to_compare(self, strategy: str) -> None:
        panel = run(strategy, frames(2))
        assert panel.standing is None
        assert panel.to_dict()["standing"] is None

    def test_who_knows_is_found_and_where_there_is_nothing_to_know_no_one(self) -> None:
        split = WalkForward(train_size=150, test_size=150)

        def answer(make: Callable[..., pd.DataFrame], *models: str) -> str:
            bars = {f"s{seed}": make(500, seed=seed) for seed in range(3)}
            told = {"gate": gate_of("scripted:trend"), "grid": {"gate.advisor.model": list(models)}}
            found = split.run_panel(Alternate, bars, cash=1e6, **told)
            assert found.standing is not None
            return found.standing.answer

        knows = answer(regimes, "scripted:trend", "scripted:random:9")
        assert knows.startswith("Which is better: scripted:trend better than scripted:random:9 by +")
        nothing = answer(random_walk, "scripted:trend", "scripted:random:9")
        assert nothing.startswith(
            "Which is better: cannot tell; no difference in Sharpe ratio is more than luck"
        )

    def test_too_few_bars_are_said(self, strategy: str) -> None:
        panel = run(strategy, frames(2), gate=QUICK)
        assert panel.said == ()
        short = WalkForward(train_size=100, test_size=20, warm_up=20).run_panel(
            strategy, {name: frame[:130] for name, frame in frames(2).items()}, gate=QUICK
        )
        assert short.standing is None
        assert short.notes[-1] == "19 out-of-sample returns are too few to compare models by"


def test_a_misspelt_choice_is_refused(strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"parameters='all': expected one of \['panel', 'symbol'\]"):
        run(strategy, frames(1), parameters="all")
