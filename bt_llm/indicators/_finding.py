"""The advice that a strategy has, and who answered it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import backtrader as bt

from bt_llm.advice import Advisor, Analyst
from bt_llm.feeds import feed_of
from bt_llm.indicators._advice import LLMAdvice

__all__ = ["askers_in", "find_advice"]


def find_advice(strategy: bt.Strategy, data: Any = None) -> list[LLMAdvice]:
    """Return the advice indicators of a strategy, those inside other indicators too, in order of creation.

    Parameters
    ----------
    strategy : bt.Strategy
        Where to look.
    data : data feed, optional
        Only those that judge its bars.
    """
    return [advice for advice in _walk(strategy) if data is None or feed_of(advice) is feed_of(data)]


def askers_in(strategy: bt.Strategy) -> list[Advisor | Analyst[Any, Any]]:
    """Return who answered the indicators of a strategy, those inside other indicators too."""
    found = [getattr(indicator, "asker", None) for indicator in _every(strategy)]
    return [asker for asker in dict.fromkeys(found) if asker is not None and asker.answered_by]


def _walk(strategy: bt.Strategy) -> Iterator[LLMAdvice]:
    return (indicator for indicator in _every(strategy) if isinstance(indicator, LLMAdvice))


def _every(owner: Any) -> Iterator[Any]:
    for indicator in owner.getindicators():
        yield indicator
        yield from _every(indicator)
