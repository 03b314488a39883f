"""LiveAsker: questions to a model beside a live loop, which waits for an answer only so long."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from bt_llm import plain_text
from bt_llm.exceptions import BtLlmError
from bt_llm.locks import ForkableLock
from bt_llm.models import LLMThrottler, giving_up_when

__all__ = ["LiveAsker"]

_log = plain_text.logger("bt_llm.live")

_LAST_S = 0.5
"""Seconds that a question under way has when the program is over: a model must not be torn down while it
computes, and nobody wants to wait for its answer."""

Answer = TypeVar("Answer")


class _Question(Generic[Answer]):
    """One question on its way: `done` is set when it is answered or has failed."""

    def __init__(self, cell: int) -> None:
        self.cell = cell
        self.since = time.monotonic()
        self.done = threading.Event()
        self.answer: Answer | None = None


class LiveAsker(Generic[Answer]):
    """Puts one question at a time in a thread, and gives up waiting, not asking, after a time limit.

    An answer that comes late is kept (`known`). While a question is being answered one more waits, the
    newest: the market of bars ago is of no interest. The thread lives only while there is something to ask,
    so that nothing is left to stop when a run ends. A question is given up after its deadline, and soon after
    the program's main thread has ended, by Ctrl-C or otherwise: the thread says so, and ends.

    Parameters
    ----------
    ask : callable
        From a cell to its answer; called in the thread. What it raises is logged, once for each type of
        error, and leaves the question without an answer; it can be asked again.
    timeout_s : float
        Seconds for which `answer` waits at most.
    min_seconds : float
        Seconds of wall time from one question to the next; see `LLMThrottler`.
    deadline_s : float
        Seconds after which a question is given up, however little by little its answer comes.

    Examples
    --------
    >>> asker = LiveAsker(lambda cell: cell + 1, timeout_s=30.0)
    >>> asker.answer(1), asker.known(1), asker.known(7)
    (2, 2, None)
    """

    def __init__(
        self,
        ask: Callable[[int], Answer],
        *,
        timeout_s: float,
        min_seconds: float = 0.0,
        deadline_s: float = 120.0,
    ) -> None:
        self.timeout_s, self.deadline_s = timeout_s, deadline_s
        self._said_late = False
        self._over: float | None = None  # when the main thread was seen to have ended
        self._ask = ask
        self._throttler = LLMThrottler(min_interval=min_seconds)
        self._answers: dict[int, Answer] = {}
        self._logged: set[type[Exception]] = set()
        self._lock = ForkableLock()
        self._current: _Question[Answer] | None = None
        self._waiting: _Question[Answer] | None = None
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Return the number of cells that are known."""
        return len(self._answers)

    def known(self, cell: int) -> Answer | None:
        """Return the answer for a cell if there is one yet; asks nothing."""
        with self._lock:
            return self._answers.get(cell)

    def may_ask(self, cell: int) -> bool:
        """Return whether a cell may be asked now: known ones always, others `min_seconds` after the last."""
        return self.known(cell) is not None or self._throttler.can_call()

    def answer(self, cell: int) -> Answer | None:
        """Return the answer for a cell, or None if it is not there within the time limit or has failed."""
        with self._lock:
            if cell in self._answers:
                return self._answers[cell]
            question = self._put(cell)
        if not question.done.wait(self.timeout_s) and not self._said_late:
            self._said_late = True
            _log.warning(
                "no answer after %g s: the bar goes without; a question is given up after %g s (said once)",
                self.timeout_s,
                self.deadline_s,
            )
        return question.answer

    def _put(self, cell: int) -> _Question[Answer]:
        current, alive = self._current, self._thread is not None and self._thread.is_alive()
        if alive and current is not None and current.cell == cell and not current.done.is_set():
            self._waiting = None  # the newest question is under way already
            return current
        self._waiting = question = _Question[Answer](cell)
        if not alive:  # nor is it in a process that was forked from the one it runs in
            self._thread = threading.Thread(target=self._work, name="bt_llm live advice", daemon=False)
            self._thread.start()
        return question

    def _work(self) -> None:
        while (question := self._take()) is not None:
            question.since = time.monotonic()
            try:
                with giving_up_when(functools.partial(self._nobody_waits, question)):
                    answer = self._ask(question.cell)
            except Exception as error:
                self._log(error)
            except BaseException:
                self._end()
                raise
            else:
                with self._lock:
                    self._answers[question.cell] = question.answer = answer
            finally:
                question.done.set()

    def _end(self) -> None:
        """Leave nothing to a thread that is ending, which Python calls alive for a moment more."""
        with self._lock:
            waiting, self._current, self._waiting, self._thread = self._waiting, None, None, None
        if waiting is not None:
            waiting.done.set()

    def _nobody_waits(self, question: _Question[Answer]) -> bool:
        now = time.monotonic()
        if self._over is None and not threading.main_thread().is_alive():
            self._over = now
            _log.warning("the program is over: waiting %g s for the question under way", _LAST_S)
        late = now > question.since + self.deadline_s
        return late or (self._over is not None and now > self._over + _LAST_S)

    def _take(self) -> _Question[Answer] | None:
        with self._lock:
            self._current, self._waiting = self._waiting, None
            if self._current is None:
                self._thread = None
            return self._current

    def _log(self, error: Exception) -> None:
        if type(error) in self._logged:
            return
        self._logged.add(type(error))
        trace = None if isinstance(error, BtLlmError) else error
        _log.error("no verdict: %s (later %ss are not logged)", error, type(error).__name__, exc_info=trace)
