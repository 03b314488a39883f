"""From a backtest to what its long and its short positions earned, bar by bar, and what trading cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest._market import Market
from bt_llm.backtest._result import BacktestResult
from bt_llm.exceptions import DataError
from bt_llm.statistics import Legs

__all__ = ["earned_by", "legs_from", "legs_of"]

Floats = NDArray[np.float64]

_EXPLAINED = 1e-6
"""Share of the account that positions and fills may leave unexplained, a bar: rounding."""

_LONG, _SHORT, _LONG_VALUE, _SHORT_VALUE, _COST, _TRADED = range(6)


def legs_of(result: BacktestResult, market: Market) -> Legs:
    """Return what the two sides of a backtest earned.

    Parameters
    ----------
    result : BacktestResult
        Of a run that was not ruined.
    market : Market
        What it ran on.

    Returns
    -------
    Legs
        One value for each of `BacktestResult.returns`. A position counts where it
        stands at the close.

    Raises
    ------
    DataError
        If the account's value is not that of its positions and fills: interest or cash was added, a data is
        not one of the market's, or the account was ruined.

    Notes
    -----
    Slippage counts as cost where the set-up states it (``slippage=``); what a set-up of the user's own sets
    on its broker is part of the prices that were paid, and so of what positions earned.
    """
    if result.ruined is not None:
        raise DataError("the account was ruined: what its sides earned has no meaning")
    equity = np.asarray(result.equity, dtype=np.float64)
    index = pd.DatetimeIndex(result.equity.index)
    money = np.zeros((6, len(equity)))
    for name, fills in result.fills.groupby("data", sort=False):
        if name not in market:
            raise DataError(f"fills of {name!r}, which is no data of the market: its prices are not known")
        closes = market[str(name)]["close"].reindex(index, method="ffill")
        money += earned_by(
            closes.fillna(0.0).to_numpy(),  # before its first bar, where none of it is held
            np.minimum(index.searchsorted(pd.DatetimeIndex(fills["time"])), len(index) - 1),
            *(fills[column].to_numpy(dtype=float) for column in ("size", "price", "commission")),
            slippage=result.setup.slippage,
            mult=_multiplier(result, str(name), fills),
        )
    return legs_from(money, equity, index)


def legs_from(money: Floats, equity: Floats, index: pd.DatetimeIndex) -> Legs:
    """Return what the two sides earned as shares of the account.

    Parameters
    ----------
    money : ndarray of shape (6, n_bars)
        See `earned_by`; the sum over all datas.
    equity : ndarray of shape (n_bars,)
        Value of the account at each close.
    index : DatetimeIndex
        Times of the bars.

    Raises
    ------
    DataError
        If they do not explain how the account changed.
    """
    before = equity[:-1]
    left = np.diff(equity) - (money[_LONG] + money[_SHORT] - money[_COST])[1:]
    if np.any(np.abs(left) > _EXPLAINED * np.abs(before)):
        worst = int(np.argmax(np.abs(left)))
        raise DataError(
            f"{left[worst]:+,.2f} of the account's change at {index[worst + 1]} is neither of its positions "
            f"nor of its fills (interest, or cash that was added?): its sides cannot be told apart"
        )
    return Legs(
        long=money[_LONG, 1:] / before,
        short=money[_SHORT, 1:] / before,
        long_exposure=money[_LONG_VALUE, 1:] / equity[1:],
        short_exposure=money[_SHORT_VALUE, 1:] / equity[1:],
        cost=money[_COST, 1:] / before,
        traded=money[_TRADED, 1:] / before,
    )


def _multiplier(result: BacktestResult, name: str, fills: pd.DataFrame) -> float:
    """Return the size of a contract: value traded over prices times sizes, of what orders filled."""
    settled = result.settled[result.settled["data"] == name]
    paid = _paid(fills) - _paid(settled)
    orders = result.order_log
    traded = float(orders.loc[(orders["data"] == name), "traded"].sum())
    found = traded / paid if paid else 1.0
    return round(found) if abs(found - round(found)) < 1e-6 and round(found) else found


def _paid(fills: pd.DataFrame) -> float:
    return float((fills["size"].abs() * fills["price"].abs()).sum())


def earned_by(
    close: Floats,
    place: NDArray[np.intp],
    size: Floats,
    price: Floats,
    commission: Floats,
    *,
    slippage: float = 0.0,
    mult: float = 1.0,
) -> Floats:
    """Return what one data's positions of each side did by bar, from its fills in their order.

    A fill that turns a position over belongs to the one up to flat, and to the other from there on.

    Parameters
    ----------
    close : ndarray of shape (n_bars,)
        Price at each bar's close.
    place : ndarray of shape (n_fills,)
        Bar of each fill, from 0.
    size, price, commission : ndarray of shape (n_fills,)
        Of each fill; the size is signed.
    slippage : float
        Share of the price at market that each fill was worse by.
    mult : float
        Size of a contract.

    Returns
    -------
    ndarray of shape (6, n_bars)
        In money: what longs and shorts gained before costs, their values at the close, what trading cost,
        and the value traded.
    """
    bars = len(close)
    money = np.zeros((6, bars))
    slip = np.abs(price * slippage / (1.0 + np.sign(size) * slippage))
    at_market = price - slip * np.sign(size)
    held = np.cumsum(size)
    nothing = 1e-12 * np.abs(size).max(initial=1.0)
    for side, gain_row, value_row in ((1, _LONG, _LONG_VALUE), (-1, _SHORT, _SHORT_VALUE)):
        gain, value = money[gain_row], money[value_row]
        change = side * (np.maximum(side * held, 0.0) - np.maximum(side * (held - size), 0.0))
        if not change.any():
            continue
        np.cumsum(np.bincount(place, weights=change, minlength=bars), out=value)
        value[np.abs(value) < nothing] = 0.0
        value *= close
        gain[0] = value[0]
        np.subtract(value[1:], value[:-1], out=gain[1:])
        gain -= np.bincount(place, weights=change * at_market, minlength=bars)
        np.abs(value, out=value)
    sizes = np.abs(size)
    money[_COST] = np.bincount(place, weights=sizes * slip, minlength=bars)
    money[_TRADED] = np.bincount(place, weights=sizes * price, minlength=bars)
    money *= mult
    money[_COST] += np.bincount(place, weights=commission, minlength=bars)
    return money
