"""Options that several commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bt_llm.cli.output import Format

__all__ = [
    "CacheOption",
    "FormatOption",
    "ManifestOption",
    "ModeOption",
    "ModelOption",
    "PlotOption",
    "ThreadsOption",
]

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A GGUF file, a name in models/, smollm2, or scripted:NAME.")
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
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", help="CPU threads; verdicts do not depend on it.")
]
