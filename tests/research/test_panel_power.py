"""What symbols could show of gates, said before, is what their test and their comparison say afterwards."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from statistics import median

import numpy as np
import pytest

from bt_llm.backtest import Universe
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import AlwaysOpen, StateGate
from bt_llm.research import PanelPowerPlan, compare_on_panel, panel_test, plan_panel_power
from bt_llm.research._panel_power import _asked, draw_states
from tests.market_cases import ByCalendar, flat
from tests.research_cases import Alternate, gate_of, random_walk, walks_in_common

GATE = gate_of("scripted:trend")
FEW = {"n": 39, "draws": 1, "resamples": 99}


@lru_cache(maxsize=4)
def planned(rho: float = 0.0, **settings: float) -> PanelPowerPlan:
    return plan_panel_power(Alternate, walks_in_common(2, 200, rho), GATE, **FEW, **settings)


def test_the_effect_that_is_stated_is_the_one_that_the_panel_test_states_of_models() -> None:
    frames = walks_in_common(2, 200, 0.0)
    tests = [
        panel_test(Alternate, frames, gate_of(f"scripted:random:{seed}"), n=39, resamples=99)
        for seed in (1, 2, 3)
    ]
    made = planned(pass_rate=round(sum(one.allowed for one in tests) / sum(one.asked for one in tests), 2))
    assert made.test is not None
    assert made.test.detectable == pytest.approx(median(one.question.detectable for one in tests), rel=0.3)
    assert {one.question.smallest for one in tests} == {made.test.smallest}
    assert made.entries == tests[0].asked
    assert (made.problem, made.test.cannot_tell, made.test.claim) == ("", "", tests[0].question.claim)


def test_the_difference_that_is_stated_is_the_one_that_a_comparison_states() -> None:
    models = {"one": "scripted:random:1", "two": "scripted:random:2"}
    compared = compare_on_panel(Alternate, walks_in_common(2, 200, 0.0), models, gate=GATE, resamples=99)
    told = compared.standing.question
    made = planned(pass_rate=0.35).comparison
    assert made is not None
    assert made.detectable == pytest.approx(told.detectable, rel=0.3)
    assert (made.smallest, made.claim, made.alpha) == (told.smallest, told.claim, told.alpha)


def test_of_one_draw_it_is_the_test_of_that_gate_to_the_digit() -> None:
    frames = walks_in_common(2, 150, 0.3)
    made = plan_panel_power(Alternate, frames, GATE, **FEW)
    every = StateGate(indicator=GATE.indicator, advisor=GATE.advisor)
    asked = _asked(Alternate, Universe.of(frames), every, {})
    states = draw_states(asked, 0.5, np.random.default_rng([0, 0]))
    test = panel_test(Alternate, frames, replace(every, states=states), n=39, resamples=99)
    assert made.test == test.question
    assert sum(asked.values()) == made.entries == test.asked
    assert sum(asked[state] for state in states) == test.allowed == pytest.approx(made.entries / 2, abs=2)


def test_symbols_that_move_as_one_show_no_more_than_one_and_apart_they_show_more() -> None:
    """A pooled Sharpe ratio is a ratio; what it takes of every symbol falls with how far they go apart."""
    together, apart = planned(0.99), planned(0.0)
    assert together.diversification == pytest.approx(1.0, abs=0.1)
    assert apart.diversification == pytest.approx(np.sqrt(2.0), abs=0.15)
    assert together.test is not None
    assert apart.test is not None
    assert together.each(together.test) > 1.15 * apart.each(apart.test)


def test_fewer_that_pass_show_less() -> None:
    rare, usual = planned(pass_rate=0.1).test, planned().test
    assert rare is not None
    assert usual is not None
    assert rare.detectable > usual.detectable


def test_where_nothing_could_be_found_it_is_said_and_why() -> None:
    frames = {"a": random_walk(45), "b": random_walk(24, seed=1)}
    made = plan_panel_power(Alternate, frames, GATE, n=9, draws=1, resamples=99, block_length=2)
    assert made.test is not None
    assert made.test.cannot_tell
    assert "A test (test --each) could not tell whether the gate's pooled Sharpe" in made.sentences[1]
    assert made.dates > made.common_dates
    assert made.to_dict()["test"]["cannot_tell"] == made.test.cannot_tell


def test_what_cannot_be_planned_is_refused() -> None:
    frames = walks_in_common(2, 60, 0.0)
    with pytest.raises(ConfigError, match="gate=AlwaysOpen"):
        plan_panel_power(Alternate, frames, AlwaysOpen())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"pass_rate=1\.0: expected a number between 0 and 1"):
        plan_panel_power(Alternate, frames, GATE, pass_rate=1.0)
    with pytest.raises(ConfigError, match="models=1"):
        plan_panel_power(Alternate, frames, GATE, models=1)
    with pytest.raises(DataError, match="makes no entry on any symbol"):
        plan_panel_power(ByCalendar, {"a": flat([10.0] * 60)}, GATE, params={"orders": {}})


def test_a_state_that_is_none_is_no_state() -> None:
    for wrong in ([(1, 105)], [(2, 0)], [(1, True)], [3]):
        with pytest.raises(ConfigError, match="states="):
            StateGate(states=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="states=7"):
        StateGate(states=7)  # type: ignore[arg-type]
    assert StateGate(states=[(1, 0)]) == StateGate(states=frozenset({(1, 0)}))  # type: ignore[arg-type]
