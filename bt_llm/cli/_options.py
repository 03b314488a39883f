"""Options that several commands share, said once; groups of them are what `takes_groups` spreads out."""

from __future__ import annotations

import ast
import dataclasses
import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_llm.cli._groups import group
from bt_llm.cli._output import Format, say
from bt_llm.cli._places import file_of_a_study_to_write, file_to_write, folder_to_write, picture_to_write
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import name_of_file

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.backtest import Market, Universe
    from bt_llm.gates import Gate

__all__ = [
    "Account",
    "Asking",
    "BarsRead",
    "CacheOption",
    "FormatOption",
    "GateRule",
    "LayersOption",
    "ManifestOption",
    "ModeOption",
    "ModelOption",
    "ModelsOption",
    "OneModel",
    "Output",
    "OutputOfStudy",
    "PlotOption",
    "Resampling",
    "Spending",
    "StrategyOnBars",
    "StrategyOrStudy",
    "ThreadsOption",
    "named_files",
    "parse_params",
]

_MODEL = (
    "A GGUF file, a name in models/, smollm2, scripted:NAME, ollama:NAME:TAG, or openai:URL (its API key: "
    "BT_LLM_API_KEY, for the host in BT_LLM_API_HOST)."
)

ModelOption = Annotated[str, typer.Option("--model", "-m", help=_MODEL)]
ModelsOption = Annotated[
    list[str] | None, typer.Option("--model", "-m", help="A model, as for run; give it twice or more.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of stored verdicts.", envvar="BT_LLM_CACHE_DIR", show_envvar=True),
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        "--cache-mode",
        help="record: use stored, ask the rest; replay: never ask; refresh: ask all again; off.",
        envvar="BT_LLM_CACHE_MODE",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="A table, or one JSON object.")]
ManifestOption = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        help="Write what the run, or every run of --each, was made of and came to, for bt-llm reproduce.",
        callback=file_to_write,
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Write the equity curves to this file: PNG, SVG or PDF.",
        callback=picture_to_write,
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", help="CPU threads; verdicts do not depend on it.")
]


LayersOption = Annotated[int, typer.Option("--gpu-layers", help="Layers on the GPU; -1 is all.")]

_ARGUMENTS = {"gpu_layers": "n_gpu_layers", "threads": "n_threads", "cache": "cache_dir"}
"""Options with another name than the argument that they are."""


@group("How a model is asked")
class Asking:
    """Everything of an `AdvisorConfig` but the model."""

    template: Annotated[str | None, typer.Option(help="A prompt template's name or file.")] = None
    reader: Annotated[
        str,
        typer.Option(
            help="logprobs: read probabilities; json: generate with a reason; contrast: probabilities less "
            "what --identify alone gets."
        ),
    ] = "logprobs"
    identify: Annotated[
        str,
        typer.Option(
            help="A line that tells the model market and time: 'EUR/USD, hourly, 2017'; none by default."
        ),
    ] = ""
    calibration: Annotated[str | None, typer.Option(help="grid or none; by default the reader's.")] = None
    numerics: Annotated[str, typer.Option(help="canonical: bitwise the same in any batch; fast.")] = (
        "canonical"
    )
    min_label_mass: Annotated[
        float | None, typer.Option(help="Share of the probability that labels must hold; else INVALID.")
    ] = None
    threads: ThreadsOption = None
    gpu_layers: LayersOption = 0
    cache: CacheOption = None
    cache_mode: ModeOption = None

    def config(self, **model: Any) -> AdvisorConfig:
        """Return the configuration that these options give; ``model=`` says whose."""
        from bt_llm.advice import AdvisorConfig

        return AdvisorConfig(**self.settings(), **model)

    def given(self, context: typer.Context) -> dict[str, Any]:
        """Return the arguments of `AdvisorConfig` that were stated, for what a study says otherwise."""
        stated = {
            name: value
            for name, value in vars(self).items()
            if getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"
        }
        return {_ARGUMENTS.get(name, name): value for name, value in stated.items()}

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `AdvisorConfig` that these options are."""
        return {
            "template": self.template,
            "reader": self.reader,
            "identify": self.identify,
            "calibration": self.calibration,
            "numerics": self.numerics,
            "min_label_mass": self.min_label_mass,
            "n_gpu_layers": self.gpu_layers,
            **self.places(),
        }

    def places(self) -> dict[str, Any]:
        """Return the arguments that no verdict depends on: where it is kept, and how many threads ask."""
        return {"n_threads": self.threads, "cache_dir": self.cache, "cache_mode": self.cache_mode}


@group("How a model is asked")
class OneModel(Asking):
    """A model, and how it is asked."""

    model: ModelOption = "smollm2"

    def config(self, **changes: Any) -> AdvisorConfig:
        """Return the configuration that these options give."""
        return super().config(**{"model": self.model, **changes})


@group("The gate")
class GateRule:
    """When a verdict lets an entry through."""

    min_confidence: Annotated[float, typer.Option(help="Entries need at least this probability.")] = 0.0
    require: Annotated[
        str,
        typer.Option(help="agree: the verdict must be the entry's side; not_against: it must not oppose."),
    ] = "agree"

    def gate(self, advisor: AdvisorConfig) -> Gate:
        """Return the gate on an advisor's verdicts."""
        from bt_llm.gates import Gate

        return Gate(advisor=advisor, min_confidence=self.min_confidence, require=self.require)  # type: ignore[arg-type]


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

        if self.weight:
            raise ConfigError(f"--weight {self.weight[0]} without --each: expected it of a panel's symbol")
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


@group("The account")
class Account:
    """How an account is opened, and what trading costs."""

    cash: Annotated[float, typer.Option(help="Starting value of the account.")] = 10_000.0
    commission: Annotated[float, typer.Option(help="Fraction of the traded value, such as 0.00002.")] = 0.0
    slippage: Annotated[float, typer.Option(help="Fraction of the price.")] = 0.0
    percent: Annotated[
        float | None,
        typer.Option(help="Share of the account that an order of unstated size takes; by default 95."),
    ] = None
    sizer: Annotated[
        str | None,
        typer.Option(
            help="Sizes such orders: file.py:Class, or a sizer of Backtrader's, such as AllInSizer."
        ),
    ] = None
    setup: Annotated[
        str | None,
        typer.Option(
            help="file.py:function with your own setup(cerebro, market), instead of the options above."
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `run_backtest` that these options are."""
        if self.percent is not None and self.sizer is not None:
            raise ConfigError(f"--percent {self.percent:g} beside --sizer {self.sizer}: expected one of them")
        percent = {} if self.percent is None else {"percent": self.percent}
        chosen = {"cash": self.cash, "commission": self.commission, "slippage": self.slippage}
        return {**chosen, **percent, "sizer": self.sizer, "setup": self.setup}

    @property
    def assumed(self) -> str:
        """What is taken for granted, in one line; empty where the user said it."""
        if (self.percent, self.sizer, self.setup) != (None, None, None):
            return ""
        return (
            "assumed: an order of unstated size takes 95 % of the account; say otherwise by --percent, "
            "--sizer or --setup"
        )


@group("Chance")
class Resampling:
    """Where chance comes from, and how much of it."""

    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0
    resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap.")] = 2000

    def settings(self) -> dict[str, Any]:
        """Return the arguments that these options are."""
        return {"seed": self.seed, "resamples": self.resamples}


@group("What may be spent")
class Spending:
    """What a command may spend on servers without asking first."""

    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            min=0.0,
            help="Money that may be spent on servers without asking; the study's by default.",
        ),
    ] = None
    price_per_mtok: Annotated[
        float | None,
        typer.Option("--price-per-mtok", help="What a server takes for a million tokens, in your money."),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", help="Spend over the budget without asking.")] = False


@group("What comes out")
class Output:
    """Where a result goes, and how it is printed."""

    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write a page with charts to this file, such as report.html.",
            callback=file_to_write,
        ),
    ] = None
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="Write the trades and verdicts into this folder, as CSV.",
            callback=folder_to_write,
        ),
    ] = None
    output: FormatOption = Format.TABLE

    def settings(self) -> Mapping[str, Any]:
        """Return the arguments of `deliver` that these options are."""
        return {"report": self.report, "csv": self.csv, "output": self.output}


@group("What comes out")
class OutputOfStudy(Output):
    """Where a study's result goes, whose own folder is made when it runs."""

    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write a page with charts to this file, such as report.html.",
            callback=file_of_a_study_to_write,
        ),
    ] = None


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
        except (ValueError, SyntaxError):
            chosen[name] = text
    return chosen
