"""PBO against purgedcv, by hand, and under permutation."""

from __future__ import annotations

import math

import numpy as np
import purgedcv
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bt_llm.statistics as stats
from bt_llm.exceptions import ConfigError, DataError

# No deadline: the tests say nothing about time, and machines are shared.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def draw(n: int = 300, *, seed: int = 7, mean: float = 0.0005, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Fat-tailed returns."""
    return mean + 0.01 * np.random.default_rng(seed).standard_t(5, size=(n, *shape))


def test_pbo_by_hand():
    # Two blocks, three trials ranked by mean return. Block 1: trial 0 is best; in block 2 it is the
    # worst of three, so rank 1 of 4 and logit ln(1/3). Block 2: trial 2 is best; in block 1 it is
    # second, rank 2 of 4 and logit 0.
    matrix = [[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    result = stats.probability_of_backtest_overfitting(matrix, n_splits=2, statistic="return")
    assert result.logits == pytest.approx([math.log(1 / 3), 0.0])
    assert result.in_sample.tolist() == [3.0, 3.0]
    assert result.out_of_sample.tolist() == [1.0, 2.0]
    assert result.pbo == 0.5
    assert result.loss_probability == 0.0
    assert (result.n_trials, result.n_splits, result.statistic) == (3, 2, "return")


@pytest.mark.parametrize(("n_bars", "n_trials", "n_splits"), [(64, 5, 4), (101, 8, 6), (90, 12, 8)])
def test_pbo_agrees_with_purgedcv(n_bars, n_trials, n_splits):
    matrix = draw(n_bars, seed=n_bars, shape=(n_trials,))
    ours = stats.probability_of_backtest_overfitting(matrix, n_splits)
    theirs = purgedcv.probability_of_backtest_overfitting(matrix.T, n_splits)
    assert ours.pbo == pytest.approx(theirs.pbo, **CLOSE)
    # purgedcv counts the combinations by their out-of-sample blocks
    assert ours.logits[::-1] == pytest.approx(theirs.logits, **CLOSE)
    performance = np.column_stack([ours.in_sample, ours.out_of_sample])
    assert performance[::-1] == pytest.approx(theirs.is_oos_performance, **CLOSE)


def test_pbo_by_mean_return_agrees_with_purgedcv():
    matrix = draw(80, shape=(6,))
    theirs = purgedcv.probability_of_backtest_overfitting(matrix.T, 8, metric=np.mean)
    ours = stats.probability_of_backtest_overfitting(matrix, 8, "return")
    assert ours.logits[::-1] == pytest.approx(theirs.logits, **CLOSE)


def test_pbo_of_sixteen_blocks_has_all_combinations():
    result = stats.probability_of_backtest_overfitting(draw(320, shape=(30,)))
    assert len(result.logits) == 12_870
    assert 0.0 <= result.pbo <= 1.0


def test_pbo_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    matrix = draw(80, shape=(6,))
    whole = stats.probability_of_backtest_overfitting(matrix, 8)
    monkeypatch.setattr("bt_llm.statistics._overfitting._CELLS", 60)
    assert stats.probability_of_backtest_overfitting(matrix, 8).logits.tolist() == whole.logits.tolist()


def test_pbo_finds_an_edge_and_finds_noise():
    noise = draw(400, mean=0.0, shape=(20,))
    edge = noise.copy()
    edge[:, 4] += 0.01
    assert stats.probability_of_backtest_overfitting(edge, 10).pbo == 0.0
    average = np.mean(
        [
            stats.probability_of_backtest_overfitting(draw(200, seed=s, mean=0.0, shape=(20,)), 8).pbo
            for s in range(60)
        ]
    )
    assert 0.35 < average < 0.6  # 60 searches of noise; one search alone says little


@pytest.mark.parametrize("statistic", ["sharpe", "return"])
@unhurried
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(6)))
def test_pbo_does_not_depend_on_the_order_of_the_trials(statistic, seed, order):
    # Few values make ties, in sample and out of it; some trials stay in cash.
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-1, 2, size=(16, 6)) * rng.integers(0, 2, size=6) / 64.0
    first, second = (
        stats.probability_of_backtest_overfitting(m, 4, statistic) for m in (matrix, matrix[:, order])
    )
    assert first.logits == pytest.approx(second.logits, abs=1e-12)


def test_pbo_of_equal_trials_is_at_the_median():
    column = draw(64)
    result = stats.probability_of_backtest_overfitting(np.column_stack([column] * 5), 8)
    assert not result.logits.any()
    assert result.pbo == 0.0


def test_pbo_scores_cash_as_zero():
    losing = -np.abs(draw(40, shape=(3,)))
    matrix = np.column_stack([losing, np.zeros(40)])
    result = stats.probability_of_backtest_overfitting(matrix, 4)
    assert result.in_sample.tolist() == [0.0] * 6
    assert (result.logits > 0).all()


@pytest.mark.parametrize("statistic", ["sharpe", "return"])
def test_trials_in_cash_for_half_the_bars_tie_there(statistic):
    # Their mean, taken off and put back, leaves rounding errors in the half without trades.
    for seed in range(20):
        matrix = np.column_stack([-np.abs(draw(40, seed=seed + s)) for s in range(4)])
        matrix[:20, 1:3] = 0.0
        result = stats.probability_of_backtest_overfitting(matrix, 2, statistic)
        assert result.in_sample[0] == 0.0
        score = stats.sharpe_ratio if statistic == "sharpe" else np.mean
        rank = scipy.stats.rankdata([score(later) for later in matrix[20:].T])[1:3].mean()
        assert result.logits[0] == pytest.approx(math.log(rank / (5 - rank)))


@pytest.mark.parametrize(
    ("matrix", "options", "error", "message"),
    [
        (np.ones((40, 3)), {"n_splits": 5}, ConfigError, "n_splits=5: expected an even number from 2 to 20"),
        (np.ones((40, 3)), {"n_splits": 22}, ConfigError, "n_splits=22"),
        (np.ones((40, 3)), {"statistic": "sharp"}, ConfigError, r"did you mean 'sharpe'\?"),
        (np.ones((31, 3)), {}, DataError, "need at least 32 bars"),
        (np.ones((40, 1)), {}, DataError, "at least 2 trials"),
        (np.ones(40), {}, DataError, "shape"),
        (
            np.full((40, 2), np.nan),
            {},
            DataError,
            r"80 of 80 values are not finite, the first at position \(0, 0\)",
        ),
    ],
)
def test_pbo_refuses(matrix, options, error, message):
    with pytest.raises(error, match=message):
        stats.probability_of_backtest_overfitting(matrix, **options)
