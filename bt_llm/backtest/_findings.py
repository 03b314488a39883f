"""Paired differences of backtests on the same bars, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from bt_llm.backtest._sections import roughly
from bt_llm.backtest._year import periods_per_year
from bt_llm.equality import nan_equal
from bt_llm.exceptions import DataError
from bt_llm.settings import whole
from bt_llm.statistics import (
    BootstrapResult,
    Legs,
    PairDifference,
    Statistic,
    StepwiseDifferences,
    paired_bootstrap,
    pooled,
    stepwise_differences,
    take_apart,
)

__all__ = ["Bootstrap", "Primary", "interval", "is_shown", "problems_in", "refusal"]


_SHOWN_P = 0.0001
"""Smaller p-values than this are not told apart."""


@nan_equal
@dataclass(frozen=True, kw_only=True)
class Primary:
    """The one question that a command answers, by one p-value; whatever else it says is descriptive.

    Parameters
    ----------
    claim : str
        What would be found, after "that": "the gate's timing is better than luck".
    p_value : float
        Of there being nothing to it.
    smallest : float
        The least p-value that the test could have given on these data; 0 where there is none.
    alpha : float
        Level at which the claim is found.
    detectable : float or None
        The effect that would have been found in 4 of 5 such tests, a year; None if it is not known.
    statistic : Statistic
        What the effect is one in, a year.
    measure : str
        What it is one in instead, such as a score; empty where it is in `statistic`.
    reason : str
        Why the test cannot tell; empty if it can.

    Examples
    --------
    >>> primary = Primary(claim="the gate's timing is better than luck", p_value=0.3, smallest=0.005,
    ...                   alpha=0.05, detectable=0.04)
    >>> primary.found, primary.sentence[:62]
    (False, "It is not shown that the gate's timing is better than luck: p ")
    """

    claim: str
    p_value: float
    smallest: float
    alpha: float = 0.05
    detectable: float | None = None
    statistic: Statistic = Statistic.RETURN
    measure: str = ""
    reason: str = ""

    @property
    def cannot_tell(self) -> str:
        """Why no outcome of the test, or none to rely on, could have found anything; else empty."""
        if self.reason:
            return self.reason
        if self.smallest > self.alpha:
            return f"no outcome could have given p below {self.alpha:g}: the smallest is {self.smallest:.3g}"
        return ""

    @property
    def found(self) -> bool | None:
        """Whether the claim is found; None if that cannot be told."""
        return None if self.cannot_tell else self.p_value <= self.alpha

    @property
    def sentence(self) -> str:
        """The answer in words."""
        if self.cannot_tell:
            return f"Cannot tell whether {self.claim}: {self.cannot_tell}."
        # A tail that rounds to 0 is not 0.
        told = f"p = {self.p_value:.3g}" if self.p_value >= _SHOWN_P else f"p is below {_SHOWN_P:g}"
        p = f"{told}, and {self._could_have_been}"
        if self.found:
            return f"Found that {self.claim}: {p}."
        return f"It is not shown that {self.claim}: {p}.{self._would_have_been_found}"

    @property
    def _could_have_been(self) -> str:
        if self.smallest <= 0.0:
            return "this test has no smallest one"
        return f"the smallest that this test could give is {self.smallest:.3g}"

    @property
    def _would_have_been_found(self) -> str:
        if self.detectable is None or not math.isfinite(self.detectable):
            return ""
        if self.measure:
            size = f"{roughly(self.detectable)} in {self.measure}"
        elif self.statistic is Statistic.RETURN:
            size = f"{roughly(100 * self.detectable)} % a year"
        else:
            size = f"{roughly(self.detectable)} in Sharpe ratio"
        return f" An effect of {size} would have been found in 4 of 5 such tests."

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "claim": self.claim,
            "found": self.found,
            "p_value": self.p_value,
            "smallest_p_value": self.smallest,
            "alpha": self.alpha,
            "detectable": self.detectable,
            "detectable_in": self.measure or f"{self.statistic} a year",
            "cannot_tell": self.cannot_tell,
        }


_FEWEST_RESAMPLES = 19  # of an interval of 95 %
_MOST_RESAMPLES = 100_000  # more are gigabytes, and no digit of an interval


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How differences between backtests on the same bars are bootstrapped; see `paired_bootstrap`.

    Parameters
    ----------
    resamples : int
        Their number.
    seed : int
        Where chance comes from.
    block_length : int, optional
        In bars; by default by Politis and White's rule, from returns and their squares.
    """

    resamples: int = 2000
    seed: int = 0
    block_length: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers before there is anything to draw from, once."""
        resamples = whole("resamples", self.resamples, _FEWEST_RESAMPLES, _MOST_RESAMPLES)
        object.__setattr__(self, "resamples", resamples)
        object.__setattr__(self, "seed", whole("seed", self.seed, 0))
        if self.block_length is not None:
            object.__setattr__(
                self, "block_length", whole("block_length", self.block_length, 1, of=" of bars")
            )

    def difference(
        self, first: pd.Series[float], second: pd.Series[float], statistic: Statistic | str
    ) -> BootstrapResult:
        """Return the first less the second of two series of returns, both a year.

        Parameters
        ----------
        first, second : pandas.Series
            Simple returns a bar, by time.
        statistic : {'sharpe', 'return'}
            What differs.

        Raises
        ------
        DataError
            If the two are not of the same bars.
        """
        if not first.index.equals(second.index):
            raise DataError(
                f"returns from {first.index[0]} ({len(first)} bars) and from {second.index[0]} "
                f"({len(second)} bars): expected the same bars in both"
            )
        return paired_bootstrap(
            first.to_numpy(),
            second.to_numpy(),
            statistic,
            n=self.resamples,
            seed=self.seed,
            block_length=self.block_length,
            periods_per_year=periods_per_year(pd.DatetimeIndex(first.index)),
        )

    def between(self, first: HasReturns, second: HasReturns) -> dict[str, BootstrapResult]:
        """Return how two backtests differ in Sharpe ratio and in mean return, both a year."""
        return {
            str(statistic): self.difference(first.returns, second.returns, statistic)
            for statistic in (Statistic.SHARPE, Statistic.RETURN)
        }

    @staticmethod
    def pooled(returns: pd.DataFrame | Mapping[str, pd.Series[float]]) -> pd.DataFrame:
        """Return one column of returns a name, by time; see `bt_llm.statistics.pooled`.

        Raises
        ------
        DataError
            If they are not of the same bars.
        """
        if isinstance(returns, pd.DataFrame):
            return pooled(returns)
        first = next(iter(returns.values()))
        for name, other in returns.items():
            if not other.index.equals(first.index):
                raise DataError(
                    f"returns of {name} from {other.index[0]} ({len(other)} bars), others from "
                    f"{first.index[0]} ({len(first)} bars): expected the same bars in all"
                )
        return pd.DataFrame(dict(returns))

    def jointly(
        self,
        returns: pd.DataFrame | Mapping[str, pd.Series[float]],
        pairs: Sequence[tuple[str, str]] | None = None,
        statistic: Statistic | str = Statistic.SHARPE,
    ) -> StepwiseDifferences:
        """Return how several series of returns differ, judged together; ratios and means are a year's.

        Parameters
        ----------
        returns : DataFrame or mapping of str to pandas.Series
            Simple returns a bar, by time: one column a name, or a name and a symbol, which are then pooled;
            see `stepwise_differences`.
        pairs : sequence of (str, str), optional
            Which to compare; by default every two.
        statistic : {'sharpe', 'return'}
            What differs.

        Raises
        ------
        DataError
            If they are not of the same bars.
        """
        frame = self.pooled(returns)
        return stepwise_differences(
            frame,
            pairs,
            statistic,
            n=self.resamples,
            seed=self.seed,
            block_length=self.block_length,
            periods_per_year=periods_per_year(pd.DatetimeIndex(frame.index)),
        )

    def apart(self, gated: Legs, ungated: Legs, index: pd.DatetimeIndex) -> dict[str, BootstrapResult]:
        """Return what a gate is worth a year, taken apart; see `bt_llm.statistics.take_apart`.

        Parameters
        ----------
        gated, ungated : Legs
            Of the same bars.
        index : DatetimeIndex
            Their times.
        """
        return take_apart(
            gated,
            ungated,
            n=self.resamples,
            seed=self.seed,
            block_length=self.block_length,
            periods_per_year=periods_per_year(index),
        )


class HasProblems(Protocol):
    """A run, or many pooled."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything from it."""


class HasReturns(Protocol):
    """A run, or many pooled."""

    @property
    def returns(self) -> pd.Series[float]:
        """Simple return of each bar."""


def problems_in(runs: Mapping[str, HasProblems]) -> tuple[str, ...]:
    """Return what speaks against concluding anything from several runs, with the names of those it is of."""
    named: dict[str, list[str]] = {}
    for name, run in runs.items():
        for problem in run.problems:
            named.setdefault(problem, []).append(name)
    return tuple(f"{', '.join(names)}: {problem}" for problem, names in named.items())


def refusal(problems: Sequence[str]) -> list[str]:
    """Return the sentence that stands in place of conclusions; none where nothing speaks against them.

    Examples
    --------
    >>> refusal(["gated: the gate was never asked: Cross made no entry"]), refusal([])
    (['No conclusion: gated: the gate was never asked: Cross made no entry.'], [])
    """
    return [f"No conclusion: {'; '.join(problems)}."] if problems else []


def is_shown(result: BootstrapResult | PairDifference) -> bool:
    """Return whether the interval leaves out zero."""
    return result.low > 0.0 or result.high < 0.0


def interval(result: BootstrapResult | PairDifference, statistic: Statistic | str) -> str:
    """Return a difference with its interval, as text.

    Examples
    --------
    >>> found = BootstrapResult(estimate=0.021, low=-0.03, high=0.072, confidence=0.95, p_value=0.4,
    ...                         block_length=5, n=999)
    >>> interval(found, "return"), interval(found, "sharpe")
    ('+2.10 % (95 % interval -3.00 % to +7.20 %)', '+0.02 (95 % interval -0.03 to +0.07)')
    """
    numbers = (result.estimate, result.low, result.high)
    if statistic == Statistic.RETURN:
        estimate, low, high = (f"{100 * value:+.2f} %" for value in numbers)
    else:
        estimate, low, high = (f"{value:+.2f}" for value in numbers)
    return f"{estimate} ({100 * result.confidence:g} % interval {low} to {high})"
