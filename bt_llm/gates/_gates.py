"""Gates: what lets a strategy's entries through, or not. Exits are never asked about.

A gate is a small value in a strategy's parameters, attached in ``__init__`` and asked before each entry::

    self.gate = attach_gate(self.p.gate, self)      # in __init__
    if signal and self.gate.allows_long():          # in next
        self.buy()

A decision uses the verdict of the bar that has just closed; by Backtrader's default the order then fills at
the next bar's open. All gates share one interface, so that what the model's advice is compared with (an open
gate, a closed one, chance, a plain rule) runs in the same strategy, unchanged.
"""

from __future__ import annotations

import abc
import math
import warnings
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import backtrader as bt

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError
from bt_llm.indicators import LLMAdvice, WarmUp, value_now, warm_up_bars
from bt_llm.models import ModelManager

__all__ = [
    "LONG",
    "SHORT",
    "AlwaysOpen",
    "AttachedGate",
    "Decision",
    "Gate",
    "GateProtocol",
    "NeverOpen",
    "attach_gate",
    "attached_gates",
]

LONG, SHORT = 1, -1

Require = Literal["agree", "not_against"]
OnMissing = Literal["block", "pass"]


class Decision(NamedTuple):
    """One answer of a gate, known at the close of bar number `bar` of its data (the first bar is 1)."""

    bar: int
    side: int
    allowed: bool
    verdict: float = math.nan
    confidence: float = math.nan
    missing: bool = False


class AttachedGate(abc.ABC):
    """A gate on one strategy and one data; it keeps what it decided.

    Parameters
    ----------
    strategy : bt.Strategy
        Whose entries it judges; `attached_gates` finds it there.
    data : data feed, optional
        Whose entries it judges; by default the strategy's first.

    Attributes
    ----------
    log : list of Decision
        Every answer, in order.
    """

    def __init__(self, strategy: bt.Strategy, data: Any = None) -> None:
        self.data = strategy.data if data is None else data
        self.log: list[Decision] = []
        strategy.__dict__.setdefault("_bt_llm_gates", []).append(self)

    @abc.abstractmethod
    def decide(self, side: int) -> Decision:
        """Return the decision on an entry to `side` (`LONG` or `SHORT`) at the current bar."""

    def allows_long(self) -> bool:
        """Return whether an entry to the long side may be made at the current bar, and log it."""
        return self._ask(LONG)

    def allows_short(self) -> bool:
        """Return whether an entry to the short side may be made at the current bar, and log it."""
        return self._ask(SHORT)

    def _ask(self, side: int) -> bool:
        self.log.append(self.decide(side))
        return self.log[-1].allowed

    @property
    def allowed(self) -> int:
        """Number of entries let through."""
        return sum(decision.allowed for decision in self.log)

    @property
    def blocked(self) -> int:
        """Number of entries held back."""
        return len(self.log) - self.allowed

    @property
    def missing(self) -> int:
        """Number of entries, allowed or blocked, for which there was no verdict."""
        return sum(decision.missing for decision in self.log)


@runtime_checkable
class GateProtocol(Protocol):
    """What a gate is: a value in a strategy's parameters that can be attached to the strategy.

    Make it small, immutable and picklable: every process of an optimisation gets a copy.
    """

    @property
    def warm_up_bars(self) -> int:
        """Bars of its data that the gate needs before its first answer, that bar included."""
        ...

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; called in the strategy's ``__init__``, where its indicators are made."""
        ...

    def baseline(self) -> AlwaysOpen:
        """Return the open gate with the same warm-up, to compare with.

        A gate delays a strategy's first bar by its warm-up. Run without that delay, a strategy trades over
        other bars, and the difference is not the gate's alone.
        """
        return AlwaysOpen(warm_up=self.warm_up_bars)


@dataclass(frozen=True, kw_only=True)
class _FixedGate(GateProtocol):
    """A gate that always answers the same.

    Parameters
    ----------
    warm_up : int
        Bars that the strategy waits for, as it would for another gate's indicator.
    """

    warm_up: int = 0

    def __post_init__(self) -> None:
        """Check the warm-up, once."""
        if type(self.warm_up) is not int or self.warm_up < 0:
            raise ConfigError(f"warm_up={self.warm_up!r}: expected a whole number of bars, 0 or more")

    @property
    def warm_up_bars(self) -> int:
        """As given."""
        return self.warm_up

    def _attach(self, strategy: bt.Strategy, data: Any, allowed: bool) -> AttachedGate:
        gate = _AttachedFixedGate(strategy, data, allowed)
        if self.warm_up > 1:
            WarmUp(gate.data, bars=self.warm_up)  # type: ignore[call-arg]
        return gate


class AlwaysOpen(_FixedGate):
    """Let every entry through and ask no model: the strategy as it is without a gate.

    Parameters
    ----------
    warm_up : int
        Bars that the strategy waits for, as it would for another gate's indicator; see `Gate.baseline`.
    """

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; with a warm-up, the strategy's first ``next`` waits for it."""
        return self._attach(strategy, data, allowed=True)


class NeverOpen(_FixedGate):
    """Hold every entry back.

    Parameters
    ----------
    warm_up : int
        Bars that the strategy waits for, as it would for another gate's indicator.
    """

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; with a warm-up, the strategy's first ``next`` waits for it."""
        return self._attach(strategy, data, allowed=False)


class _AttachedFixedGate(AttachedGate):
    def __init__(self, strategy: bt.Strategy, data: Any, allowed: bool) -> None:
        super().__init__(strategy, data)
        self._allowed = allowed

    def decide(self, side: int) -> Decision:
        return Decision(len(self.data), side, self._allowed)


@dataclass(frozen=True, kw_only=True)
class Gate(GateProtocol):
    """Let an entry through if the model's verdict on the bar's state supports it.

    Parameters
    ----------
    advisor : AdvisorConfig
        Which model is asked, and how.
    manager : ModelManager, optional
        Whose model is asked instead; it is kept in `advisor`.
    min_confidence : float
        Confidence, 0 to 1, that a verdict needs to count.
    require : {'agree', 'not_against'}
        'agree': the verdict must be the entry's side, with enough confidence. 'not_against': only the
        opposite side, with enough confidence, blocks; neutral and doubtful verdicts pass.
    on_missing : {'block', 'pass'}
        What happens where there is no verdict: the bar was not asked, the answer could not be read or did
        not come in time, or the last one is older than the indicator's `max_age`.
    indicator : type
        `LLMAdvice`, or a subclass with lines, periods or a frequency of your own, such as
        ``class Hourly(LLMAdvice): params = (("min_minutes", 60),)``.

    Examples
    --------
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend"), min_confidence=0.4)
    >>> gate.allows(LONG, verdict=1.0, confidence=0.6), gate.allows(SHORT, verdict=1.0, confidence=0.6)
    (True, False)
    >>> gate.baseline()
    AlwaysOpen(warm_up=114)
    """

    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)
    min_confidence: float = 0.0
    require: Require = "agree"
    on_missing: OnMissing = "block"
    indicator: type[LLMAdvice] = LLMAdvice
    manager: InitVar[ModelManager | None] = None

    def __post_init__(self, manager: ModelManager | None) -> None:
        """Check the choices, once."""
        if not isinstance(self.advisor, AdvisorConfig):
            raise ConfigError(
                f"advisor={self.advisor!r}: expected an AdvisorConfig, such as AdvisorConfig(model='smollm2')"
            )
        object.__setattr__(self, "advisor", self.advisor.asked_through(manager))
        if type(self.min_confidence) not in (int, float) or not 0.0 <= self.min_confidence <= 1.0:
            raise ConfigError(f"min_confidence={self.min_confidence!r}: expected a number from 0 to 1")
        for name, choices in (("require", get_args(Require)), ("on_missing", get_args(OnMissing))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {list(choices)}")
        if not (isinstance(self.indicator, type) and issubclass(self.indicator, LLMAdvice)):
            raise ConfigError(f"indicator={self.indicator!r}: expected LLMAdvice or a subclass of it")

    @property
    def warm_up_bars(self) -> int:
        """Bars until the first advice, that bar included; known without data or a model."""
        return warm_up_bars(self.indicator, advisor=self.advisor)

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
            return verdict == side and counts
        return not (verdict == -side and counts)

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
        _check_attachable(strategy)
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
        return Decision(len(self.data), side, allowed, verdict, confidence, math.isnan(verdict))


def attach_gate(gate: GateProtocol | None, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
    """Attach a gate to a strategy, in its ``__init__``.

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
    # By its type: isinstance would evaluate warm_up_bars, which builds the indicator once more.
    if not callable(getattr(type(gate), "attach", None)):
        raise ConfigError(f"gate={gate!r}: expected None or a gate, such as Gate(advisor=AdvisorConfig(...))")
    return gate.attach(strategy, data)


def attached_gates(strategy: bt.Strategy) -> list[AttachedGate]:
    """Return the gates attached to a strategy, in their order."""
    return list(strategy.__dict__.get("_bt_llm_gates", ()))


def _check_attachable(strategy: bt.Strategy) -> None:
    if "_minperiods" in strategy.__dict__:
        raise ConfigError(
            f"{type(strategy).__name__} is already running: attach gates in its __init__, with its indicators"
        )
    if getattr(getattr(strategy.broker, "p", None), "coc", False):
        warnings.warn(
            "the broker cheats on close: orders fill at the very close that the verdict was made from; "
            "call broker.set_coc(False) for fills at the next open",
            stacklevel=4,
        )
