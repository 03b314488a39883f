"""TradeAnalyst: whether to take a trade that a strategy wants to make."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bt_llm.advice.analysts._base import Analysis, Analyst, ModelSource
from bt_llm.advice.analysts._fields import Choice, Field, Text
from bt_llm.advice.analysts._untrusted import UnusableError, clean_text, shown
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import ConfigError

__all__ = ["Decision", "TradeAdvice", "TradeAnalyst", "get_trading_advice"]

_KEYS = {"symbol", "direction", "strength", "indicators"}
_MOST = 16  # indicators


class Decision(enum.StrEnum):
    """What to do with a trade."""

    TAKE = "take"
    REDUCE = "reduce"
    SKIP = "skip"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeAdvice(Analysis):
    """Whether to take a trade, and why, known at the close of the bar whose indicators were shown.

    Parameters
    ----------
    decision : Decision
        take, reduce (take it at a smaller size) or skip; INVALID if the answer cannot be read.
    risk_reward, conditions, timing : str
        One sentence each: on risk against reward, on the state of the market, on the moment.
    problem, cached, model
        See `Analysis`.

    Examples
    --------
    >>> print(TradeAdvice(decision=Decision.SKIP, risk_reward="Poor.", conditions="Choppy.", timing="Late."))
    Decision: skip
    Risk and reward: Poor.
    Market conditions: Choppy.
    Timing: Late.
    """

    decision: Decision
    risk_reward: str
    conditions: str
    timing: str

    def __str__(self) -> str:
        """Return it as text, for people."""
        if not self.valid:
            return f"Invalid: {self.problem}"
        return (
            f"Decision: {self.decision}\nRisk and reward: {self.risk_reward}\n"
            f"Market conditions: {self.conditions}\nTiming: {self.timing}"
        )


class TradeAnalyst(Analyst[Mapping[str, Any], TradeAdvice]):
    """Advises on trades.

    Parameters
    ----------
    source : AnalystConfig, str, path, LlamaModel, ModelManager or Backend, optional
        Who answers; by default ``AnalystConfig()``.
    cache : VerdictCache, optional
        Instead of the one that the configuration names.

    Examples
    --------
    >>> from bt_llm.models import ScriptedBackend
    >>> reply = '{"decision": "take", "risk_reward": "Good.", "conditions": "Calm.", "timing": "Now."}'
    >>> backend = ScriptedBackend(lambda text: (), answers=lambda text, schema: reply)
    >>> analyst = TradeAnalyst(backend, cache=VerdictCache(mode="off"))
    >>> signal = {"symbol": "EUR/USD", "direction": "long", "strength": 0.8, "indicators": {"rsi": 61}}
    >>> analyst.analyze(signal).decision.value
    'take'
    """

    result: ClassVar[type[TradeAdvice]] = TradeAdvice
    fields: ClassVar[Mapping[str, Field]] = {
        "decision": Choice(Decision),
        "risk_reward": Text(120),
        "conditions": Text(120),
        "timing": Text(120),
    }
    template_name: ClassVar[str] = "trade"
    max_tokens: ClassVar[int] = 160

    def variables(self, subject: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the signal's parts as text.

        Parameters
        ----------
        subject : mapping
            ``symbol`` and ``direction``, texts; ``strength``, a number or text; ``indicators``, numbers
            or texts by name, or one text.
        """
        if not isinstance(subject, Mapping) or set(subject) != _KEYS:
            raise ConfigError(f"signal={subject!r:.80}: expected a mapping with exactly {sorted(_KEYS)}")
        for name in ("symbol", "direction"):
            if not isinstance(subject[name], str):
                raise ConfigError(f"signal's {name}={subject[name]!r:.40}: expected text")
        return {
            **{name: shown(name, subject[name]) for name in ("symbol", "direction", "strength")},
            "indicators": _indicators(subject["indicators"]),
        }


def _indicators(given: Any) -> list[dict[str, str]]:
    if isinstance(given, str):
        return [{"name": "Technical indicators", "value": shown("indicators", given, 300)}]
    if not isinstance(given, Mapping) or len(given) > _MOST:
        raise ConfigError(
            f"signal's indicators={given!r:.60}: expected text, or a mapping of at most {_MOST} by name"
        )
    rows = []
    for name, value in given.items():
        title = clean_text(name, 40)
        if not title:
            raise UnusableError("an indicator has no name")
        rows.append({"name": title, "value": shown(title, value)})
    return rows


def get_trading_advice(
    model: ModelSource, signal: Mapping[str, Any], *, cache: VerdictCache | None = None
) -> TradeAdvice:
    """Return whether to take a trade, and why; `print` shows it as text.

    Parameters
    ----------
    model : LlamaModel, ModelManager, Backend, AnalystConfig, str or path
        Who answers.
    signal : mapping
        ``symbol`` and ``direction``, texts; ``strength``, a number or text; ``indicators``, numbers or
        texts by name, or one text.
    cache : VerdictCache, optional
        Where answers are kept; by default the user's cache.

    Raises
    ------
    ConfigError
        If the signal has another form.

    Examples
    --------
    >>> signal = {"symbol": "EUR/USD", "direction": "long", "strength": 0.8, "indicators": {"RSI": 61}}
    >>> print(get_trading_advice("smollm2", signal))                         # doctest: +SKIP
    """
    with TradeAnalyst(model, cache=cache) as analyst:
        return analyst.analyze(signal)
