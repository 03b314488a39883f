"""A small version of the settings of panels, boards, multiverses, walk-forward and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.size import (
    settings_against,
    settings_board,
    settings_histories,
    settings_multiverse,
    settings_panels,
    settings_walk_forward,
)
from tests.size.setting import Setting, all_settings, measure, rates


def setting_of(settings: Sequence[Setting], *words: str) -> Setting:
    (found,) = (one for one in settings if all(word in one.name for word in words))
    return found


# Seeded: the same counts every time. Of 20 studies 5 % are 1, and more than 4 come three times in a thousand
# such counts.


@pytest.mark.parametrize("words", [("four markets",), ("two markets", "nothing"), ("one market, GARCH",)])
def test_entries_of_a_board_that_know_nothing_are_seldom_told_apart(words: tuple[str, ...]) -> None:
    counted = rates(measure(setting_of(settings_board.SETTINGS, *words), range(20)))
    assert max(counted[settings_board.WORSE].said, counted[settings_board.BEST].said) <= 4


def test_an_entry_of_a_board_that_knows_is_found() -> None:
    counted = rates(measure(setting_of(settings_board.SETTINGS, "one of which"), range(5)))
    assert min(counted[settings_board.WORSE].said, counted[settings_board.BEST].said) >= 4


def test_a_panel_finds_no_timing_where_null_gates_only_pay_more() -> None:
    ranked = found = 0
    for seed in range(16):
        test = settings_panels.drawn(
            seed, market="random walk", strategy="cross", gate="with the trend", bars=300, cost=0.01
        )
        assert test.worth.parts is not None
        timing = test.worth.parts.pooled["timing"]
        one_sided = timing.p_value / 2.0 if timing.estimate > 0.0 else 1.0 - timing.p_value / 2.0
        assert test.question.p_value >= one_sided
        ranked += test.random.pooled.p_value("sharpe") <= 0.05
        found += bool(test.question.found)
    assert found <= 3
    assert ranked > found


def test_gates_on_a_panel_that_know_nothing_are_seldom_found_and_those_that_know_are() -> None:
    nothing = rates(measure(setting_of(settings_panels.SETTINGS, "at random, kept", "random walk"), range(5)))
    assert max(rate.said for rate in nothing.values()) <= 2
    knows = rates(measure(setting_of(settings_panels.SETTINGS, "drifts"), range(3)))
    assert min(knows[name].said for name in (settings_panels.TEST, settings_panels.TIMING)) >= 2


def test_wordings_that_know_nothing_are_seldom_found_and_those_that_know_are() -> None:
    name = settings_multiverse.TEST
    nothing = setting_of(settings_multiverse.SETTINGS, "80 %", "cross")
    assert rates(measure(nothing, range(20)))[name].said <= 4
    knows = setting_of(settings_multiverse.SETTINGS, "60 %")
    assert rates(measure(knows, range(5)))[name].said >= 4


def test_models_that_draw_their_words_are_seldom_better_than_none_and_one_that_knows_is() -> None:
    nothing = setting_of(settings_against.SETTINGS, "draw their words", "cross; market: random walk")
    assert max(rate.said for rate in rates(measure(nothing, range(8))).values()) <= 3
    knows = rates(measure(setting_of(settings_against.SETTINGS, "drifts"), range(3)))
    assert min(rate.said for rate in knows.values()) >= 2


def test_walk_forward_finds_models_and_settings_that_are_worth_something_only() -> None:
    settings = settings_walk_forward.SETTINGS
    for words in (("two models", "nothing", "GARCH"), ("five symbols", "nothing")):
        counted = rates(measure(setting_of(settings, *words), range(8)))
        assert max(rate.said for rate in counted.values()) <= 3
    for words in (("two models", "worth 0.15"), ("five symbols", "worth 0.25")):
        counted = rates(measure(setting_of(settings, *words), range(3)))
        assert min(rate.said for rate in counted.values()) >= 2


def test_a_gate_that_remembers_is_above_histories_that_never_happened_and_another_seldom() -> None:
    settings, name = settings_histories.SETTINGS, settings_histories.SAYS
    assert rates(measure(setting_of(settings, "with the trend; market"), range(3)))[name].said <= 1
    assert rates(measure(setting_of(settings, "is told"), range(2)))[name].said >= 1


def test_every_sentence_with_a_goal_has_a_control() -> None:
    settings = all_settings()
    tested = {name for one in settings for name, goal in one.goals.items() if goal.kind == "false positives"}
    controlled = {name for one in settings if one.control for name in one.goals}
    # What describes, and the sum of one sentence and its refusals, has none.
    asked = {name for name in tested if not name.startswith(("described", "test: any"))}
    assert asked <= controlled
