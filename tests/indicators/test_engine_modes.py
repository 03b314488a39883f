"""Every set-up in every engine mode of Backtrader gives the same lines, decisions and final value."""

from __future__ import annotations

import importlib
import pickle

import backtrader as bt
import matplotlib
import matplotlib.pyplot as plt
import pytest

from bt_llm.analyzers import LLMAnalyzer
from bt_llm.gates import Gate, attach_gate
from bt_llm.indicators import find_advice, value_now
from bt_llm.models import ModelConfig, ModelManager
from bt_llm.observers import LLMMarks
from tests.engines import MODES, RANDOM, TREND, QuickAdvice, bits, feed, line, run, walk

DAYS = walk(182, seed=1)
OTHER = walk(182, seed=2)


class WeekAdvice(QuickAdvice):
    """An advice that is warm after 8 bars, so that half a year of weeks will do."""

    params = (("ema", 3), ("rsi", 3), ("atr", 3), ("median", 5))


GATE = Gate(advisor=RANDOM, indicator=WeekAdvice)


class Outer(bt.Indicator):
    lines = ("out",)

    def __init__(self):
        self.inner = WeekAdvice(self.data, advisor=RANDOM)
        self.lines.out = self.inner.trend + self.inner.rsi


class Trader(bt.Strategy):
    """Holds a long or short position where the advice lets it, and writes down all that it sees."""

    params = (("gate", GATE), ("make", None), ("period", 4))

    def __init__(self):
        self.gates = [attach_gate(self.p.gate, self, data) for data in self.datas]
        self.averages = [bt.ind.SMA(data, period=self.p.period) for data in self.datas]
        self.extra = self.p.make(self) if self.p.make else None
        self.seen = []

    def next(self):
        for gate, average in zip(self.gates, self.averages, strict=True):
            data, size = gate.data, self.getposition(gate.data).size
            above = data.close[0] > average[0]
            if size and above != (size > 0):
                self.close(data)
            elif not size and above and gate.allows_long():
                self.buy(data)
            elif not size and not above and gate.allows_short():
                self.sell(data)
        now = [
            value_now(advice, name) for advice in find_advice(self) for name in advice.lines.getlinealiases()
        ]
        self.seen.append((self.datetime.datetime(0), bits(now), bits([self.broker.getvalue()])))


def one(cerebro):
    cerebro.adddata(feed(DAYS))


def trigger(strategy):
    return QuickAdvice(
        strategy.data, bt.ind.CrossOver(strategy.data.close, strategy.averages[0]), advisor=TREND
    )


def nested(strategy):
    return Outer(strategy.data)


def two(cerebro):
    cerebro.adddata(feed(DAYS), name="a")
    cerebro.adddata(feed(OTHER[30:-20]), name="b")


def resampled(cerebro):
    cerebro.adddata(feed(DAYS))
    weeks = feed(DAYS)
    weeks.resample(timeframe=bt.TimeFrame.Weeks, compression=1)
    cerebro.adddata(weeks)


def cerebro_resampled(cerebro):
    days = feed(DAYS)
    cerebro.adddata(days)
    cerebro.resampledata(days, timeframe=bt.TimeFrame.Weeks)


def week_only(cerebro):
    cerebro.resampledata(feed(DAYS), timeframe=bt.TimeFrame.Weeks)


def replay(cerebro):
    cerebro.replaydata(feed(DAYS), timeframe=bt.TimeFrame.Weeks)


SETUPS = {
    "one data": (one, None, 1),
    "trigger": (one, trigger, 2),
    "nested": (one, nested, 2),
    "two datas": (two, None, 2),
    "resampled": (resampled, None, 2),
    "resampled, not preloaded": (resampled, None, 2),
    "cerebro.resampledata": (cerebro_resampled, None, 2),
    "week only": (week_only, None, 1),
    "replay": (replay, None, 1),
}


def modes(setup):
    """Return the modes that Backtrader itself runs alike, with or without bt_llm.

    A feed that resamples itself shows unfinished weeks with exactbars=1, and gives its last week one step
    later without preload.
    """
    if not setup.startswith("resampled"):
        return MODES
    preload = setup == "resampled"
    return [mode for mode in MODES if mode["exactbars"] != 1 and mode["preload"] == preload]


def trade(setup, mode):
    add, make, advices = SETUPS[setup]
    strategy = run(
        Trader, prepare=lambda c: (add(c), c.addanalyzer(LLMAnalyzer, horizon=2)), mode=mode, make=make
    )
    assert len(find_advice(strategy)) == advices
    return strategy


def facts(strategy):
    """Return all that must not depend on the engine: everything but what answering cost."""
    analysis = dict(strategy.analyzers[0].get_analysis())
    costs = {"cache_hits", "model_calls", "model_seconds"}
    known = {name: value for name, value in analysis.items() if name not in {*costs, "datas"}}
    by_data = {
        name: {key: value for key, value in data.items() if key not in costs}
        for name, data in analysis["datas"].items()
    }
    decisions = [
        decision._replace(verdict=repr(decision.verdict)) for g in strategy.gates for decision in g.log
    ]
    return strategy.seen, decisions, known, by_data, strategy.broker.getvalue()


@pytest.mark.parametrize("setup", SETUPS)
def test_lines_decisions_analysis_and_final_value_are_the_same_in_every_mode(setup):
    runs = [facts(trade(setup, mode)) for mode in modes(setup)]
    seen, decisions, known, by_data, value = runs[0]
    assert len(seen) > 15
    assert len({tuple(values) for _, values, _ in seen}) > 10
    assert {decision.allowed for decision in decisions} == {True, False}
    assert value != 10_000
    assert sum(known["verdicts"].values()) == known["bars"]
    for mode, other in zip(modes(setup), runs, strict=True):
        for expected, found in zip((seen, decisions, known, by_data, value), other, strict=True):
            assert found == expected, f"{setup}: {mode}"


@pytest.mark.parametrize("setup", ["one data", "trigger", "nested", "two datas", "resampled"])
def test_whole_lines_are_the_same_vectorised_and_bar_by_bar(setup):
    vectorised, stepped = (trade(setup, {"runonce": runonce}) for runonce in (True, False))
    for left, right in zip(find_advice(vectorised), find_advice(stepped), strict=True):
        for name in left.lines.getlinealiases():
            if name in ("trend", "rsi", "volatility"):
                first = left.warm_up_bars - 1
                assert bits(line(left, name)[first:]) == bits(line(right, name)[first:])
            else:
                assert bits(line(left, name)) == bits(line(right, name))
        assert (left.bars, left.asked, left.distinct) == (right.bars, right.asked, right.distinct)


def test_upstreams_checkpoints_and_minimum_period():
    """Backtrader's own test of an indicator: its last, first and middle value, where lines are kept."""
    checkpoints = set()
    for mode in MODES:
        if mode["exactbars"] == 1:
            continue
        advice = find_advice(trade("one data", mode))[0]
        length, period = len(advice), advice.warm_up_bars
        middle = (-length + period) // 2
        checkpoints.add(tuple(f"{part[k]:f}" for part in advice.lines for k in (0, -length + period, middle)))
        assert period == 8
    assert len(checkpoints) == 1


# Optimisation


def optimise(maxcpus, gate=GATE):
    cerebro = bt.Cerebro(maxcpus=maxcpus)
    cerebro.adddata(feed(DAYS), name="eurusd")
    cerebro.addanalyzer(LLMAnalyzer, _name="advice")
    cerebro.addanalyzer(bt.analyzers.TimeReturn, _name="returns", timeframe=bt.TimeFrame.NoTimeFrame)
    cerebro.addobserver(LLMMarks)
    cerebro.optstrategy(Trader, gate=[None, gate], period=[3, 5])
    results = [result for (result,) in cerebro.run()]
    for result in results:
        assert len(pickle.dumps(result.analyzers.advice)) < 4000
    return {
        (result.p.gate is None, result.p.period): (
            list(result.analyzers.returns.get_analysis().values()),
            {
                key: value
                for key, value in result.analyzers.advice.get_analysis().items()
                if key in ("bars", "asked", "distinct", "verdicts", "forward", "gate")
            },
        )
        for result in results
    }


def test_an_optimisation_is_the_same_on_one_and_two_processes_and_as_single_runs():
    alone, pooled = optimise(1), optimise(2)
    assert alone == pooled
    assert len(alone) == 4
    for (ungated, period), (returns, advice) in alone.items():
        strategy = run(Trader, DAYS, gate=None if ungated else GATE, period=period)
        assert strategy.broker.getvalue() == pytest.approx(10_000 * (1 + returns[0]), rel=1e-12)
        assert advice["asked"] == (0 if ungated else 175)
    assert alone[False, 3] != alone[True, 3]


def test_a_gate_with_a_manager_goes_to_other_processes_as_what_it_describes():
    manager = ModelManager("scripted:random", config=ModelConfig(n_threads=RANDOM.n_threads))
    managed = Gate(advisor=RANDOM, indicator=WeekAdvice, manager=manager)
    assert managed == GATE
    assert managed.advisor.manager is manager
    assert optimise(2, managed) == optimise(1, GATE)


def test_an_advice_asks_the_manager_that_it_is_given():
    manager = ModelManager("scripted:random")

    class Holder(bt.Strategy):
        def __init__(self):
            self.advice = WeekAdvice(self.data, advisor=TREND, manager=manager)
            self.alone = WeekAdvice(self.data, manager=manager)

    made = run(Holder, DAYS)
    assert made.advice.advisor.manager is made.alone.config.manager is manager
    assert manager.usage.answered == ("scripted:random",)
    assert made.advice.config.cache_mode is TREND.cache_mode


# Plot


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
def test_plot_without_a_display():
    importlib.import_module("backtrader.plot")  # first: it chooses a window of its own
    matplotlib.use("Agg")

    cerebro = bt.Cerebro()
    two(cerebro)
    cerebro.addobservermulti(LLMMarks, min_confidence=0.4)
    cerebro.addstrategy(Trader)
    cerebro.run()
    ((figure,),) = cerebro.plot(iplot=False)
    drawn = {handle.get_label().split("\n")[0] for axes in figure.axes for handle in axes.lines}
    plt.close("all")
    assert "LLM advice (scripted:random, 3, 2, 3, 3, 5)" in drawn
    assert any(label.startswith("LLM (") for label in drawn)
