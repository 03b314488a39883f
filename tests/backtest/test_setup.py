"""Set-ups: how an account is opened, by default and by the user's own function."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import Gate, Market, Setup, gate_study, run_backtest
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError, StrategyError
from bt_llm.research._workers import code_sha256
from tests.engines import TREND, QuickAdvice, walk
from tests.market_cases import ENGINES, ByCalendar, ExitsBySell, Pair, flat

FUTURES = """\
import backtrader as bt


def futures(cerebro, market):
    market.add_to(cerebro)
    cerebro.broker.setcash(50_000)
    cerebro.broker.setcommission(commission=2.0, margin=1_000.0, mult=10.0, name="a")
    cerebro.broker.setcommission(commission=1.0, margin=500.0, mult=5.0, name="b")


def weekly(cerebro, market):
    cerebro.adddata(market.feed(), name="days")
    cerebro.resampledata(market.feed(), name="weeks", timeframe=bt.TimeFrame.Weeks)
    cerebro.addsizer(bt.sizers.FixedSize, stake=3)
"""
QUICK = Gate(advisor=TREND, indicator=QuickAdvice, require="not_against")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "setups.py"
    path.write_text(FUTURES, encoding="utf-8")
    return str(path)


class Own(bt.sizers.FixedSize):
    """A sizer of the user's."""


class Given(bt.Sizer):
    """One that is given something besides parameters."""

    def __init__(self, worth: Any) -> None:
        self.worth = worth


class Charged(bt.CommInfoBase):
    """A commission scheme of that kind."""

    def __init__(self, worth: float) -> None:
        super().__init__()
        self.worth = worth


class Opening:
    """An account that a method opens."""

    def __init__(self, worth: float) -> None:
        self.worth = worth

    def open(self, cerebro: bt.Cerebro, _: Market) -> None:
        cerebro.broker.setcash(self.worth)


def opening(worth: float) -> Callable[[bt.Cerebro, Market], None]:
    """Return a set-up that is made in a function."""

    def opened(cerebro: bt.Cerebro, _: Market) -> None:
        cerebro.broker.setcash(worth)

    return opened


class TestDefault:
    def test_an_exit_written_as_sell_closes_the_position(self) -> None:
        bars = load_bars(shipped("sp500_daily.csv"))
        result = run_backtest(bt.strategies.MA_CrossOver, bars)
        # What Backtrader's PercentSizer(95) gives in a Cerebro of one's own.
        assert len(result.trades) == 88
        assert result.final_value == pytest.approx(15_370.16, abs=0.005)
        assert set(result.fills["size"].groupby(np.arange(176) // 2).sum().round(9)) == {0.0}

    def test_a_reversal_of_two_orders_is_an_exit_and_a_whole_entry(self) -> None:
        orders = {2: [("buy", {})], 4: [("close", {}), ("sell", {})]}
        result = run_backtest(ByCalendar, flat([10.0] * 6), params={"orders": orders}, percent=50)
        assert result.fills["size"].tolist() == [500.0, -500.0, -500.0]

    def test_a_short_position_is_bought_back_whole(self) -> None:
        orders = {2: [("sell", {"size": 7})], 4: [("buy", {})]}
        result = run_backtest(ByCalendar, flat([10.0] * 6), params={"orders": orders})
        assert result.fills["size"].tolist() == [-7.0, 7.0]

    def test_there_is_no_share_of_an_account_at_a_price_of_zero(self) -> None:
        bars = flat([10.0, 0.0, -5.0, 10.0])
        orders = {2: [("buy", {})], 3: [("buy", {})]}
        assert run_backtest(ByCalendar, bars, params={"orders": orders}).orders["submitted"] == 0

    @pytest.mark.parametrize("slippage", [0.0001, 0.001, 0.02])
    def test_slippage_is_charged_in_full_beyond_the_range_of_the_bar(self, slippage: float) -> None:
        orders = {2: [("buy", {"size": 10})], 4: [("sell", {"size": 10})]}
        result = run_backtest(ByCalendar, flat([100.0] * 6), params={"orders": orders}, slippage=slippage)
        assert result.fills["price"].tolist() == pytest.approx([100 * (1 + slippage), 100 * (1 - slippage)])
        assert result.final_value == pytest.approx(10_000 - 2 * 10 * 100 * slippage)

    def test_slippage_costs_what_a_commission_of_that_size_costs(self) -> None:
        bars = load_bars(shipped("eurusd_hourly.csv"))[:1500]
        spec = f"{shipped('sma_cross.py')}:GatedSmaCross"
        free, slipped, paid = (
            run_backtest(spec, bars, **costs).final_value
            for costs in ({}, {"slippage": 0.0005}, {"commission": 0.0005})
        )
        assert (free - slipped) / (free - paid) == pytest.approx(1.0, abs=0.01)

    def test_a_sizer_remembers_nothing_of_another_run(self) -> None:
        class Growing(bt.Sizer):
            """One more each time."""

            def __init__(self) -> None:
                self.sent: list[int] = []

            def _getsizing(self, comminfo: Any, cash: float, data: Any, isbuy: bool) -> int:
                self.sent.append(1)
                return len(self.sent)

        sizer, orders = Growing(), {2: [("buy", {})], 3: [("buy", {})]}
        for _ in range(2):
            result = run_backtest(ByCalendar, flat([10.0] * 6), params={"orders": orders}, sizer=sizer)
            assert result.fills["size"].tolist() == [1.0, 2.0]

    @pytest.mark.parametrize(
        "sizer",
        [
            (bt.sizers.FixedSize, {"stake": 3}),
            bt.sizers.FixedSize(stake=3),
        ],
    )
    def test_a_sizer_of_the_users_sizes(self, sizer: Any) -> None:
        orders = {2: [("buy", {})], 4: [("sell", {})]}
        for _ in range(2):  # an instance serves several runs
            result = run_backtest(ByCalendar, flat([10.0] * 6), params={"orders": orders}, sizer=sizer)
            assert result.fills["size"].tolist() == [3.0, -3.0]
        assert result.settings["sizer"] == "FixedSize(stake=3)"
        assert "percent" not in result.settings
        plain = run_backtest(
            ByCalendar, flat([10.0] * 6), params={"orders": orders}, sizer=bt.sizers.FixedSize
        )
        assert plain.fills["size"].tolist() == [1.0, -1.0]

    def test_a_commission_scheme_of_the_users_is_paid(self) -> None:
        class PerShare(bt.CommInfoBase):
            params = (("commission", 0.5), ("commtype", bt.CommInfoBase.COMM_FIXED), ("stocklike", True))

        orders = {2: [("buy", {"size": 10})], 4: [("sell", {"size": 10})]}
        for scheme in (PerShare, PerShare(), PerShare(commission=0.5)):
            result = run_backtest(ByCalendar, flat([10.0] * 6), params={"orders": orders}, commission=scheme)
            assert result.final_value == pytest.approx(10_000 - 2 * 10 * 0.5)
            assert result.fills["commission"].tolist() == [5.0, 5.0]
            assert result.settings["commission"] == "PerShare()"

    def test_cerebro_takes_its_settings(self) -> None:
        class AtTheOpen(bt.Strategy):
            def next_open(self) -> None:
                if len(self.data) == 3:
                    self.buy(size=1)

        bars = walk(10)
        result = run_backtest(AtTheOpen, bars, cerebro={"cheat_on_open": True})
        assert result.fills["price"].tolist() == [bars["open"].iloc[2]]
        assert result.settings["cheat_on_open"] is True

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"sizer": 3}, "sizer=3: expected a Sizer"),
            ({"cerebro": {"cheat_on_opens": True}}, r"no setting 'cheat_on_opens': .*'cheat_on_open'"),
            ({"cerebro": {"runonce": False}}, "'runonce' is an argument of its own"),
            ({"cash": True}, "cash=True"),
            ({"setup": 3}, r"setup=3: expected setup\(cerebro, market\) or file.py:function"),
            ({"setup": lambda cerebro, market: None, "cash": 5.0}, "cash beside a set-up of your own"),
            ({"setup": Setup(), "percent": 50}, "percent beside a Setup"),
        ],
    )
    def test_settings_are_checked(self, settings: dict[str, Any], match: str) -> None:
        with pytest.raises(ConfigError, match=match):
            run_backtest(ExitsBySell, walk(30), **settings)

    def test_numbers_of_numpy_are_numbers(self) -> None:
        assert Setup(cash=np.int64(5), commission=np.float64(0.1)) == Setup(cash=5.0, commission=0.1)


class TestOwn:
    def test_futures_on_two_datas(self, file: str) -> None:
        bars = {"a": walk(60, seed=1), "b": walk(60, seed=2)}
        found = [run_backtest(Pair, bars, setup=f"{file}:futures", **engine) for engine in ENGINES]
        assert len({run.final_value for run in found}) == 1
        result = found[0]
        assert result.settings["cash"] == 50_000
        assert set(result.fills["data"]) == set(result.trades["data"]) == {"a", "b"}
        commission = result.fills.groupby("data")["commission"].first()
        assert commission.to_dict() == {"a": 2.0, "b": 1.0}
        # Ten times what a moved and five times what b moved, less the commissions.
        sizes = {"a": 10.0, "b": 5.0}
        value, held = 50_000 - result.fills["commission"].sum(), {"a": 0.0, "b": 0.0}
        for fill in result.fills.to_dict("records"):
            value -= fill["size"] * fill["price"] * sizes[fill["data"]]
            held[fill["data"]] += fill["size"]
        value += sum(held[name] * sizes[name] * bars[name]["close"].iloc[-1] for name in sizes)
        assert result.final_value == pytest.approx(value)
        traded = sum(
            abs(fill["size"] * fill["price"]) * sizes[fill["data"]]
            for fill in result.fills.to_dict("records")
        )
        assert result.metrics["turnover"] == pytest.approx(traded / result.equity.mean())

    def test_it_may_resample(self, file: str) -> None:
        class ByWeek(bt.Strategy):
            def __init__(self) -> None:
                self.mean = bt.ind.SMA(self.getdatabyname("weeks"), period=3)

            def next(self) -> None:
                if not self.position:
                    self.buy()

        bars = walk(60)
        for engine in ({}, {"runonce": False}, {"preload": False}):
            result = run_backtest(ByWeek, bars, setup=f"{file}:weekly", **engine)
            assert result.fills["size"].tolist() == [3.0]
            assert result.fills["data"].tolist() == ["days"]
            assert result.equity.index[0] == pd.Timestamp("2020-01-19")  # the third Sunday

    def test_what_a_model_said_of_a_data_is_under_its_name_in_whatever_order_it_is_added(self) -> None:
        class EachUp(bt.Strategy):
            def next(self) -> None:
                if len(self) % 10 == 5:
                    for data in self.datas:
                        self.buy(data=data, size=1)

        def backwards(cerebro: bt.Cerebro, market: Market) -> None:
            for name in reversed(list(market)):
                cerebro.adddata(market.feed(name), name=name)

        bars = {"a": walk(60, seed=1), "b": walk(60, seed=2)}
        ordered, turned = (run_backtest(EachUp, bars, gate=QUICK, setup=one) for one in (None, backwards))
        assert list(turned.verdicts) == list(ordered.verdicts) == ["a", "b"]
        assert not ordered.verdicts["a"].equals(ordered.verdicts["b"])
        for name in bars:
            assert turned.verdicts[name].equals(ordered.verdicts[name])

    def test_one_that_adds_no_data_gets_the_markets(self) -> None:
        def rich(cerebro: bt.Cerebro, market: Market) -> None:
            cerebro.broker.setcash(1e6)

        result = run_backtest(ExitsBySell, walk(30), setup=rich)
        assert result.settings["cash"] == 1e6
        assert result.metrics["return"] == result.final_value / 1e6 - 1

    def test_one_that_adds_the_strategy_is_refused(self) -> None:
        def whole(cerebro: bt.Cerebro, market: Market) -> None:
            cerebro.addstrategy(ExitsBySell)

        with pytest.raises(ConfigError, match="set-up whole adds a strategy"):
            run_backtest(ExitsBySell, walk(30), setup=whole)

    def test_one_that_opens_another_account_than_the_one_given_is_refused(self) -> None:
        def other(cerebro: bt.Cerebro, market: Market) -> bt.Cerebro:
            cerebro = bt.Cerebro()
            cerebro.broker.setcash(123.0)
            return cerebro

        def same(cerebro: bt.Cerebro, market: Market) -> bt.Cerebro:
            cerebro.broker.setcash(123.0)
            return cerebro

        with pytest.raises(ConfigError, match="set-up other returns a Cerebro of its own: expected all"):
            run_backtest(ExitsBySell, walk(30), setup=other)
        assert run_backtest(ExitsBySell, walk(30), setup=same).settings["cash"] == 123.0

    def test_one_that_fails_names_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.py"
        path.write_text("def bad(cerebro, market):\n    market['nothing']\n", encoding="utf-8")
        with pytest.raises(StrategyError, match=r"no data 'nothing' in the market.* \(bad.py, line 2\)$"):
            run_backtest(ExitsBySell, walk(30), setup=f"{path}:bad")
        with pytest.raises(StrategyError, match=r"no 'bat' in .*did you mean 'bad'\?"):
            run_backtest(ExitsBySell, walk(30), setup=f"{path}:bat")
        with pytest.raises(StrategyError, match=r"no file 'absent.py': expected path/to/file.py:function"):
            Setup(function="absent.py:f")

    def test_it_travels_as_the_text_of_its_file(self, file: str) -> None:
        setup = Setup(function=f"{file}:futures")
        sent = pickle.dumps(setup)
        assert setup.describe()["setup"] == "futures"
        Path(file).unlink()
        code = (
            "import pickle, sys; setup = pickle.loads(sys.stdin.buffer.read());"
            "import pandas as pd; from bt_llm import Market;"
            "bars = pd.DataFrame({'close': [1.0, 2.0]}, index=pd.date_range('2024', periods=2));"
            "print(setup.open(Market.of({'a': bars, 'b': bars})).broker.startingcash)"
        )
        done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
        assert done.stdout.split() == [b"50000"]

    def test_its_content_follows_its_text(self, file: str) -> None:
        before = Setup(function=f"{file}:futures").content(code_sha256)
        Path(file).write_text(FUTURES.replace("50_000", "60_000"), encoding="utf-8")
        assert Setup(function=f"{file}:futures").content(code_sha256) != before
        assert Setup(sizer=bt.sizers.FixedSize).content(code_sha256)["code"] == {}
        assert set(Setup(sizer=Own, commission=0.1).content(code_sha256)["code"]) == {"sizer"}

    @pytest.mark.parametrize(
        "made",
        [
            lambda worth: Setup(function=opening(worth)),
            lambda worth: Setup(function=Opening(worth).open),
            lambda worth: Setup(sizer=Given(worth)),
            lambda worth: Setup(commission=Charged(worth)),
        ],
        ids=["made in a function", "a method", "a sizer's attribute", "a scheme's attribute"],
    )
    def test_its_content_follows_what_it_was_made_with(self, made: Callable[[float], Setup]) -> None:
        first, again, other = (made(worth).content(code_sha256) for worth in (1.0, 1.0, 2.0))
        assert first == again
        assert first != other

    def test_lambdas_of_one_file_are_told_apart(self) -> None:
        one = Setup(function=lambda cerebro, _: cerebro.broker.setcash(1.0))
        other = Setup(function=lambda cerebro, _: cerebro.broker.setcash(2.0))
        assert one.content(code_sha256) != other.content(code_sha256)

    def test_what_a_sizer_holds_and_cannot_be_told_apart_is_named(self) -> None:
        with pytest.raises(StrategyError, match=r"^sizer.worth=<unlocked .*: what it holds cannot be told"):
            Setup(sizer=Given(threading.Lock())).content(code_sha256)

    def test_a_study_runs_all_three_in_it(self, file: str) -> None:
        bars = {"a": walk(80, seed=1), "b": walk(80, seed=2)}
        study = gate_study(Pair, bars, QUICK, setup=f"{file}:futures")
        assert {run.settings["cash"] for run in study.runs.values()} == {50_000}
        assert len({run.equity.index[0] for run in study.runs.values()}) == 1
        assert study.buy_and_hold.fills["data"].tolist() == ["a", "b"]
