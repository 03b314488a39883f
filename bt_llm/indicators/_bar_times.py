"""When a bar opened and closed, in UTC: what time-stamped news and other series are joined by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, get_args

import backtrader as bt
import pandas as pd

from bt_llm.data import zone
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.feeds import data_name, feed_of

__all__ = ["BarClock", "Stamp"]

Stamp = Literal["open", "close"]
"""Which end of a bar its time is."""

_LENGTHS = {
    bt.TimeFrame.Seconds: timedelta(seconds=1),
    bt.TimeFrame.Minutes: timedelta(minutes=1),
    bt.TimeFrame.Days: timedelta(days=1),
    bt.TimeFrame.Weeks: timedelta(weeks=1),
}
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class BarClock:
    """Turns the times of bars into the moments at which they opened and closed.

    Parameters
    ----------
    stamp : {'open', 'close'}
        Which end of its bar a time is.
    length : timedelta
        How long a bar is. Bars of whole days end at the same time of the day, whatever the clocks do.
    time_zone : tzinfo
        Zone of the bars' times.

    Examples
    --------
    >>> clock = BarClock("open", timedelta(hours=1), UTC)
    >>> clock.close(bt.date2num(datetime(2017, 10, 26, 11))).isoformat()
    '2017-10-26T12:00:00+00:00'
    """

    stamp: Stamp
    length: timedelta
    time_zone: tzinfo = field(default=UTC)

    @classmethod
    def of(cls, data: Any, *, stamp: str, bar: str | timedelta | None, time_zone: str) -> BarClock:
        """Return the clock of a data feed.

        Parameters
        ----------
        data : data feed
            Its timeframe and compression say how long a bar is, unless `bar` does.
        stamp : str
            ``open`` or ``close``.
        bar : str or timedelta, optional
            Length of a bar, such as ``"1h"``.
        time_zone : str
            IANA name of the zone of the bars' times.

        Raises
        ------
        ConfigError
            If one of them is none, or the feed has no fixed length of bars.
        """
        if stamp not in get_args(Stamp):
            raise ConfigError(f"stamp={stamp!r}: expected one of {list(get_args(Stamp))}")
        return cls(stamp, _length(data, bar), zone(time_zone))  # type: ignore[arg-type]

    def open(self, number: float) -> datetime:
        """Return when the bar with that time (a Backtrader number) opened, in UTC."""
        return self._moment(number, timedelta(0) if self.stamp == "open" else -self.length)

    def close(self, number: float) -> datetime:
        """Return when the bar with that time (a Backtrader number) closed, in UTC."""
        return self._moment(number, self.length if self.stamp == "open" else timedelta(0))

    def check(self, before: float, number: float) -> None:
        """Check that a bar stamped with its open does not begin before the one before it ended.

        Raises
        ------
        DataError
            If it does: the bars are shorter than `length`, which would let the future in. Bars stamped
            with their close may be shorter, as the first one of a session is when they are resampled.
        """
        if self.stamp == "open" and self.open(number) < self.close(before):
            raise DataError(
                f"bars at {self._stamped(before)} and {self._stamped(number)} overlap: each is said to last "
                f"{self.length}; give the feed its timeframe and compression, or bar='1h'"
            )

    def _moment(self, number: float, shift: timedelta) -> datetime:
        stamped = self._stamped(number)
        if self.length % _DAY:  # shorter than a day: so much time later, whatever the clocks show
            return stamped.replace(tzinfo=self.time_zone).astimezone(UTC) + shift
        return (stamped + shift).replace(tzinfo=self.time_zone).astimezone(UTC)

    @staticmethod
    def _stamped(number: float) -> datetime:
        """Return a bar's time to the millisecond: the number cannot hold more."""
        days = math.floor(number)
        milliseconds = round((number - days) * 86_400_000)
        return datetime.fromordinal(days) + timedelta(milliseconds=milliseconds)


def _length(data: Any, bar: str | timedelta | None) -> timedelta:
    if bar is not None:
        try:
            length: timedelta = pd.Timedelta(bar).to_pytimedelta()
        except (ValueError, TypeError, AttributeError):
            length = timedelta(0)
        if not length > timedelta(0):
            raise ConfigError(f"bar={bar!r}: expected how long a bar is, such as '1h', '15min' or '1D'")
        return length
    feed = feed_of(data)
    frame, compression = getattr(feed, "_timeframe", None), getattr(feed, "_compression", None)
    if frame not in _LENGTHS or not compression:
        raise ConfigError(
            f"data {data_name(feed)!r} does not say how long its bars are: give its timeframe and "
            "compression, or bar='1h'"
        )
    return _LENGTHS[frame] * int(compression)
