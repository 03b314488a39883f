"""A strategy's episodes, learnt from runs: what an entry does from the close it is let in at until all is flat.

Most strategies forget everything when they are flat. Then one run in which every entry is held back shows what
is asked while the account is flat; a few more, which together let in each of these entries once, show what
comes of it; and what any other answers would do is a walk over episodes (`bt_llm.statistics.EpisodeBook`).

Whether a strategy is of that kind nobody has to say. In every run, what is asked between episodes has to be
what is asked of an account that stays flat; an episode that is seen again, of an account of another size and
right after another one too, has to be the same but for the size; and a run that is walked over has to give the
account that it had.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np

from bt_llm.backtest import Account, Backtest, account_figures, periods_per_year, run_strategy
from bt_llm.exceptions import BtLlmError
from bt_llm.gates import AttachedGate, Decision, EntryGate
from bt_llm.indicators import WarmUp
from bt_llm.statistics import Episode, EpisodeBook, EpisodeWalk, Question, Replayed

__all__ = ["Learner", "Unfit"]

_AGREE = 1e-9
"""Relative difference up to which two numbers are the same but for rounding."""

_OTHER_CASH = 1.5
"""What the account is larger by in the run that tells shares of the account from sizes that are fixed."""


class Unfit(BtLlmError):  # noqa: N818 - nobody's error: such a strategy's gates run in Backtrader
    """Why a strategy's runs are not made of episodes."""


@dataclass(slots=True)
class _Asked:
    """A question of a run, with the account as it stood."""

    question: Question
    allowed: bool
    mark: int
    value: float
    flat: bool
    sent: int  # orders before it


class _Filled(NamedTuple):
    bar: int
    ref: int
    price: float
    closed: float
    opened: float
    closed_cost: float
    opened_cost: float


@dataclass(slots=True)
class _Log:
    """What a run is cut into episodes by."""

    asked: list[_Asked] = field(default_factory=list)
    fills: list[_Filled] = field(default_factory=list)
    flat: list[int] = field(default_factory=list)
    orders: list[Any] = field(default_factory=list)
    comminfo: Any = None
    steps: int = 0


Pick = Callable[[Question, bool], bool]
"""Says of a question, and of whether the account is flat, whether the entry is let in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probe(EntryGate):
    """Lets in what it is told to, and keeps the state of the account with each question."""

    pick: Pick
    log: _Log
    warm_up: int

    @property
    def warm_up_bars(self) -> int:
        """As given."""
        return self.warm_up

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate."""
        attached = _AttachedProbe(strategy, data, self)
        if self.warm_up > 1:
            WarmUp(attached.data, bars=self.warm_up)  # type: ignore[call-arg]
        return attached


class _AttachedProbe(AttachedGate):
    def __init__(self, strategy: bt.Strategy, data: Any, gate: _Probe) -> None:
        super().__init__(strategy, data)
        self._gate = gate

    def decide(self, side: int) -> Decision:
        log, broker = self._gate.log, self.strategy.broker
        if None in broker.pending:
            raise Unfit("an order asks as it fills")
        last = log.asked[-1] if log.asked else None
        if last is not None and last.question == (self.bar, side):
            raise Unfit(f"it asks twice about one entry, at bar {self.bar}")
        just_let_in = last is not None and last.allowed and last.mark == log.steps
        flat = not just_let_in and _is_flat(broker)
        allowed = self._gate.pick((self.bar, side), flat)
        log.asked.append(
            _Asked((self.bar, side), allowed, log.steps, broker.getvalue(), flat, len(broker.orders))
        )
        return Decision(self.bar, side, allowed)


class _Recorder(bt.Analyzer):  # type: ignore[misc]
    """Keeps fills, orders, and the bars at which the account is flat."""

    params = (("log", None),)

    def start(self) -> None:
        broker, log, data = self.strategy.broker, self.p.log, self.strategy.data
        _check_kind(self.strategy)
        step = broker.next

        def next_and_look() -> None:
            step()
            log.steps += 1
            if log.steps != len(data):
                raise Unfit("bars and the broker's steps are not the same")
            if _is_flat(broker):
                log.flat.append(log.steps)

        broker.next = next_and_look
        log.orders = broker.orders
        log.comminfo = broker.getcommissioninfo(data)

    def notify_order(self, order: Any) -> None:
        for bit in order.executed.iterpending():
            self.p.log.fills.append(
                _Filled(
                    self.p.log.steps,
                    order.ref,
                    bit.price,
                    bit.closed,
                    bit.opened,
                    bit.closedcomm,
                    bit.openedcomm,
                )
            )

    def stop(self) -> None:
        del self.strategy.broker.next


def _is_flat(broker: Any) -> bool:
    if broker.pending or broker.submitted or broker._toactivate:
        return False
    return not any(position.size for position in broker.positions.values())


def _check_kind(strategy: bt.Strategy) -> None:
    """Raise if the account's value is not its cash and its positions at their closes, or there are several."""
    broker = strategy.broker
    if len(strategy.datas) != 1:
        raise Unfit("it has several datas")
    if strategy.data.resampling or strategy.data.replaying:
        raise Unfit("its bars are resampled")
    if not isinstance(broker, bt.brokers.BackBroker):
        raise Unfit(f"its broker is a {type(broker).__name__}")
    if not broker.getcommissioninfo(strategy.data).stocklike:
        raise Unfit("its positions are on margin")


class _Bit(NamedTuple):
    """A part of a fill that belongs to one episode."""

    bar: int
    size: float
    price: float
    cost: float
    opens: bool


@dataclass(slots=True)
class _Sighting:
    """An episode as it was in a run; sizes and costs are of that run's account."""

    asked: _Asked
    resume: int = 0
    chained: bool = False
    inner: list[_Asked] = field(default_factory=list)
    bits: list[_Bit] = field(default_factory=list)
    orders: list[Any] = field(default_factory=list)

    @property
    def question(self) -> Question:
        return self.asked.question


@dataclass(slots=True)
class _Cut:
    """A run in pieces: what was asked while flat, and the episodes."""

    flat: list[_Asked]
    sightings: list[_Sighting]


def _cut(log: _Log, bars: int) -> _Cut:
    """Cut a run into its episodes.

    Raises
    ------
    Unfit
        If it cannot be.
    """
    flat: list[_Asked] = []
    found: list[_Sighting] = []
    now: _Sighting | None = None
    for asked in log.asked:
        if asked.flat:
            flat.append(asked)
            now = None
        elif now is None or asked.mark == now.asked.mark:
            raise Unfit(f"it asks about an entry while another is on its way, at bar {asked.question[0]}")
        else:
            now.inner.append(asked)
        if asked.allowed:
            if now is not None:
                now.resume, now.chained = asked.mark + 1, True
            now = _Sighting(asked)
            found.append(now)
    for one in found:
        if not one.chained:
            place = bisect.bisect_right(log.flat, one.asked.mark)
            one.resume = log.flat[place] if place < len(log.flat) else bars + 1
        if any(asked.mark + 1 != one.resume for asked in one.inner):
            raise Unfit(f"it asks about more entries while it holds one, after bar {one.asked.mark}")
    _share_out(log, found, bars)
    return _Cut(flat, found)


def _share_out(log: _Log, found: Sequence[_Sighting], bars: int) -> None:
    """Give fills and orders to the episodes that they belong to."""
    first_orders = [one.asked.sent for one in found]
    numbers = {order.ref: number for number, order in enumerate(log.orders)}

    def sender(ref: int) -> _Sighting:
        number = numbers.get(ref, -1)
        place = bisect.bisect_right(first_orders, number) - 1
        if number < 0 or place < 0:
            raise Unfit("an order comes from no entry that was asked about")
        return found[place]

    for order in log.orders:
        sender(order.ref).orders.append(order)
    holder, held = None, 0.0
    for fill in log.fills:
        if fill.closed:
            if holder is None:
                raise Unfit("what is closed was opened by no entry that was asked about")
            holder.bits.append(_Bit(fill.bar, fill.closed, fill.price, fill.closed_cost, False))
            held += fill.closed
        if fill.opened:
            if not held:
                holder = sender(fill.ref)
            assert holder is not None
            holder.bits.append(_Bit(fill.bar, fill.opened, fill.price, fill.opened_cost, True))
            held += fill.opened
    for one in found:
        late = any(bit.bar > one.resume for bit in one.bits)
        if late or (one.resume <= bars and sum(bit.size for bit in one.bits)):
            raise Unfit(f"an entry and the one before it run into each other, at bar {one.resume}")


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
    runs : int
        Runs that it took so far.

    Raises
    ------
    Unfit
        If the strategy's runs are not made of episodes.
    """

    def __init__(self, backtest: Backtest, warm_up: int) -> None:
        if len(backtest.market) != 1:
            raise Unfit("it has several datas")
        self._backtest, self._warm_up = backtest, warm_up
        self._times = next(iter(backtest.market.bars.values())).numbers
        self._closes = backtest.market.first["close"].to_numpy(dtype=np.float64)
        self._bars = len(self._closes)
        self._seen: dict[Question, _Sighting] = {}
        self._logs: list[tuple[_Log, Account]] = []
        self._sized = {True: True, False: True}  # by what its sizes may follow: the account, or nothing
        self.runs = 0

        log, account = self._run(lambda question, flat: False)
        if not account.numbers:
            raise Unfit("it has too few bars")
        if not all(asked.flat for asked in log.asked):
            raise Unfit("it holds a position that it did not ask about")
        self._first = self._bars - len(account.numbers)
        self._yearly = periods_per_year(backtest.market.index[self._first :])
        self.book = EpisodeBook(
            bars=self._bars,
            cash=account.cash,
            questions=[asked.question for asked in log.asked],
            marks=[asked.mark for asked in log.asked],
        )
        if len(set(self.book.questions)) < len(self.book.questions):
            raise Unfit("it asks twice about one entry")
        self._flat = set(self.book.questions)
        # All let in, of a larger account: entries right after each other, and what sizes follow.
        self._study(*self._run(lambda question, flat: True, cash=_OTHER_CASH * account.cash))

    def learn(self, walks: Sequence[EpisodeWalk], *, at_most: int, spare: int = 0) -> None:
        """Learn until all walks but `spare` reach their end.

        Raises
        ------
        Unfit
            If a run says so, or more than `at_most` runs would be needed.
        """
        waiting = [walk for walk in walks if not walk.go(self.book)]
        while len(waiting) > spare:
            if self.runs >= at_most:
                raise Unfit(f"more than {at_most} runs would be needed to learn its episodes")
            known = len(self.book.known)
            self._study(*self._run(self._pick({walk.wanted for walk in waiting})))
            if len(self.book.known) == known:
                raise Unfit("an entry that was asked about once was not asked about again")
            waiting = [walk for walk in waiting if not walk.go(self.book)]
        if all(self._sized.values()):  # nothing was seen twice: let in every second entry again
            turns = itertools.cycle((False, True))
            self._study(*self._run(lambda question, flat: next(turns)))
        self._settle()
        self._check_runs()

    def metrics(self, walk: EpisodeWalk) -> dict[str, float] | None:
        """Return the metrics of a backtest with a walk's answers; None where they cannot be told."""
        found = self.book.replay(walk.taken) if walk.wanted is None else None
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

    def _pick(self, wanted: set[Question | None]) -> Pick:
        known, flat_ones = self.book.known, self._flat

        def pick(question: Question, flat: bool) -> bool:
            if question in known:
                return False
            return flat or (question not in flat_ones and question in wanted)

        return pick

    def _run(self, pick: Pick, cash: float | None = None) -> tuple[_Log, Account]:
        backtest, log = self._backtest, _Log()
        ran = run_strategy(
            backtest.strategy,
            backtest.market,
            backtest.setup,
            {**backtest.params, "gate": _Probe(pick=pick, log=log, warm_up=self._warm_up)},
            cash=cash,
            analyzers={"bt_llm_recorder": functools.partial(_Recorder, log=log)},
            **backtest.engine,
        )
        self.runs += 1
        account = ran.account
        if account.ruined is not None:
            raise Unfit("an account is ruined")
        if any(order.refused for order in account.orders.values()):
            raise Unfit("the broker refuses orders")
        return log, account

    def _study(self, log: _Log, account: Account) -> None:
        """Take a run apart, and learn from it."""
        self._logs.append((log, account))
        self._comminfo = log.comminfo
        cut = _cut(log, self._bars)
        self._check_order(cut)
        for one in cut.sightings:
            before = self._seen.setdefault(one.question, one)
            if before is not one:
                self._compare(before, one)
            if not one.chained and one.question not in self.book.known:
                self.book.known[one.question] = self._episode(one)
        if not any(self._sized.values()):
            raise Unfit("its sizes are neither shares of the account nor fixed")

    def _check_order(self, cut: _Cut) -> None:
        """Check that between episodes exactly that is asked which is asked of an account that stays flat."""
        ends = {id(one.asked): one.resume for one in cut.sightings}
        chains = iter(cut.sightings)
        questions, marks, place = self.book.questions, self.book.marks, 0
        for asked in cut.flat:
            if place >= len(questions) or asked.question != questions[place] or asked.mark != marks[place]:
                raise Unfit(f"what it asks when it is flat depends on what it did, at bar {asked.question[0]}")
            place += 1
            if asked.allowed:
                one = next(chains)
                while one.chained:
                    one = next(chains)
                place = bisect.bisect_left(marks, ends[id(one.asked)])
        if place < len(questions):
            raise Unfit(f"what it asks when it is flat depends on what it did, at bar {questions[place][0]}")

    def _compare(self, one: _Sighting, other: _Sighting) -> None:
        """Check that an episode is the same each time, but for the account's size."""
        asked, again = ([a.question for a in each.inner] for each in (one, other))
        if one.chained or other.chained:
            short = min(len(asked), len(again))
            asked, again = asked[:short], again[:short]
        same = one.resume == other.resume and asked == again and len(one.bits) == len(other.bits)
        for bit, bit_again in zip(one.bits, other.bits, strict=False):
            same = same and (bit.bar, bit.price) == (bit_again.bar, bit_again.price)
        if not same:
            raise Unfit(f"the entry at bar {one.question[0]} does not come to the same in every run")
        larger = other.asked.value / one.asked.value
        for of_account, ratio in ((True, larger), (False, 1.0)):
            self._sized[of_account] &= all(
                _close(ratio * bit.size, again_.size) and _close(ratio * bit.cost, again_.cost)
                for bit, again_ in zip(one.bits, other.bits, strict=True)
            )

    def _episode(self, one: _Sighting) -> Episode:
        """Return an episode, in the money of the run that it was seen in."""
        mark, end = one.asked.mark, min(one.resume, self._bars)
        closes = self._closes[mark:end]
        path = np.zeros(end - mark)
        held = np.zeros(end - mark, dtype=bool)
        cash = size = since = 0.0
        won = []
        for bit in one.bits:
            gained = -bit.size * bit.price - bit.cost
            cash += gained
            since += gained
            size += bit.size
            path[bit.bar - mark - 1 :] = cash
            if size:
                path[bit.bar - mark - 1 :] += size * closes[bit.bar - mark - 1 :]
            else:
                won.append(since > 0.0)
                since = 0.0
            held[bit.bar - mark - 1 :] = bool(size)
        return Episode(
            question=one.question,
            value=one.asked.value,
            mark=mark,
            resume=one.resume,
            path=path,
            inner=tuple(asked.question for asked in one.inner),
            held=int(np.count_nonzero(held[max(0, self._first - mark) :])),
            traded=math.fsum(abs(bit.size * bit.price) for bit in one.bits),
            won=tuple(won),
            least=self._least(one),
            costs=math.fsum(bit.cost for bit in one.bits),
        )

    def _least(self, one: _Sighting) -> float:
        """Return the least that the broker finds in cash: as it checks orders that are sent, and as they fill."""
        least = 0.0
        for sent in dict.fromkeys(order.created.dt for order in one.orders):
            bar = bisect.bisect_right(self._times, sent)
            cash = -math.fsum(bit.size * bit.price + bit.cost for bit in one.bits if bit.bar <= bar)
            for order in one.orders:
                if order.created.dt == sent:
                    size, price = order.created.size, order.created.price
                    cash -= size * price + self._comminfo.getcommission(size, price)
                    least = min(least, cash)
        cash = 0.0
        for bit in one.bits:
            cash -= bit.size * bit.price + bit.cost
            least = min(least, cash) if bit.opens else least
        return least

    def _settle(self) -> None:
        """Find what sizes follow."""
        if any(one.bits for one in self._seen.values()) and all(self._sized.values()):
            raise Unfit("whether its sizes are shares of the account cannot be told")
        self.book.of_account = self._sized[True]

    def _check_runs(self) -> None:
        """Check that walking over the runs gives their accounts."""
        for log, account in self._logs:
            asked = iter(log.asked)
            walk = EpisodeWalk(functools.partial(_as_then, asked))
            try:
                whole = walk.go(self.book) and next(asked, None) is None
            except StopIteration:
                whole = False
            if walk.wanted is not None:  # lets in what no gate does: it cannot be walked over, and is not
                continue
            found = self.book.replay(walk.taken, account.cash) if whole else None
            if found is None or not self._same(found, account):
                raise Unfit("a run that it was learnt from is not made of its episodes")
        self._logs.clear()

    def _same(self, found: Replayed, account: Account) -> bool:
        return (
            bool(np.allclose(found.equity[self._first :], account.equity, rtol=_AGREE, atol=0.0))
            and found.held == account.held
            and _close(found.traded, account.traded)
            and found.won == [trade.pnlcomm > 0.0 for trade in account.trades]
        )


def _as_then(asked: Iterator[_Asked], bar: int, side: int) -> bool:
    """Answer as in a run."""
    one = next(asked)
    if one.question != (bar, side):
        raise Unfit(f"it does not ask in the same order in every run, at bar {bar}")
    return one.allowed


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_AGREE, abs_tol=0.0)
