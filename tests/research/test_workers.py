"""Whether work leaves this process, and how its results come back."""

from __future__ import annotations

from typing import Any

import joblib
import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.research import check_jobs, leaves, run_each
from bt_llm.research._workers import chunk_size


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
