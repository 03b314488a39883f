"""NewsAnalyst: what a headline means for a market."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bt_llm.advice.analysts._base import Analysis, Analyst, ModelSource
from bt_llm.advice.analysts._fields import Choice, Field, Text, Whole
from bt_llm.advice.analysts._untrusted import UnusableError, clean_text
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import ConfigError

__all__ = ["IMPACT_WEIGHTS", "Impact", "NewsAnalyst", "NewsSentiment", "Sentiment", "analyze_news_sentiment"]

MAX_HEADLINE = 300
"""Characters of a headline that the model sees."""


class Sentiment(enum.StrEnum):
    """Where the market is likely to go on the news."""

    BULLISH = "Bullish"
    BEARISH = "Bearish"
    NEUTRAL = "Neutral"
    INVALID = "Invalid"


class Impact(enum.StrEnum):
    """How much the news moves the US dollar."""

    HIGH = "High"
    MEDIUM = "Medium"
    LOW = "Low"
    INVALID = "Invalid"


IMPACT_WEIGHTS: Mapping[Impact, float] = {
    Impact.HIGH: 1.0,
    Impact.MEDIUM: 0.5,
    Impact.LOW: 0.25,
    Impact.INVALID: 0.0,
}
_SIGNS = {Sentiment.BULLISH: 1.0, Sentiment.BEARISH: -1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsSentiment(Analysis):
    """What a headline means for a market.

    Parameters
    ----------
    sentiment : Sentiment
        Bullish if the market is likely to rise on the news; INVALID if the answer cannot be read.
    confidence : int
        0 to 100, as the model says; small models say much the same whatever the headline.
    impact : Impact
        How much the news moves the US dollar.
    explanation : str
        One sentence, on one line.
    problem, cached, model
        See `Analysis`.
    """

    sentiment: Sentiment
    confidence: int
    impact: Impact
    explanation: str

    @property
    def score(self) -> float:
        """Sentiment, -1 to 1: its sign times the confidence as a fraction times the impact's weight.

        The weights are 1 for High, 0.5 for Medium and 0.25 for Low. Neutral and INVALID are 0.

        Examples
        --------
        >>> NewsSentiment(sentiment=Sentiment.BEARISH, confidence=80, impact=Impact.MEDIUM,
        ...               explanation="A strong dollar.").score
        -0.4
        """
        return _SIGNS.get(self.sentiment, 0.0) * self.confidence / 100 * IMPACT_WEIGHTS[self.impact]


class NewsAnalyst(Analyst[str, NewsSentiment]):
    """Judges headlines, which are untrusted text: cleaned, cut to 300 characters and delimited.

    An instruction in a headline can change the sentiment, never the form of the answer.

    Parameters
    ----------
    source : AnalystConfig, str, path, LlamaModel, ModelManager or Backend, optional
        Who answers; by default ``AnalystConfig()``.
    market : str
        Which market is to rise or fall; the prompt says it.
    cache : VerdictCache, optional
        See `Analyst`.

    Examples
    --------
    >>> from bt_llm.models import ScriptedBackend
    >>> reply = '{"sentiment": "Bullish", "confidence": 80, "impact": "High", "explanation": "Tighter ECB."}'
    >>> backend = ScriptedBackend(lambda text: (), answers=lambda text, schema: reply)
    >>> analyst = NewsAnalyst(backend, cache=VerdictCache(mode="off"))
    >>> sentiment = analyst.analyze("ECB to halve its bond purchases")
    >>> sentiment.sentiment.value, sentiment.confidence, sentiment.impact.value, sentiment.score
    ('Bullish', 80, 'High', 0.8)
    """

    result: ClassVar[type[NewsSentiment]] = NewsSentiment
    fields: ClassVar[Mapping[str, Field]] = {
        "sentiment": Choice(Sentiment),
        "confidence": Whole(0, 100),
        "impact": Choice(Impact),
        "explanation": Text(200),
    }
    template_name: ClassVar[str] = "news"
    max_tokens: ClassVar[int] = 128

    def __init__(
        self, source: ModelSource | None = None, *, market: str = "EUR/USD", **settings: Any
    ) -> None:
        self.market = clean_text(market, 60)
        if not self.market:
            raise ConfigError(f"market={market!r}: expected a name, such as 'EUR/USD'")
        super().__init__(source, **settings)

    def _settings(self) -> dict[str, Any]:
        return {"market": self.market}

    def variables(self, subject: str) -> Mapping[str, Any]:
        """Return the market and the cleaned headline."""
        headline = clean_text(subject, MAX_HEADLINE)
        if not headline:
            raise UnusableError("the headline is empty")
        return {"market": self.market, "headline": headline}


def analyze_news_sentiment(
    model: ModelSource, headline: str, *, cache: VerdictCache | None = None
) -> dict[str, Any]:
    """Return what a headline means for EUR/USD, as a dict.

    Parameters
    ----------
    model : LlamaModel, ModelManager, Backend, AnalystConfig, str or path
        Who answers.
    headline : str
        Untrusted text.
    cache : VerdictCache, optional
        Where answers are kept; by default the user's cache.

    Returns
    -------
    dict
        ``sentiment`` (Bullish, Bearish, Neutral or Invalid), ``confidence`` (0 to 100), ``impact`` (High,
        Medium, Low or Invalid), ``explanation``, ``valid``, ``problem`` (why not), ``cached``, ``model``.

    Examples
    --------
    >>> answer = analyze_news_sentiment("smollm2", "ECB holds rates")        # doctest: +SKIP
    """
    with NewsAnalyst(model, cache=cache) as analyst:
        return analyst.analyze(headline).to_dict()
