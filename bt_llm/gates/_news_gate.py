"""NewsGate: entries by the sentiment of the news."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, get_args

import backtrader as bt

from bt_llm.advice import AnalystConfig, NewsAnalyst
from bt_llm.data import Headlines
from bt_llm.gates._base import AskingGate, AttachedGate, Decision, Questions, Require, check_attachable
from bt_llm.indicators import LLMNews, value_now
from bt_llm.settings import instance, number, one_of

__all__ = ["NewsGate"]


@dataclass(frozen=True, kw_only=True)
class NewsGate(AskingGate):
    """Let an entry through unless the news speaks against it, or only if it speaks for it.

    Parameters
    ----------
    headlines : Headlines or path
        What was published when.
    min_score : float
        How far from 0 the news line must be to speak.
    require : {'not_against', 'agree'}
        'not_against': only news for the other side blocks. 'agree': the news must be for the entry's side.
    analyst, market, half_life, stamp, bar, time_zone, latency
        As in `LLMNews`. The latency is 60 seconds here, since a gate is for trading.

    Examples
    --------
    >>> gate = NewsGate(headlines=Headlines(()), min_score=0.2)
    >>> gate.allows(1, -0.3), gate.allows(-1, -0.3), gate.allows(1, -0.1)
    (False, True, True)
    """

    config_name: ClassVar[str] = "analyst"

    headlines: Headlines | str | os.PathLike[str]
    min_score: float = 0.1
    require: Require = "not_against"
    analyst: AnalystConfig = field(default_factory=AnalystConfig)
    market: str = "EUR/USD"
    half_life: float = 24.0
    stamp: str | None = None
    bar: str | None = None
    time_zone: str | None = None
    latency: float = 60.0

    def __post_init__(self) -> None:
        """Check the choices, once, and read the headlines."""
        for name in ("min_score", "latency"):
            object.__setattr__(self, name, number(name, getattr(self, name), 0))
        object.__setattr__(self, "half_life", number("half_life", self.half_life, above=0))
        instance("analyst", self.analyst, AnalystConfig, "an AnalystConfig")
        instance("market", self.market, str, "a text, such as 'EUR/USD'")
        one_of("require", self.require, get_args(Require))
        if not isinstance(self.headlines, Headlines):
            object.__setattr__(self, "headlines", Headlines.load(self.headlines))

    @property
    def warm_up_bars(self) -> int:
        """One: the news line begins with the first bar."""
        return 1

    @property
    def source(self) -> Hashable:
        """The analyst, and the market that it judges headlines for."""
        return type(self), self.analyst, self.market

    def without_rule(self) -> NewsGate:
        """Return a gate that judges the same headlines."""
        return replace(self, min_score=0.0, require="agree", half_life=1.0)

    def asker(self) -> NewsAnalyst:
        """Return who judges headlines for the gate in this process."""
        return NewsAnalyst(self.analyst, market=self.market)

    def allows(self, side: int, news: float) -> bool:
        """Return whether a value of the news line lets an entry to a side through."""
        said = self.says(news) * side
        return said > 0 if self.require == "agree" else said >= 0

    def says(self, news: float) -> float:
        """Return the side that a value of the news line speaks for, 1 or -1; 0 where it does not speak."""
        return math.copysign(1.0, news) if abs(news) >= self.min_score and news else 0.0

    def attach(self, strategy: bt.Strategy, data: Any = None) -> AttachedGate:
        """Attach the gate; in the strategy's ``__init__``."""
        check_attachable(strategy)
        data = strategy.data if data is None else data
        names = ("headlines", "analyst", "market", "half_life", "stamp", "bar", "time_zone", "latency")
        news = LLMNews(data, **{name: getattr(self, name) for name in names})  # type: ignore[call-arg]
        return _AttachedNewsGate(strategy, news, self)


class _AttachedNewsGate(AttachedGate):
    def __init__(self, strategy: bt.Strategy, news: LLMNews, gate: NewsGate) -> None:
        super().__init__(strategy, news.data)
        self.news = news
        self.gate = gate

    def questions(self) -> Questions:
        """Return what was asked of the headlines so far."""
        usage = self.news.usage
        return Questions.of(
            usage,
            asked=usage.answers,
            answers=usage.answers - usage.invalid,
            invalid=usage.invalid,
        )

    def decide(self, side: int) -> Decision:
        news = value_now(self.news, "news")
        allowed = self.gate.allows(side, news)
        return Decision(self.bar, side, allowed, self.gate.says(news), min(1.0, abs(news)))
