from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss

from bt_llm.advice import Advisor, AdvisorConfig, Usage
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import AlwaysOpen, Gate
from bt_llm.research import judge
from bt_llm.research._scoring import Judged, _memory_mb, model_cost, outcomes, score
from tests.engines import walk
from tests.research_cases import gate_of, regimes

NAN = math.nan


def judged_of(rows: list[tuple[Any, ...]], horizon: int = 1) -> Judged:
    names = ["answer", "confidence", "bullish", "neutral", "bearish", "outcome", "right"]
    frame = pd.DataFrame(rows, columns=names, index=pd.date_range("2020-01-01", periods=len(rows)))
    worths = {"bullish": 1.0, "neutral": 0.0, "bearish": -1.0, "invalid": NAN}
    frame["worth"] = frame["answer"].map(worths)
    frame["answer"] = pd.Categorical(frame["answer"], categories=[*worths, ""])
    return Judged(bars=frame, horizon=horizon, flat=0.25, usage=Usage())


BY_HAND = judged_of(
    [
        ("bullish", 0.7, 0.7, 0.2, 0.1, 0.0, 1.0),
        ("bullish", 0.5, 0.5, 0.3, 0.2, 2.0, 0.0),
        ("neutral", 0.6, 0.2, 0.6, 0.2, 1.0, 1.0),
        ("invalid", 0.0, NAN, NAN, NAN, 0.0, 0.0),
        ("bearish", 0.9, 0.0, 0.1, 0.9, NAN, NAN),
    ]
)


# outcomes


def test_outcomes_are_those_worked_out_by_hand() -> None:
    close = np.array([100.0, 101.0, 100.5, 104.0, 90.0])
    atr = np.array([2.0, NAN, 2.0, 2.0, 2.0])
    # Bands of one bar with flat 0.5: 1.0. Moves: 1.0 (not above), unknown, 3.5, -14.
    np.testing.assert_array_equal(outcomes(close, atr, 1, 0.5), [1.0, NAN, 0.0, 2.0, NAN])
    # Of four bars: 2.0; the move is -10.
    np.testing.assert_array_equal(outcomes(close, atr, 4, 0.5), [2.0, NAN, NAN, NAN, NAN])
    np.testing.assert_array_equal(outcomes(close, atr, 9, 0.5), [NAN] * 5)


def test_a_random_walk_has_about_a_third_of_each() -> None:
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((4000, 60)) / 60**0.5
    paths = steps.cumsum(axis=1) + np.concatenate([[0.0], steps.sum(axis=1).cumsum()[:-1]])[:, None]
    frame = {"open": paths[:, 0], "high": paths.max(axis=1), "low": paths.min(axis=1), "close": paths[:, -1]}
    bars = pd.DataFrame(frame, index=pd.date_range("2000-01-01", periods=4000)) + 1000.0
    for horizon in (1, 5):
        outcome = judge(bars, gate_of("scripted:trend"), horizon=horizon).bars["outcome"]
        shares = outcome.value_counts(normalize=True)
        assert all(0.26 < shares[code] < 0.40 for code in (0.0, 1.0, 2.0)), shares


def test_answers_and_outcomes_are_those_of_the_bar() -> None:
    bars = walk(150)
    judged = judge(bars, gate_of("scripted:trend"), horizon=3)
    assert judged.bars.index[0] == bars.index[15]
    assert len(judged.bars) == 135
    assert judged.bars["outcome"].isna().sum() == 3
    assert judged.bars["outcome"].isna().iloc[-3:].all()
    known = judged.bars.dropna()
    expected = [
        ("bullish", "neutral", "bearish").index(answer) == outcome
        for answer, outcome in zip(known["answer"], known["outcome"], strict=True)
    ]
    assert (known["right"] == np.array(expected, dtype=float)).all()
    probabilities = judged.bars[["bullish", "neutral", "bearish"]].to_numpy()
    np.testing.assert_allclose(probabilities.max(axis=1), judged.bars["confidence"])
    assert 0 < judged.usage.distinct <= 105


def test_an_outcome_never_reaches_a_verdict() -> None:
    bars = walk(150)
    changed = bars.copy()
    changed.iloc[100:] *= 1.1
    one, two = (judge(frame, gate_of("scripted:trend")).bars.iloc[: 100 - 15] for frame in (bars, changed))
    columns = ["answer", "confidence", "bullish", "neutral", "bearish"]
    pd.testing.assert_frame_equal(one[columns], two[columns], check_exact=True)
    assert not one["outcome"].equals(two["outcome"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"horizon": 0}, "horizon=0"), ({"horizon": 1.0}, "whole number of bars"), ({"flat": -1}, "flat=-1")],
)
def test_settings_are_checked(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        judge(walk(50), gate_of("scripted:trend"), **settings)


def test_only_gates_with_a_model_and_bars_with_an_outcome_can_be_judged() -> None:
    with pytest.raises(ConfigError, match="expected a gate whose model can be asked"):
        judge(walk(50), AlwaysOpen())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no verdict has an outcome 30 bars later"):
        judge(walk(40), gate_of("scripted:trend"), horizon=30)


# scores


def test_scores_are_those_worked_out_by_hand() -> None:
    found = score(BY_HAND)
    assert found.bars == 4
    assert found.answers == {"bullish": 2, "neutral": 1, "bearish": 0, "invalid": 1}
    assert found.accuracy == 2 / 4
    assert found.base_rate == 2 / 4  # up, twice
    squares = (0.09 + 0.04 + 0.01, 0.25 + 0.09 + 0.64, 0.04 + 0.16 + 0.04)
    assert found.brier == pytest.approx(sum(squares) / 3)
    assert found.brier_constant == pytest.approx(1.0 - 3 / 9)
    filled = found.reliability[found.reliability["count"] > 0]
    assert filled["count"].sum() == 4


def test_the_brier_score_is_that_of_scikit_learn() -> None:
    judged = judge(regimes(200), gate_of("scripted:trend"))
    known = judged.bars.dropna()
    expected = brier_score_loss(
        known["outcome"].astype(int), known[["bullish", "neutral", "bearish"]], labels=[0, 1, 2]
    )
    assert score(judged).brier == pytest.approx(expected)


def test_a_model_that_never_gives_a_valid_answer_has_no_brier_score() -> None:
    found = score(judged_of([("invalid", 0.0, NAN, NAN, NAN, code, 0.0) for code in (0.0, 1.0)]))
    assert math.isnan(found.brier)
    assert found.accuracy == 0.0
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (back["brier"], back["brier_constant"]) == (None, None)
    assert back["reliability"][5]["frequency"] is None


# costs


def test_the_cost_is_what_was_counted_and_what_was_stored() -> None:
    config = AdvisorConfig(model="scripted:trend")
    usage = Usage(distinct=3, cache_hits=1, model_calls=2, model_seconds=0.5, tokens=60)
    before = model_cost(Gate(advisor=config), usage)
    assert (before.prompts, before.cache_hits, before.model_calls, before.tokens) == (3, 1, 2, 60)
    assert before.model_seconds == 0.5
    assert math.isnan(before.stored_ms)
    assert math.isnan(before.memory_mb)
    Advisor(config).advise_cells([0])
    assert model_cost(Gate(advisor=config), usage).stored_ms == 0.0  # a script takes no time
    other = AdvisorConfig(model="scripted:contrarian")
    assert math.isnan(model_cost(Gate(advisor=other), usage).stored_ms)


@pytest.mark.model
def test_a_model_file_has_an_estimate_of_its_memory(smollm2_path: Any) -> None:
    cost = model_cost(Gate(advisor=AdvisorConfig(model=smollm2_path)), Usage())
    assert 90 < cost.memory_mb < 400


def test_a_model_without_a_file_has_none() -> None:
    assert math.isnan(_memory_mb(AdvisorConfig(model="no-such-model")))
