"""Null gates of a panel: answers on other dates, the same dates in all symbols."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.backtest import run_backtest
from bt_llm.exceptions import ConfigError
from bt_llm.gates import LONG, SHORT, DatedAnswers, DatesGate, permute_dates
from bt_llm.research import panel_test
from tests.panel_cases import correlated, symbols
from tests.research_cases import Alternate, gate_of


class TestPermutedDates:
    def test_blocks_stay_in_order_and_every_date_comes_once(self) -> None:
        for seed in range(20):
            moved = permute_dates(120, 10, np.random.default_rng(seed))
            assert sorted(moved.tolist()) == list(range(120))
            assert int((np.diff(moved) % 120 == 1).sum()) >= 120 - 13

    def test_every_block_may_come_to_every_place(self) -> None:
        places = [int(permute_dates(24, 4, np.random.default_rng(seed))[0]) for seed in range(300)]
        assert set(places) == {0, 4, 8, 12, 16, 20}
        assert 30 < places.count(0) < 70  # of six places, its own as often as any other

    def test_blocks_are_exchanged_among_blocks_of_their_level_only(self) -> None:
        levels = np.repeat([1.0, 5.0, 9.0], 100)
        moved = permute_dates(300, 10, np.random.default_rng(3), levels)
        assert np.corrcoef(levels, levels[moved])[0, 1] > 0.8
        free = permute_dates(300, 10, np.random.default_rng(3))
        assert np.corrcoef(levels, levels[free])[0, 1] < 0.5

    def test_a_count_that_no_block_divides_keeps_nearly_all_dates(self) -> None:
        moved = permute_dates(103, 10, np.random.default_rng(0))
        assert len(moved) == 103
        assert len(set(moved.tolist())) >= 98


class TestDatesGate:
    def test_on_its_own_dates_it_is_the_gate_whose_answers_it_has(self) -> None:
        bars, gate = symbols(1)["s0"], gate_of("scripted:trend")
        gated = run_backtest(Alternate, bars, gate=gate)
        log = gated.order_log
        asked = []

        class Told(Alternate):
            def stop(self) -> None:
                numbers = self.data.lines.datetime.array
                asked.extend(("data", d.side, numbers[d.bar - 1], d.allowed) for d in self.gate.log)

        run_backtest(Told, bars, gate=gate)
        days = np.array([bt.date2num(day) for day in bars.index])
        same = DatesGate(
            answers=DatedAnswers.of(asked),
            dates=days.tobytes(),
            others=days.tobytes(),
            warm_up=gate.warm_up_bars,
        )
        again = run_backtest(Alternate, bars, gate=same)
        assert again.equity.equals(gated.equity)
        assert int(log["vetoed"].sum()) + len(gated.trades) > 0

    def test_the_time_of_day_stays(self) -> None:
        answers = DatedAnswers.of([("a", LONG, 10.25, False), ("a", LONG, 10.75, True)])
        days = np.array([10.0, 11.0])
        gate = DatesGate(answers=answers, dates=days.tobytes(), others=days[::-1].tobytes())
        assert [gate.answer("a", LONG, 11.0 + hour) for hour in (0.25, 0.5, 0.75)] == [False, False, True]
        assert gate.answer("a", LONG, 10.5)  # as of noon of the other day: the last answer before it

    def test_what_was_never_asked_is_not_let_through(self) -> None:
        answers = DatedAnswers.of([("a", LONG, 1.0, True)])
        gate = DatesGate(answers=answers, dates=np.array([1.0]).tobytes(), others=np.array([1.0]).tobytes())
        assert gate.answer("a", LONG, 1.0)
        assert not gate.answer("a", SHORT, 1.0)
        assert not gate.answer("b", LONG, 1.0)

    def test_dates_without_others_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="1 dates and 0 others"):
            DatesGate(answers=(), dates=np.array([1.0]).tobytes(), others=b"")


def ranked(seed: int, *, jointly: bool) -> float:
    """Return the p-value of answers without knowledge that five symbols of one market have in common."""
    rng, bars, count, block = np.random.default_rng(seed), 500, 5, 25
    returns = correlated(rng, bars, count, 0.7)
    mood = np.repeat(rng.standard_normal(bars // 10), 10) > 0.0

    def sharpe(answers: np.ndarray) -> float:
        pooled = (answers * returns).mean(axis=1)
        return float(pooled.mean() / pooled.std())

    answers = np.column_stack([mood] * count)
    nulls = []
    for _ in range(39):
        orders = [permute_dates(bars, block, rng) for _ in range(1 if jointly else count)]
        moved = [answers[orders[0 if jointly else k], k] for k in range(count)]
        nulls.append(sharpe(np.column_stack(moved)))
    return (1 + sum(null >= sharpe(answers) for null in nulls)) / 40


def test_answers_that_symbols_have_in_common_are_no_finding_if_they_move_together() -> None:
    joint, apart = (
        np.mean([ranked(seed, jointly=jointly) <= 0.05 for seed in range(80)]) for jointly in (True, False)
    )
    assert joint <= 0.1
    assert apart >= 0.12  # the control: symbols moved each on its own make luck look like knowledge


def test_a_shorter_history_gets_the_dates_that_it_has() -> None:
    frames = {"long": symbols(1)["s0"], "short": symbols(2)["s1"].iloc[120:]}
    test = panel_test(Alternate, frames, gate_of("scripted:trend"), n=3, resamples=99)
    assert test.random.pooled.n == 3
    assert list(test.random.symbols.index) == ["long", "short"]
    assert pd.notna(test.random.symbols["p_value"]).all()
