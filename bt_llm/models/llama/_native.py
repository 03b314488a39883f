"""llama.cpp's library: loaded when it is first used, its log routed to ours, and its threads counted."""

from __future__ import annotations

import collections
import ctypes
import os
import sys
from typing import Any

import psutil

from bt_llm import plain_text
from bt_llm.exceptions import MissingExtraError
from bt_llm.locks import ForkableLock
from bt_llm.models._interrupts import NotedInterrupt

__all__ = [
    "computing_threads",
    "cpu_threads",
    "forget_errors",
    "free_in",
    "free_nothing",
    "last_error",
    "library",
    "system_info",
]

_log = plain_text.logger("bt_llm.llama")
_log_tail: collections.deque[str] = collections.deque(maxlen=8)
_log_lock = ForkableLock()
_kept_alive: list[Any] = []
_verbose = False
_computed_in: int | None = None  # the process whose OpenMP threads exist


def library(*, verbose: bool | None = None) -> Any:
    """Return the `llama_cpp` module, with its log routed to the logger ``bt_llm.llama``.

    Parameters
    ----------
    verbose : bool, optional
        Whether to also write llama.cpp's log to standard error, from now on and in the whole
        process: the library has one log. None leaves that as it is.

    Raises
    ------
    MissingExtraError
        If llama-cpp-python or its shared library cannot be loaded.
    """
    global _verbose
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(
            f"llama-cpp-python cannot be loaded ({error}): pip install --force-reinstall llama-cpp-python"
        ) from error
    with _log_lock:
        _verbose = _verbose if verbose is None else verbose
        if not _kept_alive:
            callback = llama_cpp.llama_log_callback(_on_log)
            _kept_alive.append(callback)  # the library keeps a bare pointer to it
            llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
            with NotedInterrupt():
                llama_cpp.llama_backend_init()
    return llama_cpp


def _on_log(level: int, text: bytes | None, _: Any) -> None:
    line = (text or b"").decode("utf-8", "replace")
    if _verbose:
        sys.stderr.write(plain_text.printable(line))
    if line := line.strip():
        if level == 3:  # GGML_LOG_LEVEL_ERROR
            _log_tail.append(line)
        _log.debug("%s", line)


def system_info() -> str:
    """Return llama.cpp's line on its build and the CPU features it uses; loads the library."""
    text = library().llama_print_system_info().decode("ascii", "replace")
    return " ".join(text.split()).strip("| ")


def forget_errors() -> None:
    """Forget what the log says of earlier calls."""
    _log_tail.clear()


def last_error() -> str:
    """Return the last line that the library has logged as an error, as the reason of a failure."""
    return _log_tail[-1] if _log_tail else "it gave no reason"


def cpu_threads(wanted: int | None = None) -> int:
    """Return how many threads to compute with: the physical cores this process may use, at most `wanted`.

    Examples
    --------
    >>> cpu_threads(1)
    1
    >>> cpu_threads(10_000) == cpu_threads()
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    cores = max(1, min(allowed, physical))
    return cores if wanted is None else max(1, min(wanted, cores))


def computing_threads(wanted: int) -> int:
    """Return how many threads a context made now may compute with.

    One in a process forked from one that has computed: the OpenMP runtime hangs there with more.
    No result depends on it.
    """
    global _computed_in
    if _computed_in not in (None, os.getpid()):
        return 1
    _computed_in = os.getpid()
    return wanted


def free_nothing(_: Any) -> None:
    """Free what was never made."""


def free_in(pid: int, free: Any, pointer: Any) -> None:
    """Free what the process of that number has made; does nothing in another one."""
    if os.getpid() == pid:  # a forked child holds a copy of the pointer, and must not free what it never made
        free(pointer)
