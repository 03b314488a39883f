"""Figures of a tear sheet: by hand, against scipy and pandas, and against Backtrader's own analyzer."""

from __future__ import annotations

import itertools
import math

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bt_llm import statistics
from bt_llm.exceptions import DataError
from tests.engines import walk

RNG = np.random.default_rng(7)
RETURNS, BENCHMARK = 0.01 * RNG.standard_normal((2, 500))


def test_growth_compounds_to_the_return() -> None:
    curve = 100.0 * np.cumprod(1.0 + RETURNS)
    growth = statistics.annual_growth(curve, 252.0)
    assert (1.0 + growth) ** (499 / 252) == pytest.approx(curve[-1] / curve[0])


def test_calmar_is_growth_over_the_deepest_drawdown() -> None:
    curve = 100.0 * np.cumprod(1.0 + RETURNS)
    growth, deepest = statistics.annual_growth(curve, 252.0), statistics.drawdowns(curve)[0]
    assert statistics.calmar_ratio(curve, 252.0) == pytest.approx(growth / deepest.depth)


def test_a_ruined_account_has_no_growth() -> None:
    with pytest.raises(DataError, match="ruined"):
        statistics.annual_growth([100.0, -1.0, 50.0], 252.0)


def test_alpha_beta_and_correlation_are_those_of_a_regression() -> None:
    found, line = statistics.market_model(RETURNS, BENCHMARK, 252.0), stats.linregress(BENCHMARK, RETURNS)
    assert found.beta == pytest.approx(line.slope)
    assert found.alpha == pytest.approx(252.0 * line.intercept)
    assert found.correlation == pytest.approx(line.rvalue)


def test_a_benchmark_that_stands_still_has_no_beta() -> None:
    with pytest.raises(DataError, match="never varies"):
        statistics.market_model(RETURNS, np.zeros(500))


def test_volatility_is_that_of_pandas() -> None:
    assert statistics.volatility(RETURNS, 252.0) == pytest.approx(pd.Series(RETURNS).std() * math.sqrt(252.0))


@given(st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=60))
def test_the_deepest_drawdown_is_the_maximum_and_none_overlap(curve: list[float]) -> None:
    found = statistics.drawdowns(curve)
    assert statistics.max_drawdown(curve) == pytest.approx(found[0].depth if found else 0.0)
    spans = sorted((one.peak, len(curve) if one.recovered is None else one.recovered) for one in found)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for one in found:
        assert curve[one.trough] == pytest.approx(curve[one.peak] * (1.0 - one.depth))
        assert one.recovered is None or curve[one.recovered] >= curve[one.peak]


@pytest.mark.parametrize(
    ("results", "factor", "expected"),
    [([], math.nan, math.nan), ([5.0], math.inf, 5.0), ([6.0, -2.0, -1.0], 2.0, 1.0), ([-4.0], 0.0, -4.0)],
)
def test_profit_factor_and_expectancy(results: list[float], factor: float, expected: float) -> None:
    assert statistics.profit_factor(results) == pytest.approx(factor, nan_ok=True)
    assert statistics.expectancy(results) == pytest.approx(expected, nan_ok=True)


class Turns(bt.Strategy):
    """Holds for three bars, and rests for two."""

    def next(self) -> None:
        if len(self) % 5 == 0:
            self.buy()
        elif len(self) % 5 == 3 and self.position:
            self.close()


def test_the_system_quality_number_is_backtraders() -> None:
    cerebro = bt.Cerebro()
    cerebro.adddata(bt.feeds.PandasData(dataname=walk(200, seed=5)))
    cerebro.addstrategy(Turns)
    cerebro.addanalyzer(bt.analyzers.SQN, _name="sqn")
    cerebro.addanalyzer(bt.analyzers.Transactions, _name="fills")
    (strategy,) = cerebro.run()
    told = strategy.analyzers.sqn.get_analysis()
    prices = [row[0][1] for row in strategy.analyzers.fills.get_analysis().values()]
    results = [sold - bought for bought, sold in zip(prices[::2], prices[1::2], strict=False)]
    assert len(results) == told["trades"] > 20
    assert statistics.system_quality_number(results) == pytest.approx(told["sqn"])
