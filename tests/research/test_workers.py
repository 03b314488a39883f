"""What is sent to other processes, and whether work leaves this one."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import pytest

from bt_llm.backtest import load_strategy
from bt_llm.exceptions import ConfigError, StrategyError
from bt_llm.research import PortableStrategy, check_jobs, leaves, run_each
from bt_llm.research._workers import chunk_size
from tests.walk_forward_cases import Holds, cross_file


class TestStrategies:
    def test_a_file_travels_as_its_text(self, tmp_path: Path) -> None:
        spec = cross_file(tmp_path)
        sent = pickle.dumps(PortableStrategy.of(load_strategy(spec)))
        file = Path(spec.rpartition(":")[0])
        file.unlink()
        code = (
            "import pickle, sys\n"
            "made = pickle.loads(bytes.fromhex(sys.argv[1])).load()\n"
            "import inspect\n"
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
        portable = PortableStrategy.of(load_strategy(spec))
        file.write_text(file.read_text(encoding="utf-8").replace('"fast", 3', '"fast", 5'), encoding="utf-8")
        assert portable.load().params.fast == 3
        assert load_strategy(spec).params.fast == 5

    def test_a_class_of_another_version_is_refused(self) -> None:
        portable = PortableStrategy.of(Holds)
        assert portable.load() is Holds
        with pytest.raises(StrategyError, match=r"walk_forward_cases.Holds is another version on a worker"):
            dataclasses.replace(portable, source="0" * 64).load()

    def test_a_class_without_a_file_is_sent_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("__main__", "a_module_that_has_no_file"):
            monkeypatch.setattr(Holds, "__module__", module)
            portable = PortableStrategy.of(Holds)
            assert portable == PortableStrategy(made=Holds)
            assert portable.load() is Holds


class TestWhere:
    def test_one_job_stays_unless_joblib_is_configured(self) -> None:
        assert [leaves(n) for n in (None, 1, 2, -1)] == [False, False, True, True]
        with joblib.parallel_config(n_jobs=2):
            assert leaves(None)
            assert not leaves(1)
        with joblib.parallel_config(backend="loky"):
            assert not leaves(None)

    @pytest.mark.parametrize("n_jobs", [0, -2, 1.5, True, "2"])
    def test_a_number_is_checked(self, n_jobs: Any) -> None:
        with pytest.raises(ConfigError, match="n_jobs="):
            check_jobs(n_jobs)

    @pytest.mark.parametrize("ordered", [True, False])
    def test_results_come_back(self, ordered: bool) -> None:
        found = list(run_each(divmod, [(i, 3) for i in range(7)], 2, ordered=ordered))
        assert sorted(found) == [divmod(i, 3) for i in range(7)]
        assert not ordered or found == sorted(found)

    def test_supplies_go_with_what_leaves_this_process_and_are_made_once(self) -> None:
        made: list[int] = []

        def supplies() -> int:
            made.append(1)
            return 7

        work = [(2, 5), (3, 5)]
        assert list(run_each(pow, work, 1, ordered=True, supplies=supplies)) == [32, 243]
        assert list(run_each(pow, [], 2, ordered=True, supplies=supplies)) == []
        assert made == []
        assert list(run_each(pow, work, 2, ordered=True, supplies=supplies)) == [4, 5]  # modulo 7
        assert made == [1]

    @pytest.mark.parametrize(("n_jobs", "size"), [(1, 1), (None, 1), (2, 7)])
    def test_chunks_are_of_what_is_sent(self, n_jobs: int | None, size: int) -> None:
        assert chunk_size(100, n_jobs, chunks=8) == size  # 100 / (2 workers x 8) = 6.25
