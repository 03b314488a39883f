"""Agreement and calibration against scikit-learn and statsmodels, and the examples of the papers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.calibration
import sklearn.metrics
import statsmodels.stats.contingency_tables as contingency
import statsmodels.stats.inter_rater as inter_rater
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bt_llm.statistics as stats
from bt_llm.exceptions import ConfigError, DataError

# No deadline: the tests say nothing about time, and machines are shared.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
CLOSE = {"rel": 1e-9, "abs": 1e-9}


@pytest.mark.parametrize(("b", "c"), [(1, 7), (7, 1), (5, 5), (0, 6), (30, 55), (400, 350), (3000, 2900)])
def test_mcnemar_agrees_with_statsmodels(b, c):
    table = [[10, b], [c, 10]]
    exact = contingency.mcnemar(table, exact=True).pvalue
    assert stats.mcnemar(b, c, "exact") == pytest.approx(exact, **CLOSE)
    chi2 = contingency.mcnemar(table, exact=False, correction=False).pvalue
    assert stats.mcnemar(b, c, "chi2") == pytest.approx(chi2, **CLOSE)
    half = 0.5 if b == c else 1.0
    assert stats.mcnemar(b, c) == pytest.approx(exact - half * scipy.stats.binom.pmf(b, b + c, 0.5), **CLOSE)


def test_mcnemar_of_the_article():
    # Fagerland, Lydersen and Laake (2013), table 1: Bentur et al.
    assert stats.mcnemar(1, 7) == pytest.approx(0.0391, abs=5e-5)
    assert stats.mcnemar(1, 7, "exact") == pytest.approx(0.0703, abs=5e-5)


def test_mcnemar_without_disagreement():
    assert [stats.mcnemar(0, 0, method) for method in ("mid-p", "exact", "chi2")] == [1.0] * 3


@unhurried
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_symmetric_probability(b, c):
    for method in stats.McNemarMethod:
        p = stats.mcnemar(b, c, method)
        assert p == stats.mcnemar(c, b, method)
        assert 0.0 <= p <= 1.0
    assert stats.mcnemar(b, c) <= stats.mcnemar(b, c, "exact")


def test_mcnemar_refuses():
    with pytest.raises(ConfigError, match="c=-1"):
        stats.mcnemar(1, -1)
    with pytest.raises(ConfigError, match=r"b=1\.5"):
        stats.mcnemar(1.5, 2)
    with pytest.raises(ConfigError, match=r"method='exakt'.*did you mean 'exact'"):
        stats.mcnemar(1, 2, "exakt")


labels = st.lists(
    st.tuples(st.sampled_from([1, 0, -1]), st.sampled_from([1, 0, -1])), min_size=1, max_size=60
)


@unhurried
@given(labels)
def test_agreement_matrix_agrees_with_scikit_learn(pairs):
    first, second = zip(*pairs, strict=True)
    ours = stats.agreement_matrix(first, second, labels=[1, 0, -1])
    assert (
        ours.to_numpy().tolist()
        == sklearn.metrics.confusion_matrix(first, second, labels=[1, 0, -1]).tolist()
    )
    assert (
        stats.agreement_matrix(second, first, labels=[1, 0, -1]).T.to_numpy().tolist()
        == ours.to_numpy().tolist()
    )


@unhurried
@given(labels)
def test_kappa_agrees_with_scikit_learn(pairs):
    first, second = zip(*pairs, strict=True)
    kappa = stats.cohens_kappa(first, second)
    if len({*first, *second}) == 1:
        assert math.isnan(kappa)
    else:
        assert kappa == pytest.approx(sklearn.metrics.cohen_kappa_score(first, second), **CLOSE)
    assert kappa == pytest.approx(stats.cohens_kappa(second, first), nan_ok=True)


def test_kappa_of_a_table():
    # Cohen (1960), table 1, in counts of 200: p_o = .70, p_e = .41, kappa = .492
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    assert stats.cohens_kappa(table) == pytest.approx(0.492, abs=5e-4)
    assert stats.cohens_kappa(table) == pytest.approx(inter_rater.cohens_kappa(table).kappa, **CLOSE)
    frame = stats.agreement_matrix(list("aabbc"), list("abbbc"))
    assert stats.cohens_kappa(frame) == pytest.approx(stats.cohens_kappa(list("aabbc"), list("abbbc")))


def test_labels_of_several_types_are_put_in_order():
    table = stats.agreement_matrix([1, "INVALID"], [1, 1])
    assert list(table.index) == [1, "INVALID"]


def test_agreement_refuses():
    with pytest.raises(DataError, match="2 labels against 1"):
        stats.agreement_matrix([1, 0], [1])
    with pytest.raises(DataError, match="2 labels are missing"):
        stats.agreement_matrix([1, math.nan], [None, 1])
    with pytest.raises(DataError, match=r"labels \['-9'\] are not among the expected \[1, 0\]"):
        stats.agreement_matrix([1, -9], [1, 0], labels=[1, 0])
    with pytest.raises(DataError, match="each of them once"):
        stats.agreement_matrix([1], [1], labels=[1, 1])
    for table in ([[1, 2]], [[0, 0], [0, 0]], [[1, -1], [1, 1]]):
        with pytest.raises(DataError, match="expected a square table of counts"):
            stats.cohens_kappa(table)


@pytest.mark.parametrize("seed", range(3))
def test_brier_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    p, o = rng.dirichlet([1.0, 1.0, 1.0], size=50), rng.integers(0, 3, size=50)
    theirs = sklearn.metrics.brier_score_loss(o, p, labels=[0, 1, 2], scale_by_half=False)
    assert stats.brier_score(p, o) == pytest.approx(theirs, **CLOSE)
    q, up = p[:, 0], o == 0
    assert stats.brier_score(np.column_stack([q, 1 - q]), np.where(up, 0, 1)) == pytest.approx(
        2 * sklearn.metrics.brier_score_loss(up, q), **CLOSE
    )


def test_brier_of_the_extremes():
    third = np.full((4, 3), 1 / 3)
    assert stats.brier_score(third, [0, 1, 2, 0]) == pytest.approx(2 / 3)
    assert stats.brier_score([[1.0, 0.0]], [0]) == 0.0
    assert stats.brier_score([[1.0, 0.0]], [1]) == 2.0


@pytest.mark.parametrize(
    ("p", "o", "message"),
    [
        ([[0.5, 0.6]], [0], r"probabilities \[0.5, 0.6\] in row 0"),
        ([[0.5, 0.5], [1.5, -0.5]], [0, 0], "in row 1"),
        ([[0.5, 0.5]], [2], "whole numbers 0 to 1"),
        ([[0.5, 0.5]], [0.5], "whole numbers 0 to 1"),
        ([[0.5, 0.5]], [0, 1], "1 rows of probabilities and 2 outcomes"),
    ],
)
def test_brier_refuses(p, o, message):
    with pytest.raises(DataError, match=message):
        stats.brier_score(p, o)


def test_reliability_table_by_hand():
    table = stats.reliability_table([0.0, 0.2, 0.25, 0.9, 1.0], [0, 1, 0, 1, 1], bins=5)
    assert table["count"].tolist() == [2, 1, 0, 0, 2]  # 0.2 is the upper edge of the first bin
    assert table["mean_confidence"].tolist() == pytest.approx(
        [0.1, 0.25, math.nan, math.nan, 0.95], nan_ok=True
    )
    assert table["frequency"].tolist() == pytest.approx([0.5, 0.0, math.nan, math.nan, 1.0], nan_ok=True)
    assert table["low"].tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert table["high"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_reliability_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    stated = rng.random(300)
    right = rng.random(300) < stated
    frequency, mean = sklearn.calibration.calibration_curve(right, stated, n_bins=10)
    table = stats.reliability_table(stated, right)
    assert table["frequency"].to_numpy() == pytest.approx(frequency, **CLOSE)
    assert table["mean_confidence"].to_numpy() == pytest.approx(mean, **CLOSE)
    assert isinstance(table, pd.DataFrame)
    assert table["count"].sum() == 300


def test_reliability_refuses():
    with pytest.raises(ConfigError, match="bins=0"):
        stats.reliability_table([0.5], [1], bins=0)
    with pytest.raises(DataError, match="1 confidences and 2 outcomes"):
        stats.reliability_table([0.5], [1, 0])
    for confidence, correct in [([1.5], [1]), ([0.5], [2])]:
        with pytest.raises(DataError, match="expected numbers from 0 to 1, and zeros and ones"):
            stats.reliability_table(confidence, correct)
