"""``bt-llm test`` and ``bt-llm compare``: does the model add anything, and which model adds more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from bt_llm.advice import AdvisorConfig, telling
from bt_llm.cli._budget import BudgetOption, PriceOption, YesOption, budget_of, check_budget
from bt_llm.cli._options import (
    CacheOption,
    CashOption,
    CommissionOption,
    CsvOption,
    FormatOption,
    ModelOption,
    ModeOption,
    ReportOption,
    SlippageOption,
    ThreadsOption,
    parse_params,
)
from bt_llm.cli._output import Format, deliver, fraction, number, progress_bar, show
from bt_llm.exceptions import ConfigError

if TYPE_CHECKING:
    from bt_llm.research import GateTest, ModelComparison

__all__ = ["compare", "run_test"]

StrategyOption = Annotated[str, typer.Option("--strategy", "-s", help="path/to/file.py:ClassName")]
DataOption = Annotated[
    Path, typer.Option("--data", "-d", help="CSV of bars: time, open, high, low, close, volume.")
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="A parameter of the strategy, as fast=10; repeatable."),
]
ConfidenceOption = Annotated[float, typer.Option(help="Entries need at least this probability.")]
RequireOption = Annotated[
    str, typer.Option(help="agree: the verdict must be the entry's side; not_against: it must not oppose.")
]
TemplateOption = Annotated[str | None, typer.Option(help="A prompt template's name or file.")]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same result.")]
ResamplesOption = Annotated[int, typer.Option(help="Resamples of the bootstrap.")]


def run_test(
    strategy: StrategyOption,
    data: DataOption,
    model: ModelOption = "smollm2",
    random: Annotated[int, typer.Option("--random", help="Random gates; each is one backtest.")] = 200,
    shifts: Annotated[int, typer.Option(help="Gates with the same verdicts at other bars; 0 for none.")] = 50,
    per: Annotated[
        str, typer.Option(help="entry or bar: what random gates keep the pass rate of.")
    ] = "entry",
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 is one for each CPU.")] = 1,
    seed: SeedOption = 0,
    resamples: ResamplesOption = 2000,
    param: ParamOption = None,
    cash: CashOption = 10_000.0,
    commission: CommissionOption = 0.0,
    slippage: SlippageOption = 0.0,
    min_confidence: ConfidenceOption = 0.0,
    require: RequireOption = "agree",
    template: TemplateOption = None,
    budget: BudgetOption = None,
    price_per_mtok: PriceOption = None,
    yes: YesOption = False,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    cache_mode: ModeOption = None,
    report: ReportOption = None,
    csv: CsvOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Test whether the model's gate adds anything, against gates that know nothing.

    Example: bt-llm test -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv --jobs 2
    """
    from bt_llm.gates import Gate
    from bt_llm.research import bar_answers, gate_test

    config = AdvisorConfig(
        model=model, template=template, n_threads=threads, cache_dir=cache, cache_mode=cache_mode
    )
    gate = Gate(advisor=config, min_confidence=min_confidence, require=require)  # type: ignore[arg-type]
    check_budget([config], data, (budget, price_per_mtok), yes=yes)
    with _asking([config]):
        bar_answers(data, gate)
    with progress_bar("running gates that know nothing") as update:
        found = gate_test(
            strategy,
            data,
            gate,
            n=random,
            shifts=shifts,
            per=per,  # type: ignore[arg-type]
            n_jobs=jobs,
            seed=seed,
            resamples=resamples,
            on_progress=update,
            params=parse_params(param or []),
            cash=cash,
            commission=commission,
            slippage=slippage,
        )
    deliver(found, data, report=report, csv=csv, output=output, tables=_print_test)


def _print_test(found: GateTest) -> None:
    show(_metrics({name: run.metrics for name, run in found.runs.items()}, _TEST_ROWS))
    show(_ranks(found))
    show(_sentences(found.sentences))


def compare(
    context: typer.Context,
    study: Annotated[
        Path | None,
        typer.Argument(
            help="A study file (TOML) with [compare], which says everything but where verdicts are kept."
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", "-s", help="path/to/file.py:ClassName")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="CSV of bars: time, open, high, low, close, volume."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A model, as for run; give it twice or more.")
    ] = None,
    horizon: Annotated[int, typer.Option(help="Bars from a verdict to what it is judged by.")] = 5,
    seed: SeedOption = 0,
    resamples: ResamplesOption = 2000,
    param: ParamOption = None,
    cash: CashOption = 10_000.0,
    commission: CommissionOption = 0.0,
    slippage: SlippageOption = 0.0,
    min_confidence: ConfidenceOption = 0.0,
    require: RequireOption = "agree",
    template: TemplateOption = None,
    budget: BudgetOption = None,
    price_per_mtok: PriceOption = None,
    yes: YesOption = False,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    cache_mode: ModeOption = None,
    report: ReportOption = None,
    csv: CsvOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Compare models: the same strategy on the same bars, gated by one after the other.

    Example: bt-llm compare -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv
    -m smollm2 -m scripted:trend; or, from a file: bt-llm compare examples/walk_forward.toml
    """
    from bt_llm.gates import Gate
    from bt_llm.research import compare_models, gates_by_name

    if study is not None:
        _check_only_study(context)
        where = {"cache_dir": cache, "cache_mode": cache_mode, "n_threads": threads}
        found, bars = _compare_study(study, where, (budget, price_per_mtok), yes=yes)
        deliver(found, bars, report=report, csv=csv, output=output, tables=_print_comparison)
        return
    if strategy is None or data is None or not model:
        wanted = {"--strategy": strategy, "--data": data, "--model": model}
        missing = ", ".join(name for name, value in wanted.items() if not value)
        raise typer.BadParameter(f"{missing} missing: give --strategy, --data and --model, or a study file")
    advisor = AdvisorConfig(template=template, n_threads=threads, cache_dir=cache, cache_mode=cache_mode)
    gate = Gate(advisor=advisor, min_confidence=min_confidence, require=require)  # type: ignore[arg-type]
    if len(model) < 2:
        raise ConfigError(
            f"--model {model[0]}: expected two models or more, such as -m smollm2 -m {model[0]}"
        )
    configs = [gate.advisor for gate in gates_by_name(model, gate).values()]
    check_budget(configs, data, (budget, price_per_mtok), yes=yes)
    with _asking(configs):
        found = compare_models(
            strategy,
            data,
            model,
            gate=gate,
            horizon=horizon,
            seed=seed,
            resamples=resamples,
            params=parse_params(param or []),
            cash=cash,
            commission=commission,
            slippage=slippage,
        )
    deliver(found, data, report=report, csv=csv, output=output, tables=_print_comparison)


_BESIDE_A_STUDY = (
    *("study", "budget", "price_per_mtok", "yes"),
    *("threads", "cache", "cache_mode", "report", "csv", "output"),
)


def _check_only_study(context: typer.Context) -> None:
    """Refuse what the study file says itself: the same file gives the same result."""
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params if parameter.name}
    given = [
        option
        for name, option in options.items()
        if name not in _BESIDE_A_STUDY
        and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"{', '.join(given)} beside a study file: write it in the file, or give no file"
        )


def _compare_study(
    path: Path, where: dict[str, Any], budget: tuple[float | None, float | None], *, yes: bool
) -> tuple[ModelComparison, Path]:
    """Return what a study file compares, and where its bars are."""
    from bt_llm.gates import Gate
    from bt_llm.research import gates_by_name, load_study

    study = load_study(path)
    bars = Path(study.data)
    if study.compare is None:
        return study.run_compare(), bars  # says what is missing
    gate = study.make_gate(**where) or Gate(advisor=AdvisorConfig(**where))
    configs = [gate.advisor for gate in gates_by_name(study.compare.models, gate).values()]
    check_budget(configs, bars, budget_of(study, *budget), yes=yes)
    with _asking(configs):
        return study.run_compare(advisor=where), bars


def _print_comparison(found: ModelComparison) -> None:
    show(_metrics(found.table.to_dict("index"), _COMPARE_ROWS))
    show(_models(found))
    for pair in found.pairs:
        show(_agreement(pair.agreement, pair.models))
    show(_sentences(found.sentences))


@contextlib.contextmanager
def _asking(configs: list[AdvisorConfig]) -> Iterator[None]:
    """Show how far the models are, as they are asked."""
    models = ", ".join(str(config.model) for config in configs)
    with progress_bar(f"asking {models}") as update, telling(update):
        yield


def _whole(value: float) -> str:
    return f"{int(value):,}"


def _percent(value: float) -> str:
    return fraction(value, 0)


_TEST_ROWS = {
    "return": ("return", fraction),
    "sharpe": ("Sharpe", number),
    "max_drawdown": ("max drawdown", fraction),
    "trades": ("trades", _whole),
    "win_rate": ("hit rate", _percent),
    "exposure": ("exposure", _percent),
}
_COMPARE_ROWS = {
    "pnl": ("P&L", number),
    "return": ("return", fraction),
    "sharpe": ("Sharpe", number),
    "sortino": ("Sortino", number),
    "calmar": ("Calmar", number),
    "max_drawdown": ("max drawdown", fraction),
    "turnover": ("turnover", number),
    "trades": ("trades", _whole),
    "hit_rate": ("hit rate", _percent),
    "exposure": ("exposure", _percent),
}


def _metrics(runs: Any, rows: dict[str, Any]) -> Table:
    table = Table(title="Results", title_justify="left")
    table.add_column("")
    for name in runs:
        table.add_column(escape(name.replace("_", " ")), justify="right", overflow="fold")
    for key, (title, shown) in rows.items():
        table.add_row(title, *(shown(metrics[key]) for metrics in runs.values()))
    return table


def _ranks(found: GateTest) -> Table:
    table = Table(title="Rank of the gate", title_justify="left")
    table.add_column("among")
    for title in ("gates", "return: above", "p", "Sharpe: above", "p"):
        table.add_column(title, justify="right")
    for nulls in (found.random, found.shifted):
        if nulls is not None:
            ranks = [
                cell
                for metric in ("return", "sharpe")
                for cell in (_percent(nulls.share_below(metric)), f"{nulls.p_value(metric):.3f}")
            ]
            table.add_row(nulls.kind, str(nulls.n), *ranks)
    return table


def _models(found: ModelComparison) -> Table:
    table = Table(title="Models", title_justify="left")
    table.add_column("")
    for name in found.scores:
        table.add_column(escape(name), justify="right", overflow="fold")
    scores, costs = found.scores.values(), found.costs.values()
    table.add_row("right", *(_percent(model.accuracy) for model in scores))
    table.add_row("right by the commonest answer", *(_percent(model.base_rate) for model in scores))
    table.add_row("Brier score", *(number(model.brier, 3) for model in scores))
    table.add_row("market states", *(_whole(cost.prompts) for cost in costs))
    table.add_row("model calls", *(_whole(cost.model_calls) for cost in costs))
    table.add_row("seconds in the model", *(number(cost.model_seconds, 1) for cost in costs))
    table.add_row("tokens", *(_whole(cost.tokens) for cost in costs))
    table.add_row("ms a stored verdict", *(number(cost.stored_ms, 1) for cost in costs))
    table.add_row("memory, MB (estimate)", *(number(cost.memory_mb, 0) for cost in costs))
    return table


def _agreement(counts: Any, models: tuple[str, str]) -> Table:
    table = Table(
        title=escape(f"Bars by answer: {models[0]} in rows, {models[1]} in columns"), title_justify="left"
    )
    table.add_column("")
    for label in counts.columns:
        table.add_column(label, justify="right")
    for label, row in counts.iterrows():
        table.add_row(label, *(_whole(count) for count in row))
    return table


def _sentences(sentences: list[str]) -> Table:
    table = Table(title="Findings", title_justify="left", show_header=False, box=None)
    table.add_column("")
    table.add_column("")
    for sentence in sentences:
        table.add_row("-", escape(sentence))
    return table
