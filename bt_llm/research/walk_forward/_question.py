"""The one question of a walk-forward study: whether its record is more than the best of what was tried."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from bt_llm import statistics
from bt_llm.backtest import Primary
from bt_llm.exceptions import DataError
from bt_llm.plain_text import counted
from bt_llm.statistics import ReturnMoments, Statistic

__all__ = ["sharpe_question"]

_FEWEST = 10
"""Out-of-sample trades before a p-value is relied on."""


def sharpe_question(
    returns: ArrayLike,
    deflated: float,
    *,
    n_trials: int,
    trades: float,
    periods_per_year: float,
    alpha: float = 0.05,
) -> Primary:
    """Return whether the true Sharpe ratio of a record is above 0, as the best of all that was tried.

    Parameters
    ----------
    returns : array_like of shape (n_bars,)
        The out-of-sample returns.
    deflated : float
        Their deflated Sharpe ratio, a probability; the p-value is what is left of 1.
    n_trials : int
        All that was tried.
    trades : float
        Closed out-of-sample trades.
    periods_per_year : float
        Bars in a year.
    alpha : float
        Level of the test.

    Notes
    -----
    The p-value is from a normal tail, and has no least value; it is right where the record is long, and too
    small with few trades: with fewer than ten there is none.
    """
    reason = ""
    if trades < _FEWEST:
        reason = f"the record has {counted(trades, 'trade')}, and at least {_FEWEST} are needed"
    elif math.isnan(deflated):
        reason = "the Sharpe ratio of the record, or of the trials, has no meaning"
    return Primary(
        claim=f"the true Sharpe ratio is above 0, as the best of {n_trials} configurations tried",
        p_value=1.0 - deflated,
        smallest=0.0,
        alpha=alpha,
        detectable=None if reason else _detectable(returns, deflated, periods_per_year, alpha),
        statistic=Statistic.SHARPE,
        reason=reason,
    )


def _detectable(returns: ArrayLike, deflated: float, periods_per_year: float, alpha: float) -> float | None:
    """Return the Sharpe ratio a year that 4 of 5 studies would find, over that of the trials' best."""
    try:
        moments = ReturnMoments.of(returns)
        error = math.sqrt(moments.dispersion / (moments.n - 1))
    except DataError:
        return None
    if not 0.0 < deflated < 1.0:
        return None
    best = moments.sharpe - statistics.normal_quantile(deflated) * error
    return (max(0.0, best) + statistics.detectable(error, alpha=alpha)) * math.sqrt(periods_per_year)
