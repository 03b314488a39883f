"""Universe: many symbols, each a market of its own, with the dates of its membership."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pandas as pd

from bt_llm.backtest._market import Market, Source, moment
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, DataError, StrategyError
from bt_llm.files import open_regular
from bt_llm.plain_text import counted, name_of_file
from bt_llm.progress import current
from bt_llm.settings import instance, number, several

__all__ = ["Member", "Universe", "UniverseSource", "each_member"]

R = TypeVar("R")

_NEEDED, _KNOWN = ("name", "file"), ("name", "file", "from", "to", "weight")
_FILES = (".csv", ".txt", ".tsv", ".parquet", ".feather", ".gz", ".zip", ".xz", ".bz2")
_DAY = pd.Timedelta(days=1)
_UTF_16, _LONGEST_HEAD = (b"\xff\xfe", b"\xfe\xff"), 1_000
_NEVER = "9999"
"""The year in which tables end what has no end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A symbol for as long as it is in a universe.

    Parameters
    ----------
    market : Market
        Its bars up to the end of its membership. Those before `start` only warm indicators up.
    start : Timestamp, optional
        When it may be traded first.
    end : Timestamp, optional
        Before when its membership ends, and with it the bars; None where they end by themselves.
    weight : float
        Of its account in the pooled result, against those of the others.
    """

    market: Market
    start: pd.Timestamp | None = None
    weight: float = 1.0
    end: pd.Timestamp | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `run_backtest` that its membership comes to: no position is left open."""
        return {"settles": True} if self.start is None else {"settles": True, "start": self.start}

    def run_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments of `run_backtest` with those: it begins when both let it."""
        starts = [moment(one) for one in (given.get("start"), self.start) if one is not None]
        return {**given, **self.settings, **({"start": max(starts)} if starts else {})}


UniverseSource: TypeAlias = "Source | Universe | Mapping[str, Source | Member] | Sequence[Source]"
"""What a universe can be made of."""


class Universe(Mapping[str, Market]):
    """Many symbols, a run each on an account of its own; a mapping of their names to their markets.

    Made by `Universe.of` from whatever a user has.

    Parameters
    ----------
    members : mapping of str to Member
        By name, in order.

    Examples
    --------
    >>> frame = pd.DataFrame({"close": [10.0, 11.0, 12.0]}, index=pd.date_range("2024-01-01", periods=3))
    >>> universe = Universe.of({"a": frame, "b": frame[1:]}, weights={"a": 3.0})
    >>> list(universe), universe.weights, universe.bars
    (['a', 'b'], {'a': 3.0, 'b': 1.0}, 5)
    """

    def __init__(self, members: Mapping[str, Member]) -> None:
        self.members = dict(members)
        if not self.members:
            raise ConfigError("a universe without a symbol: expected at least one")

    @classmethod
    def of(
        cls,
        source: UniverseSource,
        *,
        weights: Mapping[str, float] | None = None,
        format: BarFormat | None = None,
        lines: Sequence[str] = (),
    ) -> Universe:
        """Return a universe made from anything that holds bars of several symbols.

        Parameters
        ----------
        source : path, mapping, sequence, Market or Universe
            A folder: its files of bars. A glob, such as ``data/*.csv``. A CSV with the columns name, file,
            and where a symbol is not in the universe all the time, from and to (both days included; a name
            may come again) and weight; its files are relative to it. A file or frame of several instruments,
            or a market, whose datas are then symbols. Names to any of what `Market.of` takes, or a list.
        weights : mapping of str to float, optional
            Of the accounts in the pooled result, by name; 1 for those left out.
        format, lines
            As in `Market.of`.

        Raises
        ------
        ConfigError
            If there is no symbol, two have one name, or a weight is not positive or of no symbol.
        DataError
            If bars cannot be used; the symbol is named.
        """
        if weights is not None:
            instance("weights", weights, Mapping, "a mapping of symbols to weights")
        found = dict(_members(source, format, several("lines", lines, "names of columns")))
        for name, weight in (weights or {}).items():
            if name not in found:
                raise ConfigError(f"weights: no symbol {name!r}, only {list(found)}")
            found[name] = replace(found[name], weight=_weight(name, weight))
        return cls(found)

    def __getitem__(self, name: str) -> Market:
        """Return the market of a symbol."""
        return self.members[name].market

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return f"Universe({counted(len(self), 'symbol')}: {self.label})"

    @property
    def label(self) -> str:
        """The names as one text, of many the first few."""
        names = list(self)
        return ", ".join(names) if len(names) < 8 else f"{', '.join(names[:6])} and {len(names) - 6} more"

    @property
    def weights(self) -> dict[str, float]:
        """Of the accounts in the pooled result."""
        return {name: one.weight for name, one in self.members.items()}

    @property
    def bars(self) -> int:
        """Bars of all symbols together."""
        return sum(len(bars) for market in self.values() for bars in market.bars.values())

    @property
    def index(self) -> pd.DatetimeIndex:
        """All times at which some symbol has a bar."""
        times = [market.index for market in self.values()]
        return pd.DatetimeIndex(times[0].append(times[1:]).unique().sort_values(), name="time")

    @property
    def sha256(self) -> str:
        """Hash of the content: the bars, memberships and weights, whatever the symbols are called."""
        parts = sorted(f"{m.market.sha256} {m.start} {m.weight!r}" for m in self.members.values())
        return hashlib.sha256("\n".join(["bt_llm universe 1", *parts]).encode()).hexdigest()


def each_member(universe: Universe, run: Callable[[str, Member], R]) -> tuple[dict[str, R], dict[str, str]]:
    """Return what comes of every symbol, and why some are left out.

    Parameters
    ----------
    universe : Universe
        The symbols.
    run : callable
        Called with a name and the symbol.

    Returns
    -------
    dict of str to object, dict of str to str
        What it returned, and of the symbols whose bars are too few, what it said.

    Raises
    ------
    DataError
        If none is left.
    """
    found: dict[str, R] = {}
    left_out: dict[str, str] = {}
    told = current("symbols")
    for place, (name, member) in enumerate(universe.members.items()):
        if told is not None:
            told(place, len(universe))
        try:
            found[name] = run(name, member)
        except DataError as error:
            left_out[name] = str(error)
        except StrategyError as error:
            raise type(error)(f"{name}: {error}") from error
    if told is not None:
        told(len(universe), len(universe))
    if not found:
        name, why = next(iter(left_out.items()))
        raise DataError(f"no symbol of {len(universe)} can be run; {name}: {why}")
    return found, left_out


def _members(source: Any, format: BarFormat | None, lines: tuple[str, ...]) -> Iterator[tuple[str, Member]]:
    """Yield the symbols of a source by name, each name once."""
    seen: set[str] = set()
    for name, member in _found(source, format, lines):
        if name in seen:
            raise ConfigError(f"two symbols are called {name!r}: give a mapping of names to files")
        seen.add(name)
        yield name, member


def _found(source: Any, format: BarFormat | None, lines: tuple[str, ...]) -> Iterator[tuple[str, Member]]:
    if isinstance(source, Universe):
        yield from source.members.items()
    elif isinstance(source, Market):
        for name, bars in source.bars.items():
            yield name, Member(market=Market({name: bars}))
    elif isinstance(source, Mapping):
        for name, one in source.items():
            is_member = isinstance(one, Member)
            yield str(name), one if is_member else Member(market=_market(str(name), one, format, lines))
    elif isinstance(source, list | tuple):
        for one in source:
            yield from _found(one, format, lines)
    elif isinstance(source, str | os.PathLike):
        yield from _in_path(Path(os.fsdecode(source)), format, lines)
    else:
        yield from _found(Market.of(source, format=format, lines=lines), format, lines)


def _in_path(path: Path, format: BarFormat | None, lines: tuple[str, ...]) -> Iterator[tuple[str, Member]]:
    if _is_folder(path):
        files = sorted(one for one in path.iterdir() if one.suffix.lower() in _FILES and one.name[0] != ".")
        if not files:
            raise DataError(f"folder {str(path)!r} has no files of bars: expected some of {list(_FILES)}")
    elif glob.has_magic(str(path)) and not os.path.exists(path):
        files = sorted(Path(one) for one in glob.glob(str(path), recursive=True) if Path(one).is_file())
        if not files:
            raise DataError(f"no file is like {str(path)!r}")
    elif (rows := _membership(path)) is not None:
        yield from _by_dates(rows, path.parent, format, lines)
        return
    else:
        yield from _found(Market.of(path, format=format, lines=lines), format, lines)
        return
    for file in files:
        name = name_of_file(file).partition(".")[0]
        yield name, Member(market=_market(name, file, format, lines))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long or with a NUL; whoever reads bars says what is wrong
        return False


def _market(name: str, source: Any, format: BarFormat | None, lines: tuple[str, ...]) -> Market:
    """Return the market of a symbol; one data has the symbol's name."""
    several = isinstance(source, Market | Mapping | list | tuple)
    return Market.of(source if several else {name: source}, format=format, lines=lines)


def _membership(path: Path) -> list[tuple[str, dict[str, str]]] | None:
    """Return the rows of a file of memberships; None if it is something else."""
    try:
        with open_regular(path) as file:
            encoding = "utf-16" if file.peek(2)[:2] in _UTF_16 else "utf-8-sig"
            text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
            first = text.readline(_LONGEST_HEAD)
            for delimiter in ",;\t":
                head = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
                if set(_NEEDED) <= set(head):
                    return list(_rows(str(path), head, csv.reader(text, delimiter=delimiter, strict=True)))
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
    return None  # whoever reads bars says what is wrong with it


def _rows(path: str, head: list[str], reader: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row of memberships is, and what it says."""
    if unknown := [name for name in head if name not in _KNOWN]:
        raise DataError(f"{path!r}: column {unknown[0]!r}: expected some of {list(_KNOWN)}")
    if len(set(head)) < len(head):
        raise DataError(f"{path!r}: columns {head}: expected each once")
    try:
        for cells in reader:
            where, row = f"{path!r}, line {reader.line_num + 1}", [cell.strip() for cell in cells]
            if any(row[len(head) :]):
                raise DataError(f"{where}: {len(row)} fields, expected at most {len(head)}, as in the header")
            if odd := [cell for cell in row if not cell.isprintable()]:
                raise DataError(f"{where}: {odd[0]!r:.80}: expected text in UTF-8")
            if any(row):
                yield where, {**dict.fromkeys(_KNOWN, ""), **dict(zip(head, row, strict=False))}
    except csv.Error as error:
        raise DataError(f"{path!r}, line {reader.line_num + 1}: not CSV ({error})") from None


def _by_dates(
    rows: Sequence[tuple[str, Mapping[str, str]]],
    folder: Path,
    format: BarFormat | None,
    lines: tuple[str, ...],
) -> Iterator[tuple[str, Member]]:
    """Yield a symbol for each row: one that comes again has the day of its return in its name."""
    markets: dict[str, Market] = {}
    until: dict[str, pd.Timestamp] = {}
    for where, row in rows:
        if not row["file"]:
            raise DataError(f"{where}: no file")
        file, name = folder / row["file"], row["name"] or name_of_file(row["file"])
        start = _day(f"{where}, from", row["from"])
        end = None if row["to"].startswith(_NEVER) else _day(f"{where}, to", row["to"])
        if str(file) not in markets:
            markets[str(file)] = _market(name, file, format, lines)
        market = markets[str(file)]
        if name in until and (start is None or start <= until[name]):
            last = "the end" if until[name] == pd.Timestamp.max else f"{until[name]:%Y-%m-%d}"
            raise DataError(f"{where}: {name!r} is in the universe up to {last} already")
        again = name in until
        until[name] = pd.Timestamp.max if end is None else end
        if end is not None:
            end = end + _DAY if end == end.normalize() else end + pd.Timedelta(1)
        within = (market.index >= (start or market.index[0])) & (market.index < (end or pd.Timestamp.max))
        if not within.any():
            stated = f"from {row['from'] or 'the start'} to {row['to'] or 'the end'}"
            raise DataError(f"{where}: {name!r} has no bar {stated}")
        weight = _weight(where, row["weight"]) if row["weight"] else 1.0
        yield (
            f"{name} {start:%Y-%m-%d}" if again else name,
            Member(
                market=market if end is None else market.between(None, end),
                start=start,
                weight=weight,
                end=end,
            ),
        )


def _day(where: str, text: str) -> pd.Timestamp | None:
    try:
        return moment(text) if text else None
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from None


def _weight(where: str, value: Any) -> float:
    try:
        given = float(value) if isinstance(value, str) else value
    except ValueError:
        given = value
    return number(f"{where}: weight", given, above=0.0)
