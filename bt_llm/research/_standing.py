"""Which of several candidates is better, if any: one question, one p-value, and everything else adjusted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bt_llm import statistics
from bt_llm.backtest import Bootstrap, Primary, Section, interval, number, table_section
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.shown import Told
from bt_llm.statistics import PairDifference, Statistic, StepwiseDifferences

__all__ = ["FEWEST_TRADES", "Standing", "differences_section", "ends_of", "standing", "told_apart"]

FEWEST_TRADES = 10
"""Trades in which two runs have to differ before anything is said of their difference."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Standing(Told):
    """How several candidates stand to each other, and to benchmarks that need no model.

    Parameters
    ----------
    candidates : tuple of str
        Models, templates or gates, by name.
    benchmarks : tuple of str
        Such as ``ungated`` and ``rule``.
    between : StepwiseDifferences or None
        Sharpe ratios a year of every two candidates, judged together: the one question. None for a single
        candidate, whose one question is `against`.
    against : StepwiseDifferences or None
        Of every two candidates, and of each candidate less each benchmark, judged together. None without
        benchmarks.
    returns : StepwiseDifferences
        Mean returns a year of the pairs of `against`, or of `between`; descriptive.
    confidence_set : dict of str to float
        P-value that a candidate is among the best; those above 5 % are in the model confidence set. See
        `statistics.model_confidence_set`. Empty for a single candidate.
    spa : dict of str to float
        By benchmark: p-value that the best candidate is no better, which counts that the best was looked for;
        see `statistics.superior_predictive_ability`.
    differing : dict of (str, str) to int
        Trades that only one of a pair made; empty where trades are not known.
    """

    candidates: tuple[str, ...]
    benchmarks: tuple[str, ...]
    between: StepwiseDifferences | None
    against: StepwiseDifferences | None
    returns: StepwiseDifferences
    confidence_set: dict[str, float]
    spa: dict[str, float]
    differing: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def primary(self) -> StepwiseDifferences:
        """The pairs that the one question is about."""
        found = self.between or self.against
        assert found is not None  # one candidate has benchmarks, several have each other
        return found

    def enough(self, one: PairDifference) -> bool:
        """Return whether a pair differs in enough trades to say anything."""
        return self.differing.get((one.first, one.second), FEWEST_TRADES) >= FEWEST_TRADES

    def shown(self, one: PairDifference) -> bool:
        """Return whether a pair of `primary` or `against` differs by more than luck explains."""
        families = [family for family in (self.between, self.against) if family is not None]
        family = next(family for family in families if any(one is pair for pair in family.pairs))
        return family.shown(one) and self.enough(one)

    @property
    def question(self) -> Primary:
        """The one question, whether any two of `primary` differ at all, and its p-value."""
        family = self.primary
        few = "" if any(map(self.enough, family.pairs)) else f"fewer than {FEWEST_TRADES} trades differ"
        return Primary(
            claim="one is better than another",
            p_value=family.p_value,
            smallest=family.smallest_p,
            alpha=1.0 - family.confidence,
            detectable=family.detectable if family.detectable > 0.0 else None,
            statistic=Statistic.SHARPE,
            reason=few,
        )

    @property
    def answer(self) -> str:
        """Which is better, if any, in one sentence."""
        family = self.primary
        won = [one for one in family.pairs if self.shown(one)]
        asked = f"p = {family.p_value:.3g}, {family.smallest_p:.2g} at the least"
        pairs = f" over {len(family.pairs)} pairs" if len(family.pairs) > 1 else ""
        could = ""
        if family.detectable > 0.0:  # else there is nothing that differs
            could = (
                f" On these bars a true difference of {number(family.detectable)} a year would be found four "
                "times in five."
            )
        if not won:
            why = self.question.cannot_tell or "no difference in Sharpe ratio is more than luck explains"
            return f"Which is better: cannot tell; {why} ({asked}{pairs}).{could}"
        better = "; ".join(
            f"{_better(one)} better than {_worse(one)} by {interval(_turned(one), 'sharpe')}" for one in won
        )
        rest = "" if len(won) == len(family.pairs) else "; no other two can be told apart"
        return f"Which is better: {better}{rest} ({asked}{pairs}).{could}"

    @property
    def sentences(self) -> list[str]:
        """The answer, and what is adjusted for everything else."""
        found = [self.answer]
        if self.confidence_set:
            inside = [name for name, p in self.confidence_set.items() if p > 0.05]
            found.append(
                f"Among the best with 95 % confidence: {', '.join(inside)} (model confidence set of "
                f"{len(self.candidates)})."
            )
        if self.against is not None and self.between is not None:
            found.append(self._against())
        return found

    def _against(self) -> str:
        assert self.against is not None
        asked = [one for one in self.against.pairs if one.second in self.benchmarks]
        won = [one for one in asked if self.shown(one)]
        together = f"{counted(len(self.against.pairs), 'comparison')} judged together"
        if not won:
            least = min((one.p_value for one in asked if not math.isnan(one.p_value)), default=math.nan)
            return (
                f"Against {' and '.join(self.benchmarks)}: no model is shown to be better or worse "
                f"(smallest adjusted p = {least:.3g}, {together})."
            )
        parts = [
            f"{one.first} {'better' if one.estimate > 0.0 else 'worse'} than {one.second}, "
            f"{interval(one, 'sharpe')}, adjusted p = {one.p_value:.3g}"
            for one in won
        ]
        return f"Against {' and '.join(self.benchmarks)}: {'; '.join(parts)} ({together})."

    def sections(self) -> Iterator[Section]:
        """Yield all differences, with what could have been found."""
        family = self.against or self.primary
        text = (
            f"{_held(len(family.pairs))} Could be found: the true difference that would be seen four times "
            "in five. Returns are descriptive."
        )
        yield differences_section("Who is better", family, self.returns, text)
        if self.confidence_set or self.spa:
            best = [[name, f"{p:.3g}"] for name, p in self.confidence_set.items()]
            least = f"below {self.primary.smallest_p:.2g}"  # a share of resamples that none is in
            tested = [
                [f"the best is no better than {name}", f"{p:.3g}" if p > 0.0 else least]
                for name, p in self.spa.items()
            ]
            yield table_section(
                "Among the best",
                ["", "p"],
                [*best, *tested],
                "Of a model: that it is among the best (model confidence set, above 0.05). Of the best: "
                "Hansen's test of superior predictive ability, which counts that it was looked for.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "primary": {
                    **self.question.to_dict(),
                    "answer": self.answer,
                    "comparisons": len(self.primary.pairs),
                },
                "between": self.between and [_plain(self, one) for one in self.between.pairs],
                "against": self.against and [_plain(self, one) for one in self.against.pairs],
                "returns": [ends_of(one) for one in self.returns.pairs],
                "confidence_set": self.confidence_set,
                "superior_predictive_ability": self.spa,
            }
        )
        return found


def _held(intervals: int) -> str:
    if intervals == 1:
        return "The interval of the Sharpe ratio holds in 95 of 100 samples."
    return (
        f"The {intervals} intervals of Sharpe ratios hold together in 95 of 100 samples; their p-values are "
        "adjusted for each other (Romano and Wolf)."
    )


def _plain(of: Standing, one: PairDifference) -> dict[str, Any]:
    return {
        **ends_of(one),
        "p_value": one.p_value,
        "detectable": one.detectable,
        "shown": of.shown(one),
        "differing_trades": of.differing.get((one.first, one.second)),
    }


def ends_of(one: PairDifference) -> dict[str, Any]:
    """Return what differs, by how much, and the ends of its interval, for JSON."""
    return {name: getattr(one, name) for name in ("first", "second", "estimate", "low", "high")}


def differences_section(
    title: str, sharpe: StepwiseDifferences, returns: StepwiseDifferences, text: str
) -> Section:
    """Return a table of differences of Sharpe ratios, with what could have been found, and of returns."""
    rows = [
        [
            f"{one.first} less {one.second}",
            *(f"{x:+.2f}" for x in (one.estimate, one.low, one.high)),
            "-" if math.isnan(one.p_value) else f"{one.p_value:.3g}",
            number(one.detectable or None),  # 0 where the two never differ: nothing could be found
            f"{100 * returns.of(one.first, one.second).estimate:+.2f} %",
        ]
        for one in sharpe.pairs
    ]
    head = ["", "Sharpe ratio", "from", "to", "adjusted p", "could be found", "return a year"]
    return table_section(title, head, rows, text)


def _better(one: PairDifference) -> str:
    return one.first if one.estimate > 0.0 else one.second


def _worse(one: PairDifference) -> str:
    return one.second if one.estimate > 0.0 else one.first


def _turned(one: PairDifference) -> PairDifference:
    """Return a difference as the better less the worse."""
    if one.estimate > 0.0:
        return one
    return PairDifference(
        first=one.second,
        second=one.first,
        estimate=-one.estimate,
        low=-one.high,
        high=-one.low,
        confidence=one.confidence,
        p_value=one.p_value,
        standard_error=one.standard_error,
        detectable=one.detectable,
    )


def told_apart(trades: pd.DataFrame) -> pd.MultiIndex:
    """Return what tells trades from others: when they were opened, their side, data, and of a panel symbol.

    Parameters
    ----------
    trades : DataFrame
        As of `BacktestResult.trades`, or of a pooled run.
    """
    return pd.MultiIndex.from_frame(
        trades[[name for name in ("opened", "direction", "data", "symbol") if name in trades]]
    )


def standing(
    returns: pd.DataFrame | Mapping[str, pd.Series[float]],
    candidates: Sequence[str],
    bootstrap: Bootstrap,
    *,
    trades: Mapping[str, pd.Index] | None = None,
) -> Standing:
    """Return how candidates stand to each other and to the other series, all drawn together.

    Parameters
    ----------
    returns : DataFrame or mapping of str to pandas.Series
        Simple returns a bar, by time: one column a name, or a name and a symbol. What is no candidate is a
        benchmark. A panel is pooled by time, so that all symbols of a block of times move together.
    candidates : sequence of str
        Names of the candidates: two or more, or one with benchmarks.
    bootstrap : Bootstrap
        How it is resampled.
    trades : mapping of str to Index, optional
        What tells the trades of each from the others'; see `told_apart`.

    Raises
    ------
    DataError
        If the series are not of the same bars.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> index = pd.date_range("2020-01-01", periods=500)
    >>> noise = pd.DataFrame(0.01 * rng.standard_normal((500, 3)), index, ["a", "b", "ungated"])
    >>> found = standing(noise, ["a", "b"], Bootstrap(resamples=199))
    >>> found.benchmarks, found.answer[:30]
    (('ungated',), 'Which is better: cannot tell; ')
    """
    pooled = bootstrap.pooled(returns)
    benchmarks = [name for name in map(str, pooled.columns) if name not in candidates]
    pairs: list[tuple[str, str]] = list(itertools.combinations(candidates, 2))
    everything = [*pairs, *itertools.product(candidates, benchmarks)]
    between = bootstrap.jointly(pooled, pairs) if pairs else None
    against = bootstrap.jointly(pooled, everything) if benchmarks else None
    length = max(1, max(one.block_length for one in (between, against) if one is not None))
    n, seed = bootstrap.resamples, bootstrap.seed
    return Standing(
        candidates=tuple(candidates),
        benchmarks=tuple(benchmarks),
        between=between,
        against=against,
        returns=bootstrap.jointly(pooled, everything, "return"),
        confidence_set=statistics.model_confidence_set(
            pooled[list(candidates)], n=n, seed=seed, block_length=bootstrap.block_length
        )
        if pairs
        else {},
        spa={
            name: statistics.superior_predictive_ability(
                pooled[[*candidates, name]], name, n=n, seed=seed, block_length=length
            )
            for name in benchmarks
        },
        differing={}
        if trades is None
        else {pair: len(trades[pair[0]].symmetric_difference(trades[pair[1]])) for pair in everything},
    )
