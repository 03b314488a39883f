"""Panels: a run each, pooled by the bars that there are, judged jointly."""

from __future__ import annotations

import math
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.backtest import (
    Bootstrap,
    Setup,
    Universe,
    aligned_returns,
    gate_study,
    panel_study,
    pooled_returns,
    run_backtest,
)
from bt_llm.exceptions import DataError
from bt_llm.research import NullRuns
from tests.engines import walk
from tests.market_cases import ExitsBySell, Rotates, flat
from tests.panel_cases import correlated, folder_of, symbols
from tests.research_cases import gate_of

GATE = gate_of("scripted:trend")


class HoldsFromTheFirst(bt.Strategy):
    def next(self) -> None:
        if not self.position:
            self.buy()


def test_returns_are_pooled_by_weight_among_the_accounts_that_there_are() -> None:
    days = pd.date_range("2024-01-01", periods=5)
    equities = {
        "a": pd.Series([100.0, 110.0, 99.0], days[:3]),
        "b": pd.Series([50.0, 60.0, 60.0, 66.0], days[1:]),
    }
    pooled = pooled_returns(aligned_returns(equities), {"a": 1.0, "b": 3.0})
    expected = [0.1, (1 * -0.1 + 3 * 0.2) / 4, 0.0, 0.1]
    assert pooled.tolist() == pytest.approx(expected)
    assert list(pooled.index) == list(days[1:])


def test_a_bar_that_one_symbol_lacks_is_no_end_of_it() -> None:
    days = pd.date_range("2024-01-01", periods=4)
    equities = {
        "a": pd.Series([100.0, 100.0, 100.0, 100.0], days),
        "b": pd.Series([10.0, 11.0], days[[0, 3]]),
    }
    assert pooled_returns(aligned_returns(equities), {"a": 1.0, "b": 1.0}).tolist() == pytest.approx(
        [0.0, 0.0, 0.05]
    )


class TestPanelStudy:
    def test_each_symbol_is_the_run_that_it_would_be_alone(self) -> None:
        frames = symbols()
        panel = panel_study(ExitsBySell, frames, GATE, commission=0.001)
        assert list(panel.symbols) == list(frames)
        for name, frame in frames.items():
            alone = gate_study(ExitsBySell, frame, GATE, commission=0.001, settles=True)
            for run, expected in alone.runs.items():
                assert panel.symbols[name].runs[run].equity.equals(expected.equity)
        mean = np.nanmean(panel.runs["gated"].by_symbol.to_numpy(), axis=1)
        assert panel.runs["gated"].returns.to_numpy() == pytest.approx(mean)
        growth = np.prod(1.0 + mean) - 1.0
        assert panel.runs["gated"].metrics["return"] == pytest.approx(growth)
        assert panel.runs["gated"].metrics["trades"] == sum(
            one.gated.metrics["trades"] for one in panel.symbols.values()
        )

    def test_the_order_gate_a_set_up_and_strategies_on_many_bars_work(self) -> None:
        panel = panel_study(Rotates, symbols(2), GATE, setup=Setup(cash=5_000, commission=0.001))
        assert all(one.gated.settings["cash"] == 5_000 for one in panel.symbols.values())
        assert panel.runs["gated"].metrics["trades"] > 0

    def test_memberships_are_kept_and_what_is_closed_is_said(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        panel = panel_study(ExitsBySell, tmp_path / "members.csv", GATE)
        held = panel.runs["buy_and_hold"]
        assert held.symbols["late"].equity.index[0] == pd.Timestamp("2020-04-01")
        assert held.symbols["back 2020-05-01"].equity.index[0] == pd.Timestamp("2020-05-01")
        ends = {name: run.settled["time"].tolist() for name, run in held.symbols.items()}
        assert ends["gone"] == [pd.Timestamp("2020-06-30")]
        assert sum(len(run.trades) for run in held.symbols.values()) == 4
        assert any("gone on 2020-06-30" in line for line in held.settled)
        assert "What the other runs had open was closed likewise: no position is left open." in panel.notes

    def test_a_run_begins_when_the_membership_and_the_user_let_it(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        panel = panel_study(ExitsBySell, tmp_path / "members.csv", GATE, start="2020-04-20")
        held = panel.runs["buy_and_hold"]
        begun = {name: str(run.equity.index[0].date()) for name, run in held.symbols.items()}
        assert begun["late"] == begun["gone"] == "2020-04-20"
        assert begun["back 2020-05-01"] == "2020-05-01"

    def test_a_symbol_that_is_too_short_is_left_out_by_name(self) -> None:
        panel = panel_study(ExitsBySell, {**symbols(2), "young": flat([10.0] * 6)}, GATE)
        assert list(panel.symbols) == ["s0", "s1"]
        assert "6 bars, but QuickAdvice needs 16" in panel.left_out["young"]
        assert panel.notes[0].startswith("left out: young: ")
        with pytest.raises(DataError, match="no symbol of 1 can be run; young"):
            panel_study(ExitsBySell, {"young": flat([10.0] * 6)}, GATE)

    def test_a_gate_that_one_symbol_never_asks_is_no_problem_of_the_panel(self) -> None:
        quiet = {**symbols(2), "quiet": flat([10.0] * 200)}
        panel = panel_study(ExitsBySell, quiet, GATE)
        assert panel.symbols["quiet"].problems
        assert panel.problems == ()
        alone = panel_study(ExitsBySell, {"quiet": flat([10.0] * 200), "still": flat([9.0] * 200)}, GATE)
        assert "the gate was never asked" in alone.problems[0]

    def test_a_broken_account_forbids_the_conclusion(self) -> None:
        panel = panel_study(ExitsBySell, symbols(2), GATE, percent=100, commission=0.01)
        assert "s0: the broker refused" in panel.problems[0]
        assert panel.to_dict()["effects"] is None
        assert panel.sentences[0].startswith("No conclusion: ")

    def test_the_page_has_a_forest_and_the_same_numbers(self) -> None:
        panel = panel_study(ExitsBySell, symbols(), GATE)
        (forest,) = [one for one in panel.sections() if one.kind == "forest"]
        effect = panel.effects["sharpe"]
        assert forest.table is not None
        assert [row[0] for row in forest.table["rows"]] == ["s0", "s1", "s2", "pooled"]
        assert sum(effect.weights.values()) == pytest.approx(1.0)
        assert effect.pooled.low < effect.pooled.estimate < effect.pooled.high

    def test_weights_are_the_users(self) -> None:
        heavy = panel_study(ExitsBySell, symbols(2), GATE, weights={"s0": 1e9})
        alone = heavy.symbols["s0"].gated.returns
        pooled = heavy.runs["gated"].returns.loc[alone.index]
        assert pooled.to_numpy() == pytest.approx(alone.to_numpy(), abs=1e-8)


def sharpe_found(seed: int, count: int, better: float, rho: float = 0.0) -> bool:
    """Return whether a Sharpe difference shows in a simulated year of so many symbols, pooled."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2023-01-02", periods=253)
    base, own = (correlated(rng, 252, count, rho) for _ in range(2))
    pair = [base, 0.5 * base + math.sqrt(0.75) * own + better / math.sqrt(252.0)]
    pooled = [
        pooled_returns(
            pd.DataFrame(0.01 * moves, index=days[1:], columns=[f"s{n}" for n in range(count)]),
            {f"s{n}": 1.0 for n in range(count)},
        )
        for moves in pair
    ]
    found = Bootstrap(resamples=199, block_length=1).difference(pooled[1], pooled[0], "sharpe")
    return found.low > 0.0 or found.high < 0.0


class TestPower:
    """A year of days; the two strategies' returns have a correlation of 0.5."""

    def test_a_sharpe_difference_of_1_is_found_on_ten_symbols_and_hardly_on_one(self) -> None:
        ten = np.mean([sharpe_found(seed, 10, 1.0) for seed in range(100)])
        one = np.mean([sharpe_found(seed, 1, 1.0) for seed in range(60)])
        assert ten >= 0.8
        assert one < 0.4

    def test_no_difference_is_found_where_there_is_none_and_symbols_move_together(self) -> None:
        assert np.mean([sharpe_found(seed, 10, 0.0, rho=0.7) for seed in range(80)]) <= 0.12


def test_a_position_is_closed_at_the_last_close_where_lines_keep_one_bar() -> None:
    market = next(iter(symbols().values()))
    kept, forgotten = (
        run_backtest(HoldsFromTheFirst, market, settles=True, commission=0.001, exactbars=bars)
        for bars in (False, 1)
    )
    assert len(kept.fills) == 2
    pd.testing.assert_frame_equal(kept.fills, forgotten.fills)
    assert kept.final_value == forgotten.final_value


def test_null_runs_of_a_panel_rank_as_those_of_a_run() -> None:
    nulls = NullRuns(kind="gates", observed={"sharpe": 1.0}, nulls=pd.DataFrame({"sharpe": [0.0, 2.0]}))
    assert nulls.p_value("sharpe") == pytest.approx(2 / 3)
    assert Universe.of(symbols(2)).bars == 260 + 253


class TestWorth:
    def test_it_is_the_pooled_difference_taken_apart_with_members_that_come_and_go(
        self, tmp_path: Path
    ) -> None:
        folder_of(tmp_path)
        panel = panel_study(ExitsBySell, tmp_path / "members.csv", GATE, commission=0.001)
        parts = panel.worth.parts
        assert parts is not None
        pooled, whole = panel.effects["return"].pooled, parts.pooled["whole"]
        assert (whole.estimate, whole.low, whole.high) == pytest.approx(
            (pooled.estimate, pooled.low, pooled.high), abs=1e-6
        )
        assert list(parts.symbols) == list(panel.symbols)
        for part, one in parts.pooled.items():
            summed = sum(symbol[part].estimate for symbol in parts.symbols.values())
            assert one.estimate == pytest.approx(summed)

    def test_of_one_symbol_it_is_the_effect_of_that_symbol(self) -> None:
        (name, frame), *_ = symbols().items()
        panel = panel_study(ExitsBySell, {name: frame}, GATE, commission=0.001)
        alone = gate_study(ExitsBySell, frame, GATE, commission=0.001, settles=True).effect
        assert panel.worth.parts is not None
        assert alone is not None
        for part, one in alone.parts.items():
            assert panel.worth.parts.pooled[part].estimate == pytest.approx(one.estimate)

    def test_weights_count(self) -> None:
        frames = {name: walk(200, seed=number) for number, name in enumerate("ab")}
        first, second = frames
        even = panel_study(ExitsBySell, frames, GATE).worth.parts
        uneven = panel_study(ExitsBySell, frames, GATE, weights={first: 3.0, second: 1.0}).worth.parts
        assert even is not None
        assert uneven is not None
        for name, factor in ((first, 1.5), (second, 0.5)):
            assert uneven.symbols[name]["whole"].estimate == pytest.approx(
                factor * even.symbols[name]["whole"].estimate
            )

    def test_it_is_said_shown_and_in_json(self) -> None:
        panel = panel_study(ExitsBySell, symbols(), GATE, commission=0.001)
        assert panel.worth.sentence in panel.sentences
        assert "; only the last is the gate's choice of when." in panel.worth.sentence
        assert panel.worth.parts is not None
        tables = {one.title: one.table for one in panel.sections() if one.table is not None}
        assert [row[0] for row in tables["What the effect of the gate is made of"]["rows"]] == [
            *("whole", "exposure", "side bias", "costs saved", "timing")
        ]
        rows = tables["What each symbol adds to the effect of the gate"]["rows"]
        assert [row[0] for row in rows] == list(panel.symbols)
        told = panel.to_dict()["worth"]
        assert told["pooled"]["timing"]["estimate"] == panel.worth.parts.pooled["timing"].estimate
        assert list(told["symbols"]) == list(panel.symbols)

    def test_an_account_with_cash_of_another_source_is_named_and_nothing_is_taken_apart(self) -> None:
        class Paid(ExitsBySell):
            def next(self) -> None:
                super().next()
                if len(self) == 90 and self.data.close[0] > 100.0:
                    self.broker.add_cash(500.0)

        panel = panel_study(Paid, symbols(), GATE)
        paid = [name for name, frame in symbols().items() if frame["close"].iloc[89] > 100.0]
        assert 0 < len(paid) < 3
        assert panel.worth.parts is None
        assert panel.worth.problem.startswith(f"{paid[0]}: ")
        assert panel.worth.sentence.startswith("The gate's effect is not taken apart: ")
        assert any(f"{paid[0]}: Paid changed its cash itself" in one for one in panel.problems)
        assert panel.to_dict()["worth"] is None
        assert not [one for one in panel.sections() if "effect of the gate" in one.title]
