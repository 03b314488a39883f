"""The joint null of a multiverse: it keeps its size, finds what is there, and moves all answers together."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bt_llm.gates import LONG, SHORT, DatesGate
from bt_llm.research._moments import Moments
from bt_llm.research.multiverses._joint import Entries, joint_null

ENTRIES, SPECIFICATIONS = 120, 12


def entries_of(allowed: np.ndarray) -> Entries:
    """Return entries, one a day, that take turns between the sides."""
    count = len(allowed)
    return Entries(
        data="bars",
        times=np.arange(10.0, 10.0 + count),
        sides=np.where(np.arange(count) % 2 == 0, LONG, SHORT),
        allowed=allowed,
    )


def ways(entries: Entries) -> dict[str, object]:
    """Return the times that change places: of a market that does not always move as much."""
    wild = np.repeat([1.0, 3.0], len(entries.times) // 2)
    return {
        "moments": Moments(times=entries.times, levels=wild),
        "trades": pd.DataFrame(columns=["opened", "closed"]),
    }


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

    def __call__(self, gates: Sequence[DatesGate]) -> list[Mapping[str, float]]:
        allowed = np.empty((len(self.gains), len(gates)))
        for side in (LONG, SHORT):
            own = self.entries.sides == side
            times = self.entries.times[own]
            allowed[own] = np.stack([gate.line("bars", side, times) for gate in gates], axis=1)
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
    null = joint_null(entries, observed, ByHand(entries, gains), n=39, seed=seed, **ways(entries))
    return null.question.p_value


def test_a_multiverse_that_knows_nothing_is_rarely_taken_for_one_that_does() -> None:
    # 100 of them at 10 %: by luck 19 or more are found once in 200 times.
    found = sum(p_value(seed, 0.0) <= 0.1 for seed in range(100))

    assert 2 <= found <= 18


def test_a_multiverse_that_knows_something_is_found() -> None:
    assert sum(p_value(seed, 1.0) <= 0.1 for seed in range(20)) >= 17


def test_what_could_be_found_is_found_four_times_in_five() -> None:
    found = []
    for seed in range(60):
        rng = np.random.default_rng([8, seed])
        gains = rng.standard_t(4, ENTRIES)
        entries = entries_of(persistent(rng, ENTRIES, 1) + 0.4 * persistent(rng, ENTRIES, 12) > 0.0)
        observed, errors = scores(entries, gains, entries.allowed.astype(float)), np.full(12, 0.02)
        more = {**ways(entries), "errors": errors}
        by_hand = ByHand(entries, gains)
        could = joint_null(entries, observed, by_hand, n=39, seed=seed, **more).question.detectable
        assert could is not None
        moved = joint_null(entries, observed + could / 0.02, by_hand, n=39, seed=seed, **more)
        found.append(moved.question.found)
    # Of 60, 48; 37 or fewer are found once in 1,000 times.
    assert 38 <= sum(found) <= 57


def test_all_specifications_are_moved_alike() -> None:
    rng = np.random.default_rng(0)
    entries = entries_of(np.repeat(rng.random((60, 3)) < 0.5, 2, axis=0))
    seen: list[DatesGate] = []

    def evaluate(gates: Sequence[DatesGate]) -> list[Mapping[str, float]]:
        seen.extend(gates)
        return [{"timing": 0.0} for _ in gates]

    joint_null(entries, np.zeros(3), evaluate, n=5, **ways(entries))

    assert len(seen) == 15
    for draw in range(5):
        together = seen[3 * draw : 3 * draw + 3]
        assert len({gate.others for gate in together}) == 1
        assert {gate.answers for gate in together} == {entries.told(column) for column in range(3)}
    assert len({gate.others for gate in seen}) == 5


def test_specifications_with_one_answer_have_no_part_in_the_test() -> None:
    rng = np.random.default_rng(1)
    allowed = np.column_stack([np.ones(40), np.zeros(40), rng.random(40) < 0.5]).astype(bool)
    entries = entries_of(allowed)
    gains = rng.standard_normal(40)

    null = joint_null(entries, np.array([0.0, 0.0, 1.5]), ByHand(entries, gains), n=19, **ways(entries))

    assert null.informative.tolist() == [False, False, True]
    assert null.median == 1.5
    assert np.isnan(null.p_values[:2]).all()


def test_without_an_informative_specification_the_test_refuses() -> None:
    entries = entries_of(np.ones((40, 2), dtype=bool))

    null = joint_null(entries, np.zeros(2), ByHand(entries, np.ones(40)), n=19, **ways(entries))

    assert null.question.found is None
    assert "no specification let through and blocked at least 5" in null.question.sentence
