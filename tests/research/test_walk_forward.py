"""Walk-forward: what crosses a boundary, what is chosen, and what it comes to."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, Market, attach_gate, run_backtest, statistics
from bt_llm.advice import Advisor, forget_answers
from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError, MissingExtraError, StrategyError
from bt_llm.gates import AlwaysOpen, NeverOpen
from bt_llm.models import ScriptedBackend
from bt_llm.research import LEDGER, Metric, TrialLedger, TrialOutcome, WalkForward, WalkForwardResult
from bt_llm.research.walk_forward import _search
from bt_llm.research.walk_forward._advice import open_desk
from bt_llm.research.walk_forward._metrics import best_of, measure, returns_of
from tests.engines import QuickAdvice, build, walk
from tests.walk_forward_cases import CROSS, QUICK, Holds, Watches, changed, cross_file, straight

BARS = walk(260, seed=3)
SPLIT = WalkForward(train_size=80, test_size=40)
GRID = {"fast": [2, 4], "gate.require": ["agree", "not_against"]}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Start each test without advisors that remember another test's cache."""
    forget_answers()
    yield
    forget_answers()


@pytest.fixture
def cross(tmp_path: Path) -> str:
    return cross_file(tmp_path)


def same(first: WalkForwardResult, second: WalkForwardResult) -> None:
    """Check that two results are equal to the last digit."""
    assert first.to_dict() == second.to_dict()
    pd.testing.assert_series_equal(first.equity, second.equity, check_exact=True)
    pd.testing.assert_frame_equal(first.trades, second.trades, check_exact=True)
    assert [fold.scores for fold in first.folds] == [fold.scores for fold in second.folds]


class TestStretches:
    def test_positions_and_equity_by_hand(self) -> None:
        bars = straight([10.0, 10.0, 10.0, 10.0, 10.0, 12.0, 14.0, 16.0, 20.0, 25.0, 30.0, 40.0])
        result = WalkForward(train_size=4, test_size=4).run(Holds, bars, cash=1000.0, percent=50.0)
        # Fold 1 tests bars 4 to 7: decided at 10, 50 shares bought at the next open (10.5), held over the
        # closes of 12 and 14, sold at the open of the last bar (14.5): a gain of 50 x 4 = 200.
        # Fold 2 tests bars 8 to 11 with 1200: decided at 20, 30 bought at 20.5, sold at 30.5: 300.
        expected = [1000, 1000 + 50 * 1.5, 1000 + 50 * 3.5, 1200]
        expected += [1200, 1200 + 30 * 4.5, 1200 + 30 * 9.5, 1500]
        assert result.equity.tolist() == pytest.approx(expected)
        assert list(result.equity.index) == list(bars.index[4:])
        assert result.metrics["return"] == pytest.approx(0.5)
        trades = result.trades
        assert [time.day for time in trades["opened"]] == [6, 10]
        assert [time.day for time in trades["closed"]] == [8, 12]
        assert trades["pnlcomm"].tolist() == pytest.approx([200.0, 300.0])
        first = result.folds[0].fold
        assert (first.train_start.day, first.train_end.day, first.test_start.day, first.test_end.day) == (
            (1, 4, 5, 8)
        )

    def test_leaving_costs_what_any_trade_costs(self) -> None:
        bars = straight([10.0] * 8)
        result = WalkForward(train_size=4, test_size=4).run(
            Holds, bars, params={"side": -1}, cash=1000.0, percent=50.0, commission=0.01
        )
        # 50 shares sold short at 10.5 and bought back at 10.5, one per cent each way.
        assert result.metrics["final_value"] == pytest.approx(1000 - 2 * 0.01 * 50 * 10.5)
        assert result.trades["direction"].tolist() == [-1]

    def test_trials_agree_with_run_backtest(self, cross: str) -> None:
        result = WalkForward(train_size=100, test_size=60).run(cross, BARS, gate=QUICK, commission=0.001)
        fold = result.folds[0].fold
        seen = BARS.iloc[fold.test.start - result.warm_up + 1 : fold.test.stop]
        whole = run_backtest(cross, seen, gate=QUICK, commission=0.001)
        assert whole.equity.index[0] == fold.test_start
        np.testing.assert_array_equal(result.equity.iloc[:59], whole.equity.iloc[:59])

    def test_methods_are_called_in_the_window_only(self) -> None:
        Watches.calls.clear()
        WalkForward(train_size=10, test_size=6).run(Watches, walk(16), params={"period": 3})
        day = dt.date(2020, 1, 1)
        # Train: bars 0 to 9, of which the mean of three leaves 2 to 9; the last two bars decide nothing.
        train = [("nextstart", day + dt.timedelta(2), 10)]
        train += [("next", day + dt.timedelta(i), 10) for i in range(3, 8)]
        # Test: bars 10 to 15, and two bars before them that only the mean sees.
        test = [("nextstart", day + dt.timedelta(10), 8)]
        test += [("next", day + dt.timedelta(i), 8) for i in range(11, 14)]
        assert Watches.calls == train + test

    def test_all_combinations_wait_for_the_slowest(self) -> None:
        Watches.calls.clear()
        grid = {"period": [2, 7]}
        result = WalkForward(train_size=12, test_size=4).run(Watches, walk(16), grid=grid)
        first = dt.date(2020, 1, 7)
        assert result.warm_up == 7
        assert [call[1] for call in Watches.calls if call[0] == "nextstart"][:2] == [first, first]

    def test_resting_orders_do_not_outlive_their_window(self) -> None:
        result = WalkForward(train_size=6, test_size=6).run(Rests, straight([10.0] * 11 + [5.0] * 13))
        # The price falls through the order on the last bar of the first test, when it is cancelled.
        assert result.trades["opened"].dt.day.tolist() == [14, 20]

    def test_an_account_that_is_ruined_trades_no_more(self) -> None:
        falls = straight([10.0] * 6 + [10.0, 10.0, 40.0, 90.0, 90.0, 90.0] + [90.0] * 6)
        result = WalkForward(train_size=6, test_size=6).run(
            Holds, falls, params={"side": -1}, cash=100.0, percent=99.0
        )
        assert result.metrics["final_value"] < 0
        assert result.equity.iloc[6:].nunique() == 1
        assert result.metrics["return"] == -1.0
        assert result.trades.empty  # no broker lends an account that is worth less than nothing the way out

    def test_signal_strategies_are_windowed_too(self) -> None:
        result = WalkForward(train_size=20, test_size=10).run(Signals, walk(50))
        last = result.folds[0].fold.test_end
        assert all(time <= last for time in result.trades["closed"][:1])
        assert result.trades["closed"].dt.normalize().isin(result.equity.index).all()
        assert len(result.trades) >= 3

    def test_orders_before_the_first_bar_are_refused(self) -> None:
        with pytest.raises(StrategyError, match="Hurries has orders or a position before its first bar"):
            WalkForward(train_size=20, test_size=10).run(Hurries, walk(50))


class Rests(bt.Strategy):
    """Leave an order to buy below the market."""

    def next(self) -> None:
        if not self.position and not self.broker.get_orders_open():
            self.buy(exectype=bt.Order.Limit, price=7.0, size=1)


class Signals(bt.SignalStrategy):
    """Long above a short mean."""

    def __init__(self) -> None:
        self.signal_add(bt.SIGNAL_LONG, self.data.close - bt.ind.SMA(period=3))


class Hurries(bt.Strategy):
    """Order before there is a bar to decide at."""

    def __init__(self) -> None:
        self.mean = bt.ind.SMA(period=5)

    def start(self) -> None:
        self.buy(exectype=bt.Order.Limit, price=0.01, size=1)

    def next(self) -> None:
        """Do nothing more."""


class TestBoundaries:
    @pytest.mark.parametrize(("calibration", "k"), [("grid", 2), ("none", 1), ("train", 2), ("train", 0)])
    def test_nothing_after_the_train_influences_the_choice(
        self, cross: str, calibration: str, k: int
    ) -> None:
        grid = {**GRID, "gate.advisor.calibration": [calibration]}
        one = SPLIT.run(cross, BARS, gate=QUICK, grid=grid)
        stop = one.folds[k].fold.train.stop
        two = SPLIT.run(cross, changed(BARS, slice(stop, None)), gate=QUICK, grid=grid)
        for before, after in zip(one.folds[: k + 1], two.folds[: k + 1], strict=True):
            assert (before.chosen, before.scores, before.prior) == (after.chosen, after.scores, after.prior)
            assert before.in_sample == after.in_sample
        assert one.folds[k].out_of_sample != two.folds[k].out_of_sample
        assert one.folds[-1].scores != two.folds[-1].scores

    def test_truncation_changes_nothing_before_it(self, cross: str) -> None:
        whole = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID)
        part = SPLIT.run(cross, BARS.iloc[:200], gate=QUICK, grid=GRID)
        n = len(part.folds)
        assert n == 3 < len(whole.folds)
        assert [f.scores for f in part.folds] == [f.scores for f in whole.folds[:n]]
        pd.testing.assert_series_equal(part.equity, whole.equity.iloc[: len(part.equity)], check_exact=True)

    def test_bars_before_the_warm_up_do_not_reach_the_test(self, cross: str) -> None:
        one = SPLIT.run(cross, BARS, gate=QUICK)
        start = one.folds[0].fold.test.start
        beyond = changed(BARS, slice(0, start - one.warm_up + 1))
        two = SPLIT.run(cross, beyond, gate=QUICK)
        np.testing.assert_array_equal(one.equity.iloc[:40], two.equity.iloc[:40])
        assert one.folds[0].in_sample != two.folds[0].in_sample

    def test_bars_of_the_warm_up_reach_the_test_through_indicators(self, cross: str) -> None:
        one = SPLIT.run(cross, BARS)
        start = one.folds[0].fold.test.start
        within = changed(BARS, slice(start - one.warm_up + 1, start))
        assert not np.array_equal(one.equity.iloc[:40], SPLIT.run(cross, within).equity.iloc[:40])

    def test_bars_of_the_warm_up_reach_the_test_through_nothing_else(self) -> None:
        split = dataclasses.replace(SPLIT, warm_up=30)  # more than Holds, which has no indicator, needs
        one, two = split.run(Holds, BARS), split.run(Holds, changed(BARS, slice(0, 80)))
        np.testing.assert_array_equal(one.equity.iloc[:40], two.equity.iloc[:40])

    def test_purged_bars_are_not_trained_on(self, cross: str) -> None:
        split = WalkForward(train_size=80, test_size=40, purged_size=5)
        one = split.run(cross, BARS, gate=QUICK, grid=GRID)
        assert one.folds[0].fold.test.start - one.folds[0].fold.train.stop == 5
        two = split.run(cross, changed(BARS, slice(80, None)), gate=QUICK, grid=GRID)
        assert one.folds[0].scores == two.folds[0].scores

    def test_embargoed_bars_do_not_count(self, cross: str, tmp_path: Path) -> None:
        split = WalkForward(train_size=80, test_size=40, embargo=10)
        result = split.run(cross, BARS, grid={"fast": [2]}, output=tmp_path)
        fold = result.folds[2].fold
        assert fold.embargoed == (slice(120, 130), slice(160, 160 + 0)) or fold.embargoed == (
            slice(120, 130),
        )
        with TrialLedger(tmp_path / LEDGER) as ledger:
            records = {json.loads(r.description)["train"][0]: r for r in ledger.records()}
        equity = records[fold.train_start.isoformat()].outcome.equity
        returns = pd.Series(equity).pct_change().to_numpy()
        positions = np.arange(fold.train.start, fold.train.stop)
        kept = [r for p, r in zip(positions[1:], returns[1:], strict=True) if not 120 <= p < 130]
        mean = float(np.mean(kept)) * result.metrics["annual_return"] / float(result.returns.mean())
        assert len(kept) == 69
        assert result.folds[2].in_sample["annual_return"] == pytest.approx(mean)


class TestChoice:
    def test_the_best_score_wins_and_ties_go_to_the_first(self) -> None:
        def figures(sharpe: float, trades: int = 5, drawdown: float = 0.1) -> dict[str, float]:
            return {"sharpe": sharpe, "trades": float(trades), "max_drawdown": drawdown}

        nan = float("nan")
        assert best_of([figures(1), figures(3), figures(3)], Metric.SHARPE, 1) == 1
        assert best_of([figures(nan), figures(-2)], Metric.SHARPE, 1) == 1
        assert best_of([figures(9, trades=2), figures(-1)], Metric.SHARPE, 3) == 1
        assert best_of([figures(1, trades=0), figures(2, trades=0)], Metric.SHARPE, 1) == 1
        assert best_of([figures(nan, 0), figures(nan, 0)], Metric.SHARPE, 1) == 0
        assert best_of([figures(1, drawdown=0.3), figures(1, drawdown=0.2)], Metric.MAX_DRAWDOWN, 1) == 1
        assert best_of([figures(-np.inf), figures(nan)], Metric.SHARPE, 1) == 0

    def test_the_choice_is_that_of_the_scores(self, cross: str) -> None:
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, metric="return", min_trades=0)
        for fold in result.folds:
            assert fold.chosen == int(np.argmax(fold.scores))
            assert fold.settings == result.combinations[fold.chosen]
            assert fold.in_sample["return"] == max(fold.scores)

    def test_the_order_of_the_grid_does_not_matter(self, cross: str) -> None:
        turned = dict(reversed(GRID.items()))
        same(SPLIT.run(cross, BARS, gate=QUICK, grid=GRID), SPLIT.run(cross, BARS, gate=QUICK, grid=turned))

    def test_values_of_numpy_are_tried_as_pythons_own(self, cross: str) -> None:
        grid = {"fast": np.arange(2, 4), "gate.min_confidence": np.array([0.0, 0.5])}
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=grid, params={"slow": np.int64(8)})
        assert result.to_dict()["folds"][0]["settings"]["slow"] == 8
        assert {type(value) for value in result.combinations[0].values()} == {int, float}
        with pytest.raises(ConfigError, match="expected each value once"):
            SPLIT.run(cross, BARS, grid={"fast": [5, np.int64(5)]})

    def test_constraints_leave_combinations_out(self, cross: str) -> None:
        grid = {"fast": [4, 8], "slow": [8, 12], "gate.min_confidence": [0.0]}
        constraints = ["fast < slow", "gate.min_confidence <= 0.5"]
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=grid, constraints=constraints)
        pairs = [(s["fast"], s["slow"]) for s in result.combinations]
        assert pairs == [(4, 8), (4, 12), (8, 12)]
        with pytest.raises(ConfigError, match="leave no combination"):
            SPLIT.run(cross, BARS, grid={"fast": [4]}, constraints=["fast > slow"])

    def test_models_and_templates_can_be_searched(self, cross: str) -> None:
        grid = {"gate.advisor.model": ["scripted:trend", "scripted:contrarian"]}
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=grid)
        assert {len(set(fold.scores)) for fold in result.folds} == {2}
        assert result.n_trials == 2


class TestAnyStrategy:
    def test_orders_are_judged_where_no_gate_is_attached(self) -> None:
        plain, opened, shut = (
            SPLIT.run(Holds, BARS, gate=gate) for gate in (None, AlwaysOpen(), NeverOpen())
        )
        same(plain, opened)
        assert len(plain.trades) == len(plain.folds)
        assert shut.trades.empty


class TestTrainPrior:
    def test_it_is_the_mean_of_the_raw_verdicts_over_the_train(self, cross: str) -> None:
        params = {"gate.advisor.calibration": "train"}
        result = SPLIT.run(cross, BARS, gate=QUICK, params=params)
        raw = dataclasses.replace(QUICK.advisor, calibration="none")
        for number, fold in enumerate(result.folds):
            first = max(fold.fold.train.start, result.warm_up - 1)
            seen = BARS.iloc[first - result.warm_up + 1 : fold.fold.train.stop]
            advice = build(lambda s: QuickAdvice(s.data, advisor=raw), seen)
            bars = slice(result.warm_up - 1, None)
            assert fold.prior is not None
            for label in ("bullish", "neutral", "bearish"):
                mean = np.mean(np.array(getattr(advice.lines, label).array)[bars])
                assert fold.prior.to_dict()[label] == pytest.approx(mean, abs=1e-12)
            assert len(seen) - result.warm_up + 1 == (80 if number else 81 - result.warm_up)

    def test_it_is_what_the_trials_are_calibrated_with(self, cross: str, jobs: list[Any]) -> None:
        grid = {"gate.advisor.calibration": ["none", "train"]}
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=grid)
        priors = [job.params["gate"].advisor.calibration for job in jobs]
        assert priors[::2] == ["none"] * len(result.folds)
        assert len({repr(prior) for prior in priors[1::2]}) == len(result.folds)
        chosen = [fold for fold in result.folds if fold.settings["gate.advisor.calibration"] == "train"]
        assert all(fold.prior is not None for fold in chosen)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the jobs that are run."""
    kept: list[Any] = []
    run_jobs = _search.run_jobs

    def keeping(found: list[Any], *rest: Any) -> Any:
        kept.extend(found)
        return run_jobs(found, *rest)

    monkeypatch.setattr(_search, "run_jobs", keeping)
    return kept


class TestAsking:
    def test_the_parent_asks_each_prompt_once_and_workers_replay(
        self, cross: str, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        score = ScriptedBackend._score

        def counting(self: ScriptedBackend, text: str, n_labels: int) -> Any:
            asked.append(text)
            return score(self, text, n_labels)

        monkeypatch.setattr(ScriptedBackend, "_score", counting)
        answered: list[tuple[int, int]] = []
        raw = Gate(advisor=AdvisorConfig(model="scripted:random", calibration="none"), indicator=QuickAdvice)
        SPLIT.run(cross, BARS, gate=raw, grid=GRID, on_prompts=lambda *x: answered.append(x))
        assert len(asked) == len(set(asked)) == answered[-1][0]
        assert 0 < len(asked) < 105
        assert {job.params["gate"].advisor.cache_mode for job in jobs} == {CacheMode.REPLAY}

    def test_cache_mode_off_stores_nothing(self, cross: str) -> None:
        off = dataclasses.replace(QUICK, advisor=dataclasses.replace(QUICK.advisor, cache_mode="off"))
        kept = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID)
        folder = VerdictCache().directory
        before = sorted(folder.iterdir())
        same(kept, SPLIT.run(cross, BARS, gate=off, grid=GRID))
        assert sorted(folder.iterdir()) == before
        assert VerdictCache().stats().verdicts == 105

    def test_replay_needs_no_more_than_the_cache(self, cross: str) -> None:
        kept = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID)
        advisor = dataclasses.replace(QUICK.advisor, cache_mode="replay")
        same(kept, SPLIT.run(cross, BARS, gate=dataclasses.replace(QUICK, advisor=advisor), grid=GRID))

    def test_an_indicator_with_its_own_advise_is_left_alone(self, cross: str, jobs: list[Any]) -> None:
        gate = dataclasses.replace(QUICK, indicator=Stubborn)
        result = SPLIT.run(cross, BARS, gate=gate)
        assert {job.params["gate"].advisor.cache_mode for job in jobs} == {None}
        assert len(result.folds) == 4

    def test_other_gates_run_as_they_are(self, cross: str) -> None:
        opened = SPLIT.run(cross, BARS, gate=AlwaysOpen(warm_up=16))
        assert opened.warm_up == 16
        fixed = SPLIT.run(cross, BARS, gate=AlwaysOpen(), grid={"gate.warm_up": [0, 20]})
        assert fixed.warm_up == 20


class Stubborn(QuickAdvice):
    """An advice that asks nobody."""

    def advise(self, cells: Any) -> list[Any]:
        return [
            Advisor(AdvisorConfig(model="scripted:bullish", cache_mode="off")).raw_cells([c])[0]
            for c in cells
        ]


class TestWorkers:
    def test_two_give_what_one_gives(self, cross: str, tmp_path: Path) -> None:
        grid = {**GRID, "gate.advisor.calibration": ["grid", "train"]}
        done: list[tuple[int, int]] = []
        one = SPLIT.run(cross, BARS, gate=QUICK, grid=grid, output=tmp_path / "one")
        two = SPLIT.run(
            cross,
            BARS,
            gate=QUICK,
            grid=grid,
            output=tmp_path / "two",
            n_jobs=2,
            on_progress=lambda *x: done.append(x),
        )
        same(one, two)
        assert done == [(i, 32) for i in range(33)]
        with TrialLedger(tmp_path / "one" / LEDGER) as a, TrialLedger(tmp_path / "two" / LEDGER) as b:
            assert a.records() == b.records()
            assert len(a) == 32

    def test_several_need_joblib(self, cross: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "joblib", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'bt-llm\[research\]'"):
            SPLIT.run(cross, BARS, n_jobs=2)

    @pytest.mark.parametrize("n_jobs", [0, -2, 1.5, True])
    def test_a_number_of_jobs_is_checked(self, cross: str, n_jobs: Any) -> None:
        with pytest.raises(ConfigError, match="n_jobs="):
            SPLIT.run(cross, BARS, n_jobs=n_jobs)


class Interrupted(bt.Strategy):
    """Press Ctrl-C in the middle of the trial that is one too many."""

    budget = 10**9
    params = (("gate", None), ("period", 3), ("other", 0))

    def __init__(self) -> None:
        self.mean = bt.ind.SMA(period=self.p.period)
        self.gate = attach_gate(self.p.gate, self)

    def nextstart(self) -> None:
        if Interrupted.budget == 0:
            raise KeyboardInterrupt
        Interrupted.budget -= 1
        self.next()

    def next(self) -> None:
        if not self.position and self.data.close[0] > self.mean[0] and self.gate.allows_long():
            self.buy()
        elif self.position and self.data.close[0] < self.mean[0]:
            self.close()


class Reads(bt.Strategy):
    """Trade as often as a file says."""

    params = (("file", ""),)

    def next(self) -> None:
        file = Path(str(self.p.file))
        every = int(file.read_text(encoding="utf-8")) if file.is_file() else 5
        if len(self) % every == 0:
            _ = self.close() if self.position else self.buy()


class TestLedger:
    def test_an_interrupted_search_goes_on_where_it_was(self, tmp_path: Path) -> None:
        grid = {"period": [2, 3, 5], "other": [0, 1]}
        whole = SPLIT.run(Interrupted, BARS, grid=grid)
        assert whole.trials_run == 24
        Interrupted.budget = 10
        with pytest.raises(KeyboardInterrupt):
            SPLIT.run(Interrupted, BARS, grid=grid, output=tmp_path)
        Interrupted.budget = 10**9
        with TrialLedger(tmp_path / LEDGER) as ledger:
            assert len(ledger) == 10
        done: list[tuple[int, int]] = []
        again = SPLIT.run(
            Interrupted, BARS, grid=grid, output=tmp_path, on_progress=lambda *x: done.append(x)
        )
        assert (again.trials_run, again.n_trials) == (14, 6)
        assert done[0] == (10, 24)
        same(whole, again)

    def test_a_killed_search_goes_on_where_it_was(self, tmp_path: Path) -> None:
        source = CROSS.replace(
            "    def next(self):",
            "    def nextstart(self):\n"
            "        import os, pathlib, signal\n"
            "        if self.p.slow == 12 and pathlib.Path(__file__).with_name('kill').exists():\n"
            "            os.kill(os.getpid(), signal.SIGKILL)\n"
            "        self.next()\n\n    def next(self):",
            1,
        )
        (tmp_path / "cross.py").write_text(source, encoding="utf-8")
        (tmp_path / "kill").touch()
        BARS.to_csv(tmp_path / "bars.csv", index_label="time")
        script = (
            "from bt_llm.research import WalkForward\n"
            "r = WalkForward(train_size=80, test_size=40).run('cross.py:Cross', 'bars.csv', output='out',\n"
            "    grid={'slow': [8, 9, 12]})\n"
            "print(r.trials_run, r.n_trials, r.metrics['final_value'])\n"
        )
        command = [sys.executable, "-c", script]
        killed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL
        (tmp_path / "kill").unlink()
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        trials_run, n_trials, value = ran.stdout.split()
        assert (int(trials_run), int(n_trials)) == (10, 3)  # two of the first fold's three were done
        fresh = SPLIT.run(f"{tmp_path / 'cross.py'}:Cross", tmp_path / "bars.csv", grid={"slow": [8, 9, 12]})
        assert float(value) == fresh.metrics["final_value"]

    def test_nothing_is_counted_twice(self, cross: str, tmp_path: Path) -> None:
        first = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, output=tmp_path)
        assert (first.trials_run, first.n_trials) == (16, 4)
        # Another metric, a default written out, another name of the cache folder: the same trials.
        advisor = dataclasses.replace(QUICK.advisor, cache_dir=os.environ["BT_LLM_CACHE_DIR"])
        gate = dataclasses.replace(QUICK, advisor=advisor)
        again = SPLIT.run(
            cross,
            BARS,
            gate=gate,
            grid=GRID,
            params={"gate.min_confidence": 0.0},
            metric="return",
            output=tmp_path,
        )
        assert (again.trials_run, again.n_trials) == (0, 4)

    def test_whatever_changes_an_outcome_makes_another_trial(self, cross: str, tmp_path: Path) -> None:
        def run(gate: Gate = QUICK, bars: pd.DataFrame = BARS, **settings: Any) -> WalkForwardResult:
            return SPLIT.run(cross, bars, gate=gate, output=tmp_path, **settings)

        run()
        other = dataclasses.replace(QUICK.advisor, model="scripted:trend")
        assert run(dataclasses.replace(QUICK, advisor=other)).n_trials == 2
        assert run(commission=0.001).n_trials == 3
        assert run(params={"gate.advisor.calibration": "train"}).n_trials == 4
        assert run(dataclasses.replace(QUICK, require="not_against")).n_trials == 5
        named = BARS.copy()
        named.attrs["name"] = "other"
        assert run(bars=named).trials_run == 0  # what the bars are called changes nothing
        assert run(bars=changed(BARS, slice(0, 1))).n_trials == 6
        path = Path(cross.rpartition(":")[0])
        path.write_text(CROSS + "\n# changed\n", encoding="utf-8")
        assert run().n_trials == 7

    def test_a_neighbour_that_changed_makes_another_trial(self, tmp_path: Path) -> None:
        helper, spec = tmp_path / "rules.py", f"{tmp_path / 'cross.py'}:Cross"
        source = CROSS.replace("import backtrader as bt", "import backtrader as bt\nfrom rules import wants")
        source = source.replace("self.cross[0] > 0 and not", "wants(self.cross[0]) and not")
        (tmp_path / "cross.py").write_text(source, encoding="utf-8")
        helper.write_text("def wants(cross):\n    return cross > 0\n", encoding="utf-8")
        first = SPLIT.run(spec, BARS, output=tmp_path / "out")
        assert first.n_trials == 1
        helper.write_text("def wants(cross):\n    return True\n", encoding="utf-8")
        second = SPLIT.run(spec, BARS, output=tmp_path / "out")
        assert (second.trials_run, second.n_trials) == (4, 2)
        same(second, SPLIT.run(spec, BARS, output=tmp_path / "out"))
        assert second.equity.tolist() != first.equity.tolist()

    def test_a_file_given_by_its_path_is_its_content(self, tmp_path: Path) -> None:
        one, two = tmp_path / "one.txt", tmp_path / "two.txt"
        for path in (one, two):
            path.write_text("2", encoding="utf-8")

        def run(path: Any) -> int:
            return SPLIT.run(Reads, BARS, params={"file": path}, output=tmp_path / "out").n_trials

        assert [run(one), run(str(two)), run(str(one))] == [1, 1, 1]
        two.write_text("3", encoding="utf-8")
        assert [run(str(two)), run(two), run(one)] == [2, 2, 2]
        assert run("a word") == 3
        assert [run(("x", [str(one)])), run(("x", [one])), run(("x", ["2"]))] == [4, 4, 5]
        with pytest.raises(ConfigError, match=r"'file': file .* cannot be read"):
            run(tmp_path / "absent.txt")

    def test_other_bars_of_the_same_name_are_other_trials(self, cross: str, tmp_path: Path) -> None:
        counts = [
            SPLIT.run(cross, walk(260, seed=seed), grid={"fast": [2, 4]}, output=tmp_path).n_trials
            for seed in (1, 2, 1)
        ]
        assert counts == [2, 4, 4]

    def test_equal_accounts_are_one(self, cross: str, tmp_path: Path) -> None:
        for cash in (10_000, np.int64(10_000), 10_000.0):
            account = {"cash": cash, "commission": np.float64(0.0), "min_trades": np.int32(1)}
            result = SPLIT.run(cross, BARS, **account, output=tmp_path)
        assert (result.trials_run, result.n_trials) == (0, 1)

    def test_more_bars_need_only_the_new_folds(self, cross: str, tmp_path: Path) -> None:
        SPLIT.run(cross, BARS.iloc[:200], gate=QUICK, grid=GRID, output=tmp_path)
        more = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, output=tmp_path)
        assert (more.trials_run, more.n_trials) == (4, 4)

    def test_every_trial_ever_tried_deflates_the_result(self, cross: str, tmp_path: Path) -> None:
        one = SPLIT.run(cross, BARS, grid={"fast": [2, 3]}, output=tmp_path)
        SPLIT.run(cross, BARS, grid={"slow": list(range(6, 26))}, output=tmp_path)
        two = SPLIT.run(cross, BARS, grid={"fast": [2, 3]}, output=tmp_path)
        assert (one.n_trials, two.n_trials) == (2, 21)  # fast 3 and slow 8 is in both
        assert two.probabilistic_sharpe == one.probabilistic_sharpe
        assert two.deflated_sharpe < one.deflated_sharpe


class TestStatistics:
    def test_figures_by_hand(self) -> None:
        outcome = TrialOutcome(
            equity=np.array([100.0, 110.0, 99.0, 108.9]), trades=2, wins=1, held=3, traded=208.95
        )
        returns = returns_of(outcome.equity)
        assert returns == pytest.approx([0.1, -0.1, 0.1])
        found = measure(outcome, returns, periods_per_year=12.0)
        assert found["final_value"] == 108.9
        assert found["return"] == pytest.approx(0.089)
        assert found["annual_return"] == pytest.approx(0.1 / 3 * 12)
        assert found["max_drawdown"] == pytest.approx(0.1)
        assert (found["win_rate"], found["exposure"]) == (0.5, 0.75)
        assert found["turnover"] == pytest.approx(208.95 / 104.475)
        assert found["sharpe"] == pytest.approx(0.1 / 3 / np.std([0.1, -0.1, 0.1], ddof=1) * 12**0.5)

    def test_ruin_is_a_loss_of_all_once(self) -> None:
        assert returns_of(np.array([100.0, 50.0, -5.0, 20.0])).tolist() == [-0.5, -1.0, 0.0]
        assert returns_of(np.array([100.0])).tolist() == []

    def test_deflated_and_overfitting_are_those_of_the_trials(self, cross: str, tmp_path: Path) -> None:
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, output=tmp_path)
        with TrialLedger(tmp_path / LEDGER) as ledger:
            records = ledger.records()
        index = {time.isoformat(): i for i, time in enumerate(BARS.index)}
        by_configuration: dict[str, np.ndarray] = {}
        sharpes: dict[str, list[float]] = {}
        for record in records:
            start = index[json.loads(record.description)["train"][0]]
            column = by_configuration.setdefault(record.configuration, np.full((len(BARS), 4), np.nan))
            fold = next(f.fold.number for f in result.folds if max(f.fold.train.start, 15) == start) - 1
            returns = record.outcome.equity[1:] / record.outcome.equity[:-1] - 1.0
            column[start + 1 : start + 1 + len(returns), fold] = returns
            sharpes.setdefault(record.configuration, []).append(statistics.sharpe_ratio(returns))
        # Each bar from the first fold that trains on it.
        first = [pd.DataFrame(column).bfill(axis=1).iloc[:, 0] for column in by_configuration.values()]
        matrix = np.array(first).T[16:200]
        assert not np.isnan(matrix).any()
        pbo = statistics.probability_of_backtest_overfitting(matrix, n_splits=16)
        assert result.overfitting is not None
        assert sorted(result.overfitting.logits) == pytest.approx(sorted(pbo.logits))
        means = [float(pd.Series(ratios).mean()) for ratios in sharpes.values()]  # NaN left out
        expected = statistics.deflated_sharpe_ratio(result.returns.to_numpy(), means)
        assert result.deflated_sharpe == pytest.approx(expected)
        psr = statistics.probabilistic_sharpe_ratio(result.returns.to_numpy())
        assert result.probabilistic_sharpe == pytest.approx(psr)

    def test_efficiency_and_stability(self, cross: str) -> None:
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID)
        inside = np.mean([fold.in_sample["annual_return"] for fold in result.folds])
        assert inside > 0
        assert result.efficiency == pytest.approx(result.metrics["annual_return"] / inside)
        assert [one.name for one in result.stability] == ["fast", "gate.require"]
        for one in result.stability:
            chosen = [fold.settings[one.name] for fold in result.folds]
            assert list(one.chosen) == chosen
            assert one.share == max(chosen.count(value) for value in chosen) / 4
            assert one.changes == sum(chosen[i] != chosen[i - 1] for i in range(1, 4))
            assert one.values == 2

    def test_one_combination_has_nothing_to_overfit(self, cross: str) -> None:
        result = SPLIT.run(cross, BARS)
        assert result.overfitting is None
        assert result.deflated_sharpe == result.probabilistic_sharpe
        assert result.stability == ()

    def test_a_strategy_that_never_trades_has_no_figures(self) -> None:
        result = SPLIT.run(Watches, BARS, grid={"period": [3, 4]})
        assert np.isnan(result.deflated_sharpe)
        assert np.isnan(result.efficiency)
        assert [fold.chosen for fold in result.folds] == [0, 0, 0, 0]
        assert result.trades.empty
        assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["out_of_sample"]["sharpe"] is None


class TestResult:
    def test_folds_are_rows(self, cross: str) -> None:
        frame = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID).to_frame()
        assert list(frame.index) == [1, 2, 3, 4]
        assert frame.loc[2, "test_start"] == BARS.index[120]
        assert {"fast", "gate.require", "in_sharpe", "out_return", "efficiency"} <= set(frame.columns)

    def test_files_are_the_same_each_time(self, cross: str, tmp_path: Path) -> None:
        for name in ("a", "b"):
            SPLIT.run(cross, BARS, gate=QUICK, grid=GRID).save(tmp_path / name)
        names = ["equity.csv", "folds.csv", "result.json", "trades.csv", "verdicts.csv"]
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
        for name in names:
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        equity = pd.read_csv(tmp_path / "a" / "equity.csv")
        assert len(equity) == 160

    def test_results_are_replaced_and_no_file_of_anybody_else(self, cross: str, tmp_path: Path) -> None:
        result = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID)
        folder = tmp_path / "out"
        for _ in range(2):
            result.save(folder)
        for path in folder.iterdir():
            kept = path.read_bytes()
            path.write_text("my own", encoding="utf-8")
            with pytest.raises(ConfigError, match=f"bt_llm has not written: {path.name}"):
                result.save(folder)
            assert path.read_text(encoding="utf-8") == "my own"
            path.write_bytes(kept)

    def test_folds_are_drawn(self, cross: str) -> None:
        lines = SPLIT.run(cross, BARS).diagram(70).splitlines()
        assert len(lines) == 5
        assert lines[1].endswith("2020-03-21 to 2020-04-29")

    def test_calendar_spans(self, cross: str) -> None:
        result = WalkForward(train_size="2MS", test_size="1MS", expand_train=True).run(cross, BARS)
        assert [f"{f.fold.test_start:%m-%d}" for f in result.folds] == [
            "03-01", "04-01", "05-01", "06-01", "07-01", "08-01",
        ]  # fmt: skip
        assert {fold.fold.train.start for fold in result.folds} == {0}


def bad(match: str, **settings: Any) -> Any:
    return pytest.param(settings, match, id=match[:40])


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            bad("'fats' is no parameter of Cross .*did you mean 'fast'", grid={"fats": [1]}),
            bad("did you mean 'gate.require'", grid={"gate.requires": ["agree"]}, gate=QUICK),
            bad("'gate.require' without a gate", grid={"gate.require": ["agree"]}),
            bad("'gate.advisor.cache_dir' is no", grid={"gate.advisor.cache_dir": ["x"]}, gate=QUICK),
            bad("'fast' is in the grid and in params", grid={"fast": [1]}, params={"fast": 2}),
            bad("expected a list of values", grid={"fast": 5}),
            bad("expected a list of values", grid={"fast": []}),
            bad("expected each value once", grid={"fast": [5, 5]}),
            bad("constraint 'fast': expected a name", constraints=["fast"]),
            bad("constraint 'fast < slwo'", constraints=["fast < slwo"]),
            bad("cannot compare 'agree' with 3.0", constraints=["gate.require < 3"], gate=QUICK),
            bad("metric='sharp'.*did you mean 'sharpe'", metric="sharp"),
            bad("min_trades=-1", min_trades=-1),
            bad("cash=0", cash=0),
            bad("commission=2", commission=2),
            bad("require='x'", grid={"gate.require": ["x"]}, gate=QUICK),
        ],
    )
    def test_settings(self, cross: str, settings: dict[str, Any], match: str) -> None:
        with pytest.raises((ConfigError, StrategyError), match=match):
            SPLIT.run(cross, BARS, **settings)

    def test_a_value_needs_a_written_form(self) -> None:
        with pytest.raises(ConfigError, match=r"'side'=<object .* of type object cannot be written down"):
            SPLIT.run(Holds, BARS, params={"side": object()})

    def test_windows(self, cross: str) -> None:
        with pytest.raises(ConfigError, match=r"warm_up=5: Cross needs 9 bars"):
            WalkForward(train_size=80, test_size=40, warm_up=5).run(cross, BARS)
        with pytest.raises(ConfigError, match=r"warm-up of 9 leaves 2: expected at least 4; lengthen"):
            WalkForward(train_size=10, test_size=40).run(cross, BARS)
        with pytest.raises(ConfigError, match="warm_up=0"):
            WalkForward(train_size=10, test_size=40, warm_up=0)

    def test_a_strategy_that_knows_of_no_gate_has_its_orders_judged(self) -> None:
        found = SPLIT.run(Holds, BARS, gate=NeverOpen())
        assert len(found.trades) == 0
        assert found.metrics["exposure"] == 0.0

    @pytest.mark.parametrize("how", ["at start", "later"])
    def test_a_failing_strategy_says_with_what(self, tmp_path: Path, how: str) -> None:
        broken = {
            "at start": ("        self.gate =", "        1 / 0\n        self.gate ="),
            "later": ("        if self.cross[0] < 0", "        1 / 0\n        if self.cross[0] < 0"),
        }
        (tmp_path / "cross.py").write_text(CROSS.replace(*broken[how], 1), encoding="utf-8")
        with pytest.raises(StrategyError, match=r"Cross failed with fast=2: ZeroDivisionError"):
            SPLIT.run(f"{tmp_path / 'cross.py'}:Cross", BARS, grid={"fast": [2]})

    def test_a_strategy_that_skips_itself(self, tmp_path: Path) -> None:
        source = CROSS.replace(
            "        self.gate =", "        raise bt.StrategySkipError\n        self.gate ="
        )
        (tmp_path / "cross.py").write_text(source, encoding="utf-8")
        with pytest.raises(StrategyError, match=r"Cross skipped itself with its defaults"):
            SPLIT.run(f"{tmp_path / 'cross.py'}:Cross", BARS)


class TestDescriptions:
    """What goes into a trial's key."""

    def test_settings_that_json_does_not_know(self) -> None:
        grid = {"gate.indicator": [QuickAdvice, Stubborn], "gate.require": ["agree"]}
        result = SPLIT.run(Interrupted, BARS, gate=QUICK, grid=grid, params={"other": (1, 2)})
        settings = json.loads(json.dumps(result.to_dict(), allow_nan=False))["folds"][0]["settings"]
        assert settings["other"] == [1, 2]
        assert settings["gate.indicator"].endswith(("QuickAdvice'>", "Stubborn'>"))

    def test_constraints_see_defaults(self, cross: str) -> None:
        constraints = ["gate.advisor.reader == gate.advisor.reader", "gate.require == gate.require"]
        assert len(SPLIT.run(cross, BARS, gate=QUICK, constraints=constraints).combinations) == 1


def test_timers_stay_within_the_window() -> None:
    Timed.rung.clear()
    WalkForward(train_size=10, test_size=6).run(Timed, walk(16))
    days = [dt.date(2020, 1, 1) + dt.timedelta(i) for i in (*range(4, 8), *range(10, 14))]
    assert sorted(set(Timed.rung)) == days


class Timed(bt.Strategy):
    """Have a timer."""

    rung: list[dt.date] = []  # noqa: RUF012 - what is asserted on

    def __init__(self) -> None:
        self.mean = bt.ind.SMA(period=5)
        self.add_timer(bt.Timer.SESSION_START)

    def notify_timer(self, timer: Any, when: Any, *args: Any, **kwargs: Any) -> None:
        self.rung.append(self.data.datetime.date(0))

    def next(self) -> None:
        """Do nothing."""


def test_a_folder_is_made_only_for_answers_that_are_stored_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a search that is killed leaves none behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    market = Market.of(walk(200))
    for mode, made in (("record", 0), ("off", 1)):
        config = AdvisorConfig(model="scripted:trend", cache_mode=mode, cache_dir=tmp_path.parent / "kept")
        with open_desk(market, []) as desk:
            desk.ask([(Gate(advisor=config), False)])
            assert len(list(tmp_path.iterdir())) == made
        assert list(tmp_path.iterdir()) == []
