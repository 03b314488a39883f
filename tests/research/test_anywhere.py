"""Parts of a script and of a notebook on two processes and on a cluster: the numbers of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import walk

ROOT = Path(__file__).parents[2]

PARTS = """\
import contextlib
import json
from dataclasses import dataclass

import backtrader as bt

from bt_llm import AdvisorConfig, Gate, LLMAdvice, WalkForward, dask_cluster
from bt_llm.backtest import Setup
from bt_llm.gates import AttachedGate, Decision, EntryGate
from bt_llm.research._runs import run_many

LAG = 2


class Cross(bt.Strategy):
    params = (("fast", 5), ("slow", 20))

    def __init__(self):
        self.gap = Gap(fast=self.p.fast, slow=self.p.slow)

    def next(self):
        if self.gap.late[0] < 0 and self.position:
            self.close()
        elif self.gap.late[0] > 0 and not self.position:
            self.buy()


class Gap(bt.Indicator):
    lines = ("gap", "late")
    params = dict(fast=1, slow=2)

    def __init__(self):
        self.l.gap = bt.ind.SMA(period=self.p.fast) - bt.ind.SMA(period=self.p.slow)
        self.l.late = self.l.gap(-LAG)


class Faster(Cross):
    params = (("fast", 3), ("slow", 8))


class Tenth(bt.Sizer):
    params = (("part", 0.1),)

    def _getsizing(self, comminfo, cash, data, isbuy):
        return cash * self.p.part / data.close[0]


class EveryFifth(LLMAdvice):
    params = (("every", 5), ("lookback", 5))


@dataclass(frozen=True)
class Odd(EntryGate):
    warm_up_bars = 1

    def attach(self, strategy, data=None):
        return AttachedOdd(strategy, data)


class AttachedOdd(AttachedGate):
    def decide(self, side):
        return Decision(self.bar, side, allowed=self.bar % 2 == 1)


def account(cerebro, market):
    cerebro.broker.setcash(5_000)
    cerebro.addsizer(Tenth, part=0.3)


def made(slow):
    class Local(Faster):
        params = (("slow", slow),)

    return Local


MODEL = Gate(advisor=AdvisorConfig(model="scripted:trend"), indicator=EveryFifth)


def found(data, jobs):
    one = [
        run_many(Faster, data, [Odd(), MODEL], n_jobs=jobs, setup=Setup(sizer=Tenth)),
        run_many(made(11), data, [Odd()], n_jobs=jobs, setup=account),
    ]
    search = WalkForward(train_size=100, test_size=80)
    study = search.run(made(9), data, gate=Odd(), grid={"fast": [2, 4]}, n_jobs=jobs)
    return json.dumps([one, study.metrics], sort_keys=True)
"""

SCRIPT = (
    """\
import sys
with open(sys.argv[2], "a") as runs:
    runs.write("once ")
"""
    + PARTS
    + """
if __name__ == "__main__":
    address = sys.argv[3:]
    print(found(sys.argv[1], 1))
    with dask_cluster(address[0]) if address else contextlib.nullcontext():
        print(found(sys.argv[1], None if address else 2))
"""
)


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    path = tmp_path / "bars.csv"
    walk(200).to_csv(path, index_label="date")
    return path


def run_script(bars: Path, *address: str) -> list[str]:
    """Return what a script prints: the numbers of one process, and those of others."""
    script, runs = bars.with_name("script.py"), bars.with_name("runs")
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), str(bars), str(runs), *address]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=bars.parent, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert runs.read_text(encoding="utf-8") == "once "  # no worker runs the script
    return done.stdout.splitlines()


def check(here: str, elsewhere: str) -> None:
    assert here == elsewhere
    runs, _ = json.loads(here)
    assert len({json.dumps(pair) for pair in runs}) == 2
    assert all(metrics["trades"] > 0 for pair in runs for metrics in pair)


def test_a_script_on_two_processes(bars: Path) -> None:
    check(*run_script(bars))


def test_a_script_on_a_cluster(bars: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
    ) as workers:
        check(*run_script(bars, workers.scheduler_address))


def test_a_notebook(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that changes what a class uses changes the numbers of the workers, too."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    ask = f"print(found({str(bars)!r}, 1)); print(found({str(bars)!r}, 2))"
    cells = [nbformat.v4.new_code_cell(text) for text in (PARTS, ask, "LAG = 4", ask)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell{number}"
    book = nbformat.v4.new_notebook(cells=cells)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbclient.NotebookClient(book, timeout=400, startup_timeout=300, kernel_name="python3").execute()
    first, second = (
        "".join(part["text"] for part in cells[n]["outputs"] if part.get("name") == "stdout").splitlines()
        for n in (1, 3)
    )
    check(*first)
    check(*second)
    assert first != second
