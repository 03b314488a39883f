"""Bars: what is refused, and with which words."""

from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import load_bars
from tests.data.bar_cases import OHLCV, TWO_BARS, Writer, days, frame_of, refused


def test_a_missing_file_names_the_near_ones(write: Writer) -> None:
    path = write(TWO_BARS, "eurusd_hourly.csv")
    assert "no such file (near: 'eurusd_hourly.csv')" in refused(path.with_name("eurusd_houry.csv"))
    assert refused(path.with_name("zzz")).endswith("no such file: give the path of a CSV")
    assert "nor a folder" in refused(path.parent / "no" / "bars.csv")


def test_a_folder_and_an_impossible_path_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).endswith(": cannot be read (it is a folder): give the path of a file")
    assert refused(tmp_path).count("cannot be read") == 1
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
        (b"\x89PNG\r\n\x1a\n\x00", "binary, it holds null bytes"),
        (gzip.compress(b"time,close", mtime=0), "no bars"),
        ("time,close\n".encode("utf-16"), "no bars"),
        (b"GGUF\x03\x00\x00\x00", "null bytes"),
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


def test_two_columns_that_are_each_a_time_are_refused(write: Writer) -> None:
    message = refused(write("date,time,close\n2024-01-02,2024-01-03,1\n"))
    assert "columns 'date', 'time' may each be the time: join them" in message


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


@pytest.mark.parametrize("number", [7, 123456, 17041536000000000000])
def test_numbers_that_are_no_seconds_since_1970_are_refused(number: int) -> None:
    frame = pd.DataFrame({"time": [number], "Close": [1.0]})
    assert f"row 1: time '{number}'" in refused(frame)


@pytest.mark.parametrize("hours", [range(24), [9]])
def test_hours_of_days_are_not_taken_for_seconds_since_1970(write: Writer, hours: Iterable[int]) -> None:
    path = write("time,close\n" + "".join(f"20170102{hour:02},1\n" for hour in hours))
    assert "may be seconds since 1970, or year, month, day and hour: give time_format" in refused(path)
    bars = load_bars(path, time_format="%Y%m%d%H")
    assert bars.index[-1] == pd.Timestamp(2017, 1, 2, max(hours))


def test_clocks_that_may_have_lost_their_zeros_are_refused(write: Writer) -> None:
    clocks = ("500", "1000", "1500", "93000")  # 00:05:00, 00:10:00, 00:15:00 and 09:30:00
    text = "date,time,close\n" + "".join(f"20170102,{clock},1\n" for clock in clocks)
    assert "line 5: time '20170102 93000' has a clock with seconds, unlike others" in refused(write(text))
    assert len(load_bars(write(text.replace("93000", "930")))) == 4


def test_a_zone_beside_seconds_since_1970_is_refused_where_it_is_another(write: Writer) -> None:
    path = write("time,close\n1483228800,1\n1483232400,2\n")
    assert "the times carry a zone of their own" in refused(path, zone="America/New_York")
    assert load_bars(path, zone="Etc/UTC").attrs["source"]["zone"] == "UTC"
    assert load_bars(path, time_format="%s").attrs["source"]["zone"] == "UTC"


def test_a_field_too_many_is_no_field_too_few_in_another_line(write: Writer) -> None:
    rows = ["2017-01-01,1,3,1,2,10", "2017-01-02,1,3,1,2,225,10,x", "2017-01-03,1,3,1,2,10,x"]  # 2,225
    text = "time,open,high,low,close,volume,note\n" + "\n".join(rows).replace("x", "0") + "\n"
    assert "line 2 has 6 fields: expected 7" in refused(write(text))


def test_days_as_excel_counts_them_are_refused_with_the_way_out(write: Writer) -> None:
    assert "Excel's count of days" in refused(write("time,close\n45293,1\n45294,2\n"))


def test_a_missing_time_is_refused() -> None:
    assert "no time for 1 bar (first: row 2)" in refused(frame_of(days("2024-01-02", "NaT")))


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


@pytest.mark.parametrize("text", ["12,34.5", "ten", "1_0", "0x10", "10%", "+-10", "--"])
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


@pytest.mark.parametrize("text", ["1e300", "-1e31", "4.9e-324"])
def test_prices_whose_sums_no_number_holds_are_refused(write: Writer, text: str) -> None:
    row = f"2024-01-03,{text},{text},{text},{text},5"
    assert "expected prices from 1e-30 to 1e+30" in refused(write(f"{OHLCV}\n2024-01-02,1,1,1,1,5\n{row}\n"))


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
