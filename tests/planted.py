"""A pytest plugin: plants an API key in every test, and fails the session if it turns up anywhere.

Looked through are each test's report (its name, its error, what it printed and logged), every record that is
logged, whatever a test did with it, every request that leaves or reaches this process, and every file below
the session's temporary folder. A test that has the key sent says to which host, with `bind_key`. Looked for
are the key, and it as base64 and in a URL. A worker of pytest-xdist has a key of its own, looks for that, and
tells the process that started it what it found.
"""

from __future__ import annotations

import base64
import functools
import logging
import os
import re
import secrets
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

__all__ = ["CORE", "SECRET", "files_with", "forms"]

CORE = secrets.token_hex(12)
SECRET = f"sk-{CORE}+/"
"""The key of this session; its last letters change in a URL, its core does not."""

VARIABLE, HOST = "BT_LLM_API_KEY", "BT_LLM_API_HOST"
SENT = re.compile(rb"^host: *(\S+)", re.IGNORECASE | re.MULTILINE)
CHUNK = 2**20


def forms(core: str) -> tuple[bytes, ...]:
    """The core as it is, which is also what a URL has of it, and as base64 after 0, 1 and 2 other bytes."""
    found = {core.encode()}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The first and the last letters depend on what stands around it.
            found.add(encode(b"\0" * before + core.encode())[4 if before else 0 : -4])
    return tuple(sorted(found))


def files_with(wanted: Collection[bytes], folder: Path, chunk: int = CHUNK) -> Iterator[Path]:
    """Yield the files below a folder that hold one of the texts, in their names or in themselves."""
    overlap = max(map(len, wanted)) - 1
    for path in sorted(_below(folder)):
        named = any(text in os.fsencode(path) for text in wanted)
        if named or (path.is_file() and not path.is_symlink() and _holds(path, wanted, chunk, overlap)):
            yield path


def _below(folder: Path) -> Iterator[Path]:
    """Yield what is below a folder; programs that a test has ended may still be removing theirs."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def _holds(path: Path, wanted: Iterable[bytes], chunk: int, overlap: int) -> bool:
    end = b""
    try:
        with path.open("rb") as file:
            while piece := file.read(chunk):
                piece = end + piece
                if any(text in piece for text in wanted):
                    return True
                end = piece[-overlap:]
    except OSError:  # such as one that may not be read, or has just gone
        return False
    return False


class _Watch(logging.Handler):
    """Remembers in which places the key was."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.forms = forms(CORE)
        self.places: dict[str, None] = {}
        self.running = "the session"
        self.folder: Path | None = None
        self.bound: set[str] = set()
        """Hosts that the running test has the key sent to."""

    def look_at_traffic(self, data: Any) -> None:
        """Look through what is sent or received; where a test has the key sent, at whom a request is for."""
        data = bytes(data)
        if not any(form in data for form in self.forms):
            return
        host = SENT.search(data)
        if not self.bound or (host is not None and host[1].decode("latin-1") not in self.bound):
            self.places[f"a request, in {self.running}"] = None

    def look(self, place: str, text: str) -> None:
        if any(form in text.encode("utf-8", "replace") for form in self.forms):
            self.places[place] = None

    def emit(self, record: logging.LogRecord) -> None:
        self.look(f"a record of the logger {record.name!r}, in {self.running}", self.format(record))


_watch = _Watch()


@pytest.fixture(autouse=True, scope="session")
def _watched_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    _watch.folder = tmp_path_factory.getbasetemp()


@pytest.fixture(autouse=True)
def _planted_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, SECRET)
    monkeypatch.delenv(HOST, raising=False)
    yield
    _watch.bound.clear()


@pytest.fixture
def bind_key(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Bind the planted key to the host of an address, as a user does; requests to it may have the key."""

    def bind(url: str) -> None:
        monkeypatch.setenv(HOST, urlsplit(url).netloc)
        _watch.bound.add(urlsplit(url).netloc)

    return bind


_METHODS: tuple[tuple[type[Any], str], ...] = (
    *((socket.socket, name) for name in ("send", "sendall", "sendto", "sendmsg", "recv", "recv_into")),
    *((ssl.SSLSocket, name) for name in ("send", "recv", "recv_into")),
    (ssl.SSLObject, "write"),
)


def _watched(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a socket that shows what passes through it."""
    receives = method.__name__.startswith("recv")

    @functools.wraps(method)
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        if not receives:
            whole = b"".join(map(bytes, args[0])) if method.__name__ == "sendmsg" else args[0]
            _watch.look_at_traffic(whole)
        result = method(self, *args, **options)
        if receives:
            _watch.look_at_traffic(result if isinstance(result, bytes) else memoryview(args[0])[:result])
        return result

    return watched


_restore: list[Callable[[], None]] = []


def _watch_traffic() -> None:
    for cls, name in _METHODS:
        if not hasattr(cls, name):  # Windows has no sendmsg
            continue
        own = vars(cls).get(name)
        setattr(cls, name, _watched(getattr(cls, name)))
        _restore.append(
            functools.partial(setattr, cls, name, own) if own else functools.partial(delattr, cls, name)
        )


def pytest_sessionstart() -> None:
    _watch_traffic()
    logging.getLogger().addHandler(_watch)
    # All that the remote backend can say; the levels of others are theirs to choose.
    logging.getLogger("bt_llm.remote").setLevel(logging.DEBUG)


def pytest_runtest_logstart(nodeid: str) -> None:
    _watch.running = nodeid


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _watch.look("the name of a test", report.nodeid)
    _watch.look(f"the error of {report.nodeid}", str(report.longrepr or ""))
    for title, text in report.sections:
        _watch.look(f"{title.lower()} of {report.nodeid}", text)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    logging.getLogger().removeHandler(_watch)
    while _restore:
        _restore.pop()()
    if _watch.folder is not None:
        _watch.places |= dict.fromkeys(f"file {path}" for path in files_with(_watch.forms, _watch.folder))
    _watch.places = {place.replace(CORE, "(key)"): None for place in _watch.places}
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["planted"] = list(_watch.places)
    if _watch.places:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker of pytest-xdist found."""
    _watch.places |= dict.fromkeys(getattr(node, "workeroutput", {}).get("planted", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _watch.places:
        terminalreporter.section("the planted API key was found", red=True)
        for place in _watch.places:
            terminalreporter.line(place)
