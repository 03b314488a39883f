"""Locks that a forked process finds free.

A fork copies one thread, and every lock as it is: one that another thread held is held for ever in the child.
Backtrader's ``optstrategy``, and every pool of processes on Linux, forks.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

__all__ = ["IN_SQLITE", "ForkableLock", "begin_anew_in_child"]


class ForkableLock:
    """A reentrant lock that is free in a forked child, whoever held it in the parent.

    What it guards is then as the fork found it: its owner must be content with any state between two
    statements, or begin anew in the child.

    Examples
    --------
    >>> lock = ForkableLock()
    >>> with lock, lock:
    ...     print("held twice")
    held twice
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def acquire(self, blocking: bool = True) -> bool:
        """Hold it, once it is free; without `blocking` only if it is, and return whether."""
        return self._lock.acquire(blocking)

    def release(self) -> None:
        """Give it free, once for each time it is held."""
        self._lock.release()

    def _free(self) -> None:
        """In a forked child: begin anew if a thread that is not there holds it."""
        if self.acquire(blocking=False):
            self.release()
        else:
            self._lock = threading.RLock()

    def __enter__(self) -> None:
        """Wait for it and hold it."""
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it free."""
        self.release()


_locks: weakref.WeakSet[ForkableLock] = weakref.WeakSet()


def _free_all() -> None:
    for lock in list(_locks):
        lock._free()


def begin_anew_in_child(reset: Callable[[], None]) -> None:
    """Call `reset`, which makes something of a process anew, now and in every process that is forked."""
    reset()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


IN_SQLITE = ForkableLock()
"""Held while a thread is in SQLite, whose own locks no fork may copy while they are held: a fork waits."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
    os.register_at_fork(
        before=IN_SQLITE.acquire, after_in_parent=IN_SQLITE.release, after_in_child=IN_SQLITE.release
    )
