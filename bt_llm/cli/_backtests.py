"""``bt-llm demo`` and ``bt-llm run``: a strategy gated, ungated, and buy and hold."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_llm.cli._bar_options import BarsRead, StrategyOnBars
from bt_llm.cli._budget import check_budget
from bt_llm.cli._cache import hint_at_demo_pack
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import takes_groups
from bt_llm.cli._options import Account, GateRule, ManifestOption, OneModel, Output, PlotOption, Spending
from bt_llm.cli._output import deliver, progress_bar, say, say_assumed
from bt_llm.exceptions import MissingExtraError, ModelNotFoundError

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.backtest import GateStudy, PanelStudy, Source, Universe
    from bt_llm.gates import Gate

__all__ = ["demo", "run"]

_SHIPPED = OneModel(model="smollm2")
"""How the verdicts on the demo's bars were asked for that come with bt_llm."""


@takes_groups
def demo(
    asking: OneModel,
    rule: GateRule,
    out: Output,
    plot: PlotOption = None,
    manifest: ManifestOption = None,
) -> None:
    """Gate a moving-average crossover on a year of EUR/USD hours by a model that comes with it.

    The model judges every market state the bars are in; the verdicts are stored, so the second run asks
    nothing and gives the same numbers to the last digit. Where the model is not installed, its verdicts come
    from the pack that bt_llm ships.

    Example: bt-llm demo --report demo.html
    """
    from bt_llm.cache import VerdictCache, import_pack
    from bt_llm.data import shipped

    strategy, bars = f"{shipped('sma_cross.py')}:GatedSmaCross", shipped("eurusd_hourly.csv")

    def judged(advisor: AdvisorConfig) -> None:
        study = _gate_study(strategy, bars, rule.gate(advisor), {"commission": 0.00002})
        _written(study, strategy, bars, out, plot, manifest)
        _say_if_slow(study)

    chosen = asking.config()
    say_doubts([chosen])
    with hint_at_demo_pack():
        try:
            judged(chosen)
        except (ModelNotFoundError, MissingExtraError) as error:
            if dataclasses.replace(asking, cache=None, threads=None) != _SHIPPED:
                raise
            say(f"{error}")
            say("Until then its verdicts are replayed from the pack that bt_llm ships: no model is asked.")
            with tempfile.TemporaryDirectory() as folder:
                with VerdictCache(folder, "record") as imported:
                    import_pack(imported, shipped("demo_pack.jsonl"))
                judged(dataclasses.replace(chosen, cache_dir=folder, cache_mode="replay"))


@takes_groups
def run(
    what: StrategyOnBars,
    read: BarsRead,
    asking: OneModel,
    rule: GateRule,
    account: Account,
    spending: Spending,
    out: Output,
    plot: PlotOption = None,
    manifest: ManifestOption = None,
) -> None:
    """Run a strategy with its gate, without it, and buy and hold, on the same bars.

    With --each, --manifest writes the runs of all symbols into one file, with the pooled figures, and bt-llm
    reproduce runs them all again.

    Example: bt-llm run -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv -p fast=10

    Example: bt-llm run -s strategies/sma_cross.py:GatedSmaCross -d "data/*_daily.csv" --each
    """
    settings = {"params": what.params, **account.settings()}
    gate = rule.gate(asking.config())
    read = read.unseen_by(gate.advisor)
    say_doubts([gate.advisor], account)
    if what.each:
        universe = what.universe(read.format())
        say_assumed(account.assumed)
        check_budget([gate.advisor], universe, spending)
        panel = _panel_study(what.strategy, universe, gate, settings)
        deliver(panel, universe, **out.settings())
        if manifest is not None:
            from bt_llm.manifest import write_panel_manifest

            write_panel_manifest(manifest, panel, strategy=what.strategy, universe=universe)
            say(f"manifest: {manifest}")
        _plotted(panel, plot)
        return
    bars = what.market(read.format())
    say_assumed(account.assumed)
    check_budget([gate.advisor], bars, spending)
    study = _gate_study(what.strategy, bars, gate, settings)
    _written(study, what.strategy, bars, out, plot, manifest)


def _say_if_slow(study: GateStudy) -> None:
    """Say that a model which was asked just now is in a quantization that takes longer than it had to."""
    from bt_llm.models import slow_quantization

    if study.gated.advice and study.gated.advice["model_calls"]:
        for one in study.gated.asked:
            if line := slow_quantization(one.identity.details.get("quantization")):
                say(f"{one.identity.name}: {line}")


def _gate_study(strategy: str, data: Source, gate: Gate, settings: dict[str, Any]) -> GateStudy:
    from bt_llm.advice import telling
    from bt_llm.backtest import gate_study

    with progress_bar(f"asking {gate.advisor.model}") as update, telling(update):
        return gate_study(strategy, data, gate, **settings)


def _panel_study(strategy: str, universe: Universe, gate: Gate, settings: dict[str, Any]) -> PanelStudy:
    from bt_llm.advice import telling
    from bt_llm.backtest import panel_study

    with progress_bar(f"asking {gate.advisor.model}") as update, telling(update):
        return panel_study(strategy, universe, gate, **settings)


def _plotted(study: GateStudy | PanelStudy, plot: Path | None) -> None:
    if plot is not None:
        from bt_llm.report import plot_equity

        plot_equity(study.runs, plot)
        say(f"equity curves: {plot}")


def _written(
    study: GateStudy, strategy: str, data: Source, out: Output, plot: Path | None, manifest: Path | None
) -> None:
    deliver(study, data, **out.settings())
    if manifest is not None:
        from bt_llm.manifest import write_manifest

        write_manifest(manifest, study, strategy=strategy, data=data)
        say(f"manifest: {manifest}")
    _plotted(study, plot)
