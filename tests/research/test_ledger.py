"""The ledger of trials: counted once, kept through a crash, and never believed blindly."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.exceptions import CacheCorruptError, CacheError, ConfigError
from bt_llm.research import TrialLedger, TrialOutcome, TrialRecord, _ledger

OUTCOME = TrialOutcome(equity=np.array([100.0, 101.5, 99.25]), trades=2, wins=1, held=2, traded=190.5)


def record(key: int = 1, configuration: int = 1, sharpe: float = 0.1, **changes: Any) -> TrialRecord:
    outcome = dataclasses.replace(OUTCOME, **changes)
    return TrialRecord(
        key=f"{key:064x}",
        configuration=f"{configuration:064x}",
        description='{"settings":{}}',
        sharpe=sharpe,
        outcome=outcome,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study" / "trials.sqlite"


class TestKeeping:
    def test_what_is_added_is_found_again(self, path: Path) -> None:
        with TrialLedger(path) as ledger:
            assert ledger.add(record())
        with TrialLedger(path) as ledger:
            assert ledger.records() == [record()]
            assert ledger.get([record().key, "f" * 64]) == {record().key: OUTCOME}

    def test_the_first_to_be_written_stays(self, path: Path) -> None:
        with TrialLedger(path) as ledger:
            assert ledger.add(record())
            assert not ledger.add(record(trades=9))
            assert len(ledger) == 1
            assert ledger.get([record().key])[record().key].trades == 2

    def test_many_keys_are_looked_up_at_once(self) -> None:
        with TrialLedger() as ledger:
            for key in range(1200):
                ledger.add(record(key))
            assert len(ledger.get(f"{key:064x}" for key in range(1100))) == 1100

    @given(st.lists(st.floats(allow_nan=False), max_size=20), st.floats(allow_nan=False))
    def test_floats_come_back_to_the_last_bit(self, equity: list[float], traded: float) -> None:
        given_outcome = dataclasses.replace(OUTCOME, equity=np.array(equity, dtype=float), traded=traded)
        with TrialLedger() as ledger:
            ledger.add(dataclasses.replace(record(), outcome=given_outcome))
            (found,) = ledger.records()
        assert found.outcome == given_outcome
        assert found.outcome.equity.tobytes() == given_outcome.equity.tobytes()

    def test_two_can_write_at_once(self, path: Path) -> None:
        def write(start: int) -> int:
            with TrialLedger(path) as ledger:
                return sum(ledger.add(record(key)) for key in range(start, start + 40))

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(write, (0, 0, 20, 40))) == 80
        with TrialLedger(path) as ledger:
            assert len(ledger) == 80

    def test_a_write_is_there_without_closing(self, path: Path) -> None:
        ledger = TrialLedger(path)
        ledger.add(record())
        with TrialLedger(path) as other:
            assert len(other) == 1
        ledger.close()

    def test_outcomes_compare_by_all_their_facts(self) -> None:
        assert dataclasses.replace(OUTCOME) == OUTCOME
        for change in ({"trades": 3}, {"wins": 0}, {"held": 0}, {"traded": 1.0}, {"equity": np.zeros(3)}):
            assert dataclasses.replace(OUTCOME, **change) != OUTCOME  # type: ignore[arg-type]
        assert OUTCOME != "an outcome"


class TestCounting:
    def test_a_configuration_counts_once_whatever_its_windows(self) -> None:
        with TrialLedger() as ledger:
            ledger.add(record(1, 1, 0.1))
            ledger.add(record(2, 1, 0.4))
            ledger.add(record(3, 1, math.nan))
            ledger.add(record(4, 2, -0.2))
            ledger.add(record(5, 3, math.nan))
            found = ledger.sharpes()
        assert list(found) == [f"{i:064x}" for i in (1, 2, 3)]
        assert found[f"{1:064x}"] == pytest.approx(0.25)
        assert found[f"{2:064x}"] == -0.2
        assert math.isnan(found[f"{3:064x}"])


class TestDistrust:
    @pytest.mark.parametrize(
        "change",
        [
            "trades = 3",
            "wins = 'one'",
            "equity = x'00'",
            "equity = zeroblob(24)",
            "equity = 'text'",
            "sharpe = 9",
            "sharpe = 'high'",
            "sharpe = NULL",
            "description = '{}'",
            f"configuration = '{'a' * 64}'",
            "configuration = 'short'",
            "seal = ''",
        ],
    )
    def test_a_changed_row_is_refused(self, path: Path, change: str) -> None:
        with TrialLedger(path) as ledger:
            ledger.add(record())
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE trials SET {change}")
        connection.close()
        with (
            TrialLedger(path) as ledger,
            pytest.raises(CacheCorruptError, match=r"trial 000000000000: .*move the file away"),
        ):
            ledger.get([record().key])
        for read in ("records", "sharpes"):
            with TrialLedger(path) as ledger, pytest.raises(CacheCorruptError, match="trial 000000000000"):
                getattr(ledger, read)()

    def test_a_row_under_another_key_is_refused(self, path: Path) -> None:
        with TrialLedger(path) as ledger:
            ledger.add(record())
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE trials SET key = '{'b' * 64}'")
        connection.close()
        with TrialLedger(path) as ledger, pytest.raises(CacheCorruptError, match="not what was written"):
            ledger.records()

    def test_a_file_that_is_no_database(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text("these are no trials\n" * 100, encoding="utf-8")
        with pytest.raises(CacheCorruptError, match=r"cannot be opened .*move the file away"):
            TrialLedger(path)

    def test_another_database(self, path: Path) -> None:
        path.parent.mkdir()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE verdicts (key TEXT)")
        connection.close()
        with pytest.raises(CacheCorruptError, match="a database of format 0, expected a ledger of format 1"):
            TrialLedger(path)

    def test_another_version(self, path: Path) -> None:
        TrialLedger(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 2")
        connection.close()
        with pytest.raises(CacheCorruptError, match="a database of format 2, expected"):
            TrialLedger(path)

    def test_a_table_that_is_gone(self, path: Path) -> None:
        TrialLedger(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE trials")
        connection.close()
        with TrialLedger(path) as ledger, pytest.raises(CacheCorruptError, match="cannot be read"):
            ledger.records()

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(CacheError, match="cannot be opened"):
            TrialLedger(tmp_path / "file" / "trials.sqlite")

    def test_what_cannot_be_stored_is_not_lost_in_silence(self) -> None:
        with TrialLedger() as ledger, pytest.raises(CacheError, match="cannot be written"):
            ledger.add(record(traded=math.nan))

    @pytest.mark.parametrize("name", ["key", "configuration"])
    def test_a_key_is_a_hash(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"{name}='abc': expected a SHA-256"):
            dataclasses.replace(record(), **{name: "abc"})  # type: ignore[arg-type]


def test_a_row_past_its_seal_counts_nowhere(path: Path) -> None:
    with TrialLedger(path) as ledger:
        for key in range(3):
            ledger.add(record(key, key, sharpe=0.1 * key))
        assert list(ledger.sharpes().values()) == pytest.approx([0.0, 0.1, 0.2])
    with sqlite3.connect(path) as database:
        database.execute("UPDATE trials SET sharpe = 0.0 WHERE key = ?", (f"{2:064x}",))
    database.close()
    with TrialLedger(path) as ledger, pytest.raises(CacheCorruptError, match="it is not what was written"):
        ledger.sharpes()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials WHERE key <> new.key; END",
        "CREATE TRIGGER trials AFTER INSERT ON trials BEGIN DELETE FROM trials; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE INDEX i ON trials (sharpe) WHERE sharpe > 0",
        "ALTER TABLE trials ADD COLUMN more AS (trades + 1)",
    ],
)
def test_what_no_ledger_has_is_refused_and_never_run(path: Path, statement: str) -> None:
    with TrialLedger(path) as ledger:
        ledger.add(record(1))
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(CacheCorruptError, match="is not what a ledger has"):
        TrialLedger(path)


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes and devices")
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_pipe_or_a_device_is_refused_before_it_is_opened(path: Path, suffix: str) -> None:
    path.parent.mkdir()
    os.mkfifo(f"{path}{suffix}")
    with pytest.raises(CacheCorruptError, match="no ordinary file"):
        TrialLedger(path)
    with pytest.raises(CacheCorruptError, match="no ordinary file"):
        TrialLedger("/dev/zero")
    with pytest.raises(ConfigError, match="NUL"):
        TrialLedger("a\0b")


def test_a_text_that_is_none_is_one_line(path: Path) -> None:
    with TrialLedger(path) as ledger:
        ledger.add(record(1))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trials SET description = CAST(x'0a0aff0a' AS TEXT)")
    connection.close()
    with TrialLedger(path) as ledger, pytest.raises(CacheCorruptError, match="cannot be read") as caught:
        ledger.sharpes()
    assert "\n" not in str(caught.value)


def test_several_can_make_one_ledger_at_the_same_moment(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(8):
        path = tmp_path / str(number) / "trials.sqlite"
        start = context.Event()
        found = context.Queue()
        workers = [context.Process(target=opened, args=(path, start, found)) for _ in range(4)]
        for worker in workers:
            worker.start()
        start.set()
        assert [found.get(timeout=300) for _ in workers] == ["opened"] * 4
        for worker in workers:
            worker.join()
        with TrialLedger(path) as ledger:
            assert len(ledger) == 4


def opened(path: Path, start: Any, found: Any) -> None:
    """Open a ledger when told to, and add a trial of one's own."""
    start.wait()
    try:
        with TrialLedger(path) as ledger:
            ledger.add(record(os.getpid()))
        found.put("opened")
    except CacheError as error:
        found.put(str(error))


def test_a_ledger_of_which_only_the_file_was_made_is_made(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    with TrialLedger(path) as ledger:
        assert ledger.add(record())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 0")  # as one was left that was made in two steps
    connection.close()
    with TrialLedger(path) as ledger:
        assert ledger.records() == [record()]


def test_a_ledger_whose_making_fails_is_not_half_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_ledger, "FORMAT", "no number")
        with pytest.raises(CacheError, match="cannot be opened"):
            TrialLedger(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    with TrialLedger(path) as ledger:
        assert ledger.add(record())
