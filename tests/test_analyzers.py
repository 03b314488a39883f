from __future__ import annotations

import io
import json
import math
import pickle

import backtrader as bt
import numpy as np
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.analyzers import LLMAnalyzer
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import Gate, NeverOpen, attach_gate
from bt_llm.verdicts import Verdict
from tests.engines import RANDOM, QuickAdvice, line, run, walk

VERDICTS = {
    "up": Verdict(bullish=0.7, neutral=0.2, bearish=0.1),
    "flat": Verdict(bullish=0.2, neutral=0.7, bearish=0.1),
    "down": Verdict(bullish=0.1, neutral=0.2, bearish=0.7),
    "?": Verdict.invalid("?"),
}


class Planted(QuickAdvice):
    """Verdicts written out by hand, a word a bar."""

    plan = ()

    def next(self):
        word = self.plan[len(self) - 1]
        if word != "-":
            verdict = VERDICTS[word]
            self.lines.verdict[0], self.lines.confidence[0] = verdict.worth, verdict.confidence
            self.lines.label[0] = verdict.place if verdict.valid else math.nan
            self.asked += 1


def analysed(strategy, *frames, horizon=1, mode=None, **params):
    ran = run(
        strategy, *frames, mode=mode, prepare=lambda c: c.addanalyzer(LLMAnalyzer, horizon=horizon), **params
    )
    return ran, ran.analyzers[0].get_analysis()


class Quiet(bt.Strategy):
    def __init__(self):
        self.advice = [QuickAdvice(data, advisor=RANDOM) for data in self.datas]


def planted(words, closes, horizon=1):
    advice = type("PlantedNow", (Planted,), {"plan": words})
    frame = walk(len(closes)).assign(close=closes)

    class Strategy(bt.Strategy):
        def __init__(self):
            advice(self.data, advisor=RANDOM, ema=1, slope=1, rsi=1, atr=1, median=1)

    return analysed(Strategy, frame, horizon=horizon, mode={"runonce": False})[1]


def test_counts_and_forward_returns_by_hand():
    #         warm-up  +10%   -10%   +10%   flat    -50%   +100%   -     last
    words = ["-", "-", "up", "up", "down", "down", "flat", "?", "-", "up"]
    closes = [90.0, 95.0, 100.0, 110.0, 99.0, 108.9, 108.9, 54.45, 108.9, 100.0]
    found = planted(words, closes)
    assert found["bars"] == 10
    assert found["asked"] == 7
    assert found["verdicts"] == {"bullish": 3, "neutral": 1, "bearish": 2, "invalid": 1, "not_asked": 3}
    forward = found["forward"]
    # bullish: +10% and -10%, the last bar has no next one; bearish: +10% and 0%; neutral: -50%
    assert {name: group["n"] for name, group in forward.items()} == {
        "bullish": 2,
        "neutral": 1,
        "bearish": 2,
        "all": 5,
    }
    assert forward["bullish"]["mean"] == pytest.approx(0.0, abs=1e-12)
    assert forward["bullish"]["hit_rate"] == 0.5
    assert forward["bearish"]["mean"] == pytest.approx(0.05)
    assert forward["bearish"]["hit_rate"] == 0.0
    assert forward["neutral"] == {"n": 1, "mean": pytest.approx(-0.5), "hit_rate": None}
    assert forward["all"]["mean"] == pytest.approx((0.1 - 0.1 + 0.1 + 0.0 - 0.5) / 5)
    assert forward["all"]["hit_rate"] is None


def test_a_longer_horizon_by_hand():
    words = ["-", "-", "up", "up", "down", "down"]
    found = planted(words, [1.0, 1.0, 100.0, 100.0, 120.0, 90.0], horizon=2)
    assert found["horizon"] == 2
    assert found["forward"]["bullish"] == {"n": 2, "mean": pytest.approx((0.2 - 0.1) / 2), "hit_rate": 0.5}
    assert found["forward"]["bearish"] == {"n": 0, "mean": None, "hit_rate": None}


def test_a_price_that_is_not_above_nothing_has_no_return():
    words = ["-", "-", "up", "up", "up", "up"]
    found = planted(words, [1.0, 1.0, 10.0, -5.0, 0.0, 20.0])
    assert found["forward"]["bullish"] == {"n": 1, "mean": pytest.approx(-1.5), "hit_rate": 0.0}


def test_a_horizon_beyond_the_data_leaves_no_returns():
    found = analysed(Quiet, walk(40), horizon=100)[1]
    assert found["forward"]["all"] == {"n": 0, "mean": None, "hit_rate": None}


@pytest.mark.parametrize("horizon", [0, -1, 1.0, True, "1"])
def test_a_wrong_horizon_is_named(horizon):
    with pytest.raises(ConfigError, match=f"horizon={horizon!r}: expected a whole number"):
        analysed(Quiet, walk(40), horizon=horizon)


@pytest.mark.parametrize("runonce", [True, False])
def test_counts_equal_the_lines(runonce):
    strategy, found = analysed(Quiet, walk(200), horizon=3, mode={"runonce": runonce})
    (advice,) = strategy.advice
    verdicts, close = line(advice, "verdict"), line(strategy.data, "close")
    counts = {
        "bullish": (verdicts == 1).sum(),
        "neutral": (verdicts == 0).sum(),
        "bearish": (verdicts == -1).sum(),
    }
    assert found["verdicts"] == {**counts, "invalid": 0, "not_asked": 15}
    assert min(counts.values()) > 10
    assert (found["bars"], found["warm_up"], found["asked"]) == (200, 15, 185)
    assert (found["distinct"], found["cache_hits"]) == (advice.distinct, advice.usage.cache_hits)
    forward = close[3:] / close[:-3] - 1
    bearish = forward[verdicts[:-3] == -1]
    assert found["forward"]["bearish"]["n"] == len(bearish)
    assert found["forward"]["bearish"]["mean"] == pytest.approx(bearish.mean(), rel=1e-9)
    assert found["forward"]["bearish"]["hit_rate"] == (bearish < 0).mean()


@pytest.mark.parametrize("runonce", [True, False])
def test_bars_after_the_end_of_a_run_do_not_count(runonce):
    class Stops(Quiet):
        def next(self):
            if len(self) == 80:
                self.env.runstop()

    _, found = analysed(Stops, walk(200), mode={"runonce": runonce})
    assert found["bars"] == sum(found["verdicts"].values()) == 80
    assert found["warm_up"] + found["asked"] == 80
    assert found["asked"] == 80 - found["verdicts"]["not_asked"]


def test_the_second_run_asks_the_model_nothing(tmp_path):
    config = AdvisorConfig(model="scripted:random", cache_dir=tmp_path / "verdicts", cache_mode="record")

    class Cached(bt.Strategy):
        def __init__(self):
            QuickAdvice(self.data, advisor=config)

    first, second = (analysed(Cached, walk(100))[1] for _ in range(2))
    assert first["model_calls"] == len(config.state_space)
    assert first["model_seconds"] > 0
    assert (second["model_calls"], second["model_seconds"]) == (0, 0.0)
    assert second["cache_hits"] == second["distinct"] == first["distinct"] > 10
    assert second["verdicts"] == first["verdicts"]


class TwoGates(bt.Strategy):
    def __init__(self):
        gate = Gate(advisor=RANDOM, indicator=QuickAdvice)
        self.gates = [attach_gate(gate, self, self.data0), attach_gate(NeverOpen(), self, self.data1)]
        self.advice = QuickAdvice(self.data1, advisor=RANDOM)

    def next(self):
        for gate in self.gates:
            gate.allows_long()


def test_several_datas_have_their_own_part_and_a_total():
    strategy, found = analysed(TwoGates, walk(100), walk(60, seed=5))
    assert list(found["datas"]) == ["data0", "data1"]
    first, second = found["datas"].values()
    assert (first["bars"], second["bars"], found["bars"]) == (100, 60, 160)
    assert (first["asked"], second["asked"], found["asked"]) == (85, 45, 130)
    for name, count in found["verdicts"].items():
        assert count == first["verdicts"][name] + second["verdicts"][name]
    for name, group in found["forward"].items():
        assert group["n"] == first["forward"][name]["n"] + second["forward"][name]["n"]
    assert first["gate"] == {
        "allowed": strategy.gates[0].allowed,
        "blocked": strategy.gates[0].blocked,
        "missing": 0,
    }
    assert second["gate"] == {"allowed": 0, "blocked": len(strategy.gates[1].log), "missing": 0}
    assert found["gate"]["blocked"] == first["gate"]["blocked"] + second["gate"]["blocked"]
    assert "datas" not in first


def test_datas_of_the_same_name_are_told_apart():
    def prepare(cerebro):
        for data in cerebro.datas:
            data._name = "eurusd"
        cerebro.addanalyzer(LLMAnalyzer)

    found = run(Quiet, walk(40), walk(50), prepare=prepare).analyzers[0].get_analysis()
    assert {name: part["bars"] for name, part in found["datas"].items()} == {"eurusd0": 40, "eurusd1": 50}


def test_a_strategy_without_advice_has_zeros():
    found = analysed(bt.Strategy, walk(20))[1]
    assert (found["bars"], found["asked"], found["datas"]) == (0, 0, {})
    assert found["gate"] == {"allowed": 0, "blocked": 0, "missing": 0}
    assert found["forward"]["bullish"] == {"n": 0, "mean": None, "hit_rate": None}


def test_data_shorter_than_another_indicators_warm_up_is_said_before_the_run():
    class Slow(bt.Strategy):
        def __init__(self):
            bt.ind.SMA(self.data, period=200)

    with pytest.raises(DataError, match="data 'data0' has 60 bars, but Slow needs 200 to warm up"):
        analysed(Slow, walk(60))


def test_the_analysis_is_json_and_its_pickle_small():
    strategy, found = analysed(TwoGates, walk(300), walk(300))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    analyzer = strategy.analyzers[0]
    assert analyzer._histories == []
    for name in [name for name in vars(analyzer) if name.startswith("data")] + ["strategy", "_parent"]:
        setattr(analyzer, name, None)  # as an optimisation does
    assert len(pickle.dumps(analyzer)) < 6000


def test_backtraders_writer_can_print_it():
    out = io.StringIO()

    def prepare(cerebro):
        cerebro.addanalyzer(LLMAnalyzer, _name="advice")
        cerebro.addwriter(bt.WriterFile, out=out, close_out=False)

    run(Quiet, walk(40), prepare=prepare)
    assert "- not_asked: 15" in out.getvalue()


def test_a_replayed_bar_counts_once():
    class Replayed(Quiet):
        pass

    def prepare(cerebro):
        source = bt.feeds.PandasData(dataname=walk(210), timeframe=bt.TimeFrame.Days, openinterest=None)
        cerebro.replaydata(source, timeframe=bt.TimeFrame.Weeks)
        cerebro.addanalyzer(LLMAnalyzer)

    strategy = run(Replayed, prepare=prepare)
    found = strategy.analyzers[0].get_analysis()
    assert found["bars"] == len(strategy.data) < 35
    assert sum(found["verdicts"].values()) == found["bars"]
    assert found["asked"] == found["bars"] - 15
    assert not math.isnan(np.float64(found["forward"]["all"]["mean"]))
