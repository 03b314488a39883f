"""The order gate: what an order adds to exposure is asked about; what it takes off passes.

Only exposure tells an entry from an exit: a reversal may be one order of twice the size, a target, or a close
and an entry. So each order is split, by the position of its data and the orders at market that are on their
way, before it goes to the broker:

====================================================  =======================================================
what a part of an order does                          what becomes of it
====================================================  =======================================================
takes off what is held, or what an entry that waits   passes
for its price may bring
would only take off an entry vetoed on the same bar   goes with that entry
is a child's (``parent=``, brackets)                  follows its parent
adds exposure                                         asks the data's gate, by its side
====================================================  =======================================================

The gate answers by the close at which the order was sent, for orders that wait (stop, limit, trailing) too.
One that was sent to take off exposure, and would add it since the position has gone, asks right before it
fills, by the close before that.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple

import backtrader as bt

from bt_llm.exceptions import ConfigError
from bt_llm.feeds import data_name
from bt_llm.gates._attaching import attach_gate
from bt_llm.gates._base import LONG, SHORT, AttachedGate, Decision, EntryGate

__all__ = ["JudgedOrder", "OrderGate"]

_ARGUMENTS = tuple(inspect.signature(bt.Strategy.buy).parameters)[1:-1]
_AT_MARKET = (None, bt.Order.Market, bt.Order.Close)
_DUST = 1e-9
"""Share of an order's size; what it adds below that is the rounding of sizes that are no whole numbers."""


class _Nobody:
    """The parent of vetoed orders: the broker rejects an order whose parent it does not know, and says so."""

    ref = None


class JudgedOrder(NamedTuple):
    """What the order gate made of an order that would add exposure.

    Attributes
    ----------
    ref : int
        The order's number in Backtrader.
    data : str
        Name of its data.
    bar : int
        Number of the data's bar by whose close it was judged; the first is 1.
    side : int
        `LONG` or `SHORT`.
    size, let_in : float
        Size that the strategy sent, and what of it passed, both positive. Less is a reversal cut to its exit,
        or an entry that the gate reduced; 0 is a veto.
    allowed : bool
        Whether exposure was let in.
    reason : str
        'allowed'; 'vetoed'; 'warm-up': that of the gate is not over; 'follows': it went with a vetoed entry
        and was not asked about.
    missing : bool
        Whether the gate had no verdict.
    """

    ref: int
    data: str
    bar: int
    side: int
    size: float
    let_in: float
    allowed: bool
    reason: str
    missing: bool = False

    @property
    def early(self) -> bool:
        """Whether it came before the gate's warm-up was over."""
        return self.reason == "warm-up"


@dataclass(frozen=True)
class _Wanted:
    """An order that a strategy wants to send; `given` is what it called ``buy`` or ``sell`` with."""

    side: int
    data: Any
    size: float
    given: dict[str, Any]

    @property
    def asset(self) -> Any:
        return _asset(self.data)

    @property
    def waits(self) -> bool:
        return self.given.get("exectype") not in _AT_MARKET


class _HeldBack(NamedTuple):
    """Exposure that was not let in; its size has a sign, its time is that of the data's bar."""

    asset: Any
    time: float
    order: Any
    size: float


class OrderGate:
    """Judges the orders of one strategy; `gated` gives a strategy one.

    Parameters
    ----------
    strategy : bt.Strategy
        In its ``__init__``, where its indicators are made.
    gate : gate
        Attached to each data. A resampled copy of another data asks that one's.

    Attributes
    ----------
    log : list of JudgedOrder
        Every order that would have added exposure, as they were judged.
    vetoed : set of int
        Refs of the orders that were rejected.

    Raises
    ------
    ConfigError
        If the broker is not Backtrader's simulated one.
    """

    def __init__(self, strategy: bt.Strategy, gate: EntryGate) -> None:
        if not isinstance(strategy.broker, bt.brokers.BackBroker):
            raise ConfigError(
                f"broker {type(strategy.broker).__name__}: orders are judged with Backtrader's simulated "
                f"broker only; with another, ask the gate before each entry (attach_gate)"
            )
        self.strategy = strategy
        self.log: list[JudgedOrder] = []
        self.vetoed: set[int] = set()
        self._gates: dict[Any, AttachedGate] = {}
        for data in strategy.datas:
            source = data.data if isinstance(data, bt.feed.DataClone) else None
            self._gates[data] = self._gates.get(source) or attach_gate(gate, strategy, data)
        self._let_in: set[int] = set()  # orders that may add exposure
        self._cut: set[int] = set()  # orders of which the exit was left
        self._sent: list[Any] = []  # orders alive that later ones are judged by
        self._held_back: list[_HeldBack] = []

    def buy(self, *args: Any, **kwargs: Any) -> Any:
        """Judge a buy order and send what passes; takes and returns what ``bt.Strategy.buy`` does."""
        return self._judge(LONG, dict(zip(_ARGUMENTS, args, strict=False)) | kwargs)

    def sell(self, *args: Any, **kwargs: Any) -> Any:
        """Judge a sell order and send what passes; takes and returns what ``bt.Strategy.sell`` does."""
        return self._judge(SHORT, dict(zip(_ARGUMENTS, args, strict=False)) | kwargs)

    def fills(self, order: Any, size: float) -> float:
        """Return how much of `size` an order that is about to fill may fill."""
        if order.ref in self._let_in or order.exectype == bt.Order.Historical:
            return size
        side, asset = (LONG if order.isbuy() else SHORT), _asset(order.data)
        off = min(size, max(0, -side * self.strategy.broker.getposition(asset).size))
        if size - off <= _DUST * size:
            return size
        gate = self._gates[asset]
        decision = gate.ask(side)
        share = gate.fraction if decision.allowed else 0.0
        passed = size if share == 1 else off + share * (size - off)
        if decision.allowed:
            self._let_in.add(order.ref)
        if not passed:
            self._reject(order)
        elif passed < size:
            order.executed.remsize = side * passed
        self._note(order, _Wanted(side, order.data, size, {}), passed, decision)
        return passed

    def _judge(self, side: int, given: dict[str, Any]) -> Any:
        wanted = self._wanted(side, given)
        if wanted is None:
            return None
        if (parent := given.get("parent")) is not None:
            orphaned = parent.ref in self.vetoed or parent.ref in self._cut
            return self._pass(wanted, 0, 0, None) if orphaned else self._send(wanted, wanted.size)
        off = min(wanted.size, self._takes_off(wanted))
        follows = min(wanted.size - off, self._takes_off_vetoed(wanted))
        adds = wanted.size - off - follows
        if adds > _DUST * wanted.size:
            return self._ask(wanted, off, follows, adds)
        if follows > _DUST * wanted.size:
            return self._pass(wanted, off, 0 if wanted.waits else follows, None)
        return self._send(wanted, wanted.size)

    def _wanted(self, side: int, given: dict[str, Any]) -> _Wanted | None:
        """Return an order with its data and size; None where Backtrader would send none."""
        data, size = given.get("data"), given.get("size")
        if isinstance(data, str):
            data = self.strategy.getdatabyname(data)
        elif data is None:
            data = self.strategy.data
        if size is None:
            size = self.strategy.getsizing(data, isbuy=side == LONG)
        return _Wanted(side, data, abs(size), given) if size else None

    def _takes_off(self, wanted: _Wanted) -> float:
        """Return how much exposure there is, or may be, for an order to take off."""
        self._sent = [order for order in self._sent if order.alive()]
        sent = [order for order in self._sent if _asset(order.data) is wanted.asset]
        held = self.strategy.broker.getposition(wanted.asset).size
        held += sum(o.executed.remsize for o in sent if o.exectype in _AT_MARKET and o.active())
        off: float = max(0, -wanted.side * held)
        if wanted.waits:
            waiting = [o for o in sent if o.exectype not in _AT_MARKET and o.ref in self._let_in]
            awaited = [o.executed.remsize for o in waiting if not self._excludes(wanted, o)]
            off += sum(max(0, -wanted.side * size) for size in awaited)
        return off

    def _takes_off_vetoed(self, wanted: _Wanted) -> float:
        """Return how much of the entries vetoed on this bar an order would take off."""
        self._held_back = [held for held in self._held_back if held.asset.datetime[0] == held.time]
        held_back = [held for held in self._held_back if held.asset is wanted.asset]
        size = sum(held.size for held in held_back if not self._excludes(wanted, held.order))
        return max(0, -wanted.side * size)

    def _excludes(self, wanted: _Wanted, order: Any) -> bool:
        """Return whether one of two orders cancels the other, so that it cannot be meant to take it off."""
        oco, groups = wanted.given.get("oco"), self.strategy.broker._ocos
        return oco is not None and groups.get(oco.ref) == groups.get(order.ref)

    def _ask(self, wanted: _Wanted, off: float, follows: float, adds: float) -> Any:
        """Ask the gate about an order that adds exposure, and send what it lets in and what it takes off."""
        gate = self._gates[wanted.asset]
        decision = gate.ask(wanted.side)
        if not decision.allowed:
            return self._pass(wanted, off, adds if wanted.waits else adds + follows, decision)
        kept_out = adds * (1 - gate.fraction)
        passed = wanted.size - follows - kept_out if follows or kept_out else wanted.size
        return self._pass(wanted, passed, kept_out if wanted.waits else kept_out + follows, decision)

    def _pass(self, wanted: _Wanted, size: float, held_back: float, decision: Decision | None) -> Any:
        """Send `size` of an order, or if that is 0 all of it to be rejected; a decision of None is a veto.

        `held_back` is how much of it the next orders of the bar are to be judged as if it had been sent.
        """
        allowed = decision is not None and decision.allowed
        if not size:
            order = self._send(wanted, wanted.size, parent=_Nobody, vetoed=True)
        elif allowed:
            order = self._send(wanted, size)
        else:
            order = self._send(wanted, size, transmit=True)  # its children, who would do that, do not come
        if order is None:  # the strategy's own buy() or sell() thought better of it
            return None
        if not size:
            order.params.parent = wanted.given.get("parent")
        (self._let_in if allowed else self._cut if size else self.vetoed).add(order.ref)
        if held_back:
            self._held_back.append(
                _HeldBack(wanted.asset, wanted.asset.datetime[0], order, wanted.side * held_back)
            )
        self._note(order, wanted, size, decision)
        return order

    def _send(self, wanted: _Wanted, size: float, **changed: Any) -> Any:
        send = type(self.strategy).buy if wanted.side == LONG else type(self.strategy).sell
        order = send(self.strategy, **(wanted.given | {"data": wanted.data, "size": size} | changed))
        if order is not None:
            self._sent.append(order)
        return order

    def _reject(self, order: Any) -> None:
        """Reject an order that is about to fill, as the broker does for want of cash."""
        broker = self.strategy.broker
        order.addinfo(vetoed=True)
        order.reject()
        broker.notify(order)
        broker._ococheck(order)
        broker._bracketize(order, cancel=True)
        self.vetoed.add(order.ref)

    def _note(self, order: Any, wanted: _Wanted, passed: float, decision: Decision | None) -> None:
        if decision is None:
            bar, allowed, reason, missing = self._gates[wanted.asset].bar, False, "follows", False
        else:
            bar, allowed, missing = decision.bar, decision.allowed, decision.missing
            reason = "allowed" if allowed else "warm-up" if decision.early else "vetoed"
        name, size = data_name(wanted.data), wanted.size
        self.log.append(
            JudgedOrder(order.ref, name, bar, wanted.side, size, passed, allowed, reason, missing)
        )


def _asset(data: Any) -> Any:
    """Return the data whose position an order on a data changes."""
    return data if data._compensate is None else data._compensate
