"""``bt-llm explain``: what a model says of market states, as the smallest rule that says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bt_llm import advice as advising
from bt_llm.cli._bar_options import BarsRead
from bt_llm.cli._budget import check_budget_of_states
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import refuse_idle, takes_groups
from bt_llm.cli._options import FormatOption, OneModel, Spending
from bt_llm.cli._output import Format, deliver, progress_bar, say
from bt_llm.cli._places import file_to_write, files_to_write

__all__ = ["explain"]


@takes_groups
def explain(
    asking: OneModel,
    read: BarsRead,
    spending: Spending,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "-d", help="Bars: agreement is then also counted by how often a state occurs."
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth", min=0, help="Cuts in a row of the rule, at most; by default it agrees on every state."
        ),
    ] = None,
    export: Annotated[
        list[Path] | None,
        typer.Option(
            "--export",
            help="Write the rule to this file: .py, .pine (v6) or .csv; repeat it for several.",
            callback=files_to_write,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write a page to this file.", callback=file_to_write)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a model's policy as a rule: the smallest decision tree that says the same, and smaller ones.

    A model on a finite set of market states is a table, and a table is a rule. The trees are the best there
    are, not what a greedy search finds. Also: which way the answers go along each feature, and whether shorts
    are treated as longs are.

    The Python file is one pure function. It trades without the model, and is what the model has to beat:

    bt-llm explain --depth 3 --export rule.py, then bt-llm test --rule rule.py -s ... -d ...

    Example: bt-llm explain -m smollm2 -d data/eurusd_hourly.csv --export rule.py --export rule.pine
    """
    from bt_llm.research import cell_visits
    from bt_llm.research import explain as explained

    if data is None:
        refuse_idle(read, "--data")
    config = asking.config()
    say_doubts([config])
    check_budget_of_states([config], spending)
    with (
        advising.Advisor(config) as advisor,
        progress_bar(f"asking {config.model}") as update,
        advising.telling(update),
    ):
        policy = advising.Policy.of(advisor)
    market = None
    if data is not None:
        from bt_llm.backtest import Market

        market = Market.of(data, format=read.unseen_by(config).format())
    visits = None if market is None else cell_visits(market, config)
    found = explained(policy, visits=visits, depth=depth)
    deliver(found, market, report=report, csv=None, output=output)
    for path in export or ():
        found.export(path)
        say(f"rule: {path}")
