"""What a run shows of entries: the questions, the account at each, and the fills that came of it."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import backtrader as bt

from bt_llm.exceptions import BtLlmError
from bt_llm.gates import AttachedGate, Decision, EntryGate
from bt_llm.indicators import WarmUp
from bt_llm.statistics import Question

__all__ = ["Asked", "Bit", "Log", "Probe", "Sighting", "Unfit", "is_flat", "sightings_in"]


class Unfit(BtLlmError):  # noqa: N818 - nobody's error: such a strategy's gates run in Backtrader
    """Why a strategy's runs are not made of episodes."""


class Asked(NamedTuple):
    """A question, with the account as it stood."""

    question: Question
    allowed: bool
    flat: bool
    value: float
    sent: int  # orders before it


@dataclass(slots=True)
class Log:
    """What has been asked, and what is let in."""

    wanted: Question | None = None
    all_in: bool = False
    asked: list[Asked] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe(EntryGate):
    """Lets in what its log says, and keeps the state of the account with each question."""

    log: Log
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
    probed: Log

    def decide(self, side: int) -> Decision:
        log, broker, question = self.probed, self.strategy.broker, (self.bar, side)
        if None in broker.pending:  # the broker's mark: it is filling orders
            raise Unfit("an order asks as it fills")
        last = log.asked[-1] if log.asked else None
        if last is not None and last.question == question:
            raise Unfit(f"it asks twice about one entry, at bar {self.bar}")
        just_let_in = last is not None and last.allowed and last.question[0] == self.bar
        flat = not just_let_in and is_flat(broker)
        allowed = log.all_in or question == log.wanted
        log.asked.append(Asked(question, allowed, flat, broker.getvalue(), len(broker.orders)))
        return Decision(self.bar, side, allowed)


def is_flat(broker: Any) -> bool:
    if broker.pending or broker.submitted or broker._toactivate:
        return False
    return not any(position.size for position in broker.positions.values())


class Bit(NamedTuple):
    """A part of a fill that belongs to one episode."""

    bar: int
    size: float
    price: float
    cost: float
    opens: bool


@dataclass(slots=True)
class Sighting:
    """An entry that was let in, and what came of it in the money of that account."""

    asked: Asked
    inner: list[Asked] = field(default_factory=list)
    bits: list[Bit] = field(default_factory=list)
    orders: list[Any] = field(default_factory=list)


def sightings_in(asked: Sequence[Asked], broker: Any, bars: Mapping[float, int]) -> list[Sighting]:
    """Return the entries that were let in, with their fills and orders.

    Parameters
    ----------
    asked : sequence of Asked
        Since the broker was empty.
    broker : Broker
        As it stands.
    bars : mapping of float to int
        From Backtrader's numbers of the bars to these, from 1.

    Raises
    ------
    Unfit
        If the broker refused orders, or got some that no entry explains.
    """
    found: list[Sighting] = []
    for one in asked:
        if one.allowed:
            if found and not one.flat:
                found[-1].inner.append(one)
            found.append(Sighting(one))
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
        bar = bars[time]
        if fill.closed:
            if holder is None:
                raise Unfit("what is closed was opened by no entry that was asked about")
            holder.bits.append(Bit(bar, fill.closed, fill.price, fill.closedcomm, False))
            held += fill.closed
        if fill.opened:
            holder = holder if held and holder is not None else sender
            holder.bits.append(Bit(bar, fill.opened, fill.price, fill.openedcomm, True))
            held += fill.opened
    return found
