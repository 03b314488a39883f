from __future__ import annotations

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.statistics import joint_differences, sharpe_ratio, stationary_counts
from tests.panel_cases import correlated


def pairs(seed: int, bars: int = 250, count: int = 8, rho: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first, second = (0.01 * correlated(rng, bars, count, rho) for _ in range(2))
    return first, second


class TestEstimates:
    def test_they_are_the_differences_of_the_sharpe_ratios(self) -> None:
        first, second = pairs(0)
        found = joint_differences(first, second, block_length=3, n=99, periods_per_year=252)
        for column, one in enumerate(found):
            expected = sharpe_ratio(first[:, column], 252) - sharpe_ratio(second[:, column], 252)
            assert one.estimate == pytest.approx(expected)
            assert one.low < one.estimate < one.high

    def test_bars_that_a_symbol_lacks_have_no_part_in_it(self) -> None:
        first, second = pairs(1)
        first[:100, 2] = second[:100, 2] = np.nan
        found = joint_differences(first, second, "return", block_length=3, n=99)
        assert found[2].estimate == pytest.approx(first[100:, 2].mean() - second[100:, 2].mean())
        assert found[2].high - found[2].low > found[1].high - found[1].low

    def test_strategies_that_never_differ_have_a_point(self) -> None:
        first, second = pairs(2)
        second[:, 0] = first[:, 0]
        one = joint_differences(first, second, block_length=3, n=99)[0]
        assert (one.estimate, one.low, one.high, one.p_value) == (0.0, 0.0, 0.0, 1.0)


class TestTogether:
    def test_more_symbols_make_intervals_wider(self) -> None:
        first, second = pairs(3, count=20)
        alone = joint_differences(first[:, :1], second[:, :1], block_length=1, n=999)[0]
        among = joint_differences(first, second, block_length=1, n=999)[0]
        assert among.estimate == alone.estimate
        assert 1.2 < (among.high - among.low) / (alone.high - alone.low) < 2.0

    def test_some_symbol_of_eight_seems_better_by_chance_as_often_as_stated(self) -> None:
        shown = alone = 0
        for seed in range(60):
            first, second = pairs(seed)
            found = joint_differences(first, second, block_length=1, n=99, seed=seed)
            shown += any(one.low > 0.0 or one.high < 0.0 for one in found)
            singles = [
                joint_differences(first[:, [k]], second[:, [k]], block_length=1, n=99)[0] for k in range(8)
            ]
            alone += any(one.low > 0.0 or one.high < 0.0 for one in singles)
        assert shown / 60 <= 0.12
        assert alone / 60 >= 0.2  # judged one by one they would be called different far too often

    def test_one_that_is_better_is_named(self) -> None:
        first, second = pairs(4)
        first[:, 5] += 0.004
        found = joint_differences(first, second, "return", block_length=1, n=199)
        assert [place for place, one in enumerate(found) if one.low > 0.0] == [5]
        assert found[5].p_value == pytest.approx(1 / 200)


class TestCounts:
    def test_blocks_are_as_long_as_asked(self) -> None:
        counts = stationary_counts(400, 20, 50, np.random.default_rng(0))
        assert (counts.sum(axis=1) == 400).all()
        changes = np.abs(np.diff(counts, axis=1)).sum(axis=1).mean()
        assert 25 < changes < 45  # each of some 20 blocks begins and ends somewhere

    def test_the_same_seed_gives_the_same(self) -> None:
        one, two = (stationary_counts(30, 4, 3, np.random.default_rng(7)) for _ in range(2))
        assert np.array_equal(one, two)


class TestRefused:
    def test_series_of_other_bars(self) -> None:
        first, second = pairs(0)
        with pytest.raises(DataError, match=r"expected \(n_bars, n_pairs\) twice"):
            joint_differences(first, second[1:], block_length=1)
        second[3, 0] = np.nan
        with pytest.raises(DataError, match="in one series of a pair only"):
            joint_differences(first, second, block_length=1)
        first[:, 0] = second[:, 0] = np.nan
        with pytest.raises(DataError, match="fewer than two bars"):
            joint_differences(first, second, block_length=1)

    def test_settings_out_of_range(self) -> None:
        with pytest.raises(ConfigError, match=r"an interval of 0\.95 needs at least 19"):
            joint_differences(*pairs(0), block_length=1, n=9)
        with pytest.raises(ConfigError, match="block_length=0: expected 1 to the 250 bars"):
            joint_differences(*pairs(0), block_length=0)
