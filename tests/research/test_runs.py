from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bt_llm.backtest import load_strategy, run_backtest
from bt_llm.data import shipped
from bt_llm.exceptions import ConfigError, MissingExtraError
from bt_llm.gates import AlwaysOpen, NeverOpen, RandomGate
from bt_llm.research._null_runs import entry_answers
from bt_llm.research._runs import inspect_run, run_many
from tests.research_cases import Alternate, gate_of, random_walk

BARS = random_walk(150)
REVERSION = f"{shipped('rsi_reversion.py')}:GatedRsiReversion"
OFTEN = {"params": {"period": 5, "lower": 45.0, "upper": 55.0}}


def some_gates(strategy: Any, count: int = 5, **settings: Any) -> list[RandomGate]:
    answers = entry_answers(strategy, BARS, gate_of("scripted:random:2", require="not_against"), **settings)
    return [RandomGate(answers=answers, draw=draw) for draw in range(count)]


def test_inspecting_a_run_changes_nothing_and_shows_the_strategy() -> None:
    plain = run_backtest(REVERSION, BARS, gate=AlwaysOpen())
    result, ran = inspect_run(REVERSION, BARS, gate=AlwaysOpen())
    assert result.metrics == plain.metrics
    assert result.strategy == "GatedRsiReversion"
    assert len(ran.rsi.array) == 150
    assert ran.broker.getvalue() == result.final_value


def test_a_strategys_own_stop_still_runs() -> None:
    class Counts(Alternate):
        def stop(self) -> None:
            stopped.append(len(self))

    stopped: list[int] = []
    inspect_run(Counts, BARS)
    assert stopped == [150]


def test_runs_come_in_the_order_of_the_gates() -> None:
    gates = [AlwaysOpen(), NeverOpen(), *some_gates(Alternate)]
    found = run_many(Alternate, BARS, gates, commission=0.001)
    expected = [run_backtest(Alternate, BARS, gate=gate, commission=0.001).metrics for gate in gates]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=0.0, nan_ok=True)


def test_workers_give_the_same_as_this_process_in_every_form_of_a_strategy(tmp_path: Path) -> None:
    copied = tmp_path / "my strategies" / "mine.py"
    copied.parent.mkdir()
    copied.write_text(shipped("rsi_reversion.py").read_text(encoding="utf-8"), encoding="utf-8")
    spec = f"{copied}:GatedRsiReversion"
    for strategy in (Alternate, spec, str(copied), load_strategy(spec)):
        settings = {} if strategy is Alternate else OFTEN
        gates = some_gates(strategy, **settings)
        one = run_many(strategy, BARS, gates, **settings)
        two = run_many(strategy, BARS, gates, n_jobs=2, **settings)
        assert [m["final_value"] for m in one] == [m["final_value"] for m in two]
        assert len({m["final_value"] for m in one}) > 1


def test_progress_counts_runs() -> None:
    seen: list[tuple[int, int]] = []
    run_many(Alternate, BARS, some_gates(Alternate, 3), on_progress=lambda *args: seen.append(args))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    run_many(Alternate, BARS, some_gates(Alternate, 9), n_jobs=2, on_progress=lambda *args: seen.append(args))
    assert seen[-1] == (9, 9)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("n_jobs", [0, -2, 1.0, True])
def test_the_number_of_processes_is_checked(n_jobs: object) -> None:
    with pytest.raises(ConfigError, match="expected a number of processes"):
        run_many(Alternate, BARS, [AlwaysOpen()], n_jobs=n_jobs)  # type: ignore[arg-type]


def test_without_joblib_one_process_works_and_two_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert len(run_many(Alternate, BARS, [AlwaysOpen()])) == 1
    with pytest.raises(MissingExtraError, match=r"pip install 'bt-llm\[research\]'"):
        run_many(Alternate, BARS, [AlwaysOpen()], n_jobs=2)
