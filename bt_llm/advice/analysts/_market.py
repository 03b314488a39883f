"""MarketAnalystAgent: the regime and the risk of several markets together."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bt_llm.advice.analysts._base import Analysis, Analyst, ModelSource
from bt_llm.advice.analysts._fields import Choice, Field, Lines, Text
from bt_llm.advice.analysts._untrusted import clean_text, shown
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import ConfigError

__all__ = ["MarketAnalysis", "MarketAnalystAgent", "Regime", "RiskLevel", "analyze_market_state"]

_TITLES = {"eurusd": "EUR/USD", "vix": "VIX", "wti": "WTI crude oil", "sp500": "S&P 500", "rsi": "RSI"}
_MOST = 12  # markets, and features of one


class Regime(enum.StrEnum):
    """How the markets behave."""

    TRENDING = "Trending"
    RANGING = "Ranging"
    VOLATILE = "Volatile"
    INVALID = "Invalid"


class RiskLevel(enum.StrEnum):
    """How much a trader should fear."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketAnalysis(Analysis):
    """The regime and the risk of several markets, known when the youngest of their values is.

    Parameters
    ----------
    regime : Regime
        INVALID if the answer cannot be read.
    risk_level : RiskLevel
        INVALID likewise.
    recommendations : tuple of str
        One to three sentences; none if the answer cannot be read.
    problem, cached, model
        See `Analysis`.

    Examples
    --------
    >>> print(MarketAnalysis(regime=Regime.TRENDING, risk_level=RiskLevel.LOW,
    ...                      recommendations=("Trail stops.",)))
    Regime: Trending
    Risk level: Low
    Recommendations: Trail stops.
    """

    regime: Regime
    risk_level: RiskLevel
    recommendations: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as text, for people."""
        if not self.valid:
            return f"Invalid: {self.problem}"
        advice = " ".join(self.recommendations)
        return f"Regime: {self.regime}\nRisk level: {self.risk_level}\nRecommendations: {advice}"


class MarketAnalystAgent(Analyst[Mapping[str, Any], MarketAnalysis]):
    """Judges the state of several markets.

    Parameters
    ----------
    llm_manager : ModelManager, LlamaModel, AnalystConfig, str, path or Backend, optional
        Who answers; by default ``AnalystConfig()``.
    cache : VerdictCache, optional
        Instead of the one that the configuration names.

    Examples
    --------
    >>> from bt_llm.models import ScriptedBackend
    >>> reply = '{"regime": "Ranging", "risk_level": "Low", "recommendations": ["Fade the edges."]}'
    >>> backend = ScriptedBackend(lambda text: (), answers=lambda text, schema: reply)
    >>> agent = MarketAnalystAgent(backend, cache=VerdictCache(mode="off"))
    >>> analysis = agent.analyze({"eurusd": {"trend": "flat", "rsi": 51}, "vix": 12.4,
    ...                           "gold": {"state": "flat", "volatility": "low"}})
    >>> analysis.regime.value, analysis.risk_level.value, analysis.recommendations
    ('Ranging', 'Low', ('Fade the edges.',))
    """

    result: ClassVar[type[MarketAnalysis]] = MarketAnalysis
    fields: ClassVar[Mapping[str, Field]] = {
        "regime": Choice(Regime),
        "risk_level": Choice(RiskLevel),
        "recommendations": Lines(3, Text(120)),
    }
    template_name: ClassVar[str] = "market_state"
    max_tokens: ClassVar[int] = 128

    def __init__(self, llm_manager: ModelSource | None = None, *, cache: VerdictCache | None = None) -> None:
        super().__init__(llm_manager, cache=cache)

    def analyze(self, market_data: Mapping[str, Any]) -> MarketAnalysis:
        """Return the regime and the risk; an answer that cannot be read is INVALID.

        Parameters
        ----------
        market_data : mapping
            By market, either one value or a mapping of values by feature; a value is a number or text::

                {"eurusd": {"trend": "up", "rsi": 61}, "gold": {"state": "rising", "volatility": "low"},
                 "vix": 14.2}

            Others than these three are taken too. Numbers are shown with 3 significant digits; one that
            is not finite makes the analysis INVALID, without asking.

        Raises
        ------
        ConfigError
            If it has another form.
        """
        return super().analyze(market_data)

    def variables(self, subject: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the markets, each with a title and its features."""
        return {
            "markets": [
                {"title": _title(name), "features": _features(name, values)}
                for name, values in _checked("market_data", subject).items()
            ]
        }


def _features(market: str, values: Any) -> list[dict[str, str]]:
    if not isinstance(values, Mapping):
        return [{"title": "", "value": shown(market, values)}]
    return [
        {"title": _title(name, inside=True), "value": shown(f"{market}.{name}", value)}
        for name, value in _checked(market, values).items()
    ]


def _checked(name: str, values: Any) -> Mapping[str, Any]:
    right = isinstance(values, Mapping) and 0 < len(values) <= _MOST
    if not right or not all(isinstance(key, str) and clean_text(key, 40) for key in values):
        raise ConfigError(
            f"{name}={values!r:.60}: expected a mapping of 1 to {_MOST} names, such as "
            "{'eurusd': {'trend': 'up', 'rsi': 61}, 'vix': 14.2}"
        )
    checked: Mapping[str, Any] = values
    return checked


def _title(name: str, *, inside: bool = False) -> str:
    text = clean_text(name, 40).replace("_", " ")
    return _TITLES.get(name, text if inside else text[:1].upper() + text[1:])


def analyze_market_state(
    model: ModelSource, market_data: Mapping[str, Any], *, cache: VerdictCache | None = None
) -> MarketAnalysis:
    """Return the regime and the risk of several markets; `print` shows it as text.

    Parameters
    ----------
    model : LlamaModel, ModelManager, Backend, AnalystConfig, str or path
        Who answers.
    market_data : mapping
        As in `MarketAnalystAgent.analyze`.
    cache : VerdictCache, optional
        Where answers are kept; by default the user's cache.

    Examples
    --------
    >>> print(analyze_market_state("smollm2", {"vix": 31.0}))                # doctest: +SKIP
    """
    with MarketAnalystAgent(model, cache=cache) as agent:
        return agent.analyze(market_data)
