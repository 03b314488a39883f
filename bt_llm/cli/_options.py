"""Options that several commands share: how a model is asked, the account, chance, money, and what comes out.

Those of the bars stand in `_bar_options`. Groups of options are what `takes_groups` spreads out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_llm.cli._groups import group
from bt_llm.cli._output import Format
from bt_llm.cli._places import (
    file_of_a_study_to_write,
    file_to_write,
    picture_to_write,
    tables_to_write,
)
from bt_llm.exceptions import ConfigError

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.gates import Gate

__all__ = [
    "Account",
    "Asking",
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
    "ThreadsOption",
    "whole_number",
]


def whole_number(least: int, most: int) -> Callable[[typer.CallbackParam, int], int]:
    """Return what checks that an option gives a number of runs that a machine can work off."""

    def checked(param: typer.CallbackParam, value: int) -> int:
        from bt_llm.settings import whole

        return whole(max(param.opts, key=len), value, least, most)

    return checked


_MODEL = (
    "A GGUF file, a name that bt-llm models list shows, ollama:NAME:TAG, openai:URL or systemone:URL (API "
    "key: BT_LLM_API_KEY, for the host in BT_LLM_API_HOST), dated:FILE.toml, decisions:FILE.csv, or "
    "scripted:NAME."
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
        help="Write what was run, and what it came to, to this file, for bt-llm reproduce.",
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
    resamples: Annotated[
        int, typer.Option(callback=whole_number(19, 100_000), help="Resamples of the bootstrap.")
    ] = 2000

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
            callback=tables_to_write,
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
