"""What a search keeps while it runs: its trials, and the test stretches so far."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest import Account, Fill, Market, SentOrder, Trade, frame_of, trades_told
from bt_llm.exceptions import DataError
from bt_llm.gates import EntryGate
from bt_llm.research._ledger import TrialOutcome
from bt_llm.verdicts import Prior

__all__ = ["Stretches", "Trial", "deflated", "in_all_of", "told_of"]

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
    listed: list[pd.DataFrame] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    gate_problems: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    assumed: list[str] = dataclasses.field(default_factory=list)
    outcomes: list[TrialOutcome] = dataclasses.field(default_factory=list)

    def told(self, market: Market) -> pd.DataFrame:
        """Return the closed trades of all stretches; each began and ended with its own fills."""
        full = [part for part in self.listed if len(part)]
        return pd.concat(full, ignore_index=True) if full else told_of(Account(), market, None)

    def joined(self) -> TrialOutcome:
        return TrialOutcome(
            equity=np.concatenate([outcome.equity for outcome in self.outcomes]),
            trades=sum(outcome.trades for outcome in self.outcomes),
            wins=sum(outcome.wins for outcome in self.outcomes),
            held=sum(outcome.held for outcome in self.outcomes),
            traded=math.fsum(outcome.traded for outcome in self.outcomes),
        )


def told_of(account: Account, market: Market, seen: pd.DataFrame | None) -> pd.DataFrame:
    """Return the closed trades of a stretch, with their prices and what the model had said before."""
    trades, fills, orders = (
        frame_of(kind, rows, market)
        for kind, rows in (
            (Trade, account.trades),
            (Fill, account.fills),
            (SentOrder, list(account.orders.values())),
        )
    )
    return trades_told(trades, fills, orders, {} if seen is None else {next(iter(market)): seen})


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
