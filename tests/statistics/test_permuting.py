"""Random orders of answers that keep their runs."""

from __future__ import annotations

import math

import numpy as np

from bt_llm.statistics import log_arrangements, permute_runs


def test_as_many_orders_are_drawn_as_are_counted() -> None:
    answers = [1, 0, 1, 1, 0, 0, 1]
    drawn = {permute_runs(answers, np.random.default_rng(s)).tobytes() for s in range(2000)}
    assert len(drawn) == round(math.exp(log_arrangements(answers))) == 6
