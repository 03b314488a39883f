"""A strategy's episodes, learnt in one run: what comes of an entry until all is flat again.

Most strategies forget everything when they are flat. Then a pass over the bars in which every entry is held
back shows what is asked of an account that stays flat; the strategy put at the bar of one of these
questions, and its entry let in, shows what comes of it; and what any other answers would do is a walk over
such episodes (`bt_llm.statistics.EpisodeWalks`).

Whether a strategy is of that kind nobody has to say. A second pass, in which every entry is let in, has to
be a walk over the same episodes: the same questions in the same order, the same fills at sizes that follow
the account or do not, the same account at every question. It is of a larger account, and single entries are
not learnt in their order, so that a strategy that remembers what it did, or looks at what it has, is found
out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import backtrader as bt
import numpy as np

from bt_llm.backtest import Backtest, drive_strategy, is_gain
from bt_llm.gates import EntryGate, known_answers
from bt_llm.research._sightings import Asked, Bit, Log, Probe, Sighting, Unfit, is_flat, sightings_in
from bt_llm.statistics import Episode, EpisodeBook, EpisodeWalks, Question, Replay, replay

__all__ = ["Learner"]

_AGREE = 1e-9
"""Relative difference up to which two numbers are the same but for rounding."""

_OTHER_CASH = 1.5
"""What the account is larger by in the pass that tells shares of the account from sizes that are fixed."""


_SETTLED = 8
"""Bars after which a run can be put at any other."""


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
    first : int
        The bar, from 0, whose close is the first that counts.
    """

    book: EpisodeBook
    first: int

    def __init__(self, backtest: Backtest, warm_up: int) -> None:
        if len(backtest.market) != 1:
            raise Unfit("it has several datas")
        if backtest.engine != "lean":
            raise Unfit("the engine is not lean")
        if backtest.start is not None:
            raise Unfit("it starts later than it could")
        self._backtest, self._warm_up = backtest, warm_up
        bars = next(iter(backtest.market.bars.values()))
        self._times = bars.numbers
        self._closes = backtest.market.first["close"].to_numpy(dtype=np.float64)
        self._bars = len(self._closes)
        self._bar_of = {time: bar for bar, time in enumerate(self._times.tolist(), 1)}
        self._log = Log()
        self._wants: Iterator[Question] = iter(())
        self._wanted: Question | None = None
        self._all_in: list[Asked] = []
        self._then: Iterator[Asked] = iter(())
        self._is_checked = False
        self._walked = EpisodeWalks(1, self._as_then)
        self._seen: dict[Question, Sighting] = {}
        self._sized = {True: True, False: True}  # by what sizes may follow: the account, or nothing
        self._lost = ""  # what was not asked again, in a run that had left a position behind

    def replay(self, gates: Sequence[EntryGate]) -> Replay:
        """Return what gates that know their answers do to the account.

        Raises
        ------
        Unfit
            If they do not know them, or the strategy's runs are not made of episodes.
        """
        answers = known_answers(gates, next(iter(self._backtest.market.bars)), self._times)
        if answers is None:
            raise Unfit("their answers are not known before")
        return self.learn(EpisodeWalks(len(gates), answers))

    def learn(self, walks: EpisodeWalks) -> Replay:
        """Learn all that walks need to reach their end, and return what they do to the account.

        Raises
        ------
        Unfit
            If the strategy's runs are not made of episodes.
        """
        self._wants = self._through(walks)
        if not self._all_in:
            self._run()
        else:
            self._go_on()
        while self._wanted is not None:
            before = len(self.book.known)
            self._run()
            if len(self.book.known) == before:
                raise Unfit(self._lost or "an entry that was asked about once was not asked about again")
        if not self._is_checked:
            self._check_all_in()
            self._is_checked = True
        return replay(self.book, walks)

    def _as_then(self, who: Any, bar: int, side: int) -> Any:
        """Answer as when all was let in."""
        one = next(self._then, None)
        if one is None or one.question != (bar, side):
            raise Unfit(f"what it asks when it is flat depends on what it did, at bar {bar}")
        return np.full(len(who), one.allowed)

    def _through(self, walks: EpisodeWalks) -> Iterator[Question]:
        if not self._is_checked:
            self._then = iter(self._all_in)
            yield from self._walked.through(self.book)
        yield from walks.through(self.book)

    def _run(self) -> None:
        backtest = self._backtest
        params = {**backtest.params, "gate": Probe(log=self._log, warm_up=self._warm_up)}
        if not drive_strategy(
            backtest.strategy, backtest.market, backtest.setup, params, self._drive, **backtest.modes
        ):
            raise Unfit("Backtrader has to run it in its own loop")
        if not self._is_through:
            raise Unfit("it ends its run itself")

    # What is called bar by bar, inside of Backtrader's run

    def _drive(self, strategy: bt.Strategy) -> Iterator[int]:
        self._is_through = False
        yield from self._passes(strategy)
        self._is_through = True

    def _passes(self, strategy: bt.Strategy) -> Iterator[int]:
        if not self._all_in:
            yield from self._first_passes(strategy)
        else:
            yield from range(min(self._bars, max(self.first + 1, _SETTLED)))
        self._dirty, self._lost = False, ""
        while self._wanted is not None:
            yield from self._episode_at(strategy, self._wanted)
            if self._lost:
                return
            self._go_on()

    def _go_on(self) -> bool:
        """Walk on to the next entry whose episode is to be learnt; return whether there is one."""
        self._wanted = next(self._wants, None)
        return self._wanted is not None

    def _first_passes(self, strategy: bt.Strategy) -> Iterator[int]:
        """See what is asked of a flat account, and what is done when all is let in."""
        broker, log = strategy.broker, self._log
        if not broker.getcommissioninfo(strategy.data).stocklike:
            raise Unfit("its positions are on margin")
        if broker.p.coc:
            raise Unfit("orders fill at the close they are sent at")
        self.first = strategy._minperiods[0] - 1
        if self._bars - self.first < 3:
            raise Unfit("it has too few bars")
        cash = float(broker.startingcash)
        yield from range(self._bars)
        if broker.orders or not all(asked.flat for asked in log.asked):
            raise Unfit("it sends orders that it does not ask about")
        self.book = EpisodeBook(bars=self._bars, cash=cash, questions=[asked.question for asked in log.asked])
        if len(set(self.book.questions)) < len(self.book.questions):
            raise Unfit("it asks twice about one entry")
        if any(bar <= self.first for bar, _ in self.book.questions):
            raise Unfit("it asks before its first bar")
        log.asked, log.all_in = [], True
        self._empty(strategy, _OTHER_CASH * cash)
        yield from range(self._bars)
        self._all_in, log.asked, log.all_in = log.asked, [], False
        for one in sightings_in(self._all_in, broker, self._bar_of):
            self._seen[one.asked.question] = one
        self._empty(strategy, cash)
        self._go_on()

    def _episode_at(self, strategy: bt.Strategy, question: Question) -> Iterator[int]:
        """Let an entry in, and learn what comes of it."""
        broker, log = strategy.broker, self._log
        self._dirty = self._dirty or not is_flat(broker)
        self._empty(strategy, self.book.cash)
        log.asked, log.wanted = [], question
        bar = question[0]
        resume = self._bars + 1
        for place in range(bar - 1, self._bars):
            yield place
            if place >= bar and is_flat(broker):
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
        (sighting,) = sightings_in([asked[0], *inner], broker, self._bar_of)
        self._compare(sighting)
        scheme = broker.getcommissioninfo(strategy.data)
        if self._backtest.settles and resume > self._bars:
            sighting.bits += self._settling(broker.getposition(strategy.data).size, broker.p, scheme)
        self.book.add(self._episode(sighting, resume, scheme))

    def _empty(self, strategy: bt.Strategy, cash: float) -> None:
        """Give the strategy an account without a position; it hears of orders as at a next bar."""
        broker = strategy.broker
        for order in broker.get_orders_open():
            broker.cancel(order)
        for order in broker.submitted:
            order.cancel()
            broker.notify(order)
        while (order := broker.get_notification()) is not None:
            strategy._addnotification(order, quicknotify=strategy.cerebro.p.quicknotify)
        strategy._notify()
        strategy.clear()
        strategy._trades.clear()
        broker.setcash(cash)
        broker.init()

    # What is made of it

    def _compare(self, one: Sighting) -> None:
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
        found = replay(self.book, self._walked, _OTHER_CASH * self.book.cash)
        equity = found.equities(0, 1)[0]
        last = self._bars if self._backtest.settles else self._bars + 1  # its value is that after settling
        if not found.told[0] or not all(
            _close(float(equity[asked.question[0] - 1]), asked.value)
            for asked in self._all_in
            if asked.question[0] < last
        ):
            raise Unfit("an account in which all is let in is not made of its episodes")

    def _settling(self, size: float, costs: Any, scheme: Any) -> Iterator[Bit]:
        """Yield what closes a position at the last close, as `AccountAnalyzer` does."""
        close = float(self._closes[-1])
        slip = close * (costs.slip_perc or 0.0) or (costs.slip_fixed or 0.0)
        price = close - math.copysign(slip, size)
        if size:
            yield Bit(self._bars, -size, price, float(scheme.getcommission(size, price)), False)

    def _episode(self, one: Sighting, resume: int, scheme: Any) -> Episode:
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
                won.append(is_gain(since, one.asked.value))
                since = 0.0
        if size and resume <= self._bars:
            raise Unfit(f"what it holds is not all that it asked about, at bar {resume}")
        return Episode(
            question=one.asked.question,
            value=one.asked.value,
            resume=resume,
            path=path,
            inner=tuple(asked.question for asked in one.inner),
            held=int(np.count_nonzero(held[max(0, self.first - bar) :])),
            traded=math.fsum(abs(bit.size * bit.price) for bit in one.bits),
            won=tuple(won),
            least=self._least(one, scheme),
            costs=math.fsum(bit.cost for bit in one.bits),
            fills=np.array([bit[:4] for bit in one.bits], dtype=np.float64).reshape(-1, 4).T,
        )

    def _least(self, one: Sighting, scheme: Any) -> float:
        """Return the least that the broker finds in cash as it checks sent orders and as it fills them."""
        least = cash = 0.0
        for bit in one.bits:
            cash -= bit.size * bit.price + bit.cost
            least = min(least, cash) if bit.opens else least
        for sent in {order.created.dt for order in one.orders}:
            bar = self._bar_of[sent]
            cash = -math.fsum(bit.size * bit.price + bit.cost for bit in one.bits if bit.bar <= bar)
            for order in one.orders:
                if order.created.dt == sent:
                    size, price = order.created.size, order.created.price
                    cash -= size * price + scheme.getcommission(size, price)
                    least = min(least, cash)
        return least


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_AGREE, abs_tol=0.0)
