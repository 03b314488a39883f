"""Probability of backtest overfitting, by combinatorially symmetric cross-validation."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.settings import in_short, python_scalar
from bt_llm.statistics._inputs import Floats, choose, finite

__all__ = ["OverfittingResult", "Statistic", "probability_of_backtest_overfitting"]

_MAX_SPLITS = 20
_CELLS = 2_000_000  # of one intermediate array: 16 MB


class Statistic(enum.StrEnum):
    """What two return series, or many trials, are compared by."""

    SHARPE = "sharpe"
    RETURN = "return"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverfittingResult:
    """What cross-validation says of choosing the best of several trials.

    Parameters
    ----------
    logits : ndarray of shape (n_combinations,)
        Logit of the relative out-of-sample rank of the trial that was best in sample; below zero
        where it did worse than the median. Entry i belongs to the i-th of
        ``itertools.combinations(range(n_splits), n_splits // 2)`` as the in-sample blocks.
    in_sample, out_of_sample : ndarray of shape (n_combinations,)
        What that trial scored on either half, per bar.
    n_trials, n_splits : int
        Columns of the matrix, and blocks of bars it was cut into.
    statistic : Statistic
        What the trials were ranked by.
    """

    logits: Floats
    in_sample: Floats
    out_of_sample: Floats
    n_trials: int
    n_splits: int
    statistic: Statistic

    @property
    def pbo(self) -> float:
        """Share of combinations with a logit below zero, 0 to 1; about 0.5 for pure noise."""
        return float(np.mean(self.logits < 0.0))

    @property
    def loss_probability(self) -> float:
        """Share of combinations in which the trial that was best in sample lost out of sample."""
        return float(np.mean(self.out_of_sample < 0.0))


def probability_of_backtest_overfitting(
    matrix: ArrayLike, n_splits: int = 16, statistic: str = Statistic.SHARPE
) -> OverfittingResult:
    """Return how often the best trial in sample is worse than the median out of sample (PBO).

    The bars are cut into `n_splits` blocks in time order. Every half of the blocks serves once as
    in-sample, with the other half as out-of-sample, so that both have the same length and each bar
    plays both parts equally often.

    Parameters
    ----------
    matrix : array_like of shape (n_bars, n_trials)
        Simple returns per bar, one column a trial, all on the same bars. At least two trials, and
        two bars a block. Where the bars do not divide evenly, the first blocks hold one more.
    n_splits : int
        Number of blocks: even, 2 to 20. The default of 16 makes 12,870 combinations.
    statistic : {'sharpe', 'return'}
        What the trials are ranked by: the Sharpe ratio (ddof 1) or the mean return. A trial that
        never varies within a half has a Sharpe ratio of 0 there: it stayed in cash.

    Returns
    -------
    OverfittingResult
        With the logits, and ``.pbo``.

    Raises
    ------
    ConfigError
        If `n_splits` is odd or out of range, or the statistic is unknown.
    DataError
        If there are too few trials or bars, or a return is not finite.

    Notes
    -----
    *Ties.* Trials that tie out of sample share their average rank. Where several tie for the best
    in sample, the mean of their out-of-sample ranks is taken, so that the order of the columns
    plays no part. A logit of exactly zero (the median itself) is not counted as overfitting.

    The relative rank is ``rank / (n_trials + 1)``, 1 for the worst, so that the logit is finite.
    Agrees with ``purgedcv.probability_of_backtest_overfitting`` without purging, except that
    purgedcv takes the first of several that tie for the best in sample, and lists the
    combinations the other way round.

    References
    ----------
    D. H. Bailey, J. M. Borwein, M. López de Prado and Q. J. Zhu, "The Probability of Backtest
    Overfitting", Journal of Computational Finance 20(4), 2017.

    Examples
    --------
    One trial that earns on every bar, and four of noise: the choice holds up.

    >>> returns = np.random.default_rng(0).normal(0.0, 0.01, size=(400, 5))
    >>> returns[:, 3] += 0.01
    >>> probability_of_backtest_overfitting(returns, n_splits=8).pbo
    0.0
    """
    returns = _checked(matrix, n_splits)
    chosen = choose(Statistic, statistic, "statistic")
    blocks = _Blocks.of(returns, n_splits)
    parts = [_judge(blocks, chosen, half) for half in _halves(n_splits, rows=_CELLS // returns.shape[1] + 1)]
    logits, inside, outside = (np.concatenate(part) for part in zip(*parts, strict=True))
    return OverfittingResult(
        logits=logits,
        in_sample=inside,
        out_of_sample=outside,
        n_trials=returns.shape[1],
        n_splits=n_splits,
        statistic=chosen,
    )


def _checked(matrix: ArrayLike, n_splits: int) -> Floats:
    if type(python_scalar(n_splits)) is not int or n_splits % 2 or not 2 <= n_splits <= _MAX_SPLITS:
        raise ConfigError(f"n_splits={in_short(n_splits)}: expected an even number from 2 to {_MAX_SPLITS}")
    returns = finite(matrix, "matrix", ndim=2)
    n_bars, n_trials = returns.shape
    if n_trials < 2:
        raise DataError(f"matrix of shape {returns.shape}: expected at least 2 trials, one a column")
    if n_bars < 2 * n_splits:
        raise DataError(
            f"matrix of shape {returns.shape}: {n_splits} blocks need at least {2 * n_splits} bars, one a row"
        )
    return returns


def _halves(n_splits: int, rows: int) -> Iterator[NDArray[np.bool_]]:
    """Yield every choice of half the blocks as rows of masks, a few thousand at a time."""
    combinations = itertools.combinations(range(n_splits), n_splits // 2)
    while chunk := list(itertools.islice(combinations, rows)):
        masks = np.zeros((len(chunk), n_splits), dtype=bool)
        np.put_along_axis(masks, np.array(chunk), True, axis=1)
        yield masks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    """What is known of each block: enough to put the moments of any union of them together."""

    sizes: Floats  # (n_splits,)
    totals: Floats  # (n_splits, n_trials), as are the rest
    squares: Floats
    lows: Floats
    highs: Floats
    shift: Floats  # (n_trials,), taken off before squaring so that no digits cancel

    @classmethod
    def of(cls, returns: Floats, n_splits: int) -> _Blocks:
        shift = returns.mean(axis=0)
        parts = np.array_split(returns - shift, n_splits)
        raw = np.array_split(returns, n_splits)
        return cls(
            sizes=np.array([float(len(part)) for part in parts]),
            totals=np.stack([part.sum(axis=0) for part in parts]),
            squares=np.stack([np.square(part).sum(axis=0) for part in parts]),
            lows=np.stack([part.min(axis=0) for part in raw]),
            highs=np.stack([part.max(axis=0) for part in raw]),
            shift=shift,
        )

    def score(self, halves: NDArray[np.bool_], statistic: Statistic) -> Floats:
        """Score each trial on each union of blocks; shape (n_combinations, n_trials)."""
        # Block by block, not as one matrix product: a product may round two equal columns
        # differently, and then trials that tie would no longer do so.
        shape = (len(halves), len(self.shift))
        total, square = np.zeros(shape), np.zeros(shape)
        low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
        for block, member in enumerate(halves.T):
            total[member] += self.totals[block]
            square[member] += self.squares[block]
            low[member] = np.minimum(low[member], self.lows[block])
            high[member] = np.maximum(high[member], self.highs[block])
        n = (halves @ self.sizes)[:, None]
        # Trials that stay in cash have to tie, whatever rounding their other bars leave behind.
        varies = high > low
        mean = np.where(varies, total / n + self.shift, low)
        if statistic is Statistic.RETURN:
            return mean
        variance = np.maximum(square - total**2 / n, 0.0) / (n - 1.0)
        return np.divide(mean, np.sqrt(variance), out=np.zeros(shape), where=varies & (variance > 0.0))


def _judge(blocks: _Blocks, statistic: Statistic, inside: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return the logit, the in-sample and the out-of-sample score of the best of each combination."""
    scores, later = blocks.score(inside, statistic), blocks.score(~inside, statistic)
    winners = scores == scores.max(axis=1, keepdims=True)
    ranks = pd.DataFrame(later).rank(axis=1).to_numpy()
    count = winners.sum(axis=1)
    rank = (ranks * winners).sum(axis=1) / count
    return (
        np.log(rank / (scores.shape[1] + 1.0 - rank)),
        scores.max(axis=1),
        (later * winners).sum(axis=1) / count,
    )
