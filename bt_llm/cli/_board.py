"""``bt-llm board``: many models under one set of tasks, from their packs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bt_llm.cli._options import FormatOption
from bt_llm.cli._output import Format, print_json, progress_bar, say, show_sections
from bt_llm.cli._places import file_to_write

__all__ = ["board"]


def board(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="A folder with tasks.toml and a pack an entry; by default the one that ships.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", help="Write the board as a page to this file: board.html.", callback=file_to_write
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Rank models under one fixed set of tasks, recomputed from their packs: no model is asked.

    DIR has tasks.toml (strategies, bars, costs, seeds) and a pack for each entry, NAME.jsonl, from
    bt-llm cache export. Entries drawn by chance, the plain rule and the ungated strategies are added. What
    cannot be told apart is not ranked apart: the model confidence set says who may be the best.

    Example: bt-llm board

    Example: bt-llm board data/board --report board.html
    """
    from bt_llm.data import shipped_board
    from bt_llm.research import board as made

    def tell(file: Path) -> None:
        say(f"runs {file}")

    with progress_bar("runs") as update:
        found = made(folder or shipped_board(), on_progress=update, on_code=tell)
    if output is Format.JSON:
        print_json(found.to_dict())
    else:
        show_sections(found.sections())
    if report is not None:
        from bt_llm.report import write_report

        write_report(report, found, title="Board")
        say(f"report: {report}")
