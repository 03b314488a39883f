from __future__ import annotations

import math
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, gate_study, run_backtest
from bt_llm.backtest import BuyAndHold, periods_per_year
from bt_llm.exceptions import ConfigError, DataError, StrategyError
from bt_llm.gates import AlwaysOpen, NeverOpen
from bt_llm.research import gate_test
from tests.engines import TREND, walk

GATE = Gate(advisor=AdvisorConfig(model="scripted:trend"))


class BuyThirdSellFifth(bt.Strategy):
    """Orders by the calendar, so that every number can be worked out by hand."""

    params = (("gate", None), ("size", 10))

    def next(self) -> None:
        if len(self) == 3:
            self.buy(size=self.p.size)
        elif len(self) == 5:
            self.sell(size=self.p.size)


def six_bars() -> pd.DataFrame:
    """Opens 10..15, closes half above."""
    opens = np.arange(10.0, 16.0)
    frame = {"open": opens, "high": opens + 1, "low": opens - 1, "close": opens + 0.5, "volume": 0.0}
    return pd.DataFrame(frame, index=pd.date_range("2020-01-01", periods=6, freq="D", name="time"))


@pytest.fixture(scope="module")
def hours() -> pd.DataFrame:
    from bt_llm.data import load_bars, shipped

    return load_bars(shipped("eurusd_hourly.csv")).iloc[:1200]


def test_worked_by_hand() -> None:
    result = run_backtest(BuyThirdSellFifth, six_bars(), cash=1000.0, commission=0.01)
    # bought 10 at the 4th open, 13 (commission 1.3), sold at the 6th open, 15 (commission 1.5)
    assert result.final_value == pytest.approx(1000 + 10 * 2 - 2.8)
    assert result.equity.tolist() == pytest.approx([1000, 1000, 1000, 1003.7, 1013.7, 1017.2])
    assert result.metrics["return"] == pytest.approx(0.0172)
    assert result.metrics["exposure"] == pytest.approx(2 / 6)
    assert result.metrics["turnover"] == pytest.approx((130 + 150) / np.mean(result.equity))
    assert result.metrics["win_rate"] == 1.0
    [trade] = result.trades.to_dict("records")
    assert (trade["direction"], trade["bars"], trade["pnl"]) == (1, 2, 20.0)
    assert trade["pnlcomm"] == pytest.approx(17.2)
    assert (trade["opened"], trade["closed"]) == (pd.Timestamp("2020-01-04"), pd.Timestamp("2020-01-06"))


def test_slippage_moves_the_fill() -> None:
    result = run_backtest(BuyThirdSellFifth, six_bars(), cash=1000.0, slippage=0.01)
    assert result.final_value == pytest.approx(1000 + 10 * (15 * 0.99 - 13 * 1.01))


def test_buy_and_hold_takes_a_share_of_the_account() -> None:
    result = run_backtest(BuyAndHold, six_bars(), cash=1000.0, percent=50.0)
    size = 500 / 10.5  # half of the account at the first close, filled at the next open
    assert result.final_value == pytest.approx(1000 + size * (15.5 - 11))
    third = bt.date2num(pd.Timestamp("2020-01-03"))
    waited = run_backtest(BuyAndHold, six_bars(), params={"first": third}, cash=1000.0, percent=50.0)
    assert waited.fills["time"].tolist() == [pd.Timestamp("2020-01-04")]


def test_a_reversal_trades_the_stated_share(hours: pd.DataFrame, repository: Path) -> None:
    spec = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    result = run_backtest(spec, hours)
    assert set(result.trades["direction"]) == {1, -1}
    assert result.metrics["exposure"] > 0.9


def test_a_study_runs_all_three_over_the_same_bars(hours: pd.DataFrame, repository: Path) -> None:
    spec = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    study = gate_study(spec, hours, GATE, commission=2e-5)
    starts = {run.equity.index[0] for run in study.runs.values()}
    assert len(starts) == 1
    assert study.gated.metrics["trades"] < study.ungated.metrics["trades"]
    advice = study.gated.advice
    assert advice is not None
    assert advice["bars"] == len(hours)
    assert advice["gate"]["allowed"] + advice["gate"]["blocked"] > 0
    assert study.ungated.advice is None
    assert study.to_dict()["runs"]["gated"]["trades"] == len(study.gated.trades)


def test_the_same_numbers_in_every_engine_mode(hours: pd.DataFrame, repository: Path) -> None:
    spec = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    modes = [
        {},
        {"runonce": False},
        {"preload": False, "runonce": False},
        {"preload": False, "runonce": False, "exactbars": 1},
        {"exactbars": -1},
    ]
    values = {run_backtest(spec, hours, gate=GATE, **mode).final_value for mode in modes}  # type: ignore[arg-type]
    assert len(values) == 1


def test_the_second_run_asks_nothing_and_gives_the_same(hours: pd.DataFrame, repository: Path) -> None:
    from bt_llm.advice import forget_answers

    spec = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    first = run_backtest(spec, hours, gate=GATE)
    forget_answers()
    second = run_backtest(spec, hours, gate=GATE)
    assert first.advice is not None
    assert second.advice is not None
    assert (first.advice["model_calls"], second.advice["model_calls"]) == (105, 0)
    pd.testing.assert_series_equal(first.equity, second.equity, check_exact=True)


def test_a_strategy_without_a_gate_runs() -> None:
    class Plain(bt.Strategy):
        pass

    assert run_backtest(Plain, six_bars()).final_value == 10_000.0
    result = run_backtest(Plain, six_bars(), gate=NeverOpen())
    assert result.problems == ("the gate was never asked: Plain made no entry",)


def test_results_can_be_told_apart() -> None:
    one, other = (run_backtest(BuyThirdSellFifth, six_bars()) for _ in range(2))
    assert one in [other, one]
    assert one != other
    assert len({one, other}) == 2


def test_the_orders_of_a_strategy_that_attaches_no_gate_are_judged() -> None:
    class Forgot(bt.Strategy):
        params = (("gate", None),)

        def next(self) -> None:
            if len(self) == 2:
                self.buy(size=1)
            elif len(self) == 4:
                self.sell(size=1)

    for strategy in (Forgot, type("Without", (Forgot,), {"__module__": __name__})):
        opened = run_backtest(strategy, six_bars(), gate=AlwaysOpen())
        assert opened.fills["size"].tolist() == [1.0, -1.0]
        shut = run_backtest(strategy, six_bars(), gate=NeverOpen())
        assert (shut.orders["vetoed"], shut.orders["refused"], shut.problems) == (2, 0, ())
        assert shut.fills.empty
        assert shut.notes[-1].endswith("attaches none (attach_gate): the gate judged its orders")


def test_bars_fewer_than_the_warm_up(hours: pd.DataFrame, repository: Path) -> None:
    spec = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    for mode in ({}, {"preload": False, "runonce": False}):
        with pytest.raises(DataError, match="bars"):
            run_backtest(spec, hours.iloc[:20], gate=GATE, **mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"params": {"sise": 3}}, ConfigError, r"no parameter 'sise', only .*did you mean 'size'\?"),
        ({"cash": 0.0}, ConfigError, "cash=0.0"),
        ({"cash": "much"}, ConfigError, "cash='much'"),
        ({"commission": -0.1}, ConfigError, "commission=-0.1"),
        ({"slippage": 2}, ConfigError, "slippage=2"),
        ({"percent": 101}, ConfigError, "percent=101"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_backtest(BuyThirdSellFifth, six_bars(), **settings)  # type: ignore[arg-type]


def test_a_strategy_that_is_not_there() -> None:
    with pytest.raises(StrategyError, match="no strategy file"):
        run_backtest("absent.py:X", six_bars())


def test_numbers_without_meaning_are_nan_and_become_none() -> None:
    class Idle(bt.Strategy):
        pass

    result = run_backtest(Idle, six_bars())
    assert math.isnan(result.metrics["win_rate"])
    assert result.to_dict()["win_rate"] is None
    assert result.returns.tolist() == [0.0] * 5


def test_periods_per_year() -> None:
    daily = pd.date_range("2020-01-01", periods=366, freq="D")
    assert periods_per_year(daily) == pytest.approx(365.25)
    assert math.isnan(periods_per_year(daily[:1]))


def test_the_name_of_the_data_survives(tmp_path: Path, repository: Path) -> None:
    strategy = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    frame = walk(300)
    frame.to_csv(tmp_path / "my market.csv", index_label="time")
    named = frame.copy()
    named.attrs["name"] = "gold"
    gate = Gate(advisor=TREND)
    for data, name in ((tmp_path / "my market.csv", "my market"), (named, "gold"), (frame, "data")):
        for advice in (
            run_backtest(strategy, data, gate=gate).advice,
            gate_study(strategy, data, gate).gated.advice,
            gate_test(strategy, data, gate, n=1, shifts=0, resamples=19).gated.advice,
        ):
            assert advice is not None
            assert list(advice["datas"]) == [name]


def test_scalars_of_numpy_are_settings() -> None:
    frame = walk(60)
    plain = {"cash": 1000.0, "commission": 0.001, "slippage": 0.0, "percent": 50.0}
    given = {name: np.float64(value) for name, value in plain.items()} | {"cash": np.int64(1000)}
    one, two = (run_backtest(BuyAndHold, frame, **settings) for settings in (plain, given))
    assert one.metrics == two.metrics
    assert {name: type(two.settings[name]) for name in plain} == dict.fromkeys(plain, float)
    with pytest.raises(ConfigError, match="percent="):
        run_backtest(BuyAndHold, frame, percent=np.float64(101))
