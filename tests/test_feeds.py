"""The feed of the engine gives what Backtrader's own gives, however bars are asked for."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import run_backtest
from bt_llm.backtest import Bars, Market, ShareOfAccount, load_strategy
from bt_llm.data import load_bars, shipped
from bt_llm.indicators import copy_values
from tests.engines import MODES, bits, walk

FEEDS = {
    "pandas": lambda frame, **p: bt.feeds.PandasData(dataname=frame, openinterest=None, **p),
    "array": lambda frame, **p: Bars.of(frame).feed(**{**DAYS, **p}),
}
DAYS = {"timeframe": bt.TimeFrame.Days, "compression": 1}
HOURLY = {"timeframe": bt.TimeFrame.Minutes, "compression": 60}

Add = Callable[[bt.Cerebro, Any], None]


class Recorder(bt.Strategy):
    """Writes down every line, length and the account at each bar, and trades by the bars' numbers."""

    def __init__(self) -> None:
        self.mean = bt.ind.SMA(self.data, period=5)
        self.seen: list[list[float]] = []

    def next(self) -> None:
        lines = [line[0] for data in self.datas for line in data.lines]
        lengths = [float(len(data)) for data in self.datas]
        self.seen.append([*lines, *lengths, self.mean[0], self.broker.getvalue(), self.data.tick_close or 0])
        if len(self) % 7 == 0:
            self.close() if self.position else self.buy(size=3)


def record(kind: str, frame: pd.DataFrame, add: Add, mode: dict[str, Any], **params: Any) -> bt.Strategy:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    add(cerebro, FEEDS[kind](frame, **params))
    cerebro.addstrategy(Recorder)
    return cerebro.run()[0]


def plain(cerebro: bt.Cerebro, feed: Any) -> None:
    cerebro.adddata(feed)


def resampled(cerebro: bt.Cerebro, feed: Any) -> None:
    cerebro.adddata(feed)
    cerebro.resampledata(feed, timeframe=bt.TimeFrame.Days)


def only_resampled(cerebro: bt.Cerebro, feed: Any) -> None:
    cerebro.resampledata(feed, timeframe=bt.TimeFrame.Minutes, compression=240)


def replayed(cerebro: bt.Cerebro, feed: Any) -> None:
    cerebro.replaydata(feed, timeframe=bt.TimeFrame.Days)


def filtered(cerebro: bt.Cerebro, feed: Any) -> None:
    feed.addfilter(bt.filters.HeikinAshi)
    cerebro.adddata(feed)


def same(frame: pd.DataFrame, add: Add, mode: dict[str, Any], **params: Any) -> bt.Strategy:
    expected, *others = (record(kind, frame, add, mode, **params) for kind in FEEDS)
    assert len(expected.seen) > 10
    for found in others:
        assert [bits(row) for row in found.seen] == [bits(row) for row in expected.seen]
    return expected


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
@pytest.mark.parametrize("add", [plain, resampled, only_resampled, replayed, filtered])
def test_the_same_numbers_in_every_engine_mode(add: Add, mode: dict[str, Any]) -> None:
    frame = walk(150, freq="h")
    frame.index += pd.Timedelta(microseconds=123_457)  # times that no float holds exactly
    same(frame, add, mode, **HOURLY)


@pytest.mark.parametrize(
    "params",
    [
        {"fromdate": datetime.datetime(2020, 1, 10)},
        {"todate": datetime.datetime(2020, 3, 10, 12)},
        {"tzinput": datetime.timezone(datetime.timedelta(hours=2))},
        {"tz": datetime.timezone(datetime.timedelta(hours=2))},
    ],
)
def test_what_must_see_every_bar_sees_it(params: dict[str, Any]) -> None:
    class Zone(datetime.tzinfo):
        def utcoffset(self, _: Any) -> datetime.timedelta:
            return datetime.timedelta(hours=2)

        def dst(self, _: Any) -> datetime.timedelta:
            return datetime.timedelta(0)

        def localize(self, time: datetime.datetime) -> datetime.datetime:
            return time.replace(tzinfo=self)

    params = {name: Zone() if name.startswith("tz") else value for name, value in params.items()}
    same(walk(100), plain, {}, **params)


def test_whole_lines_and_their_lengths_are_the_same() -> None:
    frame = walk(80)
    for mode in ({}, {"lookahead": 3}, {"preload": False, "runonce": False}):
        expected, *others = (record(kind, frame, plain, mode).data for kind in FEEDS)
        for found in others:
            assert (len(found), found.buflen()) == (len(expected), expected.buflen())
            for one, other in zip(found.lines, expected.lines, strict=True):
                assert bits(copy_values(one)) == bits(copy_values(other))


@pytest.mark.parametrize("preload", [True, False])
def test_a_feed_can_be_run_again_and_in_an_optimisation(preload: bool) -> None:
    frame = walk(60)
    cerebro = bt.Cerebro(stdstats=False, maxcpus=1, preload=preload)
    cerebro.adddata(FEEDS["array"](frame))
    cerebro.addstrategy(Recorder)
    first, second = cerebro.run()[0].seen, cerebro.run()[0].seen
    assert len(first) > 50
    assert [bits(row) for row in first] == [bits(row) for row in second]
    search = bt.Cerebro(stdstats=False, maxcpus=1, optreturn=False, preload=preload)
    search.adddata(FEEDS["array"](frame))
    search.optstrategy(Recorder)
    [[found]] = search.run()
    assert [bits(row) for row in found.seen] == [bits(row) for row in first]


def test_a_run_changes_neither_the_frame_nor_what_is_kept_of_it() -> None:
    frame = walk(40)
    before = frame.copy()

    class Spoiler(bt.Strategy):
        def next(self) -> None:
            self.data.close[0] = self.data.datetime[0] = 1.0

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(FEEDS["array"](frame))
    cerebro.addstrategy(Spoiler)
    cerebro.run()
    pd.testing.assert_frame_equal(frame, before)
    same(frame, plain, {})


def test_whole_numbers_and_an_index_in_seconds() -> None:
    frame = walk(50).round().astype(np.int64)
    frame.index = pd.DatetimeIndex(frame.index).as_unit("s")
    same(frame, plain, {})


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"preload": False, "runonce": False}])
def test_a_backtest_is_the_same_to_the_last_digit(mode: dict[str, bool]) -> None:
    strategy = load_strategy(f"{shipped('sma_cross.py')}:GatedSmaCross")
    bars = load_bars(shipped("eurusd_hourly.csv"))[:600]
    found = run_backtest(strategy, bars, **mode)

    def with_pandas(cerebro: bt.Cerebro, market: Market) -> None:
        cerebro.adddata(FEEDS["pandas"](market.first, **HOURLY), name="data")
        cerebro.addsizer(ShareOfAccount)

    expected = run_backtest(strategy, bars, setup=with_pandas, **mode)
    pd.testing.assert_series_equal(found.equity, expected.equity, check_exact=True)
    pd.testing.assert_frame_equal(found.trades, expected.trades, check_exact=True)
    assert found.to_dict() == expected.to_dict()
