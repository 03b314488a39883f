"""LLMMarks: the model's verdicts on the price chart."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import backtrader as bt

from bt_llm.indicators import find_advice, value_now

__all__ = ["LLMMarks"]


class LLMMarks(bt.Observer):
    """Draws a mark below each bullish bar and above each bearish one.

    It shows the first `LLMAdvice` on its data; ``cerebro.addobservermulti(LLMMarks)`` draws on every data,
    ``cerebro.addobserver(LLMMarks)`` on the first.

    Parameters
    ----------
    min_confidence : float
        Leave out verdicts below this confidence, 0 to 1.
    distance : float
        Distance of the mark from the bar, in units of the bar's range from high to low.

    Examples
    --------
    >>> cerebro = bt.Cerebro()
    >>> cerebro.addobservermulti(LLMMarks, min_confidence=0.5)
    """

    lines: Any = ("bullish", "bearish")
    params = (("min_confidence", 0.0), ("distance", 0.5))
    plotinfo: ClassVar[Any] = {"plot": True, "subplot": False, "plotlinelabels": True, "plotname": "LLM"}
    plotlines: ClassVar[Any] = {
        "bullish": {"marker": "^", "markersize": 4.0, "color": "green", "ls": "", "_plotvaluetag": False},
        "bearish": {"marker": "v", "markersize": 4.0, "color": "red", "ls": "", "_plotvaluetag": False},
    }

    _advice: Any = None

    def next(self) -> None:
        """Write both lines always: a bar that a replay is still building may turn."""
        # Looked up here: Backtrader calls start() on no observer made by addobservermulti.
        if self._advice is None:
            self._advice = find_advice(self._owner, self.data)
        verdict = self._verdict()
        reach = self.p.distance * (self.data.high[0] - self.data.low[0])
        self.lines.bullish[0] = self.data.low[0] - reach if verdict > 0 else math.nan
        self.lines.bearish[0] = self.data.high[0] + reach if verdict < 0 else math.nan

    def _verdict(self) -> float:
        for advice in self._advice[:1]:
            if value_now(advice, "confidence") >= self.p.min_confidence:
                return value_now(advice, "verdict")
        return math.nan
