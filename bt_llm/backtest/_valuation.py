"""What an account is worth at every close, from what changed it: worked out after the run, not bar by bar.

Between two changes of cash or position an account's value is a function of the close alone, so the lean loop
notes the changes and asks the broker at these bars only. The sums are the broker's, in its order: values
are the same to the last bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Valuation"]


class _Turn(NamedTuple):
    """What an account was worth at a bar's close, and what it holds from there on."""

    bar: int
    value: float
    cash: float
    size: float = 0.0
    price: float = 0.0
    mult: float = 1.0
    leverage: float = 1.0

    def value_at(self, close: float) -> float:
        """Return what it is worth at a close."""
        value = self.size * close
        gained = self.size * (close - self.price) * self.mult
        return self.cash + ((value - gained) / self.leverage + gained if value > 0 else value)


class Valuation:
    """The value of an account with one data, from the turns of its broker.

    Parameters
    ----------
    broker : RestingBroker
        Whose cash and position.
    data : feed
        Preloaded, its closes finite.
    """

    def __init__(self, broker: Any, data: Any) -> None:
        self._broker, self._data = broker, data
        closes = np.array(data.lines.close.array)
        self._least, self._most = float(closes.min()), float(closes.max())
        self._turns: list[_Turn] = []

    def turn(self, bar: int) -> bool:
        """Note at a bar's close that something has changed; return whether a later close may bring ruin."""
        turn = self._turn(bar)
        self._turns.append(turn)
        if not turn.size:
            return not min(turn.value, turn.cash) > 0.0
        farthest = self._most + abs(turn.price)
        margin = 1e-9 * (abs(turn.cash) + abs(turn.size) * (1.0 + abs(turn.mult)) * farthest)
        worst = min(turn.value, turn.value_at(self._least), turn.value_at(self._most))
        return not (self._least > 0.0 and worst > margin)  # closes in between are worth more

    def _turn(self, bar: int) -> _Turn:
        broker, data = self._broker, self._data
        value, cash, position = broker.getvalue(), float(broker.cash), broker.positions.get(data)
        if position is None or not position.size:
            return _Turn(bar, value, cash)
        size, scheme = float(position.size), broker.getcommissioninfo(data)
        if not broker.is_free(data):  # there is a turn at every bar
            return _Turn(bar, value, cash, size, mult=np.nan)
        return _Turn(
            bar, value, cash, size, float(position.price), float(scheme.p.mult), float(scheme.p.leverage)
        )

    def values(self, stop: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the value at each of the first `stop` closes, and whether there was a position."""
        turns = [one for one in self._turns if one.bar < stop]
        starts = np.array([one.bar for one in turns], dtype=np.int64)
        terms = np.array(turns, dtype=np.float64)[:, 2:].T
        closes = np.frombuffer(self._data.lines.close.array)
        values, held = np.empty(stop), np.empty(stop, dtype=np.bool_)
        for first in range(0, stop, _AT_ONCE):
            part = slice(first, min(first + _AT_ONCE, stop))
            bars = np.arange(part.start, part.stop)
            cash, size, price, mult, leverage = terms[:, starts.searchsorted(bars, side="right") - 1]
            with np.errstate(all="ignore"):  # as the broker's sums do
                worth = size * closes[part]
                gained = size * (closes[part] - price) * mult
                values[part] = cash + np.where(worth > 0.0, (worth - gained) / leverage + gained, worth)
            held[part] = size != 0.0
        values[starts] = [one.value for one in turns]
        return values, held


_AT_ONCE = 1 << 16
"""Bars that are valued at a time: a million at once would take nine arrays of them."""
