"""A null gate: the answers that a gate gave, at other times; in a panel on other dates, the same for all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import LONG, SHORT, AttachedGate, Decision, EntryGate, wait_for

__all__ = ["ROUNDING", "DatedAnswers", "DatesGate", "permute_dates"]

Floats = NDArray[np.float64]

ROUNDING = 1e-7
"""Days, a hundredth of a second: the same time on another date is another number in its last digit."""


@dataclass(frozen=True, kw_only=True)
class DatedAnswers:
    """What a gate answered to the entries of a strategy on one data to one side, by time.

    Parameters
    ----------
    data : str
        Name of the data.
    side : int
        `LONG` or `SHORT`.
    times : bytes
        Backtrader's numbers of the bars that the entries were decided at, oldest first, as float64.
    allowed : bytes
        1 where the entry was let through, else 0.
    """

    data: str
    side: int
    times: bytes
    allowed: bytes

    @classmethod
    def of(cls, entries: Iterable[tuple[str, int, float, bool]]) -> tuple[DatedAnswers, ...]:
        """Return the answers of entries (data, side, number of the bar, allowed), one for each data and side.

        Examples
        --------
        >>> from bt_llm.gates import LONG, SHORT
        >>> entries = [("a", LONG, 2.0, True), ("a", SHORT, 1.0, False), ("a", LONG, 1.0, False)]
        >>> found = DatedAnswers.of(entries)
        >>> [(one.side, list(one.allowed)) for one in found]
        [(1, [0, 1]), (-1, [0])]
        """
        groups: dict[tuple[str, int], list[tuple[float, bool]]] = {}
        for data, side, time, allowed in entries:
            groups.setdefault((data, side), []).append((time, allowed))
        found = []
        for (data, side), answers in groups.items():
            answers.sort(key=lambda answer: answer[0])
            times = np.array([time for time, _ in answers], dtype="<f8").tobytes()
            let_through = bytes(allowed for _, allowed in answers)
            found.append(cls(data=data, side=side, times=times, allowed=let_through))
        return tuple(found)

    def at(self, times: Floats) -> NDArray[np.bool_]:
        """Return the last answer at or before each of several times; before the first, that."""
        known = np.frombuffer(self.times, dtype="<f8")
        places = np.maximum(0, np.searchsorted(known, times, side="right") - 1)
        found: NDArray[np.bool_] = np.frombuffer(self.allowed, dtype=np.uint8)[places] != 0
        return found

    @property
    def run_days(self) -> float:
        """Mean time for which an answer stays the same, in days; NaN for one that never changes."""
        values = np.frombuffer(self.allowed, dtype=np.uint8)
        changes = int(np.count_nonzero(np.diff(values)))
        times = np.frombuffer(self.times, dtype="<f8")
        return float(times[-1] - times[0]) / (changes + 1) if changes else math.nan


@dataclass(frozen=True, kw_only=True)
class DatesGate(EntryGate):
    """Answer on each date, or at each bar, as another gate answered on another one.

    The answer to an entry is the one that the other gate gave last, at or before that time of the other date,
    to an entry of the same side on the same data. So it is as long until an answer changes as it was for the
    other gate, however often a strategy asks meanwhile. Gates of several symbols with the same `dates` and
    `others` keep what their answers had in common on a date. It knows answers from all over the data: it is
    there to be compared with, not to be traded.

    Parameters
    ----------
    answers : tuple of DatedAnswers
        Of the other gate.
    dates, others : bytes
        Days or bars, oldest first, and for each the one whose answers it gets, as float64 numbers of
        Backtrader's. What comes between two belongs to the first, and keeps its distance from it.
    warm_up : int
        Bars that the strategy waits for, as it would for the other gate.

    Examples
    --------
    >>> from bt_llm.gates import LONG
    >>> days = np.array([1.0, 2.0, 3.0])
    >>> answers = DatedAnswers.of([("a", LONG, 1.0, False), ("a", LONG, 2.0, True)])
    >>> gate = DatesGate(answers=answers, dates=days.tobytes(), others=days[::-1].tobytes())
    >>> [gate.answer("a", LONG, day) for day in days]
    [True, True, False]
    """

    answers: tuple[DatedAnswers, ...]
    dates: bytes
    others: bytes
    warm_up: int = 0

    def __post_init__(self) -> None:
        """Check the dates, once."""
        if not self.dates or len(self.dates) != len(self.others):
            raise ConfigError(
                f"{len(self.dates) // 8} dates and {len(self.others) // 8} others: expected as many, and some"
            )

    @property
    def warm_up_bars(self) -> int:
        """As given."""
        return self.warm_up

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; with a warm-up, the strategy's first ``next`` waits for it."""
        return wait_for(self.warm_up, _AttachedDates(strategy, data, self))

    def answer(self, data: str, side: int, time: float) -> bool:
        """Return whether an entry is let through; one that the other gate was never asked about is not."""
        return bool(self.line(data, side, np.array([time]))[0])

    def line(self, data: str, side: int, times: Floats) -> NDArray[np.bool_]:
        """Return what is answered to one side at each of several times, as `answer` does at one."""
        told = next((one for one in self.answers if (one.data, one.side) == (data, side)), None)
        if told is None:
            return np.zeros(len(times), dtype=bool)
        dates = np.frombuffer(self.dates, dtype="<f8")
        place = np.maximum(0, np.searchsorted(dates, times, side="right") - 1)
        then = np.frombuffer(self.others, dtype="<f8")[place] + (times - dates[place])
        return told.at(then + ROUNDING)

    def known_answers(self, data: str, times: Floats) -> Callable[[int, int], bool]:
        """Return what answers a strategy's entries on one data without a run."""
        lines = {side: self.line(data, side, times) for side in (LONG, SHORT)}
        return lambda bar, side: bool(lines[side][bar - 1])


class _AttachedDates(AttachedGate):
    """A `DatesGate` on one strategy and one data."""

    def __init__(self, strategy: bt.Strategy, data: Any, gate: DatesGate) -> None:
        super().__init__(strategy, data)
        self._gate = gate
        self._name = str(getattr(self.data, "_name", ""))

    def decide(self, side: int) -> Decision:
        """Return the decision by the date of the bar."""
        allowed = self._gate.answer(self._name, side, float(self.data.datetime[0]))
        return Decision(self.bar, side, allowed)


def permute_dates(
    count: int, block: int, rng: np.random.Generator, levels: Sequence[float] | Floats | None = None
) -> NDArray[np.intp]:
    """Return dates with their blocks in a random order, of blocks of a kind only among each other.

    Parameters
    ----------
    count : int
        Number of dates.
    block : int
        Dates in a block. Where the first begins is random, and the last goes on at the start: the dates are
        a circle, so that every date is in a whole block.
    rng : numpy.random.Generator
        Where chance comes from.
    levels : array_like of shape (count,), optional
        Such as the market's volatility on each date. Blocks are exchanged only within thirds by their mean
        level (fewer parts where there are fewer than 24 blocks), so that what is answered keeps its relation
        to the level.

    Returns
    -------
    ndarray of int
        For each date, the position of the one that it gets.

    Examples
    --------
    >>> moved = permute_dates(12, 3, np.random.default_rng(0))
    >>> sorted(moved.tolist()) == list(range(12)), int((np.diff(moved) % 12 == 1).sum()) >= 8
    (True, True)
    """
    blocks = max(1, count // block)
    edges = np.round(np.linspace(0, count, blocks + 1)).astype(int)
    dates = np.roll(np.arange(count), -int(rng.integers(count)))
    pieces = [dates[low:high] for low, high in itertools.pairwise(edges.tolist())]
    parts = max(1, min(3, blocks // 8))
    order = np.arange(blocks)
    if levels is not None and parts > 1:
        means = [float(np.mean(np.asarray(levels)[piece])) for piece in pieces]
        kinds = np.argsort(np.argsort(means, kind="stable")) * parts // blocks
    else:
        kinds = np.zeros(blocks, dtype=int)
    for kind in range(parts):
        places = np.flatnonzero(kinds == kind)
        order[places] = rng.permutation(places)
    targets = np.concatenate(pieces)
    sources = np.concatenate([_fitted(pieces[order[at]], len(piece)) for at, piece in enumerate(pieces)])
    found = np.empty(count, dtype=np.intp)
    found[targets] = sources
    return found


def _fitted(piece: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Return a block of a length: blocks differ by one date at most."""
    return np.resize(piece, length)
