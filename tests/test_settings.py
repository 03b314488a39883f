from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.settings import number, one_of, python_scalar, whole


@pytest.mark.parametrize("value", [1, 1.0, np.int64(1), np.float32(1), np.uint8(1)])
def test_numbers_of_both_kinds_become_floats(value: Any) -> None:
    found = number("x", value, 0, 1)
    assert (type(found), found) == (float, 1.0)


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), "1", None, math.nan, np.float64("nan"), math.inf, 10**400, [1], np.array([1])],
)
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^x=.*: expected a number of at least 0$"):
        number("x", value, 0)


def test_ranges_are_said() -> None:
    for limits, says in (
        ({"low": 0, "high": 0.5}, "a number from 0 to 0.5"),
        ({"above": 0}, "a number above 0"),
        ({"high": 0.5, "low": -2}, "a number from -2 to 0.5"),
    ):
        with pytest.raises(ConfigError, match=f"expected {says}$"):
            number("x", -3, **limits)
    with pytest.raises(ConfigError, match="a number of ATR above 0"):
        number("x", 0, above=0, of=" of ATR")


def test_too_large_a_whole_number_is_told_with_its_range() -> None:
    assert whole("n", 20_000, 1, 20_000) == 20_000
    with pytest.raises(ConfigError, match=r"^n=20001: expected a whole number from 1 to 20,000$"):
        whole("n", 20_001, 1, 20_000)


def test_whole_numbers() -> None:
    assert type(whole("n", np.int32(4), 1)) is int
    for value in (0, 1.0, np.float64(3), True, np.bool_(True), "3", None):
        with pytest.raises(ConfigError, match=r"^n=.*: expected a whole number of bars, 1 or more$"):
            whole("n", value, 1, of=" of bars")
    assert whole("n", -5) == -5


def test_choices_are_listed_in_their_order() -> None:
    one_of("side", "long", ("long", "short"))
    with pytest.raises(ConfigError, match=r"^side='up': expected one of \['long', 'short'\]$"):
        one_of("side", "up", ("long", "short"))


def test_what_is_no_scalar_of_numpy_stays_itself() -> None:
    for value in ("x", None, [1], 2.5):
        assert python_scalar(value) is value
