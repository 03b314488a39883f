"""Ctrl-C while C code runs: noted, and handed on when it has returned."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any

__all__ = ["NotedInterrupt"]


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
