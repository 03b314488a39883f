"""The paired bootstrap against arch, its coverage, and the rank among nulls."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import statsmodels.api as sm
from arch.bootstrap import CircularBlockBootstrap, optimal_block_length
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bt_llm.statistics as stats
from bt_llm.exceptions import ConfigError, DataError, MissingExtraError
from bt_llm.statistics._blocks import resample
from bt_llm.statistics._resampling import _mean_difference

# No deadline: the tests say nothing about time, and machines are shared.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def draw(n: int = 300, *, seed: int = 7, mean: float = 0.0005, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Fat-tailed returns."""
    return mean + 0.01 * np.random.default_rng(seed).standard_t(5, size=(n, *shape))


def circular_draws(series: np.ndarray, length: int, n: int, seed: int) -> Iterator[np.ndarray]:
    """Yield resamples of whole blocks, each block a slice: the engine's own draws, taken the slow way."""
    rng, bars = np.random.default_rng(seed), len(series)
    for starts in rng.integers(0, bars, (n, bars // length)):
        yield np.concatenate([np.take(series, range(s, s + length), axis=0, mode="wrap") for s in starts])


def test_every_resample_is_measured_by_its_own_blocks():
    a, b = draw(203, seed=1), draw(203, seed=2)
    result = stats.paired_bootstrap(a, b, "return", n=99, seed=5, block_length=7)
    d = a - b

    def error(values: np.ndarray, sums: np.ndarray, count: float) -> float:
        return math.sqrt(np.sum((sums - 7 * values.mean()) ** 2) * count) / (7 * len(sums))

    everywhere = np.array([np.take(d, range(s, s + 7), mode="wrap").sum() for s in range(203)])
    own = math.sqrt(np.mean((everywhere - 7 * d.mean()) ** 2) / 7 / 203)
    scores = sorted(
        abs(x.mean() - d.mean()) / error(x, x.reshape(-1, 7).sum(axis=1), 29 / 28)
        for x in circular_draws(d, 7, 99, 5)
    )
    assert result.estimate == pytest.approx(d.mean(), **CLOSE)
    assert result.high - result.estimate == pytest.approx(own * scores[94], **CLOSE)  # 95 of 100
    assert result.estimate - result.low == pytest.approx(own * scores[94], **CLOSE)
    assert result.p_value == (1 + sum(s >= abs(d.mean()) / own for s in scores)) / 100
    assert (result.block_length, result.n, result.confidence) == (7, 99, 0.95)


def test_without_studentising_it_is_archs_circular_block_bootstrap():
    a, b = draw(210, seed=1), draw(210, seed=2)
    ours = stats.paired_bootstrap(a, b, "return", n=4000, block_length=7, studentised=False)
    arch = CircularBlockBootstrap(7, a - b, seed=3).apply(np.mean, 4000).ravel()
    reach = np.quantile(np.abs(arch - np.mean(a - b)), 0.95)
    assert ours.high - ours.estimate == pytest.approx(reach, rel=0.05)


def test_the_standard_error_is_that_of_statsmodels():
    """The variance from all overlapping blocks is the Bartlett kernel's, but for the ends of the sample."""
    a, b = draw(4000, seed=1), draw(4000, seed=2)
    found = resample(np.column_stack([a, b]), _mean_difference, length=9, n=19, seed=0)
    hac = sm.OLS(a - b, np.ones(4000)).fit(cov_type="HAC", cov_kwds={"maxlags": 8})
    assert found.errors[0] == pytest.approx(float(hac.bse[0]), rel=0.02)


def test_rows_of_one_label_move_together():
    # Ten symbols that are one and the same know no more than one of them.
    a, b = draw(300, seed=1), draw(300, seed=2)
    days = np.repeat(np.arange(300), 10)
    panel = stats.paired_bootstrap(
        np.repeat(a, 10) / 10, np.repeat(b, 10) / 10, "return", n=99, block_length=5, blocks=days
    )
    alone = stats.paired_bootstrap(a, b, "return", n=99, block_length=5)
    assert (panel.low, panel.high, panel.p_value) == pytest.approx((alone.low, alone.high, alone.p_value))
    with pytest.raises(DataError, match="expected one label for each of 300 rows"):
        stats.paired_bootstrap(a, b, blocks=days)


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
    three = np.column_stack([a, b, a - b])
    both = np.column_stack([three, (three - three.mean(axis=0)) ** 2])
    wanted = optimal_block_length(both)["circular"].max()
    result = stats.paired_bootstrap(a, b, n=19)
    assert result.block_length == math.ceil(wanted) > 5


def test_block_length_is_that_of_squares_where_only_volatility_has_memory():
    rng = np.random.default_rng(3)
    quiet = np.repeat(rng.permutation([0.5, 3.0] * 20), 25)
    a, b = rng.normal(size=1000) * quiet, rng.normal(size=1000) * quiet
    from_returns = optimal_block_length(np.column_stack([a, b, a - b]))["circular"].max()
    assert stats.paired_bootstrap(a, b, n=19).block_length > 3 * math.ceil(from_returns)


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
