"""A gate on many symbols among null gates: its answers on other dates, the same in all symbols."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest import Market, PanelRun, Universe, periods_per_year
from bt_llm.gates import (
    DatedAnswers,
    DatesGate,
    EntryGate,
    permute_dates,
)
from bt_llm.models import Progress
from bt_llm.research._gate_runs import FEWEST, GateRuns, HowRun
from bt_llm.research._kept_runs import KeptRuns
from bt_llm.research._moments import block_length
from bt_llm.research._null_runs import NullRuns
from bt_llm.research._workers import chunk_size, leaves, run_each, stays_here
from bt_llm.shown import Told

__all__ = ["EvaluatePanel", "PanelNulls", "joint_null_runs"]

Floats = NDArray[np.float64]

EvaluatePanel: TypeAlias = Callable[[str, Sequence[EntryGate]], Sequence[Floats]]
"""From a symbol and gates to the account's value at each bar with each gate, as `run_backtest` gives it."""

_KIND = "gates with the same answers on other dates, the same dates in all symbols"
_LEAST_BLOCKS = 10


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelNulls(Told):
    """A gate's pooled result, and those of its symbols, among null gates.

    Attributes
    ----------
    pooled : NullRuns
        Of the pooled record.
    symbols : DataFrame
        One row a symbol: ``sharpe`` a year, ``above``, the share of null gates below it, and ``p_value``,
        adjusted for the number of symbols: of the largest deviation among them all, in standard deviations of
        its nulls.
    block_dates : int
        Dates in a block that kept its order.
    how : HowRun
        How many of the symbols' accounts with null gates were replayed, and how good that is.
    """

    pooled: NullRuns
    symbols: pd.DataFrame
    block_dates: int
    how: HowRun = field(default_factory=HowRun)


def joint_null_runs(
    strategy: type[bt.Strategy] | str,
    universe: Universe,
    gated: PanelRun,
    held: PanelRun,
    answers: Mapping[str, tuple[DatedAnswers, ...]],
    *,
    warm_up: int,
    n: int,
    seed: int,
    block_bars: int,
    n_jobs: int | None = None,
    on_progress: Progress | None = None,
    evaluate: EvaluatePanel | None = None,
    kept: KeptRuns | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PanelNulls:
    """Return a pooled result among those of gates that give the same answers on other dates.

    Parameters
    ----------
    strategy, settings
        As in `run_backtest`.
    universe : Universe
        The symbols; those of `gated` count.
    gated, held : PanelRun
        With the gate under test, and buying and holding, whose volatility the blocks are sorted by.
    answers : mapping of str to tuple of DatedAnswers
        Of the gate under test, by symbol.
    warm_up : int
        Of that gate.
    n, seed : int
        How many null gates, and where chance comes from.
    block_bars : int
        Bars that blocks have at least.
    n_jobs, on_progress
        As in `gate_test`.
    evaluate : callable, optional
        Runs the null gates instead of Backtrader.
    kept : KeptRuns, optional
        Where accounts that Backtrader ran are looked for, and kept; workers on other machines keep none.
    """
    dates = _dates(gated)
    days = dates.to_numpy()
    block = _block_dates(gated, answers, len(days), block_bars)
    levels = _levels(held, dates)
    orders = [permute_dates(len(days), block, np.random.default_rng([seed, k]), levels) for k in range(n)]

    def gates(symbol: str) -> list[EntryGate]:
        own = pd.DatetimeIndex(gated.symbols[symbol].equity.index).normalize()
        inside = (dates >= own[0]) & (dates <= own[-1])
        numbers = np.array([bt.date2num(day) for day in dates[inside]], dtype="<f8")
        days_of_all = numbers.tobytes()
        told = answers.get(symbol, ())
        made: list[EntryGate] = []
        for order in orders:
            if inside.all():
                others = numbers[order]
            else:  # the days it has, in the order in which all of them come
                places = (np.cumsum(inside) - 1)[order[inside[order]]]
                others = numbers[np.resize(places, len(numbers))]
            made.append(DatesGate(answers=told, dates=days_of_all, others=others.tobytes(), warm_up=warm_up))
        return made

    found, how = _Pool(gated, n), list[HowRun]()
    done = 0
    for symbol, start, equities in _evaluated(
        strategy, universe, list(gated.symbols), gates, n, n_jobs, evaluate, dict(settings or {}), how, kept
    ):
        found.add(symbol, start, equities)
        done += len(equities)
        if on_progress is not None:
            on_progress(done, n * len(gated.symbols))
    nulls = NullRuns(kind=_KIND, observed=gated.metrics, nulls=found.pooled(), tested="sharpe")
    return PanelNulls(
        pooled=nulls,
        symbols=found.by_symbol(),
        block_dates=block,
        how=functools.reduce(HowRun.plus, how, HowRun()),
    )


def _dates(run: PanelRun) -> pd.DatetimeIndex:
    """Return the days on which some account has a bar."""
    days = [pd.DatetimeIndex(one.equity.index).normalize() for one in run.symbols.values()]
    return pd.DatetimeIndex(days[0].append(days[1:]).unique().sort_values())


def _levels(held: PanelRun, dates: pd.DatetimeIndex) -> Floats:
    """Return how much the symbols moved on each day, on average."""
    moves = held.by_symbol.abs().mean(axis=1)
    daily = moves.groupby(pd.DatetimeIndex(moves.index).normalize()).sum()
    return daily.reindex(dates).fillna(float(daily.mean())).to_numpy(dtype=np.float64)


def _block_dates(
    gated: PanelRun, answers: Mapping[str, tuple[DatedAnswers, ...]], count: int, block_bars: int
) -> int:
    """Return how many dates stay together: twice as long as an answer or a trade lasts, on average."""
    index = pd.DatetimeIndex(gated.returns.index)
    told = [one for of_symbol in answers.values() for one in of_symbol]
    days = (index[-1] - index[0]) / pd.Timedelta(days=1)
    least = block_bars * count / max(1, len(index))
    return block_length(count, max(1.0, days), told, gated.trades, least=least, blocks=_LEAST_BLOCKS)


def _evaluated(
    strategy: type[bt.Strategy] | str,
    universe: Universe,
    symbols: Sequence[str],
    gates: Callable[[str], list[EntryGate]],
    n: int,
    n_jobs: int | None,
    evaluate: EvaluatePanel | None,
    settings: dict[str, Any],
    how: list[HowRun],
    kept: KeptRuns | None,
) -> Iterator[tuple[str, int, Sequence[Floats]]]:
    """Yield symbols, numbers of the first null gate of some, and what their accounts were worth.

    How each was found is added to `how`.
    """
    if evaluate is not None:
        for symbol in symbols:
            yield symbol, 0, evaluate(symbol, gates(symbol))
        return
    # A symbol's gates are replayed together, and shared out only where symbols are too few for all workers.
    share = chunk_size(n, n_jobs, chunks=1) if leaves(n_jobs) else n
    size = min(n, max(FEWEST, share * len(symbols)))
    keeping = kept if kept is not None and stays_here(n_jobs) else None
    places = [(symbol, start) for symbol in symbols for start in range(0, n, size)]

    def chunks() -> Iterator[tuple[Any, ...]]:
        made: tuple[str, list[EntryGate]] = ("", [])
        for symbol, start in places:
            made = made if made[0] == symbol else (symbol, gates(symbol))
            own = universe.members[symbol].run_settings(settings)
            yield strategy, universe[symbol], made[1][start : start + size], own, keeping, symbol

    known: dict[str, frozenset[statistics.Question]] = dict.fromkeys(symbols, frozenset())
    with contextlib.closing(run_each(_equities, chunks(), n_jobs, ordered=True)) as done:
        for (symbol, start), (equities, one, episodes) in zip(places, done, strict=True):
            how.append(dataclasses.replace(one, episodes=len(episodes - known[symbol])))
            known[symbol] |= episodes
            yield symbol, start, equities


def _equities(
    strategy: type[bt.Strategy] | str,
    market: Market,
    gates: Sequence[EntryGate],
    settings: dict[str, Any],
    kept: KeptRuns | None,
    symbol: str,
) -> tuple[list[Floats], HowRun, frozenset[statistics.Question]]:
    runs = GateRuns(strategy, market, kept=kept, place=symbol, **settings)
    return runs.equities(gates), runs.how, runs.episodes


class _Pool:
    """Pools the accounts of null gates as `PanelRun` does, without keeping them all."""

    def __init__(self, gated: PanelRun, n: int) -> None:
        times = gated.by_symbol.index
        self._gated, self._n = gated, n
        self._places = {name: times.get_indexer(run.equity.index[1:]) for name, run in gated.symbols.items()}
        self._sums = np.zeros((n, len(times)))
        self._sharpes = {name: np.zeros(n) for name in gated.symbols}
        self._yearly = periods_per_year(pd.DatetimeIndex(times))

    def add(self, symbol: str, start: int, equities: Sequence[Floats]) -> None:
        places, weight = self._places[symbol], self._gated.weights[symbol]
        for number, equity in enumerate(equities, start=start):
            values = np.full(
                len(places) + 1, max(float(equity[-1]), 0.0)
            )  # of a ruined account: as it was left
            values[: len(equity)] = equity
            alive = values[:-1] > 0.0
            returns = np.zeros(len(places))
            returns[alive] = values[1:][alive] / values[:-1][alive] - 1.0
            self._sums[number, places] += weight * returns
            self._sharpes[symbol][number] = _sharpe(returns, self._yearly)

    def pooled(self) -> pd.DataFrame:
        """Return the metrics of each null gate's pooled record; a ruined account stays at nothing in it."""
        known = np.isfinite(self._gated.by_symbol.to_numpy())
        weights = known @ np.array([self._gated.weights[str(name)] for name in self._gated.by_symbol.columns])
        there = weights > 0.0
        returns = self._sums[:, there] / weights[there]
        sharpes = [_sharpe(row, self._yearly) for row in returns]
        growth = np.prod(1.0 + returns, axis=1) - 1.0
        return pd.DataFrame({"return": growth, "sharpe": sharpes})

    def by_symbol(self) -> pd.DataFrame:
        """Return where each symbol stands, its p-value adjusted for all of them."""
        names = list(self._sharpes)
        nulls = np.column_stack([self._sharpes[name] for name in names])
        runs = self._gated.by_symbol
        observed = np.array([_sharpe(runs[name].dropna().to_numpy(), self._yearly) for name in names])
        mean, spread = nulls.mean(axis=0), nulls.std(axis=0)
        moves = spread > 1e-9
        scaled = (nulls[:, moves] - mean[moves]) / spread[moves]
        largest = np.max(scaled, axis=1, initial=-math.inf)
        p_values = np.ones(len(names))
        for place in np.flatnonzero(moves):
            at = (observed[place] - mean[place]) / spread[place]
            p_values[place] = statistics.rank_p_value(at, largest)
        above = np.mean(nulls < observed, axis=0)
        frame = {"sharpe": observed, "above": above, "p_value": p_values}
        return pd.DataFrame(frame, index=pd.Index(names, name="symbol"))


def _sharpe(returns: Floats, yearly: float) -> float:
    """Return the Sharpe ratio a year; that of cash is 0."""
    ratio = statistics.sharpe_ratio(returns, periods_per_year=yearly) if len(returns) > 1 else math.nan
    return ratio if math.isfinite(ratio) else 0.0
