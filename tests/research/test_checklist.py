"""The reviewer's page: each line is answered from a result alone; what it does not know is not examined."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import GateStudy, gate_study, panel_study
from bt_llm.report import write_report
from bt_llm.research import CheckLine, checklist, checklist_sections, leakage_probes
from tests.report_cases import one_of_each
from tests.research_cases import Alternate, gate_of, random_walk

BARS = random_walk(300)
UNREAD = "Every bar that counts comes after all that the model has read."
MASKED = "Nothing in a prompt tells the model where in the past it is."
PROBED = "The model was probed for what it remembers of this market."
COSTS = "Trading costs something."
IN_TIME = "No state and no order changes when only later bars do."
HELD_OUT = "The record is out of sample."
FILLED = "Orders are filled after the close that they were decided at, and none was refused."


def lines(result: Any) -> dict[str, CheckLine]:
    return {line.asked: line for line in checklist(result)}


def outcomes(result: Any, *asked: str) -> list[str]:
    return [lines(result)[one].outcome for one in asked]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return one_of_each()


@pytest.fixture(scope="module")
def study(results: dict[str, Any]) -> GateStudy:
    found: GateStudy = results["run"]
    return found


def asking(study: GateStudy, **changes: Any) -> GateStudy:
    """Return the study as if its model had been asked in another way."""
    gated = study.gated
    gate = gated.settings["params"]["gate"]
    advisor = dataclasses.replace(gate.advisor, **changes)
    params = {"gate": dataclasses.replace(gate, advisor=advisor)}
    return dataclasses.replace(
        study, gated=dataclasses.replace(gated, settings={**gated.settings, "params": params})
    )


def test_a_run_without_costs_fails_them_and_says_what_they_were(study: GateStudy) -> None:
    assert outcomes(study, COSTS, FILLED, HELD_OUT, PROBED, IN_TIME) == [
        *("failed", "passed", "not examined", "not examined", "not examined")
    ]
    assert lines(study)[COSTS].because == "commission 0, slippage 0 of the traded value"
    paying = gate_study(Alternate, BARS, gate_of("scripted:trend"), commission=0.0001)
    assert outcomes(paying, COSTS) == ["passed"]


def test_an_account_of_the_users_own_is_not_examined() -> None:
    def setup(cerebro: Any, market: Any) -> None:
        market.add_to(cerebro)
        cerebro.broker.setcash(10_000.0)

    own = gate_study(Alternate, BARS, gate_of("scripted:trend"), setup=setup)
    assert outcomes(own, COSTS, FILLED) == ["not examined", "not examined"]


def test_bars_that_the_model_has_read_fail_and_later_ones_pass(study: GateStudy) -> None:
    assert lines(study)[UNREAD].because == "a scripted model has read nothing"
    read = asking(
        study, model="Llama-3.2-1B-Instruct.gguf"
    )  # its makers say 2023-12-31; the bars are of 2020
    assert outcomes(read, UNREAD) == ["failed"]
    assert "training data to 2023-12-31" in lines(read)[UNREAD].because
    later = dataclasses.replace(
        read,
        **{
            name: dataclasses.replace(
                run, equity=run.equity.set_axis(run.equity.index + pd.Timedelta("2000D"))
            )
            for name, run in read.runs.items()
        },
    )
    assert outcomes(later, UNREAD) == ["passed"]
    assert outcomes(asking(study, model="memory:unknown.csv"), UNREAD) == ["not examined"]


def test_prompts_that_name_the_market_fail_unless_that_is_taken_out(study: GateStudy) -> None:
    assert outcomes(study, MASKED) == ["passed"]
    assert outcomes(asking(study, identify="Gold, 2020"), MASKED) == ["failed"]
    assert outcomes(asking(study, identify="Gold, 2020", reader="contrast"), MASKED) == ["passed"]


def test_a_walk_forward_is_held_out(results: dict[str, Any]) -> None:
    found = lines(results["walk-forward"])
    assert found[HELD_OUT].outcome == "passed"
    assert "out of sample only" in found[HELD_OUT].because
    assert (
        found["Stretches to choose on and to judge by are told apart, with their dates."].outcome == "passed"
    )
    assert found["Everything that was tried is counted."].because == "4 configurations are in the ledger"


@pytest.mark.parametrize(("model", "outcome"), [("scripted:random", "passed"), ("leaks", "failed")])
def test_the_probes_answer_the_line_on_memory(
    model: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BARS.to_csv(tmp_path / "bars.csv")
    name = f"memory:{tmp_path / 'bars.csv'}?horizon=1" if model == "leaks" else model
    gate = dataclasses.replace(gate_of("scripted:trend"), advisor=AdvisorConfig(model=name, cache_mode="off"))
    found = leakage_probes(BARS, gate, horizon=1, points=250, controls=False)
    assert outcomes(found, PROBED, IN_TIME, COSTS) == [outcome, "passed", "not examined"]


def test_lines_are_the_same_for_a_panel_and_say_what_proves_them() -> None:
    panel = panel_study(Alternate, {"a": BARS, "b": random_walk(300, seed=2)}, gate_of("scripted:trend"))
    found = checklist(panel)
    assert len(found) == 18
    assert all(line.command.startswith("bt-llm ") and line.because for line in found)
    assert (
        lines(panel)["What was traded is known by its content."].because
        == "bars of 2 data sets, known by SHA-256"
    )


def test_every_page_ends_with_both(results: dict[str, Any], tmp_path: Path) -> None:
    for name, result in results.items():
        write_report(tmp_path / f"{name}.html", result, data=BARS)
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        last = page.index("Where this comes from")
        assert page.index("Checklist: Kong et al.") < page.index("Checklist: Yao and Zheng") < last
        assert page.count('<b class="') == 18


def test_one_run_alone_is_answered_and_what_traded_nothing_has_no_lists(results: dict[str, Any]) -> None:
    ungated = results["run"].ungated
    assert outcomes(ungated, COSTS, FILLED) == ["failed", "passed"]
    policy = results["run"].gated.asked[0].policy()
    assert list(checklist_sections(policy)) == []
    assert [section.kind for section in checklist_sections(ungated)] == [
        "sentences",
        "checklist",
        "checklist",
    ]
