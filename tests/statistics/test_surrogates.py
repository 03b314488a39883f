"""Orders of bars for histories that never happened: what they keep, and what they lose."""

from __future__ import annotations

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.statistics import phase_order, stationary_order


def autocorrelation(values: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(values[lag:], values[:-lag])[0, 1])


def clustered(n: int, seed: int) -> np.ndarray:
    """Returns with an autocorrelation of about 0.4 at one bar, and volatility in clusters."""
    rng = np.random.default_rng(seed)
    level = np.exp(np.convolve(rng.normal(size=n + 200), np.full(200, 0.12), "valid")[:n])
    noise = rng.normal(size=n) * level
    return noise[1:] + 0.5 * noise[:-1]


def test_the_twin_keeps_every_bar_and_linear_memory_and_loses_the_clusters() -> None:
    moves = clustered(4000, 1)
    other = moves[phase_order(moves, seed=3)]
    assert np.array_equal(np.sort(other), np.sort(moves))
    assert autocorrelation(other, 1) == pytest.approx(autocorrelation(moves, 1), abs=0.08)
    assert abs(autocorrelation(other, 5)) < 0.08
    assert autocorrelation(np.abs(moves), 20) > 0.25
    assert abs(autocorrelation(np.abs(other), 20)) < 0.1


def test_the_bootstrap_keeps_blocks_of_the_stated_mean_length() -> None:
    order = stationary_order(np.arange(20_000.0), seed=5, block_length=25)
    assert 20_000 / np.sum(np.diff(order) % 20_000 != 1) == pytest.approx(25, rel=0.15)
    moves = clustered(4000, 2)
    other = moves[stationary_order(moves, seed=1, block_length=100)]
    assert autocorrelation(np.abs(other), 20) > 0.15  # clusters stay, within a block


def test_the_same_seed_gives_the_same_history_and_another_another() -> None:
    moves = clustered(300, 3)
    for order in (phase_order, stationary_order):
        assert np.array_equal(order(moves, seed=1), order(moves, seed=1))
        assert not np.array_equal(order(moves, seed=1), order(moves, seed=2))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"block_length=0\.5: expected a number of at least 1"):
        stationary_order(np.arange(9.0), seed=0, block_length=0.5)
    with pytest.raises(DataError, match="expected at least 2"):
        phase_order([1.0], seed=0)
