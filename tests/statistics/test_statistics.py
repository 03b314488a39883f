"""The statistics against independent libraries, the examples of their papers, and hand calculation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import purgedcv
import pytest
import scipy.stats
import skfolio.measures as skfolio
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bt_llm.statistics as stats
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.statistics import ReturnMoments

# No deadline: the tests say nothing about time, and machines are shared.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def draw(n: int = 300, *, seed: int = 7, mean: float = 0.0005, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Fat-tailed returns."""
    return mean + 0.01 * np.random.default_rng(seed).standard_t(5, size=(n, *shape))


# Returns on a grid, as cents on a price make them: no denormals, and ties now and then.
grid = st.integers(-5000, 5000).map(lambda cents: cents / 1e5)
returns_of = arrays(np.float64, st.integers(4, 60), elements=grid)


def test_sharpe_by_hand():
    # mean 0.01, squared deviations 0, 1, 1 (1e-4) over 2
    assert stats.sharpe_ratio([0.01, 0.02, 0.0]) == pytest.approx(1.0, **CLOSE)
    assert stats.sharpe_ratio([0.01, 0.02, 0.0], periods_per_year=252) == pytest.approx(252**0.5, **CLOSE)


@pytest.mark.parametrize("seed", range(5))
def test_performance_agrees_with_skfolio(seed):
    r = draw(seed=seed)
    assert stats.sharpe_ratio(r) == pytest.approx(skfolio.mean(r) / skfolio.standard_deviation(r), **CLOSE)
    downside = skfolio.semi_deviation(r, min_acceptable_return=0.0, biased=True)
    assert stats.sortino_ratio(r, 252) == pytest.approx(skfolio.mean(r) / downside * 252**0.5, **CLOSE)
    equity = np.cumprod(np.concatenate([[1.0], 1.0 + r]))
    drawdowns = skfolio.get_drawdowns(np.concatenate([[0.0], r]), compounded=True)
    assert stats.max_drawdown(equity) == pytest.approx(abs(skfolio.max_drawdown(drawdowns)), **CLOSE)


def test_max_drawdown_and_calmar_by_hand():
    # peak 120, trough 90; 100 to 110 in one year of three bars
    assert stats.max_drawdown([100, 120, 90, 110]) == pytest.approx(0.25)
    assert stats.calmar_ratio([100, 120, 90, 110], 3) == pytest.approx(0.1 / 0.25)
    # 100 to 121 in two years is 10% a year
    assert stats.calmar_ratio([100, 80, 121], 1) == pytest.approx(0.1 / 0.2)
    assert stats.max_drawdown([100, -50]) == 1.5
    assert stats.calmar_ratio([100, -50], 1) == pytest.approx(-1 / 1.5)


def test_accounts_that_never_moved_or_never_lost():
    assert math.isnan(stats.sharpe_ratio([0.0, 0.0, 0.0]))
    assert math.isnan(stats.sharpe_ratio([0.1, 0.1, 0.1]))  # numpy's deviation of these is not 0
    assert math.isnan(stats.sortino_ratio([0.0, 0.0]))
    assert stats.sortino_ratio([0.0, 0.1]) == math.inf
    assert stats.max_drawdown([1.0]) == 0.0
    assert math.isnan(stats.calmar_ratio([1, 1, 1], 252))
    assert stats.calmar_ratio([1, 2, 3], 252) == math.inf
    assert stats.calmar_ratio([1, 0.5, 100], 1e6) == math.inf  # more growth a year than a float holds


@pytest.mark.parametrize("function", [stats.sharpe_ratio, stats.sortino_ratio, ReturnMoments.of])
def test_bad_returns_are_refused(function):
    with pytest.raises(DataError, match=r"returns: 1 of 3 values are not finite, the first at position 1"):
        function([0.1, math.nan, 0.2])
    with pytest.raises(DataError, match="1 values, expected at least 2"):
        function([0.1])
    with pytest.raises(DataError, match="axis"):
        function([[0.1, 0.2]])
    with pytest.raises(DataError, match="expected numbers"):
        function(["a", "b"])


def test_bad_equity_and_periods_are_refused():
    with pytest.raises(DataError, match=r"starts at 0\.0"):
        stats.max_drawdown([0.0, 1.0])
    with pytest.raises(DataError, match="not finite"):
        stats.calmar_ratio([1.0, math.inf], 252)
    with pytest.raises(ConfigError, match="periods_per_year=0"):
        stats.sharpe_ratio([0.1, 0.2], 0)


@unhurried
@given(returns_of, st.floats(0.01, 100.0))
def test_ratios_do_not_depend_on_leverage(r, leverage):
    for ratio in (stats.sharpe_ratio, stats.sortino_ratio):
        assert ratio(r * leverage) == pytest.approx(ratio(r), rel=1e-6, abs=1e-9, nan_ok=True)


@unhurried
@given(returns_of)
def test_drawdown_lies_between_nothing_and_everything(r):
    equity = 100.0 * np.cumprod(1.0 + r)
    assert 0.0 <= stats.max_drawdown(equity) < 1.0
    assert stats.max_drawdown(np.sort(equity)) == 0.0


def test_psr_of_the_hedge_fund_in_the_article():
    # Bailey and Lopez de Prado (2012): 0.982 if returns were normal, 0.913 as they are, and three
    # years instead of two bring it to 0.953. The Sharpe ratio itself is printed to three digits.
    moments = {"sharpe": 0.458, "skew": -2.448, "kurtosis": 10.164}
    assert stats.probabilistic_sharpe_ratio(ReturnMoments(n=24, sharpe=0.458)) == pytest.approx(
        0.982, abs=5e-4
    )
    assert stats.probabilistic_sharpe_ratio(ReturnMoments(n=24, **moments)) == pytest.approx(0.913, abs=5e-4)
    assert stats.probabilistic_sharpe_ratio(ReturnMoments(n=36, **moments)) == pytest.approx(0.953, abs=1e-3)


@pytest.mark.parametrize(("bars", "years"), [(252, 2.73), (52, 2.83), (12, 3.24)])
def test_min_track_record_length_of_the_article(bars, years):
    # Bailey and Lopez de Prado (2012): years to tell an annualised 2 from 1 at 95%, normal returns.
    moments = ReturnMoments(n=2, sharpe=2 / bars**0.5)
    assert stats.min_track_record_length(moments, 1 / bars**0.5) / bars == pytest.approx(years, abs=5e-3)


def test_dsr_of_the_article():
    # Bailey and Lopez de Prado (2014), numerical example.
    best = ReturnMoments(n=1250, sharpe=2.5 / 250**0.5, skew=-3.0, kurtosis=10.0)
    assert stats.expected_max_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert stats.deflated_sharpe_ratio(best, n_trials=100, variance=0.5 / 250) == pytest.approx(
        0.9004, abs=5e-5
    )
    assert stats.deflated_sharpe_ratio(best, n_trials=46, variance=0.5 / 250) == pytest.approx(
        0.9505, abs=5e-5
    )
    normal = ReturnMoments(n=1250, sharpe=2.5 / 250**0.5)
    assert stats.deflated_sharpe_ratio(normal, n_trials=88, variance=0.5 / 250) == pytest.approx(
        0.9505, abs=2e-4
    )


@pytest.mark.parametrize("seed", range(8))
def test_psr_and_dsr_agree_with_skfolio(seed):
    r, trials = draw(seed=seed, mean=0.001), draw(40, seed=seed + 100) * 5
    assert stats.probabilistic_sharpe_ratio(r, 0.02) == pytest.approx(
        skfolio.probabilistic_sharpe_ratio(r, 0.02), **CLOSE
    )
    assert stats.deflated_sharpe_ratio(r, trials) == pytest.approx(
        skfolio.deflated_sharpe_ratio(r, trials), **CLOSE
    )


@pytest.mark.parametrize("seed", range(8))
def test_psr_dsr_and_min_trl_agree_with_purgedcv_on_its_moments(seed):
    r = draw(seed=seed, mean=0.002)
    theirs = ReturnMoments(
        n=len(r),
        sharpe=float(r.mean() / r.std()),
        skew=float(scipy.stats.skew(r, bias=False)),
        kurtosis=float(scipy.stats.kurtosis(r, bias=False, fisher=False)),
    )
    assert stats.probabilistic_sharpe_ratio(theirs, 0.1) == pytest.approx(
        purgedcv.probabilistic_sharpe_ratio(r, 0.1), **CLOSE
    )
    assert stats.deflated_sharpe_ratio(theirs, n_trials=60, variance=0.003) == pytest.approx(
        purgedcv.deflated_sharpe_ratio(r, 60, 0.003), **CLOSE
    )
    bars = stats.min_track_record_length(theirs, 0.05, 0.9)
    assert (math.ceil(bars) if bars < math.inf else bars) == purgedcv.min_track_record_length(
        theirs.sharpe, 0.05, 0.1, theirs.skew, theirs.kurtosis
    )


@pytest.mark.parametrize("n_trials", [1, 2, 3.5, 100, 1e6, 1e12])
def test_expected_max_agrees_with_skfolio(n_trials):
    assert stats.expected_max_sharpe(n_trials, 0.04, 0.01) == pytest.approx(
        skfolio.expected_max_sharpe_ratio(n_trials, 0.2, 0.01), rel=1e-5 if n_trials == 1e12 else 1e-9
    )


def test_expected_max_is_near_that_of_simulated_trials():
    best = np.random.default_rng(0).normal(0.0, 0.3, size=(4000, 50)).max(axis=1)
    assert stats.expected_max_sharpe(50, 0.09) == pytest.approx(best.mean(), rel=0.02)


def test_expected_max_never_falls_below_the_mean():
    assert stats.expected_max_sharpe(1.0001, 1.0, mean=0.2) == 0.2


def test_moments_agree_with_scipy():
    r = draw()
    m = ReturnMoments.of(r)
    assert (m.skew, m.kurtosis) == pytest.approx(
        (scipy.stats.skew(r), scipy.stats.kurtosis(r, fisher=False)), **CLOSE
    )


@unhurried
@given(
    st.floats(0.01, 1.0),
    st.floats(-0.5, 0.009),
    st.floats(-2, 2),
    st.floats(0.0, 20.0),
    st.floats(0.51, 0.999),
)
def test_min_trl_is_the_length_at_which_psr_reaches_the_confidence(sharpe, benchmark, skew, more, confidence):
    moments = ReturnMoments(n=2, sharpe=sharpe, skew=skew, kurtosis=1.5 + skew**2 + more)
    bars = stats.min_track_record_length(moments, benchmark, confidence)
    z = (sharpe - benchmark) * math.sqrt(bars - 1) / math.sqrt(moments.dispersion)
    assert scipy.stats.norm.cdf(z) == pytest.approx(confidence, rel=1e-9)


@unhurried
@given(returns_of, st.floats(-0.3, 0.3), st.floats(0.01, 0.3))
def test_a_higher_benchmark_is_less_probable(r, benchmark, more):
    assume(np.ptp(r) > 0 and len(np.unique(r)) > 2)
    low, high = (stats.probabilistic_sharpe_ratio(r, b) for b in (benchmark, benchmark + more))
    assert 0.0 <= high <= low <= 1.0


@unhurried
@given(st.floats(1.0, 1e6), st.floats(1.01, 10.0))
def test_more_trials_deflate_more(n_trials, factor):
    best = ReturnMoments(n=500, sharpe=0.1)
    few, many = (
        stats.deflated_sharpe_ratio(best, n_trials=n, variance=0.01) for n in (n_trials, n_trials * factor)
    )
    assert many <= few <= stats.probabilistic_sharpe_ratio(best)


def test_a_trial_that_never_traded_counts_as_a_trial():
    sharpes = [0.1, 0.05, -0.02]
    best = ReturnMoments(n=500, sharpe=0.1)
    assert stats.deflated_sharpe_ratio(best, [*sharpes, math.nan]) == stats.deflated_sharpe_ratio(
        best, n_trials=4, variance=float(np.var(sharpes, ddof=1))
    )
    assert stats.deflated_sharpe_ratio(best, [0.1]) == stats.probabilistic_sharpe_ratio(best)


def test_returns_that_never_vary_have_no_probability():
    flat = [0.0] * 10
    assert math.isnan(stats.probabilistic_sharpe_ratio(flat))
    assert math.isnan(stats.deflated_sharpe_ratio(flat, [0.1, 0.2]))
    assert math.isnan(stats.min_track_record_length(flat))


def test_a_record_below_its_benchmark_is_never_long_enough():
    assert stats.min_track_record_length(ReturnMoments(n=99, sharpe=0.1), 0.1) == math.inf


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ReturnMoments(n=1, sharpe=0.1), ConfigError, "n=1: expected a whole number of returns"),
        (
            lambda: ReturnMoments(n=9, sharpe=0.1, skew=-3.0, kurtosis=7.0),
            ConfigError,
            r"= 10; if it is the excess",
        ),
        (lambda: stats.expected_max_sharpe(0.5, 1.0), ConfigError, "n_trials=0.5"),
        (lambda: stats.expected_max_sharpe(math.nan, 1.0), ConfigError, "n_trials=nan"),
        (lambda: stats.expected_max_sharpe(10, -1.0), ConfigError, "variance=-1.0"),
        (lambda: stats.deflated_sharpe_ratio([0.1, 0.2, 0.4]), ConfigError, "either trial_sharpes, or both"),
        (
            lambda: stats.deflated_sharpe_ratio([0.1, 0.2, 0.4], n_trials=3),
            ConfigError,
            "either trial_sharpes",
        ),
        (
            lambda: stats.deflated_sharpe_ratio([0.1, 0.2], [1.0], n_trials=3),
            ConfigError,
            "either trial_sharpes",
        ),
        (lambda: stats.deflated_sharpe_ratio([0.1, 0.2], []), DataError, "0 trials"),
        (
            lambda: stats.deflated_sharpe_ratio([0.1, 0.2], [0.1, math.nan]),
            DataError,
            "with 1 finite and 0 inf",
        ),
        (
            lambda: stats.deflated_sharpe_ratio([0.1, 0.2], [0.1, 0.2, math.inf]),
            DataError,
            "2 finite and 1 inf",
        ),
        (
            lambda: stats.min_track_record_length([0.1, 0.2, 0.4], confidence=0.5),
            ConfigError,
            "confidence=0.5",
        ),
        (
            lambda: stats.probabilistic_sharpe_ratio(ReturnMoments(n=9, sharpe=1.0, skew=2.0, kurtosis=5.0)),
            DataError,
            "leave no sampling error",
        ),
    ],
)
def test_selection_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_computing_a_ratio_loads_neither_arch_nor_scipy():
    code = (
        "import sys; from bt_llm.statistics import paired_bootstrap, sharpe_ratio; "
        "from bt_llm.research import Fold; "
        "print({'arch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_is_documented():
    for name in stats.__all__:
        assert getattr(stats, name).__doc__, name
