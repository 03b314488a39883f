from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.exceptions import ConfigError
from bt_llm.verdicts import Action, Prior, Verdict, calibrated, mean_prior

triples = st.tuples(*[st.integers(1, 1000)] * 3).map(
    lambda w: Verdict(bullish=w[0] / sum(w), neutral=w[1] / sum(w), bearish=w[2] / sum(w))
)


def test_worked_by_hand() -> None:
    prior = Prior(bullish=0.25, neutral=0.5, bearish=0.25)
    verdict = calibrated(Verdict(bullish=0.375, neutral=0.5, bearish=0.125), prior)
    # 0.375/0.25 = 1.5, 0.5/0.5 = 1, 0.125/0.25 = 0.5; the sum is 3
    assert verdict.probabilities == (0.5, pytest.approx(1 / 3), pytest.approx(1 / 6))
    assert verdict.action is Action.BULLISH


@given(st.lists(triples, min_size=1, max_size=20))
def test_the_prior_itself_calibrates_to_no_opinion(verdicts: list[Verdict]) -> None:
    prior = mean_prior(verdicts)
    assert prior is not None
    total = sum(prior.probabilities)
    mean = Verdict(probabilities=[p / total for p in prior.probabilities])
    assert calibrated(mean, prior).probabilities == pytest.approx((1 / 3, 1 / 3, 1 / 3))


@given(triples, triples, triples)
def test_the_order_of_two_states_is_kept(a: Verdict, b: Verdict, other: Verdict) -> None:
    prior = mean_prior([a, b, other])
    odds = [v.bullish / v.bearish for v in (a, b)]
    lifted = [calibrated(v, prior) for v in (a, b)]
    if odds[0] > odds[1] * (1 + 1e-9):
        assert lifted[0].bullish / lifted[0].bearish > lifted[1].bullish / lifted[1].bearish


@given(st.lists(triples, min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_the_mean_does_not_depend_on_the_order(verdicts: list[Verdict], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(verdicts)
    random.shuffle(shuffled)
    assert mean_prior(shuffled) == mean_prior(verdicts)


def test_a_label_without_any_probability_stays_without() -> None:
    certain = Verdict(bullish=1.0, neutral=0.0, bearish=0.0)
    prior = mean_prior([certain])
    assert calibrated(certain, prior).bullish == pytest.approx(1.0)


def test_invalid_verdicts_are_left_out_and_left_alone() -> None:
    valid = Verdict(bullish=0.2, neutral=0.6, bearish=0.2)
    assert mean_prior([valid, Verdict.invalid()]) == mean_prior([valid])
    assert mean_prior([Verdict.invalid()]) is None
    assert calibrated(Verdict.invalid("x"), mean_prior([valid])).action is Action.INVALID
    assert calibrated(valid, None) is valid


@pytest.mark.parametrize("bad", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (math.nan, 0.5, 0.5)])
def test_priors_are_checked(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="expected 3 numbers"):
        Prior(bullish=bad[0], neutral=bad[1], bearish=bad[2])
