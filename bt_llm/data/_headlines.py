"""Headlines: dated news, oldest first, each with the moment it was published."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bt_llm.data._layout import read_csv
from bt_llm.data._reading import Reading, listed
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.settings import path_text, several

__all__ = ["Headline", "Headlines", "zone"]

_COLUMNS = ("time", "headline")


class Headline(NamedTuple):
    """One headline: when it was published, in UTC, and what it says (untrusted text)."""

    time: datetime
    text: str


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises
    ------
    ConfigError
        If there is none.

    Examples
    --------
    >>> zone("Europe/Paris").key
    'Europe/Paris'
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ConfigError(f"time zone {name!r}: expected an IANA name, such as 'UTC'") from None


@dataclass(frozen=True)
class Headlines:
    """Headlines by the moment they were published; hashable, picklable and short to print.

    Parameters
    ----------
    items : tuple of Headline
        In any order; kept oldest first, in UTC. Of the same moment, in the order of their texts.

    Raises
    ------
    DataError
        If a time has no zone, or a text is not one.

    Examples
    --------
    >>> news = Headlines.of([("2017-10-26T13:45:00+02:00", "ECB halves its bond purchases")])
    >>> news, news.items[0].time.isoformat()
    (Headlines(1, from 2017-10-26 11:45 to 2017-10-26 11:45 UTC), '2017-10-26T11:45:00+00:00')
    """

    items: tuple[Headline, ...]

    def __post_init__(self) -> None:
        """Check the times, bring them to UTC and sort."""
        items = several("items", self.items, "Headline")
        for item in items:
            if not isinstance(item, tuple) or len(item) != 2:
                raise DataError(f"items={item!r:.60}: expected a list of Headline")
        ordered = sorted(_in_utc(time, text) for time, text in items)
        object.__setattr__(self, "items", tuple(ordered))

    @classmethod
    def of(cls, pairs: Iterable[tuple[datetime | str, str]], time_zone: str | None = None) -> Headlines:
        """Return the headlines of (time, text) pairs.

        Parameters
        ----------
        pairs : iterable of (datetime or str, str)
            Times as ISO 8601 if they are text.
        time_zone : str, optional
            IANA name of the zone of times that bear none, such as ``America/New_York``. Without it, such
            a time is an error: half a day's error would be look-ahead. Where clocks are set back, a time
            that is there twice is the later one.

        Raises
        ------
        DataError
            If a time cannot be read.
        """
        return cls(tuple(Headline(_time(time, time_zone), text) for time, text in pairs))

    @classmethod
    def load(cls, path: str | os.PathLike[str], time_zone: str | None = None) -> Headlines:
        """Read a CSV in UTF-8 with a header; columns ``time`` and ``headline``, others are left out.

        Parameters
        ----------
        path : path
            The file.
        time_zone : str, optional
            As in `of`.

        Raises
        ------
        DataError
            If there is no such file, it is not such a CSV, or a time cannot be read; the line is named.
        """
        source = Path(path_text("headlines", path, expected="Headlines, or the path of a CSV"))
        reading = Reading(name=source.name)
        if time_zone is not None:
            zone(time_zone)
        frame = read_csv(reading, source)
        if frame.empty:
            raise reading.error("no headlines: expected at least one row below the header")
        names = [str(name).strip().lower() for name in frame.columns]
        if missing := [name for name in _COLUMNS if names.count(name) != 1]:
            raise reading.error(f"columns {listed(names)}: expected one {listed(missing)}")
        times, texts = (frame.iloc[:, names.index(name)].tolist() for name in _COLUMNS)
        pairs = []
        for row, (time, text) in enumerate(zip(times, texts, strict=True)):
            try:
                pairs.append(_in_utc(_time(time, time_zone), text))
            except DataError as error:
                raise reading.error(f"{reading.place(row)}: {error}") from None
        return cls(tuple(pairs))

    def between(self, after: datetime, until: datetime) -> tuple[Headline, ...]:
        """Return the headlines published later than `after` and at or before `until`, oldest first."""
        first = bisect.bisect_right(self.items, after, key=lambda item: item.time)
        last = bisect.bisect_right(self.items, until, key=lambda item: item.time)
        return self.items[first:last]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.items)

    def __iter__(self) -> Iterator[Headline]:
        """Iterate, oldest first."""
        return iter(self.items)

    def __repr__(self) -> str:
        """Return how many, from when to when."""
        if not self.items:
            return "Headlines(0)"
        first, last = (item.time.strftime("%Y-%m-%d %H:%M") for item in (self.items[0], self.items[-1]))
        return f"Headlines({len(self.items)}, from {first} to {last} UTC)"


def _time(given: datetime | str, time_zone: str | None) -> datetime:
    time = _parsed(given) if isinstance(given, str) else given
    if isinstance(time, datetime) and time.tzinfo is None and time_zone is not None:
        there = zone(time_zone)
        return max((time.replace(tzinfo=there, fold=fold) for fold in (0, 1)), key=_moment)
    return time


def _moment(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise DataError(f"time {str(time)[:40]!r}: expected one of the years 2 to 9998") from None


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise DataError(f"time {text[:40]!r}: expected ISO 8601, as 2017-10-26T11:45:00Z") from None


def _in_utc(time: datetime, text: str) -> Headline:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise DataError(
            f"time {str(time)[:40]!r} of a headline has no zone: expected 2017-10-26T11:45:00Z, "
            "or time_zone='UTC' for all of them"
        )
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"headline of {time.isoformat()}: expected a text, not {str(text)[:40]!r}")
    # A pandas Timestamp is a datetime with nanoseconds; the plain one compares and pickles small.
    moment = _moment(time)
    plain = datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=UTC)
    return Headline(plain, text)
