"""llama.cpp's own server on loopback, where it has been compiled (see `.ci/llama-server`)."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["running"]

_BUILT = Path(__file__).resolve().parent.parent / "build" / "llama-server" / "bin" / "llama-server"


def program() -> str:
    """The server's program: of the variable LLAMA_SERVER, on the PATH, or as `make test` compiles it."""
    named = os.environ.get("LLAMA_SERVER", "")
    if named and not Path(named).is_file():
        pytest.fail(f"LLAMA_SERVER={named}: no such file")
    found = named or shutil.which("llama-server") or (str(_BUILT) if _BUILT.is_file() else "")
    if not found:
        pytest.skip("no llama-server: `make test` compiles it, or set LLAMA_SERVER")
    return found


@contextlib.contextmanager
def running(model: Path, log: Path) -> Iterator[str]:
    """Serve a model under the name ``small``; yield the address when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program(), "--model", str(model), "--alias", "small", "--threads", "2"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"llama-server did not start: {log.read_text(errors='replace')[-500:]}")
