"""``bt-llm demo`` and ``bt-llm run``: a strategy gated, ungated, and buy and hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bt_llm.advice import AdvisorConfig, telling
from bt_llm.cli._cache import hint_at_demo_pack
from bt_llm.cli._options import (
    CacheOption,
    CashOption,
    CommissionOption,
    CsvOption,
    FormatOption,
    ManifestOption,
    ModelOption,
    ModeOption,
    PlotOption,
    ReportOption,
    SlippageOption,
    ThreadsOption,
    parse_params,
)
from bt_llm.cli._output import Format, deliver, fraction, number, progress_bar, say, show
from bt_llm.exceptions import DataError, MissingExtraError

__all__ = ["demo", "run"]


def demo(
    model: ModelOption = "smollm2",
    cache: CacheOption = None,
    cache_mode: ModeOption = None,
    plot: PlotOption = None,
    manifest: ManifestOption = None,
    report: ReportOption = None,
    csv: CsvOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Gate a moving-average crossover on a year of EUR/USD hours by a model that comes with it.

    The model judges every market state the bars are in; the verdicts are stored, so the second run asks
    nothing and gives the same numbers to the last digit.
    """
    from bt_llm.data import shipped

    with hint_at_demo_pack():
        _study(
            f"{shipped('sma_cross.py')}:GatedSmaCross",
            shipped("eurusd_hourly.csv"),
            AdvisorConfig(model=model, cache_dir=cache, cache_mode=cache_mode),
            {"commission": 0.00002},
            plot,
            output,
            manifest=manifest,
            report=report,
            csv=csv,
        )


def run(
    strategy: Annotated[str, typer.Option("--strategy", "-s", help="path/to/file.py:ClassName")],
    data: Annotated[
        Path, typer.Option("--data", "-d", help="CSV of bars: time, open, high, low, close, volume.")
    ],
    model: ModelOption = "smollm2",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="A parameter of the strategy, as fast=10; repeatable."),
    ] = None,
    cash: CashOption = 10_000.0,
    commission: CommissionOption = 0.0,
    slippage: SlippageOption = 0.0,
    min_confidence: Annotated[float, typer.Option(help="Entries need at least this probability.")] = 0.0,
    template: Annotated[str | None, typer.Option(help="A prompt template's name or file.")] = None,
    reader: Annotated[
        str, typer.Option(help="logprobs: read probabilities; json: generate with a reason.")
    ] = "logprobs",
    calibration: Annotated[str | None, typer.Option(help="grid or none; by default the reader's.")] = None,
    numerics: Annotated[
        str, typer.Option(help="canonical: bitwise the same in any batch; fast.")
    ] = "canonical",
    threads: ThreadsOption = None,
    gpu_layers: Annotated[int, typer.Option(help="Layers on the GPU; -1 is all.")] = 0,
    cache: CacheOption = None,
    cache_mode: ModeOption = None,
    plot: PlotOption = None,
    manifest: ManifestOption = None,
    report: ReportOption = None,
    csv: CsvOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run a strategy with its gate, without it, and buy and hold, on the same bars.

    Example: bt-llm run -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv -p fast=10
    """
    config = AdvisorConfig(
        model=model,
        template=template,
        reader=reader,  # type: ignore[arg-type]
        calibration=calibration,  # type: ignore[arg-type]
        numerics=numerics,  # type: ignore[arg-type]
        n_threads=threads,
        n_gpu_layers=gpu_layers,
        cache_dir=cache,
        cache_mode=cache_mode,
    )
    settings = {
        "params": parse_params(param or []),
        "cash": cash,
        "commission": commission,
        "slippage": slippage,
    }
    _study(
        strategy,
        data,
        config,
        settings,
        plot,
        output,
        min_confidence=min_confidence,
        manifest=manifest,
        report=report,
        csv=csv,
    )


def _study(
    strategy: str,
    data: Path,
    config: AdvisorConfig,
    settings: dict[str, Any],
    plot: Path | None,
    output: Format,
    min_confidence: float = 0.0,
    manifest: Path | None = None,
    report: Path | None = None,
    csv: Path | None = None,
) -> None:
    from bt_llm.backtest import GateStudy, gate_study
    from bt_llm.gates import Gate

    with progress_bar(f"asking {config.model}") as update, telling(update):
        study = gate_study(strategy, data, Gate(advisor=config, min_confidence=min_confidence), **settings)
    if manifest is not None:
        from bt_llm.manifest import write_manifest

        write_manifest(manifest, study, strategy=strategy, data=data)
        say(f"manifest: {manifest}")
    if plot is not None:
        from bt_llm.report import plot_equity

        plot_equity(study.runs, plot)
        say(f"equity curves: {plot}")

    def tables(study: GateStudy) -> None:
        show(_results(study.runs))
        say(_difference(study.gated, study.ungated))
        show(_advice(study.gated.advice or {}, str(config.model)))

    deliver(study, data, report=report, csv=csv, output=output, tables=tables)


def _difference(gated: Any, ungated: Any) -> str:
    """Say what the gate changed, with its interval: a difference without one says nothing."""
    from bt_llm.research import Bootstrap, interval, is_shown

    try:
        found = Bootstrap(resamples=1000).difference(gated.returns, ungated.returns, "return")
    except (DataError, MissingExtraError) as error:
        return f"no interval for the gate's effect: {error}"
    verdict = "" if is_shown(found) else ": not distinguishable from chance"
    return f"Gated less ungated, mean return a year: {interval(found, 'return')}{verdict}."


def _results(runs: dict[str, Any]) -> Table:
    table = Table(title="Results", title_justify="left")
    table.add_column("")
    rows: dict[str, Callable[[dict[str, float]], str]] = {
        "final value": lambda m: number(m["final_value"]),
        "return": lambda m: fraction(m["return"]),
        "Sharpe (annual)": lambda m: number(m["sharpe"]),
        "max drawdown": lambda m: fraction(m["max_drawdown"]),
        "trades": lambda m: f"{int(m['trades'])}",
        "win rate": lambda m: fraction(m["win_rate"], 0),
        "exposure": lambda m: fraction(m["exposure"], 0),
    }
    for name in runs:
        table.add_column(name.replace("_", " "), justify="right")
    for title, cell in rows.items():
        table.add_row(title, *(cell(run.metrics) for run in runs.values()))
    return table


def _advice(advice: dict[str, Any], model: str) -> Table:
    verdicts, gate = advice["verdicts"], advice["gate"]
    who = ", ".join(advice["answered_by"]) or model
    table = Table(title=f"Advice of {who}", title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    counts = ", ".join(f"{verdicts[name]} {name}" for name in ("bullish", "neutral", "bearish", "invalid"))
    table.add_row("bars asked", f"{advice['asked']:,} of {advice['bars']:,}")
    table.add_row("verdicts", counts)
    table.add_row("entries", f"{gate['allowed']} allowed, {gate['blocked']} blocked")
    table.add_row("distinct prompts", f"{advice['distinct']} ({advice['cache_hits']} from the cache)")
    table.add_row("model calls", f"{advice['model_calls']} in {advice['model_seconds']:.1f} s")
    if advice["loads"]:
        memory = f"{advice['peak_memory_mb']:,.0f} MB at most"
        table.add_row("model loads", f"{advice['loads']} in {advice['load_seconds']:.1f} s, {memory}")
    return table
