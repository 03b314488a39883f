"""Answers and backends made up for the tests of analysts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bt_llm.advice import MarketAnalystAgent, NewsAnalyst, TradeAnalyst
from bt_llm.cache import VerdictCache
from bt_llm.models import Answer, Prompt, ScriptedBackend

NEWS = {"sentiment": "Bullish", "confidence": 80, "impact": "High", "explanation": "Tighter policy."}
MARKET = {"regime": "Trending", "risk_level": "Low", "recommendations": ["Trail stops.", "Add on dips."]}
TRADE = {"decision": "take", "risk_reward": "Good.", "conditions": "Calm.", "timing": "Now."}

HEADLINE = "ECB halves its bond purchases"
MARKETS = {"eurusd": {"trend": "up", "rsi": 61.2}, "gold": {"state": "flat", "volatility": 0.9}, "vix": 14}
SIGNAL = {"symbol": "EUR/USD", "direction": "long", "strength": 0.8, "indicators": {"RSI": 61, "Trend": "up"}}

CASES = [(NewsAnalyst, HEADLINE, NEWS), (MarketAnalystAgent, MARKETS, MARKET), (TradeAnalyst, SIGNAL, TRADE)]

OFF = VerdictCache(mode="off")


class Scripted(ScriptedBackend):
    """Answers with a text, or what a function of the prompt gives; keeps the prompts."""

    def __init__(
        self, answer: str | Callable[[str], str], *, finished: bool = True, name: str = "scripted"
    ) -> None:
        self.asked: list[str] = []
        self.finished = finished

        def answers(text: str, schema: Mapping[str, Any]) -> str:
            self.asked.append(text)
            return answer if isinstance(answer, str) else answer(text)

        super().__init__(lambda text: (), name=name, answers=answers)

    def generate_json(
        self, prompts: Sequence[Prompt], schema: Mapping[str, Any], *, max_tokens: int, seed: int
    ) -> Iterator[Answer]:
        """Yield one text a prompt."""
        for answer in super().generate_json(prompts, schema, max_tokens=max_tokens, seed=seed):
            yield Answer(answer.text, self.finished, tokens=7, milliseconds=1.0)


def saying(answer: Mapping[str, Any], **changes: Any) -> Scripted:
    """A backend that gives this answer, whatever it is asked."""
    return Scripted(json.dumps({**answer, **changes}))
