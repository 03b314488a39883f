"""Random orders that keep runs, strata and blocks."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.statistics import log_arrangements, permute_blocks, permute_runs, volatility_strata


def test_answers_stay_in_their_stratum() -> None:
    rng = np.random.default_rng(0)
    answers, strata = rng.integers(0, 2, 200), rng.integers(0, 4, 200)
    found = permute_runs(answers, np.random.default_rng(1), strata)
    assert found.tolist() != answers.tolist()
    for label in range(4):
        assert found[strata == label].sum() == answers[strata == label].sum()
    with pytest.raises(DataError, match="expected one label for each of 200 answers"):
        permute_runs(answers, rng, strata[:-1])


def test_as_many_orders_are_drawn_as_are_counted() -> None:
    answers, strata = [1, 0, 1, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1]
    drawn = {permute_runs(answers, np.random.default_rng(s), strata).tobytes() for s in range(2000)}
    assert len(drawn) == round(math.exp(log_arrangements(answers, strata))) == 16


def test_all_symbols_of_a_date_move_together() -> None:
    dates = np.repeat(["jan", "feb", "mar", "apr"], 3)
    values = np.arange(12)
    one, other = (permute_blocks(dates, np.random.default_rng(5)) for _ in range(2))
    assert one.tolist() == other.tolist()  # the same dates, the same chance: the same order in every symbol
    moved = values[one].reshape(4, 3)
    assert sorted(map(tuple, moved.tolist())) == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    drawn = Counter(permute_blocks(dates, np.random.default_rng(s)).tobytes() for s in range(2400))
    assert len(drawn) == 24
    assert max(abs(count - 100) for count in drawn.values()) < 45


def test_blocks_change_places_within_their_stratum_only() -> None:
    blocks, quiet = np.repeat(np.arange(6), 2), np.repeat([0, 1, 0, 1, 0, 1], 2)
    for seed in range(20):
        assert quiet[permute_blocks(blocks, np.random.default_rng(seed), quiet)].tolist() == quiet.tolist()


def test_strata_are_the_size_of_returns_known_at_the_close() -> None:
    rng = np.random.default_rng(0)
    closes = 100.0 * np.cumprod(1.0 + rng.normal(0.0, np.repeat([0.001, 0.02, 0.005], 200)))
    groups = volatility_strata(closes, 3, first=20)
    assert [int(np.median(groups[at : at + 150])) for at in (40, 240, 440)] == [0, 2, 1]
    assert np.bincount(groups[20:]).tolist() == pytest.approx([193, 193, 194], abs=2)
    # What comes later does not move a bar's own size, only where the groups part.
    assert volatility_strata(closes, 1).tolist() == [0] * 600
    with pytest.raises(ConfigError, match="groups=0: expected 1 to 255"):
        volatility_strata(closes, 0)
