"""What trades were, returns by the calendar, and all figures of an account: right, or refused."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, gate_study, run_backtest
from bt_llm.backtest import daily_returns, figures_of, kept_out, monthly_returns
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import DataError
from tests.engines import walk

CROSS = f"{shipped('sma_cross.py')}:GatedSmaCross"
BARS = walk(60, seed=3)


class Plan(bt.Strategy):
    """Sends what the plan says, by the number of the bar: sizes, negative to sell."""

    params = (("plan", ()),)

    def next(self) -> None:
        for bar, size in self.p.plan:
            if len(self) == bar:
                self.buy(size=size) if size > 0 else self.sell(size=-size)


def planned(*plan: tuple[int, float], **settings: Any) -> Any:
    return run_backtest(Plan, BARS, params={"plan": plan}, **settings)


def opened_at(bar: int) -> float:
    """The open that an order of a bar, counted from 1, fills at."""
    return float(BARS["open"].iloc[bar])


def test_a_trade_in_parts_has_mean_prices_and_what_was_entered() -> None:
    found = planned((3, 2), (5, 6), (9, -3), (12, -5), commission=0.001).trades.iloc[0]
    entry = (2 * opened_at(3) + 6 * opened_at(5)) / 8
    left = (3 * opened_at(9) + 5 * opened_at(12)) / 8
    assert (found["size"], found["direction"]) == (8, 1)
    assert found["price"] == pytest.approx(entry)
    assert found["exit_price"] == pytest.approx(left)
    assert found["return"] == pytest.approx((8 * (left - entry) - 0.001 * 8 * (left + entry)) / (8 * entry))


def test_a_reversal_ends_one_trade_and_begins_another() -> None:
    trades = planned((3, 2), (9, -5), (20, 3)).trades
    assert trades["direction"].tolist() == [1, -1]
    assert trades["size"].tolist() == [2, 3]
    assert trades["price"].tolist() == pytest.approx([opened_at(3), opened_at(9)])
    assert trades["return"].iloc[1] == pytest.approx(1.0 - opened_at(20) / opened_at(9))


def test_the_return_of_a_contract_is_on_what_it_is_worth() -> None:
    account: dict[str, Any] = {"setup": futures}
    found = run_backtest(Plan, BARS, params={"plan": ((3, 1), (9, -1))}, **account).trades.iloc[0]
    assert found["pnl"] == pytest.approx(50.0 * (opened_at(9) - opened_at(3)))
    assert found["return"] == pytest.approx(opened_at(9) / opened_at(3) - 1.0)


def futures(cerebro: bt.Cerebro, market: Any) -> None:
    cerebro.broker.setcash(1e6)
    cerebro.broker.setcommission(mult=50.0, margin=1000.0, commission=0.0)


def test_the_verdict_of_a_trade_is_the_one_that_its_entry_was_judged_by() -> None:
    gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    study = gate_study(CROSS, load_bars(shipped("eurusd_hourly.csv"))[:1500], gate)
    told = study.gated.trades
    sides = {1: "bullish", -1: "bearish"}
    assert len(told) > 20
    assert told["verdict"].tolist() == [sides[side] for side in told["direction"]]
    (frame,) = study.gated.verdicts.values()
    for _, trade in told.iterrows():
        before = frame[frame.index < trade["opened"]].iloc[-1]
        assert (before["answer"], before["confidence"]) == (trade["verdict"], trade["confidence"])
    out = kept_out(study.gated, study.ungated)
    assert 0 < len(out) < len(study.ungated.trades)
    assert not set(out["opened"]) & set(told["opened"])
    assert (out["verdict"] != out["direction"].map(sides)).mean() > 0.5
    assert (study.ungated.trades["verdict"] == "").all()


def test_days_and_months_compound_to_the_whole() -> None:
    run = run_backtest(CROSS, load_bars(shipped("eurusd_hourly.csv"))[:1500])
    whole = run.equity.iloc[-1] / run.equity.iloc[0]
    assert (1.0 + run.returns_daily()).prod() == pytest.approx(whole)
    months = monthly_returns(run.equity)
    assert np.nanprod(1.0 + months[list(range(1, 13))].to_numpy()) == pytest.approx(whole)
    assert np.nanprod(1.0 + months["year"].to_numpy()) == pytest.approx(whole)
    assert run.returns_daily().index.is_unique


def test_a_month_is_from_the_last_close_before_it() -> None:
    times = pd.to_datetime(["2024-01-15", "2024-01-31", "2024-02-01", "2024-02-29", "2024-04-30"])
    found = monthly_returns(pd.Series([100.0, 110.0, 50.0, 121.0, 60.5], times)).loc[2024]
    assert found[[1, 2, 4]].tolist() == pytest.approx([0.1, 0.1, -0.5])
    assert np.isnan(found[3])


def test_a_ruined_account_has_no_returns_by_the_calendar() -> None:
    equity = pd.Series([100.0, 10.0, -5.0], pd.date_range("2024-01-01", periods=3), name="equity")
    for make in (daily_returns, monthly_returns):
        with pytest.raises(DataError, match=r"worth -5.00 at 2024-01-03"):
            make(equity)


def test_every_figure_is_a_number_or_has_a_reason() -> None:
    study = gate_study(
        CROSS,
        walk(130, seed=4).iloc[:125],
        Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off")),
    )
    for run in study.runs.values():
        found = figures_of(run, study.buy_and_hold)
        missing = {name for name, value in found.values.items() if not np.isfinite(value)}
        assert missing == set(found.reasons)
        assert all(found.reasons.values())
    assert "takes 90" in figures_of(study.gated).reasons["annual_growth"]
