from __future__ import annotations

import datetime
import enum
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm.plain_json import plain, read_back, strict_json
from bt_llm.statistics import BootstrapResult, Statistic


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float64(0.5), 0.5),
        (np.float32("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.inf]]), [[1.0, None]]),
        ((1, None, "text"), [1, None, "text"]),
        ({1: {"x": (math.nan,)}}, {"1": {"x": [None]}}),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (pd.Timestamp("2024-01-02"), "2024-01-02T00:00:00"),
        (pd.NaT, None),
        (Statistic.SHARPE, "sharpe"),
        (Colour.RED, "Colour.RED"),
        (
            pd.DataFrame({"t": [pd.Timestamp("2024-01-02")], "x": [math.nan]}),
            [{"t": "2024-01-02T00:00:00", "x": None}],
        ),
        (pd.Series([1.0, math.nan]), [1.0, None]),
        (
            BootstrapResult(
                estimate=0.5, low=-1.0, high=math.inf, confidence=0.95, p_value=0.1, block_length=3, n=99
            ),
            {
                "estimate": 0.5,
                "low": -1.0,
                "high": None,
                "confidence": 0.95,
                "p_value": 0.1,
                "block_length": 3,
                "n": 99,
            },
        ),
    ],
)
def test_plain_is_json_whatever_is_in_it(value: Any, expected: Any) -> None:
    found = plain(value)
    assert json.loads(json.dumps(found, allow_nan=False)) == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("{", "Expecting"),
        ("[" * 200_000, "nested too deeply"),
        ("9" * 5000, "integer string conversion"),
    ],
)
def test_hostile_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strict_json(text)


def test_what_is_read_back_is_a_copy() -> None:
    value = {"a": [1, {"b": None}]}
    copy = read_back(value)
    assert copy == value
    copy["a"][1]["b"] = 2
    assert value == {"a": [1, {"b": None}]}


@pytest.mark.parametrize("value", [{"a": math.nan}, {"a": {1, 2}}, {1: "a", "b": 2}])
def test_what_has_no_json_form_is_not_read_back(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_back(value)


def test_what_holds_itself_is_not_read_back() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="Circular"):
        read_back(value)
