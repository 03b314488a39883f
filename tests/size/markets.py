"""Markets about which nothing can be known, or exactly what a setting says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["SIGMA", "Bars", "blink", "garch", "iid", "walk", "words"]

Floats = NDArray[np.float64]

SIGMA = 0.01
"""Deviation of a return, a bar."""


@dataclass(frozen=True)
class Bars:
    """Bars as arrays; what is known at the close of each is made when asked for."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats

    def __len__(self) -> int:
        return len(self.close)

    @cached_property
    def trend(self) -> Floats:
        """Slope of the average of 20 closes over three bars, in mean ranges a bar."""
        average = smooth(self.close, 2 / 21)
        moved = np.concatenate([np.zeros(3), average[3:] - average[:-3]]) / 3.0
        return moved / np.maximum(smooth(self.high - self.low, 1 / 14), 1e-12)

    @cached_property
    def rsi(self) -> Floats:
        """Wilder's, of 14 bars."""
        moves = np.diff(self.close, prepend=self.close[:1])
        up, down = smooth(np.maximum(moves, 0.0), 1 / 14), smooth(np.maximum(-moves, 0.0), 1 / 14)
        return 100.0 * up / np.maximum(up + down, 1e-12)

    @cached_property
    def volatility(self) -> Floats:
        """Mean size of the last 20 returns over its median of the last 200 bars."""
        moves = np.abs(np.diff(np.log(self.close), prepend=np.log(self.close[:1])))
        size = mean(moves, 20)
        usual = pd.Series(size).rolling(201, min_periods=1).median().to_numpy()
        return np.asarray(size / np.maximum(usual, 1e-12))


def smooth(values: Floats, weight: float) -> Floats:
    """Return the exponential average."""
    found, last = np.empty(len(values)), float(values[0])
    for place, value in enumerate(values.tolist()):
        last += weight * (value - last)
        found[place] = last
    return found


def mean(values: Floats, bars: int) -> Floats:
    """Return the mean of the last bars; of as many as there are at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - bars)
    return (sums[stop] - sums[start]) / (stop - start)


def iid(n: int, rng: np.random.Generator, drift: float = 0.0) -> Floats:
    """Return normal returns in deviations; `drift` is their mean."""
    return drift + rng.standard_normal(n)


def garch(
    n: int,
    rng: np.random.Generator,
    drift: float = 0.0,
    *,
    moved: float = 0.08,
    kept: float = 0.90,
    tails: int = 4,
) -> Floats:
    """Return returns of GARCH(1, 1) with Student's shocks, in deviations."""
    shocks = rng.standard_t(tails, n + 500) / np.sqrt(tails / (tails - 2))
    found, last, variance = np.empty(n + 500), 1.0, 1.0
    for place, shock in enumerate(shocks.tolist()):
        if place:
            variance = (1.0 - moved - kept) + moved * last * last + kept * variance
        last = variance**0.5 * shock
        found[place] = last
    return drift + found[500:]


def walk(returns: Floats, rng: np.random.Generator) -> Bars:
    """Return the bars of returns in deviations: each opens where the one before closed."""
    close = 100.0 * np.cumprod(1.0 + np.maximum(SIGMA * returns, -0.5))
    opens = np.concatenate([[100.0], close[:-1]])
    reach = 0.35 * SIGMA * close * np.abs(rng.standard_normal((2, len(close))))
    return Bars(opens, np.maximum(opens, close) + reach[0], np.minimum(opens, close) - reach[1], close)


def blink(n: int, rng: np.random.Generator, on: float, off: float) -> NDArray[np.bool_]:
    """Return a line that is on for some bars and off for some, in the mean so many."""
    found, state = np.empty(n, dtype=bool), bool(rng.random() < on / (on + off))
    for place, chance in enumerate(rng.random(n).tolist()):
        if chance < (1.0 / on if state else 1.0 / off):
            state = not state
        found[place] = state
    return found


def words(n: int, rng: np.random.Generator, run: float, shares: tuple[float, ...]) -> NDArray[np.int64]:
    """Return labels 0, 1, ... that know nothing: each is kept for `run` bars in the mean, then drawn anew."""
    new = rng.random(n) < 1.0 / run
    new[0] = True
    drawn = rng.choice(len(shares), size=n, p=shares)
    kept = np.maximum.accumulate(np.where(new, np.arange(n), 0))
    return drawn[kept]
