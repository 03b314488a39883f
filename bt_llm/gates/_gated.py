"""Strategies whose orders are judged: `gated` makes a class, `judge_orders` does it to one strategy."""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from typing import Any

import backtrader as bt

from bt_llm import plain_text
from bt_llm.exceptions import ConfigError
from bt_llm.gates._attaching import attached_gates
from bt_llm.gates._base import EntryGate
from bt_llm.gates._judging import judge_of
from bt_llm.gates._orders import OrderGate
from bt_llm.settings import in_short

__all__ = ["gated", "judge_orders", "order_gate_of", "ungated"]

_logger = plain_text.logger(__name__)


def gated(strategy: type[bt.Strategy]) -> type[bt.Strategy]:
    """Return a strategy like this one whose orders a gate judges: any strategy, unchanged.

    The gate is the parameter ``gate``, which the class gets if it has none. It judges exposure: what an order
    adds to the position of its data is asked about, by its side, at the close at which it is sent; what it
    takes off passes. A reversal that is vetoed is cut to its exit. The children of a vetoed order
    (``parent=``, brackets), and orders of the same bar that would only have taken it off, go with it. A
    vetoed order is rejected by the broker: ``buy()`` returns it with status ``Rejected`` and ``vetoed`` in
    its ``info``, and ``notify_order`` hears of it when it would hear of any other.

    With ``gate=None`` the strategy does exactly what it does without this. What was judged is in the log of
    `order_gate_of`.

    Parameters
    ----------
    strategy : type
        A `backtrader.Strategy`. One that attaches a gate in its ``__init__`` (`attach_gate`) asks by itself,
        and its orders are left alone.

    Returns
    -------
    type
        A subclass, the same one each time. It pickles wherever `strategy` does.

    Raises
    ------
    ConfigError
        If it is no strategy class, or its parameter ``gate`` is something else.

    Notes
    -----
    Which of the two ways? Gate the orders (this) unless there is a reason not to: it needs no change. Attach
    the gate and ask ``allows_long()`` before each entry where the strategy is to do something else on a
    veto: wait, try again, take another size. In neither does a veto hold an exit.

    Two orders of one bar that wait on either side of the market, neither cancelling the other, are taken
    for an entry and its protection. Two entries are sent as one group (``oco=``), or on different bars.

    Signals of Backtrader's: ``cerebro.signal_strategy(gated(bt.SignalStrategy), gate=...)``.

    Examples
    --------
    >>> from bt_llm.gates import NeverOpen
    >>> cerebro = bt.Cerebro()
    >>> cerebro.addstrategy(gated(bt.strategies.MA_CrossOver), fast=20, gate=NeverOpen())
    0
    """
    if not (isinstance(strategy, type) and issubclass(strategy, bt.Strategy)):
        raise ConfigError(
            f"strategy={in_short(strategy)}: expected a class, a subclass of backtrader.Strategy"
        )
    default = getattr(strategy.params, "gate", None)
    if not isinstance(default, EntryGate | None):
        raise ConfigError(
            f"{strategy.__name__} has a parameter gate={in_short(default)}, which is no gate: give it "
            "another name, as gate is where a strategy gets its gate"
        )
    return strategy if ungated(strategy) is not strategy else _gated(strategy)  # type: ignore[arg-type]


@functools.cache
def _gated(strategy: type[bt.Strategy]) -> type[bt.Strategy]:
    class Gated(strategy, metaclass=_gated_kind(type(strategy))):  # type: ignore[misc, metaclass]
        params = () if "gate" in strategy.params._getkeys() else (("gate", None),)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if attached_gates(self):
                _logger.info("%s attaches a gate itself: its orders are left alone", strategy.__name__)
            elif self.p.gate is not None:
                judge_orders(self, self.p.gate)

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(Gated, name, getattr(strategy, name))
    Gated.__wrapped__ = strategy
    return Gated


@functools.cache
def _gated_kind(metaclass: type) -> type:
    """Return a metaclass whose classes `gated` makes, so that they pickle as what they are made of."""
    kind = type(f"Gated{metaclass.__name__}", (metaclass,), {})
    copyreg.pickle(kind, _reduce)
    return kind


def _reduce(strategy: type) -> str | tuple[Callable[..., Any], tuple[type]]:
    original = ungated(strategy)
    return strategy.__qualname__ if original is strategy else (gated, (original,))


def ungated(strategy: type[bt.Strategy]) -> type[bt.Strategy]:
    """Return the class that `gated` made a class of; any other is returned as it is.

    Examples
    --------
    >>> ungated(gated(bt.strategies.MA_CrossOver)) is bt.strategies.MA_CrossOver
    True
    """
    original: type[bt.Strategy] = vars(strategy).get("__wrapped__", strategy)
    return original


def judge_orders(strategy: bt.Strategy, gate: EntryGate) -> OrderGate:
    """Let a gate judge a strategy's orders, as `gated` does.

    Parameters
    ----------
    strategy : bt.Strategy
        Before it runs, while its indicators are made.
    gate : gate
        Attached to each of its datas.

    Raises
    ------
    ConfigError
        If its orders are judged already.
    """
    if judge_of(strategy) is not None:
        raise ConfigError(
            f"the orders of {type(strategy).__name__} are judged by a gate already: give them one only"
        )
    return OrderGate(strategy, gate)


def order_gate_of(strategy: bt.Strategy | None) -> OrderGate | None:
    """Return what judges a strategy's orders; None if nothing does."""
    judge = judge_of(strategy)
    return judge if isinstance(judge, OrderGate) else None
