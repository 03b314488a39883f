"""The paired bootstrap against arch, its coverage, and the rank among nulls."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bt_llm.statistics as stats
from bt_llm.exceptions import ConfigError, DataError, MissingExtraError

# No deadline: the tests say nothing about time, and machines are shared.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def draw(n: int = 300, *, seed: int = 7, mean: float = 0.0005, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Fat-tailed returns."""
    return mean + 0.01 * np.random.default_rng(seed).standard_t(5, size=(n, *shape))


def test_bootstrap_resamples_as_arch_does():
    a, b = draw(200, seed=1), draw(200, seed=2)
    result = stats.paired_bootstrap(a, b, "return", n=99, seed=5, block_length=7)
    bootstrap = StationaryBootstrap(7, np.column_stack([a, b]), seed=5)
    draws = [data[0][0].mean(axis=0) @ [1, -1] for data in bootstrap.bootstrap(99)]
    estimate = a.mean() - b.mean()
    errors = sorted(abs(d - estimate) for d in draws)
    assert result.estimate == pytest.approx(estimate, **CLOSE)
    assert result.high - result.estimate == pytest.approx(errors[94], **CLOSE)  # 95 of 100
    assert result.estimate - result.low == pytest.approx(errors[94], **CLOSE)
    assert result.p_value == (1 + sum(e >= abs(estimate) for e in errors)) / 100
    assert (result.block_length, result.n, result.confidence) == (7, 99, 0.95)


def test_bootstrap_estimates_the_difference_of_sharpe_ratios():
    a, b = draw(200, seed=1), draw(200, seed=2)
    result = stats.paired_bootstrap(a, b, n=99, periods_per_year=252)
    assert result.estimate == pytest.approx(stats.sharpe_ratio(a, 252) - stats.sharpe_ratio(b, 252), **CLOSE)
    per_bar = stats.paired_bootstrap(a, b, n=99)
    assert result.high == pytest.approx(per_bar.high * 252**0.5, **CLOSE)
    yearly, daily = (stats.paired_bootstrap(a, b, "return", n=99, periods_per_year=y) for y in (252, None))
    assert yearly.low == pytest.approx(daily.low * 252, **CLOSE)


def test_block_length_is_the_longest_that_politis_and_white_ask_for():
    rng = np.random.default_rng(3)
    a, b = np.zeros(500), rng.normal(size=500)
    for t in range(1, 500):
        a[t] = 0.7 * a[t - 1] + rng.normal()
    wanted = optimal_block_length(np.column_stack([a, b, a - b]))["stationary"].max()
    result = stats.paired_bootstrap(a, b, n=19)
    assert result.block_length == math.ceil(wanted) > 5


def test_bootstrap_is_reproducible():
    a, b = draw(100, seed=1), draw(100, seed=2)
    first, again, other = (stats.paired_bootstrap(a, b, n=99, seed=s, block_length=3) for s in (1, 1, 2))
    assert first == again
    assert first.high != other.high


def test_bootstrap_covers_the_truth():
    # 200 pairs that share a market and have memory, whose true difference is zero.
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        noise = rng.normal(size=(201, 3))
        market, one, two = (noise[1:] + 0.4 * noise[:-1]).T
        result = stats.paired_bootstrap(market + one, market + two, n=99, block_length=6)
        covered += result.low <= 0.0 <= result.high
    assert 0.87 <= covered / 200 <= 0.99


def test_bootstrap_of_identical_series_says_no_difference():
    r = draw(50)
    result = stats.paired_bootstrap(r, r.copy(), n=99)
    assert (result.estimate, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert (result.block_length, result.n) == (0, 0)


def test_bootstrap_of_series_in_proportion_says_no_difference_in_sharpe():
    r = draw(50)
    result = stats.paired_bootstrap(r, 3.0 * r, n=99, block_length=4)
    assert (result.estimate, result.p_value) == (0.0, 1.0)
    assert result.low <= 0.0 <= result.high


def test_bootstrap_of_accounts_that_never_traded():
    cash = np.zeros(100)
    assert stats.paired_bootstrap(cash, cash, n=99).p_value == 1.0
    assert stats.paired_bootstrap(cash, cash + 0.01, n=99).estimate == 0.0  # no Sharpe ratio either
    shift = stats.paired_bootstrap(cash + 0.01, cash, "return", n=99, periods_per_year=10)
    assert (shift.low, shift.high) == pytest.approx((0.1, 0.1))
    assert math.isnan(shift.p_value)
    r = draw(100)
    against_cash = stats.paired_bootstrap(r, cash, n=99)
    assert against_cash.estimate == pytest.approx(stats.sharpe_ratio(r), **CLOSE)
    assert against_cash.low < against_cash.estimate < against_cash.high


def test_a_series_that_stops_varying_gets_a_block_length():
    r = np.zeros(100)
    r[0] = 0.01
    assert stats.paired_bootstrap(r, draw(100), n=19).block_length >= 1


@unhurried
@given(seed=st.integers(0, 2**31), shift=st.floats(-0.01, 0.01), n=st.integers(19, 60))
def test_interval_and_p_value_say_the_same(seed, shift, n):
    a = draw(40, seed=seed) + shift
    b = draw(40, seed=seed + 1)
    result = stats.paired_bootstrap(a, b, "return", n=n, block_length=3)
    leaves_out_zero = not result.low <= 0.0 <= result.high
    assert leaves_out_zero == (result.p_value <= 0.05 + 1e-12)


@unhurried
@given(seed=st.integers(0, 2**31))
def test_swapping_the_series_turns_the_sign(seed):
    a, b = draw(40, seed=seed), draw(40, seed=seed + 1)
    one, two = (stats.paired_bootstrap(x, y, n=29, block_length=3) for x, y in ((a, b), (b, a)))
    assert (one.estimate, one.low, one.p_value) == pytest.approx((-two.estimate, -two.high, two.p_value))


@pytest.mark.parametrize(
    ("a", "options", "error", "message"),
    [
        (draw(49), {}, DataError, "a has 49 values and b has 50"),
        (draw(50), {"n": 18}, ConfigError, "n=18 resamples: an interval of 0.95 needs at least 19"),
        (draw(50), {"confidence": 1.0}, ConfigError, "confidence=1.0"),
        (draw(50), {"block_length": 51}, ConfigError, "block_length=51: expected 1 to the 50 bars"),
        (
            draw(50),
            {"statistic": "profit"},
            ConfigError,
            r"statistic='profit': expected one of \['sharpe', 'return'\]",
        ),
    ],
)
def test_bootstrap_refuses(a, options, error, message):
    with pytest.raises(error, match=message):
        stats.paired_bootstrap(a, draw(50, seed=2), **options)


def test_bootstrap_of_few_bars_wants_a_block_length():
    with pytest.raises(ConfigError, match="10 bars are too few to choose a block length"):
        stats.paired_bootstrap(draw(10), draw(10, seed=2))


def test_bootstrap_without_arch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bt-llm\[research\]'"):
        stats.paired_bootstrap(draw(50), draw(50, seed=2))


def test_rank_p_value_by_hand():
    assert stats.rank_p_value(3.0, [1.0, 2.0, 3.0, 4.0]) == 3 / 5  # a tie counts against
    assert stats.rank_p_value(9.0, [1.0, 2.0, 3.0, 4.0]) == 1 / 5


def test_rank_p_value_is_exact():
    # Each of B + 1 exchangeable results is as likely to be the observed one: over all of them the
    # p-value is uniform on its grid.
    results = draw(20)
    p = sorted(stats.rank_p_value(results[i], np.delete(results, i)) for i in range(20))
    assert p == pytest.approx([k / 20 for k in range(1, 21)])


def test_rank_p_value_refuses():
    with pytest.raises(DataError, match="nulls: 0 values"):
        stats.rank_p_value(1.0, [])
    with pytest.raises(DataError, match="observed=nan"):
        stats.rank_p_value(math.nan, [1.0])
    with pytest.raises(DataError, match="nulls: 1 of 2"):
        stats.rank_p_value(1.0, [1.0, math.nan])
