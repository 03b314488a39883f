"""Studies on a Dask cluster of two processes: the same results, whatever happens to the workers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
import trustme
from typer.testing import CliRunner

import bt_llm
from bt_llm import AdvisorConfig, ClusterError, Gate, WalkForward, dask_cluster
from bt_llm.advice import forget_answers
from bt_llm.cli import app
from bt_llm.exceptions import ConfigError, MissingExtraError, StrategyError
from bt_llm.gates import AlwaysOpen, NeverOpen
from bt_llm.research import LEDGER, TrialLedger
from bt_llm.research import _cluster as module
from bt_llm.research._runs import run_many
from bt_llm.research.walk_forward._supplies import Supplies
from bt_llm.verdicts import TREND, StateSpace
from tests.cli.test_walkforward import TEXT
from tests.engines import QuickAdvice, walk
from tests.walk_forward_cases import CROSS, QUICK, cross_file

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

BARS = walk(200)
SPLIT = WalkForward(train_size=80, test_size=30)
GRID = {
    "fast": [2, 4],
    "gate.require": ["agree", "not_against"],
    "gate.advisor.calibration": ["grid", "train"],
}
TRIALS = 4 * 8

SUSPICIOUS = """\
import os
import sys

import backtrader as bt
from bt_llm import attach_gate

HERE = {here}


class Suspicious(bt.Strategy):
    params = (("gate", None), ("fast", 3))

    def __init__(self):
        if os.getpid() != HERE and "llama_cpp" in sys.modules:
            raise RuntimeError("a worker has loaded llama.cpp")
        self.cross = bt.ind.CrossOver(bt.ind.SMA(period=self.p.fast), bt.ind.SMA(period=8))
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        if self.cross[0] < 0 and self.position:
            self.close()
        elif self.cross[0] > 0 and not self.position and self.gate.allows_long():
            self.buy()
"""


PATIENT = """\
from bt_llm.cli import main
from bt_llm.research import _cluster

_cluster.CONNECT_SECONDS = _cluster.WORKER_SECONDS = 120.0
main()
"""
"""`bt-llm`, on a machine that may stall."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 120.0)
    monkeypatch.setattr(module, "WORKER_SECONDS", 120.0)


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """A cluster of two processes, whose workers know nothing of any test's folders."""
    with distributed.LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
    ) as found:
        yield found


@pytest.fixture
def cross(tmp_path: Path) -> str:
    forget_answers()
    return cross_file(tmp_path)


class Hidden:
    """Take files away while trials run: what a worker needs must have come with its task."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.seen: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        if not self.seen:
            for path in self.paths:
                path.rename(path.with_name(f"hidden-{path.name}"))
        self.seen.append((done, total))
        if done == total:
            for path in self.paths:
                path.with_name(f"hidden-{path.name}").rename(path)


def plain(result: Any) -> str:
    """Return a result as JSON, without the number of trials that were run for it."""
    found = result.to_dict()
    found.pop("trials_run", None)
    return json.dumps(found, default=str)


def trials(folder: Path) -> list[Any]:
    with TrialLedger(folder / LEDGER) as ledger:
        found = ledger.records()
    assert len({record.key for record in found}) == len(found)
    return found


def wait_for(there: Callable[[], Any]) -> None:
    for _ in range(3000):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come")


@contextlib.contextmanager
def killed(process: Any) -> Iterator[Any]:
    with process:
        yield process
        process.kill()


def once_each(seen: list[tuple[int, int]], total: int = TRIALS) -> bool:
    return seen == [(done, total) for done in range(total + 1)]


class TestResults:
    def test_they_are_those_of_one_process_to_the_last_digit(
        self, workers: Any, cross: str, tmp_path: Path
    ) -> None:
        here = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, output=tmp_path / "here", n_jobs=1)
        hidden = Hidden(Path(cross.rpartition(":")[0]), Path(os.environ["BT_LLM_CACHE_DIR"]))
        with dask_cluster(workers.scheduler_address):
            there = SPLIT.run(
                cross, BARS, gate=QUICK, grid=GRID, output=tmp_path / "there", on_progress=hidden
            )
        assert plain(here) == plain(there)
        assert trials(tmp_path / "here") == trials(tmp_path / "there")
        assert len(trials(tmp_path / "there")) == there.trials_run == TRIALS
        assert once_each(hidden.seen)

    def test_a_client_of_ones_own_will_do(self, workers: Any, cross: str) -> None:
        here = SPLIT.run(cross, BARS, gate=QUICK, n_jobs=1)
        with distributed.Client(workers.scheduler_address), joblib.parallel_config(backend="dask"):
            assert plain(SPLIT.run(cross, BARS, gate=QUICK)) == plain(here)

    def test_a_notebook_can_use_it(self, workers: Any) -> None:
        async def cell() -> None:
            with dask_cluster(workers.scheduler_address):
                pass

        asyncio.run(cell())

    @pytest.mark.model
    def test_workers_load_no_model(self, workers: Any, tmp_path: Path, smollm2_path: Path) -> None:
        file, model, template = tmp_path / "mine.py", tmp_path / "model.gguf", tmp_path / "words.toml"
        file.write_text(SUSPICIOUS.format(here=os.getpid()), encoding="utf-8")
        model.symlink_to(smollm2_path)
        shutil.copy(Path(bt_llm.__file__).parent / "prompts" / "templates" / "market.toml", template)
        gate = Gate(
            advisor=AdvisorConfig(model=model, template=template, state_space=StateSpace(features=(TREND,))),
            indicator=QuickAdvice,
        )
        short, arguments = BARS.iloc[:120], {"gate": gate, "grid": {"fast": [2, 4]}}
        hidden = Hidden(file, model, template, Path(os.environ["BT_LLM_CACHE_DIR"]))
        with dask_cluster(workers.scheduler_address):
            there = SPLIT.run(f"{file}:Suspicious", short, **arguments, on_progress=hidden)
        assert hidden.seen[-1] == (2, 2)
        assert plain(there) == plain(SPLIT.run(f"{file}:Suspicious", short, **arguments, n_jobs=1))

    def test_studies_that_differ_in_the_model_alone_are_not_mixed(self, workers: Any, cross: str) -> None:
        """A worker lives longer than a study."""
        with dask_cluster(workers.scheduler_address):
            for model in ("scripted:random:1", "scripted:random:2", "scripted:random:1"):
                gate = dataclasses.replace(QUICK, advisor=AdvisorConfig(model=model))
                there = SPLIT.run(cross, BARS, gate=gate, grid={"fast": [2, 4]})
                here = SPLIT.run(cross, BARS, gate=gate, grid={"fast": [2, 4]}, n_jobs=1)
                assert plain(there) == plain(here)

    def test_neighbours_of_the_strategy_go_there_too(self, workers: Any, tmp_path: Path) -> None:
        source = CROSS.replace("import backtrader as bt", "import backtrader as bt\nfrom rules import wants")
        source = source.replace("self.cross[0] > 0 and not", "wants(self.cross[0]) and not")
        (tmp_path / "cross.py").write_text(source, encoding="utf-8")
        (tmp_path / "rules.py").write_text("def wants(x):\n    import late\n    return x > late.X\n")
        (tmp_path / "late.py").write_text("X = 0\n")
        spec = f"{tmp_path / 'cross.py'}:Cross"
        here = SPLIT.run(spec, BARS, grid={"fast": [2, 4]}, n_jobs=1)
        hidden = Hidden(*tmp_path.glob("*.py"))
        with dask_cluster(workers.scheduler_address):
            there = SPLIT.run(spec, BARS, grid={"fast": [2, 4]}, on_progress=hidden)
        assert plain(there) == plain(here)

    def test_null_runs_go_there_too(self, workers: Any, cross: str) -> None:
        gates = [AlwaysOpen(), NeverOpen(), AlwaysOpen(warm_up=50)]
        with dask_cluster(workers.scheduler_address):
            there = run_many(cross, BARS, gates)
        assert [one["final_value"] for one in there] == [
            one["final_value"] for one in run_many(cross, BARS, gates, n_jobs=1)
        ]


class TestMishaps:
    def test_a_worker_that_is_killed_half_way_costs_nothing(
        self, workers: Any, cross: str, tmp_path: Path
    ) -> None:
        seen: list[tuple[int, int]] = []
        victims: list[int] = []

        def kill_one(done: int, total: int) -> None:
            seen.append((done, total))
            if done == total // 2:
                victims.append(workers.workers[0].pid)
                os.kill(victims[0], signal.SIGKILL)

        here = SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, output=tmp_path / "here", n_jobs=1)
        with dask_cluster(workers.scheduler_address):
            there = SPLIT.run(
                cross, BARS, gate=QUICK, grid=GRID, output=tmp_path / "there", on_progress=kill_one
            )
        assert len(victims) == 1
        assert once_each(seen)
        assert plain(here) == plain(there)
        assert trials(tmp_path / "here") == trials(tmp_path / "there")

    def test_an_interrupted_study_goes_on(self, workers: Any, cross: str, tmp_path: Path) -> None:
        def interrupt(done: int, total: int) -> None:
            if done == 5:
                raise KeyboardInterrupt

        def study(**options: Any) -> Any:
            return SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, output=tmp_path / "out", **options)

        with pytest.raises(KeyboardInterrupt), dask_cluster(workers.scheduler_address):
            study(on_progress=interrupt)
        assert len(trials(tmp_path / "out")) == 5
        with dask_cluster(workers.scheduler_address):
            again = study()
        assert again.trials_run == TRIALS - 5
        assert len(trials(tmp_path / "out")) == TRIALS
        assert plain(again) == plain(SPLIT.run(cross, BARS, gate=QUICK, grid=GRID, n_jobs=1))

    def test_a_task_that_kills_its_workers_ends_the_study(self, tmp_path: Path) -> None:
        deadly = tmp_path / "deadly.py"
        deadly.write_text(
            "import os, signal\nimport backtrader as bt\n\n\nclass Deadly(bt.Strategy):\n"
            f"    def next(self):\n        if os.getpid() != {os.getpid()}:\n"
            "            os.kill(os.getpid(), signal.SIGKILL)\n",
            encoding="utf-8",
        )
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": 0}),
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
            ) as workers,
            pytest.raises(ClusterError, match=r"a task killed 1 workers.*run it again to go on$"),
            dask_cluster(workers.scheduler_address),
        ):
            SPLIT.run(f"{deadly}:Deadly", BARS)

    def test_a_module_that_workers_do_not_have_is_one_line(
        self, workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "only_here.py").write_text(CROSS, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        strategy = importlib.import_module("only_here").Cross
        with (
            pytest.raises(StrategyError, match=r"No module named 'only_here'\): install that module there"),
            dask_cluster(workers.scheduler_address),
        ):
            SPLIT.run(strategy, BARS)

    def test_a_task_that_dask_cannot_load_is_one_line(self, workers: Any) -> None:
        with distributed.Client(workers.scheduler_address, set_as_default=False) as client:
            backend = module._backend(client)
            failure = module._Failure(RuntimeError("Error during\ndeserialization"))
            with pytest.raises(
                ClusterError, match=r"a task \(Error during deserialization\): install the same"
            ):
                backend.retrieve_result_callback(failure)

    def test_an_error_of_the_strategy_reads_as_it_does_here(self, workers: Any, tmp_path: Path) -> None:
        failing = tmp_path / "failing.py"
        failing.write_text(
            "import backtrader as bt\n\n\nclass Failing(bt.Strategy):\n    params = (('fast', 1),)\n\n"
            "    def next(self):\n        raise ValueError('no')\n",
            encoding="utf-8",
        )
        messages = []
        for place in (contextlib.nullcontext(), dask_cluster(workers.scheduler_address)):
            with pytest.raises(StrategyError) as error, place:
                SPLIT.run(f"{failing}:Failing", BARS)
            messages.append(str(error.value))
        assert messages == ["Failing failed with its defaults: ValueError: no (failing.py, line 8)"] * 2

    def test_a_bug_keeps_its_traceback(
        self, workers: Any, cross: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Supplies, "of", classmethod(lambda cls, configs: "not supplies"))
        with pytest.raises(AttributeError, match="settle"), dask_cluster(workers.scheduler_address):
            SPLIT.run(cross, BARS, gate=QUICK)


ENDS_ONCE = """
    def nextstart(self):
        import os, time
        for number in range(4):
            try:
                os.close(os.open(f"{__file__}.{number}", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                continue
        else:
            time.sleep(600)
        self.next()
"""
"""Of a strategy whose first trials end, and no later one."""


class TestCommand:
    @pytest.fixture
    def study(self, tmp_path: Path, cross: str) -> Path:
        walk(300).to_csv(tmp_path / "bars.csv", index_label="time")
        (tmp_path / "cross.toml").write_text(TEXT, encoding="utf-8")
        return tmp_path / "cross.toml"

    @pytest.mark.parametrize("by_file", [False, True], ids=["address", "scheduler file"])
    def test_it_is_what_the_command_prints_without(
        self, workers: Any, study: Path, tmp_path: Path, by_file: bool
    ) -> None:
        address = workers.scheduler_address
        if by_file:
            address = str(tmp_path / "scheduler.json")
            Path(address).write_text(json.dumps({"address": workers.scheduler_address}), encoding="utf-8")
        here, there = (
            subprocess.run(
                [sys.executable, "-c", PATIENT, "walkforward", study, "--format", "json", *more],
                capture_output=True,
                text=True,
                timeout=500,
            )
            for more in (["-o", tmp_path / "here"], ["-o", tmp_path / "there", "--dask", address])
        )
        assert there.returncode == 0, there.stderr
        assert "12 of 12 trials run" in there.stderr
        assert here.stdout == there.stdout
        assert trials(tmp_path / "here") == trials(tmp_path / "there")

    def test_a_scheduler_that_dies_is_one_line(self, study: Path, tmp_path: Path) -> None:
        file, out, strategy = tmp_path / "scheduler.json", tmp_path / "there", tmp_path / "cross.py"
        strategy.write_text(strategy.read_text(encoding="utf-8") + ENDS_ONCE, encoding="utf-8")
        run_dask, common = [sys.executable, "-m", "dask"], ["--scheduler-file", file, "--no-dashboard"]
        with contextlib.ExitStack() as stack:

            def start(command: list[Any], stderr: int = subprocess.DEVNULL) -> Any:
                return stack.enter_context(killed(subprocess.Popen(command, stderr=stderr, text=True)))

            scheduler = start([*run_dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *common])
            wait_for(lambda: file.exists() and file.stat().st_size)
            start([*run_dask, "worker", "--nthreads", "1", "--no-nanny", *common])
            study_command = [sys.executable, "-c", PATIENT, "walkforward", study, "--dask", file, "-o", out]
            command = start(study_command, subprocess.PIPE)
            wait_for(lambda: (out / LEDGER).exists() and trials(out))
            scheduler.kill()
            _, errors = command.communicate(timeout=300)
        assert command.returncode == 1
        assert errors.strip().startswith(f"error: cluster {file}: work was lost (")
        assert errors.strip().endswith("run it again to go on")
        assert "Traceback" not in errors

    def test_with_certificates_on_both_sides(self, study: Path, tmp_path: Path) -> None:
        """As docs/cluster.md says; whoever has no certificate is turned away."""
        authority = trustme.CA()
        node = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        node.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
        ca, pem, file = (str(tmp_path / name) for name in ("ca.pem", "node.pem", "scheduler.json"))
        tls = ["--tls-ca-file", ca, "--tls-cert", pem, "--tls-key", pem]
        common = [*tls, "--scheduler-file", file, "--no-dashboard"]
        run_dask, to = [sys.executable, "-m", "dask"], "DASK_DISTRIBUTED__COMM__"
        own = {f"{to}TLS__CA_FILE": ca, f"{to}TLS__CLIENT__CERT": pem, f"{to}TLS__CLIENT__KEY": pem}
        here = ["--protocol", "tls", "--host", "127.0.0.1"]
        words = ["walkforward", study, "--dask", file, "--format", "json"]
        command = [sys.executable, "-c", PATIENT, *words]
        with contextlib.ExitStack() as stack:

            def start(*words: str) -> None:
                process = subprocess.Popen([*run_dask, *words], stderr=subprocess.DEVNULL)
                stack.enter_context(killed(process))

            start("scheduler", *here, "--port", "0", *common)
            wait_for(lambda: Path(file).exists() and Path(file).stat().st_size)
            start("worker", "--nthreads", "1", "--no-nanny", *common)
            secured, open_ = (
                subprocess.run(
                    [*command, "-o", tmp_path / name],
                    env={**os.environ, **more},
                    capture_output=True,
                    text=True,
                    timeout=500,
                )
                for name, more in (("secured", {**own, f"{to}REQUIRE_ENCRYPTION": "true"}), ("open", {}))
            )
        assert secured.returncode == 0, secured.stderr
        assert json.loads(Path(file).read_text(encoding="utf-8"))["address"].startswith("tls://")
        assert open_.returncode in (1, 2)
        assert "Traceback" not in open_.stderr

    def test_nobody_listens(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            result = CliRunner().invoke(app, ["walkforward", str(study), "--dask", address])
        assert isinstance(result.exception, ClusterError)
        assert str(result.exception).startswith(f"no Dask scheduler answers at {address} (")
        assert "\n" not in str(result.exception)

    @pytest.mark.parametrize("address", ["", "here", "foo://here:1", "tcp://127.0.0.1:port"])
    def test_an_address_that_is_none(self, study: Path, address: str) -> None:
        result = CliRunner().invoke(app, ["walkforward", str(study), "--dask", address])
        assert isinstance(result.exception, ConfigError)
        assert "expected one such as tcp://10.0.0.5:8786" in str(result.exception)

    def test_a_file_that_is_no_scheduler_file(self, study: Path) -> None:
        result = CliRunner().invoke(app, ["walkforward", str(study), "--dask", str(study)])
        assert isinstance(result.exception, ConfigError)
        assert "scheduler file" in str(result.exception)

    def test_without_the_extra(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "distributed", None)
        result = CliRunner().invoke(app, ["walkforward", str(study), "--dask", "tcp://127.0.0.1:1"])
        assert isinstance(result.exception, MissingExtraError)
        assert "pip install 'bt-llm[cluster]'" in str(result.exception)

    def test_jobs_and_dask_are_one_too_many(self, study: Path) -> None:
        result = CliRunner().invoke(app, ["walkforward", str(study), "--dask", "tcp://x:1", "--jobs", "2"])
        assert result.exit_code == 2
        assert "not both" in result.output

    def test_other_versions_are_refused_before_any_trial(
        self, workers: Any, study: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = bt_llm.__version__
        monkeypatch.setattr(bt_llm, "__version__", "99.0")
        result = CliRunner().invoke(app, ["walkforward", str(study), "--dask", workers.scheduler_address])
        assert isinstance(result.exception, ClusterError)
        assert f"has bt_llm {own}, this is 99.0: install the same version" in str(result.exception)

    def test_a_worker_that_comes_later_with_another_version(
        self, cross: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = Supplies.of([])
        monkeypatch.setattr(bt_llm, "__version__", "99.0")
        with pytest.raises(ClusterError, match=r"a worker has bt_llm 99\.0, the search"):
            sent.settled({})

    def test_no_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "WORKER_SECONDS", 0.2)
        with (
            distributed.LocalCluster(
                n_workers=0, processes=False, dashboard_address=":0", host="127.0.0.1", protocol="tcp://"
            ) as empty,
            pytest.raises(ClusterError, match="has no workers"),
            dask_cluster(empty.scheduler_address),
        ):
            raise AssertionError
