"""Files that are there whole or not at all, and temporary folders that outlive no process for long."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "apart_from_results",
    "is_of_ours",
    "keep_output_for_results",
    "refuse_others",
    "temporary_folder",
    "write_whole",
]

_FOLDER = re.compile(r"bt_llm_([0-9]+)_.*")


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file beside its place, and move it there in one step when it is complete and on disk.

    Whoever reads it sees the old one or the new one, also after a kill or a power cut. What is no ordinary
    file, such as ``/dev/stdout``, is written to directly.

    Parameters
    ----------
    path : path
        The file; replaced if it is there. Of a link, what it leads to.
    content : bytes or str
        What is in it; a text is written as UTF-8, with the line ends that it has.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    _remove_unfinished(target)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(target.parent)


_MARKS = (b'"kind":"bt_llm ', b'"kind": "bt_llm ', b"as bt-llm explain wrote it")
"""What is near the beginning of a pack, of a manifest, and of a rule as code."""
_BEGINNINGS = (
    b"<!doctype html",
    b'{\n  "strategy": ',
    *(b"run,opened,", b"model,time,", b"run,symbol,", b"run,time,", b"run,index,"),
    *(b"opened,closed,", b"time,fold,", b"time,equity", b"fold,train_start,", b"cell,"),
)
"""What a page, the results of a study, and tables begin with."""
_SEEN = 1 << 20  # bytes at the beginning of a file that tell what it is


def is_of_ours(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is empty, a page, or begins as something does that bt_llm writes."""
    try:
        with open(path, "rb") as file:
            seen = file.read(_SEEN)
        if seen.startswith(b"\x1f\x8b"):
            seen = zlib.decompressobj(31).decompress(seen, _SEEN)
    except (OSError, zlib.error):
        return False
    begins = seen.lstrip()[:_LONGEST].lower().startswith(_BEGINNINGS)
    return not seen or begins or any(mark in seen for mark in _MARKS)


_LONGEST = max(map(len, _BEGINNINGS))


def refuse_others(*paths: str | os.PathLike[str]) -> None:
    """Refuse to write over what somebody else has written: bars, a script, a table of their own.

    Raises
    ------
    FileExistsError
        If a file is at one of the paths that is not `is_of_ours`; it is as it was.
    """
    for path in paths:
        if os.path.isfile(path) and not is_of_ours(path):
            raise FileExistsError(errno.EEXIST, "a file is there that bt_llm has not written", str(path))


_RESULTS_ALONE = "_BT_LLM_RESULTS_ALONE"  # in the environment, so that workers of a command have it too


def keep_output_for_results() -> None:
    """Have `apart_from_results` move the descriptor of standard output too, here and in workers."""
    os.environ[_RESULTS_ALONE] = "1"


@contextlib.contextmanager
def apart_from_results() -> Iterator[None]:
    """Send what somebody else's code prints to standard error: standard output is for results.

    Of a command also what it writes past ``sys.stdout``, and what the programs print that it starts.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if os.name != "nt" and _RESULTS_ALONE in os.environ:
            with contextlib.suppress(OSError):  # closed, or no descriptor is left
                _flush()
                before = os.dup(1)
                stack.callback(os.close, before)
                stack.callback(os.dup2, before, 1)
                stack.callback(_flush)
                os.dup2(2, 1)
        yield


def _flush() -> None:
    for stream in (sys.__stdout__, sys.stdout):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[union-attr]


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is there as long as it is needed; one that a killed process left is removed too."""
    parent = Path(tempfile.gettempdir())
    for entry in os.scandir(parent):
        match = _FOLDER.fullmatch(entry.name)
        with contextlib.suppress(OSError):
            if match and _is_left_over(entry, int(match[1])):
                shutil.rmtree(entry.path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"bt_llm_{os.getpid()}_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left_over(entry: os.DirEntry[str], process: int) -> bool:
    own = not hasattr(os, "geteuid") or entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    return own and entry.is_dir(follow_symlinks=False) and not _is_running(process)


def _is_running(process: int) -> bool:
    import psutil

    return psutil.pid_exists(process)


def _remove_unfinished(target: Path) -> None:
    """Remove what processes left that were killed while they wrote the same file."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.([0-9]+)(?:-[0-9]+)?\.tmp")
    with contextlib.suppress(OSError):
        for entry in os.scandir(target.parent):
            match = pattern.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and not _is_running(int(match[1])):
                os.unlink(entry.path)


def _sync_folder(folder: Path) -> None:
    """Have a rename on disk; Windows has no such thing."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
