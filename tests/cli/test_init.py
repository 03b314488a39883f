"""The folder of `bt-llm init`: what its README says runs in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bt_llm.advice import forget_answers
from bt_llm.cli import app
from bt_llm.cli._init import init
from tests.cli_cases import Cli, one_line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = typer.Typer()
    made.command()(init)
    done = CliRunner().invoke(made, [str(tmp_path / "mine")], catch_exceptions=False)
    assert done.exit_code == 0
    assert {Path(line) for line in done.stdout.splitlines()} == {
        path for path in (tmp_path / "mine").rglob("*") if path.is_file()
    }
    return tmp_path / "mine"


def commands(folder: Path, block: int) -> list[list[str]]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[block].splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("bt-llm ")]


@pytest.mark.model
def test_every_command_of_its_readme_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert CliRunner().invoke(app, commands(folder, 1)[0]).exit_code == 0  # or asking takes its time
    told = commands(folder, 0)
    assert [command[0] for command in told] == ["data", "run", "test", "walkforward", "compare"]
    for command in told:
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "results").is_dir()


def test_without_the_model_its_verdicts_are_replayed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("bt_llm.models._files._PACKAGE", "no_such_package")
    (unpack,) = commands(folder, 1)
    assert CliRunner().invoke(app, unpack).exit_code == 0
    monkeypatch.setenv("BT_LLM_CACHE_MODE", "replay")
    forget_answers()
    run = [*commands(folder, 0)[1][:-2], "--format", "json"]
    done = CliRunner().invoke(app, run, catch_exceptions=False)
    found = json.loads(done.stdout)
    assert (found["advice"]["model_calls"], found["problems"]) == (0, [])
    assert 0 < found["runs"]["gated"]["trades"] < found["runs"]["ungated"]["trades"]


def test_its_notebook_runs(folder: Path) -> None:
    cells = json.loads((folder / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    program = code.replace('model="smollm2"', 'model="scripted:trend"') + "\nprint(study.gated.final_value)"
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2]}"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0


def test_nothing_is_written_over(cli: Cli, folder: Path) -> None:
    (folder / "strategy.py").write_text("mine", encoding="utf-8")
    outcome = cli("init", str(folder))
    assert (outcome.code, "is there already" in one_line(outcome)) == (2, True)
    assert (folder / "strategy.py").read_text(encoding="utf-8") == "mine"
