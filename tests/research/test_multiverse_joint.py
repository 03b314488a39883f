"""The joint null of a multiverse: it keeps its size, finds what is there, and moves all answers together."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from bt_llm.gates import LONG, SHORT
from bt_llm.research.multiverses._joint import Entries, MovedGate, joint_null

ENTRIES, SPECIFICATIONS = 120, 12


def entries_of(allowed: np.ndarray) -> Entries:
    """Return entries that take turns between the sides, in two strata of markets."""
    count = len(allowed)
    return Entries(
        bars=np.arange(10, 10 + count),
        sides=np.where(np.arange(count) % 2 == 0, LONG, SHORT),
        strata=(np.arange(count) // (count // 2)).clip(max=1),
        allowed=allowed,
    )


def scores(entries: Entries, gains: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return how much better than all entries of its side the allowed ones did, in standard errors."""
    centred = gains.copy()
    for side in (LONG, SHORT):
        own = entries.sides == side
        centred[own] -= centred[own].mean()
    taken = centred[:, None] * (allowed - allowed.mean(axis=0))
    return taken.sum(axis=0) / np.sqrt((taken**2).sum(axis=0) + 1e-12)


class ByHand:
    """What moved gates are worth, without a backtest."""

    def __init__(self, entries: Entries, gains: np.ndarray) -> None:
        self.entries, self.gains = entries, gains

    def __call__(self, gates: Sequence[MovedGate]) -> list[Mapping[str, float]]:
        allowed = np.empty((len(self.gains), len(gates)))
        for side in (LONG, SHORT):
            own = self.entries.sides == side
            allowed[own] = np.stack([np.frombuffer(gate.told[side][1], np.uint8) for gate in gates], axis=1)
        return [{"timing": score} for score in scores(self.entries, self.gains, allowed)]


def persistent(rng: np.random.Generator, count: int, columns: int) -> np.ndarray:
    noise = rng.standard_normal((count, columns))
    for row in range(1, count):
        noise[row] += 0.7 * noise[row - 1]
    return noise


def p_value(seed: int, edge: float) -> float:
    """Return the p-value of specifications that mostly say the same, for some time on end."""
    rng = np.random.default_rng([7, seed])
    gains = rng.standard_t(4, ENTRIES)
    common, own = persistent(rng, ENTRIES, 1), persistent(rng, ENTRIES, SPECIFICATIONS)
    entries = entries_of(common + 0.4 * own + edge * gains[:, None] > 0.0)
    observed = scores(entries, gains, entries.allowed.astype(float))
    null = joint_null(entries, observed, ByHand(entries, gains), n=39, seed=seed)
    return null.question.p_value


def test_a_multiverse_that_knows_nothing_is_rarely_taken_for_one_that_does() -> None:
    # 100 of them at 10 %: by luck 19 or more are found once in 200 times. Moved each for itself, 30 are.
    found = sum(p_value(seed, 0.0) <= 0.1 for seed in range(100))

    assert 2 <= found <= 18


def test_a_multiverse_that_knows_something_is_found() -> None:
    assert sum(p_value(seed, 1.0) <= 0.1 for seed in range(20)) >= 17


def test_an_order_moves_entries_among_their_side_and_stratum_and_all_specifications_alike() -> None:
    rng = np.random.default_rng(0)
    entries = entries_of(rng.random((40, 3)) < 0.5)

    order = entries.order(rng, 2)

    assert sorted(order.tolist()) == list(range(40))
    assert (entries.sides[order] == entries.sides).all()
    assert (entries.strata[order] == entries.strata).all()
    for column in range(3):
        gate = entries.gate(column, order)
        told = [gate.answer(bar, side) for bar, side in zip(entries.bars, entries.sides, strict=True)]
        assert told == entries.allowed[order, column].tolist()


def test_an_entry_that_is_not_listed_gets_the_answer_of_the_last_one_before_it() -> None:
    gate = MovedGate(told={LONG: ((5, 9), bytes([0, 1])), SHORT: ((), b"")})

    assert [gate.answer(bar, LONG) for bar in (1, 5, 8, 9, 50)] == [False, False, False, True, True]
    assert not gate.answer(9, SHORT)


def test_specifications_with_one_answer_have_no_part_in_the_test() -> None:
    rng = np.random.default_rng(1)
    allowed = np.column_stack([np.ones(40), np.zeros(40), rng.random(40) < 0.5]).astype(bool)
    entries = entries_of(allowed)
    gains = rng.standard_normal(40)

    null = joint_null(entries, np.array([0.0, 0.0, 1.5]), ByHand(entries, gains), n=19)

    assert null.informative.tolist() == [False, False, True]
    assert null.median == 1.5
    assert np.isnan(null.p_values[:2]).all()


def test_without_an_informative_specification_the_test_refuses() -> None:
    entries = entries_of(np.ones((40, 2), dtype=bool))

    null = joint_null(entries, np.zeros(2), ByHand(entries, np.ones(40)), n=19)

    assert null.question.found is None
    assert "no specification let through and blocked at least 5" in null.question.sentence


@pytest.mark.parametrize(("row", "block"), [([0, 0, 0, 0, 1, 1, 1, 1] * 5, 4), ([0, 1] * 20, 1)])
def test_a_block_is_as_long_as_an_answer_lasts(row: list[int], block: int) -> None:
    allowed = np.array(row, dtype=bool)[:, None]
    entries = Entries(
        bars=np.arange(40), sides=np.full(40, LONG), strata=np.zeros(40, dtype=int), allowed=allowed
    )

    assert entries.block() == block
