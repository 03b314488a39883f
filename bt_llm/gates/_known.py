"""What many gates answer to a strategy's entries on one data, without a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bt_llm.gates._base import LONG, SHORT, EntryGate
from bt_llm.gates._dates import DatesGate
from bt_llm.gates._null_answers import nearest_label
from bt_llm.gates._nulls import RandomGate

__all__ = ["KnownAnswers", "known_answers"]

Places: TypeAlias = NDArray[np.intp]

KnownAnswers: TypeAlias = Callable[[Places, int, int], NDArray[np.bool_]]
"""From the places of some gates, a bar and a side to their answers; each is asked in its order."""


def known_answers(
    gates: Sequence[EntryGate], data: str, times: NDArray[np.float64]
) -> KnownAnswers | None:
    """Return what gates answer to entries on one data; None where that takes a run.

    Parameters
    ----------
    gates : sequence of EntryGate
        Whose answers they are.
    data : str
        Name of the data.
    times : ndarray of float
        Backtrader's numbers of its bars.

    Examples
    --------
    >>> from bt_llm.gates import Answers
    >>> answers = Answers(long=bytes([1, 0]), short=b"", per="entry")
    >>> gates = [RandomGate(answers=answers, draw=draw) for draw in range(3)]
    >>> asked = known_answers(gates, "eur", np.arange(9.0))
    >>> every = np.arange(3)
    >>> bool((asked(every, 1, LONG) ^ asked(every, 5, LONG)).all()), asked(every, 7, SHORT).tolist()
    (True, [False, False, False])
    """
    one = gates[0]
    if type(one) is RandomGate and all(
        type(gate) is RandomGate and gate.answers == one.answers and gate.strata == one.strata
        for gate in gates
    ):
        if one.answers.per == "entry":
            return _Dealt(gates)  # type: ignore[arg-type]
    elif type(one) is DatesGate and all(
        type(gate) is DatesGate and gate.answers == one.answers and gate.dates == one.dates for gate in gates
    ):
        return _Dated(gates, data, times)  # type: ignore[arg-type]
    own = [gate.known_answers() for gate in gates]
    if any(answer is None for answer in own):
        return None
    return _Each([answer for answer in own if answer is not None])


class _Each:
    """Gates that are asked one by one."""

    def __init__(self, answers: list[Callable[[int, int], bool]]) -> None:
        self._answers = answers

    def __call__(self, who: Places, bar: int, side: int) -> NDArray[np.bool_]:
        return np.array([self._answers[gate](bar, side) for gate in who.tolist()], dtype=bool)


class _Dealt:
    """Random gates of the same answers per entry; as `Dealer` gives them out."""

    def __init__(self, gates: Sequence[RandomGate]) -> None:
        answers = gates[0].answers
        self._labels = next(iter(gates[0].labels.values()), b"")
        given = [gate.given() for gate in gates]
        self._queues: dict[int, dict[int, NDArray[np.uint8]]] = {}
        for side in (LONG, SHORT):
            table = np.frombuffer(b"".join(one.of_side(side) for one in given), dtype=np.uint8)
            table = table.reshape(len(gates), -1)
            labels = np.frombuffer(answers.strata_of(side), dtype=np.uint8)
            self._queues[side] = {label: table[:, labels == label] for label in np.unique(labels).tolist()}
        self._given: dict[tuple[int, int], Places] = {}
        self._count = len(gates)

    def __call__(self, who: Places, bar: int, side: int) -> NDArray[np.bool_]:
        stratum = self._labels[bar - 1] if bar <= len(self._labels) else 0
        queues = self._queues[side]
        if not queues:
            return np.zeros(len(who), dtype=bool)
        queue = queues[nearest_label(queues, stratum)]
        given = self._given.setdefault((side, stratum), np.zeros(self._count, dtype=np.intp))
        turn = given[who]
        given[who] = turn + 1
        return queue[who, turn % queue.shape[1]] != 0


class _Dated:
    """Gates that give the same answers on other dates."""

    def __init__(self, gates: Sequence[DatesGate], data: str, times: NDArray[np.float64]) -> None:
        self._times = times
        self._dates = np.frombuffer(gates[0].dates, dtype="<f8")
        self._others = np.frombuffer(b"".join(gate.others for gate in gates), dtype="<f8")
        self._others = self._others.reshape(len(gates), -1)
        self._answers = {
            one.side: (np.frombuffer(one.times, dtype="<f8"), np.frombuffer(one.allowed, dtype=np.uint8))
            for one in reversed(gates[0].answers)
            if one.data == data
        }

    def __call__(self, who: Places, bar: int, side: int) -> NDArray[np.bool_]:
        if side not in self._answers:
            return np.zeros(len(who), dtype=bool)
        time = float(self._times[bar - 1])
        day = math.floor(time)
        place = max(0, int(np.searchsorted(self._dates, day, side="right")) - 1)
        times, allowed = self._answers[side]
        then = self._others[who, place] + (time - day)
        return allowed[np.maximum(0, np.searchsorted(times, then, side="right") - 1)] != 0
