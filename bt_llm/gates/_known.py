"""What many gates answer to a strategy's entries on one data, without a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bt_llm.gates._base import EntryGate
from bt_llm.gates._dates import ROUNDING, DatesGate

__all__ = ["KnownAnswers", "known_answers"]

Places: TypeAlias = NDArray[np.intp]

KnownAnswers: TypeAlias = Callable[[Places, int, int], NDArray[np.bool_]]
"""From the places of some gates, a bar and a side to their answers; each is asked in its order."""


def known_answers(gates: Sequence[EntryGate], data: str, times: NDArray[np.float64]) -> KnownAnswers | None:
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
    >>> from bt_llm.gates import LONG, SHORT, DatedAnswers
    >>> days = np.array([1.0, 2.0, 3.0])
    >>> answers = DatedAnswers.of([("a", LONG, 1.0, False), ("a", LONG, 2.0, True)])
    >>> orders = (days, days[::-1])
    >>> gates = [DatesGate(answers=answers, dates=days.tobytes(), others=o.tobytes()) for o in orders]
    >>> asked = known_answers(gates, "a", days)
    >>> asked(np.array([0, 1]), 1, LONG).tolist(), asked(np.array([1]), 1, SHORT).tolist()
    ([False, True], [False])
    """
    one = gates[0]
    if type(one) is DatesGate and all(
        type(gate) is DatesGate and gate.answers == one.answers and gate.dates == one.dates for gate in gates
    ):
        return _Dated(gates, data, times)  # type: ignore[arg-type]
    own = [gate.known_answers(data, times) for gate in gates]
    if any(answer is None for answer in own):
        return None
    return _Each([answer for answer in own if answer is not None])


class _Each:
    """Gates that are asked one by one."""

    def __init__(self, answers: list[Callable[[int, int], bool]]) -> None:
        self._answers = answers

    def __call__(self, who: Places, bar: int, side: int) -> NDArray[np.bool_]:
        return np.array([self._answers[gate](bar, side) for gate in who.tolist()], dtype=bool)


class _Dated:
    """Gates that give the same answers on other dates."""

    def __init__(self, gates: Sequence[DatesGate], data: str, times: NDArray[np.float64]) -> None:
        self._times = times
        self._dates = np.frombuffer(gates[0].dates, dtype="<f8")
        others = np.frombuffer(b"".join(gate.others for gate in gates), dtype="<f8")
        self._others = others.reshape(len(gates), -1)
        self._answers = {one.side: one for one in reversed(gates[0].answers) if one.data == data}

    def __call__(self, who: Places, bar: int, side: int) -> NDArray[np.bool_]:
        if side not in self._answers:
            return np.zeros(len(who), dtype=bool)
        time = self._times[bar - 1]
        place = max(0, int(np.searchsorted(self._dates, time, side="right")) - 1)
        return self._answers[side].at(self._others[who, place] + (time - self._dates[place]) + ROUNDING)
