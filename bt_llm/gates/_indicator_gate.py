"""What gates share that read an `LLMAdvice`, whether its model is asked or not."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import backtrader as bt

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import AttachedGate, Decision, EntryGate, check_attachable
from bt_llm.indicators import LLMAdvice, value_now, warm_up_bars
from bt_llm.settings import instance

__all__ = ["FeatureGate", "IndicatorGate"]


class IndicatorGate(EntryGate):
    """A gate with an indicator of its own; a subclass has the fields `indicator` and `advisor`."""

    indicator: type[LLMAdvice]
    advisor: AdvisorConfig

    @property
    def warm_up_bars(self) -> int:
        """Bars until the indicator's first values, that bar included; known without data or a model."""
        return warm_up_bars(self.indicator, advisor=self.advisor)

    def _check_indicator(self) -> None:
        instance("advisor", self.advisor, AdvisorConfig, "an AdvisorConfig")
        if not (isinstance(self.indicator, type) and issubclass(self.indicator, LLMAdvice)):
            raise ConfigError(f"indicator={self.indicator!r}: expected LLMAdvice or a subclass of it")


class FeatureGate(IndicatorGate):
    """A gate that decides by the features that a model would be told, and asks none."""

    @property
    @abc.abstractmethod
    def feature_names(self) -> Sequence[str]:
        """Names of the features that it decides by."""

    @abc.abstractmethod
    def decision(self, bar: int, side: int, features: Mapping[str, float]) -> Decision:
        """Return the decision on an entry at a bar, by the features of `feature_names`."""

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; in the strategy's ``__init__``."""
        check_attachable(strategy)
        data = strategy.data if data is None else data
        never = data.close - data.close  # a trigger that never fires: features, and no question
        return _AttachedFeatures(strategy, self.indicator(data, never, advisor=self.advisor), self)


class _AttachedFeatures(AttachedGate):
    """A `FeatureGate` on one strategy and one data."""

    def __init__(self, strategy: bt.Strategy, features: LLMAdvice, gate: FeatureGate) -> None:
        super().__init__(strategy, features.data)
        self.features = features
        self.gate = gate

    def decide(self, side: int) -> Decision:
        """Return the decision by the features of the current bar."""
        known = {name: value_now(self.features, name) for name in self.gate.feature_names}
        return self.gate.decision(self.bar, side, known)
