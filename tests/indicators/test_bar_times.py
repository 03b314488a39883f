from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import backtrader as bt
import pytest

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.indicators._bar_times import BarClock
from tests.engines import walk


def number(*parts: int) -> float:
    return bt.date2num(datetime(*parts))  # type: ignore[arg-type]


def clock(**settings: Any) -> BarClock:
    return BarClock.of(None, **({"stamp": "open", "bar": "1h", "time_zone": "UTC"} | settings))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_a_stamp_is_the_open_or_the_close() -> None:
    stamped = number(2020, 1, 1, 9)
    assert (clock().open(stamped), clock().close(stamped)) == (utc(2020, 1, 1, 9), utc(2020, 1, 1, 10))
    other = clock(stamp="close")
    assert (other.open(stamped), other.close(stamped)) == (utc(2020, 1, 1, 8), utc(2020, 1, 1, 9))


def test_every_minute_of_a_year_comes_back_from_its_number_exactly() -> None:
    start = datetime(2019, 12, 31)
    for minutes in range(0, 366 * 1440, 997):
        moment = start + timedelta(minutes=minutes)
        assert clock().open(bt.date2num(moment)) == moment.replace(tzinfo=UTC)


def test_hours_follow_the_zone_and_days_the_wall_clock() -> None:
    new_york = {"time_zone": "America/New_York"}
    assert clock(**new_york).close(number(2020, 1, 1, 9)) == utc(2020, 1, 1, 15)
    # Clocks go forward on 2020-03-08: the hour stamped 01:00 ends at 03:00 on the wall, 07:00 UTC.
    assert clock(**new_york).close(number(2020, 3, 8, 1)) == utc(2020, 3, 8, 7)
    assert clock(**new_york).open(number(2020, 3, 8, 3)) == utc(2020, 3, 8, 7)
    # The day itself has 23 hours, from 05:00 UTC to 04:00 UTC.
    day = clock(bar="1D", **new_york)
    assert (day.open(number(2020, 3, 8)), day.close(number(2020, 3, 8))) == (
        utc(2020, 3, 8, 5),
        utc(2020, 3, 9, 4),
    )
    day.check(number(2020, 3, 8), number(2020, 3, 9))


def test_the_feed_says_how_long_its_bars_are() -> None:
    frame = walk(3)

    def of(timeframe: int, compression: int) -> BarClock:
        feed = bt.feeds.PandasData(dataname=frame, timeframe=timeframe, compression=compression)
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.adddata(feed)
        return BarClock.of(feed, stamp="open", bar=None, time_zone="UTC")

    assert of(bt.TimeFrame.Minutes, 15).length == timedelta(minutes=15)
    assert of(bt.TimeFrame.Days, 1).length == timedelta(days=1)
    with pytest.raises(ConfigError, match="does not say how long its bars are: give its timeframe"):
        of(bt.TimeFrame.Ticks, 1)


def test_months_are_those_of_the_calendar() -> None:
    feed = bt.feeds.PandasData(dataname=walk(3), timeframe=bt.TimeFrame.Months, compression=1)
    opens = BarClock.of(feed, stamp="open", bar=None, time_zone="America/New_York")
    # Midnight in New York is 04:00 UTC in summer and 05:00 in winter.
    assert opens.close(number(2020, 2, 1)).isoformat() == "2020-03-01T05:00:00+00:00"
    assert opens.close(number(2020, 10, 1)).isoformat() == "2020-11-01T04:00:00+00:00"
    ends = BarClock.of(feed, stamp="close", bar=None, time_zone="UTC")
    assert ends.close(number(2020, 2, 29)).isoformat() == "2020-02-29T00:00:00+00:00"
    assert ends.open(number(2020, 2, 29)).isoformat() == "2020-01-29T00:00:00+00:00"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stamp": "middle"}, r"stamp='middle': expected one of \['open', 'close'\]"),
        ({"bar": "soon"}, "bar='soon': expected how long a bar is"),
        ({"bar": "-1h"}, "bar='-1h': expected how long a bar is"),
        ({"bar": "nat"}, "bar='nat': expected how long a bar is"),
        ({"time_zone": "Mars"}, "time zone 'Mars': expected an IANA name"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        clock(**settings)


def test_bars_shorter_than_said_are_found() -> None:
    clock().check(number(2020, 1, 1, 9), number(2020, 1, 1, 10))
    with pytest.raises(DataError, match=r"09:00:00 and 2020-01-01 09:30:00 overlap: .* last 1:00:00"):
        clock().check(number(2020, 1, 1, 9), number(2020, 1, 1, 9, 30))
    clock(stamp="close").check(number(2020, 1, 1, 9), number(2020, 1, 1, 9, 30))
