"""``bt-llm walkforward``: search on the past, judge by what follows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bt_llm.cli._budget import budget_of, check_budget
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import takes_groups
from bt_llm.cli._options import CacheOption, ModeOption, OutputOfStudy, Spending, ThreadsOption
from bt_llm.cli._output import Console, Format, deliver, going_on_unread, say
from bt_llm.cli._places import check_folder_of_results, folder_to_write
from bt_llm.cli._plan import study_configs
from bt_llm.cli._trust import Trusting, TrustOption
from bt_llm.models import Progress as ProgressCallback

if TYPE_CHECKING:
    from bt_llm.research import PanelWalkForwardResult, WalkForwardResult

__all__ = ["walkforward"]


@takes_groups
def walkforward(
    spending: Spending,
    out: OutputOfStudy,
    study: Annotated[Path, typer.Argument(help=r"A study file (TOML) with \[walk_forward] and \[grid].")],
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", help="Processes, by default 1; -1 is one for each CPU."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Run the trials on a Dask cluster instead: its scheduler, such as tcp://10.0.0.5:8786, or "
            "a scheduler file. Its machines need bt-llm; workers get the bars, the strategy's source and a "
            "pack of the verdicts, never the model.",
            metavar="ADDRESS",
        ),
    ] = None,
    output_folder: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the ledger and the results, instead of the study's.",
            callback=folder_to_write,
        ),
    ] = None,
    trust: TrustOption = False,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    cache_mode: ModeOption = None,
) -> None:
    """Run a walk-forward study: choose on each train stretch, trade the test stretch that follows it.

    Every trial is written down in the output folder. An interrupted study goes on where it was, and what
    was ever tried there counts when the result is judged. Results depend neither on the number of processes
    nor on where they run.

    Example: bt-llm walkforward examples/walk_forward.toml --jobs 2
    """
    if jobs is not None and dask is not None:
        raise typer.BadParameter("expected --jobs or --dask, not both: a cluster has the workers it has")
    from bt_llm.research import load_study

    described = load_study(study, trust=Trusting(f"study {study}", trust))
    described.check_trust(cache_mode)
    folder = output_folder if output_folder is not None else Path(described.output)
    check_folder_of_results(folder)
    if out.report is not None:
        out.report.parent.mkdir(parents=True, exist_ok=True)
    advisor = {"cache_dir": cache, "cache_mode": cache_mode, "n_threads": threads}
    asked = described.model_copy(update={"compare": None})
    configs = study_configs(asked, [], {name: value for name, value in advisor.items() if value is not None})
    say_doubts(configs, described.account)
    check_budget(configs, described.bars_read, budget_of(described, spending))
    with _where(dask), _two_bars() as (on_prompts, on_progress):
        result = described.run_walk_forward(
            n_jobs=jobs, advisor=advisor, output=folder, on_prompts=on_prompts, on_progress=on_progress
        )
    if out.output is Format.TABLE:
        with going_on_unread():
            show_diagram(result)
    deliver(result, described.bars_read, **out.settings())
    result.save(folder)
    others = ", the others were in the ledger" if result.trials_run < result.trials else ""
    say(f"{result.trials_run} of {result.trials} trials run{others}; results: {folder}")


@contextlib.contextmanager
def _where(dask: str | None) -> Iterator[None]:
    """Say where trials run; Dask's own tracebacks would hide the line that says what happened."""
    if dask is None:
        yield
        return
    from bt_llm.research import dask_cluster

    with dask_cluster(dask):
        for name in ("distributed", "distributed.client", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield


@contextlib.contextmanager
def _two_bars() -> Iterator[tuple[ProgressCallback, ProgressCallback]]:
    """Show a bar for prompts and one for trials on standard error, each once there is something to do."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = [progress.add_task(label, total=None, visible=False) for label in ("asking", "trials")]

        def updating(task: Any) -> ProgressCallback:
            def update(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total, visible=done < total)

            return update

        yield updating(tasks[0]), updating(tasks[1])


def show_diagram(result: WalkForwardResult | PanelWalkForwardResult) -> None:
    """Print where the folds lie, as wide as the terminal is."""
    console = Console()
    console.print(result.diagram(min(console.width, 100)), highlight=False, soft_wrap=True)
