"""Bars: what is read, what is repaired and said, and what is refused."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import hashlib
import importlib.util
import logging
import random
import re
import string
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.data import COLUMNS, _shipped, bars_sha256, load_bars, shipped
from bt_llm.exceptions import DataError

OHLCV = "time,open,high,low,close,volume\n"
TWO_BARS = OHLCV + "2024-01-02,10,12,9,11,100\n2024-01-03,11,13,10,12.5,200\n"
ONLY_CLOSE = ["no open, high and low: set to close", "no volume: set to 0"]

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def _write(content: str | bytes, name: str = "bars.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def frame_of(index: Any, **columns: Any) -> pd.DataFrame:
    """Bars with a close of 10 and whatever else is given."""
    return pd.DataFrame({"Close": [10.0] * len(index), **columns}, index=index)


def days(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(list(texts))


def refused(source: Any, **arguments: Any) -> str:
    """The one-line message with which a source is refused."""
    with pytest.raises(DataError) as caught:
        load_bars(source, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What a clean source gives


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
    texts = ["0.1", "1.0716", "2.2250738585072014e-308", "9007199254740993", "1229.22998"]
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


# What is repaired, and said


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


# What is refused


def test_a_missing_file_names_the_near_ones(write: Writer) -> None:
    path = write(TWO_BARS, "eurusd_hourly.csv")
    assert "no such file (near: 'eurusd_hourly.csv')" in refused(path.with_name("eurusd_houry.csv"))
    assert refused(path.with_name("zzz")).endswith("no such file: give the path of a CSV")
    assert "nor a folder" in refused(path.parent / "no" / "bars.csv")


def test_a_folder_and_an_impossible_path_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path)
    assert "cannot be read" in refused("a\0b")


@pytest.mark.parametrize("source", [None, 3, [1.0], {"close": [1.0]}])
def test_a_source_of_another_type_is_refused(source: Any) -> None:
    assert f"source={type(source).__name__}: expected the path of a CSV" in refused(source)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n\r\n", "the file is empty"),
        (b"time,close\n", "no bars"),
        (b"\x89PNG\r\n\x1a\n\x00", "not text in UTF-8 (at byte 0)"),
        (gzip.compress(b"time,close"), "not text in UTF-8"),
        ("time,close\n".encode("utf-16"), "not text in UTF-8"),
        (b"GGUF\x03\x00\x00\x00", "null bytes"),
        (b"time;close\n2024-01-02;1\n", "has no comma"),
        (b"time\tclose\n2024-01-02\t1\n", "has no comma"),
        (b"time,close\n2024-01-02,1,2\n", "line 2 has 3 fields: expected 2"),
        (b"time,close\n\n2024-01-02\n", "line 3 has 1 fields: expected 2"),
        (b'time,close\n2024-01-02,"1', "not a CSV (unexpected end of data at line 2)"),
        (b"time,close\n2024-01-02," + b"1" * 140_000, "field larger than field limit"),
    ],
)
def test_what_is_not_a_csv_of_bars_is_refused(write: Writer, content: bytes, reason: str) -> None:
    assert reason in refused(write(content))


def test_a_frame_without_bars_or_columns_is_refused() -> None:
    assert "no bars" in refused(frame_of(days()))
    assert "no bars" in refused(pd.DataFrame())
    assert "no column 'close' among none" in refused(pd.DataFrame(index=days("2024-01-02")))


def test_columns_without_names_are_refused() -> None:
    frame = pd.DataFrame([[1.0] * 5], index=days("2024-01-02"))
    assert "no column 'close' among '0', '1', '2', '3', '4'" in refused(frame)


def test_some_prices_without_the_others_are_refused(write: Writer) -> None:
    assert "no column 'high', 'low'" in refused(write("time,open,close\n2024-01-02,1,1\n"))


@pytest.mark.parametrize("header", ["time,close,Close", "time,Time,close"])
def test_columns_that_occur_twice_are_refused(write: Writer, header: str) -> None:
    assert "occur more than once" in refused(write(f"{header}\n2024-01-02,1,1\n"))


def test_two_columns_of_time_are_refused(write: Writer) -> None:
    message = refused(write("date,time,close\n2024-01-02,09:30,1\n"))
    assert "columns 'time', 'date' may each be the time: join them" in message


def test_several_tickers_are_refused_by_name() -> None:
    columns = pd.MultiIndex.from_product([["Close", "Open"], ["AAPL", "MSFT"]])
    frame = pd.DataFrame([[1.0] * 4], index=days("2024-01-02"), columns=columns)
    assert "bars of 2 tickers, 'AAPL', 'MSFT': select one of them first" in refused(frame)


def test_levels_without_a_close_are_refused() -> None:
    frame = pd.DataFrame([[1.0]], index=days("2024-01-02"), columns=pd.MultiIndex.from_tuples([("a", "b")]))
    assert "columns in 2 levels" in refused(frame)


def test_a_source_without_times_is_refused(write: Writer) -> None:
    assert "no times: expected a column 'time' among 'close', 'volume'" in refused(
        write("close,volume\n1,1\n")
    )
    assert "no times" in refused(pd.DataFrame({"Close": [1.0]}))
    pairs = pd.MultiIndex.from_tuples([("AAPL", "2024-01-02")])
    assert "no times" in refused(frame_of(pairs))


@pytest.mark.parametrize(
    "text",
    [
        "1/4/1999",
        "31-01-2024",
        "2024-13-01",
        "2024-02-30",
        "2024-01-02 25:00",
        "2024-01-02 09:30 +99:00",
        "2024-1-2",
        "2024-01/02",
        "1704153600",
        "\u0662024-01-02",
        "soon",
        "",
    ],
)
def test_a_time_that_is_not_year_first_is_refused(write: Writer, text: str) -> None:
    message = refused(write(f"time,close\n2024-01-01,9\n{text},10\n"))
    assert f"line 3: time {text!r}: expected year first" in message
    assert "time_format" in message


def test_a_time_in_a_frame_is_refused_by_row() -> None:
    assert "row 2: time 'soon'" in refused(frame_of(["2024-01-02", "soon"]))


def test_times_out_of_range_are_refused(write: Writer) -> None:
    assert refused(write("time,close\n0001-01-01,1\n"))
    assert "out of range" in refused(frame_of(np.array(["3000-01-01"], dtype="datetime64[s]")))


def test_numbers_as_times_are_refused() -> None:
    frame = pd.DataFrame({"time": [1704153600], "Close": [1.0]})
    assert "times are numbers, such as 1704153600" in refused(frame)


def test_a_missing_time_is_refused() -> None:
    assert "1 bars have no time (first: row 2)" in refused(frame_of(days("2024-01-02", "NaT")))


def test_times_with_and_without_a_zone_are_refused(write: Writer) -> None:
    text = "time,close\n2024-01-02 09:30Z,1\n2024-01-03 09:30,1\n"
    assert "line 3: time '2024-01-03 09:30' has no zone but others do" in refused(write(text))


def test_a_time_format_that_does_not_fit_is_refused(write: Writer) -> None:
    message = refused(write("time,close\n1/31/2024,1\n"), time_format="%d/%m/%Y")
    assert "line 2: time '1/31/2024' does not fit time_format='%d/%m/%Y'" in message


@pytest.mark.parametrize("time_format", ["mixed", "ISO8601", "", 3])
def test_a_time_format_that_is_none_is_refused(write: Writer, time_format: Any) -> None:
    assert f"time_format={time_format!r}" in refused(write(TWO_BARS), time_format=time_format)


@pytest.mark.parametrize("missing", ["", "NaN", ".", "null", "N/A"])
def test_a_missing_price_is_refused_with_the_bars_named(write: Writer, missing: str) -> None:
    rows = "".join(f"2024-01-0{day},{missing}\n" for day in range(1, 6))
    message = refused(write("time,close\n" + rows))
    assert (
        "no close at 5 bars (2024-01-01 00:00:00, 2024-01-02 00:00:00, 2024-01-03 00:00:00, ...)" in message
    )


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_a_missing_price_in_a_frame_is_refused(missing: Any) -> None:
    frame = pd.DataFrame(
        {"Close": pd.Series([10.0, missing], dtype=object).array}, index=["2024-01-02", "2024-01-03"]
    )
    assert "no close at 1 bar (2024-01-03 00:00:00)" in refused(frame)


def test_a_missing_value_of_a_nullable_column_is_refused() -> None:
    frame = pd.DataFrame(
        {"Close": pd.array([10.0, None], dtype="Float64")}, index=days("2024-01-02", "2024-01-03")
    )
    assert "no close at 1 bar (2024-01-03 00:00:00)" in refused(frame)


@pytest.mark.parametrize("text", ["1,234.5", "ten", "1_0", "0x10", "10%", "$10", "--"])
def test_what_is_not_a_number_is_refused(write: Writer, text: str) -> None:
    assert f"close={text!r} at 2024-01-02 00:00:00: expected a number" in refused(
        write(f'time,close\n2024-01-02,"{text}"\n')
    )


@pytest.mark.parametrize(
    "value",
    [True, np.True_, 1j, [1.0], object, dt.date(2024, 1, 1), 10**400],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_a_number_in_a_frame_is_refused(value: Any) -> None:
    frame = pd.DataFrame({"Close": [value]}, index=["2024-01-02"], dtype=object)
    assert "expected a number" in refused(frame)


@pytest.mark.parametrize("values", [[True], [1j], days("2024-01-02")])
def test_columns_of_another_type_are_refused(values: Any) -> None:
    assert "expected a number" in refused(pd.DataFrame({"Close": values}, index=["2024-01-02"]))


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e999"])
def test_infinite_numbers_are_refused(write: Writer, text: str) -> None:
    assert "infinite close at 1 bar (2024-01-02 00:00:00)" in refused(
        write(f"time,close\n2024-01-02,{text}\n")
    )


def test_negative_volume_is_refused(write: Writer) -> None:
    assert "volume below 0 at 1 bar" in refused(write(OHLCV + "2024-01-02,1,1,1,1,-1\n"))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("10,9,11,10", "high below low"),
        ("10,12,9,13", "close above high"),
        ("10,12,9,8", "close below low"),
        ("13,12,9,10", "open above high"),
        ("8,12,9,10", "open below low"),
        ("0,12,9,10", "an open of 0 that stands for none"),
        ("10,10,10,10.00001", "a tick above high"),
    ],
)
def test_prices_that_contradict_each_other_are_refused(write: Writer, row: str, why: str) -> None:
    message = refused(write(TWO_BARS + f"2024-01-04,{row},1\n"))
    opened, high, low, close = row.split(",")
    assert "prices contradict each other at 1 bar (2024-01-04 00:00:00)" in message, why
    assert f"open {opened}, high {high}, low {low}, close {close};" in message


def test_two_bars_of_one_time_are_refused(write: Writer) -> None:
    message = refused(write(TWO_BARS + "2024-01-03,11,13,10,12,200\n"))
    assert "another bar of the same time at 1 bar (2024-01-03 00:00:00)" in message


# The hash


def test_the_hash_is_of_times_and_numbers_alone(write: Writer) -> None:
    seconds = [1704153600, 1704240000]  # 2024-01-02 and 03, midnight UTC
    content = b"bt_llm bars 1\n" + struct.pack("<2q", *(second * 10**9 for second in seconds))
    for column in ([10, 11], [12, 13], [9, 10], [11, 12.5], [100, 200]):
        content += struct.pack("<2d", *column)
    assert bars_sha256(load_bars(write(TWO_BARS))) == hashlib.sha256(content).hexdigest()


def test_the_hash_does_not_see_the_source_the_resolution_or_the_sign_of_zero(write: Writer) -> None:
    bars = load_bars(write(TWO_BARS.replace("100\n", "0\n")))
    other = bars.set_axis(pd.DatetimeIndex(bars.index).as_unit("s"))
    other.iloc[0, 4] = -0.0
    assert bars_sha256(other) == bars_sha256(bars)


@pytest.mark.parametrize("cell", [(row, column) for row in range(2) for column in range(5)])
def test_the_hash_sees_every_number(write: Writer, cell: tuple[int, int]) -> None:
    bars = load_bars(write(TWO_BARS))
    before = bars_sha256(bars)
    bars.iloc[cell] = np.nextafter(bars.iloc[cell], np.inf)
    assert bars_sha256(bars) != before


def test_the_hash_sees_times(write: Writer) -> None:
    bars = load_bars(write(TWO_BARS))
    assert bars_sha256(bars.shift(1, freq="ns")) != bars_sha256(bars)


def test_the_hash_wants_bars(write: Writer) -> None:
    bars = load_bars(write(TWO_BARS))
    zoned = bars.set_axis(pd.DatetimeIndex(bars.index).tz_localize("UTC"))
    for other in (bars[["close"]], bars.reset_index(drop=True), zoned, bars.astype("float32"), bars.shift(1)):
        with pytest.raises(DataError, match="as load_bars returns them"):
            bars_sha256(other)


# Properties

prices = st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: number + 0.0)
instants = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Valid bars, oldest first."""
    times = sorted(draw(st.lists(instants, min_size=1, max_size=8, unique=True)))
    rows = []
    for _ in times:
        low, first, second, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        opened, close = (first, second) if draw(st.booleans()) else (second, first)
        rows.append([opened, high, low, close, draw(st.floats(0, 1e12))])
    return pd.DataFrame(rows, index=pd.DatetimeIndex(times, name="time"), columns=list(COLUMNS))


@settings(max_examples=40, deadline=None)
@given(frame=frames(), seed=st.integers(0, 999))
def test_bars_survive_a_csv_in_any_order_of_rows_and_columns(
    tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, seed: int
) -> None:
    bars = load_bars(frame)
    assert bars.attrs["repairs"] == []
    pd.testing.assert_frame_equal(bars, frame.set_axis(pd.DatetimeIndex(frame.index).as_unit("ns")))
    shuffled = random.Random(seed)
    rows = shuffled.sample(range(len(frame)), len(frame))
    columns = shuffled.sample(["time", *COLUMNS], 6)
    path = tmp_path_factory.mktemp("csv") / "bars.csv"
    table = frame.reset_index().iloc[rows][columns]
    path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *table.itertuples(index=False)]))
    assert bars_sha256(load_bars(path)) == bars_sha256(bars)


cells = st.one_of(
    st.text(string.printable, max_size=8),
    st.sampled_from(
        ["time", "close", "open", "high", "low", "2024-01-02", "2024-01-03 10:00Z", "1.5", "nan"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.lists(st.lists(cells, min_size=1, max_size=4), max_size=4).map(
            lambda rows: "\n".join(",".join(row) for row in rows).encode()
        ),
        st.lists(st.tuples(cells, cells), max_size=3).map(
            lambda rows: "\n".join(["time,close", *(",".join(row) for row in rows)]).encode()
        ),
    )
)
def test_any_file_gives_bars_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("csv") / "bars.csv"
    path.write_bytes(content)
    message = ""
    try:
        bars = load_bars(path)
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    if not message:
        assert np.isfinite(bars.to_numpy()).all()
        assert bars.index.is_unique
        assert bars.index.is_monotonic_increasing


# The data that comes along


FILES = {  # rows, first and last time, and the last close, all read off the files
    "eurusd_hourly.csv": (5000, "2017-04-19 09:00", "2018-02-07 15:00", 1.22904),
    "sp500_daily.csv": (5031, "1999-01-04", "2018-12-31", 2506.850098),
    "vix_daily.csv": (1259, "2014-01-03", "2019-01-03", 25.45),
    "wti_daily.csv": (8321, "1986-01-02", "2019-01-03", 46.92),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_what_its_readme_says(repository: Path, name: str) -> None:
    rows, first, last, close = FILES[name]
    path = repository / "data" / name
    bars = load_bars(path)
    assert len(bars) == rows
    assert (bars.index[0], bars.index[-1]) == (pd.Timestamp(first), pd.Timestamp(last))
    assert bars["close"].iloc[-1] == close
    assert bars.attrs["repairs"] == (
        [] if "volume" in path.read_text(encoding="utf-8").splitlines()[0] else ONLY_CLOSE
    )
    readme = (repository / "data" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in readme
    assert f"{rows:,}" in readme


def test_what_the_package_carries_comes_before_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo, data = tmp_path / "demo", tmp_path / "data"
    for folder, names in ((demo, ["a.csv"]), (data, ["a.csv", "b.csv", "make.py"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("")
    monkeypatch.setattr(_shipped, "_PLACES", ((demo, "*.csv"), (data, "*.csv")))
    assert shipped("a.csv") == demo / "a.csv"
    assert shipped("b.csv") == data / "b.csv"
    for name in ("make.py", "../data/a.csv", "", "."):
        with pytest.raises(DataError, match=re.escape(f"no file named {name!r}")):
            shipped(name)
    with pytest.raises(DataError, match=r"expected one of 'a\.csv', 'b\.csv'$"):
        shipped("prices")


def test_the_files_of_the_repository_are_found_and_near_names_suggested() -> None:
    for name in FILES:
        assert load_bars(shipped(name)).attrs["repairs"] in ([], ONLY_CLOSE)
    with pytest.raises(DataError, match=r"expected one of 'eurusd_hourly\.csv'"):
        shipped("eurusd_houry.csv")


@pytest.fixture
def make_data(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_data", repository / "data" / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_data"] = module
    spec.loader.exec_module(module)
    del sys.modules["make_data"]
    return module


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of the two names, with two rows a file, that cannot be imported."""
    root = tmp_path / "packages"
    quotes = "Date,Open,High,Low,Close,Adj Close,Volume\n1/4/1999,10,12.50,9,11.100000,11,100\n"
    for name, text in {
        "backtesting/test/EURUSD.csv": ",Open,High,Low,Close,Volume\n2017-04-19 09:00:00,1.10,1.2,1,1.1,7\n",
        "arch/data/sp500/sp500.csv.gz": quotes,
        "arch/data/vix/vix.csv.gz": "Date,vix\n1/3/2014,13.76\n1/20/2014,.\n",
        "arch/data/wti/wti.csv.gz": "Date,DCOILWTICO\n1/1/1986,.\n12/31/1986,17.90\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for name in ("arch", "backtesting"):
        (root / name / "__init__.py").write_text("raise ImportError('must not be imported')")
        monkeypatch.delitem(sys.modules, name, raising=False)  # a module that is loaded is found as it was
    monkeypatch.syspath_prepend(str(root))
    return root


def test_make_data_copies_numbers_and_drops_days_without_a_price(
    make_data: ModuleType, packages: Path, tmp_path: Path
) -> None:
    assert make_data.main(["--folder", str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == {
        "eurusd_hourly.csv": b"time,open,high,low,close,volume\n2017-04-19 09:00:00,1.10,1.2,1,1.1,7\n",
        "sp500_daily.csv": b"time,open,high,low,close,volume\n1999-01-04,10,12.50,9,11.100000,100\n",
        "vix_daily.csv": b"time,close\n2014-01-03,13.76\n",
        "wti_daily.csv": b"time,close\n1986-12-31,17.90\n",
    }


def test_make_data_checks(
    make_data: ModuleType, packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["--check", "--folder", str(tmp_path)]
    assert make_data.main(check) == 1
    assert "vix_daily.csv: missing" in capsys.readouterr().err
    make_data.main(["--folder", str(tmp_path)])
    assert make_data.main(check) == 0
    (tmp_path / "vix_daily.csv").write_bytes(b"time,close\n2014-01-03,13.77\n")
    capsys.readouterr()
    assert make_data.main(check) == 1
    assert capsys.readouterr().err == "vix_daily.csv: different\n"
    assert (tmp_path / "vix_daily.csv").read_bytes() == b"time,close\n2014-01-03,13.77\n"


def test_make_data_refuses_a_source_that_changed(
    make_data: ModuleType, packages: Path, tmp_path: Path
) -> None:
    eurusd = packages / "backtesting" / "test" / "EURUSD.csv"
    eurusd.write_text(",Open,High,Low,Close,Volume\n2017-04-19 09:00:00,1,1,1,1,1e3\n")
    with pytest.raises(SystemExit, match="the source has changed"):
        make_data.main(["--folder", str(tmp_path)])
    eurusd.unlink()
    with pytest.raises(SystemExit, match=re.escape("no test/EURUSD.csv in the installed backtesting")):
        make_data.main(["--folder", str(tmp_path)])


def test_make_data_names_the_package_to_install(
    make_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps backtesting"):
        make_data.main(["--check"])


def test_neither_backtrader_nor_a_model_is_loaded() -> None:
    code = "import sys, bt_llm.data; print(sorted({'backtrader', 'llama_cpp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
