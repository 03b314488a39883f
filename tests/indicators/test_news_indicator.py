from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.advice import AnalystConfig, Impact, NewsAnalyst, NewsSentiment, Sentiment
from bt_llm.backtest import gate_study
from bt_llm.cache import VerdictCache
from bt_llm.data import Headlines, load_bars, shipped
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import NewsGate
from bt_llm.indicators import LLMNews
from bt_llm.research._runs import inspect_run
from tests.analyst_cases import NEWS, Scripted
from tests.engines import MODES, Holder, bits, line, walk

START = datetime(2020, 1, 1, tzinfo=UTC)
SIGNS = {"+": Sentiment.BULLISH, "-": Sentiment.BEARISH, "0": Sentiment.NEUTRAL}
IMPACTS = {"h": Impact.HIGH, "m": Impact.MEDIUM, "l": Impact.LOW}
LINES = ("news", "count", "unreadable")


class Planted(LLMNews):
    """Headlines say their own sentiment: sign, impact; ``?`` cannot be read."""

    def judge(self, texts: Sequence[str]) -> list[NewsSentiment]:
        assert len(set(texts)) == len(texts)
        return [self.planted(text) for text in texts]

    @staticmethod
    def planted(text: str) -> NewsSentiment:
        if text[0] == "?":
            blank: dict[str, Any] = {"sentiment": Sentiment.INVALID, "impact": Impact.INVALID}
            return NewsSentiment(**blank, confidence=0, explanation="", problem="no")
        return NewsSentiment(
            sentiment=SIGNS[text[0]], confidence=100, impact=IMPACTS[text[1]], explanation=""
        )


def hours(*items: tuple[float, str]) -> Headlines:
    """Headlines so many hours after the first bar opens."""
    return Headlines.of((START + timedelta(hours=hour), text) for hour, text in items)


def build(headlines: Any, bars: int = 8, mode: Any = None, frame: Any = None, **settings: Any) -> Any:
    frame = walk(bars, freq="h") if frame is None else frame
    settings = {"half_life": 1.0, "bar": "1h"} | settings
    cerebro = bt.Cerebro(stdstats=False, **(mode or {}))
    feed = bt.feeds.PandasData(
        dataname=frame, timeframe=bt.TimeFrame.Minutes, compression=60, openinterest=None
    )
    cerebro.adddata(feed)
    cerebro.addstrategy(Holder, make=lambda s: Planted(s.data, headlines=headlines, **settings))
    return cerebro.run()[0].made


def values(*args: Any, name: str = "news", **kwargs: Any) -> list[float]:
    return line(build(*args, **kwargs), name).tolist()


# What counts when.


def test_a_headline_within_a_bar_counts_at_its_close_and_fades_by_bars() -> None:
    assert values(hours((1.75, "+h"))) == [0, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]


def test_impacts_weigh_and_headlines_add_up() -> None:
    news = hours((1.1, "+h"), (1.2, "+m"), (2.5, "-h"), (3.5, "0h"), (3.6, "+l"))
    assert values(news, bars=5) == [0, 1.5, 0.75 - 1, -0.125 + 0.25, 0.0625]
    assert values(news, bars=5, name="count") == [0, 2, 1, 2, 0]


@pytest.mark.parametrize(
    ("stamp", "hour", "bar"),
    [
        ("open", 2.0, 1),  # published at the moment at which the bar stamped 01:00 closes
        ("open", 2.0 + 1 / 3600, 2),
        ("close", 2.0, 2),
        ("close", 2.0 + 1 / 3600, 3),
        ("close", 1.5, 2),
    ],
)
def test_the_boundary_of_a_bar_is_its_close(stamp: str, hour: float, bar: int) -> None:
    counts = values(hours((hour, "+h")), stamp=stamp, name="count")
    assert [i for i, count in enumerate(counts) if count] == [bar]


def test_latency_delays_what_falls_on_the_close() -> None:
    news = hours((2.0, "+h"), (2.99, "-l"))
    assert values(news, bars=4, latency=60.0, name="count") == [0, 0, 1, 1]
    assert values(news, bars=4, latency=0.0, name="count") == [0, 1, 1, 0]


def test_what_was_published_before_the_first_bar_opened_is_left_out() -> None:
    assert values(hours((-0.1, "+h"), (0.0, "+h"), (0.1, "-h")), bars=2, name="count") == [1, 0]


def test_what_happens_over_a_gap_counts_at_the_first_bar_after_it() -> None:
    frame = walk(6, freq="h")
    frame.index = frame.index[:3].append(frame.index[3:] + pd.Timedelta(days=2))
    news = hours((20.0, "+h"), (21.0, "-m"))
    assert values(news, frame=frame) == [0, 0, 0, 0.5, 0.25, 0.125]


def test_the_zone_of_the_bars_is_taken_into_account() -> None:
    news = hours((1.5, "+h"))
    assert values(news, name="count")[1] == 1
    assert values(hours((6.5, "+h")), time_zone="America/New_York", name="count")[1] == 1
    assert sum(values(news, time_zone="America/New_York", name="count")) == 0


def test_unreadable_answers_add_nothing_and_are_counted() -> None:
    news = hours((1.5, "?"), (1.6, "+h"), (2.5, "?"))
    assert values(news, bars=4) == [0, 1, 0.5, 0.25]
    assert values(news, bars=4, name="unreadable") == [0, 1, 1, 0]


def test_no_headlines_give_zero_and_ask_nobody() -> None:
    assert values(Headlines(()), bars=3) == [0, 0, 0]


def test_a_headline_is_judged_once_however_often_it_comes() -> None:
    judged: list[str] = []

    class Counting(Planted):
        def judge(self, texts: Sequence[str]) -> list[NewsSentiment]:
            judged.extend(texts)
            return super().judge(texts)

    news = hours((1.5, "+h"), (3.5, "+h"), (3.6, "-l"), (50.0, "+m"))
    for mode in ({}, {"runonce": False}):
        cerebro = bt.Cerebro(stdstats=False, **mode)
        cerebro.adddata(bt.feeds.PandasData(dataname=walk(8, freq="h"), openinterest=None))
        cerebro.addstrategy(Holder, make=lambda s: Counting(s.data, headlines=news, bar="1h"))
        cerebro.run()
    assert judged == ["+h", "-l"] * 2


# Engine modes, and what cannot be known.


def recorded(news: Headlines, mode: dict[str, Any], frame: pd.DataFrame) -> list[tuple[float, ...]]:
    """Lines as a strategy sees them, bar by bar."""
    rows = []

    class Recorder(bt.Strategy):
        def __init__(self) -> None:
            self.made = Planted(self.data, headlines=news, half_life=3.0)

        def next(self) -> None:
            rows.append(tuple(getattr(self.made.lines, name)[0] for name in LINES))

    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.adddata(
        bt.feeds.PandasData(dataname=frame, timeframe=bt.TimeFrame.Minutes, compression=60, openinterest=None)
    )
    cerebro.addstrategy(Recorder)
    cerebro.run()
    return rows


def test_lines_are_the_same_in_every_engine_mode() -> None:
    news = hours(*((0.37 * i, "+-0?"[i % 4] + "hml"[i % 3]) for i in range(60)))
    frame = walk(30, freq="h")
    runs = [recorded(news, mode, frame) for mode in MODES]
    assert len(runs[0]) == 30
    assert len({tuple(map(tuple, rows)) for rows in runs}) == 1
    assert len({row[0] for row in runs[0]}) > 20


NEWS_LISTS = st.lists(
    st.tuples(st.floats(-2, 42), st.sampled_from(["+h", "-h", "+m", "-l", "0h", "?"])), max_size=25
)


@given(
    items=NEWS_LISTS, t=st.integers(0, 38), runonce=st.booleans(), stamp=st.sampled_from(["open", "close"])
)
def test_nothing_after_a_bar_matters(
    items: list[tuple[float, str]], t: int, runonce: bool, stamp: str
) -> None:
    """Cut bars and headlines off after bar t, or change the headlines after it: the lines up to t stay."""
    frame = walk(40, freq="h")
    close = t + (1 if stamp == "open" else 0)
    past = [(hour, text) for hour, text in items if START + timedelta(hours=hour) <= at(close)]
    other = [*past, (close + 0.001, "-h"), (close + 3.0, "+h")]
    mode = {"runonce": runonce, "preload": runonce}
    whole = build(hours(*items), frame=frame, mode=mode, stamp=stamp, half_life=5.0)
    for made in (
        build(hours(*past), frame=frame.iloc[: t + 1], mode=mode, stamp=stamp, half_life=5.0),
        build(hours(*other), frame=frame, mode=mode, stamp=stamp, half_life=5.0),
    ):
        for name in LINES:
            assert bits(line(made, name)[: t + 1]) == bits(line(whole, name)[: t + 1])
    changed = line(build(hours(*other), frame=frame, mode=mode, stamp=stamp, half_life=5.0), "count")
    assert t == 39 or changed[t + 1] >= 1  # the test would see a headline that is let in too early


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def test_bars_that_are_shorter_than_said_are_an_error_not_a_look_ahead() -> None:
    for mode in ({}, {"runonce": False}):
        with pytest.raises(DataError, match="overlap: each is said to last 1 day"):
            build(hours((5.0, "+h")), mode=mode, bar="1D")


def test_a_replayed_bar_is_filled_anew() -> None:
    """Minute bars replayed as hours: a line moves within an hour, and ends as if the hour had come whole."""
    news = hours((0.5, "+h"), (1.2, "-h"), (1.7, "+m"), (3.0, "+h"))
    frame = walk(240, freq="min")
    seen: dict[int, list[float]] = {}

    class Recorder(bt.Strategy):
        def __init__(self) -> None:
            self.made = Planted(self.data, headlines=news, half_life=1.0, stamp="close")

        def next(self) -> None:
            seen.setdefault(len(self), []).append(self.made.news[0])

    cerebro = bt.Cerebro(stdstats=False)
    data = bt.feeds.PandasData(
        dataname=frame, timeframe=bt.TimeFrame.Minutes, compression=1, openinterest=None
    )
    cerebro.replaydata(data, timeframe=bt.TimeFrame.Minutes, compression=60)
    cerebro.addstrategy(Recorder)
    cerebro.run()
    # Backtrader's first bar is the stamp 00:00 alone; the second ends at 01:00, and so on.
    assert [seen[length][-1] for length in (1, 2, 3, 4)] == [0.0, 1.0, 0.5 - 1.0 + 0.5, 1.0]
    assert sorted(set(seen[2])) == [0.0, 1.0]
    assert sorted(set(seen[3])) == [-0.5, 0.0, 0.5]


# Settings.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"half_life": 0}, "half_life=0: expected a number above 0"),
        ({"half_life": float("inf")}, "half_life=inf: expected a number above 0"),
        ({"latency": -1.0}, "latency=-1.0: expected a number of at least 0"),
        ({"analyst": "smollm2"}, "analyst='smollm2': expected an AnalystConfig"),
        ({"stamp": "end"}, "stamp='end': expected one of"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Headlines(()), **settings)


def test_a_judge_must_answer_each() -> None:
    class Lazy(Planted):
        def judge(self, texts: Sequence[str]) -> list[NewsSentiment]:
            return []

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=walk(3, freq="h"), openinterest=None))
    cerebro.addstrategy(Holder, make=lambda s: Lazy(s.data, headlines=hours((0.5, "+h")), bar="1h"))
    with pytest.raises(ConfigError, match=r"Lazy.judge gave 0 answers for 1 headlines"):
        cerebro.run()


def test_the_model_is_asked_through_the_cache_and_replayed(tmp_path: Path) -> None:
    backend = Scripted(
        lambda p: json.dumps({**NEWS, "sentiment": "Bearish" if "Euro falls" in p else "Bullish"})
    )
    cache = VerdictCache(tmp_path)
    news = hours((0.5, "Euro falls"), (2.5, "Euro gains"))
    NewsAnalyst(backend, cache=cache).analyze_many([item.text for item in news])
    config = AnalystConfig(model="scripted", cache_dir=tmp_path, cache_mode="replay")
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=walk(3, freq="h"), openinterest=None))
    path = tmp_path / "news.csv"
    path.write_text(
        "time,headline\n" + "".join(f"{item.time.isoformat()},{item.text}\n" for item in news),
        encoding="utf-8",
    )
    made = {"headlines": path, "analyst": config, "bar": "1h", "half_life": 1.0}
    cerebro.addstrategy(Holder, make=lambda s: LLMNews(s.data, **made))
    found = cerebro.run()[0].made
    assert line(found, "news").tolist() == [-0.8, -0.4, -0.2 + 0.8]


# The gate.


@pytest.mark.parametrize(
    ("require", "side", "news", "allowed"),
    [
        ("not_against", 1, 0.0, True),
        ("not_against", 1, -0.2, False),
        ("not_against", 1, -0.19, True),
        ("not_against", -1, 0.5, False),
        ("agree", 1, 0.0, False),
        ("agree", 1, 0.2, True),
        ("agree", 1, 0.1, False),
        ("agree", -1, 0.5, False),
    ],
)
def test_the_gates_rule(require: Any, side: int, news: float, allowed: bool) -> None:
    assert NewsGate(headlines=Headlines(()), min_score=0.2, require=require).allows(side, news) is allowed


def test_a_gate_without_a_least_score_still_needs_news() -> None:
    gate = NewsGate(headlines=Headlines(()), min_score=0, require="agree")
    assert not gate.allows(1, 0.0)


def test_a_wrong_gate_is_refused() -> None:
    for wrong in ({"min_score": -1}, {"require": "always"}):
        with pytest.raises(ConfigError):
            NewsGate(headlines=Headlines(()), **wrong)  # type: ignore[arg-type]


def test_a_gate_changes_entries_by_the_news_and_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    news = Headlines.of(
        (f"2017-{month:02}-01T00:30:00Z", "-h" if month < 9 else "+h") for month in range(5, 13)
    )
    monkeypatch.setattr(LLMNews, "judge", lambda self, texts: [Planted.planted(text) for text in texts])
    gate = NewsGate(headlines=news, half_life=300)
    assert pickle.loads(pickle.dumps(gate)) == gate
    strategy, bars = f"{shipped('sma_cross.py')}:GatedSmaCross", load_bars(shipped("eurusd_hourly.csv"))
    study = gate_study(strategy, bars, gate)
    assert study.gated.metrics["trades"] < study.runs["ungated"].metrics["trades"]
    _, ran = inspect_run(strategy, bars, gate=gate)
    log = ran.gate.log
    assert min(ran.gate.allowed, ran.gate.blocked) > 20
    assert ran.gate.missing == 0
    assert all(decision.allowed is not (decision.verdict == -decision.side) for decision in log)
    assert {decision.verdict for decision in log} == {-1.0, 0.0, 1.0}


def test_the_shipped_headlines_and_bars_fit() -> None:
    news = Headlines.load(shipped("eurusd_news.csv"))
    made = build(
        Headlines.of((item.time, "+h") for item in news),
        frame=load_bars(shipped("eurusd_hourly.csv")),
        half_life=24.0,
        latency=60.0,
    )
    counts = line(made, "count")
    assert counts.sum() == len(news)
    assert np.count_nonzero(counts) == len(news)
