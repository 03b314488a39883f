"""The same bars in another order: histories that never happened, each bar as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bt_llm.exceptions import DataError

__all__ = ["close_returns", "reordered"]

_PRICES = ["open", "high", "low", "close"]


def close_returns(bars: pd.DataFrame) -> NDArray[np.float64]:
    """Return what each close gained on the one before, in logarithms, or in prices if some are not above 0.

    Parameters
    ----------
    bars : DataFrame
        As `load_bars` returns them. The first bar's gain is that on its open.

    Examples
    --------
    >>> frame = pd.DataFrame({"open": [10.0, 0.0], "high": 12.0, "low": -1.0, "close": [11.0, 2.0]})
    >>> close_returns(frame).tolist()
    [1.0, -9.0]
    """
    levels = _levels(bars)
    before = np.concatenate([levels[:1, 0], levels[:-1, 3]])
    gained: NDArray[np.float64] = levels[:, 3] - before
    return gained


def reordered(bars: pd.DataFrame, order: ArrayLike) -> pd.DataFrame:
    """Return bars of the same times, made of the same bars in another order.

    Gap, open, high, low and close of a bar stay together as moves from the close before, and its volume and
    further columns with them, so that high and low contain open and close. Prices are chained from the first
    open.

    Parameters
    ----------
    bars : DataFrame
        As `load_bars` returns them; further columns travel with their bars.
    order : array of int, shape (bars,)
        Which bar comes where; one may come several times.

    Raises
    ------
    DataError
        If the order is not one place a bar.

    Examples
    --------
    >>> frame = pd.DataFrame({"open": [10.0, 22.0], "high": [20.0, 44.0], "low": [10.0, 11.0],
    ...                       "close": [20.0, 11.0], "volume": [1.0, 2.0]})
    >>> reordered(frame, [1, 0]).round(6).to_dict("list")
    {'open': [11.0, 5.5], 'high': [22.0, 11.0], 'low': [5.5, 5.5], 'close': [5.5, 11.0], 'volume': [2.0, 1.0]}
    """
    places = np.asarray(order)
    if places.shape != (len(bars),) or not np.issubdtype(places.dtype, np.integer):
        raise DataError(f"order of shape {places.shape}: expected the place of each of {len(bars)} bars")
    if len(bars) and not (places.min() >= 0 and places.max() < len(bars)):
        raise DataError(
            f"order from {places.min()} to {places.max()}: expected places from 0 to {len(bars) - 1}"
        )
    levels = _levels(bars)
    start = levels[0, 0]
    before = np.concatenate([levels[:1, 0], levels[:-1, 3]])
    moves = (levels - before[:, None])[places]
    closes = start + np.cumsum(moves[:, 3])
    made = np.concatenate([[start], closes[:-1]])[:, None] + moves
    prices = np.exp(made) if _positive(bars) else made
    prices[:, 1] = prices.max(axis=1)  # what rounding took from the order of prices
    prices[:, 2] = prices.min(axis=1)
    found = bars.iloc[places].set_axis(bars.index)
    found[_PRICES] = prices
    return found


def _positive(bars: pd.DataFrame) -> bool:
    return bool((bars[_PRICES] > 0.0).to_numpy().all())


def _levels(bars: pd.DataFrame) -> NDArray[np.float64]:
    prices = bars[_PRICES].to_numpy(dtype=np.float64)
    return np.log(prices) if _positive(bars) else prices
