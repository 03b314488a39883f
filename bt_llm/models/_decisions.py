"""Decisions of any other tool, read from a file, in the place of a model.

A file is a CSV with a header, or JSON lines, of

=============== ================================================================================
time            when it was made: ISO 8601, ``2024-01-05`` or ``2024-01-05T14:30:00+00:00``; a time
                without an offset is in the zone of the bars, or in ``zone``
symbol          which data it is on, by its name; may be left out where there is one data
decision        buy, hold, sell, and other words for them; see `SIDES`; or a label of the template
probability     of the decision, 0 to 1; may be left out, and is then 1
=============== ================================================================================

Other columns are left alone. The name is ``decisions:FILE``, with options behind a ``?``: ``stamp=close``,
``zone=America/New_York``, ``symbol=AAPL`` (whatever the data is called), ``valid=3d``.

A decision belongs to the bar in which it was made, at or after its open and before its close, and is known at
that close. Many tools write down the open of the bar that they looked at: so neither a time that is a bar's
open nor one that is its close lets anything in early. With ``stamp=close`` it belongs to the bar that was
open before it or closed at it. Of several in one bar the last counts. A bar in which none was made has none,
unless ``valid`` says for how long after its time a decision stands.
"""

from __future__ import annotations

import bisect
import csv
import datetime
import difflib
import functools
import hashlib
import io
import itertools
import json
import math
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qsl

from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.files import read_bytes
from bt_llm.models._base import Answer, Backend, LabelScores, ModelIdentity
from bt_llm.models._config import ModelConfig
from bt_llm.models._registry import KnownModels, ModelKind

__all__ = ["SIDES", "DecisionBook", "DecisionsModel", "MadeDecision", "Timeline", "word_of"]

SIDES: Mapping[str, int] = {
    **dict.fromkeys(("buy", "long", "bullish", "strong buy", "overweight", "up", "enter long", "1", "+1"), 1),
    **dict.fromkeys(("hold", "neutral", "flat", "wait", "none", "no trade", "0"), 0),
    **dict.fromkeys(
        ("sell", "short", "bearish", "strong sell", "underweight", "down", "enter short", "-1"), -1
    ),
}
"""Words for a decision in letters of any case, ``_`` and ``-`` being blanks, and the side that each is on."""

_MOST_ROWS, _LONGEST, _USUAL_MB = 1_000_000, 200, 64
_OPTIONS = ("stamp", "symbol", "valid", "zone")
_VALID = re.compile(r"(\d{1,6})(min|h|d)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days"}


class MadeDecision(NamedTuple):
    """A row of a file."""

    time: datetime.datetime
    """With a zone, or naive in that of the bars."""
    symbol: str
    decision: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class DecisionBook:
    """The decisions of a file, in its order, and how they are matched with bars.

    Parameters
    ----------
    name : str
        The file's name, for messages.
    sha256 : str
        Of its bytes.
    rows : tuple of MadeDecision
        In the file's order; a row's number stands for it.
    symbol : str
        Whose decisions are used whatever the data is called; empty for those of the data's name.
    zone : tzinfo, optional
        Of times without an offset; by default that of the bars.
    at_close : bool
        Whether a time that is the close of a bar belongs to it.
    valid : timedelta
        How long after its time a decision stands in bars in which none was made.
    """

    name: str
    sha256: str
    rows: tuple[MadeDecision, ...]
    symbol: str = ""
    zone: datetime.tzinfo | None = None
    at_close: bool = False
    valid: datetime.timedelta = datetime.timedelta(0)

    @functools.cached_property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that decisions are on; one is empty where the file has none."""
        return tuple(sorted({row.symbol for row in self.rows}))

    def on(self, name: str, bars_zone: datetime.tzinfo) -> Timeline:
        """Return the decisions on a data, by their times.

        Raises
        ------
        ConfigError
            If two of one time differ.
        """
        wanted = _plain(self.symbol or name)
        zone = self.zone or bars_zone
        found = [
            (row.time if row.time.tzinfo else row.time.replace(tzinfo=zone), number)
            for number, row in enumerate(self.rows)
            if not row.symbol or _plain(row.symbol) == wanted
        ]
        found.sort()
        for (time, one), (after, other) in itertools.pairwise(found):
            if time == after and self.rows[one][2:] != self.rows[other][2:]:
                raise ConfigError(
                    f"decisions {self.name!r}: rows {one + 1} and {other + 1} decide otherwise on "
                    f"{name!r:.60} at {time}: expected one decision at a time"
                )
        return Timeline(tuple(time for time, _ in found), tuple(number for _, number in found), self)


@dataclass(frozen=True)
class Timeline:
    """Decisions on one data by their times, and the rows that they are."""

    times: tuple[datetime.datetime, ...]
    numbers: tuple[int, ...]
    book: DecisionBook

    def row_at(self, opened: datetime.datetime, closed: datetime.datetime) -> int:
        """Return the number of the row that counts at a bar's close, -1 for none.

        Parameters
        ----------
        opened, closed : datetime
            When the bar opened and closed, with their zones.

        Examples
        --------
        >>> noon = datetime.datetime(2024, 1, 5, 12, tzinfo=datetime.UTC)
        >>> hour = datetime.timedelta(hours=1)
        >>> book = DecisionBook(name="log.csv", sha256="", rows=(MadeDecision(noon, "", "buy", 1.0),))
        >>> line = book.on("eurusd", datetime.UTC)
        >>> [line.row_at(noon + k * hour, noon + (k + 1) * hour) for k in (-1, 0, 1)]
        [-1, 0, -1]
        """
        find = bisect.bisect_right if self.book.at_close else bisect.bisect_left
        last = find(self.times, closed) - 1
        if last < 0:
            return -1
        time = self.times[last]
        own = time > opened if self.book.at_close else time >= opened
        return self.numbers[last] if own or closed - time <= self.book.valid else -1


class DecisionsModel(ModelKind):
    """A file of decisions, by the bars that they were made in.

    Examples
    --------
    >>> DecisionsModel("log.csv?stamp=close").form
    'decisions:FILE.csv'
    """

    kind: ClassVar[str] = "decisions"
    form: ClassVar[str] = "decisions:FILE.csv"
    by_bar: ClassVar[bool] = True

    def __init__(self, rest: str) -> None:
        super().__init__(rest)
        path, _, self.options = rest.partition("?")
        if not path:
            raise ConfigError("model 'decisions:': expected decisions:FILE.csv or decisions:FILE.jsonl")
        self.path = Path(path)
        self._stated = _stated(self.options)

    @functools.cached_property
    def book(self) -> DecisionBook:
        """What is in the file, as it was when first asked for.

        Raises
        ------
        ModelNotFoundError
            If there is no file.
        ConfigError
            If it is none of decisions.
        """
        where = f"decisions {self.path.name!r:.80}"
        try:
            content = read_bytes(self.path, _USUAL_MB)
        except FileNotFoundError:
            raise ModelNotFoundError(
                f"{where}: no such file; expected CSV or JSON lines of decisions"
            ) from None
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read ({error.strerror or error})") from None
        rows = tuple(_rows(content, where, json_lines=self.path.suffix.lower() in (".jsonl", ".ndjson")))
        if not rows:
            raise ConfigError(f"{where}: no decisions; expected time, symbol, decision, probability")
        naive = {row.time.tzinfo is None for row in rows}
        if len(naive) == 2:
            raise ConfigError(f"{where}: some times have an offset and some none; expected one form")
        sha256 = hashlib.sha256(content).hexdigest()
        return DecisionBook(name=self.path.name, sha256=sha256, rows=rows, **self._stated)

    @property
    def addresses(self) -> tuple[str, ...]:
        """None: a file answers."""
        return ()

    def within(self, folder: Path) -> str:
        """Return the name with the file's path from a folder."""
        return f"{self.kind}:{folder / self.path}" + (f"?{self.options}" if self.options else "")

    def identify(self, known: KnownModels, *, replay: bool = False) -> ModelIdentity:
        """Return what stands for the decisions: the hash of the file."""
        return ModelIdentity(name=f"{self.kind}:{self.path.name}", sha256=self.book.sha256)

    def open(self, config: ModelConfig) -> Backend:
        """Return a backend that answers no prompt; see `bt_llm.advice.DecisionsAdvisor`."""
        return _Nobody(self)


class _Nobody:
    """Stands where a backend is expected: the answers are in the file."""

    def __init__(self, model: DecisionsModel) -> None:
        self._model = model

    @property
    def identity(self) -> ModelIdentity:
        book = self._model.book
        return ModelIdentity(name=f"{self._model.kind}:{book.name}", sha256=book.sha256)

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"backend": "decisions"}

    def score(self, prompts: Any, labels: Any, *, numerics: Any = "canonical") -> Iterator[list[LabelScores]]:
        raise ConfigError(f"model {self._model.name!r:.80} has made its decisions, and answers no prompt")

    def generate_json(self, prompts: Any, schema: Any, *, max_tokens: int, seed: int) -> Iterator[Answer]:
        raise ConfigError(f"model {self._model.name!r:.80} has made its decisions, and answers no prompt")

    def close(self) -> None:
        """Do nothing."""


def _stated(options: str) -> dict[str, Any]:
    """Return what options say, as fields of a `DecisionBook`."""
    pairs = parse_qsl(options, keep_blank_values=True)
    given = dict(pairs)
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown or len(given) < len(pairs) or (options and not pairs):
        raise ConfigError(
            f"decisions: options {options!r:.60}: expected some of {', '.join(_OPTIONS)}, each once"
        )
    stated: dict[str, Any] = {"symbol": given.get("symbol", "")}
    if given.get("stamp", "open") not in ("open", "close"):
        raise ConfigError(f"decisions: stamp={given['stamp']!r:.40}: expected 'open' or 'close'")
    stated["at_close"] = given.get("stamp") == "close"
    if "zone" in given:
        try:
            stated["zone"] = zoneinfo.ZoneInfo(given["zone"])
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise ConfigError(
                f"decisions: zone={given['zone']!r:.40}: expected such as 'Asia/Tokyo'"
            ) from None
    if "valid" in given:
        found = _VALID.fullmatch(given["valid"])
        if found is None:
            raise ConfigError(
                f"decisions: valid={given['valid']!r:.40}: expected such as '90min', '4h' or '3d'"
            )
        stated["valid"] = datetime.timedelta(**{_UNITS[found[2]]: int(found[1])})
    return stated


def _plain(symbol: str) -> str:
    """Return a symbol as it is compared: EUR/USD is eurusd."""
    return "".join(letter for letter in symbol.casefold() if letter.isalnum())


def _rows(content: bytes, where: str, *, json_lines: bool) -> Iterator[MadeDecision]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    tables = _of_json(text, where) if json_lines else _of_csv(text, where)
    for number, row in enumerate(tables, start=1):
        if number > _MOST_ROWS:
            raise ConfigError(f"{where}: over {_MOST_ROWS:,} rows; split the file")
        yield _made(row, f"{where}, row {number}")


def _of_csv(text: str, where: str) -> Iterator[dict[str, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip().casefold() for name in next(reader, [])]
        if len(set(names)) < len(names) or not {"time", "decision"} <= set(names):
            raise ConfigError(
                f"{where}: columns {', '.join(names)!s:.120}: expected time and decision, and symbol and "
                "probability where there are such, each once"
            )
        _check_names(names, where)
        for number, cells in enumerate(filter(None, reader), start=1):
            if len(cells) != len(names):
                raise ConfigError(f"{where}, row {number}: {len(cells)} cells under {len(names)} columns")
            yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{where}, line {reader.line_num}: not CSV ({error})") from None


def _check_names(names: Iterable[str], where: str) -> None:
    """Refuse a name that is nearly one of those that may be left out: its values would be left alone."""
    for ours in {"symbol", "probability"} - set(names):
        if near := difflib.get_close_matches(ours, names, n=1, cutoff=0.85):
            raise ConfigError(f"{where}: {near[0]!r:.40} is left alone: did you mean {ours!r}?")


def _of_json(text: str, where: str) -> Iterator[dict[str, Any]]:
    number = 0
    for line in text.splitlines():
        if not line.strip():
            continue
        number += 1
        try:
            row = json.loads(line, object_pairs_hook=functools.partial(_once, where=f"{where}, row {number}"))
        except (ValueError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{where}, row {number}: not JSON; expected an object a line") from None
        if not isinstance(row, dict) or not {"time", "decision"} <= set(row):
            raise ConfigError(f"{where}, row {number}: expected an object with time and decision")
        _check_names(row, f"{where}, row {number}")
        yield row


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """Return an object's pairs; what is read of a row stands in it once."""
    found = dict(pairs)
    for name in ("time", "symbol", "decision", "probability"):
        if name in found and sum(one == name for one, _ in pairs) > 1:
            raise ConfigError(f"{where}: {name} stands in it twice; expected each once")
    return found


def _made(row: Mapping[str, Any], where: str) -> MadeDecision:
    symbol, decision = (
        _text(row.get("symbol", ""), "symbol", where),
        _text(row["decision"], "decision", where),
    )
    if not decision:
        raise ConfigError(f"{where}: no decision; expected such as buy, hold or sell")
    return MadeDecision(
        time=_time(row["time"], where),
        symbol=symbol,
        decision=decision,
        probability=_probability(row.get("probability"), where),
    )


def _text(given: Any, name: str, where: str) -> str:
    """Return a cell; numbers such as 1, 0 and -1 are words too."""
    if given is None:
        return ""
    if type(given) in (int, float) and given == int(given if math.isfinite(given) else 0):
        given = str(int(given))
    if not isinstance(given, str) or len(given) > _LONGEST or not given.strip().isprintable():
        raise ConfigError(f"{where}: {name} {given!r:.40}: expected a text of at most {_LONGEST} characters")
    return given.strip()


def _time(given: Any, where: str) -> datetime.datetime:
    try:
        if not isinstance(given, str) or not 10 <= len(given.strip()) <= 40:
            raise ValueError
        return datetime.datetime.fromisoformat(given.strip())
    except ValueError:
        raise ConfigError(
            f"{where}: time {given!r:.40}: expected such as 2024-01-05 or 2024-01-05T14:30:00+00:00"
        ) from None


def _probability(given: Any, where: str) -> float:
    if given is None or (isinstance(given, str) and not given.strip()):
        return 1.0
    try:
        value = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{where}: probability {given!r:.40}: expected a number from 0 to 1")
    return value


def word_of(decision: str) -> str:
    """Return a decision as `SIDES` has it.

    Examples
    --------
    >>> SIDES[word_of("STRONG_BUY")], SIDES[word_of("Underweight")]
    (1, -1)
    """
    word = " ".join(re.split(r"[\s_-]+", decision.casefold().strip()))
    return decision.strip() if decision.strip() in SIDES else word.strip()
