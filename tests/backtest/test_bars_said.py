"""What is stated and said of bars, from the file to the feed, the news, the result and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import backtrader as bt
import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, Market, bars_of, gate_study, run_backtest
from bt_llm.advice import Impact, NewsSentiment, Sentiment
from bt_llm.data import BarFormat, Headlines, load_bars, shipped
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.feeds import times_of
from bt_llm.gates import NewsGate
from bt_llm.indicators import LLMNews
from bt_llm.manifest import read_manifest, reproduce, write_manifest
from bt_llm.report import write_report
from bt_llm.research import WalkForward
from tests.engines import walk


def flat(index: pd.DatetimeIndex) -> pd.DataFrame:
    return pd.DataFrame({name: 100.0 for name in ("open", "high", "low", "close", "volume")}, index=index)


class Planted(LLMNews):
    def judge(self, texts: Sequence[str]) -> list[NewsSentiment]:
        bullish = NewsSentiment(
            sentiment=Sentiment.BULLISH, confidence=100, impact=Impact.HIGH, explanation=""
        )
        return [bullish for _ in texts]


class Counting(bt.Strategy):  # type: ignore[misc]
    """Keeps the time of the bar at which each headline counts."""

    params: Any = (("gate", None), ("headline", ""), ("how", {}))
    counted: ClassVar[list[str]] = []

    def __init__(self) -> None:
        items = Headlines.of([(self.p.headline, "x")])
        self.news = Planted(self.data, headlines=items, **self.p.how)
        Counting.counted = []

    def next(self) -> None:
        if self.news.count[0]:
            self.counted.append(str(self.data.datetime.datetime(0)))


def counted(bars: Any, headline: str, **how: Any) -> list[str]:
    run_backtest(Counting, bars, params={"headline": headline, "how": how})
    return Counting.counted


SYDNEY = pd.bdate_range("2024-01-02", periods=15, tz="Australia/Sydney")


class TestZone:
    @pytest.mark.parametrize("remade", [lambda bars: bars, Market.of, lambda bars: Market.of(bars)["data"]])
    def test_a_headline_waits_for_the_close_of_its_own_day(self, remade: Any) -> None:
        # 10:30 in Sydney on the 10th, which is 23:30 on the 9th in UTC: known at the close of the 10th.
        bars = remade(load_bars(flat(SYDNEY)))
        assert counted(bars, "2024-01-10T10:30:00+11:00") == ["2024-01-10 00:00:00"]

    def test_a_format_states_it(self) -> None:
        naive = flat(SYDNEY.tz_localize(None))
        params = {"headline": "2024-01-10T10:30:00+11:00"}
        stated = run_backtest(Counting, naive, format=BarFormat(zone="Australia/Sydney"), params=params)
        assert (Counting.counted, stated.warnings) == (["2024-01-10 00:00:00"], ())
        unknown = run_backtest(Counting, naive, params=params)
        assert Counting.counted == ["2024-01-09 00:00:00"]
        (said,) = unknown.warnings
        assert "'data': their zone is not known: taken as UTC; state zone" in said

    def test_another_one_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"time_zone='UTC': .* are known to be 'Australia/Sydney'"):
            counted(load_bars(flat(SYDNEY)), "2024-01-10T10:30:00+11:00", time_zone="UTC")

    def test_the_gate_of_news_takes_it_too(self) -> None:
        gate = NewsGate(headlines=Headlines(()))
        result = run_backtest(f"{shipped('sma_cross.py')}:GatedSmaCross", walk(60), gate=gate)
        assert [note for note in result.notes if "taken as UTC" in note] == list(result.notes)

    def test_feeds_of_every_kind_know_it(self) -> None:
        bars = load_bars(flat(SYDNEY), stamp="close")
        known = ("Australia/Sydney", "close")
        feed = Market.of(bars).feed()
        assert times_of(feed) == times_of(bt.feeds.PandasData(dataname=bars)) == known
        assert times_of(feed.clone()) == known
        assert bars_of(feed).attrs["source"]["zone"] == "Australia/Sydney"
        bt.Cerebro().resampledata(opens := Market.of(load_bars(flat(SYDNEY), stamp="open")).feed())
        assert times_of(opens) == ("Australia/Sydney", "close")


class TestStamp:
    def test_a_stated_close_is_used(self) -> None:
        hours = flat(pd.date_range("2024-01-02", periods=9, freq="h"))
        news = "2024-01-02T03:30:00Z"
        assert counted(load_bars(hours, stamp="open"), news) == ["2024-01-02 03:00:00"]
        assert counted(load_bars(hours, stamp="close"), news) == ["2024-01-02 04:00:00"]
        with pytest.raises(ConfigError, match=r"stamp='open': .* known to be 'close'"):
            counted(load_bars(hours, stamp="close"), news, stamp="open")

    def test_the_last_days_of_months_are_closes(self) -> None:
        months = load_bars(flat(pd.date_range("2020-01-31", periods=9, freq="ME")))
        assert Market.of(months).feed().p.timeframe == bt.TimeFrame.Months
        assert counted(months, "2020-03-10T12:00:00Z") == ["2020-03-31 00:00:00"]
        firsts = load_bars(flat(pd.date_range("2020-01-01", periods=9, freq="MS")))
        assert counted(firsts, "2020-03-10T12:00:00Z") == ["2020-03-01 00:00:00"]


TWO = "ticker,date,open,high,low,close,volume\nA,{0},1,2,1,2,5\nB,{0},10,12,9,11,5\n"


class TestMarket:
    def test_a_file_of_several_instruments_is_as_many_datas(self, tmp_path: Path) -> None:
        path = tmp_path / "two.csv"
        path.write_text(TWO.format("2024-01-02"))
        market = Market.of(path)
        assert {name: bars["close"].to_list() for name, bars in market.items()} == {"A": [2.0], "B": [11.0]}
        assert list(Market.of(path, format=BarFormat(symbol="B"))) == ["two"]
        with pytest.raises(DataError, match=r"data 'x': .*2 tickers.*--symbol\)"):
            Market.of({"x": path})

    def test_a_format_beside_a_market_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="state it where the market is made"):
            Market.of(Market.of(walk(9)), format=BarFormat())


def semicolons(path: Path) -> Path:
    """Write bars of which one contradicts itself, with semicolons and a name of its own for the time."""
    frame = walk(200).round(2)
    frame.iloc[7, 1] = 1.0
    frame.rename_axis("Day").to_csv(path, sep=";")
    return path


FORMAT = BarFormat(columns={"time": "Day"}, repair="widen", zone="Europe/Berlin")


class TestResult:
    def test_page_json_and_manifest_say_it(self, tmp_path: Path) -> None:
        market = Market.of(semicolons(tmp_path / "b.csv"), format=FORMAT)
        (note,) = [note for note in market.notes if "contradict" in note]
        gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=tmp_path / "cache"))
        strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
        study = gate_study(strategy, market, gate, params={"fast": 2, "slow": 5})
        assert note in study.to_dict()["runs"]["gated"]["warnings"]
        (section,) = [one for one in study.sections() if one.title == "Noted"]
        assert note in section.content
        write_report(tmp_path / "page.html", study, data=market)
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "Noted" in page
        assert "b.csv" in page

        write_manifest(tmp_path / "run.json", study, strategy=strategy, data=market)
        manifest = read_manifest(tmp_path / "run.json")
        (facts,) = manifest.data.values()
        assert (facts.file, facts.format, facts.notes) == ("b.csv", FORMAT.stated, market.notes)
        cache = tmp_path / "cache"
        assert reproduce(manifest, cache_dir=cache).identical
        assert reproduce(manifest, data=tmp_path / "b.csv", cache_dir=cache).identical

    def test_what_is_said_is_compared(self, tmp_path: Path) -> None:
        market = Market.of(semicolons(tmp_path / "b.csv"), format=FORMAT)
        gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=tmp_path / "cache"))
        strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
        study = gate_study(strategy, market, gate, params={"fast": 2, "slow": 5})
        write_manifest(tmp_path / "run.json", study, strategy=strategy, data=market)
        market["b"].rename_axis("Day").to_csv(tmp_path / "b.csv", sep=";")  # the same bars, repaired
        (found,) = reproduce(read_manifest(tmp_path / "run.json"), cache_dir=tmp_path / "cache").differences
        assert found.what == "data"
        assert "contradict" in found.message

    def test_a_walk_forward_study_says_it(self, tmp_path: Path) -> None:
        frame = walk(200)
        frame.iloc[7, 1] = 1.0
        frame.to_csv(tmp_path / "b.csv", index_label="time")
        found = WalkForward(train_size=100, test_size=50).run(
            f"{shipped('sma_cross.py')}:GatedSmaCross",
            tmp_path / "b.csv",
            format=BarFormat(repair="widen"),
            params={"fast": 2, "slow": 5},
        )
        assert [note for note in found.to_dict()["notes"] if "contradict" in note] == list(found.notes)
        assert "Noted" in [section.title for section in found.sections()]
