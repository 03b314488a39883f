"""How the command line speaks: tables and JSON on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import enum
import json
import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bt_llm.backends.base import Progress as ProgressCallback

__all__ = ["Format", "complain", "fraction", "number", "print_json", "progress_bar", "say", "show"]


class Format(enum.StrEnum):
    """What a command prints: a table for people, or one JSON object for programs."""

    TABLE = "table"
    JSON = "json"


def say(message: str) -> None:
    """Print a line to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


def complain(error: object) -> None:
    """Print an error as one line to standard error."""
    text, _, rest = str(error).partition("\n")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(text)}")
    if rest:  # such as the diff of a replay miss, below the line that says what happened
        console.print(rest, markup=False)


def show(renderable: Any) -> None:
    """Print a table to standard output."""
    Console().print(renderable)


def print_json(value: Any) -> None:
    """Print one JSON object to standard output."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))  # noqa: T201 - the output itself


def number(value: float, digits: int = 2) -> str:
    """Return a number for a table, or a dash where it has no meaning."""
    return "-" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def fraction(value: float, digits: int = 2) -> str:
    """Return a fraction as a percentage."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


class _Rate(ProgressColumn):
    """Prompts a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, once there is one."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[ProgressCallback]:
    """Show a bar with rate and time left on standard error; yields what to call with (done, total)."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None, visible=False)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield update
