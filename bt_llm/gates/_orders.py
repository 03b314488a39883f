"""The order gate: what an order adds to exposure is asked about; what it takes off passes.

Only exposure tells an entry from an exit: a reversal may be one order of twice the size, a target, or a close
and an entry. So each order is split, by the position of its data and the orders at market that are on their
way, before it goes to the broker:

====================================================  =======================================================
what a part of an order does                          what becomes of it
====================================================  =======================================================
takes off what is held, or what an entry that waits   passes
for its price may bring
would only take off an entry vetoed on the same bar   goes with that entry
is a child's (``parent=``, brackets)                  follows its parent
adds exposure                                         asks the data's gate, by its side
====================================================  =======================================================

The gate answers by the close at which the order was sent, for orders that wait (stop, limit, trailing) too.
One that was sent to take off exposure, and would add it since the position has gone, asks right before it
fills, by the close before that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import backtrader as bt

from bt_llm.exceptions import ConfigError
from bt_llm.feeds import data_name
from bt_llm.gates._attaching import attached
from bt_llm.gates._base import AttachedGate, Decision, EntryGate
from bt_llm.gates._judging import OrderJudge, Wanted, watch_fills

__all__ = ["JudgedOrder", "OrderGate"]


class JudgedOrder(NamedTuple):
    """What the order gate made of an order that would add exposure.

    Attributes
    ----------
    ref : int
        The order's number in Backtrader.
    data : str
        Name of its data.
    bar : int
        Number of the data's bar by whose close it was judged; the first is 1.
    side : int
        `LONG` or `SHORT`.
    size, let_in : float
        Size that the strategy sent, and what of it passed, both positive. Less is a reversal cut to its exit,
        or an entry that the gate reduced; 0 is a veto.
    allowed : bool
        Whether exposure was let in.
    reason : str
        'allowed'; 'vetoed'; 'warm-up': that of the gate is not over; 'follows': it went with a vetoed entry
        and was not asked about.
    missing : bool
        Whether the gate had no verdict.
    """

    ref: int
    data: str
    bar: int
    side: int
    size: float
    let_in: float
    allowed: bool
    reason: str
    missing: bool = False

    @property
    def early(self) -> bool:
        """Whether it came before the gate's warm-up was over."""
        return self.reason == "warm-up"


class OrderGate(OrderJudge):
    """Judges the orders of one strategy; `gated` gives a strategy one.

    Parameters
    ----------
    strategy : bt.Strategy
        In its ``__init__``, where its indicators are made.
    gate : gate
        Attached to each data. A resampled copy of another data asks that one's.

    Attributes
    ----------
    log : list of JudgedOrder
        Every order that would have added exposure, as they were judged.

    Raises
    ------
    ConfigError
        If the broker is not Backtrader's simulated one.
    """

    def __init__(self, strategy: bt.Strategy, gate: EntryGate) -> None:
        if not isinstance(strategy.broker, bt.brokers.BackBroker):
            raise ConfigError(
                f"broker {type(strategy.broker).__name__}: orders are judged with Backtrader's simulated "
                f"broker only; with another, ask the gate before each entry (attach_gate)"
            )
        super().__init__(strategy)
        self.log: list[JudgedOrder] = []
        self._gates: dict[Any, AttachedGate] = {}
        for data in strategy.datas:
            source = data.data if isinstance(data, bt.feed.DataClone) else None
            self._gates[data] = self._gates.get(source) or attached(gate, strategy, data)
        watch_fills(strategy.broker)

    def _decide(self, wanted: Wanted) -> tuple[Decision, float]:
        gate = self._gates[wanted.asset]
        decision = gate.ask(wanted.side)
        return decision, gate.fraction if decision.allowed else 0.0

    def _note(self, order: Any, wanted: Wanted, passed: float, decision: Decision | None) -> None:
        if decision is None:
            bar, allowed, reason, missing = self._gates[wanted.asset].bar, False, "follows", False
        else:
            bar, allowed, missing = decision.bar, decision.allowed, decision.missing
            reason = "allowed" if allowed else "warm-up" if decision.early else "vetoed"
        name, size = data_name(wanted.data), wanted.size
        self.log.append(
            JudgedOrder(order.ref, name, bar, wanted.side, size, passed, allowed, reason, missing)
        )
