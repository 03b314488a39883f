"""Bars that cannot be right: refused with what would mend them, mended where that is stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import load_bars
from tests.data.bar_cases import OHLCV, Writer, refused

GOOD = OHLCV + "2024-01-02,10,12,9,11,100\n2024-01-03,11,13,10,12,200\n"
LATER = "2024-01-05,12,14,11,13,300\n"
CONTRADICTS = GOOD + "2024-01-04,12,13,11,13.5,50\n" + LATER
ZERO = GOOD + "2024-01-04,0,0,0,0,0\n" + LATER
NULL = GOOD + "2024-01-04,12,,11,12,50\n" + LATER
TWICE = GOOD + "2024-01-03,11,13,10,12.5,200\n" + LATER


@pytest.mark.parametrize("day", ["2024-01-03", "20240103", "2024-W01-3"])
def test_a_day_may_be_written_in_each_form_of_iso_8601(write: Writer, day: str) -> None:
    assert load_bars(write(GOOD + LATER), after=day).index.tolist() == [pd.Timestamp("2024-01-05")]


@pytest.mark.parametrize(
    ("text", "why", "ways"),
    [
        (CONTRADICTS, "prices contradict each other at 1 bar (2024-01-04 00:00:00), of 4", ("drop", "widen")),
        (ZERO, "a price of 0 at 1 bar (2024-01-04 00:00:00), of 4", ("drop", "fill")),
        (NULL, "no high at 1 bar (2024-01-04 00:00:00), of 4", ("drop", "fill")),
        (TWICE, "another bar of the same time at 1 bar (2024-01-03 00:00:00)", ("drop",)),
    ],
)
def test_each_kind_is_refused_with_the_repairs_there_are(
    write: Writer, text: str, why: str, ways: tuple[str, ...]
) -> None:
    path = write(text)
    message = refused(path)
    assert why in message
    for repair in ("drop", "widen", "fill"):
        assert (f"repair={repair!r}" in message) == (repair in ways)
        if repair in ways:
            assert len(load_bars(path, repair=repair).attrs["repairs"]) == 1
        else:
            assert why in refused(path, repair=repair)


@pytest.mark.parametrize("text", [CONTRADICTS, ZERO, NULL, TWICE])
def test_dropped_bars_are_gone_and_named(write: Writer, text: str) -> None:
    bars = load_bars(write(text), repair="drop")
    assert bars["close"].to_list() == [11, 12, 13]
    assert bars.attrs["repairs"][0].endswith(": dropped")


def test_widened_bars_hold_their_open_and_close(write: Writer) -> None:
    bars = load_bars(write(CONTRADICTS), repair="widen")
    assert bars.loc["2024-01-04"].to_list() == [12, 13.5, 11, 13.5, 50]
    assert bars.attrs["repairs"] == [
        "prices contradict each other at 1 bar (2024-01-04 00:00:00): widened to hold open and close"
    ]


@pytest.mark.parametrize("text", [ZERO, NULL])
def test_filled_bars_stand_at_the_close_before(write: Writer, text: str) -> None:
    bars = load_bars(write(text), repair="fill")
    assert bars.loc["2024-01-04"].to_list() == [12, 12, 12, 12, 0]
    assert bars.loc["2024-01-05"].to_list() == [12, 14, 11, 13, 300]


def test_a_first_bar_cannot_be_filled(write: Writer) -> None:
    path = write(OHLCV + "2024-01-02,0,0,0,0,0\n" + LATER)
    assert "the first bar, to fill from; use repair='drop'" in refused(path, repair="fill")


def test_every_repaired_bar_is_named(write: Writer) -> None:
    days = pd.bdate_range("2024-01-02", periods=20)
    rows = "".join(f"{day:%Y-%m-%d},0,0,0,0,0\n{day:%Y-%m-%d} 12:00,9,9,9,9,9\n" for day in days)
    (repair,) = load_bars(write(OHLCV + rows), repair="drop").attrs["repairs"]
    assert all(str(day) in repair for day in days)


def test_a_row_without_any_price_is_no_bar_and_said(write: Writer) -> None:
    bars = load_bars(write(GOOD + "2024-01-04,null,null,null,null,null\n" + LATER))
    assert bars["close"].to_list() == [11, 12, 13]
    assert bars.attrs["repairs"] == ["rows without a price at 1 bar (2024-01-04 00:00:00): left out"]
    filled = load_bars(write(GOOD + "2024-01-04,,,,,\n" + LATER), repair="fill")
    assert filled.loc["2024-01-04"].to_list() == [12, 12, 12, 12, 0]


def test_zero_is_a_price_where_others_are_below_it_and_a_level_where_there_are_no_bars() -> None:
    days = ["2024-01-02", "2024-01-03"]
    spread = pd.DataFrame(
        {"open": [0.0, 1.0], "high": [1.0, 1.0], "low": [-1.0, 0.0], "close": [0.0, 0.0]}, index=days
    )
    assert load_bars(spread)["close"].to_list() == [0, 0]
    assert load_bars(pd.DataFrame({"close": [0.0, 0.05]}, index=days))["close"].to_list() == [0, 0.05]
    nothing = pd.DataFrame(np.zeros((2, 4)), columns=["open", "high", "low", "close"], index=days)
    assert load_bars(nothing)["close"].to_list() == [0, 0]


@pytest.mark.parametrize("text", ["2024-01-04,10,9,9,10,1\n", "2024-01-04,,1,1,1,1\n"])
def test_nothing_left_is_refused(write: Writer, text: str) -> None:
    assert "expected at least one" in refused(write(OHLCV + text), repair="drop")
