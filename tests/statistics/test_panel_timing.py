"""Many symbols taken apart at once: as each alone, as their sum, and by the same dates."""

from __future__ import annotations

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.statistics import PARTS, Legs, take_apart, take_apart_jointly
from bt_llm.statistics._panel_timing import _summed

N = 300


def legs_of(moves: np.ndarray, held: np.ndarray, share: float = 1.0, cost: float = 0.0) -> Legs:
    """An account that is long where `held` is positive and short where it is negative, times its share."""
    long, short = share * np.maximum(held, 0.0), share * np.maximum(-held, 0.0)
    traded = 0.1 * (long + short)
    return Legs(
        long=long * moves,
        short=-short * moves,
        long_exposure=long,
        short_exposure=short,
        cost=cost * traded,
        traded=traded,
    )


def sides() -> np.ndarray:
    return np.where(np.arange(N) % 10 < 5, 1.0, -1.0)


def moves_of(rng: np.random.Generator, symbols: int) -> np.ndarray:
    """Moves with a common part that is as large as each symbol's own."""
    return 0.001 + 0.01 * (rng.standard_normal((symbols, N)) + rng.standard_normal(N))


def accounts(moves: np.ndarray, gates: np.ndarray) -> dict[str, tuple[Legs, Legs]]:
    share = 1.0 / len(moves)
    return {
        f"s{k}": (
            legs_of(moves[k], sides() * gates[k], share, 0.001),
            legs_of(moves[k], sides(), share, 0.001),
        )
        for k in range(len(moves))
    }


def test_one_symbol_is_taken_apart_as_it_would_be_alone() -> None:
    rng = np.random.default_rng(1)
    gated, ungated = accounts(moves_of(rng, 1), rng.random((1, N)) < 0.4)["s0"]
    alone = take_apart(gated, ungated, n=99, seed=5, periods_per_year=252)
    found = take_apart_jointly({"s0": (gated, ungated)}, n=99, seed=5, periods_per_year=252)
    for part in PARTS:
        for one in (found.pooled[part], found.symbols["s0"][part]):
            assert (one.estimate, one.low, one.high) == pytest.approx(
                (alone[part].estimate, alone[part].low, alone[part].high)
            )
            assert one.p_value == alone[part].p_value


def test_symbols_sum_to_the_pooled_parts_and_parts_to_the_whole() -> None:
    rng = np.random.default_rng(2)
    pairs = accounts(moves_of(rng, 3), rng.random((3, N)) < 0.5)
    found = take_apart_jointly(pairs, n=99)
    for part in PARTS:
        summed = sum(one[part].estimate for one in found.symbols.values())
        assert found.pooled[part].estimate == pytest.approx(summed)
    estimates = [found.pooled[part].estimate for part in PARTS]
    assert estimates[0] == pytest.approx(sum(estimates[1:]))
    gain = sum(float(np.mean(gated.returns - ungated.returns)) for gated, ungated in pairs.values())
    assert estimates[0] == pytest.approx(gain)


def test_the_same_dates_are_drawn_of_all_symbols() -> None:
    """Two halves of one account have the error of the whole, not that of two accounts."""
    rng = np.random.default_rng(3)
    moves, gate = moves_of(rng, 1), rng.random((1, N)) < 0.5
    whole = take_apart_jointly(accounts(moves, gate), n=2500, block_length=3)
    twice = take_apart_jointly(accounts(moves.repeat(2, 0), gate.repeat(2, 0)), n=2500, block_length=3)
    for part in PARTS:
        assert twice.pooled[part].low == pytest.approx(whole.pooled[part].low)
        assert twice.pooled[part].p_value == whole.pooled[part].p_value
        for one in twice.symbols.values():
            assert 2.0 * one[part].low == pytest.approx(whole.pooled[part].low)


def test_gradients_are_those_of_small_steps() -> None:
    means = np.random.default_rng(0).random(20) + 0.2
    numeric = np.stack(
        [(_summed(means + h)[0] - _summed(means - h)[0]) / 2e-6 for h in np.eye(20) * 1e-6], axis=-1
    )
    assert _summed(means)[1] == pytest.approx(numeric, abs=1e-8)


def test_one_word_for_ever_and_a_symbol_left_out_are_no_timing() -> None:
    moves = moves_of(np.random.default_rng(4), 2)
    gates = np.stack([np.zeros(N), sides() > 0.0])  # never in the first, long only in the second
    found = take_apart_jointly(accounts(moves, gates), n=99)
    assert (found.pooled["timing"].estimate, found.pooled["timing"].p_value) == (0.0, 1.0)
    assert found.pooled["exposure"].estimate != 0.0
    assert found.symbols["s0"]["side"].estimate == 0.0


def test_who_knows_in_one_of_three_symbols_is_found_there_alone() -> None:
    rng = np.random.default_rng(5)
    moves = moves_of(rng, 3)
    gates = rng.random((3, N)) < 0.5
    gates[1] = sides() * moves[1] > 0.0
    found = take_apart_jointly(accounts(moves, gates), n=199)
    assert found.pooled["timing"].low > 0.0
    assert [one["timing"].low > 0.0 for one in found.symbols.values()] == [False, True, False]
    assert [one["timing"].p_value <= 0.05 for one in found.symbols.values()] == [False, True, False]


def test_gates_that_know_nothing_have_no_timing_although_symbols_move_together() -> None:
    wrong, any_symbol, runs = 0, 0, 120
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        gate = rng.random(N) < 0.5  # the same dates in all four symbols
        found = take_apart_jointly(
            accounts(moves_of(rng, 4), np.tile(gate, (4, 1))), n=99, block_length=2, seed=seed
        )
        timing = found.pooled["timing"]
        wrong += not timing.low <= 0.0 <= timing.high
        any_symbol += any(one["timing"].p_value <= 0.05 for one in found.symbols.values())
    # 6 of 120 are expected of either; 14 or more have a chance of 1 in 300.
    assert wrong <= 13
    assert any_symbol <= 13


def test_what_cannot_be_taken_apart_is_refused() -> None:
    pairs = accounts(moves_of(np.random.default_rng(6), 2), np.ones((2, N)))
    with pytest.raises(ConfigError, match="block_length=301: expected 1 to the 300 bars"):
        take_apart_jointly(pairs, n=99, block_length=301)
    short = Legs(**dict.fromkeys(Legs.__dataclass_fields__, np.zeros(7)))
    with pytest.raises(DataError, match=r"accounts of \[7, 300\] bars"):
        take_apart_jointly({**pairs, "s1": (short, short)}, n=99)
