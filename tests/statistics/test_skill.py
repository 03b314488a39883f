"""Outcomes rolled against forecasts: by hand, in nothing, and in something."""

from __future__ import annotations

import numpy as np
import pytest

import bt_llm.statistics as stats
from bt_llm.exceptions import ConfigError, DataError

EYE = np.eye(3)


def words(rng: np.random.Generator, bars: int, run: float, shares: list[float]) -> np.ndarray:
    """Return labels that last some bars, with preferences of their own and no knowledge."""
    changes = rng.random(bars) < 1.0 / run
    drawn = rng.choice(3, size=bars, p=shares)
    return drawn[np.maximum.accumulate(np.where(changes, np.arange(bars), 0))]


def outcomes(rng: np.random.Generator, bars: int) -> np.ndarray:
    """Return what the next five bars of a walk come to: five on end overlap."""
    steps = np.convolve(rng.standard_normal(bars + 4), np.ones(5), "valid")
    return np.where(steps > 0.7, 0, np.where(steps < -0.7, 2, 1)).astype(float)


def test_it_is_the_rank_among_all_rolls():
    rng = np.random.default_rng(1)
    said, came = words(rng, 60, 4, [0.5, 0.3, 0.2]), outcomes(rng, 60)
    found = stats.rolled_skill({"a": EYE[said]}, came)
    by_hand = np.array([np.mean(said == np.roll(came, -k)) for k in range(60)])
    one = found.each["a"]
    assert one.observed == pytest.approx(by_hand[0]) == pytest.approx(np.mean(said == came))
    assert one.expected == pytest.approx(by_hand.mean())
    # What its words are worth at any time: their shares times those of the outcomes.
    assert one.expected == pytest.approx(
        np.bincount(said, minlength=3) @ np.bincount(came.astype(int)) / 3600
    )
    assert one.p_value == pytest.approx(np.mean(by_hand >= by_hand[0] - 1e-9))
    assert one.skill == pytest.approx(by_hand[0] - by_hand.mean())
    assert found.smallest_p == 1 / 60


def test_symbols_are_rolled_within_themselves_by_the_same_bars():
    rng = np.random.default_rng(2)
    said, came = [words(rng, 40, 4, [0.4, 0.3, 0.3]) for _ in "xy"], [outcomes(rng, 40) for _ in "xy"]
    found = stats.rolled_skill(
        {"a": EYE[np.concatenate(said)]}, np.concatenate(came), groups=["x"] * 40 + ["y"] * 40
    )
    rolls = [
        np.mean([np.mean(s == np.roll(c, -k)) for s, c in zip(said, came, strict=True)]) for k in range(40)
    ]
    assert found.each["a"].p_value == pytest.approx(np.mean(np.array(rolls) >= rolls[0] - 1e-9))
    # Twice the same symbol is not twice the evidence.
    twice = stats.rolled_skill(
        {"a": EYE[np.tile(said[0], 2)]}, np.tile(came[0], 2), groups=["x"] * 40 + ["y"] * 40
    )
    once = stats.rolled_skill({"a": EYE[said[0]]}, came[0])
    assert twice.each["a"].p_value == once.each["a"].p_value


def test_one_word_for_ever_is_no_skill_and_no_difference():
    rng = np.random.default_rng(3)
    came = np.where(rng.random(500) < 0.6, 0.0, 2.0)
    found = stats.rolled_skill({"up": EYE[np.zeros(500, int)], "flat": EYE[np.ones(500, int)]}, came)
    assert found.each["up"].observed > 0.55
    assert found.each["flat"].observed == pytest.approx(0.0)
    assert [one.p_value for one in (*found.each.values(), *found.pairs.values())] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("run", [5, 40])
def test_forecasts_that_know_nothing_are_told_so_where_mcnemar_sees_a_difference(run):
    hits = mcnemar = each = 0
    for seed in range(120):
        rng = np.random.default_rng([seed, run])
        came = outcomes(rng, 400)
        a, b = words(rng, 400, run, [0.1, 0.8, 0.1]), words(rng, 400, run, [0.8, 0.1, 0.1])
        found = stats.rolled_skill({"a": EYE[a], "b": EYE[b]}, came)
        hits += found.shown(found.pairs["a", "b"])
        each += any(found.shown(one) for one in found.each.values())
        right, other = (a == came)[::5], (b == came)[::5]
        mcnemar += stats.mcnemar(int((right & ~other).sum()), int((other & ~right).sum())) <= 0.05
    # Nominal 6 of 120; 14 or more happen once in 300 such tests.
    assert max(hits, each) < 14
    if run == 40:
        assert mcnemar > 20


def test_one_who_knows_is_found():
    found = better = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        came = outcomes(rng, 400)
        nothing = words(rng, 400, 5, [0.2, 0.6, 0.2])
        knows = np.where(words(rng, 400, 5, [0.35, 0.65, 0.0]) == 0, came, nothing).astype(int)
        result = stats.rolled_skill({"knows": EYE[knows], "nothing": EYE[nothing]}, came)
        found += result.shown(result.each["knows"])
        better += (
            result.shown(result.pairs["knows", "nothing"]) and result.pairs["knows", "nothing"].skill > 0
        )
    assert found >= 54
    assert better >= 48


def test_rows_score_what_the_mean_scores_do():
    rng = np.random.default_rng(4)
    p, came = rng.dirichlet([2, 2, 2], 50), outcomes(rng, 50)
    rows = np.arange(50), came.astype(int)
    assert -stats.brier_rows(p)[rows].mean() == pytest.approx(stats.brier_score(p, came))
    assert stats.log_rows(p)[rows].mean() == pytest.approx(np.mean(np.log(p[rows])))


@pytest.mark.parametrize(
    ("scores", "outcome", "options", "error", "message"),
    [
        ({}, [0.0], {}, DataError, "expected at least one forecaster"),
        ({"a": EYE[[0, 1]]}, [0.0], {}, DataError, r"scores of a of shape \(2, 3\)"),
        ({"a": EYE[[0, 1]]}, [0.0, 3.0], {}, DataError, "expected whole numbers 0 to 2"),
        ({"a": EYE[[0, 1]]}, [0.0, 1.0], {"groups": ["x"]}, DataError, "groups of 1 bars and 2 outcomes"),
        ({"a": EYE[[0, 1]]}, [0.0, 1.0], {"alpha": 1.0}, ConfigError, "alpha=1.0"),
    ],
)
def test_what_cannot_be_judged_is_refused(scores, outcome, options, error, message):
    with pytest.raises(error, match=message):
        stats.rolled_skill(scores, outcome, **options)


def test_the_least_probability_is_checked():
    with pytest.raises(ConfigError, match="least=0"):
        stats.log_rows([[1.0, 0.0]], least=0)
