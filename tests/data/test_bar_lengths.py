"""How long bars are, and what is said of bars in a few lines."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import BarLength, DailySeries, bar_length, describe_bars, load_bars
from bt_llm.exceptions import ConfigError
from tests.data.bar_cases import TWO_BARS, Writer


@pytest.mark.parametrize(
    ("freq", "unit", "count"),
    [
        ("s", "second", 1),
        ("15s", "second", 15),
        ("min", "minute", 1),
        ("5min", "minute", 5),
        ("4h", "minute", 240),
        ("D", "day", 1),
        ("B", "day", 1),
        ("2D", "day", 2),
        ("W-MON", "week", 1),
        ("W-FRI", "week", 1),
        ("2W", "week", 2),
        ("MS", "month", 1),
        ("ME", "month", 1),
        ("BME", "month", 1),
        ("QS", "month", 3),
        ("YS", "year", 1),
    ],
)
def test_the_length_is_the_usual_step(freq: str, unit: str, count: int) -> None:
    index = pd.date_range("2020-01-01", periods=60, freq=freq)
    assert bar_length(index) == BarLength(unit=unit, count=count)
    kept = index[np.random.default_rng(0).random(60) > 0.1]
    assert bar_length(kept) == BarLength(unit=unit, count=count)


def test_sessions_and_weekends_are_no_matter() -> None:
    hours = pd.date_range("2024-01-01", periods=1000, freq="30min")
    session = hours[(hours.hour >= 9) & (hours.hour < 16) & (hours.day_of_week < 5)]
    assert bar_length(session) == BarLength(unit="minute", count=30)


@pytest.mark.parametrize(
    "index",
    [
        pd.DatetimeIndex([]),
        pd.DatetimeIndex(["2024-01-01"]),
        pd.date_range("2024-01-01", periods=5, freq="ms"),
    ],
)
def test_what_has_no_length(index: pd.DatetimeIndex) -> None:
    assert bar_length(index) is None


def weekly(freq: str) -> pd.DataFrame:
    index = pd.date_range("2018-01-01", periods=8, freq=freq)
    return pd.DataFrame({"close": np.arange(8.0) + 10}, index=index)


def test_a_value_of_a_week_is_known_when_the_week_is_over() -> None:
    mondays = DailySeries.levels(weekly("W-MON"))
    assert mondays.known(date(2018, 1, 14)).tolist() == [10]  # the Sunday: only the first week is over
    assert mondays.known(date(2018, 1, 15)).tolist() == [11]
    ends = DailySeries.levels(load_bars(weekly("W-FRI"), stamp="close"))
    assert ends.known(date(2018, 1, 6)).tolist() == [10]
    assert np.isnan(ends.known(date(2018, 1, 5))).all()


def test_a_value_of_a_month_is_known_when_the_month_is_over() -> None:
    first = DailySeries.levels(weekly("MS"))
    assert np.isnan(first.known(date(2018, 1, 31))).all()
    assert first.known(date(2018, 2, 1)).tolist() == [10]
    assert first.known(date(2018, 3, 3)).tolist() == [10]  # 31 days are allowed to every month
    last = DailySeries.levels(weekly("ME"))
    assert last.known(date(2018, 2, 1)).tolist() == [10]
    assert last.known(date(2018, 2, 28)).tolist() == [10]


def test_moves_are_of_days() -> None:
    with pytest.raises(ConfigError, match="bars of 1 week: expected a daily series"):
        DailySeries.moves(weekly("W-MON"))


def test_a_description_says_all_there_is(write: Writer) -> None:
    closes = ["11", "11,1", "5,5", "5,6", "5,5", "6"]
    opens = ["11", "11", "5,5", *closes[2:5]]
    rows = zip(range(13, 19), opens, closes, strict=True)
    path = write(
        "Date;Open;High;Low;Close\n" + "".join(f"{day}.01.2024;{o};12;5;{c}\n" for day, o, c in rows)
    )
    assert describe_bars(load_bars(path, zone="Europe/Berlin"), width=8, height=1).splitlines() == [
        "form      daily CSV without volume, as Stooq and others write it",
        "bars      6 of 1 day, from 2024-01-13 00:00:00 to 2024-01-18 00:00:00",
        "zone      Europe/Berlin",
        "close     5.5 to 11.1, last 6",
        "gaps      none",
        "jumps     1 bar (2024-01-15 00:00:00): to 0.495 times the close before, as at a split of 2:1",
        "assumed   columns separated by semicolons",
        "assumed   decimal comma",
        "assumed   dates are day first: none of the dates allows another order",
        "repaired  no volume: set to 0",
        "warning   prices jump from one bar to the next at 1 bar (2024-01-15 00:00:00): to 0.495 times the "
        "close before, as at a split of 2:1; adjusted prices?",
        "██▁▁▁▂",
    ]


def test_one_bar_and_flat_bars_can_be_described(write: Writer) -> None:
    one = load_bars(write(TWO_BARS))[:1]
    assert (
        describe_bars(one).splitlines()[1] == "bars      1, from 2024-01-02 00:00:00 to 2024-01-02 00:00:00"
    )
