"""``bt-llm leakage``: whether the model could have known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_llm.cli._bar_options import BarsRead, parse_params
from bt_llm.cli._budget import approve
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import refuse_idle, takes_groups
from bt_llm.cli._options import Account, OneModel, Output, Spending, whole_number
from bt_llm.cli._output import deliver, progress_bar, say, say_assumed
from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import counted

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig

__all__ = ["leakage"]


@takes_groups
def leakage(
    data: Annotated[Path, typer.Option("--data", "-d", help="A file of bars, of one instrument.")],
    read: BarsRead,
    asking: OneModel,
    account: Account,
    spending: Spending,
    out: Output,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="What the model is told that the market is called; by default the file's name."
        ),
    ] = None,
    cutoff: Annotated[
        str | None,
        typer.Option(
            metavar="DAY", help="Last day that the model may have read about; by default what its makers say."
        ),
    ] = None,
    points: Annotated[int, typer.Option(help="Bars that are asked about; each takes three prompts.")] = 400,
    horizon: Annotated[int, typer.Option(help="Bars from a verdict to what it is judged by.")] = 5,
    exchanges: Annotated[
        int,
        typer.Option(
            help="Exchanges of futures among bars that looked alike; the smallest p is 1 / (1 + N)."
        ),
    ] = 999,
    alpha: Annotated[
        float, typer.Option(help="Level at which something is found, all probes together.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls", help="Whether scripted models that remember or do not are probed too."
        ),
    ] = True,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            "-s",
            help="path/to/file.py:ClassName, also looked at for look-ahead, with its gate.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="A parameter of the strategy, as fast=10; repeatable."),
    ] = None,
    synthetic: Annotated[
        int,
        typer.Option(
            callback=whole_number(0, 20_000),
            metavar="N",
            help="Run the strategy on N histories of two kinds that never happened; 39 or more tell.",
        ),
    ] = 0,
) -> None:
    """Ask whether a model remembers a market, in five ways; each answers in one sentence.

    The model is asked about a sample of bars: masked, told market and time, told another time, and told
    nothing but these. What of its answers follows the future, beyond what can be seen in the bar's state,
    is memory. An answer is caught, cleared or cannot tell, with p-values adjusted for all five; scripted
    models show on the same bars whether the probes could have caught anything.

    Example: bt-llm leakage -d data/sp500_daily.csv --name "S&P 500" -m smollm2 --points 200

    Example: bt-llm leakage -d data/sp500_daily.csv --cutoff 2012-12-31
    -m "memory:data/sp500_daily.csv?until=2012-12-31" shows what it says of a model that remembers.
    """
    from bt_llm.backtest import Market
    from bt_llm.gates import Gate
    from bt_llm.research import leakage_probes

    if strategy is None and (param or synthetic):
        given = "--param" if param else "--synthetic"
        raise typer.BadParameter(f"{given} without --strategy: give the strategy that it is for")
    if strategy is None:
        refuse_idle(account, "--strategy")
    config = asking.config()
    if config.identify and config.reader != "contrast":
        raise ConfigError(
            f"--identify {config.identify!r}: the probes name market and time themselves; say what to "
            "call the market "
            "by --name"
        )
    read = read.unseen_by(config)
    market = Market.of(data, format=read.format())
    say_doubts([config], None if strategy is None else account)
    _check_budget(config, market, points, spending)
    settings: dict[str, Any] = {}
    if strategy is not None:
        say_assumed(account.assumed)
        settings = {"params": parse_params(param or []), **account.settings()}
    with progress_bar(f"asking {config.model}") as update:
        found = leakage_probes(
            market,
            Gate(advisor=config),
            name=name,
            cutoff=cutoff,
            points=points,
            horizon=horizon,
            exchanges=exchanges,
            seed=seed,
            alpha=alpha,
            controls=controls,
            strategy=strategy,
            synthetic=synthetic,
            on_progress=update,
            **settings,
        )
    deliver(found, market, **out.settings())


def _check_budget(config: AdvisorConfig, market: Any, points: int, spending: Spending) -> None:
    """Ask before more is spent than allowed: three prompts a point beside those of the market's states."""
    if spending.budget is None:
        return
    from bt_llm.research import _planning as planning

    rates = planning.Rates(price_per_mtok=spending.price_per_mtok)
    made = planning.plan([config], bars=len(market.index), rates=rates)
    models = tuple(dataclasses.replace(one, prompts=one.prompts + 3 * points + 1) for one in made.models)
    approve(dataclasses.replace(made, models=models), spending)
    say(f"to ask: {counted(sum(one.left for one in models), 'prompt')} at most")
