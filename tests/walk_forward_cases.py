"""Strategies and bars for the tests of walk-forward research."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import backtrader as bt
import numpy as np
import pandas as pd

from bt_llm import AdvisorConfig, Gate, attach_gate
from tests.engines import QuickAdvice

QUICK = Gate(advisor=AdvisorConfig(model="scripted:random"), indicator=QuickAdvice)
"""A gate that is warm after 16 bars."""

CROSS = """\
import backtrader as bt
from bt_llm import attach_gate


class Cross(bt.Strategy):
    params = (("gate", None), ("fast", 3), ("slow", 8))

    def __init__(self):
        self.cross = bt.ind.CrossOver(bt.ind.SMA(period=self.p.fast), bt.ind.SMA(period=self.p.slow))
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        if self.cross[0] < 0 and self.position:
            self.close()
        elif self.cross[0] > 0 and not self.position and self.gate.allows_long():
            self.buy()
"""
"""A strategy file: workers can load nothing else."""


def cross_file(folder: Path) -> str:
    """Write the strategy file and return its ``file:Class``."""
    path = folder / "cross.py"
    path.write_text(CROSS, encoding="utf-8")
    return f"{path}:Cross"


def straight(closes: list[float]) -> pd.DataFrame:
    """Return daily bars that open a half above the close before, so that fills are easy to work out."""
    close = np.array(closes, dtype=float)
    opened = np.concatenate([[close[0]], close[:-1] + 0.5])
    frame = {
        "open": opened,
        "high": np.maximum(opened, close) + 1.0,
        "low": np.minimum(opened, close) - 1.0,
        "close": close,
        "volume": np.ones(len(close)),
    }
    return pd.DataFrame(frame, index=pd.date_range("2024-01-01", periods=len(close)))


def changed(bars: pd.DataFrame, part: slice) -> pd.DataFrame:
    """Return bars with other prices in one part: every one of them three times as high."""
    frame = bars.copy()
    frame.iloc[part, :4] *= 3.0
    return frame


class Holds(bt.Strategy):
    """Buy at the first bar it may decide at, and hold."""

    params = (("side", 1),)

    def next(self) -> None:
        if not self.position:
            _ = self.buy() if self.p.side > 0 else self.sell()


class Watches(bt.Strategy):
    """Write down when its methods are called, and which bars it can see."""

    calls: ClassVar[list[tuple[str, Any, int]]] = []
    params = (("gate", None), ("period", 3))

    def __init__(self) -> None:
        self.mean = bt.ind.SMA(period=self.p.period)
        self.gate = attach_gate(self.p.gate, self)

    def _note(self, what: str) -> None:
        self.calls.append((what, self.data.datetime.date(0), self.data.buflen()))

    def prenext(self) -> None:
        self._note("prenext")

    def nextstart(self) -> None:
        self._note("nextstart")

    def next(self) -> None:
        self._note("next")
