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
    command = [program(), "--model", str(model), "--alias", "small", "--threads", "2"]
    for _ in range(5):  # another process may take the port first
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=output
            ) as process,
        ):
            try:
                if _answers(f"http://127.0.0.1:{port}/health", process):
                    yield f"http://127.0.0.1:{port}"
                    return
            finally:
                process.kill()
    pytest.fail(f"llama-server did not start: {log.read_text(errors='replace')[-500:]}")


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    for _ in range(3000):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return process.poll() is None
        if process.poll() is not None:
            return False
        time.sleep(0.1)
    return False
