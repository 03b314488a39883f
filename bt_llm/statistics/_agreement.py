"""Whether two models agree, which is right more often, and whether a confidence can be believed."""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bt_llm.exceptions import DataError
from bt_llm.settings import in_short, python_scalar, several, whole
from bt_llm.statistics._inputs import choose, distributions, finite

__all__ = ["McNemarMethod", "agreement_matrix", "brier_score", "cohens_kappa", "mcnemar", "reliability_table"]


_MOST_BINS = 10_000
_MOST_BARS = 100_000  # discordant ones, of which an exact tail takes seconds


class McNemarMethod(enum.StrEnum):
    """How `mcnemar` computes its p-value."""

    MID_P = "mid-p"
    EXACT = "exact"
    CHI2 = "chi2"


def mcnemar(b: int, c: int, method: str = McNemarMethod.MID_P) -> float:
    """Return the p-value that two models are right equally often on the same bars.

    Parameters
    ----------
    b, c : int
        Bars on which only the first model was right, and on which only the second was. Those on
        which both were right, or both wrong, say nothing about the difference.
    method : {'mid-p', 'exact', 'chi2'}
        ``exact`` doubles the smaller tail of a binomial distribution with ``b + c`` trials and
        probability a half; it errs on the side of no difference. ``mid-p`` counts half the
        probability of the observed split (and is ``1 - p / 2``, with p that probability, when b
        equals c): the default, as Fagerland, Lydersen and Laake recommend for any sample size.
        ``chi2`` is ``(b - c) ** 2 / (b + c)`` against one degree of freedom, without correction
        for continuity.

    Returns
    -------
    float
        Two-sided p-value, 0 to 1; 1 when there are no discordant bars.

    Raises
    ------
    ConfigError
        If a count is negative, not whole or above 100,000, or the method is unknown.

    References
    ----------
    Q. McNemar, "Note on the Sampling Error of the Difference between Correlated Proportions",
    Psychometrika 12, 1947. M. W. Fagerland, S. Lydersen and P. Laake, "The McNemar Test for Binary
    Matched-Pairs Data: Mid-p and Asymptotic Are Better than Exact Conditional", BMC Medical
    Research Methodology 13:91, 2013.

    Examples
    --------
    The table of Bentur et al. that Fagerland, Lydersen and Laake work through.

    >>> mcnemar(1, 7), mcnemar(1, 7, "exact")
    (0.0390625, 0.0703125)
    """
    chosen = choose(McNemarMethod, method, "method")
    first, second = _count(b, "b"), _count(c, "c")
    n, k = first + second, min(first, second)
    if n == 0:
        return 1.0
    if chosen is McNemarMethod.CHI2:
        return math.erfc(abs(first - second) / math.sqrt(2.0 * n))
    tail = term = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        tail += term
    # Whole numbers up to the last division: it is exact for any count.
    exact = min(float(2 * tail / 2**n), 1.0)
    if chosen is McNemarMethod.EXACT:
        return exact
    observed = float(term / 2**n)
    return 1.0 - observed / 2.0 if first == second else exact - observed


def agreement_matrix(
    first: Iterable[Hashable], second: Iterable[Hashable], labels: Sequence[Hashable] | None = None
) -> pd.DataFrame:
    """Count how often two models gave each pair of labels.

    Parameters
    ----------
    first, second : iterable of hashable, of length n_bars
        Labels of the same bars in the same order. A missing one (None or NaN) is refused: drop the
        pair, or give an invalid answer a label of its own.
    labels : sequence of hashable, optional
        All labels, in the order of the rows and columns; by default those that occur, sorted.

    Returns
    -------
    pandas.DataFrame of shape (n_labels, n_labels)
        Counts; rows are the first model's labels, columns the second's.

    Raises
    ------
    ConfigError
        If one is no list of labels, such as a text.
    DataError
        If the lengths differ, a label is missing, or one is not among `labels`.

    Examples
    --------
    >>> table = agreement_matrix(["up", "up", "down"], ["up", "down", "down"])
    >>> table.to_numpy().tolist(), list(table.columns)
    ([[1, 0], [1, 1]], ['down', 'up'])
    """
    pairs = _label_pairs(first, second)
    order = _sorted_labels(pairs) if labels is None else _labels(labels, "labels")
    place = {label: i for i, label in enumerate(order)}
    if len(place) < len(order):
        raise DataError(f"labels {order}: expected each of them once")
    if unknown := {label for both in pairs for label in both if label not in place}:
        raise DataError(f"labels {sorted(map(str, unknown))} are not among the expected {in_short(order)}")
    counts = np.zeros((len(order), len(order)), dtype=np.int64)
    for row, column in pairs:
        counts[place[row], place[column]] += 1
    return pd.DataFrame(counts, index=pd.Index(order, name="first"), columns=pd.Index(order, name="second"))


def cohens_kappa(first: Any, second: Iterable[Hashable] | None = None) -> float:
    """Return how far two models agree beyond chance (Cohen, 1960).

    Parameters
    ----------
    first : iterable of hashable, or array_like of shape (n_labels, n_labels)
        Labels of the first model; or, without `second`, a table such as `agreement_matrix` makes.
    second : iterable of hashable, optional
        Labels of the second model on the same bars.

    Returns
    -------
    float
        ``(p_o - p_e) / (1 - p_e)``, with p_o the share of bars on which they agree and p_e the share
        expected of independent models with their frequencies: 1 for full agreement, 0 for chance,
        below 0 for less. Unweighted: up against down is no worse than up against neutral. NaN when
        both only ever gave one and the same label, where agreement says nothing.

    Raises
    ------
    DataError
        If the table is not square, empty or negative; or the labels are as in `agreement_matrix`.

    References
    ----------
    J. Cohen, "A Coefficient of Agreement for Nominal Scales", Educational and Psychological
    Measurement 20(1), 1960.

    Examples
    --------
    >>> round(cohens_kappa([[20, 5], [10, 15]]), 3)
    0.4
    >>> cohens_kappa(["up", "down", "up"], ["up", "down", "up"])
    1.0
    """
    table = finite(first if second is None else agreement_matrix(first, second), "table", ndim=2)
    total = float(table.sum())
    if table.shape[0] != table.shape[1] or total <= 0.0 or bool(np.any(table < 0.0)):
        raise DataError(
            f"table of shape {table.shape} with a sum of {total:g}: expected a square table of counts"
        )
    observed = float(np.trace(table)) / total
    expected = float(table.sum(axis=1) @ table.sum(axis=0)) / total**2
    return (observed - expected) / (1.0 - expected) if expected < 1.0 else math.nan


def brier_score(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Return the mean squared error of forecast probabilities (Brier, 1950).

    Parameters
    ----------
    probabilities : array_like of shape (n_bars, n_classes)
        Forecast probabilities; each row sums to 1.
    outcomes : array_like of shape (n_bars,)
        Column number of what happened, 0 to ``n_classes - 1``.

    Returns
    -------
    float
        ``mean over bars of the sum over classes of (p - o) ** 2``, with o 1 for what happened and
        0 for the rest: Brier's own definition, from 0 (perfect) to 2 (certain and wrong each
        time). For two classes it is twice the score that uses one class alone. Equal
        probabilities for three classes score 2/3.

    Raises
    ------
    DataError
        If the shapes do not fit, a row is not a distribution, or an outcome is not a column.

    References
    ----------
    G. W. Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather
    Review 78(1), 1950.

    Examples
    --------
    >>> round(brier_score([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]], [0, 2]), 4)
    0.92
    """
    p = distributions(probabilities, "probabilities")
    o = finite(outcomes, "outcomes")
    if len(p) != len(o):
        raise DataError(f"{len(p)} rows of probabilities and {len(o)} outcomes: expected as many")
    if not set(np.unique(o).tolist()) <= set(range(p.shape[1])):
        raise DataError(
            f"outcomes from {o.min():g} to {o.max():g}: expected whole numbers 0 to {p.shape[1] - 1}"
        )
    happened = np.eye(p.shape[1])[o.astype(np.intp)]
    return float(np.mean(np.sum((p - happened) ** 2, axis=1)))


def reliability_table(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Set a stated confidence against how often it was right, bin by bin.

    Parameters
    ----------
    confidence : array_like of shape (n_bars,)
        Confidence of each verdict, 0 to 1.
    correct : array_like of shape (n_bars,)
        Whether the verdict turned out right; 0 or 1.
    bins : int
        Number of bins of equal width from 0 to 1; each holds its upper edge and not its lower one,
        but for the first, which holds 0.

    Returns
    -------
    pandas.DataFrame of shape (bins, 5)
        Columns ``low``, ``high``, ``count``, ``mean_confidence`` and ``frequency`` (the share that was
        right), the last two NaN in an empty bin. A model whose confidence can be believed has
        the two equal.

    Raises
    ------
    ConfigError
        If there is not at least one bin.
    DataError
        If the lengths differ, or a value is out of range.

    References
    ----------
    A. Niculescu-Mizil and R. Caruana, "Predicting Good Probabilities with Supervised Learning",
    ICML 2005. The bins are those of ``sklearn.calibration.calibration_curve``.

    Examples
    --------
    >>> table = reliability_table([0.9, 0.8, 0.4], [True, False, False], bins=2)
    >>> table[["count", "mean_confidence", "frequency"]].to_numpy().round(2).tolist()
    [[1.0, 0.4, 0.0], [2.0, 0.85, 0.5]]
    """
    whole("bins", bins, 1, _MOST_BINS)
    stated, right = finite(confidence, "confidence"), finite(correct, "correct")
    if len(stated) != len(right):
        raise DataError(f"{len(stated)} confidences and {len(right)} outcomes: expected as many")
    if stated.min() < 0.0 or stated.max() > 1.0 or not set(np.unique(right).tolist()) <= {0.0, 1.0}:
        raise DataError("confidence and correct: expected numbers from 0 to 1, and zeros and ones")
    edges = np.linspace(0.0, 1.0, bins + 1)
    number = np.searchsorted(edges[1:-1], stated)
    count = np.bincount(number, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": count,
            "mean_confidence": np.bincount(number, weights=stated, minlength=bins) / filled,
            "frequency": np.bincount(number, weights=right, minlength=bins) / filled,
        }
    )


def _count(value: int, name: str) -> int:
    found = python_scalar(value)
    counted = int(found) if isinstance(found, float) and found.is_integer() else found
    return whole(name, counted, 0, _MOST_BARS, of=" of bars")


def _label_pairs(first: Iterable[Hashable], second: Iterable[Hashable]) -> list[tuple[Hashable, Hashable]]:
    one, two = _labels(first, "first"), _labels(second, "second")
    if len(one) != len(two):
        raise DataError(f"{len(one)} labels against {len(two)}: expected the same bars in both")
    missing = sum(label is None or label is pd.NA or label != label for label in [*one, *two])
    if missing:
        raise DataError(f"{missing} labels are missing: drop those pairs or give them a label of their own")
    return list(zip(one, two, strict=True))


def _labels(values: Iterable[Hashable], name: str) -> list[Hashable]:
    given = list(several(name, values, "labels"))
    try:
        set(given)
    except TypeError as error:
        raise DataError(f"{name}: expected labels such as texts, got something else ({error})") from None
    return given


def _sorted_labels(pairs: list[tuple[Hashable, Hashable]]) -> list[Any]:
    seen: set[Any] = {label for both in pairs for label in both}
    try:
        return sorted(seen)
    except TypeError:  # labels of several types, which only their names can order
        return sorted(seen, key=str)
