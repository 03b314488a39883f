from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.advice import AnalystConfig, MarketAnalysis, MarketAnalystAgent, Regime, RiskLevel
from bt_llm.backtest import run_backtest
from bt_llm.data import DailySeries, load_bars, shipped
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.indicators import MarketRegime
from bt_llm.indicators._regime import REGIME_SPACE
from bt_llm.research._runs import inspect_run
from bt_llm.verdicts import StateSpace
from tests.engines import MODES, Holder, bits, line, walk

LINES = ("regime", "risk_level", "trend", "rsi", "vix", "oil", "oil_volatility")
FIRST = 25  # the first bar, counted from 0, at which EMA(20), its slope over 3 bars and ATR(14) are warm


def daily(days: int = 420, seed: int = 1, end: str = "2020-03-01") -> pd.DataFrame:
    """Daily closes up to a day, of which the feed below sees the last ones."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(0.02 * rng.standard_normal(days)))
    return pd.DataFrame({"close": close}, index=pd.date_range(end=end, periods=days, freq="D", name="time"))


def vix(days: int = 420, end: str = "2020-03-01") -> pd.DataFrame:
    """A level for each bucket in turn, no two alike."""
    frame = daily(days, end=end)
    frame["close"] = np.resize([10.0, 25.0, 14.0, 18.0, 35.0], days) + np.arange(days) / 1000
    return frame


class Planted(MarketRegime):
    """Volatile and high risk with a VIX above 20, else by the trend; unreadable where flat and 12 to 16."""

    def judge(self, states: Sequence[Mapping[str, Any]]) -> list[MarketAnalysis]:
        assert len({str(state) for state in states}) == len(states)
        return [self.planted(state) for state in states]

    @staticmethod
    def planted(state: Mapping[str, Any]) -> MarketAnalysis:
        wild = state["vix"] in ("20 to 30", "above 30")
        quiet = state["EUR/USD"]["trend"] == "flat"
        if state["vix"] == "12 to 16" and quiet:
            return MarketAnalysis(
                regime=Regime.INVALID, risk_level=RiskLevel.INVALID, recommendations=(), problem="no"
            )
        regime = Regime.VOLATILE if wild else Regime.RANGING if quiet else Regime.TRENDING
        return MarketAnalysis(
            regime=regime, risk_level=RiskLevel.HIGH if wild else RiskLevel.LOW, recommendations=("Wait.",)
        )


def build(
    frame: pd.DataFrame, vix_: Any = None, oil: Any = None, mode: Any = None, kind: Any = Planted, **more: Any
) -> Any:
    """Return the indicator after a run over hourly bars from 2020-02-01 on."""
    cerebro = bt.Cerebro(stdstats=False, **(mode or {}))
    feed = bt.feeds.PandasData(
        dataname=frame, timeframe=bt.TimeFrame.Minutes, compression=60, openinterest=None
    )
    cerebro.adddata(feed)
    daily_ = {"vix": vix() if vix_ is None else vix_, "oil": daily() if oil is None else oil}
    cerebro.addstrategy(Holder, make=lambda s: kind(s.data, **(daily_ | more)))
    return cerebro.run()[0].made


def bars(count: int = 120, seed: int = 0) -> pd.DataFrame:
    return walk(count, seed=seed, freq="h", start="2020-02-01")


# Daily series.


def test_a_day_is_known_from_the_next_day_on_and_not_for_ever() -> None:
    series = DailySeries.levels(
        pd.DataFrame({"close": [1.0, 2.0]}, index=pd.to_datetime(["2020-01-03", "2020-01-06"]))
    )
    known = {day: series.known(date(2020, 1, day)).tolist()[0] for day in (3, 4, 6, 7, 16, 17)}
    assert known == {
        3: pytest.approx(math.nan, nan_ok=True),
        4: 1.0,
        6: 1.0,
        7: 2.0,
        16: 2.0,
        17: pytest.approx(math.nan, nan_ok=True),
    }


def test_moves_are_those_of_a_calculation_by_hand() -> None:
    frame = daily(400)
    logs = np.log(frame["close"].to_numpy())
    series = DailySeries.moves(frame)
    changes = np.diff(logs)
    usual = {t: np.std(changes[t - 20 : t], ddof=1) for t in range(20, 400)}
    t = 399
    assert series.values[t, 0] == pytest.approx((logs[t] - logs[t - 20]) / (usual[t] * math.sqrt(20)))
    assert series.values[t, 1] == pytest.approx(
        usual[t] / np.median([usual[k] for k in range(t - 249, t + 1)])
    )
    assert np.isnan(series.values[:20, 0]).all()
    assert np.isfinite(series.values[20:, 0]).all()


def test_prices_of_zero_and_below_and_days_that_stand_still_are_missing_not_infinite() -> None:
    frame = daily(400)
    frame.iloc[300] = -37.63
    frame.iloc[330:360] = 40.0
    values = DailySeries.moves(frame).values
    assert not np.isinf(values).any()
    assert np.isnan(values[300:321, 0]).all()
    assert np.isnan(values[355]).all()
    assert np.isfinite(values[399]).all()


def test_several_bars_a_day_are_no_daily_series() -> None:
    with pytest.raises(ConfigError, match="30 bars on 2 days: expected a daily series"):
        DailySeries.levels(walk(30, freq="h"))


# The indicator.


def test_a_daily_value_counts_from_the_next_days_first_bar() -> None:
    frame, closes = bars(), vix()["close"]
    values = line(build(frame), "vix")
    for i, stamp in enumerate(frame.index):
        if i >= FIRST:
            assert values[i] == closes[stamp.normalize() - pd.Timedelta(days=1)]
    changes = [frame.index[i].hour for i in range(FIRST + 1, 120) if values[i] != values[i - 1]]
    assert set(changes) == {0}


@pytest.mark.parametrize(
    ("more", "hour"),
    [({"stamp": "close"}, 1), ({"time_zone": "America/New_York"}, 19), ({"time_zone": "Asia/Tokyo"}, 9)],
)
def test_stamp_and_zone_say_which_bar_is_the_first_of_a_day(more: dict[str, Any], hour: int) -> None:
    frame = bars()
    values = line(build(frame, **more), "vix")
    assert {frame.index[i].hour for i in range(FIRST + 1, 120) if values[i] != values[i - 1]} == {hour}


def test_the_first_value_is_at_the_end_of_the_warm_up() -> None:
    regime = line(build(bars(60)), "regime")
    assert np.isnan(regime[: FIRST - 3]).all()
    trend = line(build(bars(60)), "trend")
    first = int(np.flatnonzero(np.isfinite(trend))[0])
    assert np.isnan(regime[:first]).all()


def test_regime_and_risk_are_what_was_answered() -> None:
    made = build(bars())
    lines = {name: line(made, name) for name in LINES}
    seen = set()
    for t in range(30, 120):
        cell = REGIME_SPACE.cell({name: lines[name][t] for name in REGIME_SPACE.names})
        analysis = Planted.planted(made.describe(cell))
        seen.add(analysis.regime)
        expected = {Regime.RANGING: 0.0, Regime.TRENDING: 1.0, Regime.VOLATILE: 2.0}.get(analysis.regime)
        if expected is None:
            assert math.isnan(lines["regime"][t])
            assert math.isnan(lines["risk_level"][t])
        else:
            assert lines["regime"][t] == expected
            assert lines["risk_level"][t] == (2.0 if expected == 2.0 else 0.0)
    assert seen == set(Regime)


def test_a_series_that_ended_gives_no_regime() -> None:
    made = build(bars(), vix_=vix(end="2020-01-15"))
    assert np.isnan(line(made, "vix")).all()
    assert np.isnan(line(made, "regime")).all()


def test_lines_are_the_same_in_every_engine_mode() -> None:
    frame = bars(90)
    runs = []
    for mode in MODES:
        rows: list[tuple[float, ...]] = []

        class Recorder(bt.Strategy):
            params = (("rows", None),)

            def __init__(self) -> None:
                self.made = Planted(self.data, vix=vix(), oil=daily())

            def next(self) -> None:
                self.p.rows.append(tuple(getattr(self.made.lines, name)[0] for name in LINES))

        cerebro = bt.Cerebro(stdstats=False, **mode)
        cerebro.adddata(
            bt.feeds.PandasData(
                dataname=frame, timeframe=bt.TimeFrame.Minutes, compression=60, openinterest=None
            )
        )
        cerebro.addstrategy(Recorder, rows=rows)
        cerebro.run()
        runs.append([bits(row) for row in rows])
    assert len(runs[0]) > 60
    assert all(other == runs[0] for other in runs)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), t=st.integers(30, 118), runonce=st.booleans())
def test_nothing_after_a_bar_matters(seed: int, t: int, runonce: bool) -> None:
    """Cut the bars after t, and change or cut what every daily series says of bar t's day and after."""
    frame, mode = bars(seed=seed), {"runonce": runonce, "preload": runonce}
    today = frame.index[t].normalize()
    whole = build(frame, mode=mode)
    later = {}
    for name, series in (("vix_", vix()), ("oil", daily())):
        later[name] = series.copy()
        later[name].loc[today:] *= 3.0
    cut = {name: series.loc[: today - pd.Timedelta(days=1)] for name, series in later.items()}
    changed = frame.copy()
    changed.iloc[t + 1 :, :4] *= 1.5
    for made in (
        build(frame.iloc[: t + 1], mode=mode),
        build(changed, mode=mode, **later),
        build(frame.iloc[: t + 1], mode=mode, **cut),
    ):
        for name in LINES:
            assert bits(line(made, name)[: t + 1]) == bits(line(whole, name)[: t + 1]), name


def test_the_test_above_would_see_a_value_of_the_same_day() -> None:
    frame, later = bars(), vix()
    later.loc[frame.index[60].normalize() - pd.Timedelta(days=1) :] *= 3.0
    assert line(build(frame, vix_=later), "vix")[60] != line(build(frame), "vix")[60]


def test_each_state_is_asked_once_through_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mapping[str, Any]] = []

    def analyze_many(self: Any, states: Sequence[Mapping[str, Any]]) -> list[MarketAnalysis]:
        asked.extend(states)
        return [Planted.planted(state) for state in states]

    monkeypatch.setattr(MarketAnalystAgent, "analyze_many", analyze_many)
    config = AnalystConfig(model="scripted:trend", cache_mode="off")
    for mode in ({}, {"runonce": False}):
        asked.clear()
        build(bars(), mode=mode, kind=MarketRegime, analyst=config)
        assert 3 < len(asked) < 40
        assert len({str(state) for state in asked}) == len(asked)
        assert all(list(state) == ["vix", "wti", "EUR/USD"] for state in asked)


def test_a_smaller_space_leaves_markets_out() -> None:
    small = StateSpace(features=(REGIME_SPACE["trend"], REGIME_SPACE["rsi"]))

    class Small(Planted):
        def judge(self, states: Sequence[Mapping[str, Any]]) -> list[MarketAnalysis]:
            assert all(list(state) == ["EUR/USD"] for state in states)
            return [self.planted({"vix": "below 12", **state}) for state in states]

    regime = line(build(bars(), kind=Small, state_space=small), "regime")
    assert set(regime[30:]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"vix_": "no.csv"}, DataError, "no such file"),
        ({"analyst": "smollm2"}, ConfigError, "analyst='smollm2': expected an AnalystConfig"),
        ({"state_space": StateSpace()}, ConfigError, r"state space has \['volatility'\]"),
        ({"bar": "1D"}, DataError, "overlap: each is said to last 1 day"),
        ({"stamp": "x"}, ConfigError, "stamp='x'"),
    ],
)
def test_a_wrong_setting_is_named(more: dict[str, Any], error: type[Exception], message: str) -> None:
    for mode in ({}, {"runonce": False}):
        with pytest.raises(error, match=message):
            build(bars(), mode=mode, **more)


def test_both_daily_series_are_needed_and_a_judge_answers_each() -> None:
    with pytest.raises(ConfigError, match="vix and oil: expected daily bars of both"):
        run_backtest(Holder, bars(), params={"make": lambda s: MarketRegime(s.data)})

    class Lazy(Planted):
        def judge(self, states: Sequence[Mapping[str, Any]]) -> list[MarketAnalysis]:
            return []

    with pytest.raises(ConfigError, match=r"Lazy.judge gave 0 analyses for \d+ states"):
        build(bars(), kind=Lazy)


# The strategy.


def test_the_regime_strategy_sizes_by_risk_and_stays_out_when_wild(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(self: Any, states: Sequence[Mapping[str, Any]]) -> list[MarketAnalysis]:
        return [answered(state) for state in states]

    def answered(state: Mapping[str, Any]) -> MarketAnalysis:
        risk = {"below 12": RiskLevel.LOW, "12 to 16": RiskLevel.MEDIUM}.get(state["vix"], RiskLevel.HIGH)
        flat = state["EUR/USD"]["trend"] == "flat"
        regime = Regime.RANGING if flat else Regime.TRENDING
        if state["vix"] in ("16 to 20", "20 to 30", "above 30"):
            regime = Regime.VOLATILE
        return MarketAnalysis(regime=regime, risk_level=risk, recommendations=("x",))

    monkeypatch.setattr(MarketRegime, "judge", judge)
    frame = load_bars(shipped("eurusd_hourly.csv"))
    result, ran = inspect_run(f"{shipped('regime.py')}:RegimeTrader", frame)
    assert result.metrics["trades"] > 20
    entries = {order.created.dt: order for order in ran.broker.orders if order.status == order.Completed}
    assert len(entries) > 40
    wild = line(ran.state, "regime") == 2.0
    assert wild.any()
    # A position is never held two bars into a volatile regime: the order of its first bar fills at the next.
    held = np.zeros(len(frame), dtype=bool)
    for trade in result.trades.itertuples():
        held[frame.index.get_loc(trade.opened) + 1 : frame.index.get_loc(trade.closed)] = True
    assert not (held & wild & np.roll(wild, 1)).any()


def test_the_shipped_series_cover_the_shipped_bars() -> None:
    frame = load_bars(shipped("eurusd_hourly.csv"))
    made = build(frame, shipped("vix_daily.csv"), shipped("wti_daily.csv"))
    for name in LINES[2:]:
        assert np.isfinite(line(made, name)[FIRST:]).all(), name
    assert 10 < len(made._answers) < 120
