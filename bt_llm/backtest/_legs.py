"""From a backtest to what its long and its short positions earned, bar by bar, and what trading cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest._market import Market
from bt_llm.backtest._result import BacktestResult
from bt_llm.exceptions import DataError
from bt_llm.statistics import Legs

__all__ = ["legs_of"]

Floats = NDArray[np.float64]

_EXPLAINED = 1e-6
"""Share of the account that positions and fills may leave unexplained, a bar: rounding."""


class _Piece(NamedTuple):
    """What one data's positions of one side were and did, by bar."""

    gain: Floats
    value: Floats


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
    equity = result.equity.to_numpy()
    index = pd.DatetimeIndex(result.equity.index)
    gains, values = (
        {1: np.zeros(len(equity)), -1: np.zeros(len(equity))},
        {
            1: np.zeros(len(equity)),
            -1: np.zeros(len(equity)),
        },
    )
    cost, traded = np.zeros(len(equity)), np.zeros(len(equity))
    for name, fills in result.fills.groupby("data", sort=False):
        if name not in market:
            raise DataError(f"fills of {name!r}, which is no data of the market: its prices are not known")
        mult = _multiplier(result, str(name), fills)
        close = market[str(name)]["close"].reindex(index, method="ffill").to_numpy()
        place = np.minimum(index.searchsorted(pd.DatetimeIndex(fills["time"])), len(index) - 1)
        size, price = fills["size"].to_numpy(dtype=float), fills["price"].to_numpy(dtype=float)
        slip = _slippage(result, size, price)
        for side, piece in _sides(close, place, size, price - slip * np.sign(size), mult):
            gains[side] += piece.gain
            values[side] += piece.value
        np.add.at(cost, place, fills["commission"].to_numpy(dtype=float) + np.abs(size) * slip * mult)
        np.add.at(traded, place, np.abs(size) * price * mult)
    before = equity[:-1]
    left = np.diff(equity) - (gains[1] + gains[-1] - cost)[1:]
    if np.any(np.abs(left) > _EXPLAINED * np.abs(before)):
        worst = int(np.argmax(np.abs(left)))
        raise DataError(
            f"{left[worst]:+,.2f} of the account's change at {index[worst + 1]} is neither of its positions "
            f"nor of its fills (interest, or cash that was added?): its sides cannot be told apart"
        )
    return Legs(
        long=gains[1][1:] / before,
        short=gains[-1][1:] / before,
        long_exposure=values[1][1:] / equity[1:],
        short_exposure=values[-1][1:] / equity[1:],
        cost=cost[1:] / before,
        traded=traded[1:] / before,
    )


def _multiplier(result: BacktestResult, name: str, fills: pd.DataFrame) -> float:
    """Return the size of a contract: value traded over prices times sizes."""
    paid = float((fills["size"].abs() * fills["price"].abs()).sum())
    orders = result.order_log
    traded = float(orders.loc[(orders["data"] == name), "traded"].sum())
    found = traded / paid if paid else 1.0
    return round(found) if abs(found - round(found)) < 1e-6 and round(found) else found


def _slippage(result: BacktestResult, size: Floats, price: Floats) -> Floats:
    """Return what each fill was worse by, a unit."""
    rate = 0.0 if result.setup.function is not None else result.setup.slippage
    at_market = price * rate / (1.0 + np.sign(size) * rate)
    return np.abs(at_market)


def _sides(
    close: Floats, place: NDArray[np.intp], size: Floats, price: Floats, mult: float
) -> Iterator[tuple[int, _Piece]]:
    """Yield what the positions of each side gained by bar, and their value at the bars' closes.

    A fill that turns a position over belongs to the one up to flat, and to the other from there on.
    """
    held = np.cumsum(size)
    before = held - size
    for side in (1, -1):
        own, own_before = np.maximum(side * held, 0.0), np.maximum(side * before, 0.0)
        change = side * (own - own_before)
        at_close = np.zeros(len(close))
        np.add.at(at_close, place, change)
        position = np.cumsum(at_close)
        position[np.abs(position) < 1e-12 * np.abs(size).max(initial=1.0)] = 0.0
        spent = np.zeros(len(close))
        np.add.at(spent, place, change * price)
        value = position * close
        gain = np.diff(value, prepend=0.0) - spent
        yield side, _Piece(mult * gain, mult * np.abs(value))
