"""A strategy's episodes, learnt in one run: what an entry does from the close it is let in at until all is flat.

Most strategies forget everything when they are flat. Then a pass over the bars in which every entry is held back
shows what is asked of an account that stays flat; the strategy put at the bar of one of these questions, and its
entry let in, shows what comes of it; and what any other answers would do is a walk over such episodes
(`bt_llm.statistics.EpisodeBook`).

Whether a strategy is of that kind nobody has to say. A second pass, in which every entry is let in, has to be a
walk over the same episodes: the same questions in the same order, the same fills at sizes that follow the account
or do not, the same account at every question. It is of a larger account, and what is learnt of single entries is
not learnt in their order, so that a strategy that remembers what it did, or looks at what it has, is found out.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np

from bt_llm.backtest import Backtest, account_figures, drive_strategy, periods_per_year
from bt_llm.exceptions import BtLlmError
from bt_llm.gates import AttachedGate, Decision, EntryGate
from bt_llm.indicators import WarmUp
from bt_llm.statistics import Episode, EpisodeBook, EpisodeWalk, Question

__all__ = ["Learner", "Unfit"]

_AGREE = 1e-9
"""Relative difference up to which two numbers are the same but for rounding."""

_OTHER_CASH = 1.5
"""What the account is larger by in the pass that tells shares of the account from sizes that are fixed."""


_SETTLED = 8
"""Bars after which a run can be put at any other."""


class Unfit(BtLlmError):  # noqa: N818 - nobody's error: such a strategy's gates run in Backtrader
    """Why a strategy's runs are not made of episodes."""


class _Asked(NamedTuple):
    """A question, with the account as it stood."""

    question: Question
    allowed: bool
    flat: bool
    value: float
    sent: int  # orders before it


@dataclass(slots=True)
class _Log:
    """What has been asked, and what is let in."""

    wanted: Question | None = None
    all_in: bool = False
    asked: list[_Asked] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probe(EntryGate):
    """Lets in what its log says, and keeps the state of the account with each question."""

    log: _Log
    warm_up: int

    @property
    def warm_up_bars(self) -> int:
        """As given."""
        return self.warm_up

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate."""
        attached = _AttachedProbe(strategy, data)
        attached.probed = self.log
        if self.warm_up > 1:
            WarmUp(attached.data, bars=self.warm_up)  # type: ignore[call-arg]
        return attached


class _AttachedProbe(AttachedGate):
    probed: _Log

    def decide(self, side: int) -> Decision:
        log, broker, question = self.probed, self.strategy.broker, (self.bar, side)
        if None in broker.pending:  # the broker's mark: it is filling orders
            raise Unfit("an order asks as it fills")
        last = log.asked[-1] if log.asked else None
        if last is not None and last.question == question:
            raise Unfit(f"it asks twice about one entry, at bar {self.bar}")
        just_let_in = last is not None and last.allowed and last.question[0] == self.bar
        flat = not just_let_in and _is_flat(broker)
        allowed = log.all_in or question == log.wanted
        log.asked.append(_Asked(question, allowed, flat, broker.getvalue(), len(broker.orders)))
        return Decision(self.bar, side, allowed)


def _is_flat(broker: Any) -> bool:
    if broker.pending or broker.submitted or broker._toactivate:
        return False
    return not any(position.size for position in broker.positions.values())


class _Bit(NamedTuple):
    """A part of a fill that belongs to one episode."""

    bar: int
    size: float
    price: float
    cost: float
    opens: bool


@dataclass(slots=True)
class _Sighting:
    """An entry that was let in, and what came of it in the money of that account."""

    asked: _Asked
    inner: list[_Asked] = field(default_factory=list)
    bits: list[_Bit] = field(default_factory=list)
    orders: list[Any] = field(default_factory=list)


class Learner:
    """Learns a strategy's episodes for gates of one warm-up.

    Parameters
    ----------
    backtest : Backtest
        Strategy, market of one data, and set-up.
    warm_up : int
        Bars until the gates' first answer.

    Attributes
    ----------
    book : EpisodeBook
        What is known.
    """

    book: EpisodeBook

    def __init__(self, backtest: Backtest, warm_up: int) -> None:
        if len(backtest.market) != 1:
            raise Unfit("it has several datas")
        if backtest.engine != "lean":
            raise Unfit("the engine is not lean")
        self._backtest, self._warm_up = backtest, warm_up
        bars = next(iter(backtest.market.bars.values()))
        self._times = bars.numbers
        self._closes = backtest.market.first["close"].to_numpy(dtype=np.float64)
        self._bars = len(self._closes)
        self._log = _Log()
        self._waiting: list[EpisodeWalk] = []
        self._all_in: list[_Asked] = []
        self._seen: dict[Question, _Sighting] = {}
        self._sized = {True: True, False: True}  # by what sizes may follow: the account, or nothing
        self._lost = ""  # what was not asked again, in a run that had left a position behind

    def learn(self, walks: Sequence[EpisodeWalk]) -> None:
        """Learn all that walks need to reach their end.

        Raises
        ------
        Unfit
            If the strategy's runs are not made of episodes.
        """
        begun = bool(self._all_in)
        self._waiting = [*walks]
        if begun:
            self._go_on()
        before = -1
        while self._waiting or not self._all_in:
            known = len(self.book.known) if self._all_in else 0
            if known == before:
                raise Unfit(self._lost or "an entry that was asked about once was not asked about again")
            before = known
            backtest = self._backtest
            params = {**backtest.params, "gate": _Probe(log=self._log, warm_up=self._warm_up)}
            if not drive_strategy(
                backtest.strategy, backtest.market, backtest.setup, params, self._drive, **backtest.modes
            ):
                raise Unfit("Backtrader has to run it in its own loop")
        if not begun:
            self._check_all_in()

    def metrics(self, walk: EpisodeWalk) -> dict[str, float] | None:
        """Return the metrics of a backtest with a walk's answers; None where they cannot be told."""
        found = self.book.replay(walk.taken)
        if found is None:
            return None
        return account_figures(
            found.equity[self._first :],
            yearly=self._yearly,
            cash=self.book.cash,
            won=found.won,
            held=found.held,
            traded=found.traded,
        )

    # What is called bar by bar, inside of Backtrader's run

    def _drive(self, strategy: bt.Strategy) -> Iterator[int]:
        if not self._all_in:
            yield from self._first_passes(strategy)
        else:
            yield from range(min(self._bars, max(self._first + 1, _SETTLED)))
        self._dirty, self._lost = False, ""
        while self._waiting:
            for question in sorted({walk.wanted for walk in self._waiting if walk.wanted is not None}):
                yield from self._episode_at(strategy, question)
                if self._lost:
                    return
            self._go_on()

    def _go_on(self) -> None:
        self._waiting = [walk for walk in self._waiting if not walk.go(self.book)]

    def _first_passes(self, strategy: bt.Strategy) -> Iterator[int]:
        """See what is asked of a flat account, and what is done when all is let in."""
        broker, log = strategy.broker, self._log
        if not broker.getcommissioninfo(strategy.data).stocklike:
            raise Unfit("its positions are on margin")
        if broker.p.coc:
            raise Unfit("orders fill at the close they are sent at")
        self._first = strategy._minperiods[0] - 1
        if self._bars - self._first < 2:
            raise Unfit("it has too few bars")
        self._yearly = periods_per_year(self._backtest.market.index[self._first :])
        cash = float(broker.startingcash)
        yield from range(self._bars)
        if broker.orders or not all(asked.flat for asked in log.asked):
            raise Unfit("it sends orders that it does not ask about")
        self.book = EpisodeBook(
            bars=self._bars, cash=cash, questions=[asked.question for asked in log.asked]
        )
        if len(set(self.book.questions)) < len(self.book.questions):
            raise Unfit("it asks twice about one entry")
        log.asked, log.all_in = [], True
        self._empty(strategy, _OTHER_CASH * cash)
        yield from range(self._bars)
        self._all_in, log.asked, log.all_in = log.asked, [], False
        for one in self._sightings(self._all_in, broker):
            self._seen[one.asked.question] = one
        self._empty(strategy, cash)
        self._then = iter(self._all_in)
        self._walked = EpisodeWalk(functools.partial(_as_then, self._then))
        self._waiting.append(self._walked)
        self._go_on()

    def _episode_at(self, strategy: bt.Strategy, question: Question) -> Iterator[int]:
        """Let an entry in, and learn what comes of it."""
        broker, log = strategy.broker, self._log
        self._dirty = self._dirty or not _is_flat(broker)
        self._empty(strategy, self.book.cash)
        log.asked, log.wanted = [], question
        bar = question[0]
        resume = self._bars + 1
        for place in range(bar - 1, self._bars):
            yield place
            if place >= bar and _is_flat(broker):
                resume = place + 1
                break
        start = next((n for n, asked in enumerate(log.asked) if asked.allowed), None)
        if start is None:
            if not self._dirty:
                raise Unfit(f"it does not ask again about an entry that it asked about, at bar {bar}")
            self._lost = f"it waits for ever, after bar {bar}"
            return
        asked = log.asked[start:]
        inner = [one for one in asked[1:] if not one.flat]
        if any(one.question[0] + 1 != resume or one.question[0] == bar for one in inner):
            raise Unfit(f"it asks about more entries while it holds one, after bar {bar}")
        (one,) = self._sightings([asked[0], *inner], broker)
        if resume <= self._bars and sum(bit.size for bit in one.bits):
            raise Unfit(f"what it holds is not all that it asked about, at bar {resume}")
        self._compare(one)
        self.book.known[question] = self._episode(one, resume, broker.getcommissioninfo(strategy.data))

    def _empty(self, strategy: bt.Strategy, cash: float) -> None:
        """Give the strategy an account without a position, and forget what was sent and traded."""
        broker = strategy.broker
        for order in [*broker.pending, *broker.submitted]:
            order.cancel()
        broker.setcash(cash)
        broker.init()
        strategy._trades.clear()
        strategy.clear()

    # What is made of it

    def _sightings(self, asked: Sequence[_Asked], broker: Any) -> list[_Sighting]:
        """Return the entries that were let in, with their fills and orders."""
        found: list[_Sighting] = []
        for one in asked:
            if one.allowed:
                if found and not one.flat:
                    found[-1].inner.append(one)
                found.append(_Sighting(one))
            elif found and not one.flat:
                found[-1].inner.append(one)
        starts = [one.asked.sent for one in found]
        fills = []
        for number, order in enumerate(broker.orders):
            if order.status in (order.Margin, order.Rejected):
                raise Unfit("the broker refuses orders")
            place = bisect.bisect_right(starts, number) - 1
            if place < 0:
                raise Unfit("it sends orders that it does not ask about")
            found[place].orders.append(order)
            fills += [(bit.dt, number, bit, found[place]) for bit in order.executed.exbits]
        fills.sort(key=lambda fill: fill[:2])
        holder, held = None, 0.0
        for time, _, fill, sender in fills:
            bar = int(np.searchsorted(self._times, time)) + 1
            if fill.closed:
                if holder is None:
                    raise Unfit("what is closed was opened by no entry that was asked about")
                holder.bits.append(_Bit(bar, fill.closed, fill.price, fill.closedcomm, False))
                held += fill.closed
            if fill.opened:
                holder = holder if held and holder is not None else sender
                holder.bits.append(_Bit(bar, fill.opened, fill.price, fill.openedcomm, True))
                held += fill.opened
        return found

    def _compare(self, one: _Sighting) -> None:
        """Check that an episode is what it was when all was let in, but for the account's size."""
        other = self._seen.get(one.asked.question)
        if other is None:
            return
        if [(bit.bar, bit.price) for bit in one.bits] != [(bit.bar, bit.price) for bit in other.bits]:
            raise Unfit(f"an entry does not come to the same in every run, at bar {one.asked.question[0]}")
        larger = other.asked.value / one.asked.value
        for of_account, ratio in ((True, larger), (False, 1.0)):
            self._sized[of_account] &= all(
                _close(ratio * bit.size, again.size) and _close(ratio * bit.cost, again.cost)
                for bit, again in zip(one.bits, other.bits, strict=True)
            )
        if not any(self._sized.values()):
            raise Unfit("its sizes are neither shares of the account nor fixed")

    def _check_all_in(self) -> None:
        """Find what sizes follow, and check that the pass in which all was let in is a walk over episodes."""
        if any(one.bits for one in self._seen.values()) and all(self._sized.values()):
            raise Unfit("whether its sizes are shares of the account cannot be told")
        self.book.of_account = self._sized[True]
        if next(self._then, None) is not None:
            raise Unfit("what it asks when it is flat depends on what it did")
        found = self.book.replay(self._walked.taken, _OTHER_CASH * self.book.cash)
        if found is None or not all(
            _close(float(found.equity[asked.question[0] - 1]), asked.value) for asked in self._all_in
        ):
            raise Unfit("an account in which all is let in is not made of its episodes")

    def _episode(self, one: _Sighting, resume: int, scheme: Any) -> Episode:
        """Return an episode, in the money of the account that it was seen in."""
        bar, end = one.asked.question[0], min(resume, self._bars)
        closes = self._closes[bar:end]
        path = np.zeros(end - bar)
        held = np.zeros(end - bar, dtype=bool)
        cash = size = since = 0.0
        won = []
        for bit in one.bits:
            gained = -bit.size * bit.price - bit.cost
            cash += gained
            since += gained
            size += bit.size
            start = bit.bar - bar - 1
            held[start:] = bool(size)
            path[start:] = cash + size * closes[start:] if size else cash
            if not size:
                won.append(since > 0.0)
                since = 0.0
        return Episode(
            question=one.asked.question,
            value=one.asked.value,
            resume=resume,
            path=path,
            inner=tuple(asked.question for asked in one.inner),
            held=int(np.count_nonzero(held[max(0, self._first - bar) :])),
            traded=math.fsum(abs(bit.size * bit.price) for bit in one.bits),
            won=tuple(won),
            least=self._least(one, scheme),
            costs=math.fsum(bit.cost for bit in one.bits),
        )

    def _least(self, one: _Sighting, scheme: Any) -> float:
        """Return the least that the broker finds in cash, as it checks orders that are sent and as they fill."""
        least = cash = 0.0
        for bit in one.bits:
            cash -= bit.size * bit.price + bit.cost
            least = min(least, cash) if bit.opens else least
        for sent in {order.created.dt for order in one.orders}:
            bar = int(np.searchsorted(self._times, sent)) + 1
            cash = -math.fsum(bit.size * bit.price + bit.cost for bit in one.bits if bit.bar <= bar)
            for order in one.orders:
                if order.created.dt == sent:
                    size, price = order.created.size, order.created.price
                    cash -= size * price + scheme.getcommission(size, price)
                    least = min(least, cash)
        return least


def _as_then(then: Iterator[_Asked], bar: int, side: int) -> bool:
    """Answer as when all was let in."""
    one = next(then, None)
    if one is None or one.question != (bar, side):
        raise Unfit(f"what it asks when it is flat depends on what it did, at bar {bar}")
    return one.allowed


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_AGREE, abs_tol=0.0)
