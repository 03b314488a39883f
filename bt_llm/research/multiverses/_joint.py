"""The joint null of a multiverse: all specifications' answers moved to other times, the same for all.

A specification's test (`gate_test`) gives its answers at other times. Done for each specification alone, that
would break what they have in common, and a median over them would look far steadier under the null than it
is. So here stretches of time change places once for all: what the specifications say of an entry together,
they say together of another one. How long stretches are, and that those in which the market moved as much
change places with each other, is as in the test of one (`bt_llm.research._null_runs`).

The statistic is the median score of the timing over the specifications whose test could find anything. That
is the first of the three statistics of a specification curve by Simonsohn, Simmons and Nelson.

References
----------
U. Simonsohn, J. P. Simmons and L. D. Nelson, "Specification Curve Analysis", Nature Human Behaviour 4,
2020. S. Steegen, F. Tuerlinckx, A. Gelman and W. Vanpaemel, "Increasing Transparency Through a Multiverse
Analysis", Perspectives on Psychological Science 11, 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest import Primary
from bt_llm.gates import LONG, SHORT, DatedAnswers, DatesGate
from bt_llm.research._moments import Moments
from bt_llm.research._null_runs import Evaluate
from bt_llm.shown import Told

__all__ = ["Entries", "JointNull", "joint_null"]

Floats = NDArray[np.float64]

CLAIM = "the timing of the specifications, by their median, is better than luck"
_FEWEST = 5
"""Entries that a specification lets through, and blocks, before its timing says anything."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """The entries of a strategy, and what each specification answers to them.

    Parameters
    ----------
    data : str
        Name of the data that they are on.
    times : array of float, shape (entries,)
        Backtrader's numbers of the bars that they are decided at, oldest first.
    sides : array of int, shape (entries,)
        `LONG` or `SHORT`.
    allowed : array of bool, shape (entries, specifications)
        Whether it is let through.
    """

    data: str
    times: Floats
    sides: NDArray[np.int64]
    allowed: NDArray[np.bool_]

    def informative(self) -> NDArray[np.bool_]:
        """Return which specifications let through and blocked enough, of sides to which they did both."""
        passed = np.zeros(self.allowed.shape[1], dtype=np.int64)
        blocked = passed.copy()
        for side in (LONG, SHORT):
            own = self.allowed[self.sides == side]
            here = own.sum(axis=0)
            contested = (here > 0) & (here < len(own))
            passed += np.where(contested, here, 0)
            blocked += np.where(contested, len(own) - here, 0)
        return np.minimum(passed, blocked) >= _FEWEST

    def told(self, number: int) -> tuple[DatedAnswers, ...]:
        """Return what a specification answers, by time."""
        entries = zip(self.sides.tolist(), self.times.tolist(), self.allowed[:, number].tolist(), strict=True)
        return DatedAnswers.of((self.data, side, time, allowed) for side, time, allowed in entries)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JointNull(Told):
    """A multiverse's timing among that of multiverses whose specifications know nothing.

    Attributes
    ----------
    informative : array of bool, shape (specifications,)
        Those whose answers differ enough for a test; of the others nothing can be told.
    observed : array of float, shape (specifications,)
        Score of the timing of each.
    nulls : array of float, shape (draws, specifications)
        The same with answers moved; 0 for a specification that is not informative.
    block : int
        Bars that changed places together.
    log_orders : float
        Logarithm of how many orders of all blocks there are; those of like volatility alone have fewer.
    alpha : float
        Level of the test.
    refused : str
        Why there is no test; usually empty.
    errors : array of float, shape (specifications,), or None
        Standard error of the timing of each, a year; what could have been found is not known without.
    """

    informative: NDArray[np.bool_]
    observed: Floats
    nulls: Floats
    block: int
    log_orders: float
    alpha: float
    refused: str = ""
    errors: Floats | None = None

    @property
    def median(self) -> float:
        """Median score over the informative specifications: what is tested."""
        return float(np.median(self.observed[self.informative])) if self.informative.any() else math.nan

    @property
    def medians(self) -> Floats:
        """The same of each draw."""
        if not self.informative.any():
            return np.zeros(0)
        found: Floats = np.median(self.nulls[:, self.informative], axis=1)
        return found

    @property
    def p_values(self) -> Floats:
        """Of each specification alone, by the same draws; NaN where it is not informative."""
        met = (self.nulls >= self.observed - _ROUNDING * np.abs(self.observed)).sum(axis=0)
        return np.where(self.informative, (1.0 + met) / (1.0 + len(self.nulls)), math.nan)

    @property
    def significant(self) -> int:
        """Number of specifications whose own p-value is at most `alpha`."""
        return int((self.p_values <= self.alpha).sum())

    @property
    def significant_by_luck(self) -> NDArray[np.int64]:
        """The same number in each draw: what luck alone would have shown."""
        nulls = self.nulls[:, self.informative]
        pool = np.vstack([self.observed[self.informative], nulls])
        ranks = np.array([(pool >= row).sum(axis=0) for row in nulls]).reshape(nulls.shape)
        return np.asarray((ranks / len(pool) <= self.alpha).sum(axis=1), dtype=np.int64)

    @property
    def question(self) -> Primary:
        """Whether the median timing is better than luck: the one question."""
        reached = self.medians >= self.median - _ROUNDING * abs(self.median)
        known = not self.refused and len(self.nulls) > 0
        return Primary(
            claim=CLAIM,
            p_value=(1 + int(reached.sum())) / (1 + len(self.nulls)) if known else math.nan,
            smallest=max(1.0 / (1 + len(self.nulls)), math.exp(-min(self.log_orders, 700.0))),
            alpha=self.alpha,
            detectable=self._detectable,
            reason=self.refused,
        )

    @property
    def _detectable(self) -> float | None:
        """Timing, a year, of every specification that would be found four times in five."""
        told = self.informative
        if self.errors is None or not told.any() or 1.0 / (1 + len(self.nulls)) > self.alpha:
            return None
        errors = self.errors[told]
        if not (np.isfinite(errors) & (errors > 0.0)).all():
            return None
        medians = self.medians
        bar = float(np.quantile(medians, 1.0 - self.alpha))
        needed = bar + statistics.detectable(float(medians.std()), alpha=0.5)
        return needed / float(np.median(1.0 / errors))


def joint_null(
    entries: Entries,
    observed: Floats,
    evaluate: Evaluate,
    *,
    moments: Moments,
    trades: pd.DataFrame,
    n: int,
    seed: int = 0,
    warm_up: int = 0,
    alpha: float = 0.05,
    errors: Floats | None = None,
) -> JointNull:
    """Return a multiverse among those whose answers were moved.

    Parameters
    ----------
    entries : Entries
        What was asked, and answered.
    observed : array of float, shape (specifications,)
        Score of the timing of each specification.
    evaluate : callable
        Gives of each gate its ``timing``.
    moments : Moments
        The times that change places.
    trades : DataFrame
        With ``opened`` and ``closed``: how long the strategy holds.
    n, seed : int
        How many draws, and where chance comes from.
    warm_up : int
        Of the gates.
    alpha : float
        Level of the test.
    errors : array of float, shape (specifications,), optional
        Standard error of the timing of each, a year.
    """
    told = entries.informative()
    nulls = np.zeros((n, len(observed)))
    columns, block, refused = np.flatnonzero(told), 1, ""
    if len(columns):
        # Specifications that answer alike are one run.
        distinct, places = np.unique(entries.allowed[:, columns], axis=1, return_inverse=True)
        first = [int(columns[np.flatnonzero(places.ravel() == at)[0]]) for at in range(distinct.shape[1])]
        answers = [entries.told(column) for column in first]
        block = moments.block([one for of_one in answers for one in of_one], trades)
        gates = [
            DatesGate(answers=one, dates=dates, others=others, warm_up=warm_up)
            for dates, others in moments.moved(block, n=n, seed=seed)
            for one in answers
        ]
        scores = np.array([one["timing"] for one in evaluate(gates)]).reshape(n, len(first))
        nulls[:, columns] = scores[:, places.ravel()]
    else:
        refused = f"no specification let through and blocked at least {_FEWEST} entries of a side"
    return JointNull(
        informative=told,
        observed=observed,
        nulls=nulls,
        block=block,
        log_orders=math.lgamma(len(moments.times) // block + 1),
        alpha=alpha,
        refused=refused,
        errors=errors,
    )
