"""The times at which a gate may answer, stretches of which change places for null gates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Market
from bt_llm.gates import DatedAnswers, permute_dates

__all__ = ["Moments", "block_length"]

Floats: TypeAlias = NDArray[np.float64]

_SHORTEST = 5
_LEAST_BLOCKS = 24
"""So many make three parts by volatility; see `permute_dates`."""
_MOST_MOMENTS = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """The times at which a gate may answer, as stretches of them change places.

    Attributes
    ----------
    times : ndarray of float, of shape (n,)
        Backtrader's numbers of the bars, oldest first; of more than 20,000 bars every second, third, ...
    levels : ndarray of float, of shape (n,)
        How much the market moved at each: the mean size of the returns.
    """

    times: Floats
    levels: Floats

    @classmethod
    def of(cls, market: Market, warm_up: int) -> Moments:
        """Return the times of a market's bars, from a gate's first answer on."""
        numbers = {name: bars.numbers for name, bars in market.bars.items()}
        first = max(own[min(max(1, warm_up), len(own)) - 1] for own in numbers.values() if len(own))
        times = np.unique(np.concatenate(list(numbers.values())))
        times = times[times >= first]
        sums, counts = np.zeros((2, len(times)))
        for name, bars in market.items():
            close = bars["close"].to_numpy(dtype=np.float64)
            before = close[:-1]
            moves = np.abs(np.divide(np.diff(close), before, out=np.zeros(len(before)), where=before != 0.0))
            after = numbers[name][1:]
            places = np.searchsorted(times, after[after >= first])
            np.add.at(sums, places, moves[after >= first])
            np.add.at(counts, places, 1.0)
        levels = np.divide(sums, counts, out=np.zeros(len(times)), where=counts > 0.0)
        step = -(-len(times) // _MOST_MOMENTS)
        starts = np.arange(0, len(times), max(1, step))
        counted = np.diff(np.append(starts, len(times)))
        return cls(times=times[starts], levels=np.add.reduceat(levels, starts) / counted)

    def moved(
        self, block: int, *, n: int, seed: int = 0, strata: bool = True
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the times, and those whose answers they get, as float64, `n` times over.

        With `strata` stretches in which the market moved as much change places among each other only.
        """
        drawn = self.drawn(block, seed=seed, strata=strata)
        yield from map(drawn, range(n))

    def drawn(
        self, block: int, *, seed: int = 0, strata: bool = True
    ) -> Callable[[int], tuple[bytes, bytes]]:
        """Return what gives, by the number of a draw, what `moved` yields."""
        dates = self.times.astype("<f8")
        own, levels = dates.tobytes(), self.levels if strata else None

        def draw(number: int) -> tuple[bytes, bytes]:
            order = permute_dates(len(dates), block, np.random.default_rng([seed, number]), levels)
            return own, dates[order].tobytes()

        return draw

    def block(self, answers: Sequence[DatedAnswers], trades: pd.DataFrame) -> int:
        """Return how many of them stay together; see `block_length`."""
        return block_length(len(self.times), float(self.times[-1] - self.times[0]), answers, trades)


def block_length(
    count: int,
    days: float,
    answers: Sequence[DatedAnswers],
    trades: pd.DataFrame,
    *,
    least: float = _SHORTEST,
    blocks: int = _LEAST_BLOCKS,
) -> int:
    """Return how many of some times stay together: twice as long as an answer or a trade lasts, on average.

    Parameters
    ----------
    count : int
        Number of times.
    days : float
        From the first to the last of them.
    answers : sequence of DatedAnswers
        Of the gate under test.
    trades : DataFrame
        Of its run, with ``opened`` and ``closed``.
    least : float
        A block is no shorter, but for `blocks`.
    blocks : int
        How many there are at least, of as many times.
    """
    a_day = count / days if days > 0.0 else 1.0
    lasting = [one.run_days for one in answers if math.isfinite(one.run_days)]
    held = [closed - opened for opened, closed in zip(trades["opened"], trades["closed"], strict=True)]
    holding = float(np.mean([one / pd.Timedelta(days=1) for one in held])) if held else 0.0
    longest = max(float(np.mean(lasting)) if lasting else 0.0, holding) * a_day
    wanted = math.ceil(max(_SHORTEST, least, 2.0 * longest))
    return max(1, min(count // blocks, wanted))
