"""Accounts: ruin, orders, fills and figures, as the broker that ran tells them."""

from __future__ import annotations

import json
import math
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import AlwaysOpen, Gate, NeverOpen, gate_study, panel_study, run_backtest
from bt_llm.advice import AdvisorConfig
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError, DataError
from tests.engines import TREND, QuickAdvice, walk
from tests.market_cases import ENGINES, ByCalendar, ExitsBySell, Pair, Rotates, flat

QUICK = Gate(advisor=TREND, indicator=QuickAdvice, require="not_against")
SHORT = {"orders": {5: [("sell", {})], 60: [("close", {})], 70: [("buy", {})]}}
TRIPLED = [100.0] * 30 + [300.0 * 1.004**bar for bar in range(60)]


class TestRuin:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_run_ends_at_the_bar_at_which_nothing_is_left(self, engine: dict[str, object]) -> None:
        bars = flat(TRIPLED)
        result = run_backtest(ByCalendar, bars, params=SHORT, **engine)
        # 95 shares sold at 100; at 300 the account is worth 10,000 - 95 x 200.
        assert result.ruined == bars.index[30]
        assert len(result.equity) == 31
        assert result.final_value == pytest.approx(10_000 - 95 * 200)
        assert result.metrics["return"] == pytest.approx(-1.9)
        assert result.trades.empty
        assert [result.figures[name] for name in ("sharpe", "sortino", "turnover")] == [None] * 3
        assert result.problems == (
            "the account was ruined at 2024-01-31 00:00:00: it was worth -9,000.00, and the run ended there",
        )

    def test_whatever_shows_a_number_of_it_says_that_it_is_of_a_ruin(self) -> None:
        bars = flat([*TRIPLED, *[300.0] * 100])
        result = run_backtest(ByCalendar, bars, params=SHORT)
        said = "-190.00 % in 0 trades over 31 bars, 2024-01-01 to 2024-01-31 (ruined 2024-01-31)"
        assert said in repr(result)
        assert said in result._repr_html_()
        both = panel_study(ByCalendar, {"a": bars, "b": flat([100.0] * 190)}, AlwaysOpen(), params=SHORT)
        assert "gated -95.00 % (with a ruined account)" in repr(both)

    def test_up_to_there_nothing_is_changed(self) -> None:
        before = run_backtest(ByCalendar, flat(TRIPLED[:30]), params=SHORT)
        after = run_backtest(ByCalendar, flat(TRIPLED), params=SHORT)
        np.testing.assert_array_equal(after.equity.iloc[:30], before.equity)
        pd.testing.assert_frame_equal(after.fills, before.fills, check_exact=True)

    def test_a_price_that_is_not_adjusted_for_a_reverse_split_ruins_a_short_account(self) -> None:
        split = np.r_[20 * 0.996 ** np.arange(240), 200 * 0.996 ** np.arange(240, 300)]
        orders = {"orders": {20: [("sell", {})]}}
        result = run_backtest(ByCalendar, flat(split), params=orders)
        assert result.ruined == flat(split).index[240]
        assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["ruined"] == "2024-08-28T00:00:00"


class Saver(bt.Strategy):
    """Pays in, or starts with another sum, which is nobody's business."""

    params = (("how", "add_cash"), ("at", 20))

    def __init__(self) -> None:
        if self.p.at == 0:
            self.broker.setcash(20_000.0)

    def next(self) -> None:
        if len(self) == 10:
            self.buy(size=1)
        if len(self) == self.p.at:
            getattr(self.broker, self.p.how)(5_000.0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("how", "by"), [("add_cash", "+5,000.00"), ("setcash", "-4,900.00")])
def test_cash_that_a_strategy_brings_is_no_gain_and_is_told_of(
    engine: dict[str, object], how: str, by: str
) -> None:
    bars = flat([100.0] * 40)
    (problem,) = run_backtest(Saver, bars, params={"how": how}, **engine).problems
    assert problem.startswith(f"Saver changed its cash itself (add_cash or setcash), by {by} in all")
    assert run_backtest(Saver, bars, params={"at": 0}, **engine).problems == ()


class LeavesEarly(bt.Strategy):
    """Ends its run at a bar."""

    def next(self) -> None:
        if len(self) == 30:
            self.env.runstop()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_a_strategy_ends_itself_is_told_of(engine: dict[str, object]) -> None:
    (problem,) = run_backtest(LeavesEarly, flat([100.0] * 40), **engine).problems
    assert problem.startswith("LeavesEarly ended its run itself (runstop) at 2024-01-30 00:00:00: what comes")
    assert run_backtest(LeavesEarly, flat([100.0] * 30), **engine).problems == ()


class TestFigures:
    def test_ratios_that_are_infinite_or_undefined_are_none_in_json(self) -> None:
        result = run_backtest(
            ByCalendar, flat(np.linspace(100, 200, 60)), params={"orders": {3: [("buy", {})]}}
        )
        assert result.metrics["sortino"] == math.inf
        found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert found["sortino"] is None
        assert found["win_rate"] is None
        assert found["trades"] == 0

    def test_a_position_on_any_data_is_exposure(self) -> None:
        class Second(bt.Strategy):
            def next(self) -> None:
                if len(self) == 3:
                    self.buy(self.data1, size=10)
                elif len(self) == 7:
                    self.close(self.data1)

        bars = {"a": flat([10.0] * 10), "b": flat([20.0] * 10)}
        result = run_backtest(Second, bars)
        assert result.metrics["exposure"] == 0.4
        assert result.metrics["turnover"] == pytest.approx(2 * 200 / 10_000)
        assert result.trades["data"].tolist() == ["b"]
        assert result.fills[["data", "size", "price"]].values.tolist() == [["b", 10, 20.0], ["b", -10, 20.0]]
        assert result.market["datas"].keys() == {"a", "b"}

    def test_bars_are_counted_whatever_their_times_are(self) -> None:
        bars = load_bars(shipped("eurusd_hourly.csv"))[:400]
        moved = bars.set_axis(bars.index + pd.Timedelta("250ms"))
        spec = f"{shipped('sma_cross.py')}:GatedSmaCross"
        gate = Gate(advisor=TREND)
        studies = [gate_study(spec, frame, gate) for frame in (bars, moved)]
        for name in ("gated", "ungated", "buy_and_hold"):
            one, other = (study.runs[name] for study in studies)
            assert one.metrics == other.metrics
            assert len(other.equity) == len(bars) - gate.warm_up_bars + 1
            assert list(other.equity.index) == list(moved.index[gate.warm_up_bars - 1 :])
            assert set(other.trades["opened"]) <= set(moved.index)


class TestOrders:
    def test_what_the_broker_refuses_is_counted_with_its_reason(self) -> None:
        rising = flat(range(100, 160))
        rising["open"] = rising["high"] = rising["close"].shift(1).fillna(100.0) * 1.001
        rising["high"] = rising[["open", "close"]].max(axis=1)
        rising["low"] = rising[["open", "close"]].min(axis=1)
        entries = {"orders": {bar: [("buy", {})] for bar in range(1, 60)}}
        result = run_backtest(ByCalendar, rising, params=entries, percent=100)
        assert result.orders["refused"] == result.orders["submitted"] == 59
        assert result.orders["filled"] == 0
        assert result.orders["first_refused"] == "2024-01-01T00:00:00"
        assert result.orders["reason"] == "100 at 100 cost 10,000.00, and the cash was 10,000.00"
        assert result.problems[0].startswith(
            "the broker refused 59 of 59 orders, the first at 2024-01-01T00:00:00"
        )
        assert set(result.order_log["status"]) == {"Margin"}
        fine = run_backtest(ByCalendar, rising, params={"orders": {1: [("buy", {})]}}, percent=95)
        assert (fine.orders["refused"], fine.orders["filled"], fine.problems) == (0, 1, ())

    def test_a_fixed_size_beyond_the_cash_is_said(self) -> None:
        bars = load_bars(shipped("sp500_daily.csv"))[:300]
        result = run_backtest(ByCalendar, bars, params={"orders": {9: [("buy", {"size": 100})]}})
        assert result.orders["refused"] == 1
        price = bars["close"].iloc[8]
        assert f"100 at {price:g} cost {100 * price:,.2f}, and the cash was 10,000.00" in result.problems[0]

    def test_every_order_has_an_end(self) -> None:
        orders = {
            2: [("buy", {"size": 1}), ("buy", {"size": 1, "exectype": bt.Order.Limit, "price": 1.0})],
            3: [("buy", {"size": 2, "exectype": bt.Order.Limit, "price": 1.0, "valid": pd.Timedelta("1D")})],
        }
        log = run_backtest(ByCalendar, flat([10.0] * 8), params={"orders": orders}).order_log
        assert log["status"].tolist() == ["Completed", "Accepted", "Expired"]
        assert log["kind"].tolist() == ["Market", "Limit", "Limit"]
        assert log["time"].tolist() == [pd.Timestamp("2024-01-02")] * 2 + [pd.Timestamp("2024-01-03")]

    def test_fills_in_parts_are_all_there(self) -> None:
        def thin(cerebro: bt.Cerebro, market: object) -> None:
            cerebro.broker.set_filler(bt.broker.fillers.FixedSize(size=4))

        bars = flat([10.0] * 8)
        bars["volume"] = 100.0
        result = run_backtest(ByCalendar, bars, params={"orders": {2: [("buy", {"size": 10})]}}, setup=thin)
        assert result.fills["size"].tolist() == [4, 4, 2]
        assert result.metrics["turnover"] == pytest.approx(100 / 10_000)
        open_still = run_backtest(
            ByCalendar, bars[:4], params={"orders": {2: [("buy", {"size": 10})]}}, setup=thin
        )
        assert open_still.metrics["turnover"] == pytest.approx(80 / 10_000)
        assert open_still.orders["open"] == 1

    def test_one_that_a_gate_vetoes_is_no_refusal(self) -> None:
        class Vetoed(bt.Strategy):
            def next(self) -> None:
                if len(self) == 3:
                    order = bt.order.BuyOrder(owner=self, data=self.data, size=1, exectype=None, parent=None)
                    order.addinfo(vetoed=True)
                    order.reject(self.broker)
                    self.broker.notify(order)

        result = run_backtest(Vetoed, flat([10.0] * 6))
        assert (result.orders["vetoed"], result.orders["refused"], result.orders["submitted"]) == (1, 0, 0)
        assert result.problems == ()


class TestYoungData:
    young, old = walk(20, seed=5, start="2020-02-20"), walk(70, seed=6)

    def test_it_joins_when_it_is_warm_in_every_engine(self) -> None:
        market = {"old": self.old, "young": self.young}
        runs = [run_backtest(Rotates, market, params={"period": 30}, **engine) for engine in ENGINES[:-1]]
        assert len({run.final_value for run in runs}) == 1
        assert set(runs[0].fills["data"]) == {"old"}  # twenty bars are fewer than thirty
        assert runs[0].equity.index[0] == self.old.index[29]
        runs = [run_backtest(Rotates, market, params={"period": 8}, **engine) for engine in ENGINES[:-1]]
        assert len({run.final_value for run in runs}) == 1
        first = runs[0].fills.groupby("data")["time"].min()
        assert first["young"] > self.young.index[7]
        assert runs[0].equity.index[0] == self.old.index[7]

    def test_a_gate_that_it_is_too_young_for_answers_in_every_engine(self) -> None:
        market = {"old": self.old, "young": self.young[:12]}
        runs = [run_backtest(Rotates, market, gate=QUICK, **engine) for engine in ENGINES[:-1]]
        assert len({run.final_value for run in runs}) == 1
        assert len(runs[0].fills) > 0

    def test_a_strategy_that_waits_for_all_says_that_it_would_wait_for_ever(self) -> None:
        class Waits(bt.Strategy):
            def __init__(self) -> None:
                self.means = [bt.ind.SMA(data, period=30) for data in self.datas]

        with pytest.raises(
            DataError, match=r"data 'young' has 20 bars, but Waits needs 30 .* from prenext\(\)"
        ):
            run_backtest(Waits, {"old": self.old, "young": self.young})

    def test_a_pair_of_other_times_is_the_same_in_every_engine(self) -> None:
        market = {"a": self.old, "b": walk(70, seed=8).drop(self.old.index[[30, 41, 42]])}
        runs = [run_backtest(Pair, market, **engine) for engine in ENGINES[:-1]]
        assert len({run.final_value for run in runs}) == 1
        assert len(runs[0].trades) > 2

    def test_the_mode_in_which_backtrader_loses_bars_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"exactbars=1: Backtrader loses bars .* old, young"):
            run_backtest(Rotates, {"old": self.old, "young": self.young}, exactbars=1)

    @pytest.mark.parametrize("engine", ENGINES[:-1])
    def test_a_line_of_two_datas_needs_both_from_its_first_bar_on(self, engine: dict[str, object]) -> None:
        with pytest.raises(DataError, match=r"data 'b' too, which begins at 2020-01-11 .* begin together"):
            run_backtest(Pair, {"a": self.old, "b": self.old.iloc[10:]}, **engine)
        run_backtest(Pair, {"a": self.old.iloc[10:], "b": self.old}, **engine)

    def test_all_three_runs_of_a_study_begin_together(self) -> None:
        market = {"old": self.old, "young": self.young}
        study = gate_study(Rotates, market, QUICK)
        assert {run.equity.index[0] for run in study.runs.values()} == {self.old.index[15]}
        held = study.buy_and_hold.fills
        assert held["data"].tolist() == ["old", "young"]
        assert held["time"].tolist() == [self.old.index[16], self.young.index[1]]
        assert (held["size"] * held["price"] / 10_000).tolist() == pytest.approx([0.475, 0.475], rel=0.1)


class TestProblems:
    bars = walk(80, seed=3)

    def test_a_gate_that_is_not_asked(self) -> None:
        class Calls(ExitsBySell):
            def next(self) -> None:
                if self.cross[0] > 0 and self.gate.allows_long:  # the parentheses are missing
                    self.buy()

        problems = run_backtest(Calls, self.bars, gate=QUICK, percent=5).problems
        assert problems == ("the gate was never asked: Calls made no entry, or does not call allows_long()",)

    def test_orders_before_the_warm_up(self) -> None:
        class Hasty(bt.Strategy):
            params = (("gate", None),)

            def __init__(self) -> None:
                self.mean = bt.ind.SMA(period=10)
                self.add_timer(bt.timer.SESSION_START)

            def notify_timer(self, timer: object, when: object, *args: object, **kwargs: object) -> None:
                if len(self.data) in (3, 15):
                    self.buy(size=1)

            def next(self) -> None:
                """Do nothing."""

        result = run_backtest(Hasty, self.bars)
        assert result.order_log["early"].tolist() == [True, False]
        assert result.problems == (
            "1 order came before the warm-up was over, the first at 2020-01-03 00:00:00",
        )

    def test_verdicts_that_do_not_reach_the_confidence(self) -> None:
        gate = Gate(advisor=TREND, indicator=QuickAdvice, min_confidence=0.999)
        (problem,) = run_backtest(ExitsBySell, self.bars, gate=gate).problems
        assert problem.startswith(
            "no verdict that ExitsBySell asked for reached min_confidence=0.999: the highest was 0."
        )

    def test_answers_that_nobody_can_read(self) -> None:
        class Mute(QuickAdvice):
            def advise(self, cells: object) -> list[object]:
                from bt_llm.verdicts import Verdict

                return [Verdict.invalid("mumbles")] * len(cells)  # type: ignore[arg-type]

        gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"), indicator=Mute)
        problems = run_backtest(ExitsBySell, self.bars, gate=gate).problems
        assert any(problem.startswith("every answer was invalid: on 65 of 65 bars") for problem in problems)

    def test_an_account_in_order_has_none(self) -> None:
        for gate in (None, AlwaysOpen(), NeverOpen(), QUICK):
            assert run_backtest(ExitsBySell, self.bars, gate=gate).problems == ()
        study = gate_study(ExitsBySell, self.bars, QUICK)
        assert study.problems == ()
        assert study.to_dict()["problems"] == []

    def test_warnings_are_problems_and_what_was_repaired(self) -> None:
        result = run_backtest(ExitsBySell, self.bars[["close"]])
        assert result.warnings == ("no open, high and low: set to close", "no volume: set to 0")


@pytest.mark.parametrize(
    ("strategy", "params", "said"),
    [
        (Saver, {"gate": AlwaysOpen()}, "give it as gate="),
        (Saver, [("at", 3)], "expected a mapping"),
        (None, None, "expected a backtrader.Strategy"),
        (object, None, "expected a backtrader.Strategy"),
    ],
)
def test_what_would_be_left_alone_or_break_is_refused(strategy: Any, params: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_backtest(strategy, flat([100.0] * 40), params=params)
