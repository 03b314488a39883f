"""The one question of a gate's test: whether its timing is better than that of gates that know nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.backtest import BacktestResult, Market, Primary, legs_of, periods_per_year
from bt_llm.exceptions import DataError
from bt_llm.gates import Answers

if TYPE_CHECKING:
    from bt_llm.research._null_runs import NullRuns

__all__ = ["TimingOf", "timing_question"]

_UNTIMED = "the runs have no timing to compare"
_FEWEST = 5
"""Entries that have to be let through, and blocked, before a p-value is relied on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimingOf:
    """Measures the timing of a run against the ungated one's; goes to workers.

    Parameters
    ----------
    ungated : Legs
        What the ungated strategy's sides earned.
    market : Market
        What both run on.
    """

    ungated: statistics.Legs
    market: Market

    def __call__(self, result: BacktestResult) -> dict[str, float]:
        """Return its score; an account that was ruined has the lowest.

        Raises
        ------
        DataError
            If the run is not of the bars of the ungated one, as that of a strategy that ends it itself.
        """
        if result.ruined is not None:
            return {"timing": -math.inf}
        if len(result.equity) != len(self.ungated.long) + 1:
            raise DataError(
                f"the run of {result.name or 'a strategy'} ends at {result.equity.index[-1]}, the ungated "
                "one does not: a strategy that ends its run itself (runstop) cannot be compared with others; "
                "let it trade no more instead"
            )
        return self.of_legs(legs_of(result, self.market))

    def error(self, result: BacktestResult) -> float:
        """Return the standard error of its timing, a year; NaN of an account that was ruined."""
        if result.ruined is not None:
            return math.nan
        found = statistics.timing_of(legs_of(result, self.market), self.ungated)
        return found.error * periods_per_year(pd.DatetimeIndex(result.equity.index))

    def of_legs(self, gated: statistics.Legs) -> dict[str, float]:
        """Return the score of an account that was not ruined, by what its sides earned."""
        return {"timing": statistics.timing_of(gated, self.ungated).score}


def timing_question(
    runs: NullRuns, entries: Answers, error: float, *, alpha: float = 0.05, problem: str = ""
) -> Primary:
    """Return the one question of a gate's test, answered by its rank among random gates.

    Parameters
    ----------
    runs : NullRuns
        The gate among random ones, with ``timing``.
    entries : Answers
        What it answered to the entries.
    error : float
        Standard error of its timing, a year.
    alpha : float
        Level of the test.
    problem : str
        Why there is no timing to compare.
    """
    claim = "the gate's timing is better than luck"
    if "timing" not in runs.ranked:
        return Primary(claim=claim, p_value=math.nan, smallest=1.0, alpha=alpha, reason=problem or _UNTIMED)
    allowed, blocked = entries.contested()
    least = max(1.0 / (1 + runs.n), math.exp(-min(entries.log_arrangements, 700.0)))
    reason = ""
    if min(allowed, blocked) < _FEWEST:
        told = (
            f"the gate let {allowed} through and blocked {blocked}" if allowed else "it had one answer only"
        )
        reason = f"to entries of a side, {told}; at least {_FEWEST} of both are needed"
    # The bar that the score had to pass, which differs a little from that of a normal one.
    bar = float(np.quantile(runs.values("timing"), 1.0 - alpha)) if 1.0 / (1 + runs.n) <= alpha else math.inf
    detectable = error * (bar + statistics.detectable(1.0, alpha=0.5))
    return Primary(
        claim=claim,
        p_value=runs.p_value("timing"),
        smallest=least,
        alpha=alpha,
        detectable=detectable if math.isfinite(detectable) and error > 0.0 else None,
        reason=reason,
    )
