"""Ctrl-C ends a command, whatever it is busy with: code 130, one line, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from bt_llm.cli import _interrupt
from bt_llm.cli._interrupt import InterruptWatch

LINE = "error: interrupted; what was stored is kept, run the command again to go on\n"

BUSY = {
    "python code": "while True: pass",
    "a wait for a thread": "threading.Event().wait()",
    "C code that calls back and drops what is raised there": "libc.pause_for()",
    "code that drops it": "\n".join(
        ("while True:", "    try: time.sleep(300)", "    except BaseException: time.sleep(300)")
    ),
    "a destructor that drops it": "Dropping(); time.sleep(300)",
    "a thread that the interpreter waits for": "threading.Thread(target=time.sleep, args=(300,)).start()",
}
HEAD = """
import ctypes, os, sys, threading, time
class libc:
    @staticmethod
    def pause_for():
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(
            lambda a, b: time.sleep(0.05) or 0)
        numbers = (ctypes.c_int * 2000)()
        ctypes.CDLL(None).qsort(numbers, 2000, 4, callback)
class Dropping:
    def __del__(self):
        time.sleep(1)
from bt_llm.cli import main
import bt_llm.cli._main as module
def busy(watch):
"""
READY = "    print('ready', flush=True)\n"


def interrupted(code: str, tmp_path: Path, after_s: float = 0.3) -> tuple[int, str, float]:
    """Run a program, send it Ctrl-C when it says that it is ready; return its code, errors and seconds."""
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "BT_LLM_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, errors, time.monotonic() - started


@pytest.mark.parametrize("what", BUSY)
def test_a_command_ends_whatever_it_is_busy_with(what: str, tmp_path: Path) -> None:
    lines = "\n".join(f"    {line}" for line in BUSY[what].splitlines())
    code, errors, seconds = interrupted(f"{HEAD}{READY}{lines}\nmodule._run = busy\nmain()\n", tmp_path)
    assert (code, errors) == (130, LINE)
    assert seconds < 60  # most of them would take minutes


def test_a_second_one_ends_it_at_once(tmp_path: Path) -> None:
    first = "    try: os.kill(os.getpid(), signal.SIGINT)\n    except BaseException: time.sleep(0.01)\n"
    second = "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n    print('not at once')\n"
    patient = "import bt_llm.cli._interrupt as watching\nwatching._GRACE_S = 300.0\n"
    program = f"import signal\n{HEAD}{READY}{first}{second}{patient}module._run = busy\nmain()\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "ready\n", LINE)


def test_who_is_about_to_say_the_line_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interrupt, "_GRACE_S", 60.0)
    watch, began, said = InterruptWatch(to_the_end=False), threading.Event(), list[str]()

    def slowly() -> None:
        began.set()
        time.sleep(0.1)
        said.append("the line")

    first = threading.Thread(target=watch._tell_once, args=(slowly,))
    first.start()
    began.wait()
    watch._tell_once(lambda: said.append("again"))
    assert said == ["the line"]
    first.join()


def test_a_watch_ends_though_a_forked_child_has_its_pipe() -> None:
    with InterruptWatch(to_the_end=False):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        since = time.monotonic()
    seconds = time.monotonic() - since
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert seconds < 50  # it would be a minute


def test_processes_that_it_started_end_with_it(tmp_path: Path) -> None:
    started = (
        "    import multiprocessing, psutil\n"
        "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))\n"
        f"    child.start(); open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        f"{READY}    child.join()\n"
    )
    code, errors, _ = interrupted(f"{HEAD}{started}\nmodule._run = busy\nmain()\n", tmp_path)
    assert (code, errors) == (130, LINE)
    child, end = int((tmp_path / "pid").read_text()), time.monotonic() + 60
    while goes_on(child):  # it was killed, and may not know it yet
        assert time.monotonic() < end
        time.sleep(0.01)


def goes_on(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.model
@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.2])
def test_the_load_of_a_model_is_interrupted(after_s: float, tmp_path: Path, smollm2_path: Path) -> None:
    program = (
        f"{HEAD}    from bt_llm.models.llama._weights import Weights\n"
        f"    from pathlib import Path\n"
        f"{READY}    while True: Weights(Path({str(smollm2_path)!r}))\n"
    )
    code, errors, _ = interrupted(f"{program}\nmodule._run = busy\nmain()\n", tmp_path, after_s=0.3 + after_s)
    assert (code, errors) == (130, LINE)
