"""What is no series, no setting or no probability: refused in one line, never computed with."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm import statistics as stats
from bt_llm.exceptions import BtLlmError, ConfigError, DataError

N = 60
RNG = np.random.default_rng(0)
R, Q = 0.01 * RNG.standard_normal((2, N))
P = RNG.dirichlet([1.0, 1.0, 1.0], N)
CAME = RNG.integers(0, 3, N)
NAMES = ("short", "short_exposure", "cost", "traded")
LEGS = stats.Legs(long=R, long_exposure=np.ones(N), **dict.fromkeys(NAMES, np.zeros(N)))
PANEL = {"block_length": 5, "n": 19}

SERIES: dict[str, Any] = {
    "nothing": None,
    "text": "abc",
    "texts": ["0.1", "0.2"] * 30,
    "number": 3.0,
    "generator": (x for x in R),
    "mapping": {"a": 0.1},
    "dates": pd.date_range("2020-01-01", periods=N),
    "durations": pd.to_timedelta(np.arange(N), unit="D"),
    "complex": R + 1j,
    "masked": np.ma.masked_array(R, mask=np.arange(N) == 3),
    "missing": pd.array([None, *R[1:]], dtype="Float64"),
    "whole beyond any float": [10**400] * N,
    "too small to be squared": R * 1e-300,
    "too large to be squared": R * 1e200,
    "ragged": [[0.1], [0.2, 0.3]],
}

OF_SERIES: dict[str, Callable[[Any], Any]] = {
    "sharpe_ratio": stats.sharpe_ratio,
    "sortino_ratio": stats.sortino_ratio,
    "volatility": stats.volatility,
    "max_drawdown": stats.max_drawdown,
    "market_model": lambda x: stats.market_model(x, R),
    "profit_factor": stats.profit_factor,
    "deflated_sharpe_ratio": lambda x: stats.deflated_sharpe_ratio(x, [0.1, 0.2]),
    "paired_bootstrap": lambda x: stats.paired_bootstrap(x, R, **PANEL),
    "stepwise_differences": lambda x: stats.stepwise_differences({"a": x, "b": R}, **PANEL),
    "model_confidence_set": lambda x: stats.model_confidence_set({"a": x, "b": R}, **PANEL),
    "exchange_test": lambda x: stats.exchange_test({"a": x}, R, CAME, n=9),
    "phase_order": lambda x: stats.phase_order(x, seed=0),
}


@pytest.mark.parametrize("name", OF_SERIES)
@pytest.mark.parametrize("kind", SERIES)
def test_what_is_no_series_of_numbers_is_refused(name: str, kind: str) -> None:
    with pytest.raises(DataError) as told:
        OF_SERIES[name](SERIES[kind])
    assert "\n" not in str(told.value)


def test_numbers_of_other_kinds_are_numbers_and_are_left_as_they_were() -> None:
    expected = stats.sharpe_ratio(R)
    given = R.copy()
    given.flags.writeable = False
    for same in (
        given,
        list(R),
        pd.Series(R),
        pd.array(R, dtype="Float64"),
        [Decimal(x) for x in R.tolist()],
    ):
        assert stats.sharpe_ratio(same) == pytest.approx(expected, rel=1e-14)
    assert np.array_equal(given, R)


SETTINGS: dict[str, Callable[[Any], Any]] = {
    "periods_per_year": lambda x: stats.sharpe_ratio(R, periods_per_year=x),
    "benchmark": lambda x: stats.probabilistic_sharpe_ratio(R, benchmark=x),
    "n_trials": lambda x: stats.expected_max_sharpe(x, 0.1),
    "variance": lambda x: stats.expected_max_sharpe(9, x),
    "sharpe": lambda x: stats.ReturnMoments(n=9, sharpe=x),
    "n_splits": lambda x: stats.probability_of_backtest_overfitting(np.column_stack([R, Q]), x),
    "statistic": lambda x: stats.paired_bootstrap(R, Q, x),
    "n": lambda x: stats.paired_bootstrap(R, Q, n=x, block_length=5),
    "seed": lambda x: stats.paired_bootstrap(R, Q, n=19, seed=x, block_length=5),
    "confidence": lambda x: stats.paired_bootstrap(R, Q, confidence=x, block_length=5),
    "block_length": lambda x: stats.paired_bootstrap(R, Q, n=19, block_length=x),
    "studentised": lambda x: stats.paired_bootstrap(R, Q, n=19, block_length=5, studentised=x),
    "n of a set": lambda x: stats.model_confidence_set({"a": R, "b": Q}, n=x, block_length=5),
    "seed of SPA": lambda x: stats.superior_predictive_ability({"a": R, "b": Q}, "a", n=19, seed=x),
    "benchmark of SPA": lambda x: stats.superior_predictive_ability({"a": R, "b": Q}, x, n=19),
    "block_length of legs": lambda x: stats.cost_curve(LEGS, LEGS, [0.1], n=19, block_length=x),
    "gated": lambda x: stats.timing_of(x, LEGS),
    "pairs": lambda x: stats.stepwise_differences({"a": R, "b": Q}, x, **PANEL),
    "error": lambda x: stats.detectable(x),
    "b": lambda x: stats.mcnemar(x, 3),
    "bins": lambda x: stats.reliability_table([0.5], [1], x),
    "least": lambda x: stats.log_rows(P, least=x),
    "factors": lambda x: stats.factor_shares(np.eye(2), x),
    "rng": lambda x: stats.permute_runs([0, 1], x),
    "p": stats.normal_quantile,
}
WRONG: dict[str, Any] = {
    "None": None,
    "-1": -1,
    "NaN": math.nan,
    "infinity": math.inf,
    "text": "5",
    "list": [5],
    "0-d": np.array(5),
    "series": R,
    "NA": pd.NA,
    "object": object(),
    "beyond any float": 10**400,
    "complex": 1j,
}
RIGHT = {
    ("periods_per_year", "None"),
    ("pairs", "None"),
    ("block_length", "None"),
    ("block_length of legs", "None"),
    ("benchmark", "-1"),
    ("sharpe", "-1"),
    ("sharpe", "NaN"),  # of returns that never vary
    ("seed", "beyond any float"),
    ("seed of SPA", "beyond any float"),
}
"""What may stand there all the same."""


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_no_such_setting_is_refused(name: str) -> None:
    for kind, value in WRONG.items():
        if (name, kind) not in RIGHT:
            with pytest.raises(BtLlmError) as told:
                SETTINGS[name](value)
            assert "\n" not in str(told.value)
            assert "expected" in str(told.value)


def test_as_many_resamples_as_no_machine_holds_are_refused() -> None:
    for call in (
        lambda: stats.paired_bootstrap(R, Q, n=10**9),
        lambda: stats.superior_predictive_ability({"a": R, "b": Q}, "a", n=10**9),
        lambda: stats.joint_differences(R[:, None], Q[:, None], block_length=5, n=10**9),
        lambda: stats.exchange_test({"a": R}, Q, CAME, n=10**9),
    ):
        with pytest.raises(ConfigError, match=r"^n=1000000000: expected a whole number from 1 to 1,000,000$"):
            call()


# what was silent


def test_an_account_that_gains_the_same_share_on_every_bar_has_no_sharpe_ratio() -> None:
    equity = 100.0 * 1.01 ** np.arange(250)
    returns = np.diff(equity) / equity[:-1]
    assert np.ptp(returns) > 0.0  # by rounding, which would make a ratio of 1e13
    assert math.isnan(stats.sharpe_ratio(returns))
    assert math.isnan(stats.probabilistic_sharpe_ratio(returns))
    assert stats.volatility(returns) == 0.0


def test_no_p_value_is_below_the_smallest_that_resamples_can_give() -> None:
    better = R + 0.05
    found = stats.superior_predictive_ability({"base": R, "better": better}, "base", "return", n=99)
    assert found == 0.01


def test_probabilities_have_to_sum_to_1() -> None:
    for wrong in (2.0 * P, P[:, :2], P - 0.5):
        for rows in (stats.brier_rows, stats.log_rows):
            with pytest.raises(DataError, match="expected numbers from 0 that sum to 1"):
                rows(wrong)


def test_what_has_no_label_is_not_left_out() -> None:
    groups = ["a", None] * 30
    with pytest.raises(DataError, match="groups: the label at position 1 is missing"):
        stats.rolled_skill({"a": P}, CAME, groups=groups)
    with pytest.raises(DataError, match="blocks: the label at position 1 is missing"):
        stats.paired_bootstrap(R, Q, n=19, block_length=5, blocks=groups)
    with pytest.raises(DataError, match="strata: the label at position 1 is missing"):
        stats.exchange_test({"a": R}, Q, groups, n=9)


def test_an_infinite_return_is_no_bar_that_is_missing() -> None:
    first, second = R[:, None].copy(), Q[:, None].copy()
    first[3], second[3] = np.inf, np.inf
    with pytest.raises(DataError, match="not finite"):
        stats.joint_differences(first, second, block_length=5, n=19)


def test_means_of_other_symbols_are_not_compared() -> None:
    panel = pd.DataFrame({("a", "x"): R, ("a", "y"): Q, ("b", "x"): R})
    with pytest.raises(DataError, match=r"'b' are of \['x'\] and those of 'a' of \['x', 'y'\]"):
        stats.pooled(panel)
    panel[("b", "y")] = np.where(np.arange(N) < 5, np.nan, Q)
    with pytest.raises(DataError, match="5 times have returns of some of"):
        stats.pooled(panel)


def test_p_values_that_are_none_are_not_adjusted() -> None:
    for wrong in (math.nan, -0.1, 1.1, "0.1", None):
        with pytest.raises(DataError, match=r"p_values: 'b' has .*: expected a number from 0 to 1"):
            stats.holm({"a": 0.01, "b": wrong})


def test_answers_between_no_and_yes_are_none() -> None:
    for wrong in ([0.5, 1.0], [2, 1], ["1", "0"], [math.nan, 0.0]):
        with pytest.raises(DataError, match="expected one row of 0 and 1"):
            stats.permute_runs(wrong, np.random.default_rng(0))


def test_a_text_is_no_list_of_labels() -> None:
    with pytest.raises(ConfigError, match=r"^first='ab': expected a list of labels"):
        stats.agreement_matrix("ab", "aa")


def test_costs_that_pay_are_no_costs() -> None:
    with pytest.raises(ConfigError, match=r"^costs=-0\.1: expected a number of at least 0"):
        stats.cost_curve(LEGS, LEGS, [-0.1], n=19, block_length=5)


# what may not matter


def test_the_order_of_names_does_not_matter() -> None:
    series = {"a": R, "b": Q, "twin": R, "c": R + 0.5 * Q}
    turned = dict(reversed(series.items()))
    for statistic in ("sharpe", "return"):
        one, two = (stats.model_confidence_set(x, statistic, n=49, block_length=3) for x in (series, turned))
        assert {name: pytest.approx(p) for name, p in one.items()} == two
        one, two = (
            stats.superior_predictive_ability(x, "a", statistic, n=49, block_length=3)
            for x in (series, turned)
        )
        assert one == two


def test_chance_is_its_own_and_nothing_given_is_changed() -> None:
    frame = pd.DataFrame({"a": R, "b": Q})
    before, state = frame.copy(), np.random.get_state()[1].tolist()
    first, second = (stats.stepwise_differences(frame, n=49) for _ in range(2))
    assert first == second
    stats.superior_predictive_ability(frame, "a", n=49)
    stats.exchange_test({"a": R}, Q, CAME, n=9)
    assert frame.equals(before)
    assert np.random.get_state()[1].tolist() == state
