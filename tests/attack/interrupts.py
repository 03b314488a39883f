"""Ctrl-C at random moments of every command: exit code 130, one line, nothing left running."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

__all__ = ["VERBS", "Stopped", "interrupt", "prepare"]

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_S = 2.0
"""Seconds within which a command has to end."""
_LEAVING_S = 0.5
"""A command that has done its work and is gone so soon after Ctrl-C was leaving already."""

_ON_BARS = ("-s", str(ROOT / "strategies" / "sma_cross.py") + ":GatedSmaCross", "-d", "bars.csv")
_LOCAL, _SCRIPTED = ("-m", "smollm2"), ("-m", "scripted:random")

VERBS: dict[str, tuple[str, ...]] = {
    "demo": ("demo",),
    "run": ("run", *_ON_BARS, *_LOCAL, "--cache", "empty"),
    "run, many threads": ("run", *_ON_BARS, *_LOCAL, "--threads", "2", "--report", "page.html"),
    "test": ("test", *_ON_BARS, *_SCRIPTED, "--random", "200", "--jobs", "2"),
    "compare": ("compare", *_ON_BARS, "-m", "scripted:random", "-m", "scripted:trend"),
    "walkforward": ("walkforward", "study.toml", "-o", "out", "--jobs", "2"),
    "plan": ("plan", "study.toml"),
    "data": ("data", "bars.csv"),
    "policy": ("policy", *_LOCAL, "--cache", "empty"),
    "reproduce": ("reproduce", str(ROOT / "data" / "demo_run.json"), "--pack", "pack.jsonl"),
    "ask news": ("ask", "news", "Bonds rise", *_LOCAL, "--cache", "empty"),
    "cache stats": ("cache", "stats"),
    "cache list": ("cache", "list"),
    "cache import": ("cache", "import", "pack.jsonl", "--cache", "other"),
    "cache export": ("cache", "export", "exported.jsonl"),
    "cache verify": ("cache", "verify"),
    "cache repair": ("cache", "repair"),
    "models": ("models", "list"),
    "models inspect": ("models", "inspect", "smollm2", "--sha256"),
    "models recommend": ("models", "recommend"),
    "cache merge": ("cache", "merge", "pack.jsonl", "pack.jsonl", "-o", "merged.jsonl"),
    "doctor": ("doctor",),
}
_STUDY = """\
strategy = "cross.py:Cross"
data = "bars.csv"

[gate.advisor]
model = "scripted:random"

[grid]
fast = [2, 3, 4, 5]
slow = [10, 20, 30]

[walk_forward]
train_size = 1500
test_size = 300
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """What came of one Ctrl-C: the command, after how many seconds it came, how it ended, and its limit."""

    verb: str
    at_s: float
    code: int
    seconds: float
    errors: str
    left: int
    over: bool = False
    limit_s: float = LIMIT_S

    @property
    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        lines = [line for line in self.errors.splitlines() if line.startswith("error:")]
        if self.code != 130:
            return f"exit code {self.code}"
        if len(lines) != 1 or "interrupted" not in lines[0] or "Traceback" in self.errors:
            return f"{len(lines)} lines of errors"
        if self.left:
            return f"{self.left} processes are left"
        return f"took {self.seconds:.1f} s" if self.seconds > self.limit_s else ""


def prepare(folder: Path) -> Path:
    """Lay out what the commands need; returns the folder."""
    from tests.walk_forward_cases import cross_file

    cross_file(folder)
    (folder / "study.toml").write_text(_STUDY, encoding="utf-8")
    shutil.copy(ROOT / "data" / "eurusd_hourly.csv", folder / "bars.csv")
    shutil.copy(ROOT / "data" / "demo_pack.jsonl", folder / "pack.jsonl")
    start(folder, ("cache", "import", "pack.jsonl")).communicate()
    return folder


def start(folder: Path, arguments: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start a command in a session of its own."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "BT_LLM_CACHE_DIR": str(folder / "cache"),
        "MPLBACKEND": "Agg",
        "COLUMNS": "120",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "bt_llm", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupt(verb: str, folder: Path, longest_s: float, seed: int, limit_s: float = LIMIT_S) -> Stopped:
    """Start a command and send it one Ctrl-C, at a random moment after it has begun to run.

    It has begun when its own first lines run; before that it is Python that starts. Every second one goes to
    the processes that it has started too, as from a terminal.

    Parameters
    ----------
    verb : str
        One of `VERBS`.
    folder : Path
        As `prepare` made it.
    longest_s : float
        Until when the moment is drawn, in seconds.
    seed : int
        Which moment.
    limit_s : float
        Seconds within which it has to end.
    """
    for name in ("empty", "other", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    process = start(folder, VERBS[verb])
    begun = time.monotonic()
    while process.poll() is None and psutil.Process(process.pid).num_threads() < 2:
        time.sleep(0.001)
    at = random.Random(f"{verb} {seed}").uniform(0, longest_s)
    time.sleep(at)
    over = process.poll() is not None  # or it is just leaving, see below
    with contextlib.suppress(ProcessLookupError):
        if seed % 2:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        else:
            os.kill(process.pid, signal.SIGINT)
    sent = time.monotonic()
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
    seconds = time.monotonic() - sent
    over = over or (process.returncode == 0 and seconds < _LEAVING_S)
    left = _left(process.pid)
    return Stopped(verb, sent - begun, process.returncode, seconds, errors, left, over, limit_s)


def _left(session: int) -> int:
    """Return how many processes of a session go on, and end them."""
    deadline, found = time.monotonic() + 20.0, [1]
    while found and time.monotonic() < deadline:
        time.sleep(0.02)
        found = [pid for pid in psutil.pids() if _is_of(pid, session)]
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return len(found)


def _is_of(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def lasts(verb: str, folder: Path, limit_s: float) -> tuple[float, str]:
    """Return for how many seconds a command runs undisturbed, up to a limit, and how it failed if it did."""
    process = start(folder, VERBS[verb])
    begun = time.monotonic()
    try:
        _, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return limit_s, ""
    return time.monotonic() - begun, "" if process.returncode == 0 else errors[-300:]
