"""A forked process finds no lock held by a thread that it does not have."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cache import VerdictCache
from bt_llm.indicators._live import LiveAsker
from bt_llm.locks import ForkableLock
from bt_llm.models import LLMThrottler, ModelManager
from bt_llm.research import TrialLedger, TrialOutcome, TrialRecord
from tests.cache_cases import record

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


def in_a_fork(work: Callable[[], Any]) -> bool:
    """Return whether a forked child comes to the end of some work, within minutes."""
    if (pid := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    end = time.monotonic() + 300.0
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)  # also of one that never came to its first line
            os.waitpid(pid, 0)
            return False
        time.sleep(0.002)
    return not os.WIFSIGNALED(ended[1])


def test_a_lock_of_another_thread_is_free_in_a_child_and_stays_held_in_the_parent() -> None:
    lock, held, over = ForkableLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert in_a_fork(lock.__enter__)
    assert not lock.acquire(blocking=False)
    over.set()
    thread.join()


def test_one_s_own_lock_is_still_one_s_own_in_a_child() -> None:
    lock = ForkableLock()
    with lock:
        assert in_a_fork(lambda: lock.__exit__(None, None, None))


def added(folder: Path) -> int:
    """Open a ledger, as each thread and process does for itself, and write into it."""
    outcome = TrialOutcome(equity=np.array([1.0, 2.0]), trades=1, wins=1, held=1, traded=1.0)
    with TrialLedger(folder / "trials.sqlite") as ledger:
        names = {"key": "ab" * 32, "configuration": "cd" * 32, "description": ""}
        ledger.add(TrialRecord(**names, sharpe=1.0, outcome=outcome))
        return len(ledger)


def busy(what: str, folder: Path) -> Callable[[], Any]:
    """Return work of a few microseconds that holds a lock most of the time."""
    if what == "advisor":
        config = AdvisorConfig(model="scripted:trend", cache_mode="off")
        advisor = Advisor(config)
        return lambda: (Advisor(config).advise_cells([3]), advisor.advise_cells([3]))
    if what == "cache":
        cache = VerdictCache(folder)
        return lambda: cache.put_many([record(1)])
    if what == "ledger":
        return lambda: added(folder)
    if what == "manager":
        manager = ModelManager("scripted:trend")
        return lambda: manager.usage
    if what == "throttler":
        return LLMThrottler(min_interval=0.0).can_call
    asker = LiveAsker(lambda cell: cell, timeout_s=5.0)
    return lambda: asker.known(1)


@pytest.mark.parametrize("what", ["advisor", "cache", "ledger", "manager", "throttler", "live"])
def test_a_child_of_a_busy_process_goes_on(what: str, tmp_path: Path) -> None:
    work, stop = busy(what, tmp_path), threading.Event()
    after = busy("cache", tmp_path) if what == "ledger" else work  # SQLite's own locks are all of a process

    def again() -> None:
        while not stop.is_set():
            work()

    work(), after()  # a child waits for ever for a module that a thread was importing: that is Python's own
    thread = threading.Thread(target=again)
    thread.start()
    try:
        for _ in range(15):
            time.sleep(0.003)
            assert in_a_fork(after)
    finally:
        stop.set()
        thread.join()
