"""Strategies that know of no gate, in their own set-up and on any number of datas, from every command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import backtrader as bt
import pytest

from bt_llm.backtest import Market, load_strategy
from bt_llm.gates import Gate
from tests.cli_cases import Cli, one_line
from tests.engines import walk
from tests.own_strategies import futures

WARM_UP = Gate().warm_up_bars
NAMES = [f"s{number:02}" for number in range(12)]
PAIR = {"near": "s00.csv", "far": "s01.csv"}

CASES: dict[str, dict[str, Any]] = {
    "Pair": {"data": PAIR, "setup": "own.py:futures", "grid": {"period": [5, 10]}},
    "Rotation": {"data": [f"{name}.csv" for name in NAMES], "grid": {"held": [2, 3]}},
    "Rebalancer": {"data": "s00.csv", "grid": {"share": [0.3, 0.6]}},
    "Bracket": {"data": "s00.csv", "grid": {"period": [5, 10]}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve symbols, each later one a week younger, and the strategies."""
    made = tmp_path_factory.mktemp("own")
    for number, name in enumerate(NAMES):
        late = max(0, 7 * (number - 1))  # the pair begins together
        walk(260, seed=number)[late:].to_csv(made / f"{name}.csv", index_label="time")
    text = (Path(__file__).parent.parent / "own_strategies.py").read_text(encoding="utf-8")
    (made / "own.py").write_text(text, encoding="utf-8")
    return made


def arguments(folder: Path, name: str) -> list[str]:
    case = CASES[name]
    data = case["data"]
    named = data.items() if isinstance(data, dict) else [("", one) for one in [*data]]
    named = [("", data)] if isinstance(data, str) else named
    files = [f"{key}={folder / file}" if key else str(folder / file) for key, file in named]
    setup = ["--setup", str(folder / case["setup"])] if "setup" in case else []
    return ["-s", f"{folder / 'own.py'}:{name}", *(part for file in files for part in ("-d", file)), *setup]


def found(done: Any) -> dict[str, Any]:
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


@pytest.mark.parametrize("name", CASES)
class TestEveryCommand:
    def test_run(self, cli: Cli, folder: Path, name: str) -> None:
        done = found(cli("run", *arguments(folder, name), "-m", "scripted:trend", "--format", "json"))
        runs = done["runs"]
        assert done["problems"] == []
        assert runs["ungated"]["trades"] > 0
        assert runs["gated"]["orders"]["vetoed"] > runs["ungated"]["orders"]["vetoed"]
        assert runs["gated"]["exposure"] <= runs["ungated"]["exposure"]

    def test_test(self, cli: Cli, folder: Path, name: str) -> None:
        options = ["-m", "scripted:trend", "--random", "2", "--shifts", "0", "--resamples", "50"]
        done = found(cli("test", *arguments(folder, name), *options, "--format", "json"))
        assert done["problems"] == []
        assert done["random"]["n"] == 2
        assert done["runs"]["closed"]["trades"] == 0
        assert 0 < done["entries"]["pass_rate"] < 1

    def test_compare(self, cli: Cli, folder: Path, name: str) -> None:
        models = ["-m", "scripted:trend", "-m", "scripted:contrarian", "--resamples", "50"]
        done = found(cli("compare", *arguments(folder, name), *models, "--format", "json"))
        assert done["problems"] == []
        assert set(done["runs"]) >= {"scripted:trend", "scripted:contrarian", "ungated"}
        assert done["runs"]["ungated"]["trades"] > 0

    def test_walkforward(self, cli: Cli, folder: Path, tmp_path: Path, name: str) -> None:
        case = CASES[name]
        spelled = ", ".join(f"{key} = {json.dumps(file)}" for key, file in PAIR.items())
        data = f"{{{spelled}}}" if isinstance(case["data"], dict) else json.dumps(case["data"])
        account = f"[account]\nsetup = {json.dumps(case['setup'])}\n" if "setup" in case else ""
        ((searched, values),) = case["grid"].items()
        study = folder / f"{name}.toml"
        study.write_text(
            f'strategy = "own.py:{name}"\ndata = {data}\n{account}[gate.advisor]\nmodel = "scripted:trend"\n'
            f"[grid]\n{searched} = {values}\n[walk_forward]\ntrain_size = 150\ntest_size = 50\n",
            encoding="utf-8",
        )
        done = found(cli("walkforward", str(study), "--output", str(tmp_path), "--format", "json"))
        assert done["problems"] == []
        assert [fold["settings"][searched] in values for fold in done["folds"]] == [True, True]
        assert done["settings"].get("setup") == ("futures" if "setup" in case else None)


def test_a_pair_on_margin_is_what_a_script_of_ones_own_makes_of_it(cli: Cli, folder: Path) -> None:
    done = found(cli("run", *arguments(folder, "Pair"), "-m", "scripted:trend", "--format", "json"))

    class Later(load_strategy(f"{folder / 'own.py'}:Pair")):  # type: ignore[misc]
        def next(self) -> None:
            if len(self) >= WARM_UP:
                super().next()

    cerebro = bt.Cerebro(stdstats=False)
    for name, file in PAIR.items():
        cerebro.adddata(Market.of(folder / file).feed(), name=name)
    futures(cerebro, PAIR)
    cerebro.addstrategy(Later)
    cerebro.run()
    assert done["runs"]["ungated"]["final_value"] == pytest.approx(cerebro.broker.getvalue(), abs=1e-9)


def test_a_manifest_of_a_pair_is_reproduced(cli: Cli, folder: Path, tmp_path: Path) -> None:
    cache, file = ["--cache", str(tmp_path / "cache")], str(tmp_path / "run.json")
    told = [*arguments(folder, "Pair"), "-m", "scripted:trend", *cache, "--manifest", file]
    assert cli("run", *told).code == 0
    assert "allow its folder with --folder" in one_line(cli("reproduce", file, *cache))
    assert cli("reproduce", file, *cache, "--folder", str(folder)).out == "identical\n"
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    where = ["-d", f"near={moved / 's00.csv'}", "-d", str(moved / "s01.csv"), "-s", str(moved / "own.py")]
    assert cli("reproduce", file, *cache, *where, "--setup", str(moved / "own.py")).out == "identical\n"
    other = ["-d", str(moved / "s00.csv"), "-d", str(moved / "s02.csv")]
    done = cli("reproduce", file, *cache, *other)
    assert (done.code, done.out.partition(":")[0]) == (1, "data")


class TestDatas:
    def test_the_same_name_twice_is_refused(self, cli: Cli, folder: Path) -> None:
        file = str(folder / "s00.csv")
        strategy = ["-s", f"{folder / 'own.py'}:Bracket"]
        line = one_line(cli("run", *strategy, "-d", file, "-d", file))
        assert "another data is called 's00'; give each a name, as s002=" in line
        line = one_line(cli("run", *strategy, "-d", f"a={file}", "-d", f"a={folder / 's01.csv'}"))
        assert "another data is called 'a'" in line
        assert "expected FILE or NAME=FILE" in one_line(cli("run", *strategy, "-d", f"={file}"))

    def test_a_run_on_each(self, cli: Cli, folder: Path) -> None:
        files = ["-d", str(folder / "s00.csv"), "-d", f"other={folder / 's01.csv'}"]
        told = ["-s", f"{folder / 'own.py'}:Bracket", *files, "-m", "scripted:trend", "--each"]
        alone = ["-s", f"{folder / 'own.py'}:Bracket", *files[:2], "-m", "scripted:trend"]
        runs = found(cli("run", *told, "--format", "json"))["symbols"]
        assert list(runs) == ["s00", "other"]
        expected = found(cli("run", *alone, "--format", "json"))["runs"]
        for name in ("gated", "ungated"):  # no position is open at the end of either
            assert runs["s00"]["runs"][name]["trades"] in (
                expected[name]["trades"],
                expected[name]["trades"] + 1,
            )
        table = cli("run", *told).out
        assert all(word in table for word in ("Symbols", "s00", "other", "ungated"))
        manifest = folder / "panel.json"
        assert f"manifest: {manifest}" in cli("run", *told, "--manifest", str(manifest)).err
        assert manifest.is_file()
        tests = [*told, "--random", "2", "--resamples", "20", "--format", "json"]
        assert list(found(cli("test", *tests))["symbols"]) == ["s00", "other"]

    def test_columns_as_lines(self, cli: Cli, folder: Path, tmp_path: Path) -> None:
        walk(260).assign(pe=15.0).to_csv(tmp_path / "bars.csv", index_label="time")
        (tmp_path / "value.py").write_text(
            "import backtrader as bt\n"
            "class Value(bt.Strategy):\n"
            "    def next(self):\n"
            "        if self.data.pe[0] == 15.0 and len(self) % 20 == 0: self.buy(size=1)\n"
            "        elif len(self) % 20 == 10: self.close()\n",
            encoding="utf-8",
        )
        told = [
            "-s",
            f"{tmp_path / 'value.py'}:Value",
            "-d",
            str(tmp_path / "bars.csv"),
            "-m",
            "scripted:trend",
        ]
        done = found(cli("run", *told, "--lines", "pe", "--format", "json"))
        assert done["runs"]["ungated"]["trades"] > 5
        assert "value.py, line 4" in one_line(cli("run", *told))
        refused = one_line(cli("run", *told, "--lines", "pe", "--manifest", str(tmp_path / "run.json")))
        assert "data with the lines ['pe']" in refused


class TestAccounts:
    def test_what_is_assumed_is_said_unless_the_user_says_it(self, cli: Cli, folder: Path) -> None:
        told = ["run", "-s", "strategies/sma_cross.py:GatedSmaCross", "-d", str(folder / "s00.csv")]
        told += ["-m", "scripted:trend"]
        assert "assumed: an order of unstated size takes 95 % of the account" in cli(*told).err
        for said in (
            ["--percent", "50"],
            ["--sizer", "AllInSizer"],
            ["--sizer", f"{folder / 'own.py'}:Half"],
        ):
            done = cli(*told, *said)
            assert (done.code, "assumed" in done.err) == (0, False), done.err

    def test_sizers_and_set_ups_that_are_wrong(self, cli: Cli, folder: Path) -> None:
        told = ["run", *arguments(folder, "Bracket"), "-m", "scripted:trend"]
        own = str(folder / "own.py")
        for said, words in (
            (["--sizer", "AllSizer"], "did you mean 'AllInSizer'?"),
            (["--sizer", f"{own}:Halve"], "did you mean 'Half'?"),
            (["--sizer", f"{own}:Pair"], "expected a Sizer"),
            (["--setup", f"{own}:future"], "did you mean 'futures'?"),
            (["--setup", f"{own}:futures", "--percent", "50"], "percent beside a set-up of your own"),
            (["--sizer", "AllInSizer", "--percent", "50"], "--percent 50 beside --sizer AllInSizer"),
        ):
            assert words in one_line(cli(*told, *said))


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of consoles are left alone there")
def test_what_a_strategy_writes_past_python_is_not_the_result_either(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "talks.py").write_text(
        "import os, sys\nimport backtrader as bt\nos.system('echo loaded')\n"
        "class Talks(bt.Strategy):\n"
        "    def next(self):\n"
        "        os.write(1, b'raw\\n'), sys.__stdout__.write('kept\\n')\n"
        "        (self.close if self.position else self.buy)()\n",
        encoding="utf-8",
    )
    told = ["-s", f"{tmp_path / 'talks.py'}:Talks", "-d", str(folder / "s00.csv"), "-m", "scripted:trend"]
    for verb in (["run"], ["test", "--random", "3", "--shifts", "0", "--jobs", "2"]):
        command = [sys.executable, "-m", "bt_llm", *verb, *told, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["runs"]["ungated"]["trades"] > 0
        for word in ("loaded", "raw", "kept"):
            assert word in done.stderr


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("import sys\nsys.exit(0)\n", 2, "line 2: SystemExit: 0"),
        (
            "import backtrader as bt\n"
            "class Leaves(bt.Strategy):\n    def next(self):\n        raise SystemExit\n",
            1,
            "Leaves failed with its defaults: SystemExit",
        ),
    ],
)
def test_a_strategy_that_leaves_python_is_told_of(
    cli: Cli, folder: Path, tmp_path: Path, text: str, code: int, says: str
) -> None:
    (tmp_path / "leaves.py").write_text(text, encoding="utf-8")
    told = ["-s", f"{tmp_path / 'leaves.py'}:Leaves", "-d", str(folder / "s00.csv"), "-m", "scripted:trend"]
    outcome = cli("run", *told)
    assert (outcome.code, outcome.out) == (code, "")
    assert says in one_line(outcome)


def test_what_a_strategy_prints_is_not_the_result(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "talks.py").write_text(
        "import backtrader as bt\nprint('loaded')\n"
        "class Talks(bt.Strategy):\n"
        "    def next(self):\n"
        "        print('bar', len(self))\n"
        "        (self.close if self.position else self.buy)()\n",
        encoding="utf-8",
    )
    told = ["-s", f"{tmp_path / 'talks.py'}:Talks", "-d", str(folder / "s00.csv"), "-m", "scripted:trend"]
    done = cli("run", *told, "--format", "json")
    assert found(done)["runs"]["ungated"]["trades"] > 0
    assert "loaded" in done.err
    assert "bar 200" in done.err
