from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest

from bt_llm.data import Headlines, load_bars, shipped
from bt_llm.exceptions import ConfigError, DataError


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2020, 1, 1, hour, minute, tzinfo=UTC)


def test_times_are_brought_to_utc_and_sorted() -> None:
    east = timezone(timedelta(hours=2))
    news = Headlines.of(
        [
            (datetime(2020, 1, 1, 14, tzinfo=east), "b"),
            ("2020-01-01T06:30:00-05:00", "a"),
            (pd.Timestamp("2020-01-01 13:00", tz="Europe/Berlin"), "a"),
            ("2020-01-01T12:30Z", "c"),
        ]
    )
    assert [(item.time, item.text) for item in news] == [
        (at(11, 30), "a"),
        (at(12), "a"),
        (at(12), "b"),
        (at(12, 30), "c"),
    ]
    assert all(type(item.time) is datetime for item in news)
    assert pickle.loads(pickle.dumps(news)) == news
    assert hash(news) == hash(Headlines(news.items[::-1]))
    assert repr(news) == "Headlines(4, from 2020-01-01 11:30 to 2020-01-01 12:30 UTC)"
    assert repr(Headlines(())) == "Headlines(0)"


def test_between_is_open_at_its_start_and_closed_at_its_end() -> None:
    news = Headlines(tuple((at(hour), str(hour)) for hour in range(5)))  # type: ignore[misc]
    assert [item.text for item in news.between(at(1), at(3))] == ["2", "3"]
    assert news.between(at(3), at(3)) == ()
    assert [item.text for item in news.between(at(3, 59), at(23))] == ["4"]


def test_times_without_a_zone_need_one() -> None:
    with pytest.raises(DataError, match="has no zone: expected 2017-10-26T11:45:00Z, or time_zone"):
        Headlines.of([("2020-01-01 12:00", "a")])
    (item,) = Headlines.of([("2020-07-01 08:30", "a")], time_zone="America/New_York")
    assert item.time == datetime(2020, 7, 1, 12, 30, tzinfo=UTC)
    with pytest.raises(ConfigError, match="time zone 'Nowhere': expected an IANA name"):
        Headlines.of([("2020-01-01", "a")], time_zone="Nowhere")
    with pytest.raises(DataError, match="has no zone"):
        Headlines.of([(pd.NaT, "a")])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,text\n2020-01-01T00:00Z,a\n", "columns 'time', 'text': expected one 'headline'"),
        ("time,headline\n1/2/2020,a\n", "line 2: time '1/2/2020': expected ISO 8601"),
        ("time,headline\n2020-01-01T00:00Z,a\n2020-01-02,b\n", "line 3: time .* has no zone"),
        ('time,headline\n2020-01-01T00:00Z," "\n', "line 2: headline of .*: expected a text"),
        ("time,headline\n2020-01-01T00:00Z,a,b\n", "line 2 has 3 fields: expected 2"),
        ("", "the file is empty"),
        ("time,headline\n", "no headlines: expected at least one row"),
        (
            "time,headline\n9999-12-31T23:59-12:00,a\n",
            "line 2: time '9999-12-31 23:59:00-12:00': expected one",
        ),
    ],
)
def test_a_wrong_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "news.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"news.csv: {message}"):
        Headlines.load(path)


def test_a_file_is_read_with_other_columns_and_cases(tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_text('source,Headline,TIME\nX,"a, b",2020-01-01T00:00Z\n', encoding="utf-8-sig")
    assert Headlines.load(path) == Headlines(((at(0), "a, b"),))  # type: ignore[arg-type]


def test_the_shipped_events_lie_within_the_shipped_bars() -> None:
    news, bars = Headlines.load(shipped("eurusd_news.csv")), load_bars(shipped("eurusd_hourly.csv"))
    assert len(news) == 39
    assert bars.index[0].tz_localize("UTC") < news.items[0].time < news.items[-1].time
    assert news.items[-1].time < bars.index[-1].tz_localize("UTC")


def test_the_shipped_times_of_scheduled_releases_are_those_of_the_wide_bars() -> None:
    """The zone and the stamps of both files agree: the hour of a release is wider than the hour before."""
    news, bars = Headlines.load(shipped("eurusd_news.csv")), load_bars(shipped("eurusd_hourly.csv"))
    width = (bars.high - bars.low).rename_axis(None)
    wider = []
    for item in news:
        hour = pd.Timestamp(item.time).tz_localize(None).floor("h")
        if "payrolls" in item.text or item.text.startswith("Fed "):
            wider.append(width[hour] > 1.5 * width[hour - pd.Timedelta(hours=1)])
    assert len(wider) == 17
    assert all(wider)


@pytest.mark.parametrize(
    ("clock", "hour"),
    [("2017-11-05T00:30", 4), ("2017-11-05T01:30", 6), ("2017-11-05T02:30", 7), ("2018-03-11T02:30", 7)],
)
def test_of_an_hour_that_is_there_twice_the_later_one_is_taken(clock: str, hour: int) -> None:
    (found,) = Headlines.of([(clock, "news")], "America/New_York")
    assert (found.time.hour, found.time.minute) == (hour, 30)
