from __future__ import annotations

import math

import backtrader as bt
import pytest

from bt_llm.observers import LLMMarks
from tests.engines import RANDOM, QuickAdvice, bits, line, run, walk


class Advised(bt.Strategy):
    def __init__(self):
        self.advice = [QuickAdvice(data, advisor=RANDOM) for data in self.datas]


def drawn(marks, name):
    """Return what a plot would draw: in vectorised runs Backtrader leaves unused room behind it."""
    return getattr(marks.lines, name).plotrange(0, len(marks))


def expected_marks(advice, frame, distance=0.5, min_confidence=0.0):
    verdicts, confidences = line(advice, "verdict"), line(advice, "confidence")
    bullish, bearish = [], []
    for i, (verdict, confidence) in enumerate(zip(verdicts, confidences, strict=True)):
        reach = distance * (frame["high"].iloc[i] - frame["low"].iloc[i])
        shown = confidence >= min_confidence
        bullish.append(frame["low"].iloc[i] - reach if shown and verdict == 1 else math.nan)
        bearish.append(frame["high"].iloc[i] + reach if shown and verdict == -1 else math.nan)
    return bullish, bearish


@pytest.mark.parametrize("runonce", [True, False])
@pytest.mark.parametrize("params", [{}, {"distance": 2.0, "min_confidence": 0.45}])
def test_marks_stand_beside_the_bars_that_have_a_direction(runonce, params):
    frame = walk(80)
    strategy = run(
        Advised, frame, prepare=lambda c: c.addobserver(LLMMarks, **params), mode={"runonce": runonce}
    )
    marks = strategy.observers[0]
    bullish, bearish = expected_marks(strategy.advice[0], frame, **params)
    assert bits(drawn(marks, "bullish")) == bits(bullish)
    assert bits(drawn(marks, "bearish")) == bits(bearish)
    assert 3 < sum(value == value for value in bullish) < 60


def test_each_data_has_its_own_marks():
    frames = [walk(60), walk(60, seed=4)]
    strategy = run(Advised, *frames, prepare=lambda c: c.addobservermulti(LLMMarks))
    for marks, advice, frame in zip(strategy.stats.llmmarks, strategy.advice, frames, strict=True):
        assert bits(drawn(marks, "bullish")) == bits(expected_marks(advice, frame)[0])


def test_a_strategy_without_advice_has_no_marks():
    strategy = run(bt.Strategy, walk(20), prepare=lambda c: c.addobserver(LLMMarks))
    assert set(bits(drawn(strategy.observers[0], "bullish"))) == {b"nan"}
