"""``bt-llm plan``: what a study will take, before anything is asked."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bt_llm.cli._bar_options import BarsRead, StrategyOrStudy
from bt_llm.cli._budget import approve, budget_of
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import refuse_idle, takes_groups
from bt_llm.cli._options import Account, Asking, FormatOption, Spending, whole_number
from bt_llm.cli._output import Format, print_json, progress_bar, say, show, show_sections
from bt_llm.cli._trust import Trusting, TrustOption
from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import counted

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.backtest import Market, Universe
    from bt_llm.research import ModelPlan, Plan, Study

__all__ = ["plan", "study_configs"]


@takes_groups
def plan(
    context: typer.Context,
    spending: Spending,
    what: StrategyOrStudy,
    read: BarsRead,
    account: Account,
    asking: Asking,
    study: Annotated[
        Path | None, typer.Argument(help="A study file (TOML); without one, give --bars.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A model, instead of the study's; repeatable.")
    ] = None,
    symbols: Annotated[int, typer.Option(help="Symbols that the study is run on.")] = 1,
    bars: Annotated[
        int | None, typer.Option(help="Bars of each symbol; by default the study's data.")
    ] = None,
    request_ms: Annotated[float, typer.Option(help="Milliseconds a request of a server takes.")] = 200.0,
    power: Annotated[
        bool,
        typer.Option("--power", help="Say what a test could find, from the ungated strategy on the bars."),
    ] = False,
    pass_rate: Annotated[
        float, typer.Option("--pass-rate", help="Share of entries that the gate is assumed to let through.")
    ] = 0.5,
    random: Annotated[
        int, typer.Option("--random", callback=whole_number(1, 20_000), help="Random gates of that test.")
    ] = 200,
    ask: Annotated[bool, typer.Option("--ask", help="Ask now for all that is left, and store it.")] = False,
    trust: TrustOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Count what a study will ask: distinct prompts, tokens, seconds and money; cold, cached and left.

    Example: bt-llm plan examples/walk_forward.toml

    Example: bt-llm plan --power -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv

    With --each, --power says what test --each and compare --each could find.

    Example: bt-llm plan --symbols 50 --bars 175000 -m "openai:http://127.0.0.1:8000/v1?model=llama-8b"
    """
    from bt_llm.backtest import Universe
    from bt_llm.research import _planning as planning

    chosen = asking.given(context)
    if not what.data and (study is not None or not power):
        for idle in (what, read, account):
            refuse_idle(idle, "--data")
    described = None
    if study is not None:
        from bt_llm.research import load_study

        described = load_study(study, trust=Trusting(f"study {study}", trust) if ask else True)
        described.check_trust(asking.cache_mode)
    spending = budget_of(described, spending)
    configs = study_configs(described, model or [], chosen)
    say_doubts(configs, account if described is None else described.account)
    market = _bars_given(what, read)
    if power:
        _show_power(described, what, market, account, configs, model or [], pass_rate, random, output)
        return
    if market is not None and bars is None:
        bars = market.bars if isinstance(market, Universe) else sum(map(len, market.values()))
    per_symbol = bars if bars is not None else _bars_of(described)
    made = planning.plan(
        configs,
        symbols=symbols,
        bars=per_symbol,
        backtest_bars=_backtest_bars(described if bars is None else None, per_symbol),
        rates=planning.Rates(price_per_mtok=spending.price_per_mtok, request_ms=request_ms),
    )
    if output is Format.JSON:
        print_json(made.to_dict())
    else:
        show(_table(made))
        for one in made.models:
            say(f"{one.model}: from {one.source}")
        say(_sentence(made))
    if ask:
        approve(made, spending)
        _ask(configs)
    elif spending.budget is not None and (problem := made.over(spending.budget)):
        say(problem)


def _bars_given(what: StrategyOrStudy, read: BarsRead) -> Market | Universe | None:
    """Return the bars that the options name, of a panel its symbols; None if they name none."""
    if not what.data:
        return None
    return what.universe(read.format()) if what.each else what.market(read.format())


def _show_power(
    described: Study | None,
    what: StrategyOrStudy,
    market: Market | Universe | None,
    account: Account,
    configs: list[AdvisorConfig],
    models: list[str],
    pass_rate: float,
    random: int,
    output: Format,
) -> None:
    """Print what a test could find on the bars of a study, or of the options; of a panel a comparison too."""
    from bt_llm.backtest import Universe, sentences_section
    from bt_llm.gates import Gate
    from bt_llm.research import plan_panel_power, plan_power

    gate = Gate(advisor=configs[0]) if configs else Gate()
    if described is not None and market is None:
        strategy, market = described.strategy, described.bars_read
        own = {name: value for name, value in described.params.items() if not name.startswith("gate.")}
        settings = {"params": own, **described.account.model_dump()}
    elif what.strategy and market is not None:
        strategy, settings = what.strategy, {"params": what.params, **account.settings()}
    else:
        raise ConfigError("--power needs the ungated strategy: give --strategy and --data, or a study file")
    assumed: dict[str, Any] = {"pass_rate": pass_rate, "n": random, **settings}
    made = (
        plan_panel_power(strategy, market, gate, **_as_compared(described, models), **assumed)
        if isinstance(market, Universe)
        else plan_power(strategy, market, gate, **assumed)
    )
    if output is Format.JSON:
        print_json(made.to_dict())
    else:
        show_sections([sentences_section(made.sentences, "What a test could find")])


def _as_compared(study: Study | None, models: list[str]) -> dict[str, Any]:
    """Return how many models are compared, and what a study says of how."""
    section = None if study is None else study.compare
    if section is None:
        return {"models": max(2, len(models))}
    stated = section.model_dump(include={"resamples", "seed", "block_length"})
    return {"models": max(2, len(models or section.models)), **stated}


def study_configs(study: Study | None, models: list[str], chosen: dict[str, Any]) -> list[AdvisorConfig]:
    """Return how each model of a study is asked, every combination that asks differently.

    Parameters
    ----------
    study : Study or None
        The study; its ``[compare]`` counts too.
    models : list of str
        Models instead of the study's.
    chosen : dict
        Arguments of `AdvisorConfig` that override the study's.
    """
    from bt_llm.advice import AdvisorConfig

    if study is None:
        return [AdvisorConfig(model=name, **chosen) for name in models or ["smollm2"]]
    gate = study.make_gate(**chosen)
    first = gate.advisor if gate is not None else AdvisorConfig(**chosen)
    if gate is None and not models and study.compare is None:
        return []
    searched = {
        name.rpartition(".")[2]: values
        for name, values in {**{k: [v] for k, v in study.params.items()}, **study.grid}.items()
        if name.startswith("gate.advisor.") and name != "gate.advisor.calibration"
    }
    if models:
        searched["model"] = models
    elif study.compare is not None:
        compared = study.compare.models
        names = list(compared.values()) if isinstance(compared, dict) else list(compared)
        searched["model"] = [*searched.get("model", [first.model]), *names]
    made = [
        dataclasses.replace(first, **dict(zip(searched, values, strict=True)))
        for values in itertools.product(*searched.values())
    ]
    return list(dict.fromkeys(made))


def _bars_of(study: Study | None) -> int:
    if study is None:
        raise ConfigError("no study file and no --bars: give one of them")
    return study.bars_count


def _backtest_bars(study: Study | None, bars: int) -> int:
    """Return the bars of all backtests of a study, its constraints not counted."""
    if study is None:
        return bars
    total = 0
    if study.compare is not None:
        total += bars * (len(study.compare.models) + 2)  # ungated and the rule
    if study.walk_forward is not None:
        from bt_llm.backtest import Universe
        from bt_llm.research import WalkForward

        searched = {"metric", "min_trades", "constraints"}
        split = WalkForward(**study.walk_forward.model_dump(exclude=searched))
        combinations = math.prod(len(values) for values in study.grid.values())
        market = study.bars_read
        indexes = [one.index for one in market.values()] if isinstance(market, Universe) else [market.index]
        tests = 1 if isinstance(market, Universe) else _tests_of(study)
        for fold in split.split(market.index):
            for index in indexes:
                train, test = (
                    int(index.searchsorted(last, side="right") - index.searchsorted(first))
                    for first, last in (
                        (fold.train_start, fold.train_end),
                        (fold.test_start, fold.test_end),
                    )
                )
                total += combinations * train + tests * test
    return total or bars


def _tests_of(study: Study) -> int:
    """Return how often a test stretch is traded: by the choice, by each model's own, and without a gate."""
    asked = [len(study.grid.get(f"gate.advisor.{name}", [None])) for name in ("model", "template")]
    models = math.prod(asked)
    return 1 + (models if models > 1 else 0) + (study.gate is not None)


def _ask(configs: list[AdvisorConfig]) -> None:
    from bt_llm.advice import Advisor, member_configs
    from bt_llm.verdicts import prior_cells

    members = [member for one in configs for member in member_configs(one)]
    for config in (member for member in members if not member.by_bar):
        cells = prior_cells(config.state_space)
        with Advisor(config) as advisor, progress_bar(f"asking {config.model}") as update:
            advisor.raw_cells(cells, on_progress=update)


def _table(made: Plan) -> Table:
    # Narrow: 80 columns are few for a model's address and eight numbers.
    table = Table(title="Plan", title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("model", overflow="fold")
    for title in (
        *("prompts\n", "cached\n", "left\n", "tokens\nleft"),
        *("time\ncold", "time\nleft", "money\ncold", "money\nleft"),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for model in made.models:
        table.add_row(*_row(model))
    return table


def _row(model: ModelPlan) -> list[str]:
    return [
        model.model,
        f"{model.prompts:,}",
        f"{model.cached:,}",
        f"{model.left:,}",
        f"{model.tokens(model.left):,}",
        _time(model.seconds(model.prompts)),
        _time(model.seconds(model.left)),
        _money(model.money(model.prompts)),
        _money(model.money(model.left)),
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _money(value: float | None) -> str:
    return "?" if value is None else f"{value:,.2f}"


def _sentence(made: Plan) -> str:
    asked = made.symbols * made.bars * len(made.models)
    each = f"{counted(made.symbols, 'symbol')} x " if made.symbols > 1 else ""
    prompts = made.total("prompts", "cold")
    return (
        f"{each}{counted(made.bars, 'bar')} x {counted(len(made.models), 'model')} = {asked:,} verdicts from "
        f"{prompts:,} distinct prompts at most, {made.total('prompts'):,} of them to ask "
        f"(time {_time(made.total('seconds'))}, money {_money(made.total('money'))}); backtests take about "
        f"{_time(made.backtest_seconds)} of one process."
    )
