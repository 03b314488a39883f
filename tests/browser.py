"""A headless Chromium, driven over its debugging pipe: no port, no driver, no package."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None and "CI" not in os.environ, reason="chromium is not installed"
)

# Chromium reads commands from descriptor 3 and writes answers to 4; those of the pipes may be these two.
_ON_3_AND_4 = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-sync", "--disable-component-update"),
)
_SAID = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
_PATIENCE = 120.0  # seconds, so that a browser that hangs fails a test and does not hang it
CTRL = 2


class Browser:
    """One tab; `said` are its console messages and errors, `requested` the addresses it asked for."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._rest = b""
        self._count = 0
        self._session = ""
        self.said: list[Any] = []
        self.requested: list[str] = []
        self._loaded = False
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._count:
                assert "error" not in found, found
                return found["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._answers], [], [], _PATIENCE)[0], "chromium does not answer"
            part = self._answers.read(65536)
            assert part, "chromium is gone"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        method, params = found.get("method"), found.get("params", {})
        if method in _SAID:
            self.said.append(params)
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        return found

    def open(self, path: Path, *, width: int = 1280, dark: bool = False) -> None:
        """Load a page and wait until it is drawn."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False  # only now has all been read that the last page said
        self.said.clear()
        self.requested.clear()
        self("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._read()
        self.settle()

    def settle(self) -> None:
        """Wait for two frames: what a script was told is then drawn."""
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def value(self, expression: str) -> Any:
        """Return the value of an expression on the page."""
        found = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press, release or turn the wheel of the mouse at a place of the window."""
        self("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)
        self.settle()

    def key(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key)
        self.settle()


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Yield a browser with a fresh profile, and end it afterwards."""
    (reads, commands), (answers, writes) = os.pipe(), os.pipe()
    browser = None
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _ON_3_AND_4, str(reads), str(writes)),
            *("chromium", *_QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}"),
        ],
        pass_fds=(reads, writes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reads)
    os.close(writes)
    try:
        browser = Browser(commands, answers)
        yield browser
    finally:
        if browser is not None:
            browser._session = ""
            with contextlib.suppress(AssertionError, OSError):
                browser("Browser.close")
            browser._commands.close()
            browser._answers.close()
        process.terminate()
        process.wait(timeout=60)
