from __future__ import annotations

import itertools
import math

import backtrader as bt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.advice import AdvisorConfig
from bt_llm.analyzers import LLMAnalyzer
from bt_llm.exceptions import ConfigError, GenerationTimeout
from bt_llm.gates import Gate, attach_gate
from bt_llm.indicators import LLMAdvice, find_advice, value_now
from bt_llm.indicators._frequency import Frequency, LastAsk, milliseconds
from bt_llm.verdicts import Verdict
from tests.engines import RANDOM, QuickAdvice, bits, build, feed, line, run, walk
from tests.indicators.test_engine_modes import (
    cerebro_resampled,
    modes,
    one,
    replay,
    resampled,
    two,
    week_only,
)

OUTPUTS = ("verdict", "confidence", "bullish", "bearish", "neutral")
ENGINES = [{"runonce": True}, {"runonce": False}]
MINUTE = 1 / 1440


def sources(frequency, possible, minutes=None):
    possible = np.array([mark == "x" for mark in possible])
    times = np.arange(len(possible)) if minutes is None else np.array(minutes)
    return frequency.sources(possible, 737791 + times * MINUTE).tolist()


# By hand


def test_every_bar_is_asked_by_default():
    assert sources(Frequency(), "-x-xx") == [-1, 1, -1, 3, 4]


def test_every_counts_possible_bars_from_the_first():
    assert sources(Frequency(every=3), "--xxxxxxxx") == [-1, -1, 2, 2, 2, 5, 5, 5, 8, 8]
    #  counted:                         1 23 1   23 1
    assert sources(Frequency(every=3), "x-xx-x---xx-x") == [0, -1, 0, 0, -1, 5, -1, -1, -1, 5, 5, -1, 12]


def test_minutes_are_of_bar_time_and_an_interval_that_is_exactly_over_is_over():
    gaps = [0, 5, 10, 14, 15, 16, 600, 601]
    assert sources(Frequency(min_minutes=10), "x" * 8, gaps) == [0, 0, 2, 2, 2, 2, 6, 6]
    every_five = [5 * k for k in range(200)]
    assert sources(Frequency(min_minutes=5), "x" * 200, every_five) == list(range(200))


def test_both_limits_hold():
    assert sources(Frequency(every=2, min_minutes=3), "xxxxxxx") == [0, 0, 0, 3, 3, 3, 6]
    assert sources(Frequency(every=4, min_minutes=3), "xxxxxxx") == [0, 0, 0, 0, 4, 4, 4]


def test_a_verdict_counts_up_to_its_greatest_age_in_bars_of_the_data():
    assert sources(Frequency(every=4, max_age=2), "xxxxxxxxx") == [0, 0, 0, -1, 4, 4, 4, -1, 8]
    assert sources(Frequency(every=3, max_age=2), "x-xx-x") == [0, -1, 0, -1, -1, 5]
    assert sources(Frequency(every=3, max_age=0), "xxxx") == [0, -1, -1, 3]


def test_a_time_is_rounded_to_the_millisecond():
    assert milliseconds(737791.0 + 0.1) == 737791 * 86_400_000 + 8_640_000
    assert Frequency(min_minutes=60).is_due(
        LastAsk(1, milliseconds(737791.9)), milliseconds(737791.9 + 1 / 24)
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"every": 0}, "every=0: expected a whole number of bars, at least 1"),
        ({"every": 1.0}, "every=1.0"),
        ({"every": True}, "every=True"),
        ({"min_minutes": -1}, "min_minutes=-1: expected a number of minutes of at least 0"),
        ({"min_minutes": math.nan}, "min_minutes=nan"),
        ({"min_minutes": math.inf}, "min_minutes=inf"),
        ({"min_minutes": "5"}, "min_minutes='5'"),
        ({"max_age": -1}, "max_age=-1: expected a whole number of bars of at least 0, or None"),
        ({"max_age": 1.5}, "max_age=1.5"),
        ({"live": "yes"}, r"live='yes': expected one of \['auto', 'on', 'off'\]"),
        ({"timeout_s": 0}, "timeout_s=0: expected a number of seconds above 0"),
        ({"timeout_s": None}, "timeout_s=None"),
        ({"min_seconds": -1}, "min_seconds=-1: expected a number of seconds of at least 0"),
    ],
)
def test_bad_settings_are_named_in_one_line(setting, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(lambda s: QuickAdvice(s.data, advisor=RANDOM, **setting), walk(40))
    assert "\n" not in str(caught.value)


# In an indicator


def advice(frame, mode=None, **params):
    return build(lambda s: QuickAdvice(s.data, advisor=RANDOM, **params), frame, mode=mode)


@pytest.mark.parametrize("mode", ENGINES)
def test_a_default_advice_is_as_it_was_and_says_that_every_verdict_is_new(mode):
    frame = walk(60)
    made = advice(frame, mode)
    assert line(made, "age")[15:].tolist() == [0.0] * 45
    assert np.isnan(line(made, "age")[:15]).all()
    assert (made.asked, made.carried, made.unanswered) == (45, 0, 0)


@pytest.mark.parametrize("mode", ENGINES)
def test_between_questions_the_last_verdict_is_carried_with_its_age(mode):
    frame = walk(60)
    everywhere, made = advice(frame), advice(frame, mode, every=7, max_age=4)
    for bar in range(15, 60):
        age = (bar - 15) % 7
        expected = [line(everywhere, name)[bar - age] if age <= 4 else math.nan for name in OUTPUTS]
        assert bits(line(made, name)[bar] for name in OUTPUTS) == bits(expected), bar
        assert bits([line(made, "age")[bar]]) == bits([age if age <= 4 else math.nan])
    assert (made.bars, made.asked, made.carried, made.unanswered) == (45, 7, 26, 0)
    for name in ("trend", "rsi", "volatility"):
        assert bits(line(made, name)[15:]) == bits(line(everywhere, name)[15:])


@pytest.mark.parametrize("mode", ENGINES)
def test_only_the_cells_of_asked_bars_are_asked(mode):
    asked = []

    class Spy(QuickAdvice):
        params = (("min_minutes", 5 * 1440),)

        def advise(self, cells):
            asked.extend(cells)
            return super().advise(cells)

    made = build(lambda s: Spy(s.data, advisor=RANDOM), walk(60), mode=mode)
    every_fifth = [line(made, name)[15::5] for name in RANDOM.state_space.names]
    assert sorted(asked) == sorted(set(RANDOM.state_space.cells(every_fifth).tolist()))
    assert (made.asked, made.carried) == (9, 36)


@pytest.mark.parametrize("mode", ENGINES)
def test_with_a_trigger_its_bars_are_counted_and_only_they_carry(mode):
    def make(s):
        cross = bt.ind.CrossOver(bt.ind.SMA(s.data, period=3), bt.ind.SMA(s.data, period=8))
        return QuickAdvice(s.data, cross, advisor=RANDOM, every=3), cross

    frame = walk(200)
    made, cross = build(make, frame, mode=mode)
    fires = np.flatnonzero((line(cross, "crossover") != 0) & (np.arange(200) >= 15))
    everywhere = line(advice(frame), "verdict")
    expected, ages = np.full(200, math.nan), np.full(200, math.nan)
    for number, bar in enumerate(fires):
        source = fires[number - number % 3]
        expected[bar], ages[bar] = everywhere[source], bar - source
    assert bits(line(made, "verdict")) == bits(expected)
    assert bits(line(made, "age")) == bits(ages)
    assert len(fires) > 10
    assert (made.asked, made.carried) == (-(-len(fires) // 3), len(fires) - -(-len(fires) // 3))


class Slow(QuickAdvice):
    params = (("ema", 3), ("rsi", 3), ("atr", 3), ("median", 5), ("every", 3), ("max_age", 3))


class Rare(Slow):
    params = (("every", 1), ("min_minutes", 4.5 * 1440), ("max_age", None))


class Nest(bt.Indicator):
    lines = ("out",)

    def __init__(self):
        self.inner = Slow(self.data, advisor=RANDOM)
        self.lines.out = self.inner.trend + self.inner.rsi


def plain(strategy):
    return [kind(data, advisor=RANDOM) for kind in (Slow, Rare) for data in strategy.datas]


def triggered(strategy):
    trigger = bt.ind.CrossOver(strategy.data.close, bt.ind.SMA(strategy.data, period=4))
    return Slow(strategy.data, trigger, advisor=RANDOM, every=2), Rare(strategy.data, trigger, advisor=RANDOM)


class Watcher(bt.Strategy):
    """Trades by a throttled advice and writes down all that it sees."""

    params = (("make", None),)

    def __init__(self):
        self.made = self.p.make(self)
        self.gate = attach_gate(Gate(advisor=RANDOM, indicator=Slow), self)
        self.seen = []

    def next(self):
        if not self.position and self.gate.allows_long():
            self.buy()
        elif self.position and len(self) % 5 == 0:
            self.close()
        now = [
            value_now(advice, name) for advice in find_advice(self) for name in advice.lines.getlinealiases()
        ]
        self.seen.append((self.datetime.datetime(0), bits(now), bits([self.broker.getvalue()])))


SETUPS = {
    "one data": (one, plain),
    "trigger": (one, triggered),
    "nested": (one, lambda strategy: Nest(strategy.data)),
    "two datas": (two, plain),
    "resampled": (resampled, plain),
    "cerebro.resampledata": (cerebro_resampled, plain),
    "week only": (week_only, plain),
    "replay": (replay, plain),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_every_engine_mode_gives_the_same_lines_decisions_and_counts(setup):
    add, make = SETUPS[setup]

    def outcome(mode):
        ran = run(
            Watcher, prepare=lambda c: (add(c), c.addanalyzer(LLMAnalyzer, _name="llm")), mode=mode, make=make
        )
        known = ran.analyzers.llm.get_analysis()
        counts = {
            name: known[name] for name in ("bars", "asked", "carried", "unanswered", "verdicts", "gate")
        }
        return ran.seen, ran.gate.log, counts

    first, *others = [outcome(mode) for mode in modes(setup)]
    seen, decisions, counts = first
    assert len(seen) > 15
    assert len(decisions) > 3
    assert min(counts["asked"], counts["carried"]) > 0
    for mode, other in zip(modes(setup)[1:], others, strict=True):
        assert other == first, f"{setup}: {mode}"


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.integers(20, 88),
    every=st.integers(1, 6),
    days=st.integers(0, 5),
    max_age=st.none() | st.integers(0, 6),
    runonce=st.booleans(),
)
def test_what_comes_after_a_bar_changes_nothing_at_or_before_it(seed, t, every, days, max_age, runonce):
    params = {"every": every, "min_minutes": 1440 * days, "max_age": max_age}
    frame = walk(90, seed=seed)
    changed = frame.copy()
    changed.iloc[t + 1 :, :4] *= 1.7
    whole, cut, other = (
        advice(data, {"runonce": runonce}, **params) for data in (frame, frame.iloc[: t + 1], changed)
    )
    for name in (*OUTPUTS, "age"):
        expected = bits(line(whole, name)[: t + 1])
        assert bits(line(cut, name)) == expected, name
        assert bits(line(other, name)[: t + 1]) == expected, name


@settings(max_examples=60, deadline=None)
@given(
    possible=st.lists(st.booleans(), min_size=1, max_size=60),
    every=st.integers(1, 5),
    minutes=st.integers(0, 9),
    max_age=st.none() | st.integers(0, 5),
)
def test_the_intervals_are_kept_whatever_the_bars(possible, every, minutes, max_age):
    frequency = Frequency(every=every, min_minutes=minutes, max_age=max_age)
    found = frequency.sources(np.array(possible), 737791 + 2 * MINUTE * np.arange(len(possible)))
    asked = [bar for bar, source in enumerate(found) if source == bar]
    marks = np.cumsum(possible)
    assert all(possible[bar] for bar in range(len(possible)) if found[bar] >= 0)
    for before, after in itertools.pairwise(asked):
        assert marks[after] - marks[before] >= every
        assert 2 * (after - before) >= minutes
        early = [
            bar
            for bar in range(before + 1, after)
            if possible[bar] and marks[bar] - marks[before] >= every and 2 * (bar - before) >= minutes
        ]
        assert early == [], "asked later than it could have been"
    for bar, source in enumerate(found):
        if source >= 0:
            assert source == max(a for a in asked if a <= bar)
            assert max_age is None or bar - source <= max_age


# A gate, and the counts


def test_a_gate_takes_a_verdict_that_is_too_old_for_a_missing_one():
    class Daily(Slow):
        params = (("every", 5), ("max_age", 1))

    class Strategy(bt.Strategy):
        def __init__(self):
            self.gate = attach_gate(Gate(advisor=RANDOM, indicator=Daily, on_missing="pass"), self)

        def next(self):
            self.gate.allows_long()

    ran = run(Strategy, walk(60), prepare=lambda c: c.addanalyzer(LLMAnalyzer, _name="llm"))
    log, known = ran.gate.log, ran.analyzers.llm.get_analysis()
    assert [decision.missing for decision in log] == [k % 5 > 1 for k in range(len(log))]
    assert all(decision.allowed for decision in log if decision.missing)
    assert known["gate"]["missing"] == sum(decision.missing for decision in log)
    assert known["verdicts"]["not_asked"] == known["bars"] - known["asked"] - known["carried"]
    assert (len(log), known["asked"], known["carried"]) == (53, 11, 11)


# A backend's timeout in a backtest


class Late(QuickAdvice):
    """A model that is too late in every state of an even number, and for several at once."""

    calls: list

    def advise(self, cells):
        self.calls.append(list(cells))
        if len(cells) > 1 or cells[0] % 2 == 0:
            raise GenerationTimeout("timeout_s=1: over")
        return [Verdict(bullish=0.6, neutral=0.2, bearish=0.2)]


@pytest.mark.parametrize("every", [1, 4])
def test_a_verdict_that_timed_out_is_missing_and_counted_the_same_in_every_mode(every, caplog):
    found = []
    for mode in ENGINES:
        late = type("LateNow", (Late,), {"calls": []})
        made = build(lambda s, late=late: late(s.data, advisor=RANDOM, every=every), walk(120), mode=mode)
        cells = RANDOM.state_space.cells([line(made, name)[15:] for name in RANDOM.state_space.names])
        answered = (cells[(np.arange(105) // every) * every]) % 2 == 1
        assert np.array_equal(~np.isnan(line(made, "verdict")[15:]), answered)
        assert np.array_equal(~np.isnan(line(made, "age")[15:]), answered)
        assert made.unanswered == np.sum(cells[::every] % 2 == 0) > 0
        assert made.asked == np.sum(cells[::every] % 2 == 1) > 0
        alone = [cell for (cell, *others) in late.calls if not others]
        assert len(alone) == len(set(alone)), "a state that timed out is not asked again"
        found.append([bits(line(made, name)) for name in (*OUTPUTS, "age")])
    assert found[0] == found[1]
    assert [record.message for record in caplog.records] == [
        "no verdict: timeout_s=1: over (later timeouts are counted, not logged)"
    ] * 2


@pytest.mark.parametrize("mode", ENGINES)
def test_any_other_error_ends_a_backtest(mode):
    class Broken(QuickAdvice):
        def advise(self, cells):
            raise ConfigError("broken")

    with pytest.raises(ConfigError, match="broken"):
        build(lambda s: Broken(s.data, advisor=RANDOM), walk(40), mode=mode)


def test_an_advice_that_is_asked_live_cannot_be_vectorised():
    with pytest.raises(
        ConfigError, match=r"live='on' in a vectorised run: expected cerebro\.run\(runonce=False\)"
    ):
        advice(walk(40), {"runonce": True}, live="on")


def test_a_throttled_advice_survives_an_optimisation_and_is_the_same_there():
    class Maker(bt.Strategy):
        params = (("every", 1),)

        def __init__(self):
            Slow(
                self.data,
                advisor=AdvisorConfig(model="scripted:random", cache_mode="off"),
                every=self.p.every,
            )

    cerebro = bt.Cerebro(maxcpus=1)
    cerebro.adddata(feed(walk(60)))
    cerebro.addanalyzer(LLMAnalyzer, _name="llm")
    cerebro.optstrategy(Maker, every=[1, 2, 10])
    found = [result.analyzers.llm.get_analysis() for (result,) in cerebro.run()]
    assert [(known["asked"], known["carried"]) for known in found] == [(53, 0), (27, 26), (6, 17)]


def test_the_documented_names_are_there():
    assert LLMAdvice.lines._getlines()[-2:] == ("age", "label")
