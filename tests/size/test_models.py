"""A small version of the settings with models: little is found in nothing, and something in something."""

from __future__ import annotations

import pytest

from tests.size.setting import Setting, measure, rates
from tests.size.settings_models import BETTER, PAIR, REMEMBERED, RIGHT, SETTINGS


def setting_of(*words: str) -> Setting:
    (found,) = (one for one in SETTINGS if all(word in one.name for word in words))
    return found


# Seeded: the same counts every time. Of 40 studies 5 % are 2, and more than 7 come once in a
# thousand such counts.


@pytest.mark.parametrize(
    "name", ["even words kept for 200 bars", "mostly neutral against mostly bullish, random"]
)
def test_verdicts_that_know_nothing_are_seldom_found(name: str) -> None:
    counted = rates(measure(setting_of(name, "1,000"), range(40)))
    assert max(counted[RIGHT].said, counted[PAIR].said) <= 7


def test_verdicts_that_know_are_found() -> None:
    assert rates(measure(setting_of("knows the outcome"), range(20)))[RIGHT].said >= 12


def test_one_constant_edge_is_seldom_called_memory_and_a_lost_one_is() -> None:
    constant = rates(measure(setting_of("constant", "random walk", "1,000 bars before"), range(8)))
    assert constant[REMEMBERED].said <= 2
    assert rates(measure(setting_of("that is lost"), range(3)))[REMEMBERED].said >= 2


def test_models_that_know_nothing_are_seldom_told_apart_and_one_that_knows_is() -> None:
    assert rates(measure(setting_of("four", "random walk"), range(8)))[BETTER].said <= 3
    assert rates(measure(setting_of("four on one symbol"), range(4)))[BETTER].said >= 3


def test_every_setting_is_named_once_and_every_claim_has_a_control() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    found = {name for setting in SETTINGS if setting.control for name in setting.goals}
    assert {BETTER, RIGHT, REMEMBERED} <= found
