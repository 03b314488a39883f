"""Analysts: a model's typed answers on news, on the state of several markets, and on a trade."""

from bt_llm.analysts._base import Analysis, Analyst, AnalystConfig, AnalystUsage, ModelSource
from bt_llm.analysts.headlines import Headline, Headlines
from bt_llm.analysts.market import (
    MarketAnalysis,
    MarketAnalystAgent,
    Regime,
    RiskLevel,
    analyze_market_state,
)
from bt_llm.analysts.news import (
    IMPACT_WEIGHTS,
    Impact,
    NewsAnalyst,
    NewsSentiment,
    Sentiment,
    analyze_news_sentiment,
)
from bt_llm.analysts.trade import Decision, TradeAdvice, TradeAnalyst, get_trading_advice

__all__ = [
    "IMPACT_WEIGHTS",
    "Analysis",
    "Analyst",
    "AnalystConfig",
    "AnalystUsage",
    "Decision",
    "Headline",
    "Headlines",
    "Impact",
    "MarketAnalysis",
    "MarketAnalystAgent",
    "ModelSource",
    "NewsAnalyst",
    "NewsSentiment",
    "Regime",
    "RiskLevel",
    "Sentiment",
    "TradeAdvice",
    "TradeAnalyst",
    "analyze_market_state",
    "analyze_news_sentiment",
    "get_trading_advice",
]
