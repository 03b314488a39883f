"""Options that say what runs on which bars, and how these are read; and what their texts mean."""

from __future__ import annotations

import ast
import dataclasses
import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_llm.cli._groups import group
from bt_llm.cli._output import say
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import name_of_file

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.backtest import Market, Universe

__all__ = ["BarsRead", "StrategyOnBars", "StrategyOrStudy", "named_files", "parse_params"]

_Strategy = Annotated[str, typer.Option("--strategy", "-s", help="path/to/file.py:ClassName")]
_Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="[NAME=]FILE",
        help="CSV of bars: time, open, high, low, close, volume. Give one for each data, in their order. "
        "With --each also a folder, a glob in quotes, or a CSV with the columns name, file, from and to.",
    ),
]


@group("The strategy and its bars")
class StrategyOnBars:
    """What is run on what."""

    strategy: _Strategy
    data: _Data
    lines: Annotated[
        list[str] | None,
        typer.Option("--lines", help="A further column that becomes a line of every data; repeatable."),
    ] = None
    each: Annotated[
        bool,
        typer.Option(
            "--each", help="A panel: a run on each symbol, on an account of its own, and all of them pooled."
        ),
    ] = False
    weight: Annotated[
        list[str] | None,
        typer.Option(
            "--weight", metavar="NAME=W", help="Weight of a symbol in a panel, by default 1; repeatable."
        ),
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="A parameter of the strategy, as fast=10; repeatable."),
    ] = None

    @property
    def params(self) -> dict[str, Any]:
        """The strategy's parameters."""
        return parse_params(self.param or [])

    @property
    def files(self) -> Path | dict[str, Path]:
        """The file of the bars; of several datas, or of one with a name of its own, each by its name."""
        named = named_files(self.data or [])
        only = next(iter(named.values()))
        return only if list(named) == [name_of_file(only)] else named

    def market(self, format: BarFormat | None) -> Market:
        """Return the bars of all datas."""
        from bt_llm.backtest import Market

        if self.each:
            raise ConfigError("--each: here all of -d are the datas of one account; ask about each alone")
        if self.weight:
            raise ConfigError(f"--weight {self.weight[0]!r} without --each: expected it of a panel's symbol")
        return Market.of(self.files, lines=self.lines or (), format=format)

    def universe(self, format: BarFormat | None) -> Universe:
        """Return the symbols of a panel."""
        from bt_llm.backtest import Universe

        found = [_source_of(text) for text in self.data or []]
        given = [_weight_of(text) for text in self.weight or []]
        weights = dict(given)
        if len(weights) < len(given):
            raise ConfigError(f"--weight {' --weight '.join(self.weight or [])}: expected one of a symbol")
        return Universe.of(found, weights=weights, lines=self.lines or (), format=format)


@group("The strategy and its bars")
class StrategyOrStudy(StrategyOnBars):
    """What is run on what, where a study file may say it instead."""

    strategy: _Strategy = ""
    data: _Data = None


@group("How the bars are read")
class BarsRead:
    """What is stated of a source of bars, where it does not say it itself."""

    time_format: Annotated[
        str | None, typer.Option("--time-format", help="Of times, as strptime takes it: %d/%m/%Y.")
    ] = None
    zone: Annotated[str | None, typer.Option("--zone", help="Zone of the times: America/New_York.")] = None
    columns: Annotated[
        str | None, typer.Option("--columns", help="Names of the columns: time=Day,close=Settle.")
    ] = None
    decimal: Annotated[str | None, typer.Option("--decimal", help="The decimal sign: . or a comma.")] = None
    adjusted: Annotated[
        bool | None,
        typer.Option("--adjusted/--raw", help="Which prices count, where a file has both."),
    ] = None
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="Which of several instruments; all by default.")
    ] = None
    stamp: Annotated[
        str | None, typer.Option("--stamp", help="Whether a time is its bar's open or close.")
    ] = None
    repair: Annotated[
        str | None, typer.Option("--repair", help="Of bars that cannot be right: drop, widen or fill.")
    ] = None
    max_megabytes: Annotated[
        int | None, typer.Option("--max-megabytes", help="Of a file unpacked, at most; 2048 by default.")
    ] = None
    after: Annotated[
        str | None, typer.Option("--after", help="Only bars after this day: 2023-12-31.", metavar="DAY")
    ] = None
    after_cutoff: Annotated[
        bool,
        typer.Option(
            "--after-cutoff",
            help="Only bars after the training data of the models that are asked ends: --after their day.",
        ),
    ] = False

    def unseen_by(self, *asked: AdvisorConfig) -> BarsRead:
        """Return the options with the day after which no model has read of anything, if that is asked for."""
        if not self.after_cutoff:
            return self
        if self.after is not None:
            raise ConfigError(f"--after {self.after} beside --after-cutoff: expected one of them")
        from bt_llm.research import latest_cutoff, models_asked

        last, why = latest_cutoff(models_asked(*asked))
        for one in why:
            say(f"only bars after {last}: {one}")
        return dataclasses.replace(self, after=last.isoformat(), after_cutoff=False)

    def format(self) -> BarFormat | None:
        """Return the format that these options state; None if nothing is."""
        if self.after_cutoff:
            raise ConfigError("--after-cutoff where no model is asked: give the day, as --after 2023-12-31")
        stated = {n: value for n, value in vars(self).items() if value is not None and n != "after_cutoff"}
        if "columns" in stated:
            stated["columns"] = _columns(stated["columns"])
        return BarFormat(**stated) if stated else None


def _columns(text: str) -> dict[str, str]:
    """Read ``close=Settle,time=Day``; a name of the source may hold everything but a comma."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    for ours, equals, theirs in pairs:
        if not (ours.strip() and equals and theirs.strip()):
            raise ConfigError(f"--columns {text!r}: expected names by ours, such as close=Settle,time=Day")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def named_files(texts: list[str]) -> dict[str, Path]:
    """Read ``NAME=FILE`` or ``FILE``, whose name is then its own without the suffix."""
    files: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or Path(text).is_file():
            name, file = name_of_file(text), text
        if not name or not file:
            raise ConfigError(f"--data {text!r}: expected FILE or NAME=FILE")
        if name in files:
            raise ConfigError(
                f"--data {text!r}: another data is called {name!r}; give each a name, as {name}2={file}"
            )
        files[name] = Path(file)
    return files


def _source_of(text: str) -> Path | dict[str, Path]:
    """Read what ``-d`` says of a panel: a file, folder or glob, or ``NAME=FILE``."""
    name, equals, file = text.partition("=")
    if not equals or Path(text).exists() or glob.has_magic(name):
        return Path(text)
    if not name or not file:
        raise ConfigError(f"--data {text!r}: expected FILE, FOLDER, GLOB or NAME=FILE")
    return {name: Path(file)}


def _weight_of(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise ConfigError(f"--weight {text!r}: expected NAME=NUMBER, such as EURUSD=2") from None


def parse_params(pairs: list[str]) -> dict[str, Any]:
    """Read ``name=value``; a value that is no Python literal is text."""
    chosen: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--param {pair!r}: expected name=value, such as fast=10")
        if name == "gate":
            raise ConfigError(f"--param {pair!r}: the gate is what --model, --require and the like say")
        if name in chosen:
            raise ConfigError(f"--param {pair!r}: {name} is {chosen[name]!r} already; give it once")
        try:
            chosen[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            chosen[name] = text
    return chosen
