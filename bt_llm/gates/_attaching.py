"""A gate attached to a strategy, in its ``__init__``.

It is asked before each entry; exits are never asked about::

    self.gate = attach_gate(self.p.gate, self)      # in __init__
    if signal and self.gate.allows_long():          # in next
        self.buy()

A decision uses the verdict of the bar that has just closed; by Backtrader's default the order then fills at
the next bar's open. All gates share one base, so that what the model's advice is compared with (an open
gate, a closed one, chance, a plain rule) runs in the same strategy, unchanged.
"""

from __future__ import annotations

from typing import Any

import backtrader as bt

from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import AlwaysOpen, AttachedGate, EntryGate

__all__ = ["attach_gate", "attached_gates", "check_gate"]


def check_gate(gate: object) -> EntryGate:
    """Return a gate.

    Raises
    ------
    ConfigError
        If it is none; if it looks like one, the message says what it lacks.
    """
    if isinstance(gate, EntryGate):
        return gate
    if not isinstance(gate, type) and callable(getattr(gate, "attach", None)):
        has = {*dir(type(gate)), *getattr(gate, "__dict__", ())}  # named, not evaluated
        lacking = [name for name in ("warm_up_bars", "baseline", "describe") if name not in has]
        lacks = f" and lacks {', '.join(lacking)}" if lacking else ""
        raise ConfigError(
            f"gate of type {type(gate).__name__} is no EntryGate{lacks}: derive the class from "
            "bt_llm.gates.EntryGate"
        )
    raise ConfigError(f"gate={gate!r:.80}: expected None or a gate, such as Gate(advisor=AdvisorConfig(...))")


def attach_gate(gate: EntryGate | None, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
    """Attach a gate to a strategy, in its ``__init__``, to ask it before each entry.

    A veto is not to hold an exit: in a reversal, close first, then ask. `gated` judges a strategy's orders
    without a change to it, those that reverse too; see there which of the two to use.

    Parameters
    ----------
    gate : gate or None
        None lets every entry through, asks no model, makes no indicator and adds no warm-up: the strategy
        as it is. To compare with a gate over the same bars, use ``gate.baseline()`` instead.
    strategy : bt.Strategy
        Whose entries it judges.
    data : data feed, optional
        Whose entries it judges; by default the strategy's first. One gate can be attached to several.

    Examples
    --------
    >>> class Strategy(bt.Strategy):
    ...     params = (("gate", None),)
    ...     def __init__(self):
    ...         self.gate = attach_gate(self.p.gate, self)
    ...     def next(self):
    ...         if not self.position and self.gate.allows_long():
    ...             self.buy()
    """
    if gate is None:
        return AlwaysOpen().attach(strategy, data)
    attached = check_gate(gate).attach(strategy, data)
    attached.warm_up_bars = gate.warm_up_bars
    return attached


def attached_gates(strategy: bt.Strategy) -> list[AttachedGate]:
    """Return the gates attached to a strategy, in their order."""
    return list(strategy.__dict__.get("_bt_llm_gates", ()))
