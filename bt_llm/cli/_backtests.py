"""``bt-llm demo`` and ``bt-llm run``: a strategy gated, ungated, and buy and hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cli._cache import hint_at_demo_pack
from bt_llm.cli._groups import takes_groups
from bt_llm.cli._options import (
    Account,
    CacheOption,
    GateRule,
    ManifestOption,
    ModelOption,
    ModeOption,
    OneModel,
    Output,
    PlotOption,
    StrategyOnBars,
)
from bt_llm.cli._output import deliver, fraction, number, progress_bar, say, show
from bt_llm.exceptions import DataError, MissingExtraError
from bt_llm.gates import Gate

__all__ = ["demo", "run"]


@takes_groups
def demo(
    out: Output,
    model: ModelOption = "smollm2",
    cache: CacheOption = None,
    cache_mode: ModeOption = None,
    plot: PlotOption = None,
    manifest: ManifestOption = None,
) -> None:
    """Gate a moving-average crossover on a year of EUR/USD hours by a model that comes with it.

    The model judges every market state the bars are in; the verdicts are stored, so the second run asks
    nothing and gives the same numbers to the last digit.
    """
    from bt_llm.data import shipped

    gate = Gate(advisor=AdvisorConfig(model=model, cache_dir=cache, cache_mode=cache_mode))
    strategy, bars = f"{shipped('sma_cross.py')}:GatedSmaCross", shipped("eurusd_hourly.csv")
    with hint_at_demo_pack():
        _study(strategy, bars, gate, {"commission": 0.00002}, out, plot, manifest)


@takes_groups
def run(
    what: StrategyOnBars,
    asking: OneModel,
    rule: GateRule,
    account: Account,
    out: Output,
    plot: PlotOption = None,
    manifest: ManifestOption = None,
) -> None:
    """Run a strategy with its gate, without it, and buy and hold, on the same bars.

    Example: bt-llm run -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv -p fast=10
    """
    settings = {"params": what.params, **account.settings()}
    _study(what.strategy, what.data, rule.gate(asking.config()), settings, out, plot, manifest)


def _study(
    strategy: str,
    data: Path,
    gate: Gate,
    settings: dict[str, Any],
    out: Output,
    plot: Path | None,
    manifest: Path | None,
) -> None:
    from bt_llm.backtest import GateStudy, gate_study

    advisor = Advisor.shared(gate.advisor)
    with progress_bar(f"asking {gate.advisor.model}") as advisor.on_progress:
        study = gate_study(strategy, data, gate, **settings)
    advisor.on_progress = None
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
        show(_advice(study.gated.advice or {}, str(gate.advisor.model)))

    deliver(study, data, **out.settings(), tables=tables)


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
    table = Table(title=f"Advice of {model}", title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    counts = ", ".join(f"{verdicts[name]} {name}" for name in ("bullish", "neutral", "bearish", "invalid"))
    table.add_row("bars asked", f"{advice['asked']:,} of {advice['bars']:,}")
    table.add_row("verdicts", counts)
    table.add_row("entries", f"{gate['allowed']} allowed, {gate['blocked']} blocked")
    table.add_row("distinct prompts", f"{advice['distinct']} ({advice['cache_hits']} from the cache)")
    table.add_row("model calls", f"{advice['model_calls']} in {advice['model_seconds']:.1f} s")
    return table
