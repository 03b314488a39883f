"""The advice gate: entries by the model's verdict on the market's state."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, get_args

import backtrader as bt

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.gates._base import AskingGate, AttachedGate, Decision, OnMissing, Require, check_attachable
from bt_llm.gates._indicator_gate import IndicatorGate
from bt_llm.indicators import LLMAdvice, value_now
from bt_llm.models import ModelManager
from bt_llm.settings import instance, number, one_of

__all__ = ["AttachedAdviceGate", "Gate"]


@dataclass(frozen=True, kw_only=True)
class Gate(IndicatorGate, AskingGate):
    """Let an entry through if the model's verdict on the bar's state supports it.

    Parameters
    ----------
    advisor : AdvisorConfig
        Which model is asked, and how.
    min_confidence : float
        Confidence, 0 to 1, that a verdict needs to count.
    require : {'agree', 'not_against'}
        'agree': the verdict must be on the entry's side, which its sign says, with enough confidence.
        'not_against': only the opposite side, with enough confidence, blocks; neutral and doubtful verdicts
        pass. How much a verdict is worth is for the strategy, which reads it from the indicator's lines.
    on_missing : {'block', 'pass'}
        What happens where there is no verdict: the bar was not asked, the answer could not be read or did
        not come in time, or the last one is older than the indicator's `max_age`.
    indicator : type
        `LLMAdvice`, or a subclass with lines, periods or a frequency of your own, such as
        ``class Hourly(LLMAdvice): params = (("min_minutes", 60),)``.
    manager : ModelManager, optional
        Whose model is asked, whatever model `advisor` names.

    Examples
    --------
    >>> from bt_llm.gates import LONG, SHORT
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend"), min_confidence=0.4)
    >>> gate.allows(LONG, verdict=1.0, confidence=0.6), gate.allows(SHORT, verdict=1.0, confidence=0.6)
    (True, False)
    >>> gate.baseline()
    AlwaysOpen(warm_up=114)
    """

    config_name: ClassVar[str] = "advisor"

    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)
    min_confidence: float = 0.0
    require: Require = "agree"
    on_missing: OnMissing = "block"
    indicator: type[LLMAdvice] = LLMAdvice
    manager: InitVar[ModelManager | None] = None

    def __post_init__(self, manager: ModelManager | None) -> None:
        """Check the choices, once."""
        instance("advisor", self.advisor, AdvisorConfig, "an AdvisorConfig")
        object.__setattr__(self, "advisor", self.advisor.asked_through(manager))
        object.__setattr__(self, "min_confidence", number("min_confidence", self.min_confidence, 0, 1))
        one_of("require", self.require, get_args(Require))
        one_of("on_missing", self.on_missing, get_args(OnMissing))
        self._check_indicator()

    def asker(self) -> Advisor:
        """Return who asks for the gate in this process."""
        return Advisor.of(self.advisor)

    def allows(self, side: int, verdict: float, confidence: float) -> bool:
        """Return whether a verdict lets an entry to a side through: the rule alone, without a strategy.

        Parameters
        ----------
        side : int
            `LONG` or `SHORT`.
        verdict, confidence : float
            As on `LLMAdvice`'s lines; a verdict of NaN is missing.
        """
        if math.isnan(verdict):
            return self.on_missing == "pass"
        counts = confidence >= self.min_confidence
        if self.require == "agree":
            return verdict * side > 0 and counts
        return not (verdict * side < 0 and counts)

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; in the strategy's ``__init__``.

        An equal `LLMAdvice` that the strategy already has on the data is used; otherwise one is made.

        Raises
        ------
        ConfigError
            If the strategy is already running.
        DataError
            If the data is no OHLC feed or is shorter than the warm-up.

        Warns
        -----
        UserWarning
            If the broker fills orders at the close that the verdict was made from (cheat on close).
        """
        check_attachable(strategy)
        data = strategy.data if data is None else data
        found = [advice for advice in strategy.getindicators() if self._made(advice, data)]
        advice = found[0] if found else self.indicator(data, advisor=self.advisor)
        return AttachedAdviceGate(strategy, advice, self)

    def _made(self, advice: Any, data: Any) -> bool:
        """Return whether an indicator is the one that this gate would make."""
        if type(advice) is not self.indicator or advice.data is not data or len(advice.datas) > 1:
            return False
        changed = [name for name in advice.p._getkeys() if name != "advisor" and advice.p.notdefault(name)]
        return not changed and advice.config == self.advisor


class AttachedAdviceGate(AttachedGate):
    """A `Gate` on one strategy and one data.

    Parameters
    ----------
    strategy : bt.Strategy
        Whose entries it judges.
    advice : LLMAdvice
        Where the verdicts are.
    gate : Gate
        The rule.
    """

    def __init__(self, strategy: bt.Strategy, advice: LLMAdvice, gate: Gate) -> None:
        super().__init__(strategy, advice.data)
        self.advice = advice
        self.gate = gate

    def decide(self, side: int) -> Decision:
        """Return the decision by the verdict on the current bar."""
        verdict, confidence = value_now(self.advice, "verdict"), value_now(self.advice, "confidence")
        allowed = self.gate.allows(side, verdict, confidence)
        return Decision(self.bar, side, allowed, verdict, confidence, math.isnan(verdict))
