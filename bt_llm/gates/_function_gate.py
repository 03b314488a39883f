"""FunctionGate: entries by a function of the market state, such as a policy written out as a rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import backtrader as bt

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import AttachedGate, Decision, EntryGate, OnMissing, Require
from bt_llm.indicators import LLMAdvice, value_now, warm_up_bars

__all__ = ["FunctionGate"]


@dataclass(frozen=True, kw_only=True)
class FunctionGate(EntryGate):
    """Let an entry through if a function of the bar's market state supports it; no model is asked.

    Parameters
    ----------
    function : callable
        Called with the features by their names; returns what the verdict is worth: above 0 for the long side,
        below 0 for the short one, NaN for none. It depends on nothing else, and stands in a module or a file;
        see `bt_llm.backtest.load_function`.
    require, on_missing
        As of `Gate`.
    indicator : type
        Computes the features as it does for a model, and is never asked.
    advisor : AdvisorConfig
        Has the state space, whose features the function gets.

    Examples
    --------
    >>> def with_the_trend(trend, rsi, volatility):
    ...     return 1.0 if trend > 0.04 else -1.0 if trend < -0.04 else 0.0
    >>> gate = FunctionGate(function=with_the_trend)
    >>> gate.allows(1, 1.0), gate.allows(-1, 1.0), gate.allows(1, float("nan")), gate.warm_up_bars
    (True, False, False, 114)
    """

    function: Callable[..., float]
    require: Require = "agree"
    on_missing: OnMissing = "block"
    indicator: type[LLMAdvice] = LLMAdvice
    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)

    def __post_init__(self) -> None:
        """Check the choices, once."""
        if not callable(self.function):
            raise ConfigError(f"function={self.function!r:.60}: expected a function of the features")
        for name, choices in (("require", get_args(Require)), ("on_missing", get_args(OnMissing))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {list(choices)}")
        if not (isinstance(self.indicator, type) and issubclass(self.indicator, LLMAdvice)):
            raise ConfigError(f"indicator={self.indicator!r}: expected LLMAdvice or a subclass of it")

    @property
    def warm_up_bars(self) -> int:
        """Bars until the features are known, that bar included."""
        return warm_up_bars(self.indicator, advisor=self.advisor)

    def allows(self, side: int, worth: float) -> bool:
        """Return whether a verdict of that worth lets an entry to a side through."""
        if math.isnan(worth):
            return self.on_missing == "pass"
        return worth * side > 0 if self.require == "agree" else worth * side >= 0

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; in the strategy's ``__init__``."""
        data = strategy.data if data is None else data
        never = data.close - data.close  # a trigger that never fires: features, and no question
        return _AttachedFunction(strategy, self.indicator(data, never, advisor=self.advisor), self)


class _AttachedFunction(AttachedGate):
    """A `FunctionGate` on one strategy and one data."""

    def __init__(self, strategy: bt.Strategy, features: LLMAdvice, gate: FunctionGate) -> None:
        super().__init__(strategy, features.data)
        self.features = features
        self.gate = gate

    def decide(self, side: int) -> Decision:
        """Return the decision by the features of the current bar."""
        names = self.gate.advisor.state_space.names
        state = {name: value_now(self.features, name) for name in names}
        try:
            worth = float(self.gate.function(**state))
        except Exception as error:
            raise ConfigError(
                f"rule {getattr(self.gate.function, '__name__', '?')!r} of {state}: "
                f"{type(error).__name__}: {error}; expected a function of {', '.join(names)}"
            ) from error
        return Decision(self.bar, side, self.gate.allows(side, worth), worth, math.nan, math.isnan(worth))
