"""All figures of an account: those that were measured, and what its values and trades tell besides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.backtest._year import periods_per_year
from bt_llm.exceptions import BtLlmError, DataError

__all__ = ["Accounted", "Figures", "figures_of", "figures_table"]

_LEAST_DAYS = 90
"""Of bars from which a growth a year is told."""


class Accounted(Protocol):
    """What figures are made of; a result of a run, a pooled record, a walk-forward result."""

    @property
    def equity(self) -> pd.Series[float]:
        """Its value at each bar's close, by time."""

    @property
    def trades(self) -> pd.DataFrame:
        """Its closed trades."""

    @property
    def metrics(self) -> dict[str, float]:
        """Its figures."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of an account by name, and why there is none of others.

    Attributes
    ----------
    values : dict of str to float
        NaN where there is none.
    reasons : dict of str to str
        Of those that are NaN or infinite, why.
    """

    values: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)


def figures_of(account: Accounted, benchmark: Accounted | None = None) -> Figures:
    """Return the figures of an account: its metrics, and what its values, trades and fills tell.

    Parameters
    ----------
    account : BacktestResult, PooledRun or WalkForwardResult
        What came of it.
    benchmark : the same, optional
        Such as buy and hold on the same bars; without one there is no alpha, beta and correlation.

    Notes
    -----
    Everything a year is scaled by `periods_per_year` of the bars. Growth, and Calmar with it, is not told of
    bars that span less than 90 days; a ruined account has no ratios. See `statistics` for each formula.
    """
    values, reasons = dict(account.metrics), dict[str, str]()

    def tell(name: str, make: Callable[[], float], why_none: str = "") -> None:
        try:
            found = make()
        except BtLlmError as error:
            values[name], reasons[name] = math.nan, str(error)
            return
        values[name] = found
        if not math.isfinite(found):
            reasons[name] = why_none or "it has no meaning here"

    equity = account.equity
    for name, make in _of_values(equity).items():
        tell(name, make, "the account never fell")
    results = account.trades["pnlcomm"].to_numpy(dtype=np.float64)
    none = "no trade was closed" if not len(results) else "no trade lost"
    tell("profit_factor", lambda: statistics.profit_factor(results), none)
    tell("expectancy", lambda: statistics.expectancy(results), "no trade was closed")
    tell("sqn", lambda: statistics.system_quality_number(results), "it takes two trades that differ")
    fills: pd.DataFrame | None = getattr(account, "fills", None)
    if fills is not None:
        tell("commission", lambda: float(fills["commission"].sum()))
    if benchmark is not None:
        _tell_benchmark(tell, equity, benchmark.equity)
    return Figures(values=values, reasons=reasons | _why(account, values, reasons))


def _of_values(equity: pd.Series[float]) -> Mapping[str, Callable[[], float]]:
    index, curve = pd.DatetimeIndex(equity.index), equity.to_numpy(dtype=np.float64)
    yearly = periods_per_year(index)

    def solvent() -> None:
        if curve.min() <= 0.0:
            raise DataError("the account was ruined")
        if len(curve) < 3:
            raise DataError(f"{len(curve)} bars are too few")

    def long_enough() -> None:
        solvent()
        days = (index[-1] - index[0]) / pd.Timedelta(days=1)
        if days < _LEAST_DAYS:
            raise DataError(f"the bars span {days:.0f} days, and a growth a year takes {_LEAST_DAYS}")

    def growth() -> float:
        long_enough()
        return statistics.annual_growth(curve, yearly)

    def spread() -> float:
        solvent()
        return statistics.volatility(curve[1:] / curve[:-1] - 1.0, yearly)

    def calmar() -> float:
        long_enough()
        return statistics.calmar_ratio(curve, yearly)

    def longest() -> float:
        solvent()
        found = statistics.drawdowns(curve)
        ends = [(one.peak, len(curve) - 1 if one.recovered is None else one.recovered) for one in found]
        return max(((index[end] - index[start]) / pd.Timedelta(days=1) for start, end in ends), default=0.0)

    return {"annual_growth": growth, "volatility": spread, "calmar": calmar, "longest_drawdown": longest}


def _tell_benchmark(tell: Callable[..., None], equity: pd.Series[float], other: pd.Series[float]) -> None:
    found: list[statistics.MarketModel] = []

    def model() -> statistics.MarketModel:
        if found:
            return found[0]
        if not equity.index.equals(other.index):
            raise DataError("the benchmark is not of the same bars")
        if min(float(equity.min()), float(other.min())) <= 0.0:
            raise DataError("the account, or the benchmark's, was ruined")
        own, benchmark = (one.pct_change().iloc[1:].to_numpy(dtype=np.float64) for one in (equity, other))
        found.append(
            statistics.market_model(own, benchmark, periods_per_year(pd.DatetimeIndex(equity.index)))
        )
        return found[0]

    for name in ("alpha", "beta", "correlation"):
        tell(name, lambda name=name: float(getattr(model(), name)), "the account never moved")


def _why(account: Accounted, values: Mapping[str, float], known: Mapping[str, str]) -> dict[str, str]:
    """Return why metrics that were measured are not numbers."""
    ruined = float(account.equity.min()) <= 0.0
    trades = values.get("trades", 0.0)
    found = {}
    for name, value in values.items():
        if math.isfinite(value) or name in known:
            continue
        if name in ("win_rate", "hit_rate") and not trades:
            found[name] = "no trade was closed"
        elif ruined:
            found[name] = "the account was ruined"
        elif math.isinf(value):
            found[name] = "no bar lost"
        else:
            found[name] = "the account never moved"
    return found


def figures_table(accounts: Mapping[str, Accounted], benchmark: str | None = None) -> dict[str, Figures]:
    """Return the figures of several accounts by name; the benchmark has no alpha to itself."""
    other = None if benchmark is None else accounts[benchmark]
    return {name: figures_of(one, None if one is other else other) for name, one in accounts.items()}


def frame_of_figures(figures: Mapping[str, Figures]) -> pd.DataFrame:
    """Return figures as numbers, one column an account."""
    names = dict.fromkeys(name for one in figures.values() for name in one.values)
    columns: dict[str, list[Any]] = {
        account: [one.values.get(name, math.nan) for name in names] for account, one in figures.items()
    }
    return pd.DataFrame(columns, index=pd.Index(list(names), name="figure"), dtype=np.float64)
