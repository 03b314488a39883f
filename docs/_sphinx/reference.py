"""Write the pages of the reference that come out of the code: the commands, and every public name."""

from __future__ import annotations

import importlib
import re
from enum import Enum
from pathlib import Path
from typing import Any, get_args

ROOMS = (
    *(
        "backtest",
        "gates",
        "indicators",
        "analyzers",
        "observers",
        "sizers",
        "feeds",
        "advice",
        "verdicts",
        "prompts",
    ),
    *("models", "cache", "data", "research", "statistics", "manifest", "report", "exceptions"),
)


def write(folder: Path) -> None:
    """Write the pages anew; those that did not change are left, so that a second build is quick."""
    pages = {f"cli/{name}.md": text for name, text in command_pages().items()}
    pages |= {f"api/{name}.md": text for name, text in room_pages().items()}
    for part in ("cli", "api"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for old in (folder / part).glob("*.md"):
            if f"{part}/{old.name}" not in pages:
                old.unlink()
    named = set(re.findall(r"^   (bt_llm\.\S+)$", "\n".join(pages.values()), re.MULTILINE))
    for old in (folder / "api").glob("*.rst"):
        if old.stem not in named:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def command_pages() -> dict[str, str]:
    """Return a page for each command of ``bt-llm``, and their index."""
    import typer

    from bt_llm.cli import app

    root = typer.main.get_command(app)
    pages: dict[str, str] = {}

    def walk(command: Any, names: tuple[str, ...]) -> None:
        if hasattr(command, "list_commands"):
            context = typer.Context(command)
            for name in command.list_commands(context):
                walk(command.get_command(context, name), (*names, name))
        else:
            pages["_".join(names)] = command_page(command, names)

    walk(root, ())
    lines = [
        "# Commands",
        "",
        "Every command that prints a table takes `--format json`. Exit codes: 0 done, 1 the run failed "
        "(one line says why), 2 wrong usage, 130 Ctrl-C. These pages are made from the program itself.",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    for name, text in pages.items():
        title, *_ = text.splitlines()
        lines.append(f"| [{title.removeprefix('# ')}]({name}.md) | {text.splitlines()[2]} |")
    lines += ["", "```{toctree}", ":hidden:", "", *pages, "```", ""]
    return {"index": "\n".join(lines), **pages}


def command_page(command: Any, names: tuple[str, ...]) -> str:
    """Return the page of one command."""
    context = command.make_context(" ".join(names), [], resilient_parsing=True)
    paragraphs = (command.help or "").replace("\b\n", "").split("\n\n")
    help_text = "\n\n".join(" ".join(one.split()) for one in paragraphs)
    pieces = " ".join(command.collect_usage_pieces(context))
    lines = [f"# bt-llm {' '.join(names)}", "", plain(help_text), "", "```text"]
    lines += [f"bt-llm {' '.join(names)} {pieces}", "```", ""]
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(parameter)
    for panel, parameters in panels.items():
        lines += [f"## {panel}", "", "| | what | default |", "|---|---|---|"]
        lines += [row(parameter) for parameter in parameters]
        lines.append("")
    return "\n".join(lines)


def value_of(parameter: Any) -> str:
    """Return what stands for the value of an option or argument."""
    if parameter.metavar:
        return str(parameter.metavar)
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    described = getattr(parameter, "type_descriptor", None)
    kind = getattr(described, "annotation", None)
    kind = next(iter(get_args(kind)), kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def row(parameter: Any) -> str:
    """Return a row of a table of options."""
    if parameter.param_type_name == "argument":
        name, default = f"`{value_of(parameter)}`", "required" if parameter.required else ""
    else:
        flags = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
        value = "" if parameter.is_flag else f" `{value_of(parameter)}`"
        name = f"{flags}{value}"
        known = parameter.default if not callable(parameter.default) else None
        shown = isinstance(known, str | int | float) and not isinstance(known, bool) and known != ""
        default = "required" if parameter.required else f"`{getattr(known, 'value', known)}`" if shown else ""
    help_text = " ".join((getattr(parameter, "help", "") or "").split())
    return f"| {cell(name)} | {cell(plain(help_text))} | {cell(default)} |"


def plain(text: str) -> str:
    """Return help without Rich's escapes, as Markdown shows it."""
    return text.replace("\\[", "[").replace("<", "&lt;").replace("*", "\\*")


def alias(kind: Any) -> str:
    """Return what a name of a type stands for."""
    return re.sub(r"[\w.]+\.(?=\w)", "", str(kind))


def cell(text: str) -> str:
    """Return a text that stays in its cell of a table."""
    return text.replace("|", "\\|")


def room_pages() -> dict[str, str]:
    """Return a page for each room, and their index."""
    import bt_llm

    short = set(bt_llm.__all__)
    pages, rows = {}, []
    for room in ROOMS:
        module = importlib.import_module(f"bt_llm.{room}")
        names = sorted(getattr(module, "__all__", ()), key=str.lower)
        said = " ".join((module.__doc__ or "").split("\n\n")[0].split())
        table = ["```{eval-rst}", ".. autosummary::", "   :toctree: .", "   :nosignatures:", ""]
        aliases = [name for name in names if get_args(getattr(module, name))]
        table += [f"   bt_llm.{room}.{name}" for name in names if name not in aliases]
        heading = [f"# bt_llm.{room}", "", said, ""]
        types = [f"`{name}` is the type `{alias(getattr(module, name))}`.\n" for name in aliases]
        pages[room] = "\n".join([*heading, *table, "```", "", *types])
        here = ", ".join(f"`{name}`" for name in names if name in short)
        rows.append(f"| [bt_llm.{room}]({room}.md) | {cell(said)} | {here} |")
    lines = [
        "# Python",
        "",
        "Every public name, by the room that it lives in. Those of the last column are names of `bt_llm` "
        "itself too: `from bt_llm import Gate`. They are imported when they are first used.",
        "",
        "| room | what it is | also in `bt_llm` |",
        "|---|---|---|",
        *rows,
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *ROOMS,
        "```",
        "",
    ]
    return {"index": "\n".join(lines), **pages}
