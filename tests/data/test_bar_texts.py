"""Numbers and times written as text: read, left open, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import load_bars
from tests.data.bar_cases import Writer, frame_of, refused


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234.5", 1234.5),
        ("1234,5", 1234.5),
        ("1.234.567,5", 1234567.5),
        ("1,23,456.75", 123456.75),
        ("23 477,01", 23477.01),
        ("23\u00a0477,01", 23477.01),
        ("23'477.01", 23477.01),
        ("$10.5", 10.5),
        ("10.5 €", 10.5),
        ("-$0.5", -0.5),
        ("\u22121.5", -1.5),
        ("+1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.5e3", 1500.0),
        ("0.125", 0.125),
        ("1234.567", 1234.567),
        ("007", 7.0),
    ],
)
def test_numbers_as_people_write_them(write: Writer, text: str, number: float) -> None:
    assert load_bars(write(f'Date;Close\n2024-01-02;"{text}"\n'))["close"].to_list() == [number]


@pytest.mark.parametrize(
    ("text", "volume"), [("1.5K", 1500), ("882.32M", 882_320_000), ("1.25B", 1.25e9), ("-", 0)]
)
def test_volumes_are_shortened(write: Writer, text: str, volume: float) -> None:
    assert load_bars(write(f"Date,Close,Volume\n2024-01-02,1.5,{text}\n"))["volume"].to_list() == [volume]


@pytest.mark.parametrize("text", ["1.5K", "1.5%", "1.5 EUR", "(1.5)", "1.5-", "1..5", "1,5,", "1e5e5", "1 5"])
def test_prices_with_more_than_a_number_are_refused(write: Writer, text: str) -> None:
    assert "expected a number such as 1234.5" in refused(
        write(f'Date;Close\n2024-01-02;1.25\n2024-01-03;"{text}"\n')
    )


def test_one_number_decides_for_all(write: Writer) -> None:
    header = "Date;Close\n2024-01-02;1.234\n2024-01-03;1.235\n"
    assert "'1.234' and all other numbers could" in refused(write(header))
    assert load_bars(write(header + "2024-01-04;1.2\n"))["close"].to_list() == [1.234, 1.235, 1.2]
    assert load_bars(write(header + "2024-01-04;1.234,5\n"))["close"].to_list() == [1234, 1235, 1234.5]
    assert "close='1.2' at 2024-01-05" in refused(write(header + "2024-01-04;1,2\n2024-01-05;1.2\n"))
    assert load_bars(write(header), decimal=",")["close"].to_list() == [1234, 1235]


def test_a_number_far_down_decides_too(write: Writer) -> None:
    days = pd.bdate_range("1980-01-01", periods=9000)
    rows = [f"{day:%Y-%m-%d};{900 + i % 99}\n" for i, day in enumerate(days)]
    rows[4500] = rows[4500][:10] + ";1.004\n"
    path = write("Date;Close\n" + "".join(rows))
    assert "'1.004' and all other numbers could" in refused(path)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-1-2", "2024-01-02"),
        ("2024-1-2 9:05", "2024-01-02 09:05"),
        ("20240102T0930", "2024-01-02 09:30"),
        ("202401020930", "2024-01-02 09:30"),
        ("1704187800.25", "2024-01-02 09:30:00.250"),
        ("1704187800000.5", "2024-01-02 09:30:00.000500"),
        ("20240102093015", "2024-01-02 09:30:15"),
        ("20240102093015250", "2024-01-02 09:30:15.250"),
        ("20240102 09:30:15", "2024-01-02 09:30:15"),
        ("2024-01-02 09:30:15,250", "2024-01-02 09:30:15.250"),
        ("2024-01-02 09:30:15.123456789", "2024-01-02 09:30:15.123456789"),
        ("13/01/2024", "2024-01-13"),
        ("1/13/2024 2:05 PM", "2024-01-13 14:05"),
        ("1/13/2024 12:05 a.m.", "2024-01-13 00:05"),
        ("13.01.24", None),
        ("99-12-31", "1999-12-31"),
        ("13-Jan-2024", "2024-01-13"),
        ("13 January 2024 09:30", "2024-01-13 09:30"),
        ("Jan 13, 2024", "2024-01-13"),
        ("Saturday, January 13, 2024", "2024-01-13"),
        ("2024年1月13日", "2024-01-13"),
        ("1704153600", "2024-01-02"),
        ("1704153600.0", "2024-01-02"),
        ("1704153600000", "2024-01-02"),
        ("1704153600000000", "2024-01-02"),
        ("1704153600000000000", "2024-01-02"),
        ("2024-01-02 09:30:00 UTC", "2024-01-02 09:30"),
        ("2024-01-02 09:30:00 EST", "2024-01-02 14:30"),
        ("2024-07-02 09:30:00 America/New_York", "2024-07-02 13:30"),
        ("2024-01-02 09:30:00+0530", "2024-01-02 04:00"),
        ("2024-01-02 09:30:00 -05", "2024-01-02 14:30"),
    ],
)
def test_times_as_people_write_them(write: Writer, text: str, time: str | None) -> None:
    path = write(f'Date;Close\n"{text}";1.5\n')
    if time is None:
        assert "day_first" in refused(path)
    else:
        assert list(load_bars(path).index) == [pd.Timestamp(time)]


@pytest.mark.parametrize(
    "text",
    [
        "2024-13-01",
        "2024-02-30",
        "2024-01-02 24:00",
        "2024-01-02 09:60",
        "31/31/2024",
        "1/13/2024 13:05 PM",
        "soon",
        "2024-01",
        "2024-01-02 09:30 CST",
        "2024-01-02 09:30 Mars/Olympus",
        "123456789",
        "2024-01-02 09:30 +25:00",
        "29-Feb-2023",
    ],
)
def test_what_is_no_time_is_refused(write: Writer, text: str) -> None:
    assert "time" in refused(write(f'Date;Close\n"{text}";1.5\n'))


def test_a_zone_decides_what_its_abbreviations_are(write: Writer) -> None:
    path = write("Date,Close\n2024-01-02 09:30 CST,1\n2024-07-02 09:30 CDT,2\n")
    assert "zone 'CST' is not known" in refused(path)
    bars = load_bars(path, zone="America/Chicago")
    assert list(bars.index) == [pd.Timestamp("2024-01-02 15:30"), pd.Timestamp("2024-07-02 14:30")]
    assert bars.attrs["source"]["zone"] == "UTC"


def test_times_of_one_file_are_written_in_one_way(write: Writer) -> None:
    assert "line 3: time '1704240000'" in refused(write("Date,Close\n2024-01-02,1\n1704240000,2\n"))
    assert "line 3: time '01/13/2024'" in refused(write("Date,Close\n2024-01-02,1\n01/13/2024,2\n"))
    assert "line 3: time '2024-01-03'" in refused(write("Date,Close\n01/13/2024,1\n2024-01-03,2\n"))


def test_seconds_may_become_milliseconds_and_microseconds(write: Writer) -> None:
    bars = load_bars(write("unix,close\n1704153600,1\n1704240000000,2\n1704326400000000,3\n"))
    assert list(bars.index) == list(pd.date_range("2024-01-02", periods=3))


@pytest.mark.parametrize(
    ("time_format", "text", "time"),
    [
        ("%d%m%y", "020124", "2024-01-02"),
        ("%d-%b-%y %I:%M %p", "02-Jan-24 01:30 PM", "2024-01-02 13:30"),
        ("%Y.%j", "2024.032", "2024-02-01"),
        ("%A %d %B %Y", "Tuesday 02 January 2024", "2024-01-02"),
        ("%m/%d/%y %T", "01/02/24 09:30:15", "2024-01-02 09:30:15"),
        ("%Y-%m-%dT%H:%M:%S.%fZ00", "2024-01-02T09:30:15.5Z00", "2024-01-02 09:30:15.5"),
        ("%Y %H:%M%z %d/%m", "2024 09:30+0100 02/01", "2024-01-02 08:30"),
    ],
)
def test_a_time_format_is_read_as_stated(write: Writer, time_format: str, text: str, time: str) -> None:
    assert list(load_bars(write(f"Date,Close\n{text},1.5\n"), time_format=time_format).index) == [
        pd.Timestamp(time)
    ]


@pytest.mark.parametrize(
    ("time_format", "why"),
    [
        ("%Y-%U-%d", "%U is not supported"),
        ("%Y %Y", "occurs twice"),
        ("%Y-%m-%d%", "% is not supported"),
        ("%m/%d/%Y", "does not fit"),
        ("%Y-%m-%d 01", "does not fit"),
    ],
)
def test_a_time_format_that_says_nothing_is_refused(write: Writer, time_format: str, why: str) -> None:
    assert why in refused(write("Date,Close\n2024-01-02 00,1\n"), time_format=time_format)


@pytest.mark.parametrize("machine", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_a_zone_by_name_does_not_depend_on_the_machine(machine: str) -> None:
    code = (
        "import pandas as pd; from bt_llm.data import load_bars\n"
        "times = ['2020-07-01 09:30:00 EDT', '2020-11-02 09:30:00 EST']\n"
        "frame = pd.DataFrame({'time': times, 'close': [1.0, 2.0]})\n"
        "bars = load_bars(frame, time_format='%Y-%m-%d %H:%M:%S %Z')\n"
        "print(*bars.index, bars.attrs['repairs'][0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TZ": machine},
    )
    assert (
        done.stdout
        == "2020-07-01 13:30:00 2020-11-02 14:30:00 times have a zone: turned to UTC, zone dropped\n"
    )


# The zone that is kept


@pytest.mark.parametrize(
    ("index", "zone"),
    [
        (pd.date_range("2024-01-02", periods=2, tz="Australia/Sydney"), "Australia/Sydney"),
        (pd.date_range("2024-01-02 09:30", periods=2, tz="Australia/Sydney"), "UTC"),
        (pd.date_range("2024-01-02", periods=2, tz="UTC"), "UTC"),
        (["2024-01-02 00:00-05:00", "2024-01-03 00:00-05:00"], "Etc/GMT+5"),
        (["2024-01-02 00:00-05:00", "2024-07-03 00:00-04:00"], None),
        (["2024-01-02 00:00+05:30", "2024-01-03 00:00+05:30"], None),
        (["2024-01-02", "2024-01-03"], None),
        (["1704153600", "1704240000"], "UTC"),
    ],
)
def test_the_zone_of_the_times_is_kept(index: Any, zone: str | None) -> None:
    assert load_bars(frame_of(index)).attrs["source"]["zone"] == zone


def test_a_zone_that_is_stated_is_kept_and_the_times_stay() -> None:
    bars = load_bars(frame_of(["2024-01-02 09:30"]), zone="America/New_York")
    assert bars.attrs["source"]["zone"] == "America/New_York"
    assert list(bars.index) == [pd.Timestamp("2024-01-02 09:30")]
    assert load_bars(bars).attrs["source"]["zone"] == "America/New_York"


def test_a_zone_that_the_times_contradict_is_refused() -> None:
    index = pd.date_range("2024-01-02", periods=2, tz="Asia/Tokyo")
    assert load_bars(frame_of(index), zone="Asia/Tokyo").attrs["source"]["zone"] == "Asia/Tokyo"
    assert "the times carry a zone of their own" in refused(frame_of(index), zone="Europe/Paris")


def test_times_that_a_zone_does_not_have_are_warned_of() -> None:
    index = pd.date_range("2024-03-10 01:30", periods=3, freq="30min")
    warned = load_bars(frame_of(index), zone="America/New_York").attrs["warnings"]
    assert warned == [
        "no such time in America/New_York at 2 bars (2024-03-10 02:00:00, 2024-03-10 02:30:00): "
        "is the zone right?"
    ]


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ({"zone": "America/NewYork"}, "no such zone; expected an IANA name such as 'America/New_York'"),
        ({"zone": ""}, "no such zone"),
        ({"decimal": ";"}, "decimal=';': expected one of '.', ','"),
        ({"day_first": 1}, "day_first=1: expected one of True, False"),
        ({"repair": "mend"}, "repair='mend': expected one of 'drop', 'widen', 'fill'"),
        ({"stamp": "middle"}, "stamp='middle'"),
        ({"columns": {"price": "Last"}}, "columns: 'price' is none of ours"),
        ({"columns": "Last"}, "columns='Last'"),
        ({"max_megabytes": 0}, "max_megabytes=0"),
        ({"time_fromat": "%Y"}, "no option 'time_fromat' of bars: did you mean 'time_format'?"),
        ({"wrong": 1}, "no option 'wrong' of bars: expected one of time_format, day_first"),
    ],
)
def test_what_cannot_be_stated_is_refused(stated: dict[str, Any], why: str) -> None:
    assert why in refused(frame_of(["2024-01-02"]), **stated)


def test_text_in_a_frame_is_read_as_in_a_file() -> None:
    frame = pd.DataFrame(
        {"Date": ["13/01/2024", "14/01/2024"], "Close": ["1.234,5", "1.235,5"], "Vol.": ["1,5M", None]}
    )
    bars = load_bars(frame)
    assert bars["close"].to_list() == [1234.5, 1235.5]
    assert bars["volume"].to_list() == [1.5e6, 0]
    assert list(bars.index) == [pd.Timestamp("2024-01-13"), pd.Timestamp("2024-01-14")]
    numbers = pd.DataFrame([[1704153600000, 10.0, 12.0, 9.0, 11.0, 5.0]])
    np.testing.assert_array_equal(load_bars(numbers).to_numpy(), [[10, 12, 9, 11, 5]])
