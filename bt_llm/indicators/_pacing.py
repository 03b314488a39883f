"""Pacing: what each bar shows when bars come one by one: an answer of its own, an earlier one, or none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from bt_llm.indicators._frequency import Frequency, LastAsk
from bt_llm.indicators._live import LiveAsker

__all__ = ["NO_ANSWER", "Pace", "PacedBar", "Row", "Seen", "is_answer"]

Row = tuple[float, ...]
"""A verdict as the indicator's lines show it: verdict, confidence, bullish, bearish, neutral, label."""

NO_ANSWER: Row = (math.nan,) * 6


def is_answer(row: Row) -> bool:
    """Return whether a row is an answer, be it an unreadable one, whose confidence is 0."""
    return not math.isnan(row[1])


class Seen(NamedTuple):
    """What a bar passes on: the last question, the answer that is carried with its bar, late questions."""

    asked: LastAsk | None = None
    held: tuple[int, Row] | None = None
    late: tuple[tuple[int, int], ...] = ()
    """Bars, and their cells, whose answers were not there in time."""


class PacedBar(NamedTuple):
    """What a bar shows, the bars since the one that it is about, and what it counts as, if anything."""

    row: Row = NO_ANSWER
    age: float = math.nan
    counts_as: str = ""


class Pace:
    """Steps from bar to bar: the same as `Frequency.sources` over all bars at once, where answers are prompt.

    Parameters
    ----------
    frequency : Frequency
        Which bars are asked.
    answer : callable
        From a cell to its row, `NO_ANSWER` if it has none.
    asker : LiveAsker, optional
        In a live run, asked instead.

    Examples
    --------
    >>> pace = Pace(Frequency(every=2), lambda cell: (1.0, 0.6, 0.6, 0.2, 0.2, 0.0))
    >>> seen, first = pace.step(Seen(), bar=1, cell=4, time_ms=0)
    >>> seen, second = pace.step(seen, bar=2, cell=7, time_ms=60_000)
    >>> (first.counts_as, first.age), (second.counts_as, second.age)
    (('asked', 0.0), ('carried', 1.0))
    """

    def __init__(
        self, frequency: Frequency, answer: Callable[[int], Row], asker: LiveAsker[Row] | None = None
    ) -> None:
        self.frequency = frequency
        self.asker = asker
        self._answer = answer

    def step(self, seen: Seen, *, bar: int, cell: int, time_ms: int) -> tuple[Seen, PacedBar]:
        """Return what a bar passes on and what it shows; repeatable, since nothing is kept in here.

        Parameters
        ----------
        seen : Seen
            What the bar before passed on.
        bar : int
            The bar's number.
        cell : int
            Its state's cell, -1 where it is not possible to ask.
        time_ms : int
            Its time.
        """
        if cell < 0:
            return seen, PacedBar()
        seen, came_late = self._with_late(seen)
        if not self.frequency.is_due(seen.asked, time_ms) or not self._may_ask(cell):
            if seen.asked is not None:
                seen = seen._replace(asked=seen.asked._replace(skipped=seen.asked.skipped + 1))
            return seen, self._carried(seen, bar)
        now = LastAsk(bar, time_ms)
        row = self._answer(cell) if self.asker is None else self.asker.answer(cell) or NO_ANSWER
        if is_answer(row):
            return Seen(now, (bar, row)), PacedBar(row, 0.0, "asked")
        if self.asker is None:
            return Seen(now), PacedBar(counts_as="unanswered")
        # Silence about this bar is not bridged by an answer that an earlier bar has shown already; one that
        # has only come since then is the newest there is.
        seen, came_late_now = self._with_late(seen)
        seen = Seen(now, seen.held if came_late or came_late_now else None, _added(seen.late, bar, cell))
        carried = self._carried(seen, bar)
        return seen, carried if carried.counts_as else PacedBar(counts_as="unanswered")

    def _may_ask(self, cell: int) -> bool:
        return self.asker is None or self.asker.may_ask(cell)

    def _with_late(self, seen: Seen) -> tuple[Seen, bool]:
        """Hold the newest answer that has come since its bar, if any, and forget the questions before it."""
        for number in range(len(seen.late) - 1, -1, -1):
            bar, cell = seen.late[number]
            if self.asker is not None and (row := self.asker.known(cell)) is not None:
                return seen._replace(held=(bar, row), late=seen.late[number + 1 :]), True
        return seen, False

    def _carried(self, seen: Seen, bar: int) -> PacedBar:
        if seen.held is None or not self.frequency.counts(bar - seen.held[0]):
            return PacedBar()
        since, row = seen.held
        return PacedBar(row, float(bar - since), "carried")


def _added(late: tuple[tuple[int, int], ...], bar: int, cell: int) -> tuple[tuple[int, int], ...]:
    return (*(question for question in late if question[1] != cell), (bar, cell))
