"""Null runs that are done survive Ctrl-C: the same test goes on where it was, to the same digits."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.cache import JsonStore
from bt_llm.gates import Gate
from bt_llm.research import _kept_runs as kept_runs
from bt_llm.research import gate_test, multiverse, panel_test
from tests.engines import QuickAdvice
from tests.research_cases import random_walk

# What it asks when it is flat depends on what it did: Backtrader has to run each gate.
MOODY = """\
import os
import time
from pathlib import Path

import backtrader as bt

COUNT = Path(__file__).with_name("runs")


class Moody(bt.Strategy):
    params = (("gate", None), ("every", 2), ("rule", None))

    def start(self):
        with open(COUNT, "a") as file:
            file.write(".")
        if "MOODY_WAITS" in os.environ:  # for long enough to have runs written, then for Ctrl-C
            time.sleep(0.2 if COUNT.stat().st_size < 15 else 600)
        self.closed = 0

    def notify_trade(self, trade):
        self.closed += trade.isclosed

    def next(self):
        if self.position:
            if len(self) % 3 == 0:
                self.close()
        elif (len(self) + self.closed) % self.p.every == 0:
            self.buy()
"""
BARS = random_walk(100, seed=5)
N = 8


class Case:
    """A strategy file, a count of its runs, and tests of it that keep their null runs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.file, self.ledger = folder / "moody.py", folder / "ledger"
        self.store = JsonStore(self.ledger / "null_runs")
        self.file.write_text(MOODY, encoding="utf-8")
        self.gate = Gate(
            advisor=AdvisorConfig(model="scripted:random", cache_mode="off"), indicator=QuickAdvice
        )

    def test(self, **settings: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = {"n": N, "shifts": 0, "resamples": 99, "output": self.ledger} | settings
        found = gate_test(f"{self.file}:Moody", BARS, self.gate, **chosen)
        return json.loads(json.dumps(found.to_dict()))

    def panel(self, **settings: Any) -> dict[str, Any]:
        frames = {f"s{seed}": random_walk(100, seed=seed) for seed in range(2)}
        chosen: dict[str, Any] = {"n": N, "resamples": 99, "output": self.ledger} | settings
        return json.loads(json.dumps(panel_test(f"{self.file}:Moody", frames, self.gate, **chosen).to_dict()))

    def multiverse(self, **settings: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = {"n": 3, "templates": ["market"], "calibrations": ["grid"]} | settings
        found = multiverse(f"{self.file}:Moody", BARS, gate=self.gate, output=self.ledger, **chosen)
        return json.loads(json.dumps(found.to_dict()))

    def counted(self, work: Callable[..., Any], **settings: Any) -> tuple[Any, int]:
        """Return what some work returns, and how often it ran the strategy."""
        runs = self.file.with_name("runs")
        runs.unlink(missing_ok=True)
        found = work(**settings)
        return found, len(runs.read_text())

    def stopped(self, work: Callable[..., Any], after: int, **settings: Any) -> int:
        """Stop some work by Ctrl-C when so many null runs are done; return how many it says are kept."""

        def stop(done: int, _: int) -> None:
            if done >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as raised:
            work(on_progress=stop, **settings)
        (note,) = raised.value.__notes__
        said = re.fullmatch(r"(\d+) of \d+ null runs are kept", note)
        assert said is not None
        assert len(self.store.keys()) >= int(said[1]) > 0  # workers may have written more since
        return int(said[1])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write each run when it is done."""
    monkeypatch.setattr(kept_runs, "_PATIENCE_S", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("work", "n_jobs"), [("test", 1), ("test", 2), ("panel", 1), ("multiverse", 1)])
def test_a_stopped_one_goes_on_where_it_was(case: Case, work: str, n_jobs: int) -> None:
    run = getattr(case, work)
    whole, all_runs = case.counted(run)
    assert case.store.keys() == []
    kept = case.stopped(run, 3, n_jobs=n_jobs)
    assert 3 <= kept < N or work == "panel"
    continued, runs = case.counted(run)
    assert continued == whole
    assert runs == all_runs - kept
    assert case.store.keys() == []


def test_workers_keep_the_accounts_of_a_panel(case: Case) -> None:
    whole, all_runs = case.counted(case.panel)
    assert case.stopped(case.panel, 1, n_jobs=2) >= N
    continued, runs = case.counted(case.panel)
    assert continued == whole
    assert runs <= all_runs - N
    assert case.store.keys() == []


@pytest.mark.usefixtures("at_once")
def test_a_changed_strategy_parameter_market_or_account_finds_nothing(case: Case) -> None:
    _, all_runs = case.counted(case.test)
    case.stopped(case.test, 3)
    assert case.counted(case.test, params={"every": 3})[1] == all_runs
    assert case.counted(case.test, commission=0.001)[1] == all_runs
    assert case.counted(case.test, seed=1)[1] == all_runs
    case.file.write_text(MOODY.replace("% 3", "% 4"), encoding="utf-8")
    assert case.counted(case.test)[1] == all_runs
    case.file.write_text(MOODY, encoding="utf-8")
    assert case.counted(case.test)[1] == all_runs - 3


@pytest.mark.usefixtures("at_once")
def test_a_test_of_more_gates_goes_on_from_one_of_fewer(case: Case) -> None:
    case.stopped(case.test, 6)
    longer, runs = case.counted(case.test, n=N + 5)
    assert (longer, runs + 6) == case.counted(case.test, n=N + 5)


@pytest.mark.usefixtures("at_once")
def test_a_damaged_row_is_ignored(case: Case) -> None:
    whole, all_runs = case.counted(case.test)
    kept = case.stopped(case.test, 3)
    with sqlite3.connect(case.store.path) as database:
        key, text = database.execute("SELECT key, value FROM Cache WHERE key != 'format'").fetchone()
        database.execute("UPDATE Cache SET value = ? WHERE key = ?", (text.replace("A", "B", 1), key))
    database.close()
    assert case.counted(case.test) == (whole, all_runs - kept + 1)


@pytest.mark.usefixtures("at_once")
def test_a_damaged_file_is_said_and_stops_nothing(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    whole = case.test()
    case.store.path.write_bytes(b"no database" * 1000)
    assert case.test() == whole
    assert "null runs are not kept" in caplog.text
    assert "is damaged; delete it" in caplog.text


@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_known_by_content_is_not_kept_and_that_is_said(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    config = AdvisorConfig(model="scripted:random", cache_dir=str(case.ledger))
    case.gate = Gate(advisor=config, indicator=QuickAdvice)
    case.test(params={"rule": object()}, output=None)
    assert "null runs are not kept: 'rule'" in caplog.text
    assert not any(case.ledger.rglob("null_runs"))


@pytest.mark.usefixtures("at_once")
def test_the_file_has_a_limit(
    case: Case, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = case.test()
    case.stopped(case.test, 3, seed=1)
    others = set(case.store.keys())
    monkeypatch.setattr(kept_runs.KeptRuns, "_is_full", lambda self, store: others <= set(store.keys()))
    case.stopped(case.test, 3)
    assert not others & set(case.store.keys())
    monkeypatch.undo()
    monkeypatch.setattr(kept_runs, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(kept_runs, "LIMIT", 1)
    assert case.test() == whole
    assert "take more than" in caplog.text
    assert case.store.keys() == []


def test_an_account_that_is_too_long_is_not_kept_and_that_is_said(
    case: Case, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_runs, "_LONGEST", 20)
    case.panel(n=2)
    assert "null runs are not kept: an account of" in caplog.text
    assert not case.store.path.exists()


def test_runs_of_less_than_a_second_are_not_written(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bt_llm.research._kept_runs.time.monotonic", lambda: 0.0)  # however long they took
    case.test(n=4)
    assert not case.store.path.exists()


def test_without_a_ledger_they_lie_beside_the_stored_verdicts(case: Case, tmp_path: Path) -> None:
    def place(mode: str, output: Path | None = None) -> Path | None:
        config = AdvisorConfig(model="scripted:random", cache_dir=str(tmp_path), cache_mode=mode)
        return kept_runs.place_of_runs(Gate(advisor=config), output)

    assert place("record") == place("refresh") == tmp_path / "trials" / "null_runs"
    assert place("replay") is None
    assert place("off") is None
    assert place("off", tmp_path) == tmp_path / "null_runs"


def command(case: Case, folder: Path) -> list[str]:
    strategy, bars = f"{case.file}:Moody", folder / "bars.csv"
    random_walk(200, seed=5).rename_axis("time").to_csv(bars)
    options = ["-m", "scripted:random", "--random", "25", "--shifts", "0", "--resamples", "99"]
    return [
        sys.executable,
        "-m",
        "bt_llm",
        "test",
        "-s",
        strategy,
        "-d",
        str(bars),
        *options,
        "--format",
        "json",
    ]


def started(arguments: list[str], cache: Path, **environment: str) -> subprocess.Popen[str]:
    environment = os.environ | {"BT_LLM_CACHE_DIR": str(cache)} | environment
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(arguments, env=environment, **piped)  # type: ignore[call-overload, no-any-return]


def test_ctrl_c_says_how_many_are_kept_and_the_command_goes_on(case: Case, tmp_path: Path) -> None:
    arguments, file = command(case, tmp_path), tmp_path / "cache" / "trials" / "null_runs" / "cache.db"
    first = started(arguments, tmp_path / "cache", MOODY_WAITS="1")
    try:
        while first.poll() is None and not file.exists():
            time.sleep(0.01)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=300)
    finally:
        first.kill()
    assert first.returncode == 130
    line = errors.splitlines()[-1]
    said = re.fullmatch(
        r"error: interrupted; verdicts and (\d+) of 25 null runs are kept, run the command again to go on",
        line,
    )
    assert said is not None, errors
    assert "Traceback" not in errors

    def run(cache: str) -> str:
        process = started(arguments, tmp_path / cache)
        found, problem = process.communicate(timeout=300)
        assert process.returncode == 0, problem
        return found

    whole, all_runs = case.counted(lambda: run("another"))
    continued, runs = case.counted(lambda: run("cache"))
    assert continued == whole
    assert runs == all_runs - int(said[1])
    assert JsonStore(file.parent).keys() == []
