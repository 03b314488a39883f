"""Many symbols pooled: one record of all their accounts, by time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.backtest._figures import Accounted
from bt_llm.backtest._findings import Bootstrap
from bt_llm.backtest._result import BacktestResult
from bt_llm.backtest._showing import OneRun
from bt_llm.backtest._year import periods_per_year, year_assumed
from bt_llm.exceptions import DataError
from bt_llm.plain_text import counted
from bt_llm.shown import Told
from bt_llm.statistics import BootstrapResult, Statistic

__all__ = [
    "PanelEffect",
    "PanelRun",
    "PooledRun",
    "account_shares",
    "aligned_returns",
    "effect_between",
    "pooled_returns",
]

_NAMED = 3
_NUMBERS = re.compile(r"[\d,.]+")


def aligned_returns(equities: Mapping[str, pd.Series[float]]) -> pd.DataFrame:
    """Return the simple returns of many accounts on all times at which one of them has a bar.

    Parameters
    ----------
    equities : mapping of str to Series
        Value of each account at its bars' closes, by time.

    Returns
    -------
    DataFrame
        One column an account; NaN up to its first bar and after its last, and 0 where it has no bar between.

    Examples
    --------
    >>> days = pd.date_range("2024-01-01", periods=4)
    >>> equities = {"a": pd.Series([100.0, 110.0, 121.0], days[:3]), "b": pd.Series([50.0, 55.0], days[2:])}
    >>> aligned_returns(equities).round(3).to_numpy().tolist()
    [[0.1, nan], [0.1, nan], [nan, 0.1]]
    """
    frame = pd.concat(dict(equities), axis=1, sort=True)
    values = frame.to_numpy(dtype=np.float64)
    known = np.isfinite(values)
    begun = np.logical_or.accumulate(known, axis=0)
    goes_on = np.logical_or.accumulate(known[::-1], axis=0)[::-1]
    filled = frame.ffill().to_numpy(dtype=np.float64)
    alive = begun[:-1] & goes_on[1:]
    returns = np.full(alive.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(filled[1:], filled[:-1], out=returns, where=alive)
    return pd.DataFrame(returns - 1.0, index=pd.DatetimeIndex(frame.index[1:]), columns=frame.columns)


def pooled_returns(returns: pd.DataFrame, weights: Mapping[str, float]) -> pd.Series[float]:
    """Return the weighted mean return of the accounts that there are at each time.

    Parameters
    ----------
    returns : DataFrame
        As from `aligned_returns`.
    weights : mapping of str to float
        By column; of the accounts that are there they are scaled to a sum of 1.

    Returns
    -------
    Series
        Times without any account are left out.
    """
    shares = account_shares(returns, weights)
    there = (shares.sum(axis=1) > 0.0).to_numpy()
    pooled = (returns.fillna(0.0) * shares).sum(axis=1).to_numpy()[there]
    return pd.Series(pooled, index=returns.index[there], name="return")


def account_shares(returns: pd.DataFrame, weights: Mapping[str, float]) -> pd.DataFrame:
    """Return each account's share of the pooled one at each time; 0 where it is not there.

    Parameters
    ----------
    returns, weights
        As of `pooled_returns`.
    """
    shares = returns.notna().to_numpy() * np.array([weights[str(name)] for name in returns.columns])
    total = shares.sum(axis=1, keepdims=True)
    found = np.divide(shares, total, out=np.zeros_like(shares, dtype=float), where=total > 0.0)
    return pd.DataFrame(found, index=returns.index, columns=returns.columns)


A = TypeVar("A", bound=Accounted, covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PooledRun(Generic[A], OneRun):
    """Accounts of many symbols as one record.

    Each symbol trades an account of its own, from the first bar after its own warm-up to its last. The pooled
    return of a bar is the mean, by weight, of those of the accounts that there are: as if their values were
    brought back to the weights at every bar, at no cost.

    Attributes
    ----------
    name : str
        Of the run, such as ``gated``.
    symbols : mapping of str to result
        What came of the account of each symbol.
    weights : mapping of str to float
        Of each.
    """

    name: str
    symbols: Mapping[str, A]
    weights: Mapping[str, float]

    @cached_property
    def by_symbol(self) -> pd.DataFrame:
        """Returns of the accounts, one column a symbol; see `aligned_returns`."""
        return aligned_returns({name: run.equity for name, run in self.symbols.items()})

    @cached_property
    def returns(self) -> pd.Series[float]:
        """The pooled return of each bar; see `pooled_returns`."""
        return pooled_returns(self.by_symbol, self.weights)

    @property
    def shares(self) -> pd.DataFrame:
        """Share of each account in the pooled one at each time, one column a symbol."""
        return account_shares(self.by_symbol, self.weights)

    @property
    def equity(self) -> pd.Series[float]:
        """Growth of the pooled record, 1 at the first bar."""
        first = min(run.equity.index[0] for run in self.symbols.values())
        growth = np.concatenate([[1.0], np.cumprod(1.0 + self.returns.to_numpy())])
        index = pd.DatetimeIndex([first]).append(pd.DatetimeIndex(self.returns.index))
        return pd.Series(growth, index=index.rename("time"), name="equity")

    @property
    def ruined(self) -> bool:
        """Whether one of the accounts was ruined: the pooled record has no ratios then."""
        return any(float(one.equity.min()) <= 0.0 for one in self.symbols.values())

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Figures of the pooled record; trades are of all symbols, exposure and turnover are means."""
        returns, runs = self.returns.to_numpy(), [run.metrics for run in self.symbols.values()]
        shares = np.array([self.weights[name] for name in self.symbols])
        won = sum(m["win_rate"] * m["trades"] for m in runs if m["trades"])
        trades = sum(m["trades"] for m in runs)
        figures = {
            "return": float(np.prod(1.0 + returns) - 1.0),
            **dict.fromkeys(("annual_return", "sharpe", "sortino", "max_drawdown"), math.nan),
            "trades": trades,
            "win_rate": won / trades if trades else math.nan,
            "exposure": float(np.average([m["exposure"] for m in runs], weights=shares)),
            "turnover": float(np.average([m["turnover"] for m in runs], weights=shares)),
        }
        if not self.ruined and len(returns) > 1:
            yearly = periods_per_year(pd.DatetimeIndex(self.returns.index))
            figures["annual_return"] = float(returns.mean() * yearly)
            figures["sharpe"] = statistics.sharpe_ratio(returns, periods_per_year=yearly)
            figures["sortino"] = statistics.sortino_ratio(returns, periods_per_year=yearly)
            figures["max_drawdown"] = statistics.max_drawdown(self.equity.to_numpy())
        return figures

    @property
    def trades(self) -> pd.DataFrame:
        """The closed trades of all symbols by time of opening, with a column ``symbol``."""
        parts = [run.trades.assign(symbol=name) for name, run in self.symbols.items()]
        full = [part for part in parts if len(part)] or parts[:1]
        return pd.concat(full, ignore_index=True).sort_values("opened", kind="stable", ignore_index=True)

    @property
    def figures(self) -> dict[str, float | None]:
        """The metrics for JSON: None for what is undefined."""
        return {key: value if math.isfinite(value) else None for key, value in self.metrics.items()}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelRun(PooledRun[BacktestResult]):
    """The runs of many symbols as one record."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything: what is wrong with any account, or with all the gates."""
        found: dict[str, list[str]] = {}
        runs = self.symbols
        for name, run in runs.items():
            for problem in run.problems:
                if problem not in run.gate_problems:
                    kind = _NUMBERS.sub("", problem.partition(" at ")[0]).replace(" orders", " order")
                    found.setdefault(kind, []).append(f"{name}: {problem}")
        more = {
            kind: f" (and {counted(len(said) - 1, 'more symbol')})"
            for kind, said in found.items()
            if said[1:]
        }
        told = [said[0] + more.get(kind, "") for kind, said in found.items()]
        kinds = [{text.partition(":")[0] for text in run.gate_problems} for run in runs.values()]
        shared = set.intersection(*kinds) if kinds else set()
        first = next(iter(runs.values()))
        return (*told, *(text for text in first.gate_problems if text.partition(":")[0] in shared))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the symbols' bars, one line each."""
        said: dict[str, list[str]] = {}
        for name, run in self.symbols.items():
            for note in run.notes:
                said.setdefault(note, []).append(name)
        found = [f"{_listed(names)}: {note}" for note, names in said.items()]
        year = year_assumed(pd.DatetimeIndex(self.returns.index))
        return (*((year,) if year else ()), *found)

    @property
    def settled(self) -> tuple[str, ...]:
        """Which positions were closed because the bars ended, in one line or two."""
        end = max(run.equity.index[-1] for run in self.symbols.values())
        open_ones = {name: run.settled.iloc[-1] for name, run in self.symbols.items() if len(run.settled)}
        early = [
            f"{name} on {fill['time']:%Y-%m-%d} at {fill['price']:g}"
            for name, fill in open_ones.items()
            if fill["time"] < end
        ]
        last = len(open_ones) - len(early)
        found = []
        if early:
            shown = "; ".join(early[:_NAMED])
            shown += f"; and {len(early) - _NAMED} more" if early[_NAMED:] else ""
            found.append(f"{self.name}: closed at its last close, as the symbol's bars end: {shown}")
        if last:
            found.append(f"{self.name}: {counted(last, 'position')} closed at the last close of all, {end}")
        return tuple(found)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if names[_NAMED:] else shown


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelEffect(Told):
    """How two runs of a panel differ: pooled, and symbol by symbol.

    Attributes
    ----------
    name : str
        What is compared, such as ``gated less ungated``.
    statistic : Statistic
        Which figure, a year.
    pooled : BootstrapResult
        Of the pooled records.
    symbols : dict of str to BootstrapResult
        Of each symbol; the intervals hold all at once.
    weights : dict of str to float
        Share of each symbol in the pooled record, over all its bars.
    """

    name: str
    statistic: Statistic
    pooled: BootstrapResult
    symbols: dict[str, BootstrapResult]
    weights: dict[str, float]


def effect_between(
    first: PanelRun, second: PanelRun, bootstrap: Bootstrap, statistic: Statistic | str = Statistic.SHARPE
) -> PanelEffect:
    """Return how two runs of the same symbols differ, resampled jointly over dates.

    Parameters
    ----------
    first, second : PanelRun
        On the same symbols and bars; the first less the second.
    bootstrap : Bootstrap
        How; blocks are of dates, and all symbols of a block are drawn together.
    statistic : {'sharpe', 'return'}
        What differs.

    Raises
    ------
    DataError
        If the two are not of the same bars.
    """
    pooled = bootstrap.difference(first.returns, second.returns, statistic)
    one, two = first.by_symbol, second.by_symbol
    if not one.index.equals(two.index) or list(one.columns) != list(two.columns):
        raise DataError(f"{first.name} and {second.name}: expected the same symbols and bars in both")
    enough = [name for name in one.columns if one[name].notna().sum() > 1]
    found = statistics.joint_differences(
        one[enough].to_numpy(),
        two[enough].to_numpy(),
        statistic,
        block_length=max(1, pooled.block_length),
        n=bootstrap.resamples,
        seed=bootstrap.seed,
        periods_per_year=periods_per_year(pd.DatetimeIndex(one.index)),
    )
    return PanelEffect(
        name=f"{first.name} less {second.name}",
        statistic=Statistic(statistic),
        pooled=pooled,
        symbols=dict(zip(map(str, enough), found, strict=True)),
        weights={str(name): float(share) for name, share in first.shares.mean().items()},
    )
