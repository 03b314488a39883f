"""Shares of variance and of changed answers, known for every combination of levels."""

import math

import numpy as np
import pytest

from bt_llm.exceptions import DataError
from bt_llm.statistics import changed_share, factor_shares


def test_the_shares_of_a_sum_are_those_of_its_parts() -> None:
    a, b, c = np.arange(2.0), np.arange(3.0), np.arange(4.0)
    values = 3.0 * a[:, None, None] + b[:, None] + 0.0 * c  # variances 9/4, 2/3, 0

    shares = factor_shares(values, 3)

    whole = 9 / 4 + 2 / 3
    assert [share.main for share in shares] == pytest.approx([9 / 4 / whole, 2 / 3 / whole, 0.0])
    assert [share.total for share in shares] == pytest.approx([share.main for share in shares])


def test_an_interaction_is_in_the_total_of_both_of_its_factors() -> None:
    a, b = np.array([-1.0, 1.0]), np.array([-1.0, 1.0])
    values = a[:, None] + 2.0 * a[:, None] * b  # variances 1 alone, 4 together

    first, second = factor_shares(values, 2)

    assert (first.main, first.total) == pytest.approx((1 / 5, 1.0))
    assert (second.main, second.total) == pytest.approx((0.0, 4 / 5))


def test_units_are_added_up_and_their_levels_do_not_count() -> None:
    values = np.array([[0.0, 100.0], [1.0, 102.0]])  # a factor of two levels, two units: variances 1/4 and 1

    assert factor_shares(values, 1)[0] == pytest.approx((1.0, 1.0))
    both = np.stack([values, values], axis=1)  # and a factor that changes nothing
    assert factor_shares(both, 2)[1] == pytest.approx((0.0, 0.0))


def test_what_does_not_vary_has_no_shares_and_what_is_not_known_is_refused() -> None:
    assert math.isnan(factor_shares(np.full((2, 2), 0.1), 2)[0].main)
    with pytest.raises(DataError, match="expected 2 factors, and finite numbers"):
        factor_shares([[0.0, math.nan]], 2)


def test_answers_change_in_the_share_of_pairs_that_differ_in_one_factor() -> None:
    answers = np.array([["a", "a", "b"], ["a", "b", "b"]])

    down, across = changed_share(answers)

    assert down == pytest.approx(1 / 3)  # one of three pairs
    assert across == pytest.approx(4 / 6)
    assert math.isnan(changed_share([["a", "b"]])[0])
