"""``bt-llm multiverse`` and ``bt-llm explain``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bt_llm.cli import app
from bt_llm.data import shipped

STRATEGY = ["-s", f"{shipped('sma_cross.py')}:GatedSmaCross", "-d", str(shipped("eurusd_hourly.csv"))]


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_a_multiverse_from_its_pack_is_the_one_that_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["multiverse", "-m", "scripted:random", "-w", "market", "-w", "market/brief", "--format", "json"]
    pack = tmp_path / "verdicts.jsonl.gz"
    first = run(*asked, "--cache", tmp_path / "cache", "--write-pack", pack)
    monkeypatch.setattr("bt_llm.models.ScriptedBackend.score", None)  # nobody is asked again

    again = run(*asked, "--pack", pack)

    assert json.loads(first) == json.loads(again)
    assert json.loads(first)["specifications"] == 24


def test_a_multiverse_is_traded(tmp_path: Path) -> None:
    told = [
        "-m",
        "scripted:random",
        "-w",
        "market",
        "--calibration",
        "grid",
        "--random",
        "5",
        "--cache",
        tmp_path,
    ]
    text = run("multiverse", *told, *STRATEGY, "--report", tmp_path / "page.html")

    assert "Results over all specifications" in text
    assert "Cannot tell whether the timing of the specifications" in " ".join(text.split())  # 5 draws
    # Six orders of the labels, drawn once for a desk and once for a telephone.
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<circle") == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--template", "market"], "a multiverse has several; give each by --wording"),
        (["-s", "x.py"], "--strategy and --data: expected both of them"),
        (["-w", "market", "-w", "market"], "wording 'market' is given twice"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["multiverse", "-m", "scripted:random", *arguments])
    assert done.exit_code != 0
    assert message in str(done.exception)


def test_a_model_is_tested_against_its_own_rule(tmp_path: Path) -> None:
    model = ["-m", "scripted:trend", "--cache", tmp_path]
    text = run("explain", *model, "--export", tmp_path / "rule.py", "--format", "json")
    few = ["--random", "9", "--shifts", "0", "--resamples", "99", "--format", "json"]
    found = json.loads(run("test", *model, *STRATEGY, *few, "--rule", tmp_path / "rule.py"))

    assert json.loads(text)["leaves"] == 3
    assert found["runs"]["rule"]["return"] == found["runs"]["gated"]["return"] != 0.0
