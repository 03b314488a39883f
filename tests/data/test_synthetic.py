"""The same bars in another order: prices are chained, and no bar contradicts itself."""

from __future__ import annotations

import numpy as np
import pytest

from bt_llm.data import close_returns, load_bars, reordered, shipped
from bt_llm.exceptions import DataError


@pytest.mark.parametrize("less", [0.0, 2700.0])  # prices on both sides of zero, as crude oil had them in 2020
def test_any_order_gives_bars_that_load_and_keep_their_moves(less: float) -> None:
    bars = load_bars(shipped("sp500_daily.csv"))[-300:]
    bars[["open", "high", "low", "close"]] -= less
    order = np.random.default_rng(0).permutation(len(bars))
    made = reordered(bars, order)
    checked = load_bars(made)  # high and low contain open and close
    assert not [one for one in checked.attrs["repairs"] if "widened" in one]
    assert np.array_equal(made["volume"], bars["volume"].to_numpy()[order])
    assert close_returns(made)[1:] == pytest.approx(close_returns(bars)[order][1:], abs=1e-9)
    assert made["close"].iloc[-1] == pytest.approx(bars["close"].iloc[-1])  # every move came once


def test_the_same_order_gives_the_same_bars() -> None:
    bars = load_bars(shipped("eurusd_hourly.csv"))[:200]
    same = reordered(bars, np.arange(200))
    assert same.to_numpy() == pytest.approx(bars.to_numpy())
    assert same.index.equals(bars.index)


def test_an_order_that_is_none_is_refused() -> None:
    bars = load_bars(shipped("eurusd_hourly.csv"))[:3]
    for order, said in (([0, 1], "the place of each of 3"), ([0, 1, 3], "places from 0 to 2")):
        with pytest.raises(DataError, match=said):
            reordered(bars, order)
