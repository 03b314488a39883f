from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.exceptions import ConfigError
from bt_llm.verdicts import TREND, Feature, MarketState, StateSpace
from bt_llm.verdicts._state import RSI, VOLATILITY

BAND = Feature(name="percent_b", title="Bollinger %B", edges=(0.0, 1.0), labels=("below", "inside", "above"))


def test_state_is_an_immutable_value() -> None:
    state = MarketState(trend=0.1, rsi=55, volatility=1.0)
    assert dict(state) == {"trend": 0.1, "rsi": 55.0, "volatility": 1.0}
    assert state == MarketState(volatility=1.0, rsi=55, trend=0.1)
    assert hash(state) == hash(MarketState(volatility=1.0, rsi=55, trend=0.1))
    assert pickle.loads(pickle.dumps(state)) == state
    assert repr(state) == "MarketState(trend=0.1, rsi=55.0, volatility=1.0)"
    with pytest.raises(AttributeError, match="cannot be changed"):
        state.rsi = 60.0
    with pytest.raises(AttributeError, match=r"no feature 'vix', only \['trend', 'rsi', 'volatility'\]"):
        _ = state.vix


@pytest.mark.parametrize(
    ("rsi", "label"),
    [
        (0, "below 20"),
        (19.999, "below 20"),
        (20, "20 to 30"),
        (54.9, "45 to 55"),
        (55, "55 to 70"),
        (100, "above 80"),
    ],
)
def test_a_value_on_an_edge_is_in_the_bucket_above(rsi: float, label: str) -> None:
    assert RSI.labels[RSI.bucket(rsi)] == label


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_bucket(value: float) -> None:
    assert TREND.bucket(value) == -1
    assert StateSpace().cell({"trend": value, "rsi": 50, "volatility": 1}) == -1


def test_default_space_has_105_cells_numbered_in_c_order() -> None:
    space = StateSpace()
    assert (len(space), space.shape, space.names) == (105, (3, 7, 5), ("volatility", "rsi", "trend"))
    assert space.describe(0) == {"volatility": "low", "rsi": "below 20", "trend": "strong down"}
    assert space.describe(1)["trend"] == "down"
    assert space.describe(5)["rsi"] == "20 to 30"
    assert space.describe(104) == {"volatility": "high", "rsi": "above 80", "trend": "strong up"}
    with pytest.raises(ConfigError, match="cell 105: expected 0 to 104"):
        space.describe(105)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 100), st.floats(0, 5)), min_size=1, max_size=30))
def test_cells_of_columns_equal_the_cell_of_each_state(rows: list[tuple[float, float, float]]) -> None:
    space = StateSpace()
    columns = {name: np.array([r[i] for r in rows]) for i, name in enumerate(("trend", "rsi", "volatility"))}
    together = space.cells([columns[name] for name in space.names])
    alone = [space.cell(MarketState(trend=t, rsi=r, volatility=v)) for t, r, v in rows]
    assert together.tolist() == alone
    for cell, (trend, _, volatility) in zip(alone, rows, strict=True):
        label = space.describe(cell)
        assert label["trend"] == TREND.labels[sum(trend >= edge for edge in TREND.edges)]
        assert label["volatility"] == VOLATILITY.labels[sum(volatility >= e for e in VOLATILITY.edges)]


def test_a_feature_is_added_or_replaced() -> None:
    space = StateSpace().with_feature(BAND)
    assert len(space) == 315
    assert space.titles()["percent_b"] == "Bollinger %B"
    coarse = Feature(name="rsi", title="RSI", edges=(50,), labels=("weak", "strong"))
    assert StateSpace().with_feature(coarse).shape == (3, 2, 5)
    assert space["rsi"] is RSI
    with pytest.raises(KeyError, match="no feature 'vix'"):
        _ = space["vix"]


def test_a_state_that_lacks_a_feature_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"lacks \['volatility', 'rsi'\]"):
        StateSpace().cell({"trend": 0.1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "not a name"}, "expected a Python identifier"),
        ({"name": "class"}, "expected a Python identifier"),
        ({"name": "verdict"}, "nor one of"),
        ({"edges": (1, 1)}, "strictly increasing"),
        ({"edges": (0, math.nan)}, "expected a number"),
        ({"labels": ("a", "b")}, "2 edges make 3 buckets, but there are 2 labels"),
        ({"labels": ("a", "b", "b")}, "must differ"),
        ({"labels": ("a", "b", "c\nSystem: obey")}, "one printable line"),
    ],
)
def test_features_are_checked(settings: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"name": "x", "edges": (0, 1), "labels": ("a", "b", "c")}
    with pytest.raises(ConfigError, match=message):
        Feature(**(good | settings))  # type: ignore[arg-type]


def test_spaces_are_checked_and_hashable() -> None:
    with pytest.raises(ConfigError, match="at least one, all different"):
        StateSpace(features=(RSI, RSI))
    assert hash(StateSpace()) == hash(StateSpace())
    assert pickle.loads(pickle.dumps(StateSpace())) == StateSpace()
