"""Classes on their way to other processes: rebuilt as they were declared, or refused."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import backtrader as bt
import pytest

from bt_llm.backtest import load_strategy
from bt_llm.exceptions import StrategyError
from bt_llm.gates import gated, ungated
from bt_llm.research import _sending
from bt_llm.research._sending import dumps, loads, made_sha256
from tests.walk_forward_cases import Holds, cross_file

ROOT = Path(__file__).parents[2]


def made(period: int) -> type[bt.Indicator]:
    class Band(bt.ind.SMA):
        lines = ("upper", "lower")
        params = (("period", period), ("width", float("nan")))
        plotinfo = (("subplot", True),)
        plotlines = (("upper", {"ls": "--"}),)

        def __init__(self) -> None:
            super().__init__()
            self.l.upper = self.l.sma + period

    return Band


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process one that has not made any class of those that arrive."""
    monkeypatch.setattr(_sending, "_by_key", {})


class TestWhole:
    def test_it_is_the_original_where_it_comes_from(self) -> None:
        band = made(7)
        assert loads(dumps(band)) is band

    @pytest.mark.usefixtures("elsewhere")
    def test_it_is_rebuilt_as_it_was_declared(self) -> None:
        band = made(7)
        sent = dumps(band)
        _sending._by_key.clear()
        there: Any = loads(sent)
        assert there is not band
        assert (there.__qualname__, there.__bases__) == (band.__qualname__, band.__bases__)
        assert there.params._getpairs()["period"] == 7
        assert list(there.params._getkeys()) == list(band.params._getkeys()) == ["period", "width"]
        assert there.lines._getlines() == ("sma", "upper", "lower")
        assert there.plotinfo.subplot is True
        assert there.plotlines.upper.ls == "--"
        assert loads(sent) is there

    @pytest.mark.usefixtures("elsewhere")
    def test_a_class_that_throws_its_bases_lines_away(self) -> None:
        class Alone(bt.ind.SMA):
            linesoverride = True
            lines = ("only",)

        sent = dumps(Alone)
        _sending._by_key.clear()
        assert loads(sent).lines._getlines() == ("only",)

    @pytest.mark.usefixtures("elsewhere")
    def test_an_instance_has_its_own_class_s_parameters(self) -> None:
        class Scheme(bt.CommInfoBase):
            params = (("mult", 10.0), ("leverage", 2.0))

        sent = dumps(Scheme(mult=20.0))
        _sending._by_key.clear()
        there = loads(sent)
        assert type(there) is not Scheme
        assert (there.p.mult, there.p.leverage) == (20.0, 2.0)
        assert type(there.p) is type(there).params
        assert [there.p.isdefault(name) for name in ("mult", "leverage")] == [False, True]

    @pytest.mark.usefixtures("elsewhere")
    def test_a_gated_class_travels_as_what_it_was_made_of(self) -> None:
        class Fast(Holds):
            params = (("size", 3),)

        sent = dumps(gated(Fast))
        _sending._by_key.clear()
        there = loads(sent)
        assert gated(ungated(there)) is there
        assert ungated(there).params._getpairs()["size"] == 3

    def test_what_cannot_travel_is_refused(self) -> None:
        lock = threading.Lock()

        class Locked(bt.Strategy):
            def next(self) -> None:
                lock.acquire()

        with pytest.raises(StrategyError, match=r"cannot be sent to another process .*lock"):
            dumps(Locked)

    def test_its_hash_is_of_what_it_does(self) -> None:
        assert made_sha256(made(7)) == made_sha256(made(7))
        assert made_sha256(made(7)) != made_sha256(made(8))

    def test_a_gate_of_a_notebook_is_known_by_what_it_does(self, tmp_path: Path) -> None:
        """Whatever cell it stands in, and in every process; what it uses of other cells is part of it."""
        first = run_cells(tmp_path, GATE)
        assert run_cells(tmp_path, "", "unused = 1", GATE, hash_seed="7") == first
        assert run_cells(tmp_path, GATE.replace("== PICK", "!= PICK"), GATE) == first
        assert run_cells(tmp_path, GATE.replace("== PICK", "!= PICK")) != first
        assert run_cells(tmp_path, GATE, "PICK = 0") != first


GATE = """
from dataclasses import dataclass
from bt_llm.gates import AttachedGate, Decision, EntryGate

PICK = 1

@dataclass(frozen=True)
class Odd(EntryGate):
    warm_up_bars = 1

    def attach(self, strategy, data=None):
        return AttachedOdd(strategy, data)

class AttachedOdd(AttachedGate):
    def decide(self, side):
        words = side in {"long", "short", "neither"}
        return Decision(self.bar, side, allowed=self.bar % 2 == PICK and not words)
"""


def run_cells(folder: Path, *cells: str, hash_seed: str = "0") -> str:
    """Run texts as a notebook does, each a file that is not there, and return what a ledger knows Odd by."""
    program = "\n".join(
        f"exec(compile({cell!r}, '/tmp/cell_{number}.py', 'exec'))" for number, cell in enumerate(cells)
    )
    program += (
        "\nfrom bt_llm.research.walk_forward._grid import describe_gate\nprint(describe_gate(Odd(), False))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "source" in done.stdout
    return done.stdout


class TestByName:
    def test_a_class_of_another_version_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert loads(dumps(Holds)) is Holds
        monkeypatch.setattr(_sending, "source_sha256", lambda _: "0" * 64)
        sent = dumps(Holds)
        monkeypatch.undo()
        with pytest.raises(StrategyError, match=r"walk_forward_cases.Holds is another version on a worker"):
            loads(sent)

    @pytest.mark.parametrize("reach", [lambda cls: cls, lambda cls: functools.partial(cls)])
    def test_other_parameters_are_refused(self, reach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        sent = dumps(reach(bt.ind.SMA))
        pairs = {**bt.ind.SMA.params._getpairs(), "period": 31}
        monkeypatch.setattr(bt.ind.SMA.params, "_getpairs", classmethod(lambda _: pairs))
        with pytest.raises(StrategyError, match=r"has period=31 on a worker, expected 30: install"):
            loads(sent)

    def test_so_is_a_base_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent = dumps(made(7))
        monkeypatch.setattr(bt.ind.SMA.params, "_getpairs", classmethod(lambda _: {}))
        with pytest.raises(StrategyError, match=r"SMA.* other parameters or lines|MovingAverageSimple has"):
            loads(sent)

    def test_a_file_travels_as_its_text(self, tmp_path: Path) -> None:
        spec = cross_file(tmp_path)
        sent = dumps(load_strategy(spec))
        Path(spec.rpartition(":")[0]).unlink()
        code = (
            "import inspect, sys\n"
            "from bt_llm.research._sending import loads\n"
            "made = loads(bytes.fromhex(sys.argv[1]))\n"
            "print(made.__name__, made.params.fast, inspect.getsource(made).splitlines()[0])"
        )
        there = subprocess.run(
            [sys.executable, "-c", code, sent.hex()], capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == "Cross 3 class Cross(bt.Strategy):"
        assert not list(tmp_path.rglob("*.pyc"))

    def test_a_file_that_changed_since_is_run_as_it_was(self, tmp_path: Path) -> None:
        spec = cross_file(tmp_path)
        file = Path(spec.rpartition(":")[0])
        sent = dumps(load_strategy(spec))
        file.write_text(file.read_text(encoding="utf-8").replace('"fast", 3', '"fast", 5'), encoding="utf-8")
        assert loads(sent).params.fast == 3
        assert load_strategy(spec).params.fast == 5

    def test_a_module_that_a_worker_lacks_is_named(self) -> None:
        code = "import sys; from bt_llm.research._sending import loads; loads(bytes.fromhex(sys.argv[1]))"
        sent = dumps(Holds).replace(b"tests.walk_forward_cases", b"tests.walk_forward_other")
        there = subprocess.run([sys.executable, "-c", code, sent.hex()], capture_output=True, text=True)
        last = there.stderr.strip().splitlines()[-1]
        assert "a worker cannot load what it was sent (No module named" in last
