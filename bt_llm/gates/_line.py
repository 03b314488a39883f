"""A gate in one line of the strategy, asked before each entry, never about an exit.

It goes like this::

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

from bt_llm.gates._attaching import attached
from bt_llm.gates._base import AttachedGate, Decision, EntryGate
from bt_llm.gates._judging import OrderJudge, Wanted, asset_of, judge_of, watch_fills

__all__ = ["attach_gate"]


def attach_gate(gate: EntryGate | None, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
    """Attach a gate to a strategy, in its ``__init__``, to ask it before each entry.

    A veto never holds an exit. Where the strategy holds the other side, or has sent an order at market that
    will, ``allows_long()`` and ``allows_short()`` say yes after a veto too, and the order that follows is cut
    to its exit; one that would only add exposure is rejected. The log has the veto. `gated` judges a
    strategy's orders without a change to it; see there which of the two to use.

    Parameters
    ----------
    gate : gate or None
        None lets every entry through, asks no model, makes no indicator and adds no warm-up: the strategy
        as it is. To compare with a gate over the same bars, use ``gate.baseline()`` instead.
    strategy : bt.Strategy
        Whose entries it judges.
    data : data feed, optional
        Whose entries it judges; by default the strategy's first. One gate can be attached to several.

    Notes
    -----
    With a broker that is not Backtrader's simulated one, orders cannot be cut: a veto is a veto, and the
    strategy closes first, then asks.

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
    found = attached(gate, strategy, data)
    if gate is not None and isinstance(strategy.broker, bt.brokers.BackBroker):
        judge = judge_of(strategy) or _ExitsPass(strategy)
        if isinstance(judge, _ExitsPass):
            found.lets_send = judge.lets_send
    return found


class _ExitsPass(OrderJudge):
    """Cuts an order that follows a veto to its exit; sends all others as they are.

    What follows a veto is known by data and side until the end of the bar, and for other datas, which may be
    the other legs of the same decision, until the strategy asks again.
    """

    def __init__(self, strategy: bt.Strategy) -> None:
        super().__init__(strategy)
        self._vetoes: dict[tuple[Any, int], tuple[float, Decision]] = {}
        self._last: tuple[Any, float, Decision] | None = None

    def lets_send(self, data: Any, decision: Decision) -> bool:
        """Return whether an order may be sent: the decision allows it, or it may take off what is held."""
        self._last = None
        if decision.allowed:
            return True
        asset = asset_of(data)
        if -decision.side * self.exposure(asset) <= 0:
            return False
        watch_fills(self.strategy.broker)
        time = asset.datetime[0]
        self._vetoes[asset, decision.side] = time, decision
        self._last = asset, time, decision
        return True

    def _veto(self, wanted: Wanted) -> Decision | None:
        time, decision = self._vetoes.get((wanted.asset, wanted.side), (None, None))
        if decision is not None and time == wanted.asset.datetime[0]:
            return decision
        if self._last is None:
            return None
        asset, time, decision = self._last
        return decision if asset is not wanted.asset and time == asset.datetime[0] else None

    def _ask(self, wanted: Wanted, off: float, follows: float, adds: float) -> Any:
        if follows or self._veto(wanted) is not None:
            return super()._ask(wanted, off, follows, adds)
        return self._send(wanted, wanted.size)

    def _decide(self, wanted: Wanted) -> tuple[Decision, float]:
        vetoed = self._veto(wanted)
        return (Decision(0, wanted.side, True), 1.0) if vetoed is None else (vetoed, 0.0)

    def _decide_at_fill(self, wanted: Wanted) -> tuple[Decision, float]:
        return Decision(0, wanted.side, False), 0.0

    def _may_fill(self, order: Any) -> bool:
        return order.ref not in self._cut

    def _note(self, order: Any, wanted: Wanted, passed: float, decision: Decision | None) -> None:
        """Keep nothing: the gate has logged its answer."""
