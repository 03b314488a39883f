"""A strategy within a window: it decides at the window's bars only, and is flat at its end."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import backtrader as bt

from bt_llm.exceptions import StrategyFailed

__all__ = ["Stretch", "windowed"]


@dataclass(slots=True)
class Stretch:
    """Where a strategy may decide, in Backtrader's numbers of the bars, and how far it has come."""

    first: float
    leave: float
    entered: bool = False
    begun: bool = False
    left: bool = False


@functools.lru_cache(maxsize=32)
def windowed(strategy: type[bt.Strategy]) -> type[bt.Strategy]:
    """Return a subclass that decides within its window only, and is flat at the end of it.

    Before the window the strategy's own methods are not called at all: `prenext` or `nextstart` may trade.
    The subclass has one parameter more, ``bt_llm_stretch``.
    """

    class Windowed(strategy):
        params = (("bt_llm_stretch", None),)
        __module__ = strategy.__module__
        __doc__ = strategy.__doc__

    def prenext(self: Any) -> None:
        if _decides(self):
            strategy.prenext(self)

    def next(self: Any) -> None:
        if not _decides(self):
            return
        if self.p.bt_llm_stretch.begun:
            strategy.next(self)
        else:
            self.p.bt_llm_stretch.begun = True
            strategy.nextstart(self)

    def opens(self: Any) -> bool:
        # The bar that opens is not in `datetime` yet: what is known is the bar before it.
        stretch: Stretch = self.p.bt_llm_stretch
        return bool(len(self) and stretch.first <= self.datetime[0] < stretch.leave)

    def prenext_open(self: Any) -> None:
        if opens(self):
            strategy.prenext_open(self)

    def next_open(self: Any) -> None:
        if opens(self):
            strategy.next_open(self)

    def notify_timer(self: Any, timer: Any, when: Any, *args: Any, **kwargs: Any) -> None:
        # Timers ring before the strategy's own time moves on.
        now = max((data.datetime[0] for data in self.datas if len(data)), default=-math.inf)
        if self.p.bt_llm_stretch.first <= now < self.p.bt_llm_stretch.leave:
            strategy.notify_timer(self, timer, when, *args, **kwargs)

    # Set afterwards: SignalStrategy's metaclass would take a `next` of the class body for something else.
    for name, method in (
        ("prenext", prenext),
        ("nextstart", next),
        ("next", next),
        ("prenext_open", prenext_open),
        ("nextstart_open", next_open),
        ("next_open", next_open),
        ("notify_timer", notify_timer),
    ):
        setattr(Windowed, name, method)
    Windowed.__name__, Windowed.__qualname__ = strategy.__name__, strategy.__qualname__
    return Windowed


def _decides(strategy: Any) -> bool:
    """Return whether the strategy may decide at this bar; the first time, check that it has not already."""
    stretch: Stretch = strategy.p.bt_llm_stretch
    now = strategy.lines.datetime[0]
    if now < stretch.first or stretch.left:
        return False
    if now >= stretch.leave:
        stretch.left = True
        _go_flat(strategy)
        return False
    if not stretch.entered:
        stretch.entered = True
        _check_flat(strategy)
    return True


def _check_flat(strategy: bt.Strategy) -> None:
    broker = strategy.broker
    if any(position.size for position in broker.positions.values()) or broker.get_orders_open():
        raise StrategyFailed(
            f"{type(strategy).__name__} has orders or a position before its first bar: expected orders in "
            f"next() only"
        )


def _go_flat(strategy: bt.Strategy) -> None:
    """Cancel what is open and leave at the next open, the window's last; past any veto of the strategy's."""
    broker = strategy.broker
    broker.check_submitted()  # what `notify_order` has sent on this bar can be cancelled from here on
    for order in broker.get_orders_open():
        broker.cancel(order)
    for data, position in list(broker.positions.items()):
        if position.size > 0:
            bt.Strategy.sell(strategy, data=data, size=position.size)
        elif position.size < 0:
            bt.Strategy.buy(strategy, data=data, size=-position.size)
