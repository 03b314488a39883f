"""Outcomes exchanged among bars that looked alike: by hand, and how often nothing is taken for something."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bt_llm.exceptions import DataError
from bt_llm.statistics import exchange_test, holm


def test_the_correlation_is_that_of_what_differs_within_strata() -> None:
    # Within the first stratum weights are -1, 1 and outcomes -2, 2; within the second 0, 0 and -1, 1.
    found = exchange_test({"w": [0.0, 2.0, 5.0, 5.0]}, [1.0, 5.0, 9.0, 11.0], [0, 0, 1, 1])["w"]
    assert found.correlation == pytest.approx(4.0 / np.sqrt(2.0 * 10.0))
    assert (found.n, found.moving) == (4, 2)
    # Only the first stratum can be exchanged to any effect: half of all exchanges are as good.
    assert found.smallest == pytest.approx(0.5)
    assert found.p_value == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("weights", "outcome", "strata"),
    [
        ([0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0], [0, 0, 0, 0]),  # a quarter of them, not 1 in 24
        ([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 2.0, 3.0], [0, 0, 0, 0]),
        (
            [0.3, 0.3, 0.1 + 0.2, 1.0, 2.0, 2.0, 5.0],  # the third is 0.3 but for rounding
            [1.0, 2.0, 2.0, 4.0, 1.0, 7.0, 3.0],
            [0, 0, 0, 0, 1, 1, 1],
        ),
        ([1.0, -1.0, 1.0, 0.5, 0.5], [3.0, 3.0, 3.0, 1.0, 2.0], [0, 0, 0, 1, 1]),
    ],
)
def test_the_smallest_p_is_the_share_of_exchanges_that_do_best(
    weights: list[float], outcome: list[float], strata: list[int]
) -> None:
    groups = [[at for at, own in enumerate(strata) if own == one] for one in sorted(set(strata))]
    sums = [
        sum(
            weights[at] * outcome[other]
            for own, order in zip(groups, orders, strict=True)
            for at, other in zip(own, order, strict=True)
        )
        for orders in itertools.product(*map(itertools.permutations, groups))
    ]
    best = sum(one >= max(sums) - 1e-9 for one in sums) / len(sums)
    found = exchange_test({"w": weights}, outcome, strata, n=9_999)["w"]
    assert found.smallest == pytest.approx(best)


def test_what_is_a_function_of_the_state_alone_is_never_found_whatever_pays() -> None:
    state = np.repeat([0, 1, 2], 50)
    came = state * 10.0 + np.random.default_rng(0).normal(size=150)
    found = exchange_test({"state": state * 1.0}, came, state)["state"]
    assert (found.p_value, found.moving) == (1.0, 0)
    assert np.isnan(found.correlation)


def test_it_is_exact_with_heavy_tails_and_finds_a_weak_memory() -> None:
    alarms = caught = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        looked, came = rng.integers(0, 6, 120), rng.standard_t(2, 120)
        said = {
            "guesses": rng.normal(size=120) + looked,
            "remembers": np.where(rng.random(120) < 0.5, np.sign(came), 0),
        }
        found = exchange_test(said, came, looked, n=199, seed=seed)
        alarms += found["guesses"].p_value <= 0.05
        caught += found["remembers"].p_value <= 0.05
    assert alarms <= 18  # 10 expected, and 18 or more in one of 100 such tests
    assert caught >= 190


def test_the_detectable_correlation_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(1)
    looked = rng.integers(0, 4, 150)
    found, at = 0, 0.0
    for seed in range(200):
        came = rng.normal(size=150)
        at = exchange_test({"w": rng.normal(size=150)}, came, looked, n=99, seed=seed)["w"].detectable
        weight = at * came + np.sqrt(1.0 - at**2) * rng.normal(size=150)
        found += exchange_test({"w": weight}, came, looked, n=199, seed=seed)["w"].p_value <= 0.05
    assert 0.7 < found / 200 < 0.9
    assert 0.15 < at < 0.27


@pytest.mark.parametrize(
    ("weights", "outcome", "said"),
    [([1.0], [1.0, 2.0], "w: 1 bars, expected 2"), ([1.0, np.nan], [1.0, 2.0], "w: 1 of 2 values are not")],
)
def test_what_does_not_fit_is_refused(weights: list[float], outcome: list[float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        exchange_test({"w": weights}, outcome, [0, 0])


def test_holm_by_hand() -> None:
    assert holm({"a": 0.02, "b": 0.01, "c": 0.6}) == {
        "a": pytest.approx(0.04),
        "b": pytest.approx(0.03),
        "c": 0.6,
    }
    assert holm({}) == {}
