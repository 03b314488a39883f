"""Universes: where symbols come from, how long they are members, and that nothing is left open."""

from __future__ import annotations

import os
from pathlib import Path

import backtrader as bt
import pandas as pd
import pytest

from bt_llm.backtest import Market, Universe, run_backtest
from bt_llm.exceptions import ConfigError, DataError
from tests.market_cases import ByCalendar, ExitsBySell, flat
from tests.panel_cases import folder_of, symbols


def buy_at_2(size: int = 10) -> dict[str, object]:
    return {"orders": {2: [("buy" if size > 0 else "sell", {"size": abs(size)})]}}


class TestSettling:
    def test_a_position_is_closed_at_the_last_close_at_the_brokers_costs(self) -> None:
        bars = flat([10.0, 11.0, 12.0, 15.0])
        left, closed = (
            run_backtest(ByCalendar, bars, params=buy_at_2(), commission=0.01, slippage=0.02, settles=settles)
            for settles in (False, True)
        )
        paid = 12.0 * 1.02  # at the open of the third bar, slipped
        got = 15.0 * 0.98
        fees = 0.01 * 10 * paid, 0.01 * 10 * got
        assert left.final_value == pytest.approx(10_000 + 10 * (15.0 - paid) - fees[0])
        assert (len(left.trades), len(left.settled)) == (0, 0)
        assert closed.final_value == pytest.approx(10_000 + 10 * (got - paid) - sum(fees))
        assert closed.equity.iloc[-1] == closed.final_value
        (trade,) = closed.trades.to_dict("records")
        assert (trade["closed"], trade["bars"], trade["direction"]) == (bars.index[-1], 1, 1)
        assert trade["pnl"] == pytest.approx(10 * (got - paid))
        assert trade["pnlcomm"] == pytest.approx(10 * (got - paid) - sum(fees))
        assert closed.fills["size"].sum() == 0.0
        assert closed.settled["price"].tolist() == [pytest.approx(got)]
        assert closed.metrics["exposure"] == pytest.approx(left.metrics["exposure"] - 0.25)
        assert closed.metrics["turnover"] > 1.9 * left.metrics["turnover"]

    def test_a_short_one_is_bought_back(self) -> None:
        closed = run_backtest(ByCalendar, flat([10.0, 11.0, 12.0, 9.0]), params=buy_at_2(-10), settles=True)
        assert closed.trades["pnlcomm"].tolist() == [pytest.approx(30.0)]
        assert closed.settled["size"].tolist() == [10.0]

    def test_it_bears_the_interest_that_a_strategys_own_close_would(self) -> None:
        def setup(cerebro: bt.Cerebro, market: Market) -> None:
            cerebro.broker.setcommission(commission=0.001, interest=0.1)

        bars = flat([10.0, 11.0, 12.0, 9.0, 9.5])
        orders = {2: [("sell", {"size": 10})]}
        leaves = {**orders, 4: [("close", {"exectype": bt.Order.Close})]}
        settled, own = (
            run_backtest(ByCalendar, bars, params={"orders": each}, setup=setup, settles=settles)
            for each, settles in ((orders, True), (leaves, False))
        )
        for name in ("trades", "fills"):
            columns = ["pnl", "pnlcomm"] if name == "trades" else ["size", "price", "commission"]
            ours, theirs = (getattr(run, name)[columns].to_numpy() for run in (settled, own))
            assert ours == pytest.approx(theirs, rel=1e-12)
        assert settled.final_value == pytest.approx(own.final_value, rel=1e-12)
        assert settled.trades["pnlcomm"][0] < settled.trades["pnl"][0] - 0.001 * 10 * (12.0 + 9.5)

    def test_nothing_is_done_where_nothing_is_open(self) -> None:
        params = {"orders": {1: [("buy", {"size": 1})], 2: [("close", {})]}}
        bars = flat([10.0, 11.0, 12.0, 13.0])
        runs = [run_backtest(ByCalendar, bars, params=params, settles=settles) for settles in (False, True)]
        assert runs[0].equity.tolist() == runs[1].equity.tolist()
        assert len(runs[1].settled) == 0


class TestStart:
    def test_bars_before_it_only_warm_up(self) -> None:
        bars = symbols(1)["s0"]
        whole, later = run_backtest(ExitsBySell, bars), run_backtest(ExitsBySell, bars, start="2020-03-10")
        assert later.equity.index[0] == pd.Timestamp("2020-03-10")
        assert later.trades["opened"].min() > pd.Timestamp("2020-03-10")
        known = whole.trades["opened"] > later.trades["opened"].min()
        assert len(later.trades) > int(known.sum()) > 5

    def test_one_within_the_warm_up_changes_nothing(self) -> None:
        bars = symbols(1)["s0"]
        runs = [run_backtest(ExitsBySell, bars, start=start) for start in (None, "2020-01-03")]
        assert runs[0].equity.equals(runs[1].equity)

    def test_one_after_the_bars_is_refused(self) -> None:
        with pytest.raises(DataError, match="none is left from start=2030"):
            run_backtest(ExitsBySell, symbols(1)["s0"], start="2030-01-01")


class TestSources:
    def test_a_folder_a_glob_a_list_and_a_mapping_are_the_same_symbols(self, tmp_path: Path) -> None:
        files = folder_of(tmp_path)
        each = [files / f"{name}.csv" for name in "abc"]
        found = [
            Universe.of(source)
            for source in (files, f"{files}/*.csv", each, {one.stem: one for one in each}, Market.of(each))
        ]
        assert [list(one) for one in found] == [["a", "b", "c"]] * 5
        assert len({one.sha256 for one in found}) == 1

    def test_membership_begins_and_ends_on_its_days(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        found = Universe.of(tmp_path / "members.csv")
        assert list(found) == ["late", "gone", "back", "back 2020-05-01"]
        assert [market.index[-1].isoformat()[:10] for market in found.values()] == [
            *("2020-09-16", "2020-06-30", "2020-03-31", "2020-08-31")
        ]
        starts = [member.start for member in found.members.values()]
        assert starts == [pd.Timestamp("2020-04-01"), None, None, pd.Timestamp("2020-05-01")]

    def test_content_decides_what_a_universe_is_not_names(self) -> None:
        one = symbols(2)
        renamed = {"x": one["s1"], "y": one["s0"]}
        assert Universe.of(one).sha256 == Universe.of(renamed).sha256
        assert Universe.of(one).sha256 != Universe.of(one, weights={"s0": 2.0}).sha256

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("x,nothing.csv,,", "nothing.csv"),
            ("x,symbols/a.csv,soon,", "line 2, from: time 'soon': expected one such as"),
            ("x,symbols/a.csv,2031-01-01,", "line 2: 'x' has no bar from 2031-01-01 to the end"),
            ("x,symbols/a.csv,,2020-03-01\nx,symbols/a.csv,2020-02-01,", "line 3: 'x' is in the universe up"),
            ("x,,,", "line 2: no file"),
            ("\n\nx,,,", "line 4: no file"),
            ("x,symbols/a.csv,,,2", "line 2: 5 fields, expected at most 4, as in the header"),
            ("x,symbols/a.csv,05/02/2020,", "line 2, from: time '05/02/2020': expected one such as"),
            ("x,symbols/a.csv,today,", "line 2, from: time 'today': expected one such as"),
            ("x,symbols/a.csv,2020-02-03 06,2020-02-03 07", "line 2: 'x' has no bar from 2020-02-03 06 to"),
            ("x,symbols/a.csv,,1999-12-31", "line 2: 'x' has no bar from the start to 1999-12-31"),
            ("x,symbols/a.csv,,\nx,symbols/b.csv,,", "line 3: 'x' is in the universe up to the end already"),
            ('"x\ny",symbols/a.csv,,', r"line 3: 'x\\ny': expected text in UTF-8"),
            ('"x,symbols/a.csv,,', "not CSV"),
        ],
    )
    def test_a_wrong_row_is_named(self, tmp_path: Path, row: str, said: str) -> None:
        folder_of(tmp_path)
        (tmp_path / "m.csv").write_text(f"name,file,from,to\n{row}\n", encoding="utf-8")
        with pytest.raises(DataError, match=said):
            Universe.of(tmp_path / "m.csv")

    def test_a_column_that_comes_twice_is_named(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        (tmp_path / "m.csv").write_text("name,file,from,from\nx,symbols/a.csv,,2020-03-01\n")
        with pytest.raises(DataError, match=r"m.csv': columns .*: expected each once"):
            Universe.of(tmp_path / "m.csv")

    @pytest.mark.parametrize(("encoding", "delimiter"), [("utf-16", "\t"), ("utf-8-sig", ";")])
    def test_memberships_as_spreadsheets_write_them(
        self, tmp_path: Path, encoding: str, delimiter: str
    ) -> None:
        folder_of(tmp_path)
        text = "Name,File,From,To\r\nx,symbols/a.csv,2020-03-02,9999-12-31\r\n\r\n,,,\r\n"
        (tmp_path / "m.csv").write_text(text.replace(",", delimiter), encoding=encoding, newline="")
        (only,) = Universe.of(tmp_path / "m.csv").members.items()
        assert (only[0], only[1].start, only[1].end) == ("x", pd.Timestamp("2020-03-02"), None)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DataError, match="it is a device or a pipe"):
            Universe.of(tmp_path / "pipe")

    def test_what_is_wrong_is_said_in_one_line(self, tmp_path: Path) -> None:
        frames = symbols(2)
        with pytest.raises(ConfigError, match="no symbol 'z', only"):
            Universe.of(frames, weights={"z": 1.0})
        with pytest.raises(ConfigError, match="s0: weight=0"):
            Universe.of(frames, weights={"s0": 0})
        with pytest.raises(ConfigError, match="two symbols are called 's0'"):
            Universe.of([{"s0": frames["s0"]}, {"s0": frames["s1"]}])
        with pytest.raises(DataError, match="no files of bars"):
            Universe.of(tmp_path)
        with pytest.raises(DataError, match=r"no file is like '.*x\*\.csv'"):
            Universe.of(f"{tmp_path}/x*.csv")
        with pytest.raises(ConfigError, match="without a symbol"):
            Universe.of({})
