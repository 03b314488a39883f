"""The figures of many replayed accounts: those of a backtest, worked out on the bars in a position only."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bt_llm.backtest import Market, earned_by, periods_per_year
from bt_llm.research._sightings import Unfit
from bt_llm.statistics import Episode, EpisodeBook, Legs, ManyTimings, Replay, Stretch

__all__ = ["Figures"]

Floats = NDArray[np.float64]

_AT_ONCE = 50_000
"""Bars in a position that are worked on together: they fit into a processor's cache."""

_EXPLAINED = 1e-6
"""Share of the account that positions and fills may leave unexplained, a bar: rounding."""


class Figures:
    """Gives the figures of replayed accounts, as `account_figures` gives those of a run.

    Parameters
    ----------
    market : Market
        Of one data.
    first : int
        The bar, from 0, whose close is the first that counts.
    slippage : float
        Share of the price that fills were worse by.
    ungated : Legs, optional
        What the ungated strategy's sides earned, to measure the timing against.
    """

    def __init__(self, market: Market, first: int, *, slippage: float = 0.0, ungated: Legs | None = None):
        self._first, self._slippage = first, slippage
        self._timings = None if ungated is None else ManyTimings.of(ungated)
        self._closes = market.first["close"].to_numpy(dtype=np.float64)
        self._count = len(self._closes) - first
        self._yearly = periods_per_year(market.index[first:])

    def of(self, found: Replay) -> list[dict[str, float] | None]:
        """Return the figures of each account; None where what it does is not known.

        Raises
        ------
        Unfit
            If positions and fills do not explain what the accounts are worth.
        """
        rows = None if self._timings is None else self._earned(found.book)
        columns, number = found.columns, found.number
        whole = {
            "trades": found.per_account(columns.trades[number]),
            "won": found.per_account(columns.gains[number]),
            "held": found.per_account(columns.held[number]),
            "traded": found.per_account(columns.traded[number] * found.scale),
        }
        made: list[dict[str, float] | None] = []
        for first, stop in self._chunks(found):
            of_chunk = {name: values[first:stop] for name, values in whole.items()}
            made += self._of_chunk(found, found.stretch(first, stop), of_chunk, rows)
        return made

    def _chunks(self, found: Replay) -> Iterator[tuple[int, int]]:
        bars = np.concatenate([[0], np.cumsum(found.length)])[found.edges]
        first = 0
        while first < len(found):
            stop = max(first + 1, int(np.searchsorted(bars, bars[first] + _AT_ONCE, side="right")) - 1)
            yield first, min(stop, len(found))
            first = stop

    def _of_chunk(
        self, found: Replay, stretch: Stretch, whole: dict[str, Floats], rows: Floats | None
    ) -> list[dict[str, float] | None]:
        cash, left = found.cash, found.left[stretch.accounts]
        with np.errstate(divide="ignore", invalid="ignore"):
            returns = stretch.value / stretch.before - 1.0
            told = found.told[stretch.accounts] & (stretch.least(stretch.value, cash) > 0.0)
            sharpe, sortino = self._ratios(stretch, returns)
            trades = whole["trades"]
            columns = {
                "final_value": left,
                "return": left / cash - 1.0,
                "sharpe": sharpe,
                "sortino": sortino,
                "max_drawdown": _drawdowns(stretch, cash),
                "trades": trades,
                "win_rate": whole["won"] / trades,
                "exposure": whole["held"] / self._count,
                "turnover": whole["traded"] / self._mean_value(found, stretch),
            }
            if rows is not None and self._timings is not None:
                earned = _added(found, stretch, rows[0]) / stretch.before
                exposures = rows[1:, stretch.source] * (stretch.scale / stretch.value)
                timing = self._timings.scores(earned, exposures, stretch, self._first + 1)
                columns["timing"] = timing
        names = list(columns)
        table = np.stack(list(columns.values()), axis=1).tolist()
        return [
            dict(zip(names, row, strict=True)) if known else None
            for known, row in zip(told.tolist(), table, strict=True)
        ]

    def _ratios(self, stretch: Stretch, returns: Floats) -> tuple[Floats, Floats]:
        """Return Sharpe and Sortino ratios a year; those of returns that never vary are not defined."""
        count = self._count - 1
        outside = count - np.diff(stretch.edges)
        mean = stretch.sums(returns) / count
        apart = stretch.sums((returns - stretch.of_each(mean)) ** 2) + outside * mean**2
        deviation = np.sqrt(apart / (count - 1))
        still = np.where(outside > 0, 0.0, np.nan)
        most = np.fmax(stretch.most(returns, -math.inf), still)
        least = np.fmin(stretch.least(returns, math.inf), still)
        varies = (most != least) & (deviation > 0.0)
        scale = math.sqrt(self._yearly)
        sharpe = np.where(varies, mean / deviation * scale, math.nan)
        risk = np.sqrt(stretch.sums(np.minimum(returns, 0.0) ** 2) / count)
        without = np.where(mean > 0.0, math.inf, math.nan)
        return sharpe, np.where(risk > 0.0, mean / risk, without) * scale

    def _mean_value(self, found: Replay, stretch: Stretch) -> Floats:
        """Return the mean value of each account over the bars that count."""
        taken = stretch.taken
        number, start, length = found.number[taken], found.start[taken], found.length[taken]
        edges = found.edges[stretch.accounts.start : stretch.accounts.stop + 1] - taken.start
        bar = found.columns.bar[number]
        ends = np.full(len(bar) + len(edges) - 1, found.book.bars)
        before = np.full(len(ends), self._first)
        levels = np.empty(len(ends))
        own = np.arange(len(bar)) + np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        last = edges[1:] + np.arange(len(edges) - 1)
        ends[own], levels[own], levels[last] = bar, start, found.left[stretch.accounts]
        before[own + 1] = bar + length
        sums = np.add.reduceat(levels * (ends - before), np.concatenate([[0], last[:-1] + 1]))
        mean: Floats = (stretch.sums(stretch.value) + sums) / self._count
        return mean

    def _earned(self, book: EpisodeBook) -> Floats:
        """Return what the positions of each episode earn by bar, and the values of long and of short ones.

        In the money of the account that it was seen in. They are worked out on one line of bars: those of
        all episodes, a bar after each on which all is flat.
        """
        episodes = book.episodes
        lengths = np.array([len(one.path) for one in episodes], dtype=np.intp)
        begins = np.cumsum(lengths + 1) - lengths - 1
        bars = np.arange(int(lengths.sum()) + len(lengths))
        own = np.ones(len(bars), dtype=bool)
        own[begins + lengths] = False
        bar = np.array([one.bar for one in episodes], dtype=np.intp)
        places = bars - np.repeat(begins - bar, lengths + 1)
        fills = np.concatenate([np.zeros((4, 0)), *(_closed(one) for one in episodes)], axis=1)
        counts = [one.fills.shape[1] + 1 for one in episodes]
        money = earned_by(
            self._closes[np.minimum(places, len(self._closes) - 1)],
            fills[0].astype(np.intp) - 1 + np.repeat(begins - bar, counts),
            *fills[1:],
            slippage=self._slippage,
        )
        gained, costs = money[0] + money[1], money[4]
        paths = np.concatenate([np.zeros(0), *(np.diff(one.path, prepend=0.0) for one in episodes)])
        worth = np.repeat([one.value for one in episodes], lengths)
        if np.any(np.abs(paths - (gained - costs)[own]) > _EXPLAINED * worth):
            raise Unfit("some of what its account gains is neither of its positions nor of its fills")
        return np.stack([gained, money[2], money[3]])[:, own]


def _added(found: Replay, stretch: Stretch, earned: Floats) -> Floats:
    """Return what positions earned on each bar, by what those of the episodes do.

    Where an exit and the next entry fill on one bar, what the exit does there is the earlier episode's.
    """
    added = earned[stretch.source] * stretch.scale
    taken = stretch.taken
    number, length = found.number[taken], found.length[taken]
    columns = found.columns
    both = columns.bar[number[1:]] < columns.resume[number[:-1]]
    edges = found.edges[stretch.accounts.start : stretch.accounts.stop + 1]
    whose = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    both &= (length[1:] > 0) & (whose[1:] == whose[:-1])
    earlier = np.flatnonzero(both)
    exits = columns.offset[number[earlier]] + length[earlier]
    added[stretch.starts[earlier + 1]] += earned[exits] * found.scale[taken][earlier]
    return added


def _drawdowns(stretch: Stretch, cash: float) -> Floats:
    """Return the largest fall of each account from a peak, as a share of it."""
    found = np.zeros(len(stretch.edges) - 1)
    for account, (low, high) in enumerate(zip(stretch.edges[:-1], stretch.edges[1:], strict=True)):
        if high > low:
            value = stretch.value[low:high]
            peak = np.maximum(np.maximum.accumulate(value), cash)
            found[account] = np.max(1.0 - value / peak)
    return np.maximum(found, 0.0)


def _closed(episode: Episode) -> Floats:
    """Return an episode's fills, and one a bar after its end that closes what is still open then."""
    sizes = episode.fills[1]
    end = [episode.bar + len(episode.path) + 1, -math.fsum(sizes), 1.0, 0.0]
    closed: Floats = np.concatenate([episode.fills, np.array([end]).T], axis=1)
    return closed
