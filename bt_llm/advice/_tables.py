"""What this process remembers of answers, so that whoever asks the same again asks no cache either."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.locks import ForkableLock, begin_anew_in_child

__all__ = ["TABLES", "Tables", "answers_apart", "forget_answers"]


class Tables:
    """Raw verdicts by cell, and texts by key, in this process's memory, pooled by all that they depend on.

    A pool belongs to a cache folder and mode, or to a cache that somebody brought.
    """

    def __init__(self) -> None:
        begin_anew_in_child(self.reset)

    def reset(self) -> None:
        """Forget everything."""
        self._lock = ForkableLock()
        self._of_folders: dict[tuple[str, CacheMode], dict[Any, dict[Any, Any]]] = {}
        self._of_caches: weakref.WeakKeyDictionary[VerdictCache, dict[Any, dict[Any, Any]]] = (
            weakref.WeakKeyDictionary()
        )

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Remember nothing of before in here, and nothing of in here afterwards."""
        with self._lock:
            before = self._of_folders, self._of_caches
            self._of_folders, self._of_caches = {}, weakref.WeakKeyDictionary()
        try:
            yield
        finally:
            with self._lock:
                self._of_folders, self._of_caches = before

    def of(self, cache: VerdictCache, content: Any, *, brought: bool) -> dict[Any, Any]:
        """Return the table of a content, empty when it is first asked for.

        Parameters
        ----------
        cache : VerdictCache
            Where the verdicts are kept.
        content : hashable
            Who answers, the words, the states, and the way of reading.
        brought : bool
            Whether the cache is somebody's own object, and its folder says nothing.
        """
        with self._lock:
            if brought:
                pool = self._of_caches.setdefault(cache, {})
            else:
                pool = self._of_folders.setdefault((str(cache.directory), cache.mode), {})
            return pool.setdefault(content, {})


TABLES = Tables()


def forget_answers() -> None:
    """Drop the verdicts that this process remembers, so that they are read from their caches again."""
    TABLES.reset()


def answers_apart() -> contextlib.AbstractContextManager[None]:
    """Have a run know of no verdict but those that it asks for itself: so that it can be told which."""
    return TABLES.apart()
