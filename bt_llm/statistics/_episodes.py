"""Episodes of an account, and any sequences of answers as walks over them.

An episode is what one entry does to the account: from the close at which it was let in to the bar at which
the account is flat again. Where a strategy forgets everything when it is flat, an episode is the same in
whatever run it comes, but for the account's size; what a run with other answers does to the account is then
known from the episodes that it takes. Many such runs are walked at once, bar by bar.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bt_llm.statistics._inputs import Floats

__all__ = ["AnswersOf", "Episode", "EpisodeBook", "EpisodeWalks", "Places", "Question"]

Question = tuple[int, int]
"""The bar, from 1, by whose close an entry is asked about, and its side, 1 or -1."""

Places: TypeAlias = NDArray[np.intp]

AnswersOf: TypeAlias = Callable[[Places, int, int], NDArray[np.bool_]]
"""From some of many runs, a bar and a side to whether each of them lets the entry in; asked in order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """What an entry does to an account.

    Parameters
    ----------
    question : Question
        That let it in.
    value : float
        What the account was worth when it was asked, where this was seen.
    resume : int
        First bar, from 1, at whose close the account is flat again and nothing waits; one past the last if
        there is none.
    path : ndarray of float
        What it has gained at the close of each bar after the question's, up to `resume`.
    inner : tuple of Question
        Asked on its last bar, while its exit is on its way; one that is let in is the next episode.
    held : int
        Bars with a position at their close.
    traded : float
        Sum of the absolute values of its fills.
    won : tuple of bool
        Of each of its closed trades, whether it gained after commission.
    least : float
        The least it takes the account's cash to, from what that was before: negative for what it costs.
    costs : float
        Sum of its commissions.
    fills : ndarray of shape (4, n_fills)
        Bar, from 1, signed size, price and commission of each, in their order.
    """

    question: Question
    value: float
    resume: int
    path: Floats
    inner: tuple[Question, ...]
    held: int
    traded: float
    won: tuple[bool, ...]
    least: float
    costs: float
    fills: Floats

    @property
    def bar(self) -> int:
        """That of the question: sizes are of the account at its close."""
        return self.question[0]

    @property
    def gain(self) -> float:
        """What it has gained in the end."""
        return float(self.path[-1]) if len(self.path) else 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class EpisodeBook:
    """What is known of a strategy on one set of bars.

    Parameters
    ----------
    bars : int
        How many there are.
    cash : float
        What the account begins with.
    questions : sequence of Question
        All that are asked of an account that stays flat, in order.
    of_account : bool
        Whether sizes are shares of the account; else they are the same whatever it is worth.

    Attributes
    ----------
    episodes : list of Episode
        In the order in which they became known.
    known : dict of Question to int
        Their places in it.
    """

    bars: int
    cash: float
    questions: Sequence[Question]
    of_account: bool = True
    episodes: list[Episode] = field(default_factory=list)
    known: dict[Question, int] = field(default_factory=dict)

    def add(self, episode: Episode) -> None:
        """Know one more episode."""
        self.known[episode.question] = len(self.episodes)
        self.episodes.append(episode)


class EpisodeWalks:
    """The episodes that many sequences of answers take, walked together.

    Parameters
    ----------
    count : int
        How many sequences.
    answers : callable
        Called with the places of those that are asked, the bar and the side, once each and in order; says
        which let the entry in.

    Attributes
    ----------
    counts : ndarray of int, of shape (count,)
        How many episodes each has taken.

    Examples
    --------
    An entry is asked about at the first bar, and again at the third, when the first has come to its end:

    >>> def episode(bar):
    ...     return Episode(question=(bar, 1), value=1.0, resume=bar + 1, path=np.zeros(1), inner=(), held=1,
    ...                    traded=0.0, won=(), least=0.0, costs=0.0, fills=np.zeros((4, 0)))
    >>> book = EpisodeBook(bars=4, cash=100.0, questions=[(1, 1), (3, 1)])
    >>> walks = EpisodeWalks(2, lambda who, bar, side: (who == 0) | (bar == 3))
    >>> for question in walks.through(book):
    ...     book.add(episode(question[0]))
    >>> walks.taken.tolist()
    [[0, 1], [1, -1]]
    """

    def __init__(self, count: int, answers: AnswersOf) -> None:
        self.counts = np.zeros(count, dtype=np.intp)
        self._answers = answers
        self._free = np.zeros(count, dtype=np.intp)  # the first bar at which each is flat again
        self._group = np.full(count, -1, dtype=np.intp)  # what each is asked on its episode's last bar
        self._groups: dict[tuple[Question, ...], int] = {}
        self._inner: dict[int, list[tuple[Question, ...]]] = {}
        self._steps: list[tuple[Places, int]] = []

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def taken(self) -> Places:
        """The numbers of the episodes that each takes, in their order; -1 after its last."""
        found = np.full((len(self), int(self.counts.max(initial=0))), -1, dtype=np.intp)
        done = np.zeros(len(self), dtype=np.intp)
        for who, number in self._steps:
            found[who, done[who]] = number
            done[who] += 1
        return found

    def through(self, book: EpisodeBook) -> Iterator[Question]:
        """Walk to the end; yield each question whose episode has to be known to go on."""
        flat: dict[int, list[Question]] = {}
        for question in book.questions:
            flat.setdefault(question[0], []).append(question)
        bars = sorted(flat)
        while bars:
            bar = heapq.heappop(bars)
            while bars and bars[0] == bar:
                heapq.heappop(bars)
            for question in flat.get(bar, ()):
                yield from self._ask(book, np.flatnonzero(self._free <= bar), question, bars)
            for inner in self._inner.pop(bar, ()):
                group = self._groups[inner]
                for question in inner:
                    yield from self._ask(book, np.flatnonzero(self._group == group), question, bars)

    def _ask(
        self, book: EpisodeBook, asked: Places, question: Question, bars: list[int]
    ) -> Iterator[Question]:
        if not len(asked):
            return
        who = asked[self._answers(asked, *question)]
        if not len(who):
            return
        while question not in book.known:
            yield question
        number = book.known[question]
        episode = book.episodes[number]
        self._steps.append((who, number))
        self.counts[who] += 1
        self._free[who] = episode.resume
        self._group[who] = self._group_of(episode.inner, bars)

    def _group_of(self, inner: tuple[Question, ...], bars: list[int]) -> int:
        if not inner:
            return -1
        if inner not in self._groups:
            self._groups[inner] = len(self._groups)
            bar = inner[0][0]
            self._inner.setdefault(bar, []).append(inner)
            heapq.heappush(bars, bar)
        return self._groups[inner]
