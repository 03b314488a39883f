"""Out of sample, which model of a search is better: each as if it had been searched alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bt_llm.gates import AlwaysOpen
from bt_llm.research import WalkForward, WalkForwardResult
from bt_llm.research.walk_forward._contenders import groups_of
from tests.engines import walk
from tests.research_cases import Alternate, gate_of, regimes
from tests.walk_forward_cases import QUICK, cross_file

BARS = walk(400, seed=3)
SPLIT = WalkForward(train_size=100, test_size=60)
MODELS = ["scripted:trend", "scripted:contrarian"]


def study(strategy: Any, bars: Any = BARS, split: WalkForward = SPLIT, **options: Any) -> WalkForwardResult:
    return split.run(strategy, bars, **{"gate": QUICK, **options})


def test_each_model_stands_as_if_it_had_been_searched_alone(tmp_path: Path) -> None:
    cross, grid = cross_file(tmp_path), {"fast": [2, 3, 4]}
    found = study(cross, grid={**grid, "gate.advisor.model": MODELS})
    alone = [study(cross, grid={**grid, "gate.advisor.model": [name]}).metrics for name in MODELS]
    standing = found.standing
    assert standing is not None
    assert standing.candidates == tuple(MODELS)
    assert standing.benchmarks == ("ungated",)
    (pair,) = standing.between.pairs
    assert pair.estimate == pytest.approx(alone[0]["sharpe"] - alone[1]["sharpe"])
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert back["standing"]["primary"]["answer"] == standing.answer
    assert any(section.title == "Who is better" for section in found.sections())


def test_files_of_one_name_in_two_folders_are_two_contenders() -> None:
    models = ["q4/llama.gguf", "q8/llama.gguf", "other/smollm.gguf"]
    tried = [{"fast": fast, "gate.advisor.model": model} for fast in (2, 3) for model in models]
    found = groups_of(SimpleNamespace(combinations=tried))
    assert found == {"q4/llama.gguf": [0, 3], "q8/llama.gguf": [1, 4], "smollm": [2, 5]}


def test_one_model_stands_to_its_own_choice_without_a_gate(tmp_path: Path) -> None:
    found = study(cross_file(tmp_path), params={"fast": 3, "gate.advisor.model": "scripted:trend"})
    opened = study(cross_file(tmp_path), gate=AlwaysOpen(warm_up=16), params={"fast": 3})
    standing = found.standing
    assert standing is not None
    (shown,) = [section for section in found.sections() if section.title == "Who is better"]
    assert shown.text.startswith("The interval of the Sharpe ratio holds in 95 of 100 samples. Could be")
    assert (standing.candidates, standing.between) == (("chosen",), None)
    (pair,) = standing.against.pairs
    assert pair.estimate == pytest.approx(found.metrics["sharpe"] - opened.metrics["sharpe"])


def test_without_a_gate_there_is_nothing_to_compare(tmp_path: Path) -> None:
    found = study(cross_file(tmp_path), gate=None, params={"fast": 3})
    assert found.standing is None
    assert found.to_dict()["standing"] is None


def test_a_model_that_knows_is_found_better_out_of_sample() -> None:
    found = study(
        Alternate,
        regimes(900, drift=0.003),
        WalkForward(train_size=150, test_size=150),
        gate=gate_of("scripted:trend"),
        grid={"gate.advisor.model": ["scripted:trend", "scripted:random:9"]},
    )
    assert not found.problems
    standing = found.standing
    assert standing is not None
    assert standing.answer.startswith("Which is better: scripted:trend better than scripted:random:9 by +")
    assert standing.spa["ungated"] <= 0.05


def test_too_few_bars_and_lost_accounts_are_said(tmp_path: Path) -> None:
    short = study(
        cross_file(tmp_path), BARS[:130], WalkForward(train_size=100, test_size=20), params={"fast": 3}
    )
    assert short.standing is None
    assert short.notes[-1] == "19 out-of-sample returns are too few to compare models by"
