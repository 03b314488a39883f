"""Bars, and ways to run Backtrader over them, for the tests of what sits inside Backtrader."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from bt_llm.advice import AdvisorConfig
from bt_llm.feeds import ArrayFeed, time_numbers
from bt_llm.indicators import LLMAdvice

TREND = AdvisorConfig(model="scripted:trend", cache_mode="off")
RANDOM = AdvisorConfig(model="scripted:random", cache_mode="off")
BULLISH = AdvisorConfig(model="scripted:bullish", cache_mode="off", calibration="none")

MODES = [
    {"preload": preload, "runonce": runonce, "exactbars": exactbars}
    for preload, runonce, exactbars in itertools.product((True, False), (True, False), (-2, -1, 0, 1))
]
"""Every engine mode of Backtrader's own test matrix, and exactbars=0 given as a number."""


class QuickAdvice(LLMAdvice):
    """An advice that is warm after 16 bars, so that short data will do."""

    params = (("ema", 5), ("slope", 2), ("rsi", 5), ("atr", 5), ("median", 11))


def walk(bars: int = 300, seed: int = 0, freq: str = "D", start: str = "2020-01-01") -> pd.DataFrame:
    """Return a random walk of OHLC bars whose moves cluster, so that every bucket is visited."""
    rng = np.random.default_rng(seed)
    scale = 0.01 * np.exp(0.6 * np.sin(np.arange(bars) / 20))
    close = 100 * np.exp(np.cumsum(scale * (rng.standard_normal(bars) + 0.3 * np.sin(np.arange(bars) / 9))))
    open_ = np.concatenate([[100.0], close[:-1]])
    spread = close * scale * rng.random((2, bars))
    frame = {
        "open": open_,
        "high": np.maximum(open_, close) + spread[0],
        "low": np.minimum(open_, close) - spread[1],
        "close": close,
        "volume": rng.integers(1, 1000, bars).astype(float),
    }
    return pd.DataFrame(frame, index=pd.date_range(start, periods=bars, freq=freq))


def feed(frame: pd.DataFrame) -> Any:
    """Return a daily feed of a frame."""
    return bt.feeds.PandasData(dataname=frame, timeframe=bt.TimeFrame.Days, openinterest=None)


def array_feed(frame: pd.DataFrame) -> Any:
    """Return a daily feed of a frame that is loaded in one go."""
    times = {"datetime": time_numbers(pd.DatetimeIndex(frame.index).as_unit("ns").asi8)}
    columns = {name: frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    return ArrayFeed(dataname=times | columns, timeframe=bt.TimeFrame.Days)


def run(
    strategy: type[bt.Strategy],
    *frames: pd.DataFrame,
    prepare: Callable[[bt.Cerebro], None] = lambda cerebro: None,
    mode: dict[str, Any] | None = None,
    **params: Any,
) -> Any:
    """Run a strategy on frames and return it; `prepare` adds whatever else it needs."""
    cerebro = bt.Cerebro(stdstats=False, **(mode or {}))
    for number, frame in enumerate(frames):
        cerebro.adddata(feed(frame), name=f"data{number}")
    cerebro.addstrategy(strategy, **params)
    prepare(cerebro)
    return cerebro.run()[0]


def build(make: Callable[[Any], Any], *frames: pd.DataFrame, mode: dict[str, Any] | None = None) -> Any:
    """Run a strategy that does nothing but `make` an indicator, and return that."""
    return run(Holder, *frames, mode=mode, make=make).made


class Holder(bt.Strategy):
    """Makes one thing in `__init__` and does nothing."""

    params = (("make", None),)

    def __init__(self) -> None:
        self.made = self.p.make(self)


def line(indicator: Any, name: str) -> np.ndarray:
    """Return a whole line; for runs that keep it."""
    return np.array(getattr(indicator.lines, name).array)


def bits(values: Any) -> list[bytes]:
    """Return floats as bytes, so that equality is to the last digit and NaN equals NaN."""
    return [struct.pack("<d", value) if value == value else b"nan" for value in values]
