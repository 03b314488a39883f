"""How a manager looks after its model: what it is told, when it sets it aside, and the thread for it."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from bt_llm import plain_text
from bt_llm.exceptions import InsufficientMemoryError
from bt_llm.locks import ForkableLock
from bt_llm.models.llama import _memory as memory

if TYPE_CHECKING:
    from bt_llm.models._manager import ModelManager
    from bt_llm.models.llama._llama import LlamaModel

__all__ = ["ManagerUsage", "ModelKeeper", "ModelWatch", "process_mb"]

_log = plain_text.logger("bt_llm.manager")

_LOOK_SECONDS = 5.0
"""Pause between two looks at the memory, and how long a model must have been idle to be taken out of it."""


def process_mb() -> float:
    """Return the memory in MB that this process holds, mapped weights included."""
    return float(psutil.Process().memory_info().rss / 2**20)


@dataclass(slots=True)
class ManagerUsage:
    """What a manager has done so far.

    Attributes
    ----------
    loads, unloads : int
        How often weights came into memory, and were taken out.
    load_seconds : float
        Wall time of the loads.
    peak_memory_mb : float
        Most memory in MB that this process had after a load or an answer of a model in it; 0 before.
    answered : tuple of str
        Names of the models that answered, in order; stored answers count.
    """

    loads: int = 0
    unloads: int = 0
    load_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    answered: tuple[str, ...] = ()

    def since(self, before: ManagerUsage) -> ManagerUsage:
        """Return what came after an earlier copy; the peak and the names stay."""
        return dataclasses.replace(
            self,
            loads=self.loads - before.loads,
            unloads=self.unloads - before.unloads,
            load_seconds=self.load_seconds - before.load_seconds,
        )


class ModelKeeper:
    """What a manager is told of its model; knows the manager's rules, and not the manager.

    Parameters
    ----------
    clock : callable
        The manager's.
    threshold_mb : float
        Memory that must be available before a load.
    watch : ModelWatch
        Told of each load.
    """

    def __init__(self, clock: Callable[[], float], threshold_mb: float, watch: ModelWatch) -> None:
        self.usage = ManagerUsage()
        self.clock, self.last_used = clock, clock()
        self._threshold_mb = threshold_mb
        self._watch = watch

    def before_load(self) -> None:
        """Raise an InsufficientMemoryError below the threshold."""
        available = memory.available_memory_mb()
        if available < self._threshold_mb:
            raise InsufficientMemoryError(
                f"{available:,.0f} MB of memory are available, and "
                f"memory_threshold_mb={self._threshold_mb:g} must be: close other programs, "
                "lower the threshold, or use a smaller model"
            )

    def after_load(self, seconds: float) -> None:
        """Count a load; the model is looked after from now on."""
        self.usage.loads += 1
        self.usage.load_seconds += seconds
        self.after_use()
        self._watch.notice()

    def after_use(self) -> None:
        """Note the time, and the memory."""
        self.last_used = self.clock()
        self.usage.peak_memory_mb = max(self.usage.peak_memory_mb, process_mb())

    def after_unload(self) -> None:
        """Count it."""
        self.usage.unloads += 1

    def idle_seconds(self) -> float:
        """Return the seconds since the last use."""
        return self.clock() - self.last_used

    def tend(
        self,
        model: LlamaModel,
        *,
        idle_seconds: float | None,
        max_memory_percent: float | None,
        used_percent: Callable[[], float],
    ) -> float | None:
        """Take an idle model out of memory if it is time; return the seconds until the next look, if any.

        Parameters
        ----------
        model : LlamaModel
            In memory, or not; one that is just being loaded is looked at again.
        idle_seconds, max_memory_percent : float or None
            As of `ModelManager`.
        used_percent : callable
            Returns the percentage of the memory in use.
        """
        patience = idle_seconds if idle_seconds is not None else math.inf
        free = model.lock.acquire(blocking=False)
        there = model.is_loaded  # not so before the end of a load, which holds the lock
        if free:
            model.lock.release()
        if not there:
            return None if free else min(_LOOK_SECONDS, patience)
        idle, used = self.idle_seconds(), 0.0
        look = math.inf
        if max_memory_percent is not None:
            look, used = _LOOK_SECONDS, used_percent()
        crowded = used > (max_memory_percent or 100.0) and idle >= _LOOK_SECONDS
        if (crowded or idle >= patience) and self._set_aside(model, _LOOK_SECONDS if crowded else patience):
            why = f", {used:.0f} % of the memory is used (max_memory_percent={max_memory_percent})"
            _log.log(
                logging.WARNING if crowded else logging.INFO,
                "%s: unloaded after %.0f s without use%s",
                model.config.model_path,
                idle,
                why if crowded else "",
            )
            return None
        return min(look, patience - idle if idle < patience else _LOOK_SECONDS)

    def _set_aside(self, model: LlamaModel, idle_seconds: float) -> bool:
        """Free the memory if the model has been idle for so long; never waits for one that is in use."""
        if not model.lock.acquire(blocking=False):
            return False
        try:
            if not model.is_loaded or self.idle_seconds() < idle_seconds:
                return False
            model.close()
            return True
        finally:
            model.lock.release()


class ModelWatch:
    """Looks after a manager's model from a thread that sleeps in between, and ends when there is none."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = weakref.ref(manager)
        self._lock = ForkableLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._noticed = False
        weakref.finalize(manager, self.stop).atexit = False

    def notice(self) -> None:
        """Begin to look after a model that has been loaded."""
        manager = self._manager()
        if manager is None or manager.idle_seconds is manager.max_memory_percent is None:
            return
        with self._lock:
            self._noticed = True
            if self._thread is None or not self._thread.is_alive():
                self._ended = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._ended,), name="bt_llm model watch", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        with self._lock:
            there = self._thread is not None and self._thread.is_alive()
            self._thread = None
            if there:  # a forked child has the event without its thread, perhaps halfway through a wait
                self._ended.set()

    def _run(self, ended: threading.Event) -> None:
        pause: float | None = 0.0
        while not ended.wait(pause):
            with self._lock:
                self._noticed = False
            manager = self._manager()
            pause = manager._tend() if manager is not None else None
            del manager  # or it would live as long as the pause lasts
            if pause is None:
                with self._lock:
                    if not self._noticed:  # a model loaded since then is to be looked after
                        self._thread = None if self._ended is ended else self._thread
                        return
                pause = 0.0
