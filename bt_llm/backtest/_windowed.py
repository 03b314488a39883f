"""A strategy within a window: it decides at the window's bars only, and is flat at its end."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
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
    inside: set[str] = field(default_factory=set)
    """The methods that are being called."""


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

    # Set afterwards: SignalStrategy's metaclass would take a `next` of the class body for something else.
    for name, decides in _HELD.items():
        setattr(Windowed, name, _Held(strategy, name, decides))
    Windowed.__name__, Windowed.__qualname__ = strategy.__name__, strategy.__qualname__
    return Windowed


class _Held:
    """A method of a strategy that is called within the window only, whatever the strategy puts in its place.

    Some are machines of states that set ``self.next`` as they go.
    """

    def __init__(self, strategy: type[bt.Strategy], name: str, decides: Callable[[Any], bool]) -> None:
        self._strategy, self._name, self._decides = strategy, name, decides

    def __get__(self, strategy: Any, owner: Any = None) -> Any:
        if strategy is None:
            return getattr(self._strategy, self._name)
        return functools.partial(self._call, strategy)

    def __set__(self, strategy: Any, method: Any) -> None:
        vars(strategy)[self._name] = method

    def __delete__(self, strategy: Any) -> None:
        del vars(strategy)[self._name]

    def _call(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        stretch: Stretch = strategy.p.bt_llm_stretch
        if self._name in stretch.inside:  # what it has put there calls what was there before
            getattr(self._strategy, self._name)(strategy, *args, **kwargs)
        elif self._decides(strategy):
            name = self._name
            if name in ("nextstart", "next"):
                name, stretch.begun = "next" if stretch.begun else "nextstart", True
            own = vars(strategy).get(name) or functools.partial(getattr(self._strategy, name), strategy)
            stretch.inside.add(name)
            try:
                own(*args, **kwargs)
            finally:
                stretch.inside.discard(name)


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


def _opens(strategy: Any) -> bool:
    # The bar that opens is not in `datetime` yet: what is known is the bar before it.
    stretch: Stretch = strategy.p.bt_llm_stretch
    return bool(len(strategy) and stretch.first <= strategy.datetime[0] < stretch.leave)


def _rings(strategy: Any) -> bool:
    # Timers ring before the strategy's own time moves on.
    now = max((data.datetime[0] for data in strategy.datas if len(data)), default=-math.inf)
    return bool(strategy.p.bt_llm_stretch.first <= now < strategy.p.bt_llm_stretch.leave)


_HELD = {
    "prenext": _decides,
    "nextstart": _decides,
    "next": _decides,
    "prenext_open": _opens,
    "nextstart_open": _opens,
    "next_open": _opens,
    "notify_timer": _rings,
}


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
