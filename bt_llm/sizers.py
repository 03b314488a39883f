"""LLMSizer: the order gate for strategies that are added by name only, as a sizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import backtrader as bt

from bt_llm.exceptions import ConfigError
from bt_llm.gates import Gate, judge_orders
from bt_llm.indicators import find_advice
from bt_llm.settings import instance

__all__ = ["LLMSizer"]


class LLMSizer(bt.Sizer):
    """A sizer that brings a gate along: it judges all orders of its strategy, as `gated` does.

    Parameters
    ----------
    base : type
        The sizer that says how much.
    base_params : dict, optional
        Its parameters.
    gate : gate, optional
        By default ``Gate()`` with the advisor of the first `LLMAdvice` that the strategy has, such as one by
        ``cerebro.addindicator(LLMAdvice, ...)``; without any, with the default advisor.

    Raises
    ------
    ConfigError
        If the strategy's orders are judged already, or a parameter is of another kind.

    Examples
    --------
    >>> cerebro = bt.Cerebro()
    >>> cerebro.addsizer(LLMSizer, base=bt.sizers.PercentSizer, base_params={"percents": 50})
    """

    params = (("base", bt.sizers.FixedSize), ("base_params", None), ("gate", None))

    def __init__(self) -> None:
        base, params = self.p.base, self.p.base_params
        if not (isinstance(base, type) and issubclass(base, bt.Sizer)):
            raise ConfigError(f"base={base!r:.60}: expected a sizer's class, such as bt.sizers.PercentSizer")
        if params is not None:
            instance("base_params", params, Mapping, "a mapping of names to values, or None")
        self._base = base(**(params or {}))

    def set(self, strategy: bt.Strategy, broker: Any) -> None:
        """Receive the strategy and the broker, for the base sizer too, and have the orders judged."""
        known = self.strategy is strategy
        super().set(strategy, broker)
        self._base.set(strategy, broker)
        if not known:
            judge_orders(strategy, self.p.gate or _gate_of_its_advice(strategy))

    def _getsizing(self, comminfo: Any, cash: float, data: Any, isbuy: bool) -> Any:
        return self._base._getsizing(comminfo, cash, data, isbuy)


def _gate_of_its_advice(strategy: bt.Strategy) -> Gate:
    advice = next(iter(find_advice(strategy)), None)
    return Gate() if advice is None else Gate(advisor=advice.config, indicator=type(advice))
