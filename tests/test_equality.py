"""Results that hold NaN are equal to themselves, on every Python, however they came to be."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import pytest

from bt_llm import Verdict
from bt_llm.equality import nan_equal
from bt_llm.statistics import BootstrapResult
from bt_llm.verdicts import LabelMasses


def nan() -> float:
    """A NaN that is no other object's."""
    return float("nan")


@nan_equal
@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    value: float
    parts: tuple[float, ...] = ()
    named: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)
    note: str = dataclasses.field(default="", compare=False)


def test_nan_equals_nan_wherever_it_stands() -> None:
    one = Found(nan(), (1.0, nan()), {"a": nan()}, note="one")
    other = Found(nan(), (1.0, nan()), {"a": nan()}, note="other")
    assert one == other
    assert hash(one) == hash(other)
    assert {one, other} == {one}


@pytest.mark.parametrize(
    "other",
    [
        Found(0.0, (1.0, math.nan), {"a": math.nan}),
        Found(math.nan, (2.0, math.nan), {"a": math.nan}),
        Found(math.nan, (1.0,), {"a": math.nan}),
        Found(math.nan, (1.0, math.nan), {"b": math.nan}),
        Found(math.nan, (1.0, math.nan), {"a": 1.0}),
        "not one of them",
    ],
)
def test_what_differs_is_not_equal(other: object) -> None:
    assert Found(nan(), (1.0, nan()), {"a": nan()}) != other


def test_what_cannot_be_hashed_still_cannot() -> None:
    @nan_equal
    @dataclasses.dataclass
    class Changing:
        value: float

    assert Changing(nan()) == Changing(nan())
    with pytest.raises(TypeError, match="unhashable"):
        hash(Changing(1.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Verdict.invalid("no JSON"),
        lambda: Verdict(bullish=0.5, neutral=0.2, bearish=0.3, label_mass=nan()),
        lambda: BootstrapResult(
            estimate=nan(), low=nan(), high=nan(), confidence=0.95, p_value=nan(), block_length=1, n=2
        ),
        lambda: LabelMasses(least=nan(), median=nan(), most=nan(), floor=0.05, below=0),
    ],
)
def test_results_survive_a_copy_and_a_pickle(make) -> None:  # type: ignore[no-untyped-def]
    found = make()
    assert found == make()
    assert found == pickle.loads(pickle.dumps(found)) == copy.deepcopy(found)
