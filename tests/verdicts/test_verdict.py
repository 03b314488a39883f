from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.exceptions import CacheCorruptError, ConfigError
from bt_llm.verdicts import ACTIONS, Action, Verdict


def verdict(bullish: float, neutral: float, bearish: float) -> Verdict:
    return Verdict(bullish=bullish, neutral=neutral, bearish=bearish)


@pytest.mark.parametrize(
    ("probabilities", "action", "confidence"),
    [
        ((0.5, 0.3, 0.2), Action.BULLISH, 0.5),
        ((0.2, 0.3, 0.5), Action.BEARISH, 0.5),
        ((0.2, 0.5, 0.3), Action.NEUTRAL, 0.5),
        ((0.4, 0.2, 0.4), Action.NEUTRAL, 0.2),  # a tie of two sides does nothing
        ((0.5, 0.5, 0.0), Action.NEUTRAL, 0.5),
    ],
)
def test_action_is_the_most_probable_label(
    probabilities: tuple[float, float, float], action: Action, confidence: float
) -> None:
    assert verdict(*probabilities).action is action
    assert verdict(*probabilities).confidence == confidence


@pytest.mark.parametrize("bad", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (math.nan, 0.5, 0.5), (math.inf, 0, 0)])
def test_probabilities_are_checked(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        verdict(*bad)


def test_invalid_is_a_state_of_its_own() -> None:
    invalid = Verdict.invalid("no JSON")
    assert invalid.action is Action.INVALID
    assert invalid.action not in ACTIONS
    assert invalid.confidence == 0.0
    assert (invalid.answer, invalid.label) == ("invalid", None)
    assert math.isnan(invalid.worth)
    assert not invalid.worth < 0  # a line is compared with zero
    assert not invalid.worth > 0


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000), st.floats(0, 1))
def test_stored_and_read_back_bitwise(a: int, b: int, c: int, mass: float) -> None:
    total = a + b + c
    original = Verdict(bullish=a / total, neutral=b / total, bearish=c / total, label_mass=mass, reason="why")
    read = Verdict.from_dict(json.loads(json.dumps(original.to_dict())))
    assert read == original


def test_invalid_is_stored_without_nan() -> None:
    text = json.dumps(Verdict.invalid("cut off").to_dict(), allow_nan=False)
    read = Verdict.from_dict(json.loads(text))
    assert read.action is Action.INVALID
    assert read.reason == "cut off"


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"bullish": 0.5, "neutral": 0.5},
        {"bullish": "0.5", "neutral": 0.25, "bearish": 0.25},
        {"bullish": True, "neutral": 0.0, "bearish": 0.0},
        {"bullish": 0.5, "neutral": 0.5, "bearish": 0.5},
        {"bullish": 0.5, "neutral": 0.5, "bearish": 0.0, "action": "buy"},
        {"bullish": 0.5, "neutral": 0.5, "bearish": 0.0, "reason": 3},
        {"bullish": 0.5, "neutral": 0.5, "bearish": 0.0, "label_mass": "much"},
        {"invalid": "yes"},
    ],
)
def test_stored_verdicts_are_untrusted(stored: dict[str, object]) -> None:
    with pytest.raises(CacheCorruptError, match="stored verdict"):
        Verdict.from_dict(stored)


def test_cached_and_model_say_where_it_came_from_without_changing_it() -> None:
    assert Verdict(bullish=1.0, neutral=0.0, bearish=0.0, cached=True, model="a") == verdict(1.0, 0.0, 0.0)
