"""What a run manifest holds, and how the file is written and read back."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from bt_llm.cache import GeneratedText, StoredAnswer
from bt_llm.data import BarFormat
from bt_llm.equality import nan_equal
from bt_llm.exceptions import CacheCorruptError, ConfigError, DataError
from bt_llm.manifest._text import laid_out, read_document, write_text
from bt_llm.plain_text import name_of_file
from bt_llm.verdicts import Verdict

__all__ = [
    "FORMAT",
    "KIND",
    "TRADE_COLUMNS",
    "DataFacts",
    "ModelFacts",
    "RunFacts",
    "RunManifest",
    "StrategyFacts",
    "manifest_of",
    "read_manifest",
]

T = TypeVar("T")

FORMAT = 1
KIND = "bt_llm run"

TRADE_COLUMNS = ("opened", "closed", "direction", "bars", "pnl", "pnlcomm")
"""What a trade's row holds, in order; times are ISO 8601."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRADE_TYPES = ((str,), (str,), (int,), (int,), (float, type(None)), (float, type(None)))


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Which bars a run was made on.

    Attributes
    ----------
    file : str or None
        Name of a file that comes with bt_llm, or a path from the manifest's folder; None for a DataFrame.
    bars : int
        How many.
    first, last : str
        Times of the first and the last, in ISO 8601.
    sha256 : str
        `bt_llm.data.bars_sha256` of them.
    format : mapping
        The fields of `BarFormat` that were stated of the file, as JSON.
    notes : tuple of str
        What was assumed, repaired or warned of when it was read, one line each.
    """

    file: str | None
    bars: int
    first: str
    last: str
    sha256: str
    format: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values, once."""
        _check(self, file=(str, type(None)), bars=(int,), first=(str,), last=(str,))
        _check(self, format=(dict,), notes=(list, tuple))
        _check_sha256(self)
        if not all(isinstance(note, str) for note in self.notes):
            raise ConfigError("notes: expected texts")
        try:
            BarFormat(**self.format)
        except (DataError, TypeError) as error:
            raise ConfigError(f"format: {error}") from error
        object.__setattr__(self, "notes", tuple(self.notes))


@dataclass(frozen=True, kw_only=True)
class StrategyFacts:
    """Whose trades they are.

    Attributes
    ----------
    file : str or None
        As in `DataFacts`.
    name : str
        Of the class in it.
    sha256 : str
        Hash of its text, line ends normalised.
    neighbours : mapping of str to str
        The same of the modules beside the file that it imports, by their paths from its folder.
    """

    file: str | None
    name: str
    sha256: str
    neighbours: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values, once."""
        _check(self, file=(str, type(None)), name=(str,), neighbours=(dict,))
        _check_sha256(self)
        for relative, digest in self.neighbours.items():
            if (
                not _SHA256.fullmatch(str(digest))
                or PurePosixPath(relative).is_absolute()
                or ".." in relative
            ):
                raise ConfigError(f"neighbours: {relative!r:.60}: expected paths from the folder, and hashes")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model that was asked: its name, the hash of its bytes, and the builds that gave its answers.

    The builds are there for an audit. They are not compared: in a replay nothing is computed by them.
    """

    name: str
    sha256: str
    answered_by: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Check the values, once."""
        _check(self, name=(str,), answered_by=(list, tuple))
        _check_sha256(self)
        if not all(isinstance(build, dict) for build in self.answered_by):
            raise ConfigError("answered_by: expected a list of objects")
        object.__setattr__(self, "answered_by", tuple(self.answered_by))


@nan_equal
@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What came of one run, to the last digit.

    Attributes
    ----------
    metrics : mapping
        `BacktestResult.to_dict`; None where a number has no meaning.
    bars : int
        Bars of the equity curve.
    equity_sha256 : str
        Hash of the equity curve's times and values.
    trades : tuple
        One row a closed trade, see `TRADE_COLUMNS`.
    """

    metrics: Mapping[str, float | None]
    bars: int
    equity_sha256: str
    trades: tuple[tuple[Any, ...], ...]

    def __post_init__(self) -> None:
        """Check the values, once."""
        _check(self, metrics=(dict,), bars=(int,), trades=(list, tuple))
        _check_sha256(self, "equity_sha256")
        if not all(type(value) in (int, float, type(None)) for value in self.metrics.values()):
            raise ConfigError("metrics: expected numbers and null")
        rows = tuple(tuple(row) if isinstance(row, list | tuple) else () for row in self.trades)
        for number, row in enumerate(rows, 1):
            typed = zip(row, _TRADE_TYPES, strict=False)
            if len(row) != len(TRADE_COLUMNS) or not all(type(value) in types for value, types in typed):
                raise ConfigError(f"trade {number}: expected a row of {', '.join(TRADE_COLUMNS)}")
        object.__setattr__(self, "trades", rows)


@dataclass(frozen=True, kw_only=True)
class RunManifest:
    """Everything a run was made of, and what came of it.

    Attributes
    ----------
    study : bool
        True for a `GateStudy` (gated, ungated, buy and hold), False for one backtest.
    data : mapping of str to DataFacts
        The bars of each data by its name, in order.
    strategy : StrategyFacts
        The strategy's code.
    params : mapping
        Its parameters but the gate, as JSON.
    broker : mapping
        ``cash``, ``commission``, ``slippage`` and ``percent``, as `run_backtest` takes them; empty with a
        set-up of the user's.
    gate : mapping or None
        The gate with its advisor, prompt template and state space, as JSON.
    models : tuple of ModelFacts
        The models asked.
    versions : mapping
        Of python, bt_llm, backtrader, numpy and pandas.
    verdicts : mapping of str to Verdict or GeneratedText
        The raw answers that the run depends on, by key: with grid calibration the verdicts on the whole grid.
    runs : mapping of str to RunFacts
        Results by the name of the run.
    setup : StrategyFacts or None
        The user's set-up: its file, the function in it, and the hash of its text. None for the default.
    start, end : str or None
        The first time at which it may trade, and the time before which the bars end, in ISO 8601: the
        membership of a symbol in a universe. None for all of the data.
    settles : bool
        Whether what is open at the last close is closed there.
    folder : Path
        Where the file is; paths in it start there. Not part of equality.

    Notes
    -----
    Left out because no result depends on it: the cache's folder and mode, threads, layers on the GPU, and
    when the run was made. So the same run gives the same bytes.
    """

    study: bool
    data: Mapping[str, DataFacts]
    strategy: StrategyFacts
    params: Mapping[str, Any]
    broker: Mapping[str, float]
    gate: Mapping[str, Any] | None
    models: tuple[ModelFacts, ...]
    versions: Mapping[str, str]
    verdicts: Mapping[str, StoredAnswer]
    runs: Mapping[str, RunFacts]
    setup: StrategyFacts | None = None
    start: str | None = None
    end: str | None = None
    settles: bool = False
    folder: Path = dataclasses.field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        """Check the values, once."""
        _check(self, study=(bool,), params=(dict,), broker=(dict,), gate=(dict, type(None)), versions=(dict,))
        _check(self, verdicts=(dict,), runs=(dict,), settles=(bool,))
        _check(self, start=(str, type(None)), end=(str, type(None)))
        for name in ("start", "end"):
            _check_time(name, getattr(self, name))
        if not self.data:
            raise ConfigError("data: expected at least one")
        names = {"cash", "commission", "slippage", "percent"} if self.setup is None else set()
        if set(self.broker) != names or not all(
            type(value) in (int, float) for value in self.broker.values()
        ):
            raise ConfigError("broker: expected the numbers cash, commission, slippage and percent")
        if not all(isinstance(version, str) for version in self.versions.values()):
            raise ConfigError("versions: expected texts")
        expected = {"gated", "ungated", "buy_and_hold"} if self.study else set(list(self.runs)[:1])
        if set(self.runs) != expected or not self.runs:
            raise ConfigError(f"runs {sorted(self.runs)}: expected {sorted(expected) or 'one'}")

    @property
    def text(self) -> str:
        """The file's text: sorted and with every digit, so that the same run gives the same bytes."""
        document = self.document
        (name, first), *_ = self.data.items()
        if len(self.data) == 1 and name == _usual_name(first):
            document["data"] = {key: one for key, one in document["data"][0].items() if key != "name"}
        document["verdicts"] = {key: verdict.to_dict() for key, verdict in self.verdicts.items()}
        return laid_out({"format": FORMAT, "kind": KIND, **document}) + "\n"

    @property
    def document(self) -> dict[str, Any]:
        """What the file holds, but its kind, its format and the verdicts."""
        document = dataclasses.asdict(dataclasses.replace(self, verdicts={}))
        del document["folder"], document["verdicts"]
        for name in ("strategy", "setup"):
            if document[name] is not None and not document[name]["neighbours"]:
                del document[name]["neighbours"]
        if self.setup is None:
            del document["setup"]
        for facts in document["data"].values():
            for name in ("format", "notes"):
                if not facts[name]:
                    del facts[name]
        for name in ("start", "end", "settles"):
            if not document[name]:
                del document[name]
        document["data"] = [{"name": name, **facts} for name, facts in document["data"].items()]
        return document

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, in one step when it is complete.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """
        write_text(path, self.text)


def read_manifest(path: str | os.PathLike[str]) -> RunManifest:
    """Read a manifest and check all of it; the file is untrusted. Nothing that it names is opened or run.

    Raises
    ------
    ConfigError
        If the file is not what `write_manifest` writes; the message names the field.
    """
    return read_document(path, manifest_of)


def manifest_of(document: Any, folder: Path) -> RunManifest:
    """Return the manifest of a run from its JSON, checked; paths in it start at a folder."""
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise ConfigError(f"expected an object with kind {KIND!r}")
    if document.get("format") != FORMAT:
        found = document.get("format")
        raise ConfigError(f"format {found!r}: this bt_llm reads {FORMAT}; use the bt_llm that wrote it")
    fields = {name: value for name, value in document.items() if name not in ("kind", "format")}
    models, runs, verdicts = fields.get("models"), fields.get("runs"), fields.get("verdicts")
    if not (isinstance(models, list) and isinstance(runs, dict) and isinstance(verdicts, dict)):
        raise ConfigError("expected a list of models, and objects of runs and verdicts")
    fields["data"] = _datas(fields.get("data"))
    setup = fields.get("setup")
    fields["setup"] = None if setup is None else _made(StrategyFacts, "setup", setup)
    fields["strategy"] = _made(StrategyFacts, "strategy", fields.get("strategy"))
    fields["models"] = tuple(_made(ModelFacts, f"model {at}", one) for at, one in enumerate(models, 1))
    fields["runs"] = {name: _made(RunFacts, f"run {name!r}", one) for name, one in runs.items()}
    fields["verdicts"] = {key: _verdict(key, stored) for key, stored in verdicts.items()}
    return dataclasses.replace(_made(RunManifest, "manifest", fields, {"folder"}), folder=folder)


def _usual_name(facts: DataFacts) -> str:
    """Return what a single data is called whose name nobody has stated."""
    return "data" if facts.file is None else name_of_file(facts.file)


def _datas(stored: Any) -> dict[str, DataFacts]:
    """Return the facts of each data by name; a single one may have that of its file."""
    if not isinstance(stored, list):
        facts = _made(DataFacts, "data", stored)
        return {_usual_name(facts): facts}
    found: dict[str, DataFacts] = {}
    for at, one in enumerate(stored, 1):
        name = one.pop("name", None) if isinstance(one, dict) else None
        if not isinstance(name, str) or not name or name in found:
            raise ConfigError(f"data {at}: expected a name of its own")
        found[name] = _made(DataFacts, f"data {name!r}", one)
    return found


def _made(cls: type[T], where: str, values: Any, left_out: set[str] | None = None) -> T:
    """Return an object made of exactly its fields."""
    fields = [one for one in dataclasses.fields(cls) if one.name not in (left_out or ())]  # type: ignore[arg-type]
    names, optional = (
        {one.name for one in fields},
        {"neighbours", "format", "notes", "start", "end", "settles"},
    )
    if not isinstance(values, dict) or not names - optional <= set(values) <= names:
        unknown = sorted(set(values) - names)[:3] if isinstance(values, dict) else []
        hint = f"; it has unknown ones, {unknown}" if unknown else ""
        raise ConfigError(f"{where}: expected the fields {', '.join(sorted(names))}{hint}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _verdict(key: str, stored: Any) -> StoredAnswer:
    if not _SHA256.fullmatch(key) or not isinstance(stored, dict):
        raise ConfigError(f"verdict {key[:12]!r}: expected an object under 64 hex digits")
    try:
        return GeneratedText.from_dict(stored) if "text" in stored else Verdict.from_dict(stored)
    except CacheCorruptError as error:
        raise ConfigError(f"verdict {key[:12]}: {error}") from error


def _check(value: Any, **types: tuple[type, ...]) -> None:
    for name, allowed in types.items():
        found = getattr(value, name)
        if type(found) not in allowed:
            raise ConfigError(f"{name}={found!r:.60}: expected {allowed[0].__name__}")


def _check_sha256(value: Any, name: str = "sha256") -> None:
    found = getattr(value, name)
    if not isinstance(found, str) or not _SHA256.fullmatch(found):
        raise ConfigError(f"{name}={found!r:.60}: expected 64 hex digits")


def _check_time(name: str, text: str | None) -> None:
    try:
        found = None if text is None else datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r:.60}: expected a time in ISO 8601") from error
    if found is not None and found.tzinfo is not None:
        raise ConfigError(f"{name}={text!r:.60}: expected a time without a zone, as the bars have")
