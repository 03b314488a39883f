"""Ends of questions under way: Ctrl-C while C code runs, and whoever asks giving up in another thread."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any

__all__ = ["NotedInterrupt", "can_give_up", "given_up", "giving_up_when"]

_check: ContextVar[Callable[[], bool] | None] = ContextVar("whether nobody waits any more", default=None)


@contextlib.contextmanager
def giving_up_when(nobody_waits: Callable[[], bool]) -> Iterator[None]:
    """While entered, models that are asked in this thread stop as at a deadline once `nobody_waits()`.

    Examples
    --------
    >>> with giving_up_when(lambda: True):
    ...     print(given_up())
    True
    >>> given_up()
    False
    """
    token = _check.set(nobody_waits)
    try:
        yield
    finally:
        _check.reset(token)


def can_give_up() -> bool:
    """Return whether whoever asks in this thread may give up."""
    return _check.get() is not None


def given_up() -> bool:
    """Return whether whoever asks in this thread has given up."""
    check = _check.get()
    return check is not None and check()


class NotedInterrupt:
    """While entered in the main thread, Ctrl-C is noted; its handler is called at the end.

    What a handler raises inside a callback that C calls is dropped by `ctypes`, the interrupt with it.

    Attributes
    ----------
    came : bool
        Whether there was one: the callback's cue to have C stop.

    Examples
    --------
    >>> try:
    ...     with NotedInterrupt() as interrupt:
    ...         signal.raise_signal(signal.SIGINT)
    ...         print("the rest is done;", interrupt.came)
    ... except KeyboardInterrupt:
    ...     print("then it is raised")
    the rest is done; True
    then it is raised
    """

    def __init__(self) -> None:
        self.came = False
        self._handler: Any = None

    @property
    def notes(self) -> bool:
        """Whether it would note one: elsewhere than in the main thread, Python calls no handlers."""
        return self._handler is not None

    def __enter__(self) -> NotedInterrupt:
        """Begin to note."""
        if threading.current_thread() is threading.main_thread() and callable(
            handler := signal.getsignal(signal.SIGINT)
        ):
            self._handler = handler
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.came = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the handler back, and call it if it was called for."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            if self.came:
                self._handler(signal.SIGINT, None)
