"""Bars: what is taken as it is, and what is repaired and said."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import COLUMNS, load_bars
from tests.data.bar_cases import OHLCV, ONLY_CLOSE, TWO_BARS, Writer, days, frame_of, refused


def test_a_clean_csv_is_taken_as_it_is(write: Writer, caplog: pytest.LogCaptureFixture) -> None:
    bars = load_bars(write(TWO_BARS))
    assert tuple(bars.columns) == COLUMNS
    assert bars.index.name == "time"
    assert bars.index.dtype == np.dtype("datetime64[ns]")
    assert list(bars.index) == [pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-03")]
    assert bars.to_numpy().tolist() == [[10, 12, 9, 11, 100], [11, 13, 10, 12.5, 200]]
    assert set(bars.dtypes) == {np.dtype("float64")}
    assert bars.attrs["repairs"] == []
    assert not caplog.records


@pytest.mark.parametrize("name", ["time", "Date", "DATETIME", "timestamp", ""])
def test_the_time_column_has_many_names(write: Writer, name: str) -> None:
    bars = load_bars(write(f"{name},CLOSE\n2024-01-02,10\n"))
    assert list(bars.index) == [pd.Timestamp("2024-01-02")]
    assert bars.attrs["repairs"] == ONLY_CLOSE


def test_pandas_name_of_the_unnamed_column_is_the_time() -> None:
    frame = pd.DataFrame({"Unnamed: 0": ["2024-01-02"], "Close": [10.0]})
    assert list(load_bars(frame).index) == [pd.Timestamp("2024-01-02")]


def test_columns_are_found_in_any_order_case_and_with_spaces(write: Writer) -> None:
    bars = load_bars(write("Volume, Close ,LOW,high,Open,Time\n100,11,9,12,10,2024-01-02\n"))
    assert bars.iloc[0].to_list() == [10, 12, 9, 11, 100]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31", "2024-01-31 00:00:00"),
        ("2024/01/31", "2024-01-31 00:00:00"),
        ("2024.01.31 09:30", "2024-01-31 09:30:00"),
        ("20240131", "2024-01-31 00:00:00"),
        ("2024-01-31T09:30:15", "2024-01-31 09:30:15"),
        (" 2024-01-31 09:30:15.250 ", "2024-01-31 09:30:15.250"),
        ("2024-01-31T09:30:00Z", "2024-01-31 09:30:00"),
        ("2024-01-31 09:30:00-05:00", "2024-01-31 14:30:00"),
        ("2024-01-31 09:30 +0530", "2024-01-31 04:00:00"),
    ],
)
def test_times_year_first_are_read(write: Writer, text: str, expected: str) -> None:
    assert load_bars(write(f"time,close\n{text},10\n")).index[0] == pd.Timestamp(expected)


def test_times_of_mixed_precision_are_read(write: Writer) -> None:
    bars = load_bars(write("time,close\n2024-01-02,1\n2024-01-02 09:30,2\n2024-01-02 09:30:00.5,3\n"))
    assert bars["close"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(("order", "month"), [("%m/%d/%Y", 1), ("%d/%m/%Y", 4)])
def test_another_order_of_day_and_month_is_read_when_given(write: Writer, order: str, month: int) -> None:
    bars = load_bars(write("Date,Close\n1/4/1999,10\n"), time_format=order)
    assert bars.index[0] == pd.Timestamp(1999, month, 5 - month)


def test_a_time_format_may_carry_a_zone(write: Writer) -> None:
    bars = load_bars(write("Date,Close\n31.01.2024 09:30 +0100,10\n"), time_format="%d.%m.%Y %H:%M %z")
    assert bars.index[0] == pd.Timestamp("2024-01-31 08:30")


def test_a_byte_order_mark_crlf_quotes_and_blank_lines_are_no_matter(write: Writer) -> None:
    text = '\ufefftime,"close"\r\n\r\n2024-01-02,"10"\r\n\r\n2024-01-03,11\r\n'
    assert load_bars(write(text))["close"].to_list() == [10, 11]


def test_numbers_are_read_to_the_last_bit(write: Writer) -> None:
    texts = ["0.1", "1.0716", "2.2250738585072014e-30", "9007199254740993", "1229.22998"]
    rows = "".join(f"2024-01-{day:02},{text}\n" for day, text in enumerate(texts, 1))
    assert load_bars(write("time,close\n" + rows))["close"].to_list() == [float(text) for text in texts]


@pytest.mark.parametrize(
    "index",
    [
        ["2024-01-02", "2024-01-03"],
        [dt.date(2024, 1, 2), dt.date(2024, 1, 3)],
        [dt.datetime(2024, 1, 2), dt.datetime(2024, 1, 3)],
        [pd.Timestamp("2024-01-02"), dt.date(2024, 1, 3)],
        np.array(["2024-01-02", "2024-01-03"], dtype="datetime64[s]"),
        pd.Index(["2024-01-02", "2024-01-03"], dtype="category"),
        pd.Index(["2024-01-02", "2024-01-03"], dtype="string"),
    ],
    ids=lambda index: type(index).__name__ + "-" + type(index[0]).__name__,
)
def test_an_index_of_any_kind_of_date_is_converted(index: Any) -> None:
    bars = load_bars(frame_of(index))
    assert bars.index.equals(days("2024-01-02", "2024-01-03").as_unit("ns"))
    assert bars.attrs["repairs"] == ONLY_CLOSE


@pytest.mark.parametrize(
    "values",
    [
        pd.array([10, 11], dtype="Int64"),
        pd.array([10.0, 11.0], dtype="Float32"),
        ["10", " 11.0 "],
        [decimal.Decimal("10"), 11],
        np.array([10, 11], dtype="uint8"),
    ],
    ids=["Int64", "Float32", "text", "Decimal", "uint8"],
)
def test_numbers_of_any_kind_become_float64(values: Any) -> None:
    bars = load_bars(pd.DataFrame({"Close": values}, index=days("2024-01-02", "2024-01-03")))
    assert bars["close"].to_list() == [10.0, 11.0]
    assert bars["close"].dtype == np.float64


def test_the_frame_given_is_left_as_it_was() -> None:
    frame = pd.DataFrame({"Close": [11.0, 10.0]}, index=days("2024-01-03", "2024-01-02"))
    before = frame.copy(deep=True)
    bars = load_bars(frame)
    bars.iloc[:, :] = 0.0
    pd.testing.assert_frame_equal(frame, before)
    assert "repairs" not in frame.attrs


def test_columns_filled_from_the_close_do_not_share_memory() -> None:
    bars = load_bars(frame_of(days("2024-01-02")))
    bars["open"] += 1.0
    assert bars.iloc[0].to_list() == [11.0, 10.0, 10.0, 10.0, 0.0]


def test_a_source_read_twice_is_the_same(write: Writer) -> None:
    path = write(TWO_BARS)
    pd.testing.assert_frame_equal(load_bars(path), load_bars(load_bars(str(path))))


def test_negative_prices_are_taken() -> None:
    bars = load_bars(
        pd.DataFrame({"Close": [18.27, -37.63, 10.01]}, index=["2020-04-17", "2020-04-20", "2020-04-21"])
    )
    assert bars["low"].to_list() == [18.27, -37.63, 10.01]


def test_every_repair_is_logged_once(write: Writer, caplog: pytest.LogCaptureFixture) -> None:
    path = write("time,close\n2024-01-03,11\n2024-01-02,10\n")
    with caplog.at_level(logging.WARNING, logger="bt_llm.data"):
        repairs = load_bars(path).attrs["repairs"]
    assert repairs == [*ONLY_CLOSE, "times out of order: sorted, oldest first"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{str(path)!r}: {text}" for text in repairs
    ]


def test_only_a_close_serves_as_all_four_prices(write: Writer) -> None:
    bars = load_bars(write("time,close\n2024-01-02,10.5\n"))
    assert bars.iloc[0].to_list() == [10.5, 10.5, 10.5, 10.5, 0.0]
    assert bars.attrs["repairs"] == ONLY_CLOSE


def test_missing_volume_is_zero(write: Writer) -> None:
    bars = load_bars(write(OHLCV + "2024-01-02,1,1,1,1,\n2024-01-03,1,1,1,1,7\n"))
    assert bars["volume"].to_list() == [0, 7]
    assert bars.attrs["repairs"] == ["no volume at 1 bar (2024-01-02 00:00:00): set to 0"]


def test_times_out_of_order_are_sorted_with_their_bars(write: Writer) -> None:
    bars = load_bars(write(OHLCV + "2024-01-03,3,3,3,3,3\n2024-01-01,1,1,1,1,1\n2024-01-02,2,2,2,2,2\n"))
    assert bars["close"].to_list() == [1, 2, 3]
    assert bars.index.is_monotonic_increasing
    assert bars.attrs["repairs"] == ["times out of order: sorted, oldest first"]


def test_an_equal_repeat_is_dropped(write: Writer) -> None:
    bars = load_bars(write(TWO_BARS + "2024-01-03,11,13,10,12.5,200\n"))
    assert bars["close"].to_list() == [11, 12.5]
    assert bars.attrs["repairs"] == ["repeats of an equal bar at 1 bar (2024-01-03 00:00:00): dropped"]


def test_a_time_zone_becomes_utc() -> None:
    index = pd.DatetimeIndex(["2024-01-31 09:30", "2024-07-31 09:30"], tz="America/New_York")
    bars = load_bars(frame_of(index))
    assert bars.index.tz is None
    assert list(bars.index) == [pd.Timestamp("2024-01-31 14:30"), pd.Timestamp("2024-07-31 13:30")]
    assert bars.attrs["repairs"][0] == "times have a zone: turned to UTC, zone dropped"


def test_midnights_in_a_zone_are_dates_and_stay_the_same_day() -> None:
    index = pd.DatetimeIndex(["2024-03-08", "2024-03-11"], tz="Asia/Tokyo")
    bars = load_bars(frame_of(index))
    assert list(bars.index) == [pd.Timestamp("2024-03-08"), pd.Timestamp("2024-03-11")]
    assert bars.attrs["repairs"][0] == "times are midnight in a zone: taken as dates, zone dropped"


def test_midnights_written_with_offsets_across_a_clock_change_are_dates(write: Writer) -> None:
    text = "Date,Close\n2024-03-08 00:00:00-05:00,10\n2024-03-11 00:00:00-04:00,11\n"
    assert list(load_bars(write(text)).index) == [pd.Timestamp("2024-03-08"), pd.Timestamp("2024-03-11")]


def test_the_hour_that_occurs_twice_when_clocks_go_back_stays_two_bars() -> None:
    index = pd.date_range("2024-11-03 04:00", periods=4, freq="h", tz="UTC").tz_convert("America/New_York")
    assert list(load_bars(frame_of(index)).index.hour) == [4, 5, 6, 7]


def test_objects_with_a_zone_become_utc() -> None:
    index = pd.Index([dt.datetime(2024, 1, 2, 9, tzinfo=dt.timezone(dt.timedelta(hours=2)))], dtype=object)
    assert load_bars(frame_of(index)).index[0] == pd.Timestamp("2024-01-02 07:00")


def test_periods_become_their_start() -> None:
    bars = load_bars(frame_of(pd.period_range("2024-01", periods=2, freq="M")))
    assert list(bars.index) == [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-02-01")]
    assert bars.attrs["repairs"][0] == "times are periods: each set to its start"


def test_prices_off_by_rounding_are_widened_and_said() -> None:
    high = 10.0 * (1 - 1e-12)
    frame = frame_of(days("2024-01-02"), Open=[9.0], High=[high], Low=[9.0], Volume=[1])
    bars = load_bars(frame)
    assert bars["high"].iloc[0] == 10.0
    assert bars.attrs["repairs"] == [
        "high or low off the open or close by rounding at 1 bar (2024-01-02 00:00:00): widened"
    ]


def test_adjusted_close_is_left_out_and_never_the_close(write: Writer) -> None:
    bars = load_bars(write("Date,Adj Close,Close\n2024-01-02,5,10\n"))
    assert bars["close"].to_list() == [10]
    assert bars.attrs["repairs"] == ["columns 'Adj Close': left out", *ONLY_CLOSE]
    assert "no column 'close' among 'Date', 'Adj Close'" in refused(write("Date,Adj Close\n2024-01-02,5\n"))


@pytest.mark.parametrize("ticker_first", [False, True])
def test_one_ticker_of_yfinance_is_flattened(ticker_first: bool) -> None:
    names = [("Close", "AAPL"), ("High", "AAPL"), ("Low", "AAPL"), ("Open", "AAPL"), ("Volume", "AAPL")]
    columns = pd.MultiIndex.from_tuples([name[::-1] if ticker_first else name for name in names])
    frame = pd.DataFrame([[11, 12, 9, 10, 100]], index=days("2024-01-02"), columns=columns)
    bars = load_bars(frame)
    assert bars.iloc[0].to_list() == [10, 12, 9, 11, 100]
    assert bars.attrs["repairs"] == ["columns in 2 levels: flattened, ticker 'AAPL'"]


def test_a_datetime_index_comes_before_a_column() -> None:
    bars = load_bars(frame_of(days("2024-01-02"), Date=["1999-01-01"]))
    assert bars.index[0] == pd.Timestamp("2024-01-02")
    assert bars.attrs["repairs"][0] == "columns 'Date': left out"
