"""``bt-llm walkforward``: the folds, what they chose, and what it comes to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bt_llm.advice import forget_answers
from bt_llm.cli._walkforward import walkforward
from bt_llm.exceptions import ConfigError
from bt_llm.research import load_study
from tests.engines import walk
from tests.walk_forward_cases import cross_file

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(walkforward)

TEXT = """\
strategy = "cross.py:Cross"
data = "bars.csv"

[gate.advisor]
model = "scripted:random"

[grid]
fast = [2, 4]
gate.require = ["agree", "not_against"]

[walk_forward]
train_size = "6MS"
test_size = "1MS"
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    forget_answers()
    cross_file(tmp_path)
    walk(300).to_csv(tmp_path / "bars.csv", index_label="time")
    (tmp_path / "cross.toml").write_text(TEXT, encoding="utf-8")
    return tmp_path / "cross.toml"


def test_tables(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, [str(study)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("= train  # test")
    assert lines[1].endswith("| 2020-07-01 to 2020-07-31")
    assert max(map(len, lines)) <= 80
    for words in (
        "Folds, chosen by sharpe",
        "not_against",
        "out of sample (joined)",
        "Parameter stability",
        "walk-forward efficiency",
        "4 (4 here, in 3 folds)",
        "as the best of 4 trials (DSR)",
        "probability of backtest overfitting (PBO)",
    ):
        assert words in result.stdout
    assert "12 of 12 trials run" in result.stderr


def test_json_is_that_of_the_library_and_a_second_run_runs_nothing(study: Path, tmp_path: Path) -> None:
    command = [str(study), "--format", "json", "--output", str(tmp_path / "out")]
    first, again = CliRunner().invoke(app, command), CliRunner().invoke(app, command)
    assert first.exit_code == again.exit_code == 0, first.output
    assert first.stdout == again.stdout
    assert "0 of 12 trials run" in again.stderr
    expected = load_study(study).run_walk_forward(output=None)
    assert json.loads(first.stdout) == json.loads(json.dumps(expected.to_dict()))
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8")) == json.loads(
        first.stdout
    )
    assert not (tmp_path / "cross-results").exists()


def test_a_file_of_somebody_else_in_its_folder_is_told_before_the_work(study: Path, tmp_path: Path) -> None:
    (tmp_path / "equity.csv").write_text("day,equity\n", encoding="utf-8")
    result = CliRunner().invoke(app, [str(study), "--output", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "equity.csv: a file is there that bt_llm has not written" in str(result.exception)
    assert sorted(path.name for path in tmp_path.glob("*.sqlite")) == []


def test_verdicts_are_kept_where_the_option_says(study: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(study), "--cache", str(tmp_path / "verdicts")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "verdicts" / "cache.db").exists()


def test_one_combination_and_a_strategy_that_never_trades(study: Path) -> None:
    text = (
        TEXT.partition("[gate.advisor]")[0]
        + "[params]\nfast = 8\n[walk_forward]"
        + TEXT.partition("[walk_forward]")[2]
    )
    study.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(app, [str(study)])
    assert result.exit_code == 0, result.output
    assert "Parameter stability" not in result.stdout
    assert "│ -" in result.stdout.replace("  ", "") or " - │" in result.stdout


def test_a_wrong_study_is_one_line(study: Path) -> None:
    study.write_text(TEXT.replace("train_size", "trainsize"), encoding="utf-8")
    result = CliRunner().invoke(app, [str(study)])
    assert isinstance(result.exception, ConfigError)
    assert "did you mean 'train_size'" in str(result.exception)
