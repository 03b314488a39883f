from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bt_llm.backtest import Market, periods_per_year, run_backtest, year_assumed
from tests.market_cases import ExitsBySell


def sessions(days: int, start: str = "2024-01-02") -> pd.DatetimeIndex:
    """Return five-minute bars of a New York session, 78 a day, on so many workdays."""
    parts = [
        pd.date_range(day + pd.Timedelta("9h35min"), periods=78, freq="5min")
        for day in pd.bdate_range(start, periods=days)
    ]
    return pd.DatetimeIndex(np.concatenate([part.to_numpy() for part in parts]))


@pytest.mark.parametrize("days", [1, 2, 5, 7, 30, 100])
def test_a_year_of_five_minute_bars_has_252_sessions_however_few_there_are(days: int) -> None:
    assert periods_per_year(sessions(days)) == pytest.approx(78 * 252)


def test_a_first_day_that_is_cut_short_does_not_shorten_the_year() -> None:
    assert periods_per_year(sessions(20)[60:]) == pytest.approx(78 * 252)


def test_hours_of_a_market_that_opens_on_sunday_evening_count_120_a_week() -> None:
    week = pd.date_range("2024-01-07 22:00", "2024-01-12 21:00", freq="h")
    weeks = pd.DatetimeIndex(np.concatenate([(week + pd.Timedelta(weeks=n)).to_numpy() for n in range(8)]))
    assert len(week) == 120
    assert periods_per_year(weeks) == pytest.approx(120 * 365.25 / 7, rel=0.005)


def test_a_market_without_weekends_off_has_8766_hours_a_year() -> None:
    assert periods_per_year(pd.date_range("2024-01-01", periods=900, freq="h")) == pytest.approx(8766)


def test_long_spans_and_daily_bars_are_counted_from_their_own_times() -> None:
    hours = pd.date_range("2024-01-01", periods=24 * 200 + 1, freq="h")
    assert periods_per_year(hours) == pytest.approx(8766)
    assert year_assumed(hours) == year_assumed(pd.date_range("2024-01-01", periods=9)) == ""


def test_what_was_assumed_is_said_with_the_result() -> None:
    index = sessions(2)
    close = 100.0 + np.sin(np.arange(len(index)) / 4.0)
    frame = pd.DataFrame({name: close for name in ("open", "high", "low", "close")}, index=index)
    result = run_backtest(ExitsBySell, Market.of(frame))
    said = [note for note in result.notes if "252 sessions of 78" in note]
    assert len(said) == 1
    assert said[0].startswith("assumed: 19,656 bars a year")
    returns = result.returns.to_numpy()
    assert result.metrics["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(19_656))
