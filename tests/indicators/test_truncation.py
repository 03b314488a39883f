"""No look-ahead: what comes after bar t changes nothing at or before it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.advice import Advisor
from bt_llm.indicators import LLMAdvice
from tests.engines import RANDOM, QuickAdvice, bits, build, line, walk

FIRST = 15
BARS = 90
ENGINES = st.sampled_from([True, False])


def advise(frame, runonce):
    made = build(lambda s: QuickAdvice(s.data, advisor=RANDOM), frame, mode={"runonce": runonce})
    return {name: line(made, name) for name in made.lines.getlinealiases()}


def prompt(lines, t):
    """Return the prompt that bar t's state becomes, and its verdict."""
    advisor = Advisor(RANDOM)
    cell = advisor.space.cell({name: lines[name][t] for name in advisor.space.names})
    return advisor.prompts([cell]), advisor.advise_cells([cell])[0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), t=st.integers(FIRST, BARS - 2), runonce=ENGINES)
def test_cutting_the_data_after_a_bar_leaves_its_state_prompt_and_verdict(seed, t, runonce):
    frame = walk(BARS, seed=seed)
    whole, cut = advise(frame, runonce), advise(frame.iloc[: t + 1], runonce)
    for name, values in whole.items():
        assert bits([cut[name][t]]) == bits([values[t]]), name
    assert prompt(whole, t) == prompt(cut, t)
    assert prompt(whole, t)[1].worth == whole["verdict"][t]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.integers(FIRST, BARS - 2),
    factor=st.floats(0.2, 5.0).filter(lambda f: abs(f - 1) > 0.05),
    runonce=ENGINES,
)
def test_changing_prices_after_a_bar_changes_no_line_at_or_before_it(seed, t, factor, runonce):
    frame = walk(BARS, seed=seed)
    changed = frame.copy()
    changed.iloc[t + 1 :, :4] *= factor
    before, after = advise(frame, runonce), advise(changed, runonce)
    for name, values in before.items():
        assert bits(after[name][: t + 1]) == bits(values[: t + 1]), name
    assert bits(after["trend"][t + 1 :]) != bits(before["trend"][t + 1 :])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-8, 8), days=st.integers(1, 4000))
def test_the_price_level_and_the_dates_are_not_in_the_state(seed, exponent, days):
    """Scale by a power of two, which floats take exactly, and move in time: the verdicts stay."""
    frame = walk(BARS, seed=seed)
    moved = frame.set_index(frame.index + pd.Timedelta(days=days))
    moved[["open", "high", "low", "close"]] *= 2.0**exponent
    here, there = advise(frame, True), advise(moved, True)
    for name, values in here.items():
        assert bits(there[name][FIRST:]) == bits(values[FIRST:]), name


def test_the_tests_above_would_see_a_look_ahead():
    """A state that peeks one bar ahead is caught by the comparison that they make."""

    class Peeking(QuickAdvice):
        def _make_rsi(self):
            return self.data.close(1) - self.data.close(0)

    def peek(frame):
        return line(build(lambda s: Peeking(s.data, advisor=RANDOM), frame), "rsi")

    frame = walk(BARS)
    changed = frame.copy()
    changed.iloc[50:, :4] *= 2
    assert bits(peek(changed)[:50]) != bits(peek(frame)[:50])
    assert np.isfinite(peek(frame)[49])


@pytest.mark.parametrize("runonce", [True, False])
def test_the_default_periods_at_the_last_bar_of_ever_longer_data(runonce):
    frame = walk(125)

    def verdicts(bars):
        made = build(
            lambda s: LLMAdvice(s.data, advisor=RANDOM), frame.iloc[:bars], mode={"runonce": runonce}
        )
        return line(made, "verdict")

    whole = verdicts(125)
    assert [verdicts(bars)[-1] for bars in range(114, 126)] == whole[113:].tolist()
