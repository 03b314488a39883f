"""Null gates: what a model's gate has to beat before it can be said to know anything.

They share the interface of `Gate`, so that they run in the same strategy, unchanged:

- `RandomGate` gives a gate's own answers in a random order;
- `ShiftedGate` gives them at other bars;
- `RuleGate` decides by a plain rule on the model's features.

`bt_llm.gates.AlwaysOpen` and `NeverOpen` are the other two. A `RandomGate` and a `ShiftedGate` know answers
from all over the data, the future included: they are there to be compared with, not to be traded.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import backtrader as bt
import numpy as np

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates._base import LONG, SHORT, AttachedGate, Decision, EntryGate
from bt_llm.indicators import LLMAdvice, WarmUp, value_now, warm_up_bars
from bt_llm.settings import number, whole

__all__ = ["Answers", "Per", "RandomGate", "RuleGate", "Run", "ShiftedGate", "permute_runs"]

Per = Literal["entry", "bar"]


class Run(NamedTuple):
    """A stretch of equal answers: what they are, and how many."""

    allowed: bool
    length: int


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a gate answered over one set of bars, each side on its own; small, hashable and picklable.

    Parameters
    ----------
    long, short : bytes
        1 where an entry to that side was allowed and 0 where it was blocked, oldest first.
    per : {'entry', 'bar'}
        'entry': one answer for each entry that the strategy asked about. 'bar': one for each bar from the
        end of the warm-up on, whether the strategy asked or not.
    warm_up : int
        Bars until the gate's first possible answer, that bar included.

    Raises
    ------
    ConfigError
        If an answer is neither 0 nor 1, or a setting is out of range.

    Examples
    --------
    >>> answers = Answers(long=bytes([1, 1, 0, 1]), short=bytes([0, 0]), per="entry")
    >>> answers.pass_rate(LONG), answers.pass_rate(SHORT), answers.pass_rate()
    (0.75, 0.0, 0.5)
    >>> answers.runs(LONG)
    [Run(allowed=True, length=2), Run(allowed=False, length=1), Run(allowed=True, length=1)]
    """

    long: bytes
    short: bytes
    per: Per
    warm_up: int = 0

    def __post_init__(self) -> None:
        """Check the answers, once."""
        for name in ("long", "short"):
            value = getattr(self, name)
            if not isinstance(value, bytes) or not set(value) <= {0, 1}:
                raise ConfigError(f"{name}={value!r:.40}: expected bytes of 0 and 1, one for each answer")
        if self.per not in get_args(Per):
            raise ConfigError(f"per={self.per!r}: expected one of {list(get_args(Per))}")
        if self.per == "bar" and len(self.long) != len(self.short):
            raise ConfigError(
                f"{len(self.long)} answers to long and {len(self.short)} to short: expected one each a bar"
            )
        object.__setattr__(self, "warm_up", whole("warm_up", self.warm_up, 0, of=" of bars"))

    @classmethod
    def of_log(cls, log: Iterable[Decision], warm_up: int = 0) -> Answers:
        """Return the answers that an attached gate logged, one for each entry it was asked about."""
        decisions = list(log)
        long, short = (bytes(d.allowed for d in decisions if d.side == side) for side in (LONG, SHORT))
        return cls(long=long, short=short, per="entry", warm_up=warm_up)

    def of_side(self, side: int) -> bytes:
        """Return the answers to one side, `LONG` or `SHORT`."""
        return self.long if side == LONG else self.short

    def pass_rate(self, side: int | None = None) -> float:
        """Return the share of answers that allowed, of one side or of both; NaN where there are none."""
        answers = self.long + self.short if side is None else self.of_side(side)
        return sum(answers) / len(answers) if answers else math.nan

    def runs(self, side: int) -> list[Run]:
        """Return the longest stretches of equal answers to one side, oldest first."""
        return _runs(self.of_side(side))

    def permuted(self, *seeds: int) -> Answers:
        """Return the answers with their runs in a random order, each side on its own; see `permute_runs`."""
        long, short = (
            permute_runs(self.of_side(side), np.random.default_rng([*seeds, stream]))
            for stream, side in enumerate((LONG, SHORT))
        )
        return replace(self, long=long, short=short)

    def shifted(self, steps: int) -> Answers:
        """Return the answers moved `steps` later; those that fall off the end come first."""
        long, short = (
            bytes(np.roll(np.frombuffer(self.of_side(side), dtype=np.uint8), steps)) for side in (LONG, SHORT)
        )
        return replace(self, long=long, short=short)


def permute_runs(answers: bytes, rng: np.random.Generator) -> bytes:
    """Return answers with the same runs in a random order.

    The lengths of the allowing runs and those of the blocking runs are shuffled, and the two kinds take
    turns. The kind of which there is one more comes first; if there are as many of both, a coin says which.
    So the pass rate and the run lengths are exactly those of `answers`, which is itself one of the
    equally likely outcomes.

    Parameters
    ----------
    answers : bytes
        Of 0 and 1.
    rng : numpy.random.Generator
        Where chance comes from.

    Examples
    --------
    >>> list(permute_runs(bytes([1, 1, 1, 0, 0, 1]), np.random.default_rng(0)))
    [1, 0, 0, 1, 1, 1]
    """
    runs = _runs(answers)
    kinds = {
        allowed: rng.permutation([run.length for run in runs if run.allowed is allowed]).astype(int).tolist()
        for allowed in (True, False)
    }
    more = len(kinds[True]) - len(kinds[False])
    allowed = more > 0 if more else bool(rng.integers(2))
    pieces = []
    for _ in runs:
        pieces.append(bytes([allowed]) * kinds[allowed].pop())
        allowed = not allowed
    return b"".join(pieces)


def _runs(answers: bytes) -> list[Run]:
    values = np.frombuffer(answers, dtype=np.uint8)
    if not len(values):
        return []
    edges = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(values)]]))
    pairs = zip(values[starts].tolist(), lengths.tolist(), strict=True)
    return [Run(bool(value), length) for value, length in pairs]


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

    def known_answers(self) -> Callable[[int, int], bool]:
        """Return what answers a strategy's entries on one data without a run."""
        given = self.given()
        if given.per == "entry":
            turns = {side: itertools.cycle(given.of_side(side) or b"\0") for side in (LONG, SHORT)}
            return lambda bar, side: bool(next(turns[side]))
        first = max(1, given.warm_up)
        return lambda bar, side: bool(given.of_side(side)[bar - first])

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; the strategy's first ``next`` waits for the warm-up."""
        attached = _AttachedAnswers(strategy, data, self.given())
        if self.answers.warm_up > 1:
            WarmUp(attached.data, bars=self.answers.warm_up)  # type: ignore[call-arg]
        return attached


@dataclass(frozen=True, kw_only=True)
class RandomGate(_AnswerGate):
    """Give a gate's answers with their runs in a random order; see `permute_runs`.

    Answers *per entry* are given to the strategy's entries in turn, each side its own: the k-th long entry
    it asks about gets the k-th long answer, and after the last comes the first again. It passes the share of
    entries that the gate passed, in runs as long. Answers *per bar* are given by the number of the bar.
    They keep the share of bars and how long a verdict lasts; what share of the entries passes is left to
    chance.

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
        # One count for all datas of a strategy: their answers were in one order, and stay together.
        self._asked = strategy.__dict__.setdefault("_bt_llm_given", {LONG: 0, SHORT: 0})

    def decide(self, side: int) -> Decision:
        """Return the decision on an entry; asking again at the same bar gives the same."""
        answers, bar = self._answers.of_side(side), self.bar
        if self._answers.per == "entry":
            index = self._asked[side] % max(1, len(answers))
            return Decision(bar, side, bool(answers) and bool(answers[index]))
        index = bar - max(1, self._answers.warm_up)
        if index >= len(answers):
            raise DataError(
                f"bar {bar}: the answers end at bar {bar - index + len(answers) - 1}; "
                f"expected those of a gate that ran on the same bars"
            )
        return Decision(bar, side, bool(answers[index]))

    def ask(self, side: int) -> Decision:
        decision = super().ask(side)
        self._asked[side] += not decision.early
        return decision


@dataclass(frozen=True, kw_only=True)
class RuleGate(EntryGate):
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
        if not (isinstance(self.indicator, type) and issubclass(self.indicator, LLMAdvice)):
            raise ConfigError(f"indicator={self.indicator!r}: expected LLMAdvice or a subclass of it")

    @property
    def warm_up_bars(self) -> int:
        """Bars until the features are known, that bar included."""
        return warm_up_bars(self.indicator, advisor=self.advisor)

    def allows(self, side: int, trend: float, rsi: float) -> bool:
        """Return whether the features let an entry to a side through; NaN does not."""
        if side == LONG:
            return trend > self.trend and rsi < self.overbought
        return trend < -self.trend and rsi > self.oversold

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; in the strategy's ``__init__``."""
        data = strategy.data if data is None else data
        never = data.close - data.close  # a trigger that never fires: features, and no question
        return _AttachedRule(strategy, self.indicator(data, never, advisor=self.advisor), self)


class _AttachedRule(AttachedGate):
    """A `RuleGate` on one strategy and one data."""

    def __init__(self, strategy: bt.Strategy, features: LLMAdvice, gate: RuleGate) -> None:
        super().__init__(strategy, features.data)
        self.features = features
        self.gate = gate

    def decide(self, side: int) -> Decision:
        """Return the decision by the features of the current bar."""
        trend, rsi = value_now(self.features, "trend"), value_now(self.features, "rsi")
        return Decision(self.bar, side, self.gate.allows(side, trend, rsi))
