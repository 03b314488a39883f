"""What many sequences of answers do to an account, from the episodes that they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bt_llm.statistics._episodes import EpisodeBook, EpisodeWalks, Places
from bt_llm.statistics._inputs import Floats

__all__ = ["EpisodeColumns", "Replay", "Stretch", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeColumns:
    """The episodes of a book as arrays; see `Episode`.

    Attributes
    ----------
    offset : ndarray of int
        Where each one's path begins in `path`.
    path : ndarray of float
        All paths, one after the other.
    trades, gains : ndarray of float
        Closed trades, and those of them that gained.
    """

    bar: Places
    resume: Places
    offset: Places
    path: Floats
    value: Floats
    gain: Floats
    least: Floats
    costs: Floats
    held: Floats
    traded: Floats
    trades: Floats
    gains: Floats

    @classmethod
    def of(cls, book: EpisodeBook) -> EpisodeColumns:
        episodes = book.episodes
        lengths = np.array([len(one.path) for one in episodes], dtype=np.intp)

        def column(name: str, kind: Any = np.float64) -> Any:
            return np.array([getattr(one, name) for one in episodes], dtype=kind)

        return cls(
            bar=column("bar", np.intp),
            resume=column("resume", np.intp),
            offset=np.cumsum(lengths) - lengths,
            path=np.concatenate([np.zeros(0), *(one.path for one in episodes)]),
            value=column("value"),
            gain=column("gain"),
            least=column("least"),
            costs=column("costs"),
            held=column("held"),
            traded=column("traded"),
            trades=np.array([len(one.won) for one in episodes], dtype=np.float64),
            gains=np.array([sum(one.won) for one in episodes], dtype=np.float64),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """The bars on which some of the accounts are in an episode, one account after the other.

    Attributes
    ----------
    accounts : slice
        Which they are.
    taken : slice
        Their episodes, in `Replay`.
    edges : ndarray of int
        Where each of the accounts begins below, and where the last ends.
    starts : ndarray of int
        Where each of the episodes begins below.
    source : ndarray of int
        The place of each bar in the episodes' paths, these one after the other.
    place : ndarray of int
        Of each bar, from 0.
    before, value : ndarray of float
        What the account was worth at the close before, and at that of the bar.
    scale : ndarray of float
        What the episode's sizes are multiplied by.
    """

    accounts: slice
    taken: slice
    edges: Places
    starts: Places
    source: Places
    place: Places
    before: Floats
    value: Floats
    scale: Floats

    def sums(self, values: Floats) -> Floats:
        """Return the sum of values over the bars of each account, for each row."""
        return self._over(np.add, values, 0.0)

    def least(self, values: Floats, otherwise: float) -> Floats:
        """Return the least of values over the bars of each account."""
        return self._over(np.minimum, values, otherwise)

    def most(self, values: Floats, otherwise: float) -> Floats:
        """Return the largest of values over the bars of each account."""
        return self._over(np.maximum, values, otherwise)

    def _over(self, how: Any, values: Floats, otherwise: float) -> Floats:
        found = np.full((*values.shape[:-1], len(self.edges) - 1), otherwise)
        there = np.flatnonzero(np.diff(self.edges))
        if len(there):
            found[..., there] = how.reduceat(values, self.edges[there], axis=-1)
        return found

    def of_each(self, values: Any) -> Any:
        """Return a value of each account, for each of its bars."""
        return np.repeat(values, np.diff(self.edges))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """What sequences of answers do to an account.

    Attributes
    ----------
    book : EpisodeBook
        The episodes.
    columns : EpisodeColumns
        The same as arrays.
    cash : float
        What the accounts begin with.
    edges : ndarray of int
        Where the episodes of each sequence begin below, and where those of the last end.
    number : ndarray of int
        Of each episode taken, in `book`.
    value : ndarray of float
        What the account was worth when it was asked about.
    start : ndarray of float
        What it had in cash, the episode before to its end.
    scale : ndarray of float
        What the episode's sizes are multiplied by.
    length : ndarray of int
        Bars from the question on until the next is let in, or the account is flat.
    left : ndarray of float
        What each account has gained and begun with, in the end.
    told : ndarray of bool
        Whether what each account does is known: it is not where cash was so low that an order might have
        been refused, or the account is ruined.
    """

    book: EpisodeBook
    columns: EpisodeColumns
    cash: float
    edges: Places
    number: Places
    value: Floats
    start: Floats
    scale: Floats
    length: Places
    left: Floats
    told: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.edges) - 1

    def stretch(self, first: int, stop: int) -> Stretch:
        """Return the bars in an episode of the accounts from one to before another."""
        low, high = int(self.edges[first]), int(self.edges[stop])
        table = self.columns
        number, length = self.number[low:high], self.length[low:high]
        ends = np.cumsum(length)
        starts, total = ends - length, int(ends[-1]) if len(ends) else 0
        bars = np.arange(total)
        source = bars + np.repeat(table.offset[number] - starts, length)
        scale = np.repeat(self.scale[low:high], length)
        value = np.repeat(self.start[low:high], length) + scale * table.path[source]
        before = np.empty(total)
        before[1:] = value[:-1]
        begun = length > 0
        before[starts[begun]] = self.value[low:high][begun]
        return Stretch(
            accounts=slice(first, stop),
            taken=slice(low, high),
            edges=np.concatenate([ends - length, [total]])[self.edges[first : stop + 1] - low],
            starts=starts,
            source=source,
            place=bars + np.repeat(table.bar[number] - starts, length),
            before=before,
            value=value,
            scale=scale,
        )

    def equities(self, first: int, stop: int) -> Floats:
        """Return the value of the accounts from one to before another, at each close.

        Returns
        -------
        ndarray of shape (stop - first, n_bars)
        """
        stretch = self.stretch(first, stop)
        low, high, rows = stretch.taken.start, stretch.taken.stop, np.arange(stop - first) * self.book.bars
        bar = self.columns.bar[self.number[low:high]]
        begins = bar + np.repeat(rows, np.diff(self.edges[first : stop + 1]))  # all rows in one
        last = self.edges[first + 1 : stop + 1] - low
        # Each level lasts from the end of the episode before it, as if no bar of that were its own.
        levels = np.insert(self.start[low:high], last, self.left[first:stop])
        ends = np.insert(begins, last, rows + self.book.bars)
        values: Floats = np.repeat(levels, np.diff(np.concatenate([[0], ends])))
        values[stretch.place + stretch.of_each(rows)] = stretch.value
        return values.reshape(stop - first, self.book.bars)

    def per_account(self, of_episode: Floats) -> Floats:
        """Return the sum of a number of each episode taken, for each account."""
        sums = np.concatenate([[0.0], np.cumsum(of_episode)])
        found: Floats = sums[self.edges[1:]] - sums[self.edges[:-1]]
        return found


def replay(book: EpisodeBook, walks: EpisodeWalks, cash: float | None = None) -> Replay:
    """Return what walks that came to their end do to the account.

    Parameters
    ----------
    book : EpisodeBook
        That they went through.
    walks : EpisodeWalks
        What they took.
    cash : float, optional
        What the account begins with instead.

    Examples
    --------
    Half of the account, bought at the open of the second bar for 10 and sold at that of the third for 12:

    >>> from bt_llm.statistics import Episode
    >>> book = EpisodeBook(bars=4, cash=100.0, questions=[(1, 1)], of_account=True)
    >>> book.add(Episode(
    ...     question=(1, 1), value=200.0, resume=3, path=np.array([10.0, 20.0]), inner=(), held=1,
    ...     traded=220.0, won=(True,), least=-100.0, costs=0.0,
    ...     fills=np.array([[2.0, 3.0], [10.0, -10.0], [10.0, 12.0], [0.0, 0.0]])))
    >>> walks = EpisodeWalks(2, lambda who, bar, side: who == 0)
    >>> list(walks.through(book))
    []
    >>> replay(book, walks).equities(0, 2).tolist()
    [[100.0, 105.0, 110.0, 110.0], [100.0, 100.0, 100.0, 100.0]]
    """
    table, taken = EpisodeColumns.of(book), walks.taken
    count, most = taken.shape
    value, start, scale = (np.zeros((count, most)) for _ in range(3))
    length = np.zeros((count, most), dtype=np.intp)
    begun = book.cash if cash is None else cash
    money = np.full(count, begun)
    told = np.ones(count, dtype=bool)
    for step in range(most):
        who = np.flatnonzero(walks.counts > step)
        number, has = taken[who, step], money[who]
        worth = least = has
        if step:
            last, base, times = taken[who, step - 1], start[who, step - 1], scale[who, step - 1]
            passed = np.minimum(table.resume[last], table.bar[number]) - table.bar[last]
            length[who, step - 1] = passed
            # Where its exit and this entry fill on one bar, the account is asked about before both.
            both = table.bar[number] < table.resume[last]
            then = base + times * table.path[table.offset[last] + passed - 1]
            worth = np.where(both, then, has)
            least = np.where(both, np.minimum(has, then - times * table.costs[last]), has)
        sized = worth / table.value[number] if book.of_account else np.ones(len(who))
        value[who, step], start[who, step], scale[who, step] = worth, has, sized
        length[who, step] = np.minimum(table.resume[number], book.bars) - table.bar[number]
        told[who] &= least + sized * table.least[number] >= 0.0
        money[who] = has + sized * table.gain[number]
    there = taken >= 0
    return Replay(
        book=book,
        columns=table,
        cash=begun,
        edges=np.concatenate([[0], np.cumsum(walks.counts)]),
        number=taken[there],
        value=value[there],
        start=start[there],
        scale=scale[there],
        length=length[there],
        left=money,
        told=told,
    )
