"""The engine: windows, what strategies print and raise, and any shape of strategy."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from bt_llm import Gate, Market, Setup, run_backtest
from bt_llm.backtest import Window, run_strategy, warm_up_of
from bt_llm.exceptions import ConfigError, StrategyError
from bt_llm.gates import attached_gates
from bt_llm.research import WalkForward, compare_models, gate_test, perturbation_check
from tests.engines import TREND, QuickAdvice, walk
from tests.market_cases import ENGINES, ExitsBySell, Pair, Rotates, write_strategies

QUICK = Gate(advisor=TREND, indicator=QuickAdvice, require="not_against")
OLD, YOUNG = walk(120, seed=1), walk(60, seed=2, start="2020-03-01")
MARKET = Market.of({"old": OLD, "young": YOUNG})


class TestPrinting:
    def test_what_a_strategy_prints_goes_to_standard_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Talks(ExitsBySell):
            def next(self) -> None:
                print("close", self.data.close[0])  # noqa: T201
                super().next()

        run_backtest(Talks, OLD)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("close") == 115


class Collects(bt.Strategy):
    """Puts what it has seen into its parameters, and buys by how much that is."""

    params = (("seen", []), ("levels", None))

    def next(self) -> None:
        self.p.seen.append(len(self))
        self.p.levels["low"].append(self.data.low[0])
        if len(self) % 40 == 5:
            self.buy(size=len(self.p.seen) + len(self.p.levels["low"]))


class TestRuns:
    def test_what_one_has_put_into_its_parameters_no_other_finds(self) -> None:
        given: dict[str, list[float]] = {"low": []}
        sizes = [
            run_backtest(Collects, OLD, params={"levels": given}, cash=1e6).fills["size"].tolist()
            for _ in range(2)
        ]
        assert sizes == [[10.0, 90.0, 170.0]] * 2
        assert (given, Collects.params.seen) == ({"low": []}, [])


class TestErrors:
    def test_the_users_own_line_is_named_and_the_cause_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "broken.py"
        path.write_text(
            "import backtrader as bt\n\n\nclass Broken(bt.Strategy):\n    params = (('x', 3),)\n\n"
            "    def next(self):\n        1 / (len(self) - 7)\n",
            encoding="utf-8",
        )
        with pytest.raises(StrategyError) as caught:
            run_backtest(f"{path}:Broken", OLD, params={"x": 4})
        assert str(caught.value) == (
            "Broken failed with x=4: ZeroDivisionError: division by zero (broken.py, line 8)"
        )
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_one_that_skips_itself_says_so(self) -> None:
        class Skips(bt.Strategy):
            def __init__(self) -> None:
                raise bt.StrategySkipError

        with pytest.raises(StrategyError, match="Skips skipped itself with its defaults"):
            run_backtest(Skips, OLD)


class TestWindows:
    window = Window(start=50, first=65, stop=100)

    def run(self, strategy: type[bt.Strategy], market: Market = MARKET, **engine: Any) -> Any:
        return run_strategy(strategy, market, Setup(), {}, window=self.window, **engine)

    def test_whole_runs_and_windows_are_one_engine(self) -> None:
        seen = Market.of(OLD.iloc[60:100])
        whole = run_strategy(ExitsBySell, seen, Setup(), {"period": 6})
        part = run_strategy(
            ExitsBySell, Market.of(OLD), Setup(), {"period": 6}, window=Window(start=60, first=66, stop=100)
        )
        assert part.account.equity[:32] == whole.account.equity[:32]
        assert part.account.orders.keys() != set()

    @pytest.mark.parametrize("engine", ENGINES[:-1])
    def test_several_datas_are_flat_at_its_end(self, engine: dict[str, Any]) -> None:
        ran = self.run(Rotates, **engine)
        account = ran.account
        assert len(account.equity) == 35
        assert list(account.numbers) == MARKET.numbers[65:100].tolist()
        assert {trade.data for trade in account.trades} == {"old", "young"}
        assert not any(position.size for position in ran.strategy.broker.positions.values())
        assert min(fill.time for fill in account.fills) > MARKET.numbers[65]
        assert max(fill.time for fill in account.fills) <= MARKET.numbers[99]

    @pytest.mark.parametrize("stop", [99, 100])
    def test_what_notify_order_sends_at_its_end_does_not_open_anything(self, stop: int) -> None:
        class StopsAfterTheFill(bt.Strategy):
            def notify_order(self, order: Any) -> None:
                if order.status == order.Completed and order.isbuy():
                    self.sell(size=1, exectype=bt.Order.Stop, price=2 * self.data.close[0])

            def next(self) -> None:
                if not self.position:
                    self.buy(size=1)

        window = Window(start=50, first=65, stop=stop)
        ran = run_strategy(StopsAfterTheFill, Market.of(OLD), Setup(), {}, window=window)
        assert len(ran.account.fills) > 20
        assert ran.strategy.position.size == 0

    @pytest.mark.parametrize("wraps", [False, True])
    def test_what_a_strategy_puts_in_the_place_of_its_next_is_held_too(self, wraps: bool) -> None:
        class Swaps(bt.Strategy):
            def __init__(self) -> None:
                bt.ind.SMA(period=12)
                self.seen: list[int] = []
                before = self.next
                self.next = (lambda: before()) if wraps else self.flat

            def next(self) -> None:
                self.held() if self.position else self.flat()

            def flat(self) -> None:
                self.seen.append(len(self))
                self.buy(size=1)
                if not wraps:
                    self.next = self.held

            def held(self) -> None:
                self.seen.append(len(self))

        ran = self.run(Swaps, Market.of(OLD))
        assert ran.strategy.seen == list(range(16, 49))
        assert [fill.size for fill in ran.account.fills] == [1, -1]
        assert ran.strategy.position.size == 0

    def test_a_data_that_is_not_there_yet_does_not_matter(self) -> None:
        ran = run_strategy(Rotates, MARKET, Setup(), {}, window=Window(start=0, first=10, stop=40))
        alone = run_strategy(
            Rotates, Market.of({"old": OLD}), Setup(), {}, window=Window(start=0, first=10, stop=40)
        )
        assert ran.account.equity == alone.account.equity
        assert len(ran.account.trades) > 0

    def test_the_open_is_traded_from_the_bar_after_the_first(self) -> None:
        class AtTheOpen(bt.Strategy):
            opened: list[dt.date] = []  # noqa: RUF012 - what is asserted on

            def next_open(self) -> None:
                self.opened.append(self.data.datetime.date(0))

        setup = Setup(cerebro={"cheat_on_open": True})
        for engine in ({}, {"runonce": False}):
            AtTheOpen.opened.clear()
            run_strategy(AtTheOpen, Market.of(OLD), setup, {}, window=self.window, **engine)
            assert AtTheOpen.opened == [day.date() for day in OLD.index[66:99]]

    def test_a_warm_up_without_an_end_is_refused(self) -> None:
        with pytest.raises(
            ConfigError, match="with period=inf waits for inf bars before it begins: expected"
        ):
            warm_up_of(Rotates, {"period": float("inf"), "gate": None}, MARKET, Setup())

    def test_the_warm_up_is_known_without_a_bar(self) -> None:
        assert warm_up_of(Rotates, {"period": 9, "gate": None}, MARKET, Setup()) == 9
        assert warm_up_of(Rotates, {"gate": QUICK}, MARKET, Setup()) == QUICK.warm_up_bars


class TestSeveralDatasInResearch:
    def test_a_gate_is_tested_over_all_datas_jointly(self) -> None:
        found = gate_test(Rotates, MARKET, QUICK, n=19, resamples=99)
        assert found.shifted is None
        ran = run_strategy(Rotates, MARKET, Setup(), {"gate": QUICK})
        asked = [len(gate.log) for gate in attached_gates(ran.strategy)]
        assert min(asked) > 0
        assert len(found.entries.long) == sum(asked)
        assert len(set(found.random.values("return"))) > 5
        starts = {run.equity.index[0] for run in found.runs.values()}
        assert starts == {OLD.index[QUICK.warm_up_bars - 1]}

    def test_models_are_compared_over_all_datas(self) -> None:
        models = {"trend": "scripted:trend", "other": "scripted:contrarian"}
        found = compare_models(Rotates, MARKET, models, gate=QUICK, resamples=99)
        judged = found.judged["trend"].bars
        assert set(judged.index.get_level_values("data")) == {"old", "young"}
        assert found.scores["trend"].bars == len(judged[judged["outcome"].notna()])
        assert found.table.loc["trend", "trades"] > 0

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_walk_forward_cuts_all_datas(self, n_jobs: int, tmp_path: Path) -> None:
        spec = write_strategies(tmp_path)
        split = WalkForward(train_size=40, test_size=20)
        grid = {"period": [3, 6]}
        result = split.run(f"{spec}:Rotates", MARKET, gate=QUICK, grid=grid, n_jobs=n_jobs)
        assert len(result.equity) == 60 + 20 * (len(result.folds) - 3)
        assert set(result.trades["data"]) == {"old", "young"}
        assert result.settings["data"] == "old, young"
        if n_jobs == 2:
            again = split.run(f"{spec}:Rotates", MARKET, gate=QUICK, grid=grid)
            np.testing.assert_array_equal(again.equity, result.equity)

    def test_a_change_of_the_future_reaches_no_bar_before_it(self) -> None:
        report = perturbation_check(Rotates, MARKET, points=2)
        assert report.clean
        assert report.orders > 0

        class Peeks(Pair):
            def __init__(self) -> None:
                super().__init__()
                self.peek = bt.ind.SMA(self.data1.close(1), period=2)  # tomorrow's close

        both = {"a": OLD, "b": walk(120, seed=9)}
        leaky = perturbation_check(Peeks, both, 100)
        assert not leaky.clean


class TestProblemsOfAStudy:
    split = WalkForward(train_size=40, test_size=20)

    def test_refused_orders_are_named_with_their_fold(self, tmp_path: Path) -> None:
        spec = f"{write_strategies(tmp_path)}:ExitsBySell"
        problems = self.split.run(spec, OLD, percent=100, commission=0.001).problems
        assert any(problem.startswith("fold 1: the broker refused") for problem in problems)
        assert self.split.run(spec, OLD, percent=90).problems == ()

    def test_a_gate_that_is_asked_in_no_fold_is_named_once(self, tmp_path: Path) -> None:
        path = write_strategies(tmp_path)
        path.write_text(
            path.read_text(encoding="utf-8").replace("self.gate.allows_long()", "self.gate.allows_long"),
            encoding="utf-8",
        )
        result = self.split.run(f"{path}:ExitsBySell", OLD, gate=QUICK, percent=50)
        assert result.problems == (
            "the gate was never asked: ExitsBySell made no entry, or does not call allows_long()",
        )
        assert result.to_dict()["problems"] == list(result.problems)

    def test_a_study_in_a_set_up_of_ones_own_goes_to_workers(self, tmp_path: Path) -> None:
        path = write_strategies(tmp_path)
        path.write_text(path.read_text(encoding="utf-8") + FUTURES, encoding="utf-8")
        market = {"a": OLD, "b": walk(120, seed=4)}
        settings = {"setup": f"{path}:futures", "gate": QUICK, "grid": {"period": [5, 8]}}
        one, two = (self.split.run(f"{path}:Pair", market, n_jobs=n_jobs, **settings) for n_jobs in (1, 2))
        np.testing.assert_array_equal(one.equity, two.equity)
        assert one.equity.iloc[0] == 50_000
        assert len(one.trades) > 0
        assert one.settings["setup"] == "futures"


FUTURES = """

def futures(cerebro, market):
    market.add_to(cerebro)
    cerebro.broker.setcash(50_000)
    cerebro.broker.setcommission(commission=2.0, margin=1_000.0, mult=10.0)
"""
