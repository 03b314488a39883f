"""Whether a gated strategy is better than without a model: judged together, and not found where it is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bt_llm.backtest import Bootstrap
from bt_llm.exceptions import DataError
from bt_llm.research import against
from bt_llm.statistics import stepwise_differences

INDEX = pd.date_range("2020-01-01", periods=400)
NAMES = ("gated", "ungated", "rule")


def series(seed: int, **drift: float) -> dict[str, pd.Series]:
    noise = np.random.default_rng(seed).normal(0.0, 0.01, (len(INDEX), len(NAMES)))
    return {
        name: pd.Series(noise[:, place] + drift.get(name, 0.0), INDEX) for place, name in enumerate(NAMES)
    }


def trades(opened: range, data: str = "data") -> pd.DataFrame:
    return pd.DataFrame({"opened": INDEX[list(opened)], "direction": 1, "data": data})


def test_it_is_the_stepwise_comparison_of_both_pairs_at_once() -> None:
    found = against(series(1, gated=0.002), Bootstrap(resamples=199, seed=3))
    pairs = [("gated", "ungated"), ("gated", "rule")]
    alone = stepwise_differences(series(1, gated=0.002), pairs, n=199, seed=3, periods_per_year=365.25)
    assert [one.p_value for one in found.sharpe.pairs] == [one.p_value for one in alone.pairs]
    assert [one.low for one in found.sharpe.pairs] == pytest.approx([one.low for one in alone.pairs])
    # Intervals of two reach further than that of one.
    single = stepwise_differences(series(1, gated=0.002), pairs[:1], n=199, seed=3, periods_per_year=365.25)
    assert found.sharpe.pairs[0].low < single.pairs[0].low


def test_what_is_better_than_both_is_said_to_be_and_what_is_not_is_not() -> None:
    better = against(series(1, gated=0.003), Bootstrap(resamples=199))
    assert [better.shown(one) for one in better.sharpe.pairs] == [True, True]
    assert better.sentence.startswith(
        "In Sharpe ratio, of the two, adjusted, and for whatever reason: gated, it is better than the "
        "ungated strategy, +"
    )
    assert "; better than the plain rule, +" in better.sentence
    runs = series(1, gated=-0.003)
    runs["rule"] = runs["gated"] + 0.3 * (runs["rule"] - runs["rule"].mean())
    worse = against(runs, Bootstrap(resamples=199))
    assert "it is worse than the ungated strategy, -" in worse.sentence
    assert "; not shown to be better or worse than the plain rule, " in worse.sentence


def test_where_nothing_is_better_one_of_the_two_is_found_in_about_five_of_a_hundred() -> None:
    found = 0
    for seed in range(150):
        one = against(series(seed), Bootstrap(resamples=99, seed=seed, block_length=1))
        found += any(map(one.shown, one.sharpe.pairs))
    # 7.5 are expected of 150; 16 or more of 150 at 5 % have a chance of 1 in 300.
    assert found <= 15


def test_a_few_trades_tell_nothing_however_far_apart_the_accounts_are() -> None:
    made = {"gated": trades(range(20)), "ungated": trades(range(9, 20)), "rule": trades(range(10, 30))}
    found = against(series(1, gated=0.003), Bootstrap(resamples=199), made)
    assert found.differing == {"ungated": 9, "rule": 20}
    assert [found.shown(one) for one in found.sharpe.pairs] == [False, True]
    assert "not to be told from the ungated strategy, as fewer than 10 trades differ (9); " in found.sentence
    told = found.to_dict()
    assert told["comparisons"] == 2
    assert [(one["second"], one["shown"]) for one in told["sharpe"]] == [("ungated", False), ("rule", True)]
    (table,) = found.sections()
    assert [row[0] for row in table.table["rows"]] == ["gated less ungated", "gated less rule"]


def test_trades_of_two_datas_at_one_time_are_two_trades() -> None:
    made = {name: trades(range(20), data) for name, data in zip(NAMES, "aba", strict=True)}
    found = against(series(1, gated=0.003), Bootstrap(resamples=199), made)
    assert found.differing == {"ungated": 40, "rule": 0}


def test_runs_of_other_bars_are_refused() -> None:
    runs = series(1)
    with pytest.raises(DataError, match="expected the same bars in all"):
        against({**runs, "rule": runs["rule"].iloc[1:]}, Bootstrap(resamples=99))
