"""What a search keeps while it runs: its trials, and the test stretches so far."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest import Trade
from bt_llm.exceptions import DataError
from bt_llm.gates import EntryGate
from bt_llm.research._ledger import TrialOutcome
from bt_llm.verdicts import Prior

__all__ = ["Stretches", "Trial", "deflated", "in_all_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A combination on the train window of a fold."""

    key: str
    configuration: str
    description: str
    params: dict[str, Any]
    gate: EntryGate | None
    prior: Prior | None


@dataclass(slots=True, kw_only=True)
class Stretches:
    """The test stretches so far, joined."""

    value: float
    trades: list[Trade] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    gate_problems: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    assumed: list[str] = dataclasses.field(default_factory=list)
    outcomes: list[TrialOutcome] = dataclasses.field(default_factory=list)

    def joined(self) -> TrialOutcome:
        return TrialOutcome(
            equity=np.concatenate([outcome.equity for outcome in self.outcomes]),
            trades=sum(outcome.trades for outcome in self.outcomes),
            wins=sum(outcome.wins for outcome in self.outcomes),
            held=sum(outcome.held for outcome in self.outcomes),
            traded=math.fsum(outcome.traded for outcome in self.outcomes),
        )


def in_all_of(found: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the problems that all folds have: one in which a gate is not asked is none yet."""
    kinds = [{problem.partition(":")[0] for problem in problems} for problems in found]
    first = found[0] if found else ()
    return tuple(problem for problem in first if all(problem.partition(":")[0] in one for one in kinds))


def deflated(returns: Floats, ratios: list[float]) -> float:
    """Return a deflated Sharpe ratio, NaN where there is too little to tell."""
    try:
        return statistics.deflated_sharpe_ratio(returns, ratios)
    except DataError:
        return math.nan
