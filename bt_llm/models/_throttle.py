"""LLMThrottler: at most one call to a model every so many seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bt_llm.exceptions import ConfigError
from bt_llm.locks import ForkableLock
from bt_llm.settings import is_number, python_scalar

__all__ = ["LLMThrottler"]


class LLMThrottler:
    """Says whether a model may be called now. Thread-safe.

    For live use, where a slow model must not be asked at every tick. A backtest needs none: there
    the same question is never asked twice.

    Parameters
    ----------
    min_interval : float
        Seconds from one call to the next.
    clock : callable
        Returns seconds, never going back. The wall clock would not do: it is set back and forth.

    Attributes
    ----------
    last_call : float
        The clock at the last call that was allowed; minus infinity before the first.

    Examples
    --------
    >>> now = iter([0.0, 3.0, 3.0, 6.0])
    >>> throttler = LLMThrottler(min_interval=5.0, clock=lambda: next(now))
    >>> throttler.can_call(), throttler.can_call(), throttler.seconds_left(), throttler.can_call()
    (True, False, 2.0, True)
    """

    def __init__(self, min_interval: float = 5.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        min_interval = python_scalar(min_interval)
        if not is_number(min_interval) or min_interval < 0:
            raise ConfigError(f"min_interval={min_interval!r}: expected a number of seconds of at least 0")
        self.min_interval = min_interval
        self.last_call = -math.inf
        self._clock = clock
        self._lock = ForkableLock()

    def can_call(self) -> bool:
        """Return whether the interval is over, and if so count this as the call."""
        with self._lock:
            now = self._clock()
            if now - self.last_call < self.min_interval:
                return False
            self.last_call = now
            return True

    def seconds_left(self) -> float:
        """Return the seconds until a call is allowed, 0 if it is now; counts nothing."""
        with self._lock:
            return max(0.0, self.last_call + self.min_interval - self._clock())
