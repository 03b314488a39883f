"""StateGate: entries in some market states and not in others, whatever a model would say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import LONG, SHORT, Decision
from bt_llm.gates._indicator_gate import FeatureGate
from bt_llm.indicators import LLMAdvice
from bt_llm.settings import several

__all__ = ["StateGate"]


@dataclass(frozen=True, kw_only=True)
class StateGate(FeatureGate):
    """Let an entry through in some market states; no model is asked.

    Like a model's gate it answers alike in all bars, and all symbols, that are in the same state. With states
    that are drawn it knows nothing, and stands in for a model that has not been asked.

    Parameters
    ----------
    states : frozenset of (int, int), optional
        Sides, `LONG` or `SHORT`, with the cells of the state space in which entries to them pass; by default
        all pass. Where a feature is not known, entries are blocked.
    indicator : type
        Computes the features as it does for a model, and is never asked.
    advisor : AdvisorConfig
        Has the state space.

    Raises
    ------
    ConfigError
        If a state is none of the space.

    Notes
    -----
    The ``verdict`` of its decisions is the number of the cell; NaN where a feature is not known.

    Examples
    --------
    >>> from bt_llm.gates import LONG, SHORT
    >>> gate = StateGate(states=frozenset({(LONG, 59)}))
    >>> rising = {"volatility": 1.0, "rsi": 60.0, "trend": 0.2}
    >>> gate.decision(1, LONG, rising).allowed, gate.decision(1, SHORT, rising).allowed
    (True, False)
    """

    states: frozenset[tuple[int, int]] | None = None
    indicator: type[LLMAdvice] = LLMAdvice
    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)

    def __post_init__(self) -> None:
        """Check the choices, once."""
        self._check_indicator()
        if self.states is None:
            return
        states = several("states", self.states, "sides with cells")
        cells = len(self.advisor.state_space)
        for one in states:
            pair = one if isinstance(one, tuple) and len(one) == 2 else (0, 0)
            if pair[0] not in (LONG, SHORT) or type(pair[1]) is not int or not 0 <= pair[1] < cells:
                raise ConfigError(
                    f"states={one!r:.60}: expected a side, {LONG} or {SHORT}, with a cell, 0 to {cells - 1}"
                )
        object.__setattr__(self, "states", frozenset(states))

    @property
    def feature_names(self) -> Sequence[str]:
        """Those of the state space."""
        return self.advisor.state_space.names

    def decision(self, bar: int, side: int, features: Mapping[str, float]) -> Decision:
        """Return the decision by the state that the features are in."""
        cell = self.advisor.state_space.cell(features)
        if cell < 0:
            return Decision(bar, side, False, math.nan, missing=True)
        return Decision(bar, side, self.states is None or (side, cell) in self.states, float(cell))
