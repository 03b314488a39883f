"""When a bar opened and closed, in UTC: what time-stamped news and other series are joined by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, get_args

import backtrader as bt
import pandas as pd

from bt_llm.data import zone
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.feeds import data_name, feed_of, times_of
from bt_llm.settings import one_of

__all__ = ["BarClock", "Stamp", "assumptions_of"]

Stamp = Literal["open", "close"]
"""Which end of a bar its time is."""

_LENGTHS = {
    bt.TimeFrame.Seconds: timedelta(seconds=1),
    bt.TimeFrame.Minutes: timedelta(minutes=1),
    bt.TimeFrame.Days: timedelta(days=1),
    bt.TimeFrame.Weeks: timedelta(weeks=1),
}
_MONTHS = {bt.TimeFrame.Months: 1, bt.TimeFrame.Years: 12}
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class BarClock:
    """Turns the times of bars into the moments at which they opened and closed.

    Parameters
    ----------
    stamp : {'open', 'close'}
        Which end of its bar a time is.
    length : timedelta or pandas.DateOffset
        How long a bar is; an offset counts months of the calendar. Bars of whole days end at the same time
        of the day, whatever the clocks do.
    time_zone : tzinfo
        Zone of the bars' times.
    assumed : tuple of str
        What was taken for granted of the times, as nothing says it.

    Examples
    --------
    >>> clock = BarClock("open", timedelta(hours=1), UTC)
    >>> clock.close(bt.date2num(datetime(2017, 10, 26, 11))).isoformat()
    '2017-10-26T12:00:00+00:00'
    """

    stamp: Stamp
    length: timedelta | pd.DateOffset
    time_zone: tzinfo = field(default=UTC)
    assumed: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, data: Any, *, stamp: str | None, bar: str | timedelta | None, time_zone: str | None
    ) -> BarClock:
        """Return the clock of a data feed.

        Parameters
        ----------
        data : data feed
            Its timeframe and compression say how long a bar is, unless `bar` does.
        stamp : str, optional
            ``open`` or ``close``; by default what the feed knows, else ``open``.
        bar : str or timedelta, optional
            Length of a bar, such as ``"1h"``.
        time_zone : str, optional
            IANA name of the zone of the bars' times; by default what the feed knows, else UTC.

        Raises
        ------
        ConfigError
            If one of them is none, contradicts what the feed knows, or the length of its bars is not known.
        """
        if stamp is not None:
            one_of("stamp", stamp, get_args(Stamp))
        name, (known_zone, known_stamp) = data_name(feed_of(data)), times_of(data)
        for option, given, known in (
            ("time_zone", time_zone, known_zone),
            ("stamp", stamp, known_stamp),
        ):
            if None not in (given, known) and given != known:
                raise ConfigError(
                    f"{option}={given!r}: the times of the bars of {name!r} are known to be {known!r}; leave "
                    f"{option} out, or state it where the bars are read"
                )
        length = _length(data, bar)
        assumed = []
        if (time_zone := time_zone or known_zone) is None:
            time_zone = "UTC"
            assumed.append("their zone is not known: taken as UTC; state zone, such as zone='Asia/Tokyo'")
        if (stamp := stamp or known_stamp) is None:
            stamp = "open"
            if length != _DAY:  # a date stands for its day, whatever the stamp
                assumed.append("times taken as the opens of bars; state stamp='close' if they are not")
        return cls(
            stamp,  # type: ignore[arg-type]
            length,
            zone(time_zone),
            tuple(f"news and days are joined with the bars of {name!r}: {text}" for text in assumed),
        )

    def open(self, number: float) -> datetime:
        """Return when the bar with that time (a Backtrader number) opened, in UTC."""
        return self._moment(number, 0 if self.stamp == "open" else -1)

    def close(self, number: float) -> datetime:
        """Return when the bar with that time (a Backtrader number) closed, in UTC."""
        return self._moment(number, 1 if self.stamp == "open" else 0)

    def spans(self, numbers: Sequence[float]) -> BarSpans:
        """Return when the bars with those times opened and closed."""
        return BarSpans(self, tuple(numbers))

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

    def _moment(self, number: float, bars: int) -> datetime:
        """Return the moment so many bars after a bar's time, in UTC."""
        stamped = self._stamped(number)
        if isinstance(self.length, timedelta) and self.length % _DAY:
            # Shorter than a day: so much time later, whatever the clocks show.
            return stamped.replace(tzinfo=self.time_zone).astimezone(UTC) + bars * self.length
        moved = pd.Timestamp(stamped) + bars * self.length if bars else pd.Timestamp(stamped)
        return moved.to_pydatetime().replace(tzinfo=self.time_zone).astimezone(UTC)

    @staticmethod
    def _stamped(number: float) -> datetime:
        """Return a bar's time to the millisecond: the number cannot hold more."""
        days = math.floor(number)
        milliseconds = round((number - days) * 86_400_000)
        return datetime.fromordinal(days) + timedelta(milliseconds=milliseconds)


@dataclass(frozen=True)
class BarSpans:
    """When some bars opened and closed, worked out when it is asked for."""

    clock: BarClock
    numbers: tuple[float, ...]

    @property
    def opened(self) -> list[datetime]:
        """In UTC."""
        return [self.clock.open(number) for number in self.numbers]

    @property
    def closed(self) -> list[datetime]:
        """In UTC."""
        return [self.clock.close(number) for number in self.numbers]

    @property
    def zone(self) -> tzinfo:
        """Of the times of the bars."""
        return self.clock.time_zone


def _length(data: Any, bar: str | timedelta | None) -> timedelta | pd.DateOffset:
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
    if frame in _MONTHS and compression:
        return pd.DateOffset(months=_MONTHS[frame] * int(compression))
    if frame not in _LENGTHS or not compression:
        raise ConfigError(
            f"data {data_name(feed)!r} does not say how long its bars are: give its timeframe and "
            "compression, or bar='1h'"
        )
    return _LENGTHS[frame] * int(compression)


def assumptions_of(owner: Any) -> Iterator[str]:
    """Yield what the indicators of a strategy took for granted of the times of its bars."""
    for indicator in owner.getindicators():
        clock = getattr(indicator, "_clock_utc", None)
        if isinstance(clock, BarClock):
            yield from clock.assumed
        yield from assumptions_of(indicator)
