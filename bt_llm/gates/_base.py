"""What a gate is: a small value in a strategy's parameters, and what it becomes when it is attached."""

from __future__ import annotations

import abc
import dataclasses
import math
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm.advice import AdvisorConfig, AnalystConfig, AnalystUsage
from bt_llm.exceptions import ConfigError
from bt_llm.gates._description import Asker, Described, Describer
from bt_llm.indicators import WarmUp, closed_bars
from bt_llm.settings import whole

__all__ = [
    "LONG",
    "SHORT",
    "AlwaysOpen",
    "AskingGate",
    "AttachedGate",
    "Decision",
    "EntryGate",
    "NeverOpen",
    "OnMissing",
    "Questions",
    "Require",
    "check_attachable",
    "check_not_running",
    "wait_for",
]

LONG, SHORT = 1, -1

Require = Literal["agree", "not_against"]
OnMissing = Literal["block", "pass"]


class Decision(NamedTuple):
    """One answer of a gate, known at the close of bar number `bar` of its data (the first bar is 1).

    An `early` one is given before the gate's warm-up is over: always no, and no entry.
    """

    bar: int
    side: int
    allowed: bool
    verdict: float = math.nan
    confidence: float = math.nan
    missing: bool = False
    early: bool = False


@dataclass(slots=True)
class Questions:
    """What a gate asked an analyst in a run, and what came of it.

    Attributes
    ----------
    asked : int
        Distinct questions.
    answers : int
        Of these, answers that could be read.
    invalid : int
        Of these, answers that could not.
    missing : int
        Bars or entries about which nothing could be asked, such as before an indicator is finite.
    cache_hits, model_calls : int
        Distinct questions answered from the cache, and by the model.
    model_seconds : float
        Wall time inside the model.
    tokens : int
        Tokens decoded, shared prefixes not counted.
    """

    asked: int = 0
    answers: int = 0
    invalid: int = 0
    missing: int = 0
    cache_hits: int = 0
    model_calls: int = 0
    model_seconds: float = 0.0
    tokens: int = 0

    @classmethod
    def of(cls, usage: AnalystUsage, **counts: int) -> Questions:
        """Return counts of questions and answers, with what answering cost."""
        costs = ("cache_hits", "model_calls", "model_seconds", "tokens")
        return cls(**counts, **{name: getattr(usage, name) for name in costs})

    def __add__(self, other: Questions) -> Questions:
        """Return the sum, field by field."""
        return Questions(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)))


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
        Every answer, in order; early ones are only counted.
    early : int
        Number of times it was asked before its warm-up was over. The answer is no, whatever the gate, so that
        a strategy that trades from timers or ``prenext`` starts on the same bar with every gate.
    warm_up_bars : int
        Bars of its data until its first answer, that bar included.
    fraction : float
        Share of an entry's size that the last answer lets in, if it lets it in.
    lets_send : callable or None
        Told of a decision, it says whether an order may be sent, if only to take off what is held; see
        `attach_gate`. None where orders cannot be cut to that.
    """

    warm_up_bars: int = 0
    fraction: float = 1.0

    def __init__(self, strategy: bt.Strategy, data: Any = None) -> None:
        self.strategy = strategy
        self.data = strategy.data if data is None else data
        self.log: list[Decision] = []
        self.early = 0
        self.lets_send: Callable[[Any, Decision], bool] | None = None
        strategy.__dict__.setdefault("_bt_llm_gates", []).append(self)

    @abc.abstractmethod
    def decide(self, side: int) -> Decision:
        """Return the decision on an entry to `side` (`LONG` or `SHORT`) at the current bar."""

    def questions(self) -> Questions | None:
        """Return what an analyst was asked so far; None for a gate that asks none."""
        return None

    @property
    def asker(self) -> Asker | None:
        """Who has been asked by the gate itself; None before, and where an indicator asks."""
        return None

    def allows_long(self) -> bool:
        """Return whether an order to the long side may be sent at the current bar, and log the decision.

        After a veto it may be only while the short side is held: it is then cut to its exit (`attach_gate`).
        """
        return self._lets(LONG)

    def allows_short(self) -> bool:
        """Return whether an order to the short side may be sent; see `allows_long`."""
        return self._lets(SHORT)

    def _lets(self, side: int) -> bool:
        decision = self.ask(side)
        return decision.allowed if self.lets_send is None else self.lets_send(self.data, decision)

    def ask(self, side: int) -> Decision:
        """Return the decision on an entry to `side` at the current bar, and log it."""
        if self.bar < self.warm_up_bars:
            self.early += 1
            return Decision(self.bar, side, False, early=True)
        self.log.append(self.decide(side))
        return self.log[-1]

    @property
    def bar(self) -> int:
        """Number of the data's last bar whose close is known to the strategy."""
        return closed_bars(self.strategy, self.data)

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


def check_not_running(strategy: bt.Strategy) -> None:
    """Check that a strategy is still being made: what is attached later has no warm-up and no indicators.

    Raises
    ------
    ConfigError
        If it runs already.
    """
    if "_minperiods" in strategy.__dict__:
        raise ConfigError(
            f"{type(strategy).__name__} is already running: attach gates in its __init__, with its indicators"
        )


def check_attachable(strategy: bt.Strategy) -> None:
    """Check the same for a gate that decides by what the close of a bar shows.

    Warns
    -----
    UserWarning
        If the broker fills orders at that very close (cheat on close).
    """
    check_not_running(strategy)
    if getattr(getattr(strategy.broker, "p", None), "coc", False):
        warnings.warn(
            "the broker cheats on close: orders fill at the very close that the verdict was made from; "
            "call broker.set_coc(False) for fills at the next open",
            stacklevel=4,
        )


def wait_for(bars: int, gate: AttachedGate) -> AttachedGate:
    """Return a gate for whose warm-up the strategy's first ``next`` waits, as it would for an indicator."""
    if bars > 1:
        WarmUp(gate.data, bars=bars)  # type: ignore[call-arg]
    return gate


class EntryGate(Described):
    """A gate: a value in a strategy's parameters that lets the strategy's entries through, or not.

    Make it a frozen dataclass, small and picklable: every process of an optimisation gets a copy. A
    subclass has `warm_up_bars` and `attach`.

    Raises
    ------
    ConfigError
        When one is made whose class lacks a method; the message names it.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class OddBars(EntryGate):
    ...     warm_up_bars = 1
    ...     def attach(self, strategy, data=None):
    ...         return AttachedOddBars(strategy, data)
    >>> class AttachedOddBars(AttachedGate):
    ...     def decide(self, side):
    ...         return Decision(self.bar, side, allowed=self.bar % 2 == 1)
    >>> OddBars().baseline()
    AlwaysOpen(warm_up=1)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Name what a class lacks, in one line."""
        if lacking := sorted(cls.__abstractmethods__):
            raise ConfigError(f"gate {cls.__name__} lacks {' and '.join(lacking)}: define it in the class")
        return super().__new__(cls)

    @property
    @abc.abstractmethod
    def warm_up_bars(self) -> int:
        """Bars of its data that the gate needs before its first answer, that bar included."""

    @abc.abstractmethod
    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; called in the strategy's ``__init__``, where its indicators are made."""

    def baseline(self) -> AlwaysOpen:
        """Return the open gate with the same warm-up, to compare with.

        A gate delays a strategy's first bar by its warm-up. Run without that delay, a strategy trades over
        other bars, and the difference is not the gate's alone.
        """
        return AlwaysOpen(warm_up=self.warm_up_bars)

    def known_answers(self, data: str, times: NDArray[np.float64]) -> Callable[[int, int], bool] | None:
        """Return what answers a strategy's entries without a run, for a gate that needs none to know.

        Parameters
        ----------
        data : str
            Name of the data.
        times : ndarray of float, of shape (n_bars,)
            Backtrader's numbers of its bars.

        Returns
        -------
        callable or None
            Called with the bar and the side of each entry, once and in the order in which they are asked
            about; says whether it is let in, whole. None, the default, for any other gate.
        """
        return None

    def describe(self, by: Describer | None = None) -> dict[str, Any]:
        """Return what the gate is, by content, as JSON values; a trial's key and a manifest are made of it.

        Parameters
        ----------
        by : Describer, optional
            Describes the fields.

        Raises
        ------
        ConfigError
            If the class is no dataclass, or a field cannot be described.
        """
        if not dataclasses.is_dataclass(self):
            raise ConfigError(
                f"gate {type(self).__name__} cannot be described: make it a frozen dataclass, or override "
                "describe"
            )
        return (by or Describer()).fields("gate", self)


class AskingGate(EntryGate):
    """A gate that asks a model, in a way that one of its fields describes."""

    config_name: ClassVar[str]
    """Name of that field."""

    @property
    def config(self) -> AdvisorConfig | AnalystConfig:
        """How the model is asked."""
        found: AdvisorConfig | AnalystConfig = getattr(self, self.config_name)
        return found

    @property
    def source(self) -> Hashable:
        """What the answers depend on besides the question; gates that share it share answers."""
        return type(self), self.config

    def with_config(self, config: AdvisorConfig | AnalystConfig) -> Self:
        """Return the same gate, asking in another way."""
        return dataclasses.replace(self, **{self.config_name: config})  # type: ignore[type-var]

    def without_rule(self) -> Self:
        """Return a gate that asks the same, equal for all gates that differ in what they do with answers."""
        return self

    @abc.abstractmethod
    def asker(self) -> Asker:
        """Return who asks for the gate in this process; no model is loaded yet."""

    def describe(self, by: Describer | None = None) -> dict[str, Any]:
        """Return what the gate is, by content; see `EntryGate.describe`."""
        by = by or Describer()
        names = [f.name for f in dataclasses.fields(self) if f.name != self.config_name]  # type: ignore[arg-type]
        asked = by.config(f"gate.{self.config_name}", self.config, self.asker())
        return {**by.fields("gate", self, names), self.config_name: asked}


@dataclass(frozen=True, kw_only=True)
class _FixedGate(EntryGate):
    """A gate that always answers the same.

    Parameters
    ----------
    warm_up : int
        Bars that the strategy waits for, as it would for another gate's indicator.
    """

    warm_up: int = 0

    def __post_init__(self) -> None:
        """Check the warm-up, once."""
        object.__setattr__(self, "warm_up", whole("warm_up", self.warm_up, 0, of=" of bars"))

    @property
    def warm_up_bars(self) -> int:
        """As given."""
        return self.warm_up

    def _attach(self, strategy: bt.Strategy, data: Any, allowed: bool) -> AttachedGate:
        return wait_for(self.warm_up, _AttachedFixedGate(strategy, data, allowed))


class AlwaysOpen(_FixedGate):
    """Let every entry through and ask no model: the strategy as it is without a gate.

    Parameters
    ----------
    warm_up : int
        Bars that the strategy waits for, as it would for another gate's indicator; see `EntryGate.baseline`.
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
        return Decision(self.bar, side, self._allowed)
