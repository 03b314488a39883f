"""The timing of many gated accounts at once, of which only the bars in a position are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bt_llm.statistics._inputs import Floats
from bt_llm.statistics._replay import Stretch
from bt_llm.statistics._timing import Legs

__all__ = ["ManyTimings"]

_CLOSE = 1e-6
"""Share of its parts below which a sum of squares is worked out bar by bar: rounding is of its parts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManyTimings:
    """Scores many accounts on the same bars as `timing_of` scores one.

    Attributes
    ----------
    lines : ndarray of shape (2, n_bars)
        What a long and a short position of the ungated account earn more than they do on average.
    rates : ndarray of shape (2,)
        What they earn on average, a unit of exposure.
    earned, exposed : ndarray of shape (2,)
        Means of what they earn, and of their exposures.
    largest : float
        The most that a bar earns.
    """

    lines: Floats
    rates: Floats
    earned: Floats
    exposed: Floats
    largest: float

    @classmethod
    def of(cls, ungated: Legs) -> ManyTimings:
        """Return what is the same of all accounts."""
        rows = ungated.rows
        earned, exposed = rows[:2].mean(axis=1), rows[3:].mean(axis=1)
        there = exposed > 1e-15
        rates = np.divide(earned, exposed, out=np.zeros(2), where=there)
        return cls(
            lines=(rows[:2] - rates[:, None] * rows[3:]) * there[:, None],
            rates=rates,
            earned=earned,
            exposed=np.where(there, exposed, np.inf),
            largest=float(np.abs(rows[:2]).max(initial=0.0)),
        )

    def scores(self, earned: Floats, exposures: Floats, stretch: Stretch, first: int) -> Floats:
        """Return the score of each account.

        Parameters
        ----------
        earned : ndarray of shape (n,)
            What its positions earned before costs, as a share of the account a bar before, by bar of
            `stretch`; on all others that is nothing.
        exposures : ndarray of shape (2, n)
            Values of its long and its short positions as shares of the account.
        stretch : Stretch
            Whose these are.
        first : int
            The bar, from 0, of the first return.
        """
        bars = self.lines.shape[1]
        shares = stretch.sums(exposures) / bars / self.exposed[:, None]
        value = stretch.sums(earned) / bars - self.earned @ shares
        places = stretch.place - first
        own = earned - self.rates @ exposures
        # The influence of each bar on the value; where there is no position it is that of the shares alone.
        base = stretch.sums(own) / bars - (self.lines.mean(axis=1) @ shares)
        other = stretch.of_each(-base)
        for line, share in zip(self.lines, shares, strict=True):
            other -= stretch.of_each(share) * line[places]
        crossed = self.lines @ self.lines.T
        sums = self.lines.sum(axis=1) @ shares
        alone = np.einsum("ik,ij,jk->k", shares, crossed, shares) + 2.0 * base * sums + bars * base**2
        squares = alone + stretch.sums(own * (own + 2.0 * other))
        for account in np.flatnonzero(squares < _CLOSE * alone):
            low, high = stretch.edges[account : account + 2]
            influence = -base[account] - shares[:, account] @ self.lines
            influence[places[low:high]] += own[low:high]
            squares[account] = influence @ influence
        error = np.sqrt(squares) / bars
        largest = np.maximum(self.largest, stretch.most(np.abs(earned), 0.0))
        scored = error > 1e-12 * largest
        found: Floats = np.divide(value, error, out=np.zeros(len(value)), where=scored)
        return found
