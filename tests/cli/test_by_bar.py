"""Models that answer by the bar, on the command line and in study files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bt_llm.cli._app import app
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError
from bt_llm.research import load_study

FAMILY = "dated:2017-04-30=scripted:trend,2017-05-12=scripted:contrarian"


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    load_bars(shipped("eurusd_hourly.csv"))[:600].to_csv(tmp_path / "bars.csv")
    return tmp_path / "bars.csv"


def test_a_policy_of_each_member_and_its_drift(tmp_path: Path) -> None:
    plot = ["--plot", str(tmp_path / "policy.html")]
    done = CliRunner().invoke(app, ["policy", "-m", FAMILY, "--format", "json", *plot])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "policy.html").is_file()
    told = json.loads(done.stdout)
    assert [one["model"] for one in told["policies"]] == ["scripted:trend", "scripted:contrarian"]
    (drift,) = told["drift"]
    assert drift["models"] == ["scripted:contrarian", "scripted:trend"]
    drawn = CliRunner().invoke(app, ["policy", "-m", FAMILY])
    assert "From scripted:trend to scripted:contrarian" in " ".join((drawn.stdout + drawn.stderr).split())
    both = CliRunner().invoke(app, ["policy", "-m", FAMILY, "-m", "scripted:trend"])
    assert isinstance(both.exception, ConfigError)


def test_a_run_says_how_many_bars_were_too_early_and_after_them_nothing(bars: Path) -> None:
    told = [
        "run",
        "-s",
        f"{shipped('sma_cross.py')}:GatedSmaCross",
        "-d",
        str(bars),
        "-m",
        FAMILY,
        "--format",
        "json",
    ]
    early = json.loads(CliRunner().invoke(app, told).stdout)
    assert "bars have no verdict" in early["problems"][0]
    late = json.loads(CliRunner().invoke(app, [*told, "--after-cutoff"]).stdout)
    assert late["problems"] == []
    assert late["advice"]["answered_by"] == ["scripted:contrarian", "scripted:trend"]


def test_paths_in_a_study_start_beside_it(tmp_path: Path, bars: Path) -> None:
    (tmp_path / "family.toml").write_text(
        'format = 1\n[[member]]\nmodel = "scripted:trend"\nknowledge_ends = 2017-03-31\n'
    )
    (tmp_path / "study.toml").write_text(
        f'strategy = "{shipped("sma_cross.py")}:GatedSmaCross"\ndata = "bars.csv"\n'
        '[gate.advisor]\nmodel = "dated:family.toml"\n'
        '[compare]\nmodels = ["dated:family.toml", "decisions:d.csv?valid=3d"]\n'
    )
    study = load_study(tmp_path / "study.toml")
    gate = study.make_gate()
    assert gate is not None
    assert gate.advisor.model == f"dated:{tmp_path / 'family.toml'}"
    assert study.compare is not None
    assert study.compare.models == [gate.advisor.model, f"decisions:{tmp_path / 'd.csv'}?valid=3d"]


def test_a_plan_lists_the_members() -> None:
    done = CliRunner().invoke(app, ["plan", "--bars", "500", "-m", FAMILY, "--format", "json"])
    assert [one["model"] for one in json.loads(done.stdout)["models"]] == [
        "scripted:trend",
        "scripted:contrarian",
    ]


@pytest.mark.parametrize("command", [["ask", "news", "-m", FAMILY, "x"], ["doctor", "--model", FAMILY]])
def test_what_has_no_bar_refuses_in_one_line(command: list[str]) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
    assert not isinstance(done.exception, AttributeError | TypeError | AssertionError)
