"""Runs that allow no conclusion: it is said first, and none is drawn, in words, in JSON and on the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import GateStudy, gate_study
from bt_llm.exceptions import CacheError, DataError
from bt_llm.gates import Gate, attach_gate
from bt_llm.report import Reportable, write_report
from bt_llm.research import (
    LEDGER,
    ModelComparison,
    WalkForward,
    before_after_cutoff,
    compare_models,
    compare_on_panel,
    gate_test,
    identified_probe,
    multiverse,
    panel_test,
)
from tests.engines import QuickAdvice, walk

BARS = walk(160, seed=3)
CONCLUDES = re.compile(r"better|worse|luck|p = |difference shown|probability|good sign")


def gate(**rule: Any) -> Gate:
    advisor = AdvisorConfig(model="scripted:trend", cache_mode="off")
    return Gate(advisor=advisor, indicator=QuickAdvice, **rule)


class InAndOut(bt.Strategy):
    """In for five bars of ten, whatever they are."""

    params = (("size", None), ("period", 5))

    def next(self) -> None:
        """Enter, or leave."""
        if len(self) % 10 == 0:
            self.buy(size=self.p.size)
        elif len(self) % 10 == self.p.period:
            self.close()


class Greedy(InAndOut):
    """Orders more than the account can pay."""

    params = (("size", 1_000),)


class Forgetful(InAndOut):
    """Takes a gate and asks it nothing: the parentheses are missing."""

    params = (("gate", None), ("size", 1))

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        """Enter, or leave."""
        if self.gate.allows_long:
            super().next()


REFUSED = (
    (Greedy, gate(), "the broker refused "),
    (Forgetful, gate(), "the gate was never asked: Forgetful made no entry, or does not call allows_long()"),
    (
        InAndOut,
        gate(min_confidence=0.99),
        "no verdict that InAndOut asked for reached min_confidence=0.99",
    ),
)


def check(found: Reportable, problem: str, page: Path) -> dict[str, Any]:
    """Assert that a result refuses first and concludes nothing; return what JSON has of it."""
    first, *others = next(iter(found.sections())).content
    assert first.startswith("No conclusion: ")
    assert problem in first
    assert not [sentence for sentence in others if CONCLUDES.search(sentence)]
    write_report(page, found, data=BARS)
    assert first.split(": the ")[0] in page.read_text(encoding="utf-8")
    told: dict[str, Any] = found.to_dict()
    assert any(problem in one for one in told["problems"])
    return told


@pytest.mark.parametrize(("strategy", "gate", "problem"), REFUSED)
def test_a_run(strategy: type[Any], gate: Gate, problem: str, tmp_path: Path) -> None:
    check(gate_study(strategy, BARS, gate, percent=10), problem, tmp_path / "page.html")


@pytest.mark.parametrize(("strategy", "gate", "problem"), [REFUSED[0], REFUSED[2]])
def test_a_test(strategy: type[Any], gate: Gate, problem: str, tmp_path: Path) -> None:
    found = gate_test(strategy, BARS, gate, n=3, shifts=0, resamples=20)
    told = check(found, problem, tmp_path / "page.html")
    for name in ("question", "effect", "random", "shifted", "against", "beats_random"):
        assert told[name] is None
    assert not found.beats_random
    assert "histograms" not in [section.kind for section in found.sections()]


@pytest.mark.parametrize(("strategy", "gate", "problem"), REFUSED)
def test_a_comparison(strategy: type[Any], gate: Gate, problem: str, tmp_path: Path) -> None:
    models = ["scripted:trend", "scripted:contrarian"]
    found = compare_models(strategy, BARS, models, gate=gate, resamples=20, percent=10)
    told = check(found, problem, tmp_path / "page.html")
    assert {told[name] for name in ("primary", "between", "against", "pairs")} == {None}


@pytest.mark.parametrize(("strategy", "gate", "problem"), REFUSED)
def test_a_walk_forward(strategy: type[Any], gate: Gate, problem: str, tmp_path: Path) -> None:
    split = WalkForward(train_size=60, test_size=30)
    found = split.run(strategy, BARS, gate=gate, grid={"period": [4, 5]}, percent=10)
    told = check(found, problem, tmp_path / "page.html")
    for name in ("efficiency", "probabilistic_sharpe", "deflated_sharpe", "overfitting"):
        assert told[name] is None
    assert "What it is worth" not in [section.title for section in found.sections()]


@pytest.mark.parametrize(("strategy", "gate", "problem"), [REFUSED[0], REFUSED[2]])
def test_a_look_for_memory(strategy: type[Any], gate: Gate, problem: str) -> None:
    chance: dict[str, Any] = {"resamples": 20, "block_length": 5, "percent": 10}
    cut = before_after_cutoff(strategy, BARS, gate, cutoff=BARS.index[80].date(), **chance)
    told = identified_probe(strategy, BARS, gate, "Gold, daily, 2020", **chance)
    for found, names in (
        (cut, ("before", "after", "change", "primary")),
        (told, ("masked_effect", "identified_effect", "difference")),
    ):
        assert found.sentence.startswith("No conclusion: ")
        assert problem in found.sentence
        json = found.to_dict()
        assert [json[name] for name in names] == [None] * len(names)
        assert any(problem in one for one in json["problems"])
    assert cut.question.found is None


class Shorts(bt.Strategy):
    """Short for one bar in two: of a price that is four times as high overnight the account is lost."""

    params = (("gate", None),)

    def next(self) -> None:
        """Enter, or leave."""
        if self.position:
            self.close()
        elif len(self) % 2:
            self.sell()


def test_a_look_for_memory_in_accounts_that_end_at_other_bars() -> None:
    bars = BARS.copy()
    bars.iloc[120:, :4] *= 4.0
    chance: dict[str, Any] = {"resamples": 20, "block_length": 5}
    cut = before_after_cutoff(Shorts, bars, gate(), cutoff=bars.index[80].date(), **chance)
    told = identified_probe(Shorts, bars, gate(), "Gold, daily, 2020", **chance)
    assert told.ungated.ruined is not None
    assert told.masked.ruined is None
    for found in (cut, told):
        assert found.sentence.startswith("No conclusion: ungated: the account was ruined at ")


class Resigns(bt.Strategy):
    """Ends its run at the first no after 80 bars."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        """Ask, and stop."""
        if len(self) > 80 and not self.gate.allows_short():
            self.env.runstop()


def test_runs_that_end_at_other_bars_are_not_cut_in_two() -> None:
    with pytest.raises(DataError, match="expected the same bars in all"):
        before_after_cutoff(Resigns, BARS, gate(), cutoff=BARS.index[48].date(), resamples=20)


def test_the_same_in_order_concludes(tmp_path: Path) -> None:
    for found in (
        gate_study(InAndOut, BARS, gate(), percent=10),
        gate_test(InAndOut, BARS, gate(), n=3, shifts=0, resamples=20, percent=10),
        compare_models(InAndOut, BARS, ["scripted:trend", "scripted:contrarian"], gate=gate(), percent=10),
    ):
        assert isinstance(found, GateStudy | ModelComparison) or found.to_dict()["random"]["n"] == 3
        assert found.problems == ()
        assert found.to_dict()["problems"] == []
        assert not next(iter(found.sections())).content[0].startswith("No conclusion")


class Untouched(bt.Strategy):
    """Is never run."""

    params = (("gate", None),)

    def next(self) -> None:
        """Fail the test."""
        pytest.fail("was run")


@pytest.mark.parametrize("verb", ["test", "compare", "panel test", "panel compare", "multiverse"])
def test_a_ledger_that_cannot_count_is_told_of_before_the_work(verb: str, tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes(b"no database")
    models = {"one": "scripted:trend", "two": "scripted:contrarian"}
    calls: dict[str, Callable[[], object]] = {
        "test": lambda: gate_test(Untouched, BARS, gate(), n=1, output=tmp_path),
        "compare": lambda: compare_models(Untouched, BARS, models, gate=gate(), output=tmp_path),
        "panel test": lambda: panel_test(Untouched, {"a": BARS}, gate(), n=1, output=tmp_path),
        "panel compare": lambda: compare_on_panel(
            Untouched, {"a": BARS}, models, gate=gate(), output=tmp_path
        ),
        "multiverse": lambda: multiverse(Untouched, BARS, gate=gate(), output=tmp_path),
    }
    with pytest.raises(CacheError, match=r"ledger .* cannot be opened"):
        calls[verb]()
