"""Writers that are killed at any moment: what they said was stored is there, right, and can be added to."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bt_llm.cache import Pack, VerdictCache
from bt_llm.cache._pack_files import read_pack, write_pack
from bt_llm.exceptions import BtLlmError
from bt_llm.research import TrialLedger
from tests.attack.mutations import trial
from tests.cache_cases import record

__all__ = ["WRITERS", "kill_one"]

Say = Callable[[int], None]
_LONGEST_S = 0.25


def _write_cache(folder: Path, say: Say) -> None:
    cache = VerdictCache(folder)
    for number in range(10**6):
        cache.put_many([record(number)])
        say(number)


def _check_cache(folder: Path, said: int) -> str:
    cache = VerdictCache(folder)
    expected = {one.key: one for one in map(record, range(said + 2))}
    found = cache.get_many(list(expected))
    cache.check()
    cache.put_many([record(said + 2)])
    if lost := [number for number in range(said + 1) if record(number).key not in found]:
        return f"verdicts {lost[:3]} of {said + 1} are lost"
    wrong = [key for key, one in found.items() if one.body != expected[key].body]
    return f"verdicts {wrong[:3]} are wrong" if wrong else ""


def _write_ledger(folder: Path, say: Say) -> None:
    with TrialLedger(folder / "trials.sqlite") as ledger:
        for number in range(10**6):
            ledger.add(trial(number))
            say(number)


def _check_ledger(folder: Path, said: int) -> str:
    with TrialLedger(folder / "trials.sqlite") as ledger:
        found = ledger.records()
        ledger.add(trial(said + 2))
    numbers = {int(one.key, 16) for one in found}
    if lost := sorted(set(range(said + 1)) - numbers):
        return f"trials {lost[:3]} of {said + 1} are lost"
    wrong = [one.key for one in found if one != trial(int(one.key, 16))]
    return f"trials {wrong[:3]} are wrong" if wrong else ""


def _pack(number: int) -> Pack:
    return Pack(records=tuple(map(record, range(40 + number % 7))))


def _write_packs(folder: Path, say: Say) -> None:
    for number in range(10**6):
        write_pack(_pack(number), folder / "pack.jsonl")
        say(number)


def _check_packs(folder: Path, said: int) -> str:
    found = read_pack(folder / "pack.jsonl")
    allowed = {_pack(number).sha256 for number in (said, said + 1)}
    return "" if found.sha256 in allowed else f"the pack is neither the one of write {said} nor the next"


WRITERS = {
    "cache": (_write_cache, _check_cache),
    "ledger": (_write_ledger, _check_ledger),
    "pack": (_write_packs, _check_packs),
}


def kill_one(kind: str, folder: Path, seed: int) -> str:
    """Start a writer, kill it, and return what is wrong with what it left; empty if nothing is.

    Parameters
    ----------
    kind : str
        One of `WRITERS`.
    folder : Path
        A folder to work in, as an earlier call left it or empty.
    seed : int
        When it is killed.
    """
    write, check = WRITERS[kind]
    heard, told = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            write(folder, lambda number: os.write(told, b"%d\n" % number) and None)
        finally:
            os._exit(1)
    os.close(told)
    with os.fdopen(heard, "rb") as lines:
        first = lines.readline()
        time.sleep(random.Random(f"{kind} {seed}").uniform(0, _LONGEST_S))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        said = [int(line) for line in [first, *lines] if line.endswith(b"\n")]
    if not said:
        return "the writer did not begin"
    try:
        return check(folder, said[-1])
    except BtLlmError as error:
        return str(error)
