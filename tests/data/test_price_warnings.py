"""Prices that lie: splits, raw prices beside adjusted ones, gaps, bars that change their length."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import load_bars
from tests.data.bar_cases import Writer, refused


def prices(count: int = 60, seed: int = 0) -> np.ndarray:
    return np.round(40 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, count))), 2)


def table(close: np.ndarray, **columns: np.ndarray) -> pd.DataFrame:
    """Bars of business days whose open, high and low follow from the close."""
    opened = np.concatenate([close[:1], close[:-1]])
    frame = {
        "Open": opened,
        "High": np.maximum(opened, close),
        "Low": np.minimum(opened, close),
        "Close": close,
    }
    index = pd.bdate_range("2020-01-01", periods=len(close), name="Date")
    return pd.DataFrame({**frame, "Volume": np.full(len(close), 1000.0), **columns}, index=index)


def split(ratio: float, at: int = 30) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raw bars with a split, each fresh from its open, and the same adjusted."""
    adjusted = table(prices())
    factor = np.where(np.arange(60) < at, ratio, 1.0)
    raw = adjusted.mul(pd.Series(factor, index=adjusted.index), axis="index")
    raw["Volume"] = adjusted["Volume"] / factor
    return raw, adjusted


@pytest.mark.parametrize(("ratio", "name"), [(2.0, "2:1"), (4.0, "4:1"), (1.5, "1.5:1"), (0.1, "1:10")])
def test_a_jump_of_a_splits_size_is_warned_of(
    ratio: float, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw, _ = split(ratio)
    with caplog.at_level(logging.WARNING, logger="bt_llm.data"):
        warned = load_bars(raw).attrs["warnings"]
    assert len(warned) == 1
    assert f"jump from one bar to the next at 1 bar ({raw.index[30]})" in warned[0]
    assert f"as at a split of {name}; adjusted prices?" in warned[0]
    assert caplog.messages == [f"the DataFrame: {warned[0]}"]


def test_what_was_said_once_stays_and_is_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    bars = load_bars(split(2.0)[0])
    caplog.clear()
    again = load_bars(bars)
    assert again.attrs == bars.attrs
    assert not caplog.messages


def test_usual_moves_are_no_jumps() -> None:
    assert load_bars(table(prices(500))).attrs["warnings"] == []
    wild = 40 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.2, 200)))
    assert load_bars(table(wild)).attrs["warnings"] == []
    levels = pd.DataFrame({"close": [10.0, 10.5, 22.0, 21.0]}, index=pd.bdate_range("2020-01-01", periods=4))
    assert load_bars(levels).attrs["warnings"] == []


def test_adjusted_prices_are_taken_where_the_split_ratio_says_so() -> None:
    raw, adjusted = split(2.0)
    ratio = np.where(np.arange(60) == 30, 2.0, 1.0)
    whole = raw.assign(**{f"Adj. {name}": adjusted[name] for name in adjusted}, **{"Split Ratio": ratio})
    bars = load_bars(whole)
    np.testing.assert_array_equal(bars.to_numpy(), adjusted.to_numpy())
    assert bars.attrs["source"]["adjusted"] is True
    assert bars.attrs["source"]["assumed"] == ["adjusted prices taken, of the source"]
    assert bars.attrs["warnings"] == []
    kept = load_bars(whole, adjusted=False)
    np.testing.assert_array_equal(kept.to_numpy(), raw.to_numpy())
    assert "as at a split of 2:1" in kept.attrs["warnings"][0]


def test_one_adjusted_close_adjusts_all_four_and_the_split_the_volume() -> None:
    raw, adjusted = split(4.0)
    ratio = np.where(np.arange(60) == 30, 4.0, 1.0)
    whole = raw.assign(adjusted_close=adjusted["Close"], split_coefficient=ratio)
    bars = load_bars(whole.iloc[::-1])
    np.testing.assert_allclose(bars.to_numpy(), adjusted.to_numpy(), rtol=1e-12)
    assert "adjusted prices taken, open, high and low in the close's ratio" in bars.attrs["source"]["assumed"]


def test_without_a_split_ratio_a_split_is_asked_about() -> None:
    raw, adjusted = split(2.0)
    whole = raw.assign(**{"Adj Close": adjusted["Close"]})
    assert "as at a split: give adjusted=True for adjusted prices, or adjusted=False" in refused(whole)
    np.testing.assert_allclose(load_bars(whole, adjusted=True)["close"], adjusted["Close"])
    assert load_bars(whole, adjusted=False)["close"].to_list() == raw["Close"].to_list()


def test_dividends_beside_the_price_are_warned_of() -> None:
    close = prices()
    whole = table(close).assign(**{"Adj Close": np.where(np.arange(60) < 30, 0.95, 1.0) * close})
    bars = load_bars(whole)
    assert bars["close"].to_list() == close.tolist()
    assert bars.attrs["warnings"] == [
        "prices are as they were paid; the adjusted close beside them differs by up to 5.3%: "
        "adjusted=True takes it"
    ]
    assert "columns 'Adj Close': left out" in bars.attrs["repairs"]
    taken = load_bars(whole, adjusted=True)
    np.testing.assert_allclose(taken["close"], whole["Adj Close"])
    assert taken.attrs["warnings"] == []


def test_splits_that_the_close_already_knows_change_nothing() -> None:
    ratio = np.where(np.arange(60) == 30, 4.0, 0.0)
    bars = load_bars(table(prices()).assign(Dividends=np.zeros(60), **{"Stock Splits": ratio}))
    assert bars["close"].to_list() == prices().tolist()
    assert bars.attrs["warnings"] == []


def test_adjusted_prices_that_are_not_there_are_refused(write: Writer) -> None:
    assert "no adjusted close among the columns" in refused(
        write("Date,Close\n2024-01-02,1\n"), adjusted=True
    )
    only = write("Date,Adj Close\n2024-01-02,1.5\n")
    assert "no column 'close'" in refused(only)
    assert load_bars(only, adjusted=True)["close"].to_list() == [1.5]


def test_a_gap_that_no_holiday_explains_is_warned_of() -> None:
    frame = table(prices())
    assert load_bars(frame.drop(frame.index[20:27])).attrs["warnings"] == []
    assert load_bars(frame.drop(frame.index[20:35])).attrs["warnings"] == [
        f"gaps before 1 bar ({frame.index[35]}), the longest 22 days"
    ]
    months = frame.set_axis(pd.date_range("2000-01-01", periods=60, freq="MS"))
    assert load_bars(months).attrs["warnings"] == []


def test_bars_that_change_their_length_are_warned_of() -> None:
    frame = table(prices())
    index = pd.bdate_range("2020-01-01", periods=30).append(pd.date_range("2020-02-13", periods=30, freq="h"))
    assert load_bars(frame.set_axis(index)).attrs["warnings"] == [
        "bars change their length: 1 day in the first half, 60 minutes in the second"
    ]


def test_volume_of_ticks_counts_where_there_is_no_other(write: Writer) -> None:
    header = "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\n"
    assert load_bars(write(header + "2024.01.02\t1\t1\t1\t1\t7\t0\n"))["volume"].to_list() == [7]
    assert load_bars(write(header + "2024.01.02\t1\t1\t1\t1\t7\t500\n"))["volume"].to_list() == [500]
