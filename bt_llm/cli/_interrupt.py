"""Ctrl-C: a command ends soon after it, with one line and exit code 130, whatever it is busy with.

Python runs a signal's handler between two instructions of the main thread. While that is inside a library,
which loads a model for a minute or waits for a pool, the handler waits too; raised inside a callback that C
calls, or inside a destructor, its KeyboardInterrupt is dropped. Hence a second road: Python writes the signal
into a pipe from C, a thread reads it, and ends the process when the main thread has not ended it by itself.
What is written is safe from that: stores and files are made to survive a kill.

A terminal sends Ctrl-C to the processes that a command has started too, and they would complain, each in many
lines. So the signal is blocked everywhere but in the thread that listens, which they inherit, and they are
ended with the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["INTERRUPTED", "InterruptWatch", "says_what_is_kept"]

INTERRUPTED = 130
"""What a command exits with after Ctrl-C."""

_GRACE_S = 0.5
"""Seconds that the main thread has to end by itself."""

_STORED = "what was stored is kept"
_SHOW_CURSOR = "\r\x1b[K\x1b[?25h"


@contextlib.contextmanager
def says_what_is_kept() -> Iterator[None]:
    """Have the line say what the work in here has kept: a note of the exception that stops it."""
    try:
        yield
    except BaseException as error:
        for note in getattr(error, "__notes__", ()):
            if note.endswith("are kept"):
                InterruptWatch.kept = f"verdicts and {note}"
        raise


class InterruptWatch:
    """While entered, hears every Ctrl-C.

    Where Ctrl-C is ignored, as in the background of a shell, or is somebody else's, nothing is done.

    Parameters
    ----------
    to_the_end : bool
        Whether to go on listening until the interpreter is gone, whose end may wait for threads.

    Attributes
    ----------
    came : bool
        Whether there was one.
    kept : str
        What the line says of the work that was stopped.
    """

    kept = _STORED

    def __init__(self, *, to_the_end: bool) -> None:
        self.came = False
        self._to_the_end = to_the_end
        self._telling, self._told = threading.RLock(), False  # a handler may come while its thread tells
        self._left = self._handled = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> InterruptWatch:
        """Begin to listen."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return self
        heard, self._written = os.pipe()
        os.set_blocking(self._written, False)
        self._wakeup_before = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._drop
        if self._blocks:
            signal.signal(signal.SIGURG, lambda *_: None)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._thread = threading.Thread(target=self._listen, args=(heard,), name="bt-llm Ctrl-C", daemon=True)
        self._thread.start()
        signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """End it, or go on to the end."""
        self._left = True
        if self._thread is None or self._to_the_end:
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(self._wakeup_before)
        sys.unraisablehook = self._hook_before
        os.write(self._written, b"\0")  # a child that was forked may have it open too
        os.close(self._written)
        self._thread.join()

    @property
    def _line(self) -> str:
        return f"error: interrupted; {self.kept}, run the command again to go on"

    @property
    def _blocks(self) -> bool:
        return self._to_the_end and hasattr(signal, "pthread_sigmask")

    def tell(self) -> None:
        """Print the line, once, and end the processes that were started."""
        self._tell_once(lambda: print(self._line, file=sys.stderr, flush=True))  # noqa: T201 - its own word
        if self._blocks:
            self._end_others()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._handled, self.came = self._handled, True, True
        if again or self._left:
            self._end()
        raise KeyboardInterrupt

    def _listen(self, heard: int) -> None:
        if self._blocks:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while signal.SIGINT not in (signals := os.read(heard, 64)):
            if 0 in signals:  # the watch has ended
                os.close(heard)
                return
        self.came = True
        if self._blocks and (main := threading.main_thread().ident) is not None:
            signal.pthread_kill(main, signal.SIGURG)  # wakes it from a wait, and its handler is called
        self._wait_for_another(heard, _GRACE_S)
        self._end()

    @staticmethod
    def _wait_for_another(heard: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([heard], [], [], left)[0] and signal.SIGINT in os.read(heard, 64):
                return

    def _end(self) -> None:
        """End this process and those that it started."""
        self._telling.acquire(timeout=_GRACE_S)  # for good: one thread ends the process
        terminal = _SHOW_CURSOR if os.isatty(2) else ""
        # Not by sys.stderr, which the main thread may hold.
        self._tell_once(lambda: os.write(2, f"{terminal}{self._line}\n".encode()))
        self._end_others()
        os._exit(INTERRUPTED)

    def _tell_once(self, write: Callable[[], object]) -> None:
        """Write the line if nobody has; who is about to is waited for, as the process may end after it."""
        if self._telling.acquire(timeout=_GRACE_S):
            try:
                if not self._told:
                    write()
                    self._told = True
            finally:
                self._telling.release()

    @staticmethod
    def _end_others() -> None:
        if (psutil := sys.modules.get("psutil")) is not None:  # nothing starts a process without it
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "resource_tracker" not in " ".join(process.cmdline()):  # it cleans up, then ends
                        process.kill()

    def _forget(self) -> None:
        """In a forked child: its signals are no news for the parent."""
        if not self._left or self._to_the_end:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _drop(self, raised: Any) -> None:
        """Say nothing of an interrupt that nobody could catch; it was heard."""
        if not issubclass(raised.exc_type, KeyboardInterrupt):
            self._hook_before(raised)
