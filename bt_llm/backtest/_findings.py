"""Paired differences of backtests on the same bars, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bt_llm.backtest._account import periods_per_year
from bt_llm.backtest._result import BacktestResult
from bt_llm.exceptions import DataError
from bt_llm.statistics import (
    BootstrapResult,
    PairDifference,
    Statistic,
    StepwiseDifferences,
    paired_bootstrap,
    stepwise_differences,
)

__all__ = ["Bootstrap", "interval", "is_shown", "problems_in", "refusal"]


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
        In bars; by default by Politis and White's rule.
    """

    resamples: int = 2000
    seed: int = 0
    block_length: int | None = None

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

    def between(self, first: BacktestResult, second: BacktestResult) -> dict[str, BootstrapResult]:
        """Return how two backtests differ in Sharpe ratio and in mean return, both a year."""
        return {
            str(statistic): self.difference(first.returns, second.returns, statistic)
            for statistic in (Statistic.SHARPE, Statistic.RETURN)
        }

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
        if not isinstance(returns, pd.DataFrame):
            first = next(iter(returns.values()))
            for name, other in returns.items():
                if not other.index.equals(first.index):
                    raise DataError(
                        f"returns of {name} from {other.index[0]} ({len(other)} bars), others from "
                        f"{first.index[0]} ({len(first)} bars): expected the same bars in all"
                    )
            returns = pd.DataFrame(dict(returns))
        return stepwise_differences(
            returns,
            pairs,
            statistic,
            n=self.resamples,
            seed=self.seed,
            block_length=self.block_length,
            periods_per_year=periods_per_year(pd.DatetimeIndex(returns.index)),
        )


def problems_in(runs: Mapping[str, BacktestResult]) -> tuple[str, ...]:
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


def is_shown(result: BootstrapResult) -> bool:
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
