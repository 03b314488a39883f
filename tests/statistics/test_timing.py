"""A difference taken apart: what each part is of, by hand, and that the parts are the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.statistics import Legs, breakeven_cost, cost_curve, detectable, take_apart, timing_of
from bt_llm.statistics._timing import parts_of

N = 400


def legs_of(
    moves: np.ndarray, long: np.ndarray, short: np.ndarray, cost: float = 0.0, turns: float = 0.1
) -> Legs:
    """An account that is long and short at some bars, and trades a tenth of its exposure at each."""
    traded = turns * (long + short)
    return Legs(
        long=long * moves,
        short=-short * moves,
        long_exposure=long * 1.0,
        short_exposure=short * 1.0,
        cost=cost * traded,
        traded=traded,
    )


@pytest.fixture
def moves() -> np.ndarray:
    return np.random.default_rng(1).normal(0.002, 0.01, N)


def even(share: float) -> np.ndarray:
    """On for so much of each ten bars, whatever the market does."""
    return (np.arange(N) % 10 < 10 * share).astype(float)


def test_half_of_the_time_in_the_market_is_exposure(moves: np.ndarray) -> None:
    flat = np.full(N, 0.002)
    parts = take_apart(
        legs_of(flat, even(0.5), np.zeros(N)), legs_of(flat, np.ones(N), np.zeros(N)), n=19, block_length=10
    )
    assert {name: part.estimate for name, part in parts.items()} == pytest.approx(
        {"whole": -0.001, "exposure": -0.001, "side": 0.0, "cost": 0.0, "timing": 0.0}, abs=1e-12
    )


def test_one_side_for_ever_is_side_and_exposure_and_no_timing(moves: np.ndarray) -> None:
    long, short = even(0.5), 1.0 - even(0.5)
    ungated = legs_of(moves, long, short, 0.001)
    gated = legs_of(moves, long, np.zeros(N), 0.001)
    parts = take_apart(gated, ungated, n=19, block_length=10)
    up, down = float((long * moves).mean()), float((-short * moves).mean())
    assert parts["exposure"].estimate == pytest.approx(-0.5 * (up + down))
    assert parts["side"].estimate == pytest.approx(0.5 * up - 0.5 * down)
    assert parts["cost"].estimate == pytest.approx(0.001 * 0.1 * 0.5)
    assert (parts["timing"].estimate, parts["timing"].p_value, parts["timing"].n) == (0.0, 1.0, 0)
    assert timing_of(gated, ungated).score == 0.0


def test_the_parts_are_the_whole(moves: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    sides = [even(0.5), 1.0 - even(0.5)]
    gated = legs_of(moves, *(side * (rng.random(N) < 0.4) for side in sides), cost=0.001)
    parts = take_apart(gated, legs_of(moves, *sides, cost=0.001), n=19, periods_per_year=252)
    estimates = [part.estimate for part in parts.values()]
    assert estimates[0] == pytest.approx(sum(estimates[1:]))
    assert estimates[0] == pytest.approx(
        252 * (gated.returns.mean() - legs_of(moves, *sides, cost=0.001).returns.mean())
    )


def test_gradients_are_those_of_small_steps() -> None:
    means = np.random.default_rng(0).random(10) + 0.2
    steps = np.eye(10) * 1e-6
    numeric = np.stack([(parts_of(means + h)[0] - parts_of(means - h)[0]) / 2e-6 for h in steps], axis=-1)
    assert parts_of(means)[1] == pytest.approx(numeric, abs=1e-8)


def test_who_knows_the_next_move_has_timing_and_who_guesses_has_none(moves: np.ndarray) -> None:
    ungated = legs_of(moves, np.ones(N), np.zeros(N))
    knows = legs_of(moves, (moves > 0.0) * 1.0, np.zeros(N))
    found = take_apart(knows, ungated, n=199)["timing"]
    assert found.low > 0.0
    assert timing_of(knows, ungated).score > 10.0
    scores = [
        timing_of(
            legs_of(moves, (np.random.default_rng(s).random(N) < 0.5) * 1.0, np.zeros(N)), ungated
        ).score
        for s in range(200)
    ]
    assert abs(np.mean(scores)) < 0.25
    assert np.std(scores) == pytest.approx(1.0, abs=0.15)


def test_the_score_of_a_guess_has_no_memory_of_how_wild_its_bars_were() -> None:
    """Open in quiet bars only: in a market without drift the score still has a deviation of one."""
    scores = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        wild = np.repeat(rng.random(40) < 0.5, 10)
        moves = rng.normal(0.0, np.where(wild, 0.04, 0.005))
        gated = legs_of(moves, (~wild) * 1.0, np.zeros(N))
        scores.append(timing_of(gated, legs_of(moves, np.ones(N), np.zeros(N))).score)
    assert np.std(scores) == pytest.approx(1.0, abs=0.15)


def test_the_cost_that_breaks_even_by_hand() -> None:
    flat = np.full(N, 0.001)
    # Gated it is in for half the time and trades half as much: 0.0005 less, and 0.05 traded less.
    gated, ungated = legs_of(flat, even(0.5), np.zeros(N)), legs_of(flat, np.ones(N), np.zeros(N))
    assert breakeven_cost(gated, ungated) == pytest.approx(0.01)
    curve = cost_curve(gated, ungated, [0.0, 0.01, 0.02], n=19, block_length=10)
    assert [point.effect.estimate for point in curve] == pytest.approx([-0.0005, 0.0, 0.0005], abs=1e-12)
    falling = legs_of(-flat, even(0.5), np.zeros(N)), legs_of(-flat, np.ones(N), np.zeros(N))
    assert breakeven_cost(*falling) is None  # better at any cost
    assert breakeven_cost(gated, gated) is None


def test_what_is_detectable_is_two_quantiles() -> None:
    assert detectable(0.01) == pytest.approx(0.01 * (1.6449 + 0.8416), rel=1e-4)
    assert detectable(0.01, power=0.5, two_sided=True) == pytest.approx(0.01 * 1.96, rel=1e-4)


def test_legs_are_checked(moves: np.ndarray) -> None:
    good = legs_of(moves, np.ones(N), np.zeros(N))
    with pytest.raises(DataError, match="cost: expected 400 finite values, as long has"):
        Legs(**{**vars(good), "cost": np.full(N, math.nan)})
    with pytest.raises(DataError, match="10 bars gated and 400 ungated"):
        take_apart(legs_of(moves[:10], np.ones(10), np.zeros(10)), good)
    with pytest.raises(ConfigError, match="block_length=401: expected 1 to the 400 bars"):
        take_apart(good, good, n=19, block_length=401)
