"""The joint null of a multiverse: all specifications' answers moved to other entries, the same for all.

A specification's test (`gate_test`) gives its answers to the strategy's entries in another order. Done for
each specification alone, that would break what they have in common, and a median over them would look far
steadier under the null than it is. So here one order of the entries is drawn, and every specification's
answers follow it: what they say of an entry together, they say together of another one. Each specification
keeps the share of entries that it lets through, of either side and in markets as volatile.

Entries change places in blocks, as many in a row as a specification's answer lasts on average, so that
answers keep their persistence; a block begins at a random entry. Under the null, that answers know nothing of
which entries pay, the order that was seen is one of those that could have been drawn, if what entries pay can
be exchanged at the distance of a block.

The statistic is the median score of the timing over the specifications whose test could find anything. That
is the first of the three statistics of a specification curve by Simonsohn, Simmons and Nelson.

References
----------
U. Simonsohn, J. P. Simmons and L. D. Nelson, "Specification Curve Analysis", Nature Human Behaviour 4,
2020. S. Steegen, F. Tuerlinckx, A. Gelman and W. Vanpaemel, "Increasing Transparency Through a Multiverse
Analysis", Perspectives on Psychological Science 11, 2016.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest import Primary
from bt_llm.gates import LONG, SHORT, AttachedGate, Decision, EntryGate
from bt_llm.indicators import WarmUp
from bt_llm.shown import Told

__all__ = ["Entries", "JointNull", "joint_null"]

Floats = NDArray[np.float64]

CLAIM = "the timing of the specifications, by their median, is better than luck"
_FEWEST = 5
"""Entries that a specification lets through, and blocks, before its timing says anything."""
_LEAST_BLOCKS = 4
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Entries(Told):
    """The entries of a strategy, and what each specification answers to them.

    Parameters
    ----------
    bars, sides : array of int, shape (entries,)
        Bar of each, oldest first, and `LONG` or `SHORT`.
    strata : array of int, shape (entries,)
        How much the market moved; answers change places with others of their side and stratum.
    allowed : array of bool, shape (entries, specifications)
        Whether it is let through.
    """

    bars: NDArray[np.int64]
    sides: NDArray[np.int64]
    strata: NDArray[np.int64]
    allowed: NDArray[np.bool_]

    def groups(self) -> list[NDArray[np.intp]]:
        """Return the positions of the entries of each side and stratum."""
        kinds = sorted(set(zip(self.sides.tolist(), self.strata.tolist(), strict=True)))
        return [np.flatnonzero((self.sides == side) & (self.strata == label)) for side, label in kinds]

    def informative(self) -> NDArray[np.bool_]:
        """Return which specifications let through and blocked enough, where both happened."""
        passed = np.zeros(self.allowed.shape[1], dtype=np.int64)
        blocked = passed.copy()
        for group in self.groups():
            here = self.allowed[group].sum(axis=0)
            contested = (here > 0) & (here < len(group))
            passed += np.where(contested, here, 0)
            blocked += np.where(contested, len(group) - here, 0)
        return np.minimum(passed, blocked) >= _FEWEST

    def block(self) -> int:
        """Return how many entries of a group stay together: as many as an answer lasts, on average."""
        told = self.informative()
        runs = cells = 0
        for group in self.groups():
            answers = self.allowed[group][:, told]
            runs += int((answers[1:] != answers[:-1]).sum()) + answers.shape[1]
            cells += answers.size
        return max(1, round(cells / runs)) if cells else 1

    def order(self, rng: np.random.Generator, block: int) -> NDArray[np.intp]:
        """Return, for each entry, the position of the one whose answers it gets."""
        found = np.arange(len(self.bars))
        for group in self.groups():
            size = _fitted(block, len(group))
            blocks = (np.arange(len(group)) + rng.integers(size)) // size
            found[group] = group[statistics.permute_blocks(blocks, rng)]
        return found

    def log_orders(self, block: int) -> float:
        """Return the logarithm of how many orders of blocks there are."""
        counts = [math.ceil(len(group) / _fitted(block, len(group))) for group in self.groups()]
        return math.fsum(math.lgamma(count + 1) for count in counts)

    def gate(self, number: int, order: NDArray[np.intp] | None = None, warm_up: int = 0) -> EntryGate:
        """Return a gate that gives a specification's answers, in another order if one is given."""
        answers = self.allowed[:, number] if order is None else self.allowed[order, number]
        told = {}
        for side in (LONG, SHORT):
            own = self.sides == side
            told[side] = (tuple(self.bars[own].tolist()), bytes(answers[own].astype(np.uint8)))
        return MovedGate(told=told, warm_up=warm_up)


def _fitted(block: int, entries: int) -> int:
    """Return the size of blocks in a group: there are some, or nothing could change places."""
    return max(1, min(block, entries // _LEAST_BLOCKS))


@dataclass(frozen=True, kw_only=True, eq=False)
class MovedGate(EntryGate):
    """Answer each entry from a list: as at that bar, or the last one before it that is listed.

    Parameters
    ----------
    told : mapping of int to (tuple of int, bytes)
        Of each side, bars and answers of 0 and 1.
    warm_up : int
        Bars that the strategy waits for.
    """

    told: Mapping[int, tuple[tuple[int, ...], bytes]]
    warm_up: int = 0

    @property
    def warm_up_bars(self) -> int:
        """As given."""
        return self.warm_up

    def answer(self, bar: int, side: int) -> bool:
        """Return whether an entry is let through."""
        bars, answers = self.told[side]
        return bool(answers[max(0, bisect.bisect_right(bars, bar) - 1)]) if bars else False

    def known_answers(self, data: str, times: Floats) -> Callable[[int, int], bool]:
        """Return `answer`: it needs no run to know."""
        return self.answer

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; with a warm-up, the strategy's first ``next`` waits for it."""
        gate = _AttachedMoved(strategy, data, self)
        if self.warm_up > 1:
            WarmUp(gate.data, bars=self.warm_up)  # type: ignore[call-arg]
        return gate


class _AttachedMoved(AttachedGate):
    def __init__(self, strategy: bt.Strategy, data: Any, gate: MovedGate) -> None:
        super().__init__(strategy, data)
        self._gate = gate

    def decide(self, side: int) -> Decision:
        return Decision(self.bar, side, self._gate.answer(self.bar, side))


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
        Entries that changed places together.
    log_orders : float
        Logarithm of how many orders of the blocks there are.
    alpha : float
        Level of the test.
    refused : str
        Why there is no test; usually empty.
    """

    informative: NDArray[np.bool_]
    observed: Floats
    nulls: Floats
    block: int
    log_orders: float
    alpha: float
    refused: str = ""

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
            reason=self.refused,
        )


def joint_null(
    entries: Entries,
    observed: Floats,
    evaluate: Callable[[Sequence[EntryGate]], Sequence[Mapping[str, float]]],
    *,
    n: int,
    seed: int = 0,
    warm_up: int = 0,
    alpha: float = 0.05,
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
    n, seed : int
        How many draws, and where chance comes from.
    warm_up : int
        Of the gates.
    alpha : float
        Level of the test.
    """
    told = entries.informative()
    block = entries.block()
    nulls = np.zeros((n, len(observed)))
    columns = np.flatnonzero(told)
    if len(columns):
        # Specifications that answer alike are one run.
        distinct, places = np.unique(entries.allowed[:, columns], axis=1, return_inverse=True)
        first = [int(columns[np.flatnonzero(places.ravel() == at)[0]]) for at in range(distinct.shape[1])]
        orders = [entries.order(np.random.default_rng([seed, draw]), block) for draw in range(n)]
        gates = [entries.gate(column, order, warm_up) for order in orders for column in first]
        scores = np.array([one["timing"] for one in evaluate(gates)]).reshape(n, len(first))
        nulls[:, columns] = scores[:, places.ravel()]
    refused = ""
    if not len(columns):
        refused = (
            f"no specification let through and blocked at least {_FEWEST} entries of a side in markets as "
            "volatile"
        )
    return JointNull(
        informative=told,
        observed=observed,
        nulls=nulls,
        block=block,
        log_orders=entries.log_orders(block),
        alpha=alpha,
        refused=refused,
    )
