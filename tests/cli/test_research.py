from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from bt_llm.advice import forget_answers
from bt_llm.cli import _research as research
from bt_llm.data import shipped
from bt_llm.exceptions import BtLlmError
from bt_llm.research import load_study
from tests.engines import walk
from tests.walk_forward_cases import cross_file

app = typer.Typer()
app.command("test")(research.run_test)
app.command()(research.compare)

QUICK = ["--resamples", "99", "--commission", "0.0001"]


@pytest.fixture
def bars(tmp_path: Path) -> str:
    path = tmp_path / "bars.csv"
    walk(400, seed=3).rename_axis("time").to_csv(path)
    return str(path)


def run(command: str, bars: str, *arguments: str) -> Result:
    strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    return CliRunner().invoke(
        app, [command, "--strategy", strategy, "--data", bars, "--param", "slow=15", *QUICK, *arguments]
    )


def test_test_prints_one_json_object(bars: str) -> None:
    arguments = ["-m", "scripted:trend", "--random", "9", "--shifts", "2", "--format", "json"]
    done = run("test", bars, *arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["random"]["n"] == 9
    assert found["shifted"]["n"] == 2
    assert found["sentences"][1] == found["against"]["sentence"]
    assert [one["second"] for one in found["against"]["sharpe"]] == ["ungated", "rule"]
    assert set(found["runs"]) == {"gated", "ungated", "rule", "closed", "buy_and_hold"}
    assert json.loads(run("test", bars, *arguments, "--jobs", "2").stdout) == found
    assert json.loads(run("test", bars, *arguments, "--seed", "1").stdout)["random"] != found["random"]


def test_test_prints_tables_and_sentences(bars: str) -> None:
    done = run("test", bars, "-m", "scripted:trend", "--random", "4", "--shifts", "0")
    assert done.exit_code == 0, done.output
    for part in (
        "Results",
        "The gate among 4 random",
        "buy and hold",
        "random gates",
        "Findings",
        "exposure",
        "Better than without the model",
        "In Sharpe ratio, of the two, adjusted",
    ):
        assert part in done.stdout, part


def test_compare_prints_one_json_object(bars: str) -> None:
    done = run(
        "compare",
        bars,
        "-m",
        "scripted:trend",
        "-m",
        "scripted:contrarian",
        "--horizon",
        "2",
        "--format",
        "json",
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found["runs"]) == ["scripted:trend", "scripted:contrarian", "ungated", "rule"]
    assert found["pairs"][0]["models"] == ["scripted:trend", "scripted:contrarian"]


def test_compare_prints_tables_and_sentences(bars: str) -> None:
    done = run("compare", bars, "-m", "scripted:trend", "-m", "scripted:random:1", "-m", "scripted:bullish")
    assert done.exit_code == 0, done.output
    for part in ("Results", "Calmar", "turnover", "Models", "Brier", "Bars by answer", "Which is better"):
        assert part in done.stdout, part


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("compare", ["-m", "scripted:trend"], "expected two models or more"),
        ("compare", ["-m", "scripted:trend", "-m", "scripted:trend"], "'scripted:trend' is taken"),
        ("test", ["-m", "scripted:trend", "--per", "bars"], "per='bars'"),
        ("test", ["-m", "scripted:trend", "--random", "0"], "--random=0"),
        ("test", ["-m", "scripted:trend", "--require", "agrees"], "require='agrees'"),
        ("test", ["-m", "scripted:trend", "--jobs", "0"], "n_jobs=0"),
        ("test", ["-m", "scripted:trend", "-p", "slwo=3"], "did you mean 'slow'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(bars: str, command: str, arguments: list[str], says: str) -> None:
    done = run(command, bars, *arguments)
    assert isinstance(done.exception, BtLlmError)
    assert says in str(done.exception)


def test_a_model_is_required_to_compare(bars: str) -> None:
    done = run("compare", bars)
    assert done.exit_code == 2
    assert "--model missing" in done.stderr
    done = CliRunner().invoke(app, ["compare", "--model", "scripted:trend"])
    assert done.exit_code == 2
    assert "--strategy, --data missing" in done.stderr


STUDY = """\
strategy = "cross.py:Cross"
data = "bars.csv"
params.slow = 9

[gate]
require = "not_against"

[account]
commission = 0.001

[compare]
models = ["scripted:trend", "scripted:random"]
resamples = 50
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    forget_answers()
    cross_file(tmp_path)
    walk(300).to_csv(tmp_path / "bars.csv", index_label="time")
    (tmp_path / "one.toml").write_text(STUDY, encoding="utf-8")
    return tmp_path / "one.toml"


def results(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out what asking cost, which differs from time to time."""
    return {name: value for name, value in found.items() if name != "costs"}


def test_compare_runs_a_study_file(study: Path) -> None:
    verdicts = study.parent / "verdicts"
    done = CliRunner().invoke(app, ["compare", str(study), "--format", "json", "--cache", str(verdicts)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found["runs"]) == ["scripted:trend", "scripted:random", "ungated", "rule"]
    expected = json.loads(json.dumps(load_study(study).run_compare().to_dict()))
    assert results(found) == results(expected)
    assert (verdicts / "cache.db").exists()
    shown = CliRunner().invoke(app, ["compare", str(study)])
    assert "Bars by answer" in shown.stdout


@pytest.mark.parametrize(
    ("option", "value"),
    [("--strategy", "a.py:A"), ("--data", "a.csv"), ("-m", "smollm2"), ("--seed", "0"), ("--cash", "10000")],
)
def test_what_the_file_says_is_not_said_twice(study: Path, option: str, value: str) -> None:
    done = CliRunner().invoke(app, ["compare", str(study), option, value])
    assert done.exit_code == 2
    name = "--model" if option == "-m" else option
    assert f"{name} beside a study file" in done.stderr


def test_a_study_without_a_comparison(study: Path) -> None:
    study.write_text(STUDY.partition("[compare]")[0], encoding="utf-8")
    done = CliRunner().invoke(app, ["compare", str(study)])
    assert isinstance(done.exception, BtLlmError)
    assert "no [compare] in the study" in str(done.exception)
