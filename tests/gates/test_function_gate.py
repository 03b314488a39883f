"""Entries by a function of the market state."""

import math

import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.gates import LONG, SHORT, FunctionGate


def zero(**_: float) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("require", "worth", "long", "short"),
    [
        ("agree", 0.5, True, False),
        ("agree", -1.0, False, True),
        ("agree", 0.0, False, False),
        ("not_against", 0.0, True, True),
        ("not_against", -0.5, False, True),
        ("agree", math.nan, False, False),
    ],
)
def test_the_sign_of_the_worth_is_the_side(require: str, worth: float, long: bool, short: bool) -> None:
    gate = FunctionGate(function=zero, require=require)  # type: ignore[arg-type]

    assert (gate.allows(LONG, worth), gate.allows(SHORT, worth)) == (long, short)


def test_no_answer_passes_where_it_is_told_to() -> None:
    assert FunctionGate(function=zero, on_missing="pass").allows(LONG, math.nan)


@pytest.mark.parametrize("on_missing", ["block", "pass"])
def test_a_state_that_is_not_known_has_no_answer(on_missing: str) -> None:
    def rising(trend: float, rsi: float, volatility: float) -> float:
        return 1.0 if trend > 0.0 else -1.0

    gate = FunctionGate(function=rising, on_missing=on_missing)  # type: ignore[arg-type]
    state = {"trend": math.nan, "rsi": 50.0, "volatility": 1.0}

    decision = gate.decision(120, LONG, state)
    assert (decision.missing, decision.allowed) == (True, on_missing == "pass")
    assert not gate.decision(120, LONG, {**state, "trend": 0.1}).missing


@pytest.mark.parametrize(
    "wrong", [{"function": 3}, {"require": "both"}, {"on_missing": "x"}, {"indicator": int}]
)
def test_a_wrong_setting_is_refused_when_it_is_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FunctionGate(**{"function": zero, **wrong})  # type: ignore[arg-type]


def test_it_is_described_by_its_function() -> None:
    assert FunctionGate(function=zero).describe()["function"]["name"].endswith(":zero")
