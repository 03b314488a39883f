"""Orders of bars for histories that never happened: in blocks, and with the same linear autocorrelation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bt_llm.settings import number, whole
from bt_llm.statistics._blocks import automatic_block_length
from bt_llm.statistics._inputs import finite

__all__ = ["phase_order", "stationary_order"]

_ROUNDS = 100
"""Of the phase-randomised twin, at most: the spectrum is off by little after a few."""


def stationary_order(
    returns: ArrayLike, *, seed: int, block_length: float | None = None
) -> NDArray[np.int64]:
    """Return the places of bars in a resample by blocks of random length, mean `block_length`.

    Parameters
    ----------
    returns : array of shape (bars,)
        Of the bars.
    seed : int
        Where chance comes from.
    block_length : float, optional
        In bars, 1 or more; by default by Politis and White's rule, from returns and their squares.

    Notes
    -----
    A block begins anywhere, goes on with a chance of ``1 - 1 / block_length`` at each bar, and goes round the
    end, so that the resampled history is stationary. Bars may come several times or not at all.

    References
    ----------
    D. N. Politis, J. P. Romano, "The Stationary Bootstrap", Journal of the American Statistical Association
    89, 1994.

    Examples
    --------
    >>> order = stationary_order(np.arange(1000.0), seed=1, block_length=20)
    >>> len(order), 930 < int(np.sum(np.diff(order) == 1)) < 970
    (1000, True)
    """
    moves = finite(returns, "returns", minimum=2)
    length = (
        float(automatic_block_length(moves[:, None]))
        if block_length is None
        else number("block_length", block_length, 1)
    )
    rng, n = np.random.default_rng(whole("seed", seed, 0)), len(moves)
    begins = rng.random(n) < 1.0 / length
    begins[0] = True
    block = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    starts = rng.integers(0, n, len(first))
    found: NDArray[np.int64] = (starts[block] + np.arange(n) - first[block]) % n
    return found


def phase_order(returns: ArrayLike, *, seed: int) -> NDArray[np.int64]:
    """Return an order of bars with nearly the linear autocorrelation of the real one, and nothing else of it.

    Parameters
    ----------
    returns : array of shape (bars,)
        Of the bars.
    seed : int
        Where chance comes from.

    Notes
    -----
    The iterated amplitude-adjusted Fourier transform: from a random order, the amplitudes of all frequencies
    are made those of the real returns, with the phases that there are, and the bars are put into the order of
    the ranks that come of it, until nothing changes. Every bar comes once, so that the distribution of
    returns and their sum are kept exactly, and the spectrum nearly.

    References
    ----------
    T. Schreiber, A. Schmitz, "Improved Surrogate Data for Nonlinearity Tests", Physical Review Letters 77,
    1996.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.normal(size=4001)
    >>> moves = noise[1:] + 0.5 * noise[:-1]
    >>> order = phase_order(moves, seed=1)
    >>> other = moves[order]
    >>> round(float(np.corrcoef(other[1:], other[:-1])[0, 1]), 1), sorted(order) == list(range(4000))
    (0.4, True)
    """
    moves = finite(returns, "returns", minimum=2)
    rng, n = np.random.default_rng(whole("seed", seed, 0)), len(moves)
    places = np.argsort(moves, kind="stable")
    amplitudes = np.abs(np.fft.rfft(moves))
    found: NDArray[np.int64] = rng.permutation(n)
    for _ in range(_ROUNDS):
        phases = np.angle(np.fft.rfft(moves[found]))
        wanted = np.fft.irfft(amplitudes * np.exp(1j * phases), n)
        order = places[np.argsort(np.argsort(wanted, kind="stable"), kind="stable")]
        if np.array_equal(order, found):
            break
        found = order
    return found
