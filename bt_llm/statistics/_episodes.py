"""Episodes of an account, and any sequence of answers as a walk over them.

An episode is what one entry does to the account: from the close at which it was let in to the bar at which
the account is flat again. Where a strategy forgets everything when it is flat, an episode is the same in
whatever run it comes, but for the account's size; what a run with other answers does to the account is then
known from the episodes that it takes.
"""

from __future__ import annotations

import bisect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bt_llm.statistics._inputs import Floats

__all__ = ["Episode", "EpisodeBook", "EpisodeWalk", "Question", "Replayed"]

Question = tuple[int, int]
"""The bar, from 1, by whose close an entry is asked about, and its side, 1 or -1."""

_bar_of = operator.itemgetter(0)


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What a sequence of answers does to an account.

    Attributes
    ----------
    equity : ndarray of float
        Value of the account at each close.
    held : int
        Bars with a position at their close.
    traded : float
        Sum of the absolute values of all fills.
    won : list of bool
        Of each closed trade, whether it gained after commission.
    taken : list of Episode
        The episodes.
    scales : list of float
        What the sizes of each are multiplied by.
    """

    equity: Floats
    held: int
    traded: float
    won: list[bool]
    taken: list[Episode]
    scales: list[float]

    @property
    def fills(self) -> Floats:
        """All fills; see `Episode`."""
        if not self.taken:
            return np.zeros((4, 0))
        fills = np.concatenate([episode.fills for episode in self.taken], axis=1)
        fills[[1, 3]] *= np.repeat(self.scales, [episode.fills.shape[1] for episode in self.taken])
        return fills


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

    Examples
    --------
    Half of the account, bought at the open of the second bar for 10 and sold at that of the third for 12:

    >>> book = EpisodeBook(bars=4, cash=100.0, questions=[(1, 1)], of_account=True)
    >>> book.known[1, 1] = Episode(
    ...     question=(1, 1), value=200.0, resume=3, path=np.array([10.0, 20.0]), inner=(), held=1,
    ...     traded=220.0, won=(True,), least=-100.0, costs=0.0,
    ...     fills=np.array([[2.0, 3.0], [10.0, -10.0], [10.0, 12.0], [0.0, 0.0]]))
    >>> walk = EpisodeWalk(lambda bar, side: True)
    >>> walk.go(book)
    True
    >>> found = book.replay(walk.taken)
    >>> found.equity.tolist(), found.fills[1].tolist()
    ([100.0, 105.0, 110.0, 110.0], [5.0, -5.0])
    """

    bars: int
    cash: float
    questions: Sequence[Question]
    of_account: bool = True
    known: dict[Question, Episode] = field(default_factory=dict)
    _still: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make what the account gains while it is flat."""
        self._still = np.zeros(self.bars)

    def after(self, episode: Episode) -> int:
        """Return the place among `questions` of the first that is asked after an episode."""
        return bisect.bisect_left(self.questions, episode.resume, key=_bar_of)

    def replay(self, taken: Sequence[Episode], cash: float | None = None) -> Replayed | None:
        """Return what episodes, one after the other, do to the account.

        Parameters
        ----------
        taken : sequence of Episode
            See `EpisodeWalk`.
        cash : float, optional
            What the account begins with instead.

        Returns
        -------
        Replayed or None
            None where that cannot be told: the account is ruined, or its cash so low that an order might
            have been refused.
        """
        curve, before = _Curve(self._still), None
        cash = self.cash if cash is None else cash
        start = scale = traded = 0.0
        held, won, scales = 0, list[bool](), list[float]()
        for episode in taken:
            value = least = cash
            if before is not None:
                curve.follow(start, scale, before.path, min(before.resume, episode.bar))
                if episode.bar < before.resume:  # its exit and this entry fill on one bar
                    value = start + scale * float(before.path[episode.bar - before.bar - 1])
                    least = min(cash, value - scale * before.costs)
            curve.stay(cash, episode.bar)
            start, before, scale = cash, episode, value / episode.value if self.of_account else 1.0
            if least + scale * episode.least < 0.0:
                return None
            cash += scale * episode.gain
            traded += scale * episode.traded
            held += episode.held
            won += episode.won
            scales.append(scale)
        if before is not None:
            curve.follow(start, scale, before.path, min(before.resume, self.bars))
        curve.stay(cash, self.bars)
        equity = curve.values()
        if not equity.min() > 0.0:
            return None
        return Replayed(equity=equity, held=held, traded=traded, won=won, taken=[*taken], scales=scales)


class _Curve:
    """The account's value, a stretch at a time."""

    def __init__(self, still: Floats) -> None:
        self._still = still
        self.at = 0
        self.bases: list[float] = []
        self.scales: list[float] = []
        self.paths: list[Floats] = []

    def follow(self, base: float, scale: float, path: Floats, end: int) -> None:
        """Go along a path from here to a bar."""
        self.bases.append(base)
        self.scales.append(scale)
        self.paths.append(path[: end - self.at])
        self.at = end

    def stay(self, base: float, end: int) -> None:
        """Stay at a value until a bar."""
        if end > self.at:
            self.follow(base, 0.0, self._still, end)

    def values(self) -> Floats:
        lengths = [len(path) for path in self.paths]
        bases, scales = np.repeat(self.bases, lengths), np.repeat(self.scales, lengths)
        values: Floats = bases + scales * np.concatenate(self.paths)
        return values


class EpisodeWalk:
    """The episodes that a sequence of answers takes; it stops at one that is not known, and goes on later.

    Parameters
    ----------
    answer : callable
        Called with the bar and the side of each question, once and in order; says whether it is let in.

    Attributes
    ----------
    taken : list of Episode
        So far.
    wanted : Question or None
        The one that it waits for.
    """

    __slots__ = ("_at", "answer", "taken", "wanted")

    def __init__(self, answer: Callable[[int, int], bool]) -> None:
        self.answer = answer
        self.taken: list[Episode] = []
        self.wanted: Question | None = None
        self._at = 0

    def go(self, book: EpisodeBook) -> bool:
        """Walk on; return whether the end is reached."""
        answer, questions, known, at = self.answer, book.questions, book.known, self._at
        question, self.wanted = self.wanted, None
        while True:
            if question is None:
                while at < len(questions) and not answer(*questions[at]):
                    at += 1
                self._at = at
                if at == len(questions):
                    return True
                question = questions[at]
            episode = known.get(question)
            if episode is None:
                self.wanted = question
                return False
            self.taken.append(episode)
            question = None
            for asked in episode.inner:
                if answer(*asked):
                    question = asked
                    break
            else:
                at = book.after(episode)
