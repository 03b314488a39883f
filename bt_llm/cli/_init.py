"""``bt-llm init``: a folder to begin with, in which every command runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bt_llm.cli._output import say
from bt_llm.exceptions import ConfigError

__all__ = ["init"]

_PROJECT = Path(__file__).parent / "project"
_OWN = {"strategy.py": "_strategy.py"} | {one: one for one in ("study.toml", "notebook.ipynb", "README.md")}
_SHIPPED = {"data/eurusd_hourly.csv": "eurusd_hourly.csv", "verdicts.jsonl": "demo_pack.jsonl"}


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make, or an empty one that is there.")] = Path(
        "study"
    ),
) -> None:
    """Make a folder with a strategy, bars, a study file and a notebook, ready to run.

    Nothing that is there is written over.

    Example: bt-llm init my_study
    """
    from bt_llm.data import shipped
    from bt_llm.writing import write_whole

    sources = {to: _PROJECT / name for to, name in _OWN.items()} | {
        to: shipped(name) for to, name in _SHIPPED.items()
    }
    if there := [name for name in sources if (folder / name).exists()]:
        raise ConfigError(f"{folder / there[0]} is there already: name a folder that is new or empty")
    try:
        for name, source in sources.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, source.read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror or error}); name another") from error
    for name in sources:
        typer.echo(str(folder / name))
    say(f"next: cd {shlex.quote(str(folder))} && bt-llm run -s strategy.py:Cross -d data/eurusd_hourly.csv")
    say("all else is in its README.md")
