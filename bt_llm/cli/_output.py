"""How the command line speaks: tables and JSON on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich.console
import typer
from rich.console import ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bt_llm.exceptions import BtLlmError
from bt_llm.models import Progress as ProgressCallback
from bt_llm.plain_text import printable

if TYPE_CHECKING:
    from bt_llm.backtest import Section, Source, Universe
    from bt_llm.report import Reportable

__all__ = [
    "Console",
    "Format",
    "complain",
    "confirmed",
    "deliver",
    "going_on_unread",
    "print_json",
    "progress_bar",
    "say",
    "say_assumed",
    "show",
    "show_sections",
]

Result = TypeVar("Result", bound="Reportable")


class Format(enum.StrEnum):
    """What a command prints: a table for people, or one JSON object for programs."""

    TABLE = "table"
    JSON = "json"


class Console(rich.console.Console):
    """A console that shows a text as it is: control characters, brackets and ``:names:`` mean nothing in it.

    What is to be in colour is a `rich.text.Text`, or has a style.

    Attributes
    ----------
    unread : bool
        Whether a result was to be printed that nobody reads any more: the exit code is 1 then.
    """

    unread = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the pieces of text and style that something is shown as."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Say that nobody reads what is printed, and leave it to the command what is to be done besides."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def say(message: str) -> None:
    """Print a line to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message)


def say_assumed(line: str) -> None:
    """Print what is taken for granted to standard error, if there is anything."""
    if line:
        say(line)


def complain(error: object) -> None:
    """Print an error as one line to standard error."""
    text, _, rest = str(error).partition("\n")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error:", "bold red"), f" {text}"))
    if rest:  # such as the diff of a replay miss, below the line that says what happened
        console.print(rest)


def confirmed(question: str) -> bool:
    """Ask on standard error; the end of the input, and Ctrl-C, are no."""
    try:
        return typer.confirm(printable(question), err=True)
    except typer.Abort:
        return False


def show(renderable: Any) -> None:
    """Print a table to standard output."""
    with _written():
        Console().print(renderable)


def print_json(value: Any) -> None:
    """Print one JSON object to standard output."""
    with _written():
        print(json.dumps(value, indent=2, allow_nan=False, default=str))  # noqa: T201 - the output itself


@contextlib.contextmanager
def _written() -> Iterator[None]:
    """Turn a standard output that takes nothing more, such as a file on a full disk, into an error."""
    try:
        yield
        if sys.stdout is not None:  # closed by who called the command
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads it
        raise
    except OSError as error:
        raise BtLlmError(f"standard output cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def going_on_unread() -> Iterator[None]:
    """Go on where nobody reads standard output any more: what is to be written is, and the exit code is 1."""
    try:
        yield
    except BrokenPipeError:
        Console.unread = True


def deliver(
    result: Result,
    data: Source | Universe | None,
    *,
    report: Path | None,
    csv: Path | None,
    output: Format,
) -> None:
    """Print the result, then write what ``--report`` and ``--csv`` ask for and say where.

    Parameters
    ----------
    result : Reportable
        What a command found.
    data : path, mapping, Market or Universe
        The bars it was found on.
    report, csv : Path or None
        A page, and a folder of tables.
    output : Format
        JSON, or tables.
    """
    with going_on_unread():
        if output is Format.JSON:
            print_json(result.to_dict())
        else:
            show_sections(result.sections())
    if report is not None or csv is not None:
        from bt_llm.report import write_csv, write_report

        if report is not None:
            write_report(report, result, data=data)
            say(f"report: {report}")
        if csv is not None:
            names = " and ".join(path.name for path in write_csv(csv, result))
            say(f"tables: {names} in {csv}")


def show_sections(sections: Iterable[Section]) -> None:
    """Print the tables of a result, then its sentences, findings last: they stay on the screen."""
    findings = []
    for section in sections:
        if section.kind == "sentences":
            findings.append(section)
        elif section.table is not None and not section.folded:
            show(_table(section.title, section.table))
    for section in reversed(findings):  # the first section is what was found
        show(_sentences(section))


def _table(title: str, content: dict[str, Any]) -> Table:
    head, *others = content["head"]
    table = Table(title=title, title_justify="left", show_header=any(content["head"]))
    table.add_column(head, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    for row in content["rows"]:
        table.add_row(*row)
    return table


def _sentences(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", show_header=False, box=None)
    table.add_column("")
    table.add_column("")
    for sentence in section.content:
        table.add_row("-", sentence)
    return table


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
        TextColumn("{task.description}", markup=False),
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
