"""A gate on many symbols: found where it knows something, and not where it knows nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import attach_gate
from bt_llm.backtest import Market, run_backtest
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import DatesGate, EntryGate, Gate, NeverOpen
from bt_llm.research import PanelComparison, PanelTest, TrialLedger, Tried, compare_on_panel, panel_test
from tests.market_cases import ByCalendar, flat
from tests.research_cases import CASH, HOLD, Alternate, AlternateByHand, gate_of, random_walk, regimes

GATE = gate_of("scripted:trend")


class ByHand:
    """Runs null gates of `Alternate` on many symbols without Backtrader; nothing is open in the end."""

    def __init__(self, frames: dict[str, pd.DataFrame], gate: Gate) -> None:
        self.frames, self.warm_up = frames, gate.warm_up_bars
        self.known = {name: AlternateByHand(frame, self.warm_up) for name, frame in frames.items()}

    def __call__(self, symbol: str, gates: Sequence[EntryGate]) -> list[np.ndarray]:
        one, numbers = self.known[symbol], Market.of({symbol: self.frames[symbol]}).numbers
        asked = [bar for bar in range(self.warm_up, len(numbers) + 1) if bar % HOLD == 0]
        found = []
        for gate in gates:
            assert isinstance(gate, DatesGate)
            pairs = zip(asked, one.sides.tolist(), strict=True)
            allowed = [gate.answer(symbol, side, numbers[bar - 1]) for bar, side in pairs]
            found.append(CASH + np.array(allowed, dtype=float) @ one.gains)
        return found


@lru_cache(maxsize=4)
def panel_of(*, edge: bool, n: int = 39) -> PanelTest:
    make = regimes if edge else random_walk
    frames = {f"s{seed}": make(331, seed=seed) for seed in range(4)}
    return panel_test(Alternate, frames, GATE, n=n, resamples=199, evaluate=ByHand(frames, GATE))


def test_by_hand_is_what_backtrader_says() -> None:
    frames = {f"s{seed}": regimes(150, seed=seed) for seed in range(2)}
    quick, slow = (
        panel_test(Alternate, frames, GATE, n=3, resamples=99, evaluate=how)
        for how in (ByHand(frames, GATE), None)
    )
    expected = slow.random.pooled.values("sharpe")
    assert quick.random.pooled.values("sharpe") == pytest.approx(expected, rel=1e-6)
    assert quick.random.symbols["p_value"].tolist() == slow.random.symbols["p_value"].tolist()


class Crossing(bt.Strategy):
    """Long while the close is above its average."""

    params = (("gate", None),)

    def __init__(self):
        self.over = bt.ind.CrossOver(self.data, bt.ind.SMA(self.data, period=5))
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        if self.over < 0 and self.position:
            self.close()
        elif self.over > 0 and self.gate.allows_long():
            self.buy()


def test_a_gate_that_is_never_open_cannot_be_told_from_luck_nor_from_a_rule_that_is() -> None:
    frames = {f"s{seed}": random_walk(240, seed=seed) for seed in range(2)}
    found = panel_test(Crossing, frames, NeverOpen(), n=19, rule=NeverOpen(), resamples=99)
    assert "and the 19 null gates earn the same, so that no p-value" in found.question.reason
    [table] = [one for one in found.sections() if one.title == "Better than without the model"]
    assert table.table is not None
    (_, *over_none), (_, *over_rule) = table.table["rows"]
    assert over_rule[4] == "-" != over_none[4]  # of what never differs, no size of it would be found


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_null_gates_of_all_symbols_are_replayed_as_backtrader_runs_them(n_jobs: int | None) -> None:
    frames = {f"s{seed}": random_walk(240 + 10 * seed, seed=seed) for seed in range(2)}

    def run(symbol: str, gates: Sequence[EntryGate]) -> list[np.ndarray]:
        market, plain = Market.of({symbol: frames[symbol]}), {"engine": "plain", "settles": True}
        return [np.array(run_backtest(Crossing, market, gate=gate, **plain).equity) for gate in gates]

    mine = panel_test(Crossing, frames, GATE, n=30, resamples=99, n_jobs=n_jobs)
    true = panel_test(Crossing, frames, GATE, n=30, resamples=99, evaluate=run)
    how = mine.random.how
    assert (how.replayed, how.ran, how.reason, true.random.how.replayed) == (60, 0, "", 0)
    for metric in ("sharpe", "return"):
        expected = true.random.pooled.nulls[metric].tolist()
        assert mine.random.pooled.nulls[metric].tolist() == pytest.approx(expected, rel=1e-9)
        assert len({round(value, 9) for value in expected}) > 20
    assert mine.random.symbols["p_value"].tolist() == true.random.symbols["p_value"].tolist()
    assert "60 were replayed" in " ".join(section.text for section in mine.sections())


def test_processes_that_share_the_null_gates_of_a_symbol_give_the_same_to_the_last_digit() -> None:
    frames = {"alone": random_walk(240, seed=1)}
    one, two = (panel_test(Crossing, frames, GATE, n=50, resamples=99, n_jobs=jobs) for jobs in (None, 2))
    # Two processes learn the strategy's entries for themselves, and check themselves; they count once.
    assert (one.random.how.checked, two.random.how.checked) == (2, 4)
    assert (one.random.how.replayed, one.random.how.episodes) == (
        two.random.how.replayed,
        two.random.how.episodes,
    )
    alone, shared = ({**found.to_dict(), "null_gates": None} for found in (one, two))
    assert alone == shared


def test_knowledge_is_found_in_all_symbols_pooled() -> None:
    found = panel_of(edge=True)
    assert found.problems == ()
    assert found.random.pooled.p_value("sharpe") == pytest.approx(1 / 40)
    assert found.beats_random
    assert found.sentences[0].startswith(
        "Found that the gate's pooled Sharpe ratio is better than luck: p = 0.025"
    )
    assert (found.question.smallest, found.question.found) == (1 / 40, True)
    assert found.over_ungated is not None
    assert found.over_ungated.pooled.low > 0.0
    assert found.against is not None
    over_ungated = found.against.sharpe.pairs[0]
    assert (over_ungated.second, found.against.shown(over_ungated)) == ("ungated", True)
    assert found.sentences[1] == found.against.sentence
    assert "gated, it is better than the ungated strategy, +" in found.sentences[1]


def test_what_knowledge_is_worth_is_timing_and_of_a_gate_that_knows_nothing_it_is_not() -> None:
    knows, nothing = (panel_of(edge=edge).worth.parts for edge in (True, False))
    assert knows is not None
    assert nothing is not None
    assert knows.pooled["timing"].low > 0.0
    assert not any(one["timing"].low > 0.0 for one in nothing.symbols.values())
    assert nothing.pooled["timing"].low <= 0.0
    found = panel_of(edge=True)
    assert found.sentences[-1] == found.worth.sentence
    assert found.to_dict()["worth"]["pooled"]["timing"]["low"] == knows.pooled["timing"].low
    titles = [one.title for one in found.sections()]
    assert "What the effect of the gate is made of" in titles
    assert "What each symbol adds to the effect of the gate" in titles


def test_where_there_is_nothing_to_know_nothing_is_found() -> None:
    found = panel_of(edge=False)
    assert not found.beats_random
    assert found.sentences[0].startswith("It is not shown that the gate's pooled Sharpe ratio is better")
    assert "in Sharpe ratio would have been found in 4 of 5 such tests" in found.sentences[0]
    assert (found.random.symbols["p_value"] > 0.05).all()
    assert found.against is not None
    assert not any(map(found.against.shown, found.against.sharpe.pairs))


def test_with_too_few_null_gates_it_cannot_tell() -> None:
    few = panel_of(edge=True, n=9)
    assert few.question.found is None
    assert not few.beats_random
    assert few.sentences[0].startswith("Cannot tell whether the gate's pooled")


def test_what_is_shown_has_every_part_and_json_the_same_numbers() -> None:
    found = panel_of(edge=True)
    assert {"sentences", "histograms", "forest", "table", "equity"} <= {one.kind for one in found.sections()}
    told = found.to_dict()
    assert told["random"]["p_value"] == found.random.pooled.p_value("sharpe")
    assert [row["symbol"] for row in told["symbols_among_random"]] == ["s0", "s1", "s2", "s3"]
    assert told["beats_random"] is True
    assert told["symbols"]["s0"]["entries"]["asked"] == found.symbols["s0"].asked


def test_the_same_seed_gives_the_same_on_several_processes() -> None:
    frames = {f"s{seed}": regimes(100, seed=seed) for seed in range(2)}
    one, two = (panel_test(Alternate, frames, GATE, n=4, resamples=99, n_jobs=jobs) for jobs in (None, 2))
    assert one.to_dict() == two.to_dict()


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(DataError, match="asked its gate for no entry on 1 symbol: "):
        panel_test(ByCalendar, {"a": flat([10.0] * 60)}, GATE, n=1, resamples=99, params={"orders": {}})
    with pytest.raises(ConfigError, match="alpha=1"):
        panel_test(Alternate, {"a": regimes(100)}, GATE, alpha=1)


class TestTrials:
    def test_a_ratio_that_is_not_known_is_said_to_be_unknown(self) -> None:
        told = Tried(n_trials=2, new=1, deflated={"gated": math.nan, "other": 0.5}).sentence
        assert told.endswith("as the best of all (DSR): gated unknown, other 50 %.")

    def test_a_panel_is_one_trial_and_other_symbols_are_others(self, tmp_path: Path) -> None:
        frames = {f"s{seed}": regimes(100, seed=seed) for seed in range(2)}

        def count(frames: dict[str, pd.DataFrame], gate: Gate = GATE) -> int:
            how = ByHand(frames, gate)
            test = panel_test(Alternate, frames, gate, n=2, resamples=99, evaluate=how, output=tmp_path)
            assert test.tried is not None
            return test.tried.n_trials

        assert [count(frames), count(frames)] == [1, 1]
        assert count({"x": frames["s1"], "y": frames["s0"]}) == 1  # other names for the same bars
        assert count({"s0": frames["s0"], "s1": regimes(100, seed=5)}) == 2  # other bars of the same names
        assert count(frames, gate_of("scripted:trend", min_confidence=0.4)) == 3

    def test_each_model_of_a_comparison_is_one(self, tmp_path: Path) -> None:
        frames = {f"s{seed}": regimes(100, seed=seed) for seed in range(2)}
        models = {"trend": "scripted:trend", "contrarian": "scripted:contrarian"}
        found = compare_on_panel(Alternate, frames, models, gate=GATE, resamples=99, output=tmp_path)
        assert found.tried is not None
        assert (found.tried.n_trials, found.tried.new) == (2, 2)
        assert list(found.tried.deflated) == ["trend", "contrarian"]
        with TrialLedger(tmp_path / "trials.sqlite") as ledger:
            assert len(ledger.sharpes()) == 2


@lru_cache(maxsize=1)
def compared() -> PanelComparison:
    frames = {f"s{seed}": regimes(260, seed=seed) for seed in range(3)}
    models = {"trend": "scripted:trend", "contrarian": "scripted:contrarian", "coin": "scripted:random"}
    return compare_on_panel(Alternate, frames, models, gate=GATE, resamples=199)


class TestComparison:
    def test_every_pair_is_judged_together_and_the_better_model_is_named(self) -> None:
        found = compared()
        assert [(one.first, one.second) for one in found.standing.between.pairs] == [
            *(("trend", "contrarian"), ("trend", "coin"), ("contrarian", "coin"))
        ]
        assert {second for _, second in found.pairs} == {"contrarian", "coin", "ungated", "rule"}
        assert found.sentences[0].startswith("Which is better: trend better than contrarian by ")
        assert "over 3 pairs" in found.sentences[0]

    def test_trades_that_only_one_of_a_pair_made_are_counted_over_all_symbols(self) -> None:
        found = compared()
        made = {
            name: {
                (symbol, opened)
                for symbol, one in found.symbols.items()
                for opened in one.runs[name].trades["opened"]
            }
            for name in ("trend", "coin")
        }
        assert found.standing.differing["trend", "coin"] == len(made["trend"] ^ made["coin"]) > 10
        few = dataclasses.replace(found.standing, differing=dict.fromkeys(found.pairs, 9))
        assert few.answer.startswith("Which is better: cannot tell; fewer than 10 trades differ")

    def test_pooled_and_by_symbol_are_the_same_differences(self) -> None:
        found = compared()
        effect = found.effects["trend", "contrarian"]
        assert effect.pooled.estimate == pytest.approx(found.pairs["trend", "contrarian"].estimate)
        for name, one in effect.symbols.items():
            runs = found.symbols[name].runs
            metrics = [runs[model].metrics["sharpe"] for model in ("trend", "contrarian")]
            assert one.estimate == pytest.approx(metrics[0] - metrics[1], rel=1e-6)

    def test_what_each_model_is_worth_is_taken_apart(self) -> None:
        found = compared()
        timing = {name: worth.parts.pooled["timing"] for name, worth in found.worth.items() if worth.parts}
        assert list(timing) == ["trend", "contrarian", "coin"]
        assert timing["trend"].low > 0.0 > timing["contrarian"].high
        assert timing["coin"].low < 0.0 < timing["coin"].high
        assert found.to_dict()["worth"]["coin"]["pooled"]["timing"]["low"] == timing["coin"].low
        titles = [one.title for one in found.sections()]
        assert "What the effect of trend is made of" in titles

    def test_no_model_is_better_than_itself(self) -> None:
        frames = {f"s{seed}": random_walk(150, seed=seed) for seed in range(2)}
        models = {"one": "scripted:trend", "two": "scripted:trend"}
        same = compare_on_panel(Alternate, frames, models, gate=GATE, resamples=99)
        assert same.pairs["one", "two"].p_value == 1.0
        assert same.sentences[0].startswith("Which is better: cannot tell; ")
        assert "true difference" not in same.sentences[0]
