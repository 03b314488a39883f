"""Null gates: what a model's gate has to beat before it can be said to know anything.

They share the interface of `Gate`, so that they run in the same strategy, unchanged:

- `RandomGate` gives a gate's own answers in a random order;
- `DatesGate` gives them at other times, stretches of which have changed places;
- `ShiftedGate` gives them all some bars later;
- `RuleGate` decides by a plain rule on the model's features.

`bt_llm.gates.AlwaysOpen` and `NeverOpen` are the other two. Gates of known answers have them from all over
the data, the future included: they are there to be compared with, not to be traded.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates._base import LONG, AttachedGate, Decision, EntryGate, wait_for
from bt_llm.gates._indicator_gate import FeatureGate
from bt_llm.gates._null_answers import Answers, Dealer
from bt_llm.indicators import LLMAdvice
from bt_llm.settings import number, whole

__all__ = ["RandomGate", "RuleGate", "ShiftedGate"]


@dataclass(frozen=True, kw_only=True)
class _AnswerGate(EntryGate):
    """A gate that gives answers known beforehand.

    Parameters
    ----------
    answers : Answers
        Of the gate that this one is compared with.
    """

    answers: Answers

    def __post_init__(self) -> None:
        """Check the answers, once."""
        if not isinstance(self.answers, Answers):
            raise ConfigError(f"answers={self.answers!r:.40}: expected Answers, such as Answers.of_log(...)")

    @property
    def warm_up_bars(self) -> int:
        """That of the gate whose answers these are."""
        return self.answers.warm_up

    @abc.abstractmethod
    def given(self) -> Answers:
        """Return the answers that this gate gives."""

    def known_answers(self, data: str, times: NDArray[np.float64]) -> Callable[[int, int], bool]:
        """Return what answers a strategy's entries on one data without a run."""
        given = self.given()
        if given.per == "bar":
            first = max(1, given.warm_up)
            return lambda bar, side: bool(given.of_side(side)[bar - first])
        dealer = Dealer(given)
        return lambda _, side: dealer.take(side)

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; the strategy's first ``next`` waits for the warm-up."""
        return wait_for(self.warm_up_bars, _AttachedAnswers(strategy, data, self.given()))


@dataclass(frozen=True, kw_only=True)
class RandomGate(_AnswerGate):
    """Give a gate's answers with their runs in a random order, each side on its own.

    Answers *per entry* are given to the strategy's entries in turn, as `Dealer` does: the k-th long entry it
    asks about gets the k-th long answer. It passes the share of entries that the gate passed, in runs as
    long. Of a strategy that asks again after a veto runs of entries are not stretches of time, and a gate
    that is open for a while and closed for a while is found too good by these too often; see `DatesGate`.
    Answers *per bar* are given by the number of the bar. They keep the share of bars and how long a verdict
    lasts; what share of the entries passes is left to chance.

    Parameters
    ----------
    answers : Answers
        Of the gate that this one is compared with.
    seed, draw : int
        Any two different pairs give independent gates; the same pair gives the same gate.

    Examples
    --------
    >>> answers = Answers(long=bytes([1, 1, 1, 0, 0, 0, 0, 1]), short=b"", per="entry")
    >>> gate = RandomGate(answers=answers, seed=1)
    >>> gate.given() == RandomGate(answers=answers, seed=1).given()
    True
    >>> sorted(gate.given().runs(LONG)) == sorted(answers.runs(LONG))
    True
    """

    seed: int = 0
    draw: int = 0

    def __post_init__(self) -> None:
        """Check the numbers, once."""
        super().__post_init__()
        for name in ("seed", "draw"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0))

    def given(self) -> Answers:
        """Return the answers in this gate's order."""
        return self.answers.permuted(self.seed, self.draw)


@dataclass(frozen=True, kw_only=True)
class ShiftedGate(_AnswerGate):
    """Give a gate's answers a fixed number of bars late, those of the last bars coming first.

    The line of answers stays as it is in every respect but its place on the market.

    Parameters
    ----------
    answers : Answers
        Of the gate that this one is compared with, per bar.
    bars : int
        How many bars late; negative is early.

    Examples
    --------
    >>> answers = Answers(long=bytes([1, 1, 0, 0]), short=bytes([0, 0, 0, 1]), per="bar")
    >>> list(ShiftedGate(answers=answers, bars=1).given().long)
    [0, 1, 1, 0]
    """

    bars: int = 0

    def __post_init__(self) -> None:
        """Check the shift, once."""
        super().__post_init__()
        if self.answers.per != "bar":
            raise ConfigError("answers per entry have no bars to be shifted by: expected answers per bar")
        object.__setattr__(self, "bars", whole("bars", self.bars, of=" of bars"))

    def given(self) -> Answers:
        """Return the answers at their new places."""
        return self.answers.shifted(self.bars)


class _AttachedAnswers(AttachedGate):
    """A gate of known answers on one strategy and one data."""

    def __init__(self, strategy: bt.Strategy, data: Any, answers: Answers) -> None:
        super().__init__(strategy, data)
        self._answers = answers
        # One for all datas of a strategy: their answers were in one order, and stay together.
        self._dealer = strategy.__dict__.setdefault("_bt_llm_dealer", Dealer(answers))

    def decide(self, side: int) -> Decision:
        """Return the decision on an entry; asking again at the same bar gives the same."""
        answers, bar = self._answers.of_side(side), self.bar
        if self._answers.per == "entry":
            return Decision(bar, side, self._dealer.next(side))
        index = bar - max(1, self._answers.warm_up)
        if index >= len(answers):
            raise DataError(
                f"bar {bar}: the answers end at bar {bar - index + len(answers) - 1}; "
                f"expected those of a gate that ran on the same bars"
            )
        return Decision(bar, side, bool(answers[index]))

    def ask(self, side: int) -> Decision:
        decision = super().ask(side)
        if not decision.early and self._answers.per == "entry":
            self._dealer.take(side)
        return decision


@dataclass(frozen=True, kw_only=True)
class RuleGate(FeatureGate):
    """Let entries through by a plain rule on two of the model's features.

    A long entry needs a trend above `trend` and an RSI below `overbought`; a short one a trend below
    ``-trend`` and an RSI above `oversold`. Where a feature is not known, entries are blocked. A model that
    does not beat this rule is an expensive way to compute it.

    Parameters
    ----------
    trend : float
        In ATR units a bar, 0 or more.
    overbought, oversold : float
        RSI, 0 to 100.
    indicator : type
        `LLMAdvice` or a subclass: it computes the features as it does for the model, and is never asked.
    advisor : AdvisorConfig
        Of the gate that this one is compared with; its state space is part of the warm-up.

    Examples
    --------
    >>> from bt_llm.gates import SHORT
    >>> rule = RuleGate()
    >>> rule.allows(LONG, trend=0.1, rsi=60.0), rule.allows(LONG, trend=0.1, rsi=75.0)
    (True, False)
    >>> rule.allows(SHORT, trend=-0.1, rsi=25.0), rule.allows(SHORT, trend=-0.1, rsi=40.0)
    (False, True)
    """

    trend: float = 0.0
    overbought: float = 70.0
    oversold: float = 30.0
    indicator: type[LLMAdvice] = LLMAdvice
    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)

    def __post_init__(self) -> None:
        """Check the numbers, once."""
        for name, high in (("trend", math.inf), ("overbought", 100.0), ("oversold", 100.0)):
            object.__setattr__(self, name, number(name, getattr(self, name), 0, high))
        self._check_indicator()

    @property
    def feature_names(self) -> Sequence[str]:
        """The two of the rule."""
        return "trend", "rsi"

    def allows(self, side: int, trend: float, rsi: float) -> bool:
        """Return whether the features let an entry to a side through; NaN does not."""
        if side == LONG:
            return trend > self.trend and rsi < self.overbought
        return trend < -self.trend and rsi > self.oversold

    def decision(self, bar: int, side: int, features: Mapping[str, float]) -> Decision:
        """Return the decision by the rule."""
        return Decision(bar, side, self.allows(side, features["trend"], features["rsi"]))
