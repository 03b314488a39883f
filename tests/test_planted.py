"""The search for the planted API key can fail: runs of pytest in which something leaks it."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.planted import CORE, SECRET, files_with, forms

HEAD = """\
import base64, logging, os, socket
from urllib.parse import quote
KEY = os.environ.get("BT_LLM_API_KEY", "")

def key():
    return os.environ["BT_LLM_API_KEY"]
"""


def run(folder: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a test function of that body, under the plugin; its key is another one than this session's."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    text = f"{HEAD}\ndef test_it(tmp_path, caplog, capsys, bind_key):\n{lines}\n"
    (folder / "test_leak.py").write_text(text, encoding="utf-8")
    plugins = ["-p", "planted", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--rootdir", str(folder), *options]
    return subprocess.run(
        [*command, "-c", "/dev/null", "--basetemp", str(folder / "base"), str(folder)],
        env={"PYTHONPATH": str(Path(__file__).parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ('(tmp_path / "a.txt").write_text("x" * 3_000_000 + key())', "a.txt"),
        ('(tmp_path / "b.db").write_bytes(base64.b64encode(f"Bearer {key()}".encode()))', "b.db"),
        ('(tmp_path / "c.json").write_text("?key=" + quote(key(), safe=""))', "c.json"),
        ('(tmp_path / key().replace("/", "")).touch()', "file "),
        ("print(key())", "captured stdout call of"),
        ('logging.getLogger("bt_llm.remote").debug("sent %s", key())', "the logger 'bt_llm.remote'"),
        ('logging.getLogger("other").warning(key())\ncaplog.clear()', "the logger 'other'"),
        ("ours, theirs = socket.socketpair()\nours.sendall(key().encode())", "a request, in "),
        (
            "ours, theirs = socket.socketpair()\nos.write(ours.fileno(), key().encode())\ntheirs.recv(99)",
            "a request, in ",
        ),
        (
            'bind_key("http://a:1/v1")\nours, theirs = socket.socketpair()\n'
            'ours.send(f"GET / HTTP/1.1\\r\\nHost: b:1\\r\\nX: {key()}".encode())',
            "a request, in ",
        ),
    ],
)
def test_a_leak_fails_a_session_whose_tests_pass(tmp_path: Path, body: str, place: str) -> None:
    done = run(tmp_path, body)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    _, _, summary = done.stdout.partition("the planted API key was found")
    assert place in summary
    assert re.search("[0-9a-f]{24}", summary) is None  # it is not spread any further


@pytest.mark.parametrize("body", ['(tmp_path / "a.txt").write_text(key())', "print(key())"])
def test_a_leak_in_a_worker_fails_the_session(tmp_path: Path, body: str) -> None:
    done = run(tmp_path, body, "-n", "1")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    _, _, summary = done.stdout.partition("the planted API key was found")
    assert "test_leak" in summary or "a.txt" in summary
    assert re.search("[0-9a-f]{24}", summary) is None


def test_without_a_leak_a_session_with_workers_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "print(key()[:8])", "-n", "1")
    assert (done.returncode, "was found" in done.stdout) == (0, False), done.stdout + done.stderr


def test_the_error_of_a_failed_test_is_searched_too(tmp_path: Path) -> None:
    done = run(tmp_path, 'raise ValueError(f"wrong key {key()}")')
    assert "the error of " in done.stdout.partition("the planted API key was found")[2]


def test_without_a_leak_a_session_passes(tmp_path: Path) -> None:
    body = (
        'assert key().startswith("sk-")\nprint("sk-")\n(tmp_path / "a.txt").write_text(key()[:8])\n'
        'bind_key("http://a:1/v1")\nours, theirs = socket.socketpair()\n'
        'ours.send(f"GET / HTTP/1.1\\r\\nHost: a:1\\r\\nX: {key()}".encode())'
    )
    done = run(tmp_path, body)
    assert (done.returncode, "was found" in done.stdout) == (0, False), done.stdout + done.stderr


@pytest.mark.parametrize("before", range(6))
def test_the_core_is_found_behind_anything(before: int) -> None:
    text = "x" * before + f"sk-{CORE[::-1]}+/ and more"
    wanted = forms(CORE[::-1])
    assert any(form in base64.b64encode(text.encode()) for form in wanted)
    assert any(form in base64.urlsafe_b64encode(text.encode()) for form in wanted)
    assert not any(form in base64.b64encode(SECRET.encode()) for form in wanted)


def test_files_are_searched_across_the_pieces_in_which_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for at in range(20):
        (tmp_path / "far" / f"{at:02}").write_bytes(b"-" * at + b"needle" + b"-" * 5)
    (tmp_path / "near").write_bytes(b"needl e")
    found = list(files_with([b"needle"], tmp_path, chunk=7))
    assert [path.name for path in found] == [f"{at:02}" for at in range(20)]


def test_a_folder_that_goes_while_it_is_searched_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"needle")
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "gone":
            (tmp_path / "gone" / "file").unlink()
            (tmp_path / "gone").rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(files_with([b"needle"], tmp_path)) == [tmp_path / "here" / "file"]
