"""Backtrader's broker, and one that does nothing on bars without orders.

But where interest or margin is due on a position; what the account is worth it works out when it is asked.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import backtrader as bt

__all__ = ["PlainBroker", "RestingBroker"]


class PlainBroker(bt.brokers.BackBroker):
    """Backtrader's broker, of which a data without a bar can be asked for its position.

    The original values such a position at the price of a bar that is not there.
    """

    def getposition(self, data: Any) -> Any:
        """Return the position on a data."""
        return self.positions[data] if len(data) else bt.Position()


class RestingBroker(PlainBroker):
    """The same broker, which rests on bars on which nothing can happen.

    What is derived from cash and positions (value, leverage, fund) is worked out when it is asked for.

    Attributes
    ----------
    turns : int
        How often something has happened that cash, a position or its worth may have changed by.
    """

    turns = 0
    _stale = False

    def __init__(self) -> None:
        self._free: dict[Any, Any] = {}
        super().__init__()

    def init(self) -> None:
        """Begin with nothing open."""
        super().init()
        self._stale = False
        self._valued_cash = math.nan
        self._free.clear()

    def next(self) -> None:
        """Fill orders, charge interest and margin; rest where there are none."""
        if (
            self.pending
            or self.submitted
            or self._toactivate
            or self._userhist
            or self._fundhist
            or self._cash_addition
        ):
            self.turns += 1
            super().next()
            self._stale = False
            self._valued_cash = self.cash
            return
        for data, position in self.positions.items():
            if position.size:
                if self._free.get(data) is not self.getcommissioninfo(data) and not self.is_free(data):
                    self.turns += 1
                    super().next()
                    self._stale = False
                    return
                self._stale = True
        if self.cash != self._valued_cash:
            self._stale = True

    def notify(self, order: Any) -> None:
        """Keep what an order is now, for its owner to hear: as ``Order.clone`` does, without detours."""
        if type(order) not in _PLAIN_ORDERS or type(order.executed) is not bt.order.OrderData:
            super().notify(order)
            return
        if not order.created.exbits:
            order.created.exbits = _NO_BITS
        order.executed.markpending()
        told = _copied(order)
        told.executed = _copied(order.executed)
        self.notifs.append(told)

    def is_free(self, data: Any) -> bool:
        """Return whether holding a data changes no cash, and is worth its size at the price."""
        scheme = self.getcommissioninfo(data)
        if not self.p.shortcash or not _is_free(scheme):
            return False
        self._free[data] = scheme
        return True

    def _get_value(self, datas: Any = None, lever: bool = False) -> Any:
        if datas is None:
            self._stale = False
            self._valued_cash = self.cash
        return super()._get_value(datas=datas, lever=lever)

    def _turn(self) -> None:
        """Work out what the account is worth before something changes; as in Backtrader, it stays so."""
        self._freshen()
        self.turns += 1

    def _turn_terms(self) -> None:
        self._turn()
        self._free.clear()
        for data, position in self.positions.items():
            if position.size:  # interest and margin count from here, and not from where it began to rest
                position.adjbase, position.datetime = data.close[0], data.datetime.datetime()

    def _freshen(self) -> None:
        if self._stale:
            self._get_value()

    def get_value(self, datas: Any = None, mkt: bool = False, lever: bool = False) -> Any:
        """Return the value of the account, or of datas."""
        if self._stale:
            if datas is None and not mkt and not lever and self._quick_value():
                return self._value
            self._get_value()
        return super().get_value(datas=datas, mkt=mkt, lever=lever)

    def _quick_value(self) -> bool:
        """Work out what the account is worth and nothing else, as Backtrader does to the last bit."""
        held = 0.0
        if not self.p.shortcash:
            return False
        for data, position in self.positions.items():
            scheme = self._free.get(data)
            if scheme is None or scheme is not self.getcommissioninfo(data):
                return False
            size, close = position.size, data.close[0]
            value, gained = size * close, size * (close - position.price) * scheme.p.mult
            if value > 0:
                held += (value - gained) / scheme.p.leverage
                held += gained
            else:
                held += value
        self._value = self.cash + held
        return True

    getvalue = get_value

    def set_cash(self, cash: float) -> None:
        """Set the cash; until the next bar the account is worth just that, as in Backtrader."""
        self._turn()
        super().set_cash(cash)

    setcash = set_cash

    def set_shortcash(self, shortcash: bool) -> None:
        """Say whether selling short adds cash, from the next bar on."""
        self._turn_terms()
        super().set_shortcash(shortcash)

    def setcommission(self, *args: Any, **kwargs: Any) -> None:
        """Set the terms of datas, from the next bar on."""
        self._turn_terms()
        super().setcommission(*args, **kwargs)

    def addcommissioninfo(self, comminfo: Any, name: str | None = None) -> None:
        """Set the terms of datas, from the next bar on."""
        self._turn_terms()
        super().addcommissioninfo(comminfo, name=name)

    def get_leverage(self) -> Any:
        """Return the leverage of the account."""
        self._freshen()
        return super().get_leverage()

    def get_fundshares(self) -> Any:
        """Return the shares of the account as a fund."""
        self._freshen()
        return super().get_fundshares()

    fundshares = property(get_fundshares)

    def get_fundvalue(self) -> Any:
        """Return the value of a share of the account as a fund."""
        self._freshen()
        return super().get_fundvalue()

    fundvalue = property(get_fundvalue)


_NO_BITS: deque[Any] = deque(maxlen=0)
"""Executions of an order as it was created, which has none: one for all of them saves a quarter of each."""

_PLAIN_ORDERS = (bt.BuyOrder, bt.SellOrder)


def _copied(one: Any) -> Any:
    made = object.__new__(type(one))
    vars(made).update(vars(one))
    return made


def _is_free(scheme: Any) -> bool:
    """Return whether holding a position changes no cash, and it is worth its size at the price."""
    return (
        scheme.stocklike
        and not scheme.p.interest
        and all(getattr(type(scheme), name) is getattr(bt.CommInfoBase, name) for name in _HOLDING)
    )


_HOLDING = (
    "stocklike",
    "get_credit_interest",
    "_get_credit_interest",
    "cashadjust",
    "getvaluesize",
    "profitandloss",
    "get_leverage",
)
