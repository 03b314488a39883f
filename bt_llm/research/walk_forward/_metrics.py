"""Figures of a window, and how trials are ranked by one of them."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.research._ledger import TrialOutcome

__all__ = ["Metric", "best_of", "measure", "returns_of", "sharpe_per_bar"]

Floats = NDArray[np.float64]
Metrics = dict[str, float]


class Metric(enum.StrEnum):
    """What the best trial of a train window is chosen by."""

    SHARPE = "sharpe"
    SORTINO = "sortino"
    CALMAR = "calmar"
    RETURN = "return"
    MAX_DRAWDOWN = "max_drawdown"

    def score(self, metrics: Metrics) -> float:
        """Return the figure such that more is better; NaN where it has no meaning."""
        return -metrics[self] if self is Metric.MAX_DRAWDOWN else metrics[self]


def returns_of(equity: Floats) -> Floats:
    """Return the simple return of each bar after the first; an account that is ruined stays at zero."""
    ruined = np.flatnonzero(equity <= 0.0)
    returns = np.zeros(max(len(equity) - 1, 0))
    alive = int(ruined[0]) if len(ruined) else len(equity)
    returns[: max(alive - 1, 0)] = equity[1:alive] / equity[: max(alive - 1, 0)] - 1.0
    if 0 < alive < len(equity):
        returns[alive - 1] = -1.0
    return returns


def sharpe_per_bar(returns: Floats) -> float:
    """Return the Sharpe ratio per bar; NaN for fewer than two returns, or none that vary."""
    return statistics.sharpe_ratio(returns) if len(returns) > 1 else math.nan


def measure(outcome: TrialOutcome, returns: Floats, periods_per_year: float) -> Metrics:
    """Return the figures of a window; NaN where one has no meaning, as all ratios of a ruined account.

    Parameters
    ----------
    outcome : TrialOutcome
        The facts.
    returns : ndarray
        Simple returns of the bars that count.
    periods_per_year : float
        Bars in a year.
    """
    enough = len(returns) > 1 and bool(outcome.equity.min() > 0.0)  # a ruined account has no ratios
    growth = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    n_bars, mean_value = len(outcome.equity), float(np.mean(outcome.equity))
    return {
        "final_value": float(outcome.equity[-1]),
        "return": float(growth[-1] - 1.0),
        "annual_return": float(returns.mean() * periods_per_year) if enough else math.nan,
        "sharpe": statistics.sharpe_ratio(returns, periods_per_year) if enough else math.nan,
        "sortino": statistics.sortino_ratio(returns, periods_per_year) if enough else math.nan,
        "calmar": statistics.calmar_ratio(growth, periods_per_year) if enough else math.nan,
        "max_drawdown": statistics.max_drawdown(growth),
        "trades": float(outcome.trades),
        "win_rate": outcome.wins / outcome.trades if outcome.trades else math.nan,
        "exposure": outcome.held / n_bars,
        "turnover": outcome.traded / mean_value if enough else math.nan,
    }


def best_of(metrics: Sequence[Metrics], metric: Metric, min_trades: int) -> int:
    """Return the position of the best trial; of those that tie, the first.

    One with too few trades, or without a score, is chosen only if there is no other.
    """
    scores = [metric.score(found) for found in metrics]
    fits = [
        found["trades"] >= min_trades and not math.isnan(score)
        for found, score in zip(metrics, scores, strict=True)
    ]
    ranks = [
        (fit, -math.inf if math.isnan(score) else score) for fit, score in zip(fits, scores, strict=True)
    ]
    return max(range(len(ranks)), key=lambda i: (ranks[i], -i))
