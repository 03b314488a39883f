"""What orders do to exposure, and what of them is sent: shared by the gate of orders and that of the line."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import backtrader as bt

from bt_llm.gates._base import LONG, SHORT, Decision

__all__ = ["DUST", "OrderJudge", "Wanted", "asset_of", "judge_of", "watch_fills"]

DUST = 1e-9
"""Share of an order's size; what it adds below that is the rounding of sizes that are no whole numbers."""

_ARGUMENTS = tuple(inspect.signature(bt.brokers.BackBroker.buy).parameters)[1:-1]
_AT_MARKET = (None, bt.Order.Market, bt.Order.Close)
_JUDGE = "_bt_llm_order_judge"


class _Nobody:
    """The parent of vetoed orders: the broker rejects an order whose parent it does not know, and says so."""

    ref = None


@dataclass(frozen=True)
class Wanted:
    """An order that a strategy wants to send; `given` is what the broker's ``buy`` or ``sell`` got for it."""

    side: int
    data: Any
    size: float
    given: dict[str, Any]

    @property
    def asset(self) -> Any:
        """The data whose position it changes."""
        return asset_of(self.data)

    @property
    def waits(self) -> bool:
        """Whether it waits for its price."""
        return self.given.get("exectype") not in _AT_MARKET


class _HeldBack(NamedTuple):
    """Exposure that was not let in; its size has a sign, its time is that of the data's bar."""

    asset: Any
    time: float
    order: Any
    size: float


class OrderJudge(abc.ABC):
    """Stands between a strategy and its broker, and sends what may pass of the strategy's orders.

    Parameters
    ----------
    strategy : bt.Strategy
        In its ``__init__``.

    Attributes
    ----------
    vetoed : set of int
        Refs of the orders that were rejected.
    """

    def __init__(self, strategy: bt.Strategy) -> None:
        self.strategy = strategy
        self.vetoed: set[int] = set()
        self._let_in: set[int] = set()  # orders that may add exposure
        self._cut: set[int] = set()  # orders of which the exit was left
        self._shares: dict[int, float] = {}  # of orders that were reduced, which their children are too
        self._sent: list[Any] = []  # orders alive that later ones are judged by
        self._held_back: list[_HeldBack] = []
        vars(strategy)[_JUDGE] = self
        if "_bt_llm_desks" not in vars(strategy.broker):
            strategy.broker._bt_llm_desks = [_Desk(strategy.broker, side) for side in (LONG, SHORT)]

    def judge(self, side: int, given: dict[str, Any]) -> Any:
        """Judge an order and send what passes; takes and returns what a broker's ``buy`` does."""
        wanted = Wanted(side, given["data"], abs(given["size"]), given)
        if (parent := given.get("parent")) is not None:
            orphaned = parent.ref in self.vetoed or parent.ref in self._cut
            size = wanted.size * self._shares.get(parent.ref, 1)
            return self._pass(wanted, 0, 0, None) if orphaned else self._send(wanted, size)
        off = min(wanted.size, self._takes_off(wanted))
        follows = min(wanted.size - off, self._takes_off_vetoed(wanted))
        adds = wanted.size - off - follows
        if adds > DUST * wanted.size:
            return self._ask(wanted, off, follows, adds)
        if follows > DUST * wanted.size:
            return self._pass(wanted, off, 0 if wanted.waits else follows, None)
        return self._send(wanted, wanted.size)

    def exposure(self, asset: Any) -> float:
        """Return the position of a data, and what the orders at market that are on their way make of it."""
        held: float = self.strategy.broker.getposition(asset).size
        sent = (order for order in self._alive(asset) if order.exectype in _AT_MARKET and order.active())
        held += sum(order.executed.remsize for order in sent)
        return held

    def fills(self, order: Any, size: float) -> float:
        """Return how much of `size` an order that is about to fill may fill."""
        if self._may_fill(order):
            return size
        side, asset = (LONG if order.isbuy() else SHORT), asset_of(order.data)
        off = min(size, max(0, -side * self.strategy.broker.getposition(asset).size))
        if size - off <= DUST * size:
            return size
        wanted = Wanted(side, order.data, size, {})
        decision, share = self._decide_at_fill(wanted)
        passed = size if share == 1 else off + share * (size - off)
        if decision.allowed:
            self._let_in.add(order.ref)
        if not passed:
            self._reject(order)
        elif passed < size:
            order.executed.remsize = side * passed
        self._note(order, wanted, passed, decision)
        return passed

    @abc.abstractmethod
    def _decide(self, wanted: Wanted) -> tuple[Decision, float]:
        """Return whether exposure may be added, and the share of it that may."""

    def _decide_at_fill(self, wanted: Wanted) -> tuple[Decision, float]:
        """Return the same for an order that was sent to take off exposure, and would add it by now."""
        return self._decide(wanted)

    @abc.abstractmethod
    def _note(self, order: Any, wanted: Wanted, passed: float, decision: Decision | None) -> None:
        """Keep what was made of an order."""

    def _may_fill(self, order: Any) -> bool:
        """Return whether an order may fill whatever it does to exposure by now."""
        return order.ref in self._let_in or order.exectype == bt.Order.Historical

    def _takes_off(self, wanted: Wanted) -> float:
        """Return how much exposure there is, or may be, for an order to take off."""
        off: float = max(0, -wanted.side * self.exposure(wanted.asset))
        if wanted.waits:
            sent = self._alive(wanted.asset)
            waiting = [o for o in sent if o.exectype not in _AT_MARKET and o.ref in self._let_in]
            awaited = [o.executed.remsize for o in waiting if not self._excludes(wanted, o)]
            off += sum(max(0, -wanted.side * size) for size in awaited)
        return off

    def _alive(self, asset: Any) -> list[Any]:
        self._sent = [order for order in self._sent if order.alive()]
        return [order for order in self._sent if asset_of(order.data) is asset]

    def _takes_off_vetoed(self, wanted: Wanted) -> float:
        """Return how much of the entries vetoed on this bar an order would take off."""
        self._held_back = [held for held in self._held_back if held.asset.datetime[0] == held.time]
        held_back = [held for held in self._held_back if held.asset is wanted.asset]
        size = sum(held.size for held in held_back if not self._excludes(wanted, held.order))
        return max(0, -wanted.side * size)

    def _excludes(self, wanted: Wanted, order: Any) -> bool:
        """Return whether one of two orders cancels the other, so that it cannot be meant to take it off."""
        oco, groups = wanted.given.get("oco"), self.strategy.broker._ocos
        return oco is not None and groups.get(oco.ref) == groups.get(order.ref)

    def _ask(self, wanted: Wanted, off: float, follows: float, adds: float) -> Any:
        """Ask the gate about an order that adds exposure, and send what it lets in and what it takes off."""
        decision, share = self._decide(wanted)
        if not decision.allowed:
            return self._pass(wanted, off, adds if wanted.waits else adds + follows, decision)
        kept_out = adds * (1 - share)
        passed = wanted.size - follows - kept_out if follows or kept_out else wanted.size
        return self._pass(wanted, passed, kept_out if wanted.waits else kept_out + follows, decision)

    def _pass(self, wanted: Wanted, size: float, held_back: float, decision: Decision | None) -> Any:
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
        if not size:
            order.params.parent = wanted.given.get("parent")
        if 0 < size < wanted.size:
            self._shares[order.ref] = size / wanted.size
        (self._let_in if allowed else self._cut if size else self.vetoed).add(order.ref)
        if held_back:
            self._held_back.append(
                _HeldBack(wanted.asset, wanted.asset.datetime[0], order, wanted.side * held_back)
            )
        self._note(order, wanted, size, decision)
        return order

    def _send(self, wanted: Wanted, size: float, **changed: Any) -> Any:
        changed |= {} if size == wanted.size else {"size": size}
        order = self.strategy.broker._bt_llm_desks[wanted.side == SHORT].send(**(wanted.given | changed))
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


def asset_of(data: Any) -> Any:
    """Return the data whose position an order on a data changes."""
    return data if data._compensate is None else data._compensate


def judge_of(strategy: bt.Strategy | None) -> OrderJudge | None:
    """Return what stands between a strategy and its broker; None if nothing does."""
    return None if strategy is None else vars(strategy).get(_JUDGE)


class _Desk:
    """Stands in the place of a broker's ``buy`` or ``sell``: however an order is sent, it comes by here."""

    def __init__(self, broker: Any, side: int) -> None:
        self._broker, self._side = broker, side
        self._name = "buy" if side == LONG else "sell"
        self._own = vars(broker).get(self._name)
        setattr(broker, self._name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        judge = judge_of(given["owner"])
        passes = judge is None or not given["size"] or given.get("exectype") == bt.Order.Historical
        return self.send(**given) if passes else judge.judge(self._side, given)  # type: ignore[union-attr]

    def send(self, **given: Any) -> Any:
        """Do what the broker does of itself."""
        return (self._own or getattr(type(self._broker), self._name).__get__(self._broker))(**given)


def watch_fills(broker: Any) -> None:
    """Have a broker ask, before it fills an order, how much of it may fill by then."""
    if not isinstance(broker.p.filler, _Filler):
        _Filler(broker)


class _Filler:
    """Asks the judge of an order's strategy how much of what the broker would fill may fill."""

    def __init__(self, broker: Any) -> None:
        self.filler: Callable[[Any, float, int], float] | None = broker.p.filler
        broker.set_filler(self)
        broker.set_filler = self.ask  # for one that a strategy sets while it runs

    def ask(self, filler: Callable[[Any, float, int], float] | None) -> None:
        """Have a broker's own filler, or None, say how much it would fill."""
        self.filler = filler

    def __call__(self, order: Any, price: float, ago: int) -> float:
        size = abs(order.executed.remsize) if self.filler is None else self.filler(order, price, ago)
        judge = judge_of(order.owner)
        return size if judge is None else judge.fills(order, size)
