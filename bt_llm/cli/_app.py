"""Every command of ``bt-llm``, under its name; the module of one is imported when it is used."""

from __future__ import annotations

from typing import Annotated

import typer

from bt_llm import __version__
from bt_llm.cli._lazy import Verb, lazy_group

__all__ = ["VERBS", "app"]

VERBS = {
    "init": Verb("_init:init", "Make a folder to begin with: strategy, bars, study, notebook."),
    "demo": Verb("_backtests:demo", "See a gated strategy on a year of EUR/USD hours."),
    "run": Verb("_backtests:run", "Run a strategy gated, ungated, and buy and hold."),
    "test": Verb("_research:run_test", "Test whether the model's gate adds anything."),
    "compare": Verb("_research:compare", "Compare models on the same bars."),
    "leakage": Verb("_leakage:leakage", "Ask whether a model remembers a market, in five ways."),
    "walkforward": Verb("_walkforward:walkforward", "Choose on the past, trade what follows it."),
    "plan": Verb("_plan:plan", "Count what a study will ask, take and cost."),
    "data": Verb("_data:data", "Say what files of bars are, or what is wrong in them."),
    "policy": Verb("_policy:policy", "Draw what a model says of every market state."),
    "explain": Verb("_explain:explain", "Put what a model says into the smallest rule."),
    "multiverse": Verb("_multiverse:multiverse", "Ask in every way that is as good, and compare."),
    "reproduce": Verb("_reproduce:reproduce", "Run a manifest again: identical, or the difference."),
    "board": Verb("_board:board", "Rank models under fixed tasks, from their packs."),
    "ask": Verb("_ask:app", "Ask about a headline, several markets, or a trade."),
    "cache": Verb("_cache:app", "Look at, share, verify and repair stored verdicts."),
    "models": Verb("_models:app", "List, inspect, fetch and recommend local models."),
    "doctor": Verb("_doctor:doctor", "Say what this machine has, and what it lacks."),
}
"""The commands in the order of their list."""

app = typer.Typer(
    name="bt-llm",
    cls=lazy_group(VERBS),
    help="Backtest Backtrader strategies that are gated by a local LLM.",
    epilog="Start with: bt-llm demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bt-llm {__version__}")
        raise typer.Exit


@app.callback()
def _before_a_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...
