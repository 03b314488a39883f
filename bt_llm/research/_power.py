"""What bars and a strategy could show of a gate, before any model is asked."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.backtest import Market, legs_of, periods_per_year, problems_in, roughly, run_backtest
from bt_llm.backtest import Source as DataSource
from bt_llm.equality import nan_equal
from bt_llm.exceptions import ConfigError
from bt_llm.gates import LONG, EntryGate
from bt_llm.plain_text import counted
from bt_llm.progress import shows_progress
from bt_llm.research._null_runs import MOST_NULLS, entry_answers
from bt_llm.research._runs import Source
from bt_llm.settings import number, whole
from bt_llm.shown import Shown
from bt_llm.statistics import Legs

__all__ = ["PowerPlan", "plan_power"]

_FEWEST = 5


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PowerPlan(Shown):
    """What a test of a gate on these bars could find.

    Parameters
    ----------
    entries, long_entries : int
        That the ungated strategy makes, and how many of them to the long side.
    pass_rate : float
        Share of them that the gate is assumed to let through.
    years : float
        Length of the bars.
    smallest : float
        The least p-value that ``bt-llm test`` could give.
    alpha : float
        Level of the test.
    detectable : float or None
        Timing, as a return a year, that would be found in 4 of 5 such tests; None if nothing could be.
    detectable_sharpe : float or None
        Difference of the Sharpe ratios a year of two gates that pass this share, each on its own, that would
        be found in 4 of 5 comparisons.
    problem : str
        Why the bars cannot tell; usually empty.
    """

    entries: int
    long_entries: int
    pass_rate: float
    years: float
    smallest: float
    alpha: float
    detectable: float | None
    detectable_sharpe: float | None
    problem: str = ""

    def years_for(self, sharpe: float) -> float | None:
        """Return how many years of such bars tell two gates apart that differ by a Sharpe ratio a year."""
        if self.detectable_sharpe is None or sharpe <= 0.0:
            return None
        return self.years * (self.detectable_sharpe / sharpe) ** 2

    @property
    def sentences(self) -> list[str]:
        """What to expect, in words."""
        asked = (
            f"Ungated, the strategy makes {counted(self.entries, 'entry')} in {roughly(self.years)} years, "
            f"{self.long_entries} of them long."
        )
        if self.problem:
            unable = f"A test could not tell whether a gate's timing is better than luck: {self.problem}."
            return [asked, unable]
        found = [
            asked,
            f"If a gate lets {100 * self.pass_rate:.0f} % of them through, the smallest p that a test could "
            f"give is {self.smallest:.3g}.",
        ]
        if self.detectable is not None:
            worth = f"{roughly(100 * self.detectable)} % a year"
            found.append(f"Timing worth {worth} would be found in 4 of 5 tests.")
        if self.detectable_sharpe is not None:
            years, apart = self.years_for(1.0), roughly(self.detectable_sharpe)
            found.append(
                f"The Sharpe ratios of two such gates would have to differ by {apart} a "
                f"year to be told apart in 4 of 5 comparisons; a difference of 1 takes {years:.1f} years."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            **dataclasses.asdict(self),
            "years_for_a_sharpe_of_1": self.years_for(1.0),
            "sentences": self.sentences,
        }


@shows_progress("bars")
def plan_power(
    strategy: Source,
    data: DataSource,
    gate: EntryGate,
    *,
    pass_rate: float = 0.5,
    n: int = 200,
    alpha: float = 0.05,
    **settings: Any,
) -> PowerPlan:
    """Return what a test of a gate could find, from the ungated strategy alone: no model is asked.

    Parameters
    ----------
    strategy, data
        As in `run_backtest`.
    gate : gate
        Its warm-up is waited for.
    pass_rate : float
        Share of the entries that it is assumed to let through, between 0 and 1.
    n : int
        Random gates of the test.
    alpha : float
        Level of the test.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    A gate that passes the share q of entries at random has a timing with the variance ``q (1 - q)`` of the
    ungated strategy's, each side less what it earns per unit of exposure in the mean; two such gates, each on
    its own, differ by twice that. What would be found is that deviation times the sum of two quantiles; see
    `bt_llm.statistics.detectable`.

    Examples
    --------
    >>> from bt_llm.data import shipped
    >>> from bt_llm.gates import AlwaysOpen
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> made = plan_power(strategy, shipped("sp500_daily.csv"), AlwaysOpen())
    >>> made.entries > 100, made.problem, 0.0 < made.detectable < 0.2
    (True, '', True)
    """
    if not 0.0 < (pass_rate := number("pass_rate", pass_rate)) < 1.0:
        raise ConfigError(f"pass_rate={pass_rate!r}: expected a number between 0 and 1")
    n = whole("n", n, 1, MOST_NULLS)
    market, baseline = Market.of(data), gate.baseline()
    result = run_backtest(strategy, market, gate=baseline, name="ungated", **settings)
    answers = entry_answers(strategy, market, baseline, **settings)
    entries, long = len(answers.long) + len(answers.short), len(answers.of_side(LONG))
    index = pd.DatetimeIndex(result.equity.index)
    yearly = periods_per_year(index)
    passed = round(entries * pass_rate)
    problem = "; ".join(problems_in({"ungated": result}))
    if min(passed, entries - passed) < _FEWEST:
        problem = problem or (
            f"of {counted(entries, 'entry')} {passed} would be let through and {entries - passed} blocked, "
            f"and at least {_FEWEST} of both are needed"
        )
    smallest = max(1.0 / (1 + n), math.exp(-_log_choices(entries, passed)))
    if smallest > alpha:
        problem = problem or f"the smallest p that {n} random gates could give is {smallest:.3g}"
    spread = None if problem else _spread(legs_of(result, market))
    error = None if spread is None else math.sqrt(pass_rate * (1.0 - pass_rate) / len(index)) * spread
    return PowerPlan(
        entries=entries,
        long_entries=long,
        pass_rate=pass_rate,
        years=len(index) / yearly,
        smallest=smallest,
        alpha=alpha,
        detectable=None if error is None else statistics.detectable(error * yearly, alpha=alpha),
        detectable_sharpe=None
        if error is None
        else math.sqrt(2.0 * (1.0 - pass_rate) * yearly / len(index))
        * statistics.detectable(1.0, alpha=alpha, two_sided=True),
        problem=problem,
    )


def _spread(legs: Legs) -> float:
    """Return the deviation a bar of the ungated strategy, less what a side earns by being in the market."""
    rest = np.zeros(len(legs))
    for gain, exposure in ((legs.long, legs.long_exposure), (legs.short, legs.short_exposure)):
        held = float(exposure.sum())
        rest += gain - (float(gain.sum()) / held if held else 0.0) * exposure
    return float(np.sqrt(np.mean(rest**2)))


def _log_choices(entries: int, passed: int) -> float:
    return math.lgamma(entries + 1) - math.lgamma(passed + 1) - math.lgamma(entries - passed + 1)
