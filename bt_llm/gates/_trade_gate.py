"""TradeAdviceGate: a model's advice on each trade that a strategy wants to make."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, get_args

import backtrader as bt

from bt_llm.advice import AnalystConfig, AnalystUsage, TradeAdvice, TradeAnalyst
from bt_llm.advice import Decision as TradeDecision
from bt_llm.exceptions import ConfigError
from bt_llm.gates._base import AskingGate, AttachedGate, Decision, OnMissing, Questions, check_attachable
from bt_llm.indicators import MarketStateLines, value_now, warm_up_bars
from bt_llm.settings import instance, number, one_of
from bt_llm.verdicts import TREND, StateSpace

__all__ = ["AttachedTradeGate", "TradeAdviceGate"]

_NAMES = ("trend", "rsi", "volatility")
_STRENGTHS = {2: "strong", 1: "moderate"}  # by how many buckets the trend is on the trade's side of flat


@dataclass(frozen=True, kw_only=True)
class TradeAdviceGate(AskingGate):
    """Ask a model whether to take a trade, only when the strategy's own signal fires.

    What the model sees is the side, the buckets of trend, RSI and volatility, and how strongly the trend
    is on the trade's side: with the default state space, at most 210 different prompts whatever the data.

    Parameters
    ----------
    analyst : AnalystConfig
        Who answers.
    state_space : StateSpace
        Buckets of the indicators; features out of trend, rsi and volatility.
    symbol : str
        What the prompt calls the market. The default keeps what a model remembers of it out.
    reduced : float
        Share of the usual size for trades that the model would reduce, 0 to 1; 0 skips them.
    on_missing : {'block', 'pass'}
        What happens where there is no advice: an indicator is not finite, or the answer cannot be read.

    Raises
    ------
    ConfigError
        If a setting is out of its range.

    Examples
    --------
    >>> gate = TradeAdviceGate(analyst=AnalystConfig(model="smollm2"), reduced=0.5)
    >>> gate.signal(1, {"trend": 0.2, "rsi": 60.0, "volatility": 1.0})["indicators"]
    {'Volatility': 'normal', 'RSI': '55 to 70', 'Trend': 'strong up'}
    """

    config_name: ClassVar[str] = "analyst"

    analyst: AnalystConfig = field(default_factory=AnalystConfig)
    state_space: StateSpace = field(default_factory=StateSpace)
    symbol: str = "the market"
    reduced: float = 0.5
    on_missing: OnMissing = "block"

    def __post_init__(self) -> None:
        """Check the choices, once."""
        instance("analyst", self.analyst, AnalystConfig, "an AnalystConfig")
        instance("state_space", self.state_space, StateSpace, "a StateSpace")
        instance("symbol", self.symbol, str, "a text, such as 'the market'")
        if unknown := sorted(set(self.state_space.names) - set(_NAMES)):
            raise ConfigError(f"state space has {unknown}: expected features out of {list(_NAMES)}")
        object.__setattr__(self, "reduced", number("reduced", self.reduced, 0, 1))
        one_of("on_missing", self.on_missing, get_args(OnMissing))

    @property
    def warm_up_bars(self) -> int:
        """Bars until the first state, that bar included."""
        return warm_up_bars(MarketStateLines)

    def without_rule(self) -> TradeAdviceGate:
        """Return a gate that asks about the same trades."""
        return replace(self, reduced=0.0, on_missing="block")

    def asker(self) -> TradeAnalyst:
        """Return who asks for the gate in this process."""
        return TradeAnalyst(self.analyst)

    def signal(self, side: int, state: dict[str, float]) -> dict[str, Any] | None:
        """Return what the model is told of a trade, or None if a number of the state is not finite.

        Parameters
        ----------
        side : int
            1 for long, -1 for short.
        state : dict
            trend, rsi and volatility at the signal's bar.
        """
        cell = self.state_space.cell(state)
        if cell < 0 or not math.isfinite(state["trend"]):
            return None
        titles, labels = self.state_space.titles(), self.state_space.describe(cell)
        pull = side * (TREND.bucket(state["trend"]) - len(TREND.labels) // 2)
        return {
            "symbol": self.symbol,
            "direction": "long" if side > 0 else "short",
            "strength": _STRENGTHS.get(pull, "weak"),
            "indicators": {titles[name]: label for name, label in labels.items()},
        }

    def fraction(self, advice: TradeAdvice | None) -> float:
        """Return the share of the usual size that an advice allows, 0 to 1."""
        if advice is None or not advice.valid:
            return 1.0 if self.on_missing == "pass" else 0.0
        shares = {TradeDecision.TAKE: 1.0, TradeDecision.REDUCE: self.reduced}
        return shares.get(advice.decision, 0.0)

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedTradeGate:
        """Attach the gate; in the strategy's ``__init__``."""
        check_attachable(strategy)
        return AttachedTradeGate(strategy, strategy.data if data is None else data, self)


class AttachedTradeGate(AttachedGate):
    """A `TradeAdviceGate` on one strategy and one data.

    Parameters
    ----------
    strategy : bt.Strategy
        Whose entries it judges.
    data : data feed
        Whose bars the indicators are of.
    gate : TradeAdviceGate
        The rule.

    Attributes
    ----------
    advice : TradeAdvice or None
        The advice on the entry asked about last; None if there was none.
    fraction : float
        Share of the usual size for that entry: 1 for take, `reduced` for reduce, 0 for skip::

            if signal and self.gate.allows_long():
                self.buy(size=self.p.stake * self.gate.fraction)
    """

    def __init__(self, strategy: bt.Strategy, data: Any, gate: TradeAdviceGate) -> None:
        super().__init__(strategy, data)
        self.gate = gate
        self.advice: TradeAdvice | None = None
        self.fraction = 0.0
        self._states = MarketStateLines(data)  # type: ignore[call-arg]
        self._known: dict[tuple[Any, ...], TradeAdvice] = {}
        self._usage = AnalystUsage()
        self._untold = 0  # entries about which the model could be told nothing
        self._analyst: TradeAnalyst | None = None

    @property
    def asker(self) -> TradeAnalyst | None:
        """Who has been asked; None before."""
        return self._analyst

    @property
    def analyst(self) -> TradeAnalyst:
        """Who is asked; made when first needed."""
        if self._analyst is None:
            self._analyst = self.gate.asker()
        return self._analyst

    def questions(self) -> Questions:
        """Return what was asked about trades so far."""
        answers = self._known.values()
        return Questions.of(
            self._usage,
            asked=len(answers),
            answers=sum(advice.valid for advice in answers),
            invalid=sum(not advice.valid for advice in answers),
            missing=self._untold,
        )

    def decide(self, side: int) -> Decision:
        """Return the decision on an entry at the current bar, asking if this trade is a new one.

        The decision's ``verdict`` is the entry's side if the trade is to be taken, and 0 if not; its
        ``confidence`` is the share of the usual size.
        """
        state = {name: value_now(self._states, name) for name in _NAMES}
        signal = self.gate.signal(side, state)
        self._untold += signal is None
        self.advice = None if signal is None else self._advice(signal)
        self.fraction = self.gate.fraction(self.advice)
        missing = self.advice is None or not self.advice.valid
        verdict = math.nan if missing else side * float(self.fraction > 0)
        return Decision(self.bar, side, self.fraction > 0, verdict, self.fraction, missing)

    def _advice(self, signal: dict[str, Any]) -> TradeAdvice:
        key = (signal["direction"], signal["strength"], *signal["indicators"].values())
        if key not in self._known:
            (self._known[key],) = self.analyst.analyze_many([signal], self._usage)
        return self._known[key]
