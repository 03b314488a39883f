"""Markets: what they are made of, cut and hashed, and what Backtrader sees of them."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import Market, bars_of, run_backtest
from bt_llm.backtest import Bars, Window
from bt_llm.data import BarFormat, bars_sha256, load_bars
from bt_llm.exceptions import ConfigError, DataError
from tests.engines import walk
from tests.market_cases import ENGINES, flat

A, B = walk(40, seed=1), walk(30, seed=2, start="2020-01-11")


class TestMaking:
    def test_of_all_that_holds_bars(self, tmp_path: Path) -> None:
        path = tmp_path / "gold.csv"
        A.to_csv(path, index_label="time")
        named = A.copy()
        named.attrs["name"] = "silver"
        assert list(Market.of(path)) == list(Market.of(str(path))) == ["gold"]
        assert list(Market.of(A)) == ["data"]
        assert list(Market.of([path, named])) == ["gold", "silver"]
        assert list(Market.of([A, B])) == ["data0", "data1"]
        market = Market.of({"x": path, "y": B})
        assert Market.of(market) is market
        assert list(Market.of({"z": Market.of(A), "y": B})) == ["z", "y"]
        pd.testing.assert_frame_equal(market["x"], load_bars(path), check_exact=True)

    def test_a_feed_of_backtraders_is_read_with_its_filters_and_dates(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        A.to_csv(path, index_label="date")
        params = {"dtformat": "%Y-%m-%d", "openinterest": -1, "datetime": 0, "fromdate": A.index[5]}
        columns = {name: number for number, name in enumerate(("open", "high", "low", "close", "volume"), 1)}
        feed = bt.feeds.GenericCSVData(dataname=str(path), **columns, **params)
        pd.testing.assert_frame_equal(bars_of(feed), load_bars(A)[5:], check_freq=False, rtol=1e-12)

    def test_a_resampled_feed_gives_its_bars(self) -> None:
        hours = walk(96, freq="h")
        feed = Bars.of(hours).feed()
        feed.resample(timeframe=bt.TimeFrame.Days, compression=1)
        assert bars_of(feed)["close"].tolist() == hours["close"][23::24].tolist()

    @pytest.mark.parametrize(
        ("source", "error", "match"),
        [
            ({}, ConfigError, "expected at least one"),
            ([], ConfigError, "expected at least one"),
            ({"": A}, ConfigError, "each with a name"),
            ({"a": A, "b": "nowhere.csv"}, DataError, "data 'b': .*nowhere.csv"),
            ({"a": Market.of([A, B])}, ConfigError, r"data 'a' takes one data: got \['data0', 'data1'\]"),
        ],
    )
    def test_what_is_no_market_is_refused(self, source: object, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            Market.of(source)

    def test_two_files_of_one_name_need_names(self, tmp_path: Path) -> None:
        paths = [tmp_path / folder / "a.csv" for folder in ("one", "two")]
        for path in paths:
            path.parent.mkdir()
            A.to_csv(path, index_label="time")
        with pytest.raises(ConfigError, match="two datas are called 'a': give a mapping"):
            Market.of(paths)

    def test_what_was_repaired_is_kept_by_data(self) -> None:
        market = Market.of({"a": A, "b": B[["close"]]})
        assert market.notes == ("b: no open, high and low: set to close", "b: no volume: set to 0")


class TestCutting:
    market = Market.of({"a": A, "b": B})

    def test_its_times_are_those_of_all_datas(self) -> None:
        assert list(self.market.index) == sorted({*A.index, *B.index})
        assert self.market.numbers.tolist() == [bt.date2num(time) for time in self.market.index]

    def test_by_time(self) -> None:
        part = self.market.until("2020-01-12")
        assert [len(bars) for bars in part.values()] == [12, 2]
        part = self.market.between("2020-01-05", "2020-01-12")
        assert [len(bars) for bars in part.values()] == [7, 1]
        assert part["b"].index[0] == pd.Timestamp("2020-01-11")
        with pytest.raises(DataError, match="no bar is left of 2020-01-01"):
            self.market.until("2019-01-01")
        for wrong in ("noon", "today", "05/01/2020", "9999-12-31", 20200112, 1.5, True, float("nan")):
            with pytest.raises(ConfigError, match=f"time {wrong!r}: expected one such as '2024-01-31'"):
                self.market.until(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="expected one without a zone, as the bars have"):
            self.market.until("2020-01-12T23:00+09:00")  # nine hours earlier by another clock

    def test_a_window_has_the_warm_up_of_each_data_before_it_and_nothing_after(self) -> None:
        # The window trades from the 13th to the 20th time; b has two bars before it, fewer than it needs.
        part = self.market.cut(Window(start=8, first=12, stop=20))
        assert (part["a"].index[0], part["a"].index[-1]) == (A.index[8], A.index[19])
        assert (part["b"].index[0], part["b"].index[-1]) == (B.index[0], A.index[19])

    def test_datas_of_a_window_begin_together(self) -> None:
        weekly = flat(range(100, 110), start="2020-01-03", freq="W-FRI")  # Fridays from the 3rd of January on
        market = Market.of({"days": A, "weeks": weekly})
        # A warm-up of three: the third Friday up to Friday, the 31st, and every day from then on.
        first = int(market.index.get_loc("2020-01-31"))
        part = market.cut(Window(start=first - 2, first=first, stop=first + 5))
        assert part["weeks"].index[0] == part["days"].index[0] == pd.Timestamp("2020-01-17")
        part = market.cut(Window(start=first - 1, first=first + 1, stop=first + 5))
        assert part["weeks"].index[0] == part["days"].index[0] == pd.Timestamp("2020-01-24")
        assert part["days"].index[-1] == pd.Timestamp("2020-02-04")

    def test_times_are_the_markets_own_where_a_number_does_not_hold_them(self) -> None:
        moved = A.set_axis(A.index + pd.Timedelta("250ms"))
        market = Market.of(moved)
        assert list(market.times(market.numbers)) == list(moved.index)
        between = (market.numbers[0] + market.numbers[1]) / 2
        assert market.times([market.numbers[0], between])[1].round("ms") == pd.Timestamp(
            "2020-01-01 12:00:00.25"
        )

    def test_changed_values_keep_times_and_form(self) -> None:
        doubled = self.market.map(lambda name, bars: bars * 2 if name == "b" else bars)
        assert doubled["b"]["close"].tolist() == (B["close"] * 2).tolist()
        assert doubled["a"].equals(self.market["a"])
        with pytest.raises(DataError, match="expected 40 with the columns"):
            self.market.map(lambda name, bars: bars[1:])


class TestHashing:
    def test_content_counts_and_names_do_not(self) -> None:
        one, other = Market.of({"a": A, "b": B}), Market.of({"x": A, "y": B})
        assert one.sha256 == other.sha256
        assert one != other
        assert one.hashes["a"] == other.hashes["x"] == Market.of(A).sha256 == bars_sha256(load_bars(A))
        assert Market.of({"b": B, "a": A}).sha256 != one.sha256
        assert one == Market.of({"a": A, "b": B})
        assert hash(one) == hash(Market.of({"a": A, "b": B}))

    def test_further_lines_count(self) -> None:
        frame = A.assign(pe=np.arange(40.0))
        with_pe = Market.of(frame, lines=("pe",))
        assert with_pe.sha256 != Market.of(frame.drop(columns="pe")).sha256
        assert with_pe.sha256 != Market.of(frame.assign(pe=1.0), lines=("pe",)).sha256

    def test_it_is_sent_whole(self) -> None:
        market = Market.of({"a": A, "b": B})
        assert pickle.loads(pickle.dumps(market)) == market


class SeesLines(bt.Strategy):
    """Write down the further lines of its data."""

    seen: list[tuple[float, float]] = []  # noqa: RUF012 - what is asserted on

    def next(self) -> None:
        """Note the bar."""
        self.seen.append((self.data.pe[0], self.data.openinterest[0]))


class TestLines:
    def test_columns_become_lines_in_every_engine(self) -> None:
        frame = A.assign(PE=np.where(np.arange(40) == 3, np.nan, np.arange(40.0)), openinterest=7.0)
        market = Market.of(frame, lines=("pe", "openinterest"))
        expected = list(zip(frame["PE"], frame["openinterest"], strict=True))
        for engine in ENGINES:
            SeesLines.seen.clear()
            run_backtest(SeesLines, market, **engine)
            np.testing.assert_array_equal(SeesLines.seen, expected)

    def test_they_follow_the_bars_where_those_are_sorted_or_left_out(self, tmp_path: Path) -> None:
        frame = A.assign(pe=np.arange(40.0)).iloc[::-1]
        path = tmp_path / "a.csv"
        frame.to_csv(path, index_label="time")
        for source in (frame, path):
            assert Market.of(source, lines=["pe"])["data" if source is frame else "a"]["pe"].tolist() == list(
                range(40)
            )

    @pytest.mark.parametrize(
        ("lines", "error", "match"),
        [
            ("pe", ConfigError, r"expected a list of names of columns, such as \['pe'\]"),
            (("p",), DataError, "no column 'p': expected one of"),
            (("close",), DataError, "'close': expected a name"),
            (("word",), DataError, "column 'word': .*expected numbers"),
        ],
    )
    def test_what_can_be_no_line_is_refused(self, lines: object, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            Market.of(A.assign(pe=1.0, word="x"), lines=lines)

    def test_they_are_read_from_a_file_as_its_bars_are(self, tmp_path: Path) -> None:
        frame = A.assign(pe=np.arange(40.0) / 2)
        path = tmp_path / "a.csv.gz"
        frame.to_csv(path, index_label="time", sep=";", decimal=",")
        market = Market.of(path, lines=["pe"], format=BarFormat(decimal=","))
        assert next(iter(market.values()))["pe"].tolist() == frame["pe"].tolist()

    @pytest.mark.parametrize("content", [b"", b"# Title\n\nwords, and more, words\n", b"\0\1" * 99])
    def test_a_file_without_a_table_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        with pytest.raises(DataError, match="expected"):
            Market.of(path, lines=["pe"])

    def test_no_more_is_unpacked_than_is_allowed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(b"time,close,pe\n" + b"2024-01-02,1,1\n" * 200_000))
        with pytest.raises(DataError, match="over 1 MB unpacked"):
            Market.of(path, lines=["pe"], format=BarFormat(max_megabytes=1))

    def test_a_market_made_without_them_has_none(self) -> None:
        with pytest.raises(ConfigError, match=r"data 'data' has no lines \['pe'\]"):
            Market.of(Market.of(A), lines=("pe",))


class TestFeeds:
    @pytest.mark.parametrize(
        ("freq", "timeframe", "compression"),
        [
            ("15s", bt.TimeFrame.Seconds, 15),
            ("min", bt.TimeFrame.Minutes, 1),
            ("4h", bt.TimeFrame.Minutes, 240),
            ("B", bt.TimeFrame.Days, 1),
            ("3D", bt.TimeFrame.Days, 3),
            ("W-FRI", bt.TimeFrame.Weeks, 1),
            ("2W-FRI", bt.TimeFrame.Weeks, 2),
            ("ME", bt.TimeFrame.Months, 1),
            ("QE", bt.TimeFrame.Months, 3),
            ("YE", bt.TimeFrame.Years, 1),
        ],
    )
    def test_they_tell_backtrader_how_long_a_bar_is(
        self, freq: str, timeframe: int, compression: int
    ) -> None:
        market = Market.of(flat(range(1, 31), freq=freq))
        feed = market.feed()
        assert (feed.p.timeframe, feed.p.compression) == (timeframe, compression)
        assert market.feed(timeframe=bt.TimeFrame.Ticks).p.timeframe == bt.TimeFrame.Ticks

    def test_a_single_bar_is_taken_for_a_day(self) -> None:
        feed = Market.of(flat([1])).feed()
        assert (feed.p.timeframe, feed.p.compression) == (bt.TimeFrame.Days, 1)

    def test_it_adds_its_datas_in_order(self) -> None:
        cerebro = bt.Cerebro()
        Market.of({"b": B, "a": A}).add_to(cerebro)
        assert [data._name for data in cerebro.datas] == ["b", "a"]
