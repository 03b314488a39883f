"""Trials of tests and comparisons, counted in the same ledger as those of searches."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bt_llm
from bt_llm.backtest import BacktestResult, Market, PanelRun, Universe, strategy_class
from bt_llm.equality import nan_equal
from bt_llm.gates import EntryGate, content_sha256
from bt_llm.plain_json import canonical_json, plain
from bt_llm.research._ledger import TrialLedger, TrialOutcome, TrialRecord
from bt_llm.research._runs import Source
from bt_llm.research._workers import code_sha256
from bt_llm.research.walk_forward._grid import describe_gate, describe_params
from bt_llm.research.walk_forward._metrics import returns_of, sharpe_per_bar
from bt_llm.research.walk_forward._trials import deflated
from bt_llm.research.walk_forward._walk_forward import LEDGER
from bt_llm.settings import path_text

__all__ = ["Tried", "check_ledger", "count_panel_trials", "count_trials"]


@nan_equal
@dataclass(frozen=True, kw_only=True)
class Tried:
    """How many configurations have been tried, and what is left of the results of a command then.

    Attributes
    ----------
    n_trials : int
        Distinct configurations in the ledger: strategy, parameters, gate, account and bars, by content. Those
        of this command are among them.
    new : int
        Trials that this command added; what was tried before is no new one.
    deflated : dict of str to float
        Probability that the true Sharpe ratio of a run is above 0, as the best of all of them; NaN where it
        has no meaning, as of an account that was ruined.
    """

    n_trials: int
    new: int
    deflated: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, the same for the same command and ledger: without what was new."""
        found: dict[str, Any] = plain({"n_trials": self.n_trials, "deflated": self.deflated})
        return found

    @property
    def sentence(self) -> str:
        """What is to be said of it."""
        if self.n_trials == 1:
            return "This is the first configuration that was tried here: nothing was chosen yet."
        chances = ", ".join(
            f"{name} unknown" if math.isnan(value) else f"{name} {100 * value:.0f} %"
            for name, value in self.deflated.items()
        )
        return (
            f"{self.n_trials} configurations were tried here so far: the p-value of the best of them is to "
            f"be multiplied by that. Probability that a Sharpe ratio is above 0, as the best of all (DSR): "
            f"{chances}."
        )


def check_ledger(output: str | os.PathLike[str] | None) -> None:
    """Find out before the work, which may take hours, whether its trials can be counted after it.

    Raises
    ------
    CacheError
        If the ledger of that folder cannot be opened, or is damaged.
    """
    if output is not None:
        with TrialLedger(Path(path_text("output", output)) / LEDGER) as ledger:
            ledger.sharpes()


def count_trials(
    output: str | os.PathLike[str],
    strategy: Source,
    market: Market,
    runs: Mapping[str, tuple[BacktestResult, EntryGate | None]],
    settings: Mapping[str, Any] | None = None,
) -> Tried:
    """Write the runs of a command into the ledger of a folder, and return how many there are by now.

    Parameters
    ----------
    output : path
        The folder, as of `WalkForward.run`.
    strategy, market : type or str, Market
        What was run on what.
    runs : mapping of str to (BacktestResult, gate)
        By name.
    settings : mapping, optional
        Other arguments of `run_backtest`; ``start`` is part of what was tried.
    """
    start = (settings or {}).get("start")
    records = {name: _record(strategy, market, run, gate, start) for name, (run, gate) in runs.items()}
    return _counted(output, records, {name for name, (run, _) in runs.items() if run.ruined is not None})


def count_panel_trials(
    output: str | os.PathLike[str],
    strategy: Source,
    universe: Universe,
    runs: Mapping[str, tuple[PanelRun, EntryGate | None]],
) -> Tried:
    """Write the pooled runs of a command into a ledger; see `count_trials`. A panel is one trial a run."""
    records = {}
    for name, (run, gate) in runs.items():
        parts = []
        for symbol, result in run.symbols.items():
            member = universe.members[symbol]
            part = _record(strategy, member.market, result, gate, member.start)
            parts.append([part.configuration, run.weights[symbol]])
        returns = np.array(run.returns, dtype=np.float64)
        outcome = TrialOutcome(
            equity=np.concatenate([[1.0], np.cumprod(1.0 + returns)]),
            trades=int(run.metrics["trades"]),
            wins=sum(int((one.trades["pnlcomm"] > 0.0).sum()) for one in run.symbols.values()),
            held=0,
            traded=0.0,
        )
        configuration = content_sha256(["panel", sorted(parts)])
        told = _told(next(iter(run.symbols.values())), universe.label)
        records[name] = _sealed(configuration, told, outcome)
    return _counted(output, records, {name for name, (run, _) in runs.items() if run.ruined})


def _record(
    strategy: Source, market: Market, run: BacktestResult, gate: EntryGate | None, start: object
) -> TrialRecord:
    chosen = strategy_class(strategy)
    params = {name: value for name, value in run.settings["params"].items() if name != "gate"}
    configuration = content_sha256(
        {
            "strategy": [chosen.__qualname__, code_sha256(chosen)],
            "params": describe_params(chosen, params),
            "gate": describe_gate(gate, False),
            "account": run.setup.content(code_sha256),
            "market": [market.sha256, str(start)],
        }
    )
    outcome = TrialOutcome(
        equity=np.array(run.equity, dtype=np.float64),
        trades=int(run.metrics["trades"]),
        wins=int((run.trades["pnlcomm"] > 0.0).sum()),
        held=round(run.metrics["exposure"] * len(run.equity)),
        traded=float(run.order_log["traded"].sum()),
    )
    return _sealed(configuration, _told(run, market.label), outcome)


def _told(run: BacktestResult, data: str) -> dict[str, Any]:
    params = {name: str(value) for name, value in run.settings["params"].items() if name != "gate"}
    return {"strategy": run.strategy, "run": run.name, "settings": params, "data": data}


def _sealed(configuration: str, told: Mapping[str, Any], outcome: TrialOutcome) -> TrialRecord:
    return TrialRecord(
        key=content_sha256([configuration, "whole", bt_llm.__version__]),
        configuration=configuration,
        description=canonical_json(told),
        sharpe=sharpe_per_bar(returns_of(outcome.equity)),
        outcome=outcome,
    )


def _counted(
    output: str | os.PathLike[str], records: Mapping[str, TrialRecord], ruined: Collection[str]
) -> Tried:
    with TrialLedger(Path(output) / LEDGER) as ledger:
        new = sum(ledger.add(record) for record in records.values())
        ratios = ledger.sharpes()
    every = [ratios[name] for name in sorted(ratios)]
    found = {
        name: math.nan if name in ruined else deflated(returns_of(one.outcome.equity), every)
        for name, one in records.items()
    }
    return Tried(n_trials=len(ratios), new=new, deflated=found)
