"""The one question of a walk-forward study."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bt_llm.backtest import Primary
from bt_llm.research.walk_forward._question import sharpe_question
from bt_llm.statistics import deflated_sharpe_ratio

RETURNS = np.random.default_rng(1).normal(0.0006, 0.01, 1000)


def asked(trades: float = 40.0, ratios: tuple[float, ...] = (0.0, 0.02, 0.05)) -> Primary:
    deflated = deflated_sharpe_ratio(RETURNS, list(ratios))
    return sharpe_question(RETURNS, deflated, n_trials=len(ratios), trades=trades, periods_per_year=250.0)


def test_p_is_what_the_deflated_sharpe_ratio_leaves() -> None:
    question = asked()
    assert question.p_value == 1.0 - deflated_sharpe_ratio(RETURNS, [0.0, 0.02, 0.05])
    assert question.smallest == 0.0
    assert "as the best of 3 configurations tried" in question.sentence


def test_a_few_trades_cannot_tell() -> None:
    question = asked(trades=9.0)
    assert question.found is None
    assert "the record has 9 trades, and at least 10 are needed" in question.sentence


def test_a_sharpe_ratio_without_meaning_cannot_tell() -> None:
    question = sharpe_question(RETURNS, math.nan, n_trials=2, trades=50.0, periods_per_year=250.0)
    assert question.found is None


def test_what_would_have_been_found_is_over_the_best_of_the_trials() -> None:
    one, many = asked(ratios=(0.0,)), asked(ratios=(-0.05, 0.0, 0.05, 0.1))
    assert one.detectable is not None
    assert many.detectable is not None
    assert one.detectable == pytest.approx(2.487 / math.sqrt(1000 / 250), rel=0.02)
    assert many.detectable > one.detectable + 0.5
    assert many.sentence.endswith("in Sharpe ratio would have been found in 4 of 5 such tests.")
