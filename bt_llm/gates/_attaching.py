"""What a gate is checked for, and what is attached to a strategy."""

from __future__ import annotations

from typing import Any

import backtrader as bt

from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import AlwaysOpen, AttachedGate, EntryGate, check_not_running
from bt_llm.settings import in_short

__all__ = ["attached", "attached_gates", "check_gate"]


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
    raise ConfigError(
        f"gate={in_short(gate)}: expected None or a gate, such as Gate(advisor=AdvisorConfig(...))"
    )


def attached(gate: EntryGate | None, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
    """Return a gate attached to a strategy and a data; None is an open one without a warm-up.

    Raises
    ------
    ConfigError
        If it is no gate, or the strategy is running.
    """
    if gate is None:
        return AlwaysOpen().attach(strategy, data)
    check_not_running(strategy)
    found = check_gate(gate).attach(strategy, data)
    found.warm_up_bars = gate.warm_up_bars
    return found


def attached_gates(strategy: bt.Strategy) -> list[AttachedGate]:
    """Return the gates attached to a strategy, in their order."""
    return list(strategy.__dict__.get("_bt_llm_gates", ()))
