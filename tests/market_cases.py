"""Bars and strategies for the tests of markets, set-ups and accounts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from bt_llm import attach_gate

ENGINES: list[dict[str, Any]] = [
    {},
    {"runonce": False},
    {"preload": False},
    {"preload": False, "runonce": False},
    {"exactbars": -1},
    {"exactbars": 1},
]
"""Backtrader's ways to run, as `run_backtest` takes them."""


def flat(closes: Sequence[float], start: str = "2024-01-01", freq: str = "D") -> pd.DataFrame:
    """Return bars that do not move within a bar: every price is the close."""
    close = np.array(closes, dtype=float)
    frame = {name: close for name in ("open", "high", "low", "close")}
    index = pd.date_range(start, periods=len(close), freq=freq, name="time")
    return pd.DataFrame({**frame, "volume": 1.0}, index=index)


class ByCalendar(bt.Strategy):
    """Send what `orders` says: a mapping of bar number to (method, keyword arguments)."""

    params = (("orders", None), ("gate", None))

    def next(self) -> None:
        """Send the orders of this bar."""
        for method, arguments in self.p.orders.get(len(self), ()):
            getattr(self, method)(**arguments)


class ExitsBySell(bt.Strategy):
    """Long above a slow mean; the exit is an order of unstated size the other way."""

    params = (("gate", None), ("period", 5))

    def __init__(self) -> None:
        self.cross = bt.ind.CrossOver(self.data.close, bt.ind.SMA(period=self.p.period))
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        """Go with the cross."""
        if self.position.size and self.cross[0] < 0:
            self.sell()
        elif not self.position.size and self.cross[0] > 0 and self.gate.allows_long():
            self.buy()


class Rotates(bt.Strategy):
    """Hold each data while it is above its mean, as soon as it has one: young ones join later."""

    params = (("gate", None), ("period", 5), ("share", 0.2))

    def __init__(self) -> None:
        self.means = {data: bt.ind.SMA(data, period=self.p.period) for data in self.datas}
        self.gates = {data: attach_gate(self.p.gate, self, data) for data in self.datas}

    def prenext(self) -> None:
        """Trade those that are ready."""
        self.next()

    def next(self) -> None:
        """Decide on each data that has a bar and a mean."""
        for data, mean in self.means.items():
            if len(data) < self.p.period:
                continue
            held, up = self.getposition(data).size, data.close[0] > mean[0]
            if held and not up:
                self.close(data)
            elif not held and up and self.gates[data].allows_long():
                self.order_target_percent(data, self.p.share)


class Pair(bt.Strategy):
    """Long the first, short the second data while the first is cheap against it, by contracts."""

    params = (("gate", None), ("period", 10))

    def __init__(self) -> None:
        ratio = self.data0.close / self.data1.close
        self.cheap = ratio < bt.ind.SMA(ratio, period=self.p.period)
        self.gate = attach_gate(self.p.gate, self, self.data0)

    def next(self) -> None:
        """Enter and leave both legs together."""
        held = self.getposition(self.data0).size
        if not held and self.cheap[0] and self.gate.allows_long():
            self.buy(self.data0, size=1)
            self.sell(self.data1, size=1)
        elif held and not self.cheap[0]:
            self.close(self.data0)
            self.close(self.data1)


def write_strategies(folder: Path) -> Path:
    """Write these strategies into a file of their own, as workers get them; return its path."""
    path = folder / "strategies.py"
    path.write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    return path
