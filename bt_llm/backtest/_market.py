"""Market: named bars in order, which everything that takes data takes."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest._bars import Bars, OneSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.feeds import ArrayFeed
from bt_llm.plain_text import name_of_file
from bt_llm.settings import several

__all__ = ["Market", "Moment", "Source", "Window", "moment"]

Moment: TypeAlias = "str | datetime.date | pd.Timestamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a market that a strategy trades over, by position among the market's times; half-open.

    Parameters
    ----------
    start : int
        First time that the indicators see.
    first : int
        First time at whose close the strategy may decide.
    stop : int
        One past the last.
    """

    start: int
    first: int
    stop: int

    @property
    def warm_up(self) -> int:
        """Number, from 1, of the window's first bar among those that the indicators see."""
        return self.first - self.start + 1


class Market(Mapping[str, pd.DataFrame]):
    """Named bars in order, one data or many, each checked once; a mapping of names to frames.

    Made by `Market.of` from whatever a user has. It is not changed afterwards: what cuts or changes it
    returns another one.

    Parameters
    ----------
    bars : mapping of str to Bars
        The datas, in order; the first is the one that a strategy calls ``self.data``.

    Examples
    --------
    >>> frame = pd.DataFrame({"close": [10.0, 11.0, 12.0]}, index=pd.date_range("2024-01-01", periods=3))
    >>> market = Market.of({"a": frame, "b": frame[1:]})
    >>> list(market), len(market.index), len(market["b"])
    (['a', 'b'], 3, 2)
    >>> len(market.until("2024-01-02")["a"]), len(market.between("2024-01-02", None)["a"])
    (2, 2)
    """

    def __init__(self, bars: Mapping[str, Bars]) -> None:
        self._bars = dict(bars)

    @classmethod
    def of(cls, source: Source, *, format: BarFormat | None = None, lines: Sequence[str] = ()) -> Market:
        """Return a market made from anything that holds bars; a market is returned as it is.

        Parameters
        ----------
        source : path, DataFrame, feed, mapping, sequence or Market
            One data: the path of a file, a frame, a feed of Backtrader's. Several: a mapping of names to
            such, or a sequence, whose datas have the names of their files, or ``attrs["name"]`` of their
            frames. One file or frame of several instruments gives a data each, under their names.
        format : BarFormat, optional
            What is stated of the sources, where they do not say it themselves.
        lines : sequence of str
            Further columns that become lines of every feed, such as ``("pe",)``. A number may be missing.

        Raises
        ------
        ConfigError
            If there is no data, or two of one name; or if a format is stated of a market, which was read.
        DataError
            If the bars cannot be used; the data is named where there are several.
        """
        lines = several("lines", lines, "names of columns")
        if isinstance(source, Market):
            if format is not None:
                raise ConfigError("format beside a market: state it where the market is made")
            return source._having(tuple(lines))
        if isinstance(source, Mapping):
            named = {str(name): one for name, one in source.items()}
        elif isinstance(source, list | tuple):
            named = _named(source)
        elif lines:
            return cls({_name_of(source): Bars.of(source, lines, format)})
        else:
            each = Bars.each_of(source, format)
            return cls({name or _name_of(source): bars for name, bars in each.items()})
        if not named or not all(named):
            raise ConfigError(f"data {list(named)}: expected at least one, each with a name")
        return cls({name: _one_of(name, one, lines, format) for name, one in named.items()})

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return the bars of a data: a frame of its own, as `load_bars` gives it."""
        try:
            return self._bars[name].frame
        except KeyError:
            raise KeyError(f"no data {name!r} in the market, only {list(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._bars)

    def __len__(self) -> int:
        return len(self._bars)

    def __eq__(self, other: object) -> bool:
        """Return whether names, order and content are the same."""
        if not isinstance(other, Market):
            return NotImplemented
        return list(self.hashes.items()) == list(other.hashes.items())

    def __hash__(self) -> int:
        return hash(tuple(self.hashes.items()))

    def __repr__(self) -> str:
        return f"Market({', '.join(f'{name}: {len(bars)} bars' for name, bars in self._bars.items())})"

    @property
    def bars(self) -> Mapping[str, Bars]:
        """The datas as arrays."""
        return self._bars

    @property
    def first(self) -> pd.DataFrame:
        """The bars of the first data."""
        return next(iter(self.values()))

    @property
    def label(self) -> str:
        """The names, as one text."""
        return ", ".join(self)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, repaired or warned of when the bars were read, one line each."""
        prefix = len(self) > 1
        return tuple(
            f"{name}: {note}" if prefix else note for name, bars in self._bars.items() for note in bars.notes
        )

    def alone(self, what: str) -> pd.DataFrame:
        """Return the bars of a market of one data.

        Raises
        ------
        ConfigError
            If there are several; `what` says what asks for one.
        """
        if len(self) != 1:
            raise ConfigError(f"{what} takes one data: got {list(self)}")
        return self.first

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Hash of the content of each data, by its name; it does not depend on the name."""
        return {name: bars.sha256 for name, bars in self._bars.items()}

    @property
    def sha256(self) -> str:
        """Hash of the content of all datas in order, whatever their names; of one data, that of its bars."""
        hashes = list(self.hashes.values())
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256("\n".join(["bt_llm market 1", *hashes]).encode()).hexdigest()

    # Time

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """Backtrader's numbers of all times at which some data has a bar; a strategy is called at each."""
        return np.unique(np.concatenate([bars.numbers for bars in self._bars.values()]))

    @cached_property
    def index(self) -> pd.DatetimeIndex:
        """All times at which some data has a bar."""
        numbers = np.concatenate([bars.numbers for bars in self._bars.values()])
        _, where = np.unique(numbers, return_index=True)
        times = np.concatenate([bars.times for bars in self._bars.values()])[where]
        return pd.DatetimeIndex(times.view("datetime64[ns]"), name="time")

    @property
    def aligned(self) -> bool:
        """Whether all datas have bars at the same times."""
        return all(len(bars) == len(self.numbers) for bars in self._bars.values())

    def times(self, numbers: Sequence[float] | NDArray[np.float64]) -> pd.DatetimeIndex:
        """Return the times behind Backtrader's numbers: the market's own where it has them.

        A number is a float and does not hold every time; turned back it is off by microseconds.
        """
        found = np.asarray(numbers, dtype=np.float64)
        if not len(found):
            return pd.DatetimeIndex([], dtype="datetime64[ns]")
        places = np.minimum(np.searchsorted(self.numbers, found), len(self.numbers) - 1)
        exact = self.numbers[places] == found
        own = self.index[places]
        return (
            own
            if exact.all()
            else pd.DatetimeIndex(
                [time if same else bt.num2date(x) for time, same, x in zip(own, exact, found, strict=True)]
            )
        )

    def until(self, time: Moment) -> Market:
        """Return the bars up to a time, that bar included."""
        return self._by_time(None, _moment(time), "right")

    def between(self, start: Moment | None, stop: Moment | None) -> Market:
        """Return the bars from `start` on and before `stop`; None leaves an end open.

        Raises
        ------
        DataError
            If no bar is left.
        """
        first, last = (None if time is None else _moment(time) for time in (start, stop))
        return self._by_time(first, last, "left")

    def after(self, day: datetime.date, why: str = "") -> Market:
        """Return the bars after a day, which is kept in the format of the bars, and said in the notes.

        Parameters
        ----------
        day : datetime.date
            The last one that is left out.
        why : str
            What the notes say of it.

        Raises
        ------
        DataError
            If a data has no bar after it.
        """
        made = {}
        for name, bars in self._bars.items():
            index = pd.DatetimeIndex(bars.times.view("datetime64[ns]"))
            first = int((index.normalize() <= pd.Timestamp(day)).sum())
            if first == len(bars):
                raise DataError(f"{name}: no bar after {day}: they go from {index[0]} to {index[-1]}")
            made[name] = bars.after(first, day.isoformat(), why)
        return Market(made)

    def _by_time(self, start: int | None, stop: int | None, side: Any) -> Market:
        made = {}
        for name, bars in self._bars.items():
            low = 0 if start is None else int(np.searchsorted(bars.times, start))
            high = len(bars) if stop is None else int(np.searchsorted(bars.times, stop, side=side))
            made[name] = bars.cut(low, max(low, high))
        if not any(map(len, made.values())):
            raise DataError(f"no bar is left of {self.index[0]} to {self.index[-1]}")
        return Market(made)

    def cut(self, window: Window) -> Market:
        """Return what the indicators of a window see: its bars, and those before it that they warm up on.

        All datas begin together, or with their last bar before that, so that each has a warm-up of its own
        bars; one with fewer bars than that joins when it is warm.
        """
        first, last = self.numbers[window.first], self.numbers[window.stop - 1]
        begins = []
        for bars in self._bars.values():
            place = int(np.searchsorted(bars.numbers, first)) - window.warm_up + 1
            begins += bars.numbers[max(0, place) :][:1].tolist()
        made = {}
        for name, bars in self._bars.items():
            begin = int(np.searchsorted(bars.numbers, min(begins), side="right")) - 1
            end = int(np.searchsorted(bars.numbers, last, side="right"))
            made[name] = bars.cut(max(0, begin), max(0, begin, end))
        return Market(made)

    def emptied(self) -> Market:
        """Return the market without a bar: what the form of its datas can be learned from."""
        return Market({name: bars.cut(0, 0) for name, bars in self._bars.items()})

    def map(self, change: Callable[[str, pd.DataFrame], pd.DataFrame]) -> Market:
        """Return a market of the same times with other values.

        Parameters
        ----------
        change : callable
            Called with the name and the frame of each data; returns a frame of the same form.
        """
        return Market({name: bars.replaced(change(name, bars.frame)) for name, bars in self._bars.items()})

    # Backtrader

    def feed(self, name: str | None = None, **params: Any) -> ArrayFeed:
        """Return a new feed of a data, by default the first, for a set-up that adds it itself.

        Parameters
        ----------
        name : str, optional
            Of the data.
        **params
            Of the feed, such as ``sessionend`` or ``plot``.
        """
        bars = self._bars[next(iter(self)) if name is None else name]
        return bars.feed(**params)

    def add_to(self, cerebro: bt.Cerebro) -> None:
        """Add all datas to a Cerebro, in order, under their names."""
        for name in self:
            cerebro.adddata(self.feed(name), name=name)

    def _having(self, lines: tuple[str, ...]) -> Market:
        for name, bars in self._bars.items():
            if absent := [line for line in lines if line not in bars.lines]:
                raise ConfigError(f"data {name!r} has no lines {absent}: name them where the market is made")
        return self


Source: TypeAlias = "OneSource | Mapping[str, OneSource] | Sequence[OneSource] | Market"
"""What a market can be made of."""


def moment(time: Moment) -> pd.Timestamp:
    """Return a time as a stamp.

    Raises
    ------
    ConfigError
        If it is none, or has a zone: bars are told apart by the times that they have. A text begins with the
        year: `05/01/2024` is two days, and `today` another one tomorrow.
    """
    stamp: Any = None
    said = isinstance(time, str) and _YEAR_FIRST.match(time)
    if said or isinstance(time, datetime.date | np.datetime64):
        with contextlib.suppress(TypeError, ValueError):
            stamp = pd.Timestamp(time)
    if isinstance(stamp, pd.Timestamp) and stamp.tz is not None:
        raise ConfigError(f"time {time!r:.60}: expected one without a zone, as the bars have")
    if isinstance(stamp, pd.Timestamp) and 1678 <= stamp.year <= 2261:  # and not NaT
        return stamp
    raise ConfigError(f"time {time!r:.60}: expected one such as '2024-01-31'")


_YEAR_FIRST = re.compile(r"\s*[0-9]{4}")


def _moment(time: Moment) -> int:
    return int(moment(time).as_unit("ns").value)


def _one_of(name: str, source: Any, lines: Sequence[str], format: BarFormat | None) -> Bars:
    if isinstance(source, Market):
        source.alone(f"data {name!r}")
        return next(iter(source._having(tuple(lines)).bars.values()))
    try:
        return Bars.of(source, lines, format)
    except DataError as error:
        raise DataError(f"data {name!r}: {error}") from error


def _named(sources: Sequence[Any]) -> dict[str, Any]:
    """Return sources by their own names; those without one are numbered."""
    named: dict[str, Any] = {}
    for number, source in enumerate(sources):
        name = _name_of(source)
        name = f"{name}{number}" if name == _UNNAMED and len(sources) > 1 else name
        if name in named:
            raise ConfigError(f"two datas are called {name!r}: give a mapping of names to datas")
        named[name] = source
    return named


_UNNAMED = "data"


def _name_of(source: Any) -> str:
    if isinstance(source, Market):
        return source.label
    if isinstance(source, pd.DataFrame):
        return str(source.attrs.get("name", _UNNAMED))
    if isinstance(source, str | os.PathLike):
        return name_of_file(source)
    return str(getattr(source, "_name", "") or _UNNAMED)
