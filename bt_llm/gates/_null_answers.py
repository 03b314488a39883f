"""What a gate answered, as null gates give it out: in another order, or at other bars."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import LONG, SHORT, Decision
from bt_llm.settings import one_of, whole
from bt_llm.statistics import log_arrangements, permute_runs

__all__ = ["Answers", "Dealer", "Per", "Run"]

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
        one_of("per", self.per, get_args(Per))
        if self.per == "bar" and len(self.long) != len(self.short):
            raise ConfigError(
                f"{len(self.long)} answers to long and {len(self.short)} to short: expected one each a bar"
            )
        object.__setattr__(self, "warm_up", whole("warm_up", self.warm_up, 0, of=" of bars"))

    @classmethod
    def of_log(cls, log: Iterable[Decision], warm_up: int = 0) -> Answers:
        """Return the answers that an attached gate logged, one for each entry it was asked about.

        Parameters
        ----------
        log : iterable of Decision
            In order.
        warm_up : int
            See `Answers`.
        """
        decisions = list(log)
        long, short = (bytes(d.allowed for d in decisions if d.side == side) for side in (LONG, SHORT))
        return cls(long=long, short=short, per="entry", warm_up=warm_up)

    def of_side(self, side: int) -> bytes:
        """Return the answers to one side, `LONG` or `SHORT`."""
        return self.long if side == LONG else self.short

    @property
    def log_arrangements(self) -> float:
        """Logarithm of how many different orders `permuted` may give."""
        return sum(log_arrangements(_array(self.of_side(side))) for side in (LONG, SHORT))

    def contested(self) -> tuple[int, int]:
        """Return how many answers allowed, and how many blocked, of the sides to which it gave both."""
        allowed = blocked = 0
        for answers in (self.long, self.short):
            if 0 < (passed := sum(answers)) < len(answers):
                allowed, blocked = allowed + passed, blocked + len(answers) - passed
        return allowed, blocked

    def pass_rate(self, side: int | None = None) -> float:
        """Return the share of answers that allowed, of one side or of both; NaN where there are none."""
        answers = self.long + self.short if side is None else self.of_side(side)
        return sum(answers) / len(answers) if answers else math.nan

    def runs(self, side: int) -> list[Run]:
        """Return the longest stretches of equal answers to one side, oldest first."""
        return _runs(self.of_side(side))

    def permuted(self, *seeds: int) -> Answers:
        """Return the answers with their runs in a random order, each side on its own.

        See `bt_llm.statistics.permute_runs`.
        """
        long, short = (
            permute_runs(_array(self.of_side(side)), np.random.default_rng([*seeds, stream])).tobytes()
            for stream, side in enumerate((LONG, SHORT))
        )
        return replace(self, long=long, short=short)

    def shifted(self, steps: int) -> Answers:
        """Return the answers moved `steps` later; those that fall off the end come first."""
        long, short = (np.roll(_array(self.of_side(side)), steps).tobytes() for side in (LONG, SHORT))
        return replace(self, long=long, short=short)


def _array(values: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(values, dtype=np.uint8)


class Dealer:
    """Gives out answers per entry in turn, each side its own.

    The k-th entry that is asked about gets the k-th answer, and after the last comes the first again.

    Examples
    --------
    >>> dealer = Dealer(Answers(long=bytes([1, 0, 0]), short=b"", per="entry"))
    >>> [dealer.take(LONG) for _ in range(4)], dealer.take(SHORT)
    ([True, False, False, True], False)
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = {side: answers.of_side(side) for side in (LONG, SHORT)}
        self._given = {LONG: 0, SHORT: 0}

    def next(self, side: int) -> bool:
        """Return the answer to the next entry, and do not count it as given."""
        answers = self._answers[side]
        return bool(answers[self._given[side] % len(answers)]) if answers else False

    def take(self, side: int) -> bool:
        """Return the answer to the next entry, and go on to the one after."""
        answer = self.next(side)
        self._given[side] += 1
        return answer


def _runs(answers: bytes) -> list[Run]:
    values = _array(answers)
    if not len(values):
        return []
    edges = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(values)]]))
    pairs = zip(values[starts].tolist(), lengths.tolist(), strict=True)
    return [Run(bool(value), length) for value, length in pairs]
