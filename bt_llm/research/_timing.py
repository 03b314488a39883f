"""The one question of a gate's test: whether its timing is better than that of gates that know nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest import BacktestResult, Market, Primary, legs_of
from bt_llm.gates import Answers

if TYPE_CHECKING:
    from bt_llm.research._null_runs import NullRuns

__all__ = ["Strata", "TimingOf", "closes_of", "strata_of", "timing_question"]

Strata: TypeAlias = tuple[tuple[str, bytes], ...]
"""Of each data by its name, a label for every bar."""

_UNTIMED = "the runs have no timing to compare"
_FEWEST = 5
"""Entries that have to be let through, and blocked, before a p-value is relied on."""
_ENTRIES_A_STRATUM = 25
_MOST_STRATA = 5


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
        """Return its score; an account that was ruined has the lowest."""
        if result.ruined is not None:
            return {"timing": -math.inf}
        return self.of_legs(legs_of(result, self.market))

    def of_legs(self, gated: statistics.Legs) -> dict[str, float]:
        """Return the score of an account that was not ruined, by what its sides earned."""
        return {"timing": statistics.timing_of(gated, self.ungated).score}


def strata_of(closes: Mapping[str, NDArray[np.float64]], entries: int, warm_up: int = 0) -> Strata:
    """Return how much each bar's market moves, in as many groups as so many entries can fill.

    There are up to five, one for 25 entries. One group is none: then all bars are alike.

    Parameters
    ----------
    closes : mapping of str to ndarray
        Of each data by its name.
    entries : int
        That the gate was asked about.
    warm_up : int
        Bars until its first answer.
    """
    groups = min(_MOST_STRATA, entries // _ENTRIES_A_STRATUM)
    if groups < 2:
        return ()
    return tuple(
        (name, statistics.volatility_strata(close, groups, first=max(0, warm_up - 1)).tobytes())
        for name, close in closes.items()
        if len(close)
    )


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


def closes_of(market: Market) -> dict[str, NDArray[np.float64]]:
    """Return the closes of each data."""
    return {name: bars["close"].to_numpy(dtype=float) for name, bars in market.items()}
