"""Panels on the command line and in study files: every command, page, table and JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli_cases import Cli, one_line
from tests.panel_cases import folder_of
from tests.walk_forward_cases import cross_file

MODEL = ["-m", "scripted:trend", "--percent", "60"]
JSON = ["--format", "json"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


@pytest.fixture
def strategy(tmp_path: Path) -> list[str]:
    return ["-s", cross_file(tmp_path)]


def found(done: Any) -> dict[str, Any]:
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


def test_a_folder_a_glob_and_files_are_the_same_panel(cli: Cli, files: Path, strategy: list[str]) -> None:
    ways = [[str(files)], [f"{files}/*.csv"], [f"{name}={files / name}.csv" for name in "abc"]]
    told = [
        found(cli("run", *strategy, *(part for one in way for part in ("-d", one)), "--each", *MODEL, *JSON))
        for way in ways
    ]
    for part in ("pooled", "effects", "sentences", "notes"):
        assert told[0][part] == told[1][part] == told[2][part]
    assert list(told[0]["symbols"]) == ["a", "b", "c"]
    assert told[0]["effects"]["sharpe"]["symbols"].keys() == told[0]["symbols"].keys()


class TestRun:
    def test_memberships_page_tables_and_picture(
        self, cli: Cli, files: Path, strategy: list[str], tmp_path: Path
    ) -> None:
        where = [str(tmp_path / name) for name in ("page.html", "tables", "curves.png")]
        out = ["--report", where[0], "--csv", where[1], "--plot", where[2]]
        done = cli("run", *strategy, "-d", str(files.parent / "members.csv"), "--each", *MODEL, *out)
        assert done.code == 0, done.err
        assert "back 2020-05-01" in done.out
        assert "position is left open" in " ".join(done.out.split())
        page = Path(where[0]).read_text(encoding="utf-8")
        assert 'data-kind="forest"' in page
        assert page.count('class="forest') == 4  # three symbols and the pooled record
        # The first stretch of `back` is shorter than the warm-up.
        assert "left out: back: " in " ".join(done.out.split())
        assert str(tmp_path) not in page
        with Path(where[1], "symbols.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["run"] for row in rows} == {"gated", "ungated", "buy_and_hold"}
        assert {row["symbol"] for row in rows} == {"late", "gone", "back 2020-05-01"}
        with Path(where[1], "trades.csv").open(encoding="utf-8") as file:
            assert {"run", "symbol", "pnlcomm"} <= set(next(csv.DictReader(file)))
        assert Path(where[2]).stat().st_size > 0

    def test_weights_are_those_given(self, cli: Cli, files: Path, strategy: list[str]) -> None:
        told = [*strategy, "-d", str(files), "--each", *MODEL, *JSON]
        assert found(cli("run", *told, "--weight", "a=3"))["weights"] == {"a": 3.0, "b": 1.0, "c": 1.0}
        assert "no symbol 'z'" in one_line(cli("run", *told, "--weight", "z=3"))
        assert "expected NAME=NUMBER" in one_line(cli("run", *told, "--weight", "a=much"))
        assert "expected one of a symbol" in one_line(cli("run", *told, "--weight", "a=3", "--weight", "a=2"))

    def test_what_a_panel_cannot_do_is_said(self, cli: Cli, files: Path, strategy: list[str]) -> None:
        told = [*strategy, "-d", str(files), *MODEL]
        assert "without --each" in one_line(cli("run", *told, "--weight", "a=3"))
        assert cli("test", *told, "--each", "--shifts", "3").code == 2
        assert "a folder" in one_line(cli("run", *told))
        assert "no file is like" in one_line(cli("run", *strategy, "-d", f"{files}/*.txt", *MODEL, "--each"))

    def test_a_manifest_of_all_its_runs_is_reproduced(
        self, cli: Cli, files: Path, strategy: list[str], tmp_path: Path
    ) -> None:
        runs = tmp_path / "runs.json"
        done = cli("run", *strategy, "-d", str(files), "--each", *MODEL, "--manifest", str(runs))
        assert done.code == 0, done.err
        assert f"manifest: {runs}" in done.err
        again = cli("reproduce", str(runs))
        assert (again.code, again.out.strip()) == (0, "identical")
        assert "3 symbols and their pooled figures" in again.err
        document = json.loads(runs.read_text())
        document["symbols"][1]["runs"]["gated"]["bars"] += 1
        runs.write_text(json.dumps(document))
        other = cli("reproduce", str(runs))
        assert other.code == 1
        assert other.out.startswith("b: trade: gated: the trades are the same, the equity curve is not")
        told = json.loads(cli("reproduce", str(runs), *JSON).out)
        assert [(one["symbol"], one["what"]) for one in told["differences"]] == [("b", "trade")]
        moved = [f"b={(files / 'b.csv').rename(files / 'other.csv')}"]
        assert cli("reproduce", str(runs), "-d", *moved).out == other.out


class TestTestAndCompare:
    def test_a_test_is_joint_and_counted(
        self, cli: Cli, files: Path, strategy: list[str], tmp_path: Path
    ) -> None:
        told = [*strategy, "-d", str(files), "--each", *MODEL, "--random", "3", "--resamples", "50"]
        first = found(cli("test", *told, *JSON))
        assert first["random"]["n"] == 3
        assert [row["symbol"] for row in first["symbols_among_random"]] == ["a", "b", "c"]
        assert first["tried"]["n_trials"] == 1
        assert found(cli("test", *told, *JSON))["tried"] == first["tried"]
        second = found(cli("test", *told, *JSON, "--min-confidence", "0.4"))
        assert second["tried"]["n_trials"] == 2
        elsewhere = found(cli("test", *told, *JSON, "-o", str(tmp_path / "other")))
        assert elsewhere["tried"]["n_trials"] == 1
        page = tmp_path / "page.html"
        assert cli("test", *told, "--report", str(page)).code == 0
        assert 'data-kind="histograms"' in page.read_text(encoding="utf-8")

    def test_a_run_that_stores_nothing_says_that_it_is_not_counted(
        self, cli: Cli, files: Path, strategy: list[str]
    ) -> None:
        told = [*strategy, "-d", str(files / "a.csv"), *MODEL, "--random", "2", "--shifts", "0"]
        done = cli("test", *told, "--resamples", "50", "--cache-mode", "off")
        assert done.code == 0
        assert "trials are not counted in cache mode off" in done.err

    def test_symbols_files_of_one_name_and_repeats_are_counted_by_content(
        self, cli: Cli, files: Path, strategy: list[str], tmp_path: Path
    ) -> None:
        again = tmp_path / "again"
        again.mkdir()
        (again / "a.csv").write_bytes((files / "b.csv").read_bytes())
        told = [*MODEL, "--random", "2", "--shifts", "0", "--resamples", "50", *JSON]
        counts = [
            found(cli("test", *strategy, "-d", str(file), *told))["tried"]["n_trials"]
            for file in (files / "a.csv", files / "b.csv", again / "a.csv", files / "a.csv")
        ]
        assert counts == [1, 2, 2, 2]

    def test_compare_names_the_better_model_if_any(
        self, cli: Cli, files: Path, strategy: list[str], tmp_path: Path
    ) -> None:
        models = ["-m", "scripted:trend", "-m", "scripted:contrarian", "--percent", "60", "--resamples", "50"]
        told = [*strategy, "-d", str(files), "--each", *models]
        done = found(cli("compare", *told, *JSON))
        assert [(pair["first"], pair["second"]) for pair in done["between"]] == [
            ("scripted:trend", "scripted:contrarian")
        ]
        assert {pair["second"] for pair in done["against"]} >= {"ungated"}
        assert done["sentences"][0].startswith("Which is better: ")
        assert done["tried"]["n_trials"] == 2
        page = tmp_path / "page.html"
        assert cli("compare", *told, "--report", str(page), "--csv", str(tmp_path / "tables")).code == 0
        assert 'data-kind="forest"' in page.read_text(encoding="utf-8")


class TestPower:
    def test_what_could_be_found_is_said_and_nobody_is_asked(
        self, cli: Cli, files: Path, strategy: list[str]
    ) -> None:
        nobody = ["-m", "openai:http://127.0.0.1:9?model=a", "--percent", "60", "--random", "24"]
        told = [*strategy, "-d", str(files.parent / "members.csv"), "--each", *nobody]
        made = found(cli("plan", "--power", *told, *JSON))
        assert made["symbols"] == ["late", "gone", "back 2020-05-01"]
        assert list(made["left_out"]) == ["back"]
        assert 0 < made["common_dates"] < made["dates"]
        assert made["test"]["smallest_p_value"] == 1 / 25
        assert "test --each" in made["sentences"][1]
        assert not any("found" in made[part] or "p_value" in made[part] for part in ("test", "comparison"))


STUDY = """\
strategy = "cross.py:Cross"
data = "symbols/*.csv"
[universe]
weights = {{a = 2.0}}
parameters = "{parameters}"
[account]
percent = 60.0
[gate.advisor]
model = "scripted:trend"
[grid]
fast = [2, 4]
[walk_forward]
train_size = 150
test_size = 40
[compare]
models = ["scripted:trend", "scripted:contrarian"]
resamples = 50
"""


class TestStudyFiles:
    @pytest.mark.parametrize("parameters", ["panel", "symbol"])
    def test_walkforward(self, cli: Cli, files: Path, strategy: list[str], parameters: str) -> None:
        study = files.parent / "study.toml"
        study.write_text(STUDY.format(parameters=parameters), encoding="utf-8")
        out = files.parent / "out"
        page, tables = out / "page.html", out / "tables"
        told = ["walkforward", str(study), "-o", str(out)]
        done = found(cli(*told, *JSON, "--report", str(page), "--csv", str(tables)))
        assert done["weights"] == {"a": 2.0, "b": 1.0, "c": 1.0}
        assert done["n_trials"] == (2 if parameters == "panel" else 6)
        assert [fold["settings"] is None for fold in done["folds"]] == [parameters == "symbol"] * 2
        assert json.loads((out / "result.json").read_text(encoding="utf-8")) == done
        assert "walk-forward on a panel" in page.read_text(encoding="utf-8")
        assert (tables / "returns.csv").exists()
        text = cli(*told)
        assert "0 of" in text.err
        assert "Folds, chosen by sharpe" in text.out

    def test_compare_plan_and_budget(self, cli: Cli, files: Path, strategy: list[str]) -> None:
        study = files.parent / "study.toml"
        study.write_text(STUDY.format(parameters="panel"), encoding="utf-8")
        done = found(cli("compare", str(study), *JSON))
        assert list(done["symbols"]) == ["a", "b", "c"]
        assert (files.parent / "study-results" / "trials.sqlite").exists()
        planned = found(cli("plan", str(study), *JSON))
        assert planned["bars"] == 3 * 260
        could = found(cli("plan", str(study), "--power", "--random", "3", *JSON))
        smallest = [done["primary"]["smallest_p_value"], 1 / 4]
        assert [could[part]["smallest_p_value"] for part in ("comparison", "test")] == smallest
        assert could["test"]["cannot_tell"]

    def test_a_wrong_choice_is_one_line(self, cli: Cli, files: Path, strategy: list[str]) -> None:
        study = files.parent / "study.toml"
        study.write_text(STUDY.format(parameters="all"), encoding="utf-8")
        assert "universe.parameters = 'all'" in one_line(cli("walkforward", str(study)))
