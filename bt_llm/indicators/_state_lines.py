"""MarketState as lines, without a verdict: trend, RSI and volatility, as `LLMAdvice` defines them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import backtrader as bt

from bt_llm.indicators._lines import TrailingMedian
from bt_llm.settings import whole

__all__ = ["PERIODS", "MarketStateLines", "check_periods", "rsi_line", "trend_line", "volatility_line"]


PERIODS = ("ema", "slope", "rsi", "atr", "median")
"""Parameters that are numbers of bars."""


def check_periods(indicator: bt.Indicator) -> None:
    """Check the parameters that are numbers of bars: one below 0 would look ahead."""
    for name in sorted(set(PERIODS) & set(indicator.p._getkeys())):
        whole(f"{type(indicator).__name__} got {name}", getattr(indicator.p, name), 1, of=" of bars")


def trend_line(data: Any, atr: Any, *, ema: int, slope: int) -> Any:
    """Return the slope of the EMA over `slope` bars, in ATR a bar; 0 where the ATR is 0."""
    average = bt.ind.EMA(data, period=ema)
    return bt.DivByZero(average - average(-slope), slope * atr)


def rsi_line(data: Any, *, rsi: int) -> Any:
    """Return Wilder's RSI, 0 to 100."""
    return bt.ind.RSI(data, period=rsi, safediv=True)


def volatility_line(data: Any, atr: Any, *, median: int) -> Any:
    """Return the ATR as a percentage of the close over its own trailing median."""
    percent = bt.DivByZero(100.0 * atr, data.close, zero=math.nan)
    middle = TrailingMedian(percent, period=median)  # type: ignore[call-arg]
    return bt.DivZeroByZero(percent, middle, single=math.nan, dual=1.0)


class MarketStateLines(bt.Indicator):
    """The market state at the close of each bar, without asking a model.

    Parameters
    ----------
    ema, slope, rsi, atr, median : int
        Bars, as in `LLMAdvice`.

    Attributes
    ----------
    lines : trend, rsi, volatility
        As in `LLMAdvice`.
    """

    lines: Any = ("trend", "rsi", "volatility")
    params = (("ema", 20), ("slope", 3), ("rsi", 14), ("atr", 14), ("median", 100))
    plotinfo: ClassVar[Any] = {"plot": False}

    def __init__(self) -> None:
        super().__init__()
        check_periods(self)
        p = self.p
        atr = bt.ind.ATR(self.data, period=p.atr)
        self.lines.trend = trend_line(self.data, atr, ema=p.ema, slope=p.slope)
        self.lines.rsi = rsi_line(self.data, rsi=p.rsi)
        self.lines.volatility = volatility_line(self.data, atr, median=p.median)
