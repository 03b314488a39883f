"""LLMSizer: a gate for strategies that cannot be changed."""

from __future__ import annotations

from typing import Any

import backtrader as bt

from bt_llm.exceptions import ConfigError
from bt_llm.gates import AttachedAdviceGate, Gate
from bt_llm.indicators import find_advice

__all__ = ["LLMSizer"]

_AT_MARKET = (bt.Order.Market, bt.Order.Close)


class LLMSizer(bt.Sizer):
    """Lets another sizer's entries through if the model's verdict supports them; exits always pass.

    The strategy must have an `LLMAdvice` on the data; ``cerebro.addindicator(LLMAdvice, ...)`` adds one.
    A veto is a size of 0: ``buy()`` and ``sell()`` then return None and send no order.

    Parameters
    ----------
    base : type
        The sizer that says how much.
    base_params : dict, optional
        Its parameters.
    gate : Gate, optional
        The rule, for the advice that its advisor gives. By default the first advice on the data and the
        rule of ``Gate()``.

    Raises
    ------
    ConfigError
        At the first entry, if the strategy has no such advice on the data.

    Notes
    -----
    An order against the position is an exit up to the position's size. If it is larger, it would close and
    reverse: where the verdict does not support the new side, it is cut to the position and closes only.
    Market orders on their way count as filled, so ``close()`` followed by ``buy()`` is an exit and an entry.

    Backtrader asks no sizer for orders that name their size, nor for ``close()`` and ``order_target_*``:
    entries made that way pass unseen. A strategy that you can change should ask a `Gate` instead.

    Examples
    --------
    >>> cerebro = bt.Cerebro()
    >>> cerebro.addsizer(LLMSizer, base=bt.sizers.PercentSizer, base_params={"percents": 50})
    """

    params = (("base", bt.sizers.FixedSize), ("base_params", None), ("gate", None))

    def __init__(self) -> None:
        self._base = self.p.base(**(self.p.base_params or {}))
        self._attached: dict[Any, AttachedAdviceGate] = {}
        if self.p.gate is not None and not isinstance(self.p.gate, Gate):
            raise ConfigError(f"gate={self.p.gate!r}: expected a Gate, such as Gate(min_confidence=0.5)")

    def set(self, strategy: bt.Strategy, broker: Any) -> None:
        """Receive the strategy and the broker, for the base sizer too."""
        super().set(strategy, broker)
        self._base.set(strategy, broker)

    def _getsizing(self, comminfo: Any, cash: float, data: Any, isbuy: bool) -> Any:
        size = abs(self._base._getsizing(comminfo, cash, data, isbuy))
        held = self._exposure(data)
        closing = abs(held) if held * (1 if isbuy else -1) < 0 else 0
        if size <= closing:
            return size
        gate = self._gate_on(data)
        return size if (gate.allows_long() if isbuy else gate.allows_short()) else closing

    def _exposure(self, data: Any) -> Any:
        """Return the position's size once the market orders on their way are filled."""
        waiting = [*getattr(self.broker, "submitted", ()), *getattr(self.broker, "pending", ())]
        coming = [order for order in waiting if order.data is data and order.exectype in _AT_MARKET]
        position = self.broker.getposition(data).size
        return position + sum(order.executed.remsize for order in coming)

    def _gate_on(self, data: Any) -> AttachedAdviceGate:
        if data not in self._attached:
            wanted = self.p.gate.advisor if self.p.gate is not None else None
            found = [a for a in find_advice(self.strategy, data) if wanted is None or a.config == wanted]
            if not found:
                raise ConfigError(
                    f"{type(self.strategy).__name__} has no such LLMAdvice on data {data._name!r}: make "
                    f"one with the gate's advisor in __init__, or by cerebro.addindicator(LLMAdvice, ...)"
                )
            gate = self.p.gate if self.p.gate is not None else Gate(advisor=found[0].config)
            self._attached[data] = AttachedAdviceGate(self.strategy, found[0], gate)
        return self._attached[data]
