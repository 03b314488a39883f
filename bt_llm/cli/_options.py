"""Options that several commands share, said once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from bt_llm.cli._output import Format
from bt_llm.exceptions import ConfigError

__all__ = [
    "CacheOption",
    "CashOption",
    "CommissionOption",
    "CsvOption",
    "FormatOption",
    "ManifestOption",
    "ModeOption",
    "ModelOption",
    "PlotOption",
    "ReportOption",
    "SlippageOption",
    "ThreadsOption",
    "parse_params",
]

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="A GGUF file, a name in models/, smollm2, scripted:NAME, or openai:URL."
    ),
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
    typer.Option("--manifest", help="Write what the run was made of and its results, for bt-llm reproduce."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Write the equity curves to this file: PNG, SVG or PDF.")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", help="Write a page with charts to this file, such as report.html.")
]
CsvOption = Annotated[
    Path | None, typer.Option("--csv", help="Write the trades and verdicts into this folder, as CSV.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", help="CPU threads; verdicts do not depend on it.")
]

CashOption = Annotated[float, typer.Option(help="Starting value of the account.")]
CommissionOption = Annotated[float, typer.Option(help="Fraction of the traded value, such as 0.00002.")]
SlippageOption = Annotated[float, typer.Option(help="Fraction of the price.")]


def parse_params(pairs: list[str]) -> dict[str, Any]:
    """Read ``name=value``; a value that is no Python literal is text."""
    chosen: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--param {pair!r}: expected name=value, such as fast=10")
        try:
            chosen[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            chosen[name] = text
    return chosen
