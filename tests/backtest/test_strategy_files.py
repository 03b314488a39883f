from __future__ import annotations

import os
import sys
from pathlib import Path

import backtrader as bt
import pytest

from bt_llm.backtest import load_strategy, run_backtest
from bt_llm.exceptions import StrategyError
from bt_llm.gates import AlwaysOpen
from bt_llm.research._runs import run_many
from bt_llm.sources import source_sha256
from tests.engines import walk

BARS = walk(120)

GOOD = """
import backtrader as bt
from backtrader import Strategy

class GatedCross(bt.Strategy):
    pass
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_class_by_name_or_alone_in_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    named = load_strategy(f"{path}:GatedCross")
    assert issubclass(named, bt.Strategy)
    assert load_strategy(path).__name__ == "GatedCross"  # imported names do not count


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            GOOD,
            "GatedCros",
            r"no strategy 'GatedCros' .* it has \['GatedCross'\]; did you mean 'GatedCross'\?",
        ),
        (GOOD, "Strategy", "not a backtrader.Strategy defined there"),
        (GOOD + "\nclass Other(bt.Strategy):\n    pass\n", "", "no strategy ''"),
        ("class A(:\n", "A", "line 1: invalid syntax"),
        (
            "x = 1\nimport no_such_module\n",
            "A",
            "line 2: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("x = 1\ny = x / 0\n", "A", "line 2: ZeroDivisionError"),
    ],
)
def test_a_fault_is_one_line(tmp_path: Path, text: str, name: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StrategyError, match=message) as caught:
        load_strategy(f"{path}:{name}" if name else path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["absent.py:A", "absent.py", ":A", "nothing"])
def test_a_missing_file(spec: str) -> None:
    with pytest.raises(StrategyError, match="no strategy file"):
        load_strategy(spec)


def test_a_file_that_is_not_python(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("time,close\n")
    with pytest.raises(StrategyError, match="is not a Python file"):
        load_strategy(f"{path}:A")


def test_the_source_hash_follows_the_source(tmp_path: Path) -> None:
    first = source_sha256(load_strategy(write(tmp_path, GOOD)))
    assert source_sha256(load_strategy(write(tmp_path, GOOD))) == first
    assert source_sha256(load_strategy(write(tmp_path, GOOD + "# changed\n"))) != first


def test_a_file_edited_within_the_second_is_read_anew_and_leaves_no_bytecode(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "edited.py"
    for fast in (3, 5):
        file.write_text(
            f"import backtrader as bt\nclass Edited(bt.Strategy):\n    params = (('fast', {fast}),)\n"
        )
        os.utime(file, (1e9, 1e9))
        assert load_strategy(f"{file}:Edited").params.fast == fast
    assert [path.name for path in tmp_path.iterdir()] == ["edited.py"]


BASE = """
import backtrader as bt

class Base(bt.Strategy):
    params = (("gate", None), ("period", {period}))
"""
MINE = """
import backtrader as bt
from base import Base
from bt_llm import attach_gate

class Mine(Base):
    def __init__(self):
        self.average = bt.ind.SMA(period=self.p.period)
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        import sizes
        if self.position and self.data.close[0] < self.average[0]:
            self.close()
        elif not self.position and self.data.close[0] > self.average[0] and self.gate.allows_long():
            self.buy(size=sizes.SIZE)
"""


def write_neighbours(folder: Path, period: int, size: int) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "base.py").write_text(BASE.format(period=period), encoding="utf-8")
    (folder / "sizes.py").write_text(f"SIZE = {size}\n", encoding="utf-8")
    return f"{write(folder, MINE)}:Mine"


def test_neighbours_are_imported_as_python_would_and_do_not_mix(tmp_path: Path) -> None:
    specs = [write_neighbours(tmp_path / name, 5, size) for name, size in (("a", 1), ("b", 2))]
    one, two = (load_strategy(spec) for spec in specs)
    assert [one.params.period, two.params.period] == [5, 5]
    first, second = (run_backtest(strategy, BARS).trades["pnl"] for strategy in (one, two))
    assert len(first) > 5
    # Each imports its own sizes, and only when it trades.
    assert second.tolist() == pytest.approx((2 * first).tolist())
    assert run_backtest(one, BARS).trades["pnl"].tolist() == first.tolist()


def test_neighbours_travel_to_workers(tmp_path: Path) -> None:
    strategy = load_strategy(write_neighbours(tmp_path, 5, 3))
    gates = [AlwaysOpen(warm_up=n) for n in (1, 20)]
    here = run_many(strategy, BARS, gates)
    for file in tmp_path.glob("*.py"):
        file.unlink()
    assert run_many(strategy, BARS, gates, n_jobs=2) == here


def test_a_fault_in_a_neighbour_names_it(tmp_path: Path) -> None:
    spec = write_neighbours(tmp_path, 5, 1)
    (tmp_path / "base.py").write_text("import backtrader\n1 / 0\n", encoding="utf-8")
    with pytest.raises(StrategyError, match=r"base.py' line 2: ZeroDivisionError: division by zero$"):
        load_strategy(spec)
    (tmp_path / "base.py").write_text("class (:\n", encoding="utf-8")
    with pytest.raises(StrategyError, match=r"base.py' line 1: invalid syntax$"):
        load_strategy(spec)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = '\xff'\n")
    with pytest.raises(StrategyError, match="cannot be read"):
        load_strategy(str(path))
