"""What an account did: value, fills, orders and trades, as the broker that ran tells them."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest._market import Market
from bt_llm.backtest._year import periods_per_year
from bt_llm.equality import nan_equal

__all__ = [
    "Account",
    "Fill",
    "SentOrder",
    "Trade",
    "account_figures",
    "frame_of",
    "is_gain",
    "measure_account",
    "order_counts",
]

_OPEN = ("Created", "Submitted", "Accepted", "Partial")


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """A closed trade; times are Backtrader's numbers."""

    opened: float
    closed: float
    direction: int
    bars: int
    pnl: float
    pnlcomm: float
    data: str


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A fill; the time is Backtrader's number, the size negative for what was sold."""

    time: float
    data: str
    size: float
    price: float
    commission: float


@nan_equal
@dataclass(slots=True, kw_only=True)
class SentOrder:
    """An order of a strategy, and what became of it; times are Backtrader's numbers."""

    time: float
    data: str
    side: int
    size: float
    kind: str
    status: str = "Created"
    reason: str = ""
    vetoed: bool = False
    early: bool = False
    traded: float = 0.0

    @property
    def refused(self) -> bool:
        """Whether the broker refused it."""
        return self.status in ("Margin", "Rejected") and not self.vetoed


@dataclass(slots=True, kw_only=True)
class Account:
    """The account from the first bar that counts on.

    Attributes
    ----------
    numbers, equity : array of float
        Backtrader's number of each bar, and the account's value at its close.
    cash : float
        What it began with.
    held : int
        Bars with a position at their close, on whichever data.
    fills, trades : list
        All fills, and the closed trades.
    orders : dict of int to SentOrder
        All orders, by Backtrader's reference.
    ruined, ruin_value : float or None, float
        Number of the bar at whose close the account was worth nothing or less, where the run ended, and
        what it was worth then.
    settled : list of Fill
        Those of the fills that closed what was still open at the last close, no order of the strategy's.
    """

    numbers: array[float] = field(default_factory=lambda: array("d"))
    equity: array[float] = field(default_factory=lambda: array("d"))
    cash: float = math.nan
    held: int = 0
    fills: list[Fill] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    orders: dict[int, SentOrder] = field(default_factory=dict)
    ruined: float | None = None
    ruin_value: float = math.nan
    settled: list[Fill] = field(default_factory=list)
    settled_value: float = 0.0

    @property
    def traded(self) -> float:
        """Sum of the absolute values of all fills."""
        total = self.settled_value  # one after the other: `sum` rounds otherwise from Python 3.12 on
        for order in self.orders.values():
            total += order.traded
        return total

    def equity_at(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the account's value at given bars: the last one known at each; its cash before the first.

        A run that ended in ruin has fewer bars, and one on resampled bars fewer and others.
        """
        values = np.array(self.equity)
        known = np.array(self.numbers)
        if np.array_equal(known, numbers):
            return values
        places = np.searchsorted(known, numbers, side="right")
        return np.concatenate([[self.cash], values])[places]


_TIMES = ("opened", "closed", "time")


def frame_of(kind: type[Any], rows: Sequence[Any], market: Market) -> pd.DataFrame:
    """Return trades, fills or orders as a table, with the market's own times."""
    names = [one.name for one in fields(kind)]
    frame = pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)
    for name in _TIMES:
        if name in names:
            frame[name] = market.times(frame[name].to_numpy(dtype=np.float64))
    return frame


def order_counts(account: Account, market: Market) -> dict[str, Any]:
    """Return what became of an account's orders, for JSON.

    Returns
    -------
    dict
        Counts: ``submitted`` to the broker, of these ``filled`` whole, ``cancelled``, ``expired``,
        ``refused`` and still ``open``; and ``vetoed`` by a gate, which reached no broker. Of the first
        refused order ``first_refused``, its time, and ``reason``; else None.
    """
    sent = [order for order in account.orders.values() if not order.vetoed]
    status = Counter(order.status for order in sent)
    refused = [order for order in sent if order.refused]
    first = refused[0] if refused else None
    return {
        "submitted": len(sent),
        "filled": status["Completed"],
        "cancelled": status["Canceled"],
        "expired": status["Expired"],
        "refused": len(refused),
        "open": sum(status[name] for name in _OPEN),
        "vetoed": len(account.orders) - len(sent),
        "first_refused": None if first is None else market.times([first.time])[0].isoformat(),
        "reason": None if first is None else first.reason,
    }


def is_gain(money: float, cash: float) -> bool:
    """Return whether a trade has gained more than the rounding of prices times sizes leaves."""
    return money > 1e-12 * cash


def measure_account(account: Account, equity: pd.Series[float]) -> dict[str, float]:
    """Return the figures of an account; NaN where one has no meaning, as all ratios of a ruined one."""
    return account_figures(
        np.asarray(equity, dtype=np.float64),
        yearly=periods_per_year(pd.DatetimeIndex(equity.index)),
        cash=account.cash,
        won=[is_gain(trade.pnlcomm, account.cash) for trade in account.trades],
        held=account.held,
        traded=account.traded,
        ruined=account.ruined is not None,
    )


def account_figures(
    values: NDArray[np.float64],
    *,
    yearly: float,
    cash: float,
    won: Sequence[bool],
    held: int,
    traded: float,
    ruined: bool = False,
) -> dict[str, float]:
    """Return the figures of an account from what it did.

    Parameters
    ----------
    values : ndarray of float
        Its value at each close.
    yearly : float
        Bars a year.
    cash : float
        What it began with.
    won : sequence of bool
        Of each closed trade, whether it gained after commission.
    held : int
        Bars with a position.
    traded : float
        Sum of the absolute values of its fills.
    ruined : bool
        Whether it has no ratios.
    """
    figures = {
        "final_value": float(values[-1]),
        "return": float(values[-1] / cash - 1.0),
        "sharpe": math.nan,
        "sortino": math.nan,
        "max_drawdown": statistics.max_drawdown(values) if values[0] > 0.0 else math.nan,
        "trades": float(len(won)),
        "win_rate": float(np.mean(won)) if won else math.nan,
        "exposure": held / len(values),
        "turnover": math.nan,
    }
    if not ruined:
        returns = values[1:] / values[:-1] - 1.0
        figures["sharpe"] = statistics.sharpe_ratio(returns, periods_per_year=yearly)
        figures["sortino"] = statistics.sortino_ratio(returns, periods_per_year=yearly)
        figures["turnover"] = traded / float(np.mean(values))
    return figures
