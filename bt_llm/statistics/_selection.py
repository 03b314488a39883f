"""Whether a Sharpe ratio is more than luck, given its length, its tails and the number of trials.

Every Sharpe ratio in this module is per bar, never annualised: the formulas count bars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bt_llm.equality import nan_equal
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.settings import number, python_scalar, whole
from bt_llm.statistics._inputs import as_floats, between, finite, normal_cdf, normal_quantile
from bt_llm.statistics._performance import is_flat

__all__ = [
    "ReturnMoments",
    "deflated_sharpe_ratio",
    "expected_max_sharpe",
    "min_track_record_length",
    "probabilistic_sharpe_ratio",
]


@nan_equal
@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnMoments:
    """The four numbers of a track record that its Sharpe ratio's standard error depends on.

    Parameters
    ----------
    n : int
        Number of returns, at least two.
    sharpe : float
        Sharpe ratio per bar; NaN for returns that never vary.
    skew : float
        Third standardised moment; 0 for a normal distribution.
    kurtosis : float
        Fourth standardised moment, *not* in excess of 3; 3 for a normal distribution.

    Raises
    ------
    ConfigError
        If `n` is below two, or the kurtosis is below ``1 + skew ** 2``, which no distribution has.

    Examples
    --------
    >>> ReturnMoments(n=24, sharpe=0.458).kurtosis
    3.0
    >>> m = ReturnMoments.of([0.01, 0.02, -0.01, 0.03])
    >>> round(m.sharpe, 4), round(m.skew, 4), round(m.kurtosis, 4)
    (0.7319, -0.4347, 1.8457)
    """

    n: int
    sharpe: float
    skew: float = 0.0
    kurtosis: float = 3.0

    def __post_init__(self) -> None:
        """Check that some distribution can have these moments."""
        object.__setattr__(self, "n", whole("n", self.n, 2, of=" of returns"))
        for name in ("sharpe", "skew", "kurtosis"):
            found = python_scalar(getattr(self, name))
            flat = isinstance(found, float) and math.isnan(found)
            object.__setattr__(self, name, math.nan if flat else number(name, found))
        floor = 1.0 + self.skew**2
        if self.kurtosis < floor * (1.0 - 1e-9):
            raise ConfigError(
                f"kurtosis {self.kurtosis:g} with skew {self.skew:g}: no distribution has less than "
                f"1 + skew**2 = {floor:g}; if it is the excess over a normal's, add 3"
            )

    @classmethod
    def of(cls, returns: ArrayLike) -> ReturnMoments:
        """Estimate the moments from returns per bar.

        The Sharpe ratio is `sharpe_ratio` (ddof 1); skew and kurtosis are the plain moment ratios,
        without correction for bias. All three are NaN for returns that never vary.

        Raises
        ------
        DataError
            If there are fewer than two returns, or one is not finite.
        """
        r = finite(returns, "returns", minimum=2)
        deviation = float(r.std())
        if is_flat(r) or deviation == 0.0:
            return cls(n=len(r), sharpe=math.nan, skew=math.nan, kurtosis=math.nan)
        z = (r - r.mean()) / deviation
        return cls(
            n=len(r),
            sharpe=float(r.mean() / r.std(ddof=1)),
            skew=float(np.mean(z**3)),
            kurtosis=float(np.mean(z**4)),
        )

    @property
    def dispersion(self) -> float:
        """``1 - skew * SR + (kurtosis - 1) / 4 * SR ** 2``: (n - 1) times the variance of the estimate."""
        spread = 1.0 - self.skew * self.sharpe + (self.kurtosis - 1.0) / 4.0 * self.sharpe**2
        if spread <= 1e-12:
            raise DataError(
                f"returns with skew {self.skew:g}, kurtosis {self.kurtosis:g} and a Sharpe ratio of "
                f"{self.sharpe:g} a bar leave no sampling error: the normal approximation does not hold"
            )
        return spread


def probabilistic_sharpe_ratio(returns: ArrayLike | ReturnMoments, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio exceeds a benchmark (PSR).

    Parameters
    ----------
    returns : array_like of shape (n_bars,), or ReturnMoments
        Simple returns per bar, or their moments where those are all that is known.
    benchmark : float
        Sharpe ratio to exceed, per bar.

    Returns
    -------
    float
        ``cdf((SR - benchmark) * sqrt(n - 1) / sqrt(1 - skew * SR + (kurtosis - 1) / 4 * SR ** 2))``,
        0 to 1; NaN for returns that never vary.

    Raises
    ------
    DataError
        If there are fewer than two returns, one is not finite, or they take two values so lopsided
        that the standard error vanishes.

    Notes
    -----
    The estimators are those of `ReturnMoments.of`, as in ``skfolio.measures``, and agree with it.
    ``purgedcv`` divides by the population's deviation and corrects skew and kurtosis for bias;
    given those moments, this function returns its value.

    References
    ----------
    D. H. Bailey and M. López de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk
    15(2), 2012.

    Examples
    --------
    The hedge fund of the article: two years of months, a Sharpe ratio of 0.458 a month. Its tails
    take it below the 95% that it would have with normal returns.

    >>> round(probabilistic_sharpe_ratio(ReturnMoments(n=24, sharpe=0.458)), 3)
    0.982
    >>> fund = ReturnMoments(n=24, sharpe=0.458, skew=-2.448, kurtosis=10.164)
    >>> round(probabilistic_sharpe_ratio(fund), 3)
    0.913
    """
    m = _moments(returns)
    against = number("benchmark", benchmark)
    if math.isnan(m.sharpe):
        return math.nan
    return normal_cdf((m.sharpe - against) * math.sqrt((m.n - 1) / m.dispersion))


def expected_max_sharpe(n_trials: float, variance: float, mean: float = 0.0) -> float:
    """Return the Sharpe ratio that the best of many trials without skill is expected to show.

    Parameters
    ----------
    n_trials : float
        Number of independent trials, at least 1. Similar parameters make correlated trials; an
        estimate of the effective number need not be whole.
    variance : float
        Variance of the trials' Sharpe ratios, per bar.
    mean : float
        Their mean under the hypothesis of no skill.

    Returns
    -------
    float
        ``mean + sqrt(variance) * ((1 - g) * q(1 - 1 / N) + g * q(1 - 1 / (N * e)))`` with g the
        Euler-Mascheroni constant and q the normal quantile, per bar; never below `mean`, where the
        approximation falls for fewer than about 1.3 trials. One trial has no selection in it: `mean`.

    Raises
    ------
    ConfigError
        If there is less than one trial, or the variance is negative or not finite.

    References
    ----------
    D. H. Bailey and M. López de Prado, "The Deflated Sharpe Ratio: Correcting for Selection Bias,
    Backtest Overfitting and Non-Normality", Journal of Portfolio Management 40(5), 2014.

    Examples
    --------
    >>> round(expected_max_sharpe(100, variance=0.5 / 250), 4)
    0.1132
    """
    n_trials = number("n_trials", n_trials, 1, of=" of trials")
    variance, mean = number("variance", variance, 0), number("mean", mean)
    if n_trials == 1:
        return mean
    gamma = float(np.euler_gamma)
    # q(1 - p) = -q(p), which keeps its digits when there are very many trials.
    z = -(1.0 - gamma) * normal_quantile(1.0 / n_trials) - gamma * normal_quantile(1.0 / (n_trials * math.e))
    return mean + math.sqrt(variance) * max(z, 0.0)


def deflated_sharpe_ratio(
    returns: ArrayLike | ReturnMoments,
    trial_sharpes: ArrayLike | None = None,
    *,
    n_trials: float | None = None,
    variance: float | None = None,
) -> float:
    """Return the probability that the best of many trials has skill (DSR).

    Parameters
    ----------
    returns : array_like of shape (n_bars,), or ReturnMoments
        Simple returns per bar of the trial that was chosen, or their moments.
    trial_sharpes : array_like of shape (n_trials,), optional
        Sharpe ratios per bar of *all* trials, the chosen one among them. A NaN (a trial that never
        traded) counts as a trial, because it was tried, and is left out of the variance.
    n_trials, variance : float, optional
        Instead of `trial_sharpes`: their number, and the variance of their Sharpe ratios per bar.
        A variance of annualised ratios has to be divided by the bars in a year.

    Returns
    -------
    float
        `probabilistic_sharpe_ratio` against `expected_max_sharpe`, 0 to 1. The variance of
        `trial_sharpes` is taken with ddof 1.

    Raises
    ------
    ConfigError
        Unless either `trial_sharpes`, or both `n_trials` and `variance`, are given.
    DataError
        If there are several trials and fewer than two of them have a Sharpe ratio.

    Notes
    -----
    Agrees with ``skfolio.measures.deflated_sharpe_ratio``, which drops NaN trials from the count
    too, and with ``purgedcv.deflated_sharpe_ratio`` given the moments that it estimates.

    References
    ----------
    D. H. Bailey and M. López de Prado, "The Deflated Sharpe Ratio: Correcting for Selection Bias,
    Backtest Overfitting and Non-Normality", Journal of Portfolio Management 40(5), 2014.

    Examples
    --------
    The example of the article: an annualised 2.5 over five years of days, the best of 100 trials,
    is not significant at 95%. The best of 46 would have been.

    >>> best = ReturnMoments(n=1250, sharpe=2.5 / 250**0.5, skew=-3.0, kurtosis=10.0)
    >>> round(deflated_sharpe_ratio(best, n_trials=100, variance=0.5 / 250), 4)
    0.9004
    >>> round(deflated_sharpe_ratio(best, n_trials=46, variance=0.5 / 250), 4)
    0.9505
    """
    if trial_sharpes is not None and n_trials is None and variance is None:
        n_trials, variance = _spread_of(trial_sharpes)
    elif trial_sharpes is not None or n_trials is None or variance is None:
        raise ConfigError(
            "deflated_sharpe_ratio: expected either trial_sharpes, or both n_trials and variance"
        )
    return probabilistic_sharpe_ratio(returns, benchmark=expected_max_sharpe(n_trials, variance))


def min_track_record_length(
    returns: ArrayLike | ReturnMoments, benchmark: float = 0.0, confidence: float = 0.95
) -> float:
    """Return how many bars it takes to believe a Sharpe ratio (MinTRL).

    Parameters
    ----------
    returns : array_like of shape (n_bars,), or ReturnMoments
        Simple returns per bar, or their moments; their number plays no part.
    benchmark : float
        Sharpe ratio to exceed, per bar.
    confidence : float
        Probability to reach, between 0.5 and 1.

    Returns
    -------
    float
        Bars, not rounded, at which `probabilistic_sharpe_ratio` would equal `confidence` if the
        moments stayed as they are. Infinite when the Sharpe ratio does not exceed the benchmark;
        NaN for returns that never vary.

    Raises
    ------
    ConfigError
        If the confidence is out of range.

    Notes
    -----
    ``purgedcv.min_track_record_length`` rounds up.

    References
    ----------
    D. H. Bailey and M. López de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk
    15(2), 2012.

    Examples
    --------
    The article: to tell an annualised 2 from 1 takes 2.73 years of days, 3.24 of months.

    >>> day = ReturnMoments(n=2, sharpe=2 / 252**0.5)
    >>> round(min_track_record_length(day, benchmark=1 / 252**0.5) / 252, 2)
    2.73
    """
    m = _moments(returns)
    z = normal_quantile(between(confidence, 0.5, 1.0, "confidence"))
    benchmark = number("benchmark", benchmark)
    if math.isnan(m.sharpe):
        return math.nan
    if m.sharpe <= benchmark:
        return math.inf
    return 1.0 + m.dispersion * (z / (m.sharpe - benchmark)) ** 2


def _moments(returns: ArrayLike | ReturnMoments) -> ReturnMoments:
    return returns if isinstance(returns, ReturnMoments) else ReturnMoments.of(returns)


def _spread_of(trial_sharpes: ArrayLike) -> tuple[int, float]:
    sharpes = as_floats(trial_sharpes, "trial_sharpes", ndim=1)
    known = sharpes[~np.isnan(sharpes)]
    if len(known):
        finite(np.where(np.isfinite(known), known, 0.0), "trial_sharpes")
    if len(sharpes) == 1:
        return 1, 0.0
    if len(known) < 2 or not np.all(np.isfinite(known)):
        raise DataError(
            f"trial_sharpes: {len(sharpes)} trials with {np.isfinite(known).sum()} finite and "
            f"{np.isinf(known).sum()} infinite ratios; expected at least 2 finite ones and no infinity"
        )
    return len(sharpes), float(known.var(ddof=1))
