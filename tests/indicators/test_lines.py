from __future__ import annotations

import math
from itertools import pairwise

import backtrader as bt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.exceptions import DataError
from bt_llm.feeds import feed_of
from bt_llm.indicators import LLMAdvice, WarmUp, require_bars, value_now, warm_up_bars
from bt_llm.indicators._lines import TrailingMedian
from tests.engines import MODES, RANDOM, QuickAdvice, bits, build, line, run, walk


def closes(values):
    frame = walk(len(values))
    return frame.assign(close=values)


def medians(values, period, mode=None):
    made = build(lambda s: TrailingMedian(s.data.close, period=period), closes(values), mode=mode)
    return line(made, "median")


def test_trailing_median_by_hand():
    assert medians([5.0, 1.0, 3.0, 2.0, 9.0], 3).tolist()[2:] == [3.0, 2.0, 3.0]
    assert medians([5.0, 1.0, 3.0, 2.0, 9.0], 4).tolist()[3:] == [2.5, 2.5]


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, 1.0, 2.0])),
        min_size=8,
        max_size=40,
    ),
    period=st.integers(1, 8),
)
def test_trailing_median_is_numpys_in_both_engines(values, period):
    windows = [values[i - period + 1 : i + 1] for i in range(period - 1, len(values))]
    expected = [float(np.median(w)) if np.isfinite(w).all() else math.nan for w in windows]
    for runonce in (True, False):
        found = medians(values, period, {"runonce": runonce})
        assert np.isnan(found[: period - 1]).all()
        assert bits(found[period - 1 :]) == bits(expected)


def test_warm_up_delays_the_strategy_to_that_bar():
    class Count(bt.Strategy):
        def __init__(self):
            WarmUp(self.data, bars=25)
            self.first = None

        def next(self):
            self.first = self.first or len(self.data)

    for mode in MODES:
        assert run(Count, walk(40), mode=mode).first == 25


def test_warm_up_bars_is_what_the_indicator_waits_for():
    first = build(lambda s: LLMAdvice(s.data, advisor=RANDOM), walk(150))
    assert int(np.flatnonzero(np.isfinite(line(first, "verdict")))[0]) + 1 == warm_up_bars(LLMAdvice) == 114
    assert warm_up_bars(QuickAdvice) == 16
    assert warm_up_bars(QuickAdvice, median=50) == 55


def test_warm_up_bars_leaves_no_trace_on_a_strategy_that_calls_it():
    made = build(lambda s: (warm_up_bars(QuickAdvice), s)[1], walk(20))
    assert list(made.getindicators()) == []


def test_require_bars_names_the_data_and_what_is_needed():
    class Check(bt.Strategy):
        def __init__(self):
            bt.ind.SMA(self.data1, period=30)

        def start(self):
            require_bars(self)

    with pytest.raises(DataError, match=r"data 'data1' has 20 bars, but Check needs 30 to warm up"):
        run(Check, walk(60), walk(20))
    run(Check, walk(60), walk(30))


def test_feed_of_finds_the_clock_behind_lines_and_operations():
    def make(s):
        sources = [
            s.data1,
            s.data1.close,
            bt.ind.SMA(s.data1),
            s.data1.close - s.data1.open,
            1 - bt.ind.SMA(s.data1),
        ]
        return [feed_of(source) is s.data1 for source in sources], feed_of(object())

    assert build(make, walk(40), walk(40)) == ([True] * 5, None)


class Outer(bt.Indicator):
    lines = ("out",)

    def __init__(self):
        self.inner = QuickAdvice(self.data, advisor=RANDOM)
        self.lines.out = self.inner.trend + 0.0


class Reader(bt.Strategy):
    def __init__(self):
        self.direct = QuickAdvice(self.data, advisor=RANDOM)
        self.outer = Outer(self.data)
        self.seen = []

    def note(self):
        values = [
            value_now(source, name)
            for source in (self.direct, self.outer.inner)
            for name in ("verdict", "confidence", "trend")
        ]
        self.seen.append((len(self.data), values))

    def prenext(self):
        self.note()

    def next(self):
        self.note()


@pytest.mark.parametrize("runonce", [True, False])
def test_value_now_of_a_nested_indicator_is_that_of_the_current_bar(runonce):
    frame = walk(60)
    expected = line(build(lambda s: QuickAdvice(s.data, advisor=RANDOM), frame), "trend")
    seen = run(Reader, frame, mode={"runonce": runonce}).seen
    assert [bar for bar, _ in seen] == list(range(1, 61))
    for bar, values in seen:
        assert bits(values[:3]) == bits(values[3:])
        assert bits([values[2]]) == bits([expected[bar - 1]])


@pytest.mark.parametrize("runonce", [True, False])
def test_value_now_at_the_open_is_that_of_the_previous_close(runonce):
    class AtOpen(Reader):
        def next(self):
            pass

        def next_open(self):
            self.note()

    frame = walk(60)
    expected = line(build(lambda s: QuickAdvice(s.data, advisor=RANDOM), frame), "confidence")
    seen = run(AtOpen, frame, mode={"runonce": runonce, "cheat_on_open": True}).seen
    opened = [(bar, values) for bar, values in seen if bar > 17]
    assert len(opened) == 43
    for bar, values in opened:
        assert bits([values[1], values[4]]) == bits([expected[bar - 2]] * 2)
    assert any(a[1] != b[1] for (_, a), (_, b) in pairwise(opened))
