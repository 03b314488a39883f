from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bt_llm.cli import app
from bt_llm.data import bars_sha256, load_bars, shipped
from bt_llm.exceptions import BtLlmError
from bt_llm.research import load_study
from tests.engines import walk

US = "Date,Open,High,Low,Close,Volume\n01/02/2024,1,2,1,2,5\n01/03/2024,2,3,1,2,5\n"
TWO = "ticker,date,open,high,low,close,volume\nA,2024-01-02,1,2,1,2,5\nB,2024-01-02,10,12,9,11,5\n"


def data(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_it_says_what_a_file_is() -> None:
    done = data(shipped("sp500_daily.csv"))
    assert done.exit_code == 0
    assert "5,031 of 1 day, from 1999-01-04 00:00:00 to 2018-12-31 00:00:00" in done.stdout
    assert "█" in done.stdout


def test_what_is_open_is_refused_by_an_option_that_decides_it(tmp_path: Path) -> None:
    path = tmp_path / "us.csv"
    path.write_text(US)
    with pytest.raises(BtLlmError, match=r"either order.*\(on the command line: --time-format\)"):
        CliRunner().invoke(app, ["data", str(path)], catch_exceptions=False)
    options = ("--time-format", "%m/%d/%Y", "--zone", "America/New_York", "--stamp", "close")
    found = json.loads(data(path, *options, "--format", "json").stdout)["us"]
    assert (found["first"], found["last"]) == ("2024-01-02T00:00:00", "2024-01-03T00:00:00")
    assert (found["zone"], found["stamp"], found["bars"], found["length"]) == (
        *("America/New_York", "close"),
        *(2, "1 day"),
    )


def test_it_writes_bars_that_need_no_option(tmp_path: Path) -> None:
    path, clean = tmp_path / "mine.csv", tmp_path / "clean.csv"
    walk(30).rename_axis("Day").rename(columns={"close": "Settle"}).to_csv(path)
    assert data(path, "--columns", "close=Settle,time=Day", "--to", clean).exit_code == 0
    assert bars_sha256(load_bars(clean)) == bars_sha256(load_bars(walk(30)))


def test_several_instruments_are_written_to_a_folder(tmp_path: Path) -> None:
    path, folder = tmp_path / "two.csv", tmp_path / "clean"
    path.write_text(TWO)
    assert data(path, "--to", folder).exit_code == 0
    assert {one.name: load_bars(one)["close"].to_list() for one in folder.iterdir()} == {
        "A.csv": [2.0],
        "B.csv": [11.0],
    }
    assert data(path, "--symbol", "B", "--to", tmp_path / "b.csv").exit_code == 0
    assert load_bars(tmp_path / "b.csv")["close"].to_list() == [11.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "close"], "--columns 'close': expected names by ours"),
        (["--decimal", "x"], "decimal='x': expected one of"),
        (["--to", "/dev/null/x.csv"], "--to /dev/null/x.csv: cannot be written"),
        ([str(shipped("eurusd_hourly.csv"))], "two datas are called 'eurusd_hourly'"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str) -> None:
    with pytest.raises(BtLlmError) as raised:
        CliRunner().invoke(app, ["data", str(shipped("eurusd_hourly.csv")), *options], catch_exceptions=False)
    assert message in str(raised.value)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Bars that no command reads without an option: which columns are which is not to be seen."""
    path = tmp_path / "odd.csv"
    walk(300).rename_axis("Day").rename(columns={"close": "Mine"}).to_csv(path)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["run", "-m", "scripted:trend"],
        ["test", "-m", "scripted:trend", "--random", "9", "--shifts", "0", "--resamples", "99"],
        ["compare", "-m", "scripted:trend", "-m", "scripted:random", "--resamples", "99"],
    ],
)
def test_every_command_takes_what_is_stated(command: list[str], odd: Path) -> None:
    strategy = ["-s", f"{shipped('sma_cross.py')}:GatedSmaCross", "-p", "slow=15", "--format", "json"]
    arguments = [*command, *strategy, "-d", str(odd), "--columns", "close=Mine"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["runs"]


def test_a_study_states_it_under_bars(odd: Path) -> None:
    strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    text = (
        f'strategy = "{strategy}"\ndata = "odd.csv"\n[bars]\nzone = "Asia/Tokyo"\ncolumns.close = "Mine"\n'
        '[gate.advisor]\nmodel = "scripted:trend"\n[compare]\n'
        'models = ["scripted:trend", "scripted:random"]\n'
    )
    path = odd.parent / "study.toml"
    path.write_text(text)
    assert load_study(path).market["odd"].attrs["source"]["zone"] == "Asia/Tokyo"
    done = CliRunner().invoke(app, ["compare", str(path), "--format", "json"], catch_exceptions=False)
    assert done.exit_code == 0
    path.write_text(text.replace("zone =", "zones ="))
    with pytest.raises(BtLlmError, match=r"unknown key 'bars.zones'.*did you mean 'zone'"):
        load_study(path)
