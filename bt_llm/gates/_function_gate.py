"""FunctionGate: entries by a function of the market state, such as a policy written out as a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import Decision, OnMissing, Require
from bt_llm.gates._indicator_gate import FeatureGate
from bt_llm.indicators import LLMAdvice
from bt_llm.settings import in_short, one_of

__all__ = ["FunctionGate"]


@dataclass(frozen=True, kw_only=True)
class FunctionGate(FeatureGate):
    """Let an entry through if a function of the bar's market state supports it; no model is asked.

    Parameters
    ----------
    function : callable
        Called with the features by their names; returns what the verdict is worth: above 0 for the long side,
        below 0 for the short one, NaN for none. It depends on nothing else, and stands in a module or a file;
        see `bt_llm.backtest.load_function`. Where a feature is not finite it is not called, as no model is
        asked there: there is no verdict.
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
            raise ConfigError(f"function={in_short(self.function)}: expected a function of the features")
        one_of("require", self.require, get_args(Require))
        one_of("on_missing", self.on_missing, get_args(OnMissing))
        self._check_indicator()

    @property
    def feature_names(self) -> Sequence[str]:
        """Those of the state space."""
        return self.advisor.state_space.names

    def allows(self, side: int, worth: float) -> bool:
        """Return whether a verdict of that worth lets an entry to a side through."""
        if math.isnan(worth):
            return self.on_missing == "pass"
        return worth * side > 0 if self.require == "agree" else worth * side >= 0

    def decision(self, bar: int, side: int, features: Mapping[str, float]) -> Decision:
        """Return the decision by what the function makes of the features."""
        known = all(map(math.isfinite, features.values()))
        try:
            worth = float(self.function(**features)) if known else math.nan
        except Exception as error:
            raise ConfigError(
                f"rule {getattr(self.function, '__name__', '?')!r} of {features}: "
                f"{type(error).__name__}: {error}; expected a function of {', '.join(features)}"
            ) from error
        return Decision(bar, side, self.allows(side, worth), worth, math.nan, math.isnan(worth))
