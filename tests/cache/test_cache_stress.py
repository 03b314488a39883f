"""The cache under several processes, kill -9, Ctrl-C and a full disk.

BT_LLM_STRESS=1 runs the full size: 8 processes with 10,000 verdicts each, and 20 kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bt_llm.cache import VerdictCache
from bt_llm.exceptions import CacheError
from tests.cache_cases import Model, question, verdict

FULL = os.environ.get("BT_LLM_STRESS") == "1"
PROCESSES, VERDICTS, KILLS = (8, 10_000, 20) if FULL else (4, 400, 5)
BATCH = 50 if FULL else 20
SPAN = 20_000


def child(action: str, directory: Path, **arguments: int) -> subprocess.Popen[str]:
    """Start this file as a process of its own, which reports on standard output."""
    command = [sys.executable, __file__, action, str(directory), json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_record_at_once_agree_and_lose_nothing(tmp_path: Path) -> None:
    directory, total = tmp_path / "cache", VERDICTS * 2
    started = time.perf_counter()
    children = [
        child("record", directory, voice=voice, count=VERDICTS, total=total, batch=BATCH)
        for voice in range(PROCESSES)
    ]
    outputs: list[tuple[str, str]] = [("", "")] * PROCESSES

    def collect(at: int) -> None:
        outputs[at] = children[at].communicate()

    readers = [threading.Thread(target=collect, args=(at,)) for at in range(PROCESSES)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = time.perf_counter() - started

    assert [(one.returncode, error) for one, (_, error) in zip(children, outputs, strict=True)] == [
        (0, "")
    ] * PROCESSES
    told: dict[str, set[str]] = {}
    for output, _ in outputs:
        lines = [json.loads(line) for line in output.splitlines()]
        assert sum(len(line["stored"]) for line in lines) == VERDICTS
        for line in lines:
            for key, text in line["stored"].items():
                told.setdefault(key, set()).add(text)
    cache = VerdictCache(directory, mode="replay")
    stored = {record.key: json.dumps(record.verdict.to_dict()) for record in cache.records()}
    assert {key: {text} for key, text in stored.items()} == told, "every process was told what is stored"
    assert cache.check() == len(told)
    print(f"\n{PROCESSES} x {VERDICTS} verdicts, {len(told)} keys: {seconds:.1f} s")  # noqa: T201 - with -s


@pytest.mark.parametrize("stop", ["SIGKILL", "SIGINT"])
def test_what_was_reported_as_stored_survives_a_kill(tmp_path: Path, stop: str) -> None:
    if not hasattr(signal, stop):
        pytest.skip(f"no {stop} on this platform")
    chance = random.Random(20_260_101)
    directory, told = tmp_path / "cache", {}
    for kill in range(KILLS if stop == "SIGKILL" else 2):
        process = child(
            "record", directory, voice=kill, count=SPAN, total=SPAN, batch=BATCH, first=kill * SPAN
        )
        assert process.stdout is not None
        assert process.stderr is not None
        said = [process.stdout.readline()]  # it is recording from here on
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(getattr(signal, stop))
        said += process.stdout.readlines()
        error = process.stderr.read()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        assert process.returncode != 0
        assert "Error" not in error
        for line in said:
            if line.endswith("\n"):
                told.update(json.loads(line)["stored"])

        stored = {r.key: json.dumps(r.verdict.to_dict()) for r in VerdictCache(directory).records()}
        assert {key: stored.get(key) for key in told} == told
        assert VerdictCache(directory).check() == len(stored)
        assert len(stored) % BATCH == 0, "a batch is stored whole or not at all"
    assert told


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    directory = tmp_path / "cache"
    process = child("fill", directory, total=10**6, batch=BATCH, room=100_000)
    output, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    *lines, last = [json.loads(line) for line in output.splitlines()]
    assert "disk is full or failing" in last["error"]
    assert "what was stored before is intact" in last["error"]
    told = {key: text for line in lines for key, text in line["stored"].items()}
    cache = VerdictCache(directory)
    assert {r.key: json.dumps(r.verdict.to_dict()) for r in cache.records()} == told
    assert cache.check() == len(told) > 0
    assert len(cache.fetch([question(n) for n in range(3)], Model())) == 3, "there is room again"


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache, told, errors = VerdictCache(tmp_path / "cache"), [], []

    def work(voice: int) -> None:
        numbers = random.Random(voice).sample(range(60), 40)
        try:
            verdicts = cache.fetch([question(n) for n in numbers], Model(voice, batch=7))
        except Exception as error:
            errors.append(error)
        else:
            told.extend(zip(numbers, verdicts, strict=True))

    threads = [threading.Thread(target=work, args=(voice,)) for voice in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(told) == 160
    for number, given in told:
        assert given == cache.get_many([question(number).key])[question(number).key].verdict


def _record(directory: Path, *, voice: int, count: int, total: int, batch: int, first: int = 0) -> None:
    """Record `count` of `total` questions in an order of its own, saying after each batch what is stored."""
    numbers = random.Random(voice).sample(range(first, first + total), count)
    cache = VerdictCache(directory)
    for start in range(0, count, batch):
        questions = [question(number) for number in numbers[start : start + batch]]
        verdicts = cache.fetch(questions, Model(voice, batch))
        _say(stored={q.key: json.dumps(v.to_dict()) for q, v in zip(questions, verdicts, strict=True)})


def _fill(directory: Path, *, total: int, batch: int, room: int) -> None:
    """Record until a limit on the file's size stops it, which SQLite sees as a full disk."""
    import resource

    cache = VerdictCache(directory)
    for start in range(0, total, batch):
        questions = [question(number) for number in range(start, start + batch)]
        try:
            verdicts = cache.fetch(questions, Model(0, batch))
        except CacheError as error:
            _say(error=str(error))
            # What measures the tests writes a file of its own at the end.
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            return
        _say(stored={q.key: json.dumps(v.to_dict()) for q, v in zip(questions, verdicts, strict=True)})
        if start == 0:
            size = (directory / "cache.db").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    assert verdict(0, 0) != verdict(0, 1)
    {"record": _record, "fill": _fill}[sys.argv[1]](Path(sys.argv[2]), **json.loads(sys.argv[3]))
