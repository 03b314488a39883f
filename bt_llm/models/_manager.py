"""ModelManager: one model in memory at a time, and the memory it needs. batch_analyze: many prompts."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import psutil

from bt_llm.exceptions import ConfigError, InsufficientMemoryError, ModelError
from bt_llm.models._config import ModelConfig
from bt_llm.models.llama import _memory as memory
from bt_llm.models.llama._llama import LlamaModel

__all__ = ["ModelManager", "TextModel", "batch_analyze"]

_log = logging.getLogger("bt_llm.manager")

_LOOK_SECONDS = 5.0
"""Pause between two looks at the memory, and how long a model must have been idle to be taken out of it."""


class TextModel(Protocol):
    """Something that writes text after a prompt, as `LlamaModel` does."""

    def generate(self, prompt: str, **overrides: Any) -> str:
        """Return what the model writes."""
        ...


def batch_analyze(model: TextModel, prompts: Sequence[str], **overrides: Any) -> list[str]:
    """Return the model's text after each prompt, in their order.

    Parameters
    ----------
    model : TextModel
        Such as a loaded `LlamaModel`.
    prompts : sequence of str
        Each is answered on its own: no answer depends on the others.
    **overrides
        As in `LlamaModel.generate`, for every prompt.

    Examples
    --------
    >>> class Echo:
    ...     def generate(self, prompt, **overrides):
    ...         return prompt.upper()
    >>> batch_analyze(Echo(), ["gold up", "oil down"])
    ['GOLD UP', 'OIL DOWN']
    """
    if isinstance(prompts, str):
        raise ConfigError("prompts: expected a list of texts, not one text")
    return [model.generate(prompt, **overrides) for prompt in prompts]


class _ManagedModel(LlamaModel):
    """A model that can be set aside while nobody uses it; it loads itself again when it is asked."""

    def __init__(self, config: ModelConfig, clock: Callable[[], float], on_load: Callable[[], None]) -> None:
        super().__init__(config)
        self._clock, self._on_load = clock, on_load
        self._aside = False
        self.last_used = clock()

    def load(self) -> None:
        with self._lock:
            super().load()
            self._aside, self.last_used = False, self._clock()
        self._on_load()

    def unload_model(self) -> None:
        with self._lock:
            super().unload_model()
            self._aside = False

    def set_aside(self, idle_seconds: float) -> bool:
        """Free the memory if the model has been idle for so long; never waits for one that is in use."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self.is_loaded or self.idle_seconds() < idle_seconds:
                return False
            super().unload_model()
            self._aside = True
            return True
        finally:
            self._lock.release()

    def idle_seconds(self) -> float:
        return self._clock() - self.last_used

    def _loaded(self) -> tuple[Any, Any]:
        if self._aside:
            self.load()
        return super()._loaded()

    def _complete(self, text: str, overrides: Mapping[str, Any]) -> str:
        with self._lock:
            try:
                return super()._complete(text, overrides)
            finally:
                self.last_used = self._clock()


def _number(value: object) -> float:
    """Return a finite number, NaN for anything else."""
    return (
        float(value)
        if isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
        else math.nan
    )


class ModelManager:
    """Loads, shares and unloads one model, and watches the memory. Thread-safe.

    A model that is idle is taken out of memory (`idle_seconds`, `max_memory_percent`) and comes back when it
    is used, by whoever holds it. Nothing is ever unloaded while it answers: who unloads waits.

    Parameters
    ----------
    model_path : str or path
        A GGUF file, a name in the models folder, or ``smollm2``.
    memory_threshold_mb : float
        Memory in MB that must be available before a model is loaded, whatever the model's size.
        The model's own need is estimated from its file, and must fit too.
    max_memory_percent : float, optional
        Percentage of the memory in use, by whatever program, above which a model that has been idle for
        some seconds is taken out; None is never.
    idle_seconds : float, optional
        Seconds without use after which the model is taken out; None is never.
    fallback_paths : sequence of str or path
        What to load instead, in this order, if the model is missing, damaged or too large for the memory.
        `loaded_path` says which one it became; the log does too.
    clock : callable
        Returns seconds, never going back.

    Examples
    --------
    >>> with ModelManager("smollm2") as manager:                                  # doctest: +SKIP
    ...     print(manager.get_model().generate("Gold is", max_tokens=8))
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        memory_threshold_mb: float = 1024,
        *,
        max_memory_percent: float | None = 80.0,
        idle_seconds: float | None = 300.0,
        fallback_paths: Sequence[str | os.PathLike[str]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        number = type(memory_threshold_mb) in (int, float) and math.isfinite(memory_threshold_mb)
        if not number or memory_threshold_mb < 0:
            raise ConfigError(
                f"memory_threshold_mb={memory_threshold_mb!r}: expected a number of MB of at least 0"
            )
        if max_memory_percent is not None and not 0 < _number(max_memory_percent) <= 100:
            raise ConfigError(
                f"max_memory_percent={max_memory_percent!r}: expected a number above 0, up to 100, or None"
            )
        if idle_seconds is not None and not _number(idle_seconds) > 0:
            raise ConfigError(f"idle_seconds={idle_seconds!r}: expected a number of seconds above 0, or None")
        if isinstance(fallback_paths, str | os.PathLike):
            raise ConfigError(f"fallback_paths={fallback_paths!r}: expected a list of paths or names")
        self.model_path = model_path
        self.memory_threshold_mb = memory_threshold_mb
        self.max_memory_percent = max_memory_percent
        self.idle_seconds = idle_seconds
        self.fallback_paths = tuple(fallback_paths)
        self._clock = clock
        self._lock = threading.RLock()
        self._config: ModelConfig | None = None
        self._model: _ManagedModel | None = None
        self._watch = _Watch(self)

    def create_config(self, **settings: Any) -> ModelConfig:
        """Return a configuration of this manager's model.

        Parameters
        ----------
        **settings
            Fields of `ModelConfig`.

        Raises
        ------
        ConfigError
            For an unknown field, naming a near one, or a bad value.

        Examples
        --------
        >>> ModelManager("smollm2").create_config(n_ctx=1024).n_ctx
        1024
        """
        for name in settings:
            if name not in ModelConfig.names():
                near = difflib.get_close_matches(name, ModelConfig.names(), n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigError(
                    f"unknown setting {name!r}{hint} (settings: {', '.join(ModelConfig.names())})"
                )
        return ModelConfig(**({"model_path": self.model_path} | settings))

    @property
    def is_loaded(self) -> bool:
        """Whether a model is in memory."""
        return self._model is not None and self._model.is_loaded

    @property
    def loaded_path(self) -> str | None:
        """The path or name of the model in memory, a fallback's if it came to that; None if there is none."""
        model = self._model
        return os.fspath(model.config.model_path) if model is not None and model.is_loaded else None

    def load_model(self, config: ModelConfig | None = None) -> bool:
        """Load the model; False, and one line in the log that says what to do, if that fails.

        Parameters
        ----------
        config : ModelConfig, optional
            By default the last one, or the defaults. The same one again keeps the model that is
            loaded; another one replaces it.
        """
        try:
            self._load(config)
        except ModelError as error:
            _log.error("%s", error)
            return False
        return True

    def get_model(self) -> LlamaModel:
        """Return the model, loading it first if need be.

        Raises
        ------
        ModelNotFoundError, ModelFileError, InsufficientMemoryError
            If it cannot be loaded; the message says what to do.
        """
        return self._load(None)

    def _load(self, config: ModelConfig | None) -> LlamaModel:
        with self._lock:
            config = config or self._config or self.create_config()
            if self._model is None or self._config != config:
                self.unload_model()
                self._check_threshold()
                self._model = self._first_that_loads(config)
                self._config = config
                self._watch.notice()
            elif not self._model.is_loaded:
                self._check_threshold()
                self._model.load()
            return self._model

    def _check_threshold(self) -> None:
        if not self._check_memory_available():
            raise InsufficientMemoryError(
                f"{self.get_available_memory_mb():,.0f} MB of memory are available, and "
                f"memory_threshold_mb={self.memory_threshold_mb:g} must be: close other programs, "
                "lower the threshold, or use a smaller model"
            )

    def _first_that_loads(self, config: ModelConfig) -> _ManagedModel:
        errors: list[ModelError] = []
        for path in (config.model_path, *self.fallback_paths):
            model = _ManagedModel(
                dataclasses.replace(config, model_path=path), self._clock, self._watch.notice
            )
            try:
                model.load()
            except ModelError as error:
                errors.append(error)
                continue
            if errors:
                reasons = "; ".join(map(str, errors))
                _log.warning("%s; using the fallback %s", reasons, os.fspath(path))
            return model
        if len(errors) == 1:
            raise errors[0]
        reasons = "; ".join(map(str, errors))
        raise type(errors[0])(f"none of {len(errors)} models loads: {reasons}")

    def unload_model(self) -> None:
        """Free the model's memory; the next `get_model` loads it again."""
        with self._lock:
            self._watch.stop()
            if self._model is not None:
                self._model.unload_model()
                self._model = None

    def _tend(self) -> float | None:
        """Take an idle model out of memory if it is time; return the seconds until the next look, if any."""
        model = self._model
        if model is None or not model.is_loaded:
            return None
        idle, used = model.idle_seconds(), 0.0
        patience = self.idle_seconds if self.idle_seconds is not None else math.inf
        look = math.inf
        if self.max_memory_percent is not None:
            look, used = _LOOK_SECONDS, self.get_memory_stats()["percent"]
        crowded = used > (self.max_memory_percent or 100.0) and idle >= _LOOK_SECONDS
        if (crowded or idle >= patience) and model.set_aside(_LOOK_SECONDS if crowded else patience):
            why = f", {used:.0f} % of the memory is used (max_memory_percent={self.max_memory_percent})"
            _log.log(
                logging.WARNING if crowded else logging.INFO,
                "%s: unloaded after %.0f s without use%s",
                model.config.model_path,
                idle,
                why if crowded else "",
            )
            return None
        return min(look, patience - idle if idle < patience else _LOOK_SECONDS)

    @staticmethod
    def get_available_memory_mb() -> float:
        """Return the memory in MB (2**20 bytes) that can still be taken; sees container limits."""
        return memory.available_memory_mb()

    def _check_memory_available(self) -> bool:
        """Whether at least `memory_threshold_mb` are available."""
        return self.get_available_memory_mb() >= self.memory_threshold_mb

    def get_memory_stats(self) -> dict[str, float]:
        """Return the state of the memory.

        Returns
        -------
        dict
            `total_mb`, `available_mb` and `used_mb` of the machine, or of the container if its limit
            is lower; `percent` used, 0 to 100; `process_mb` that this process holds, mapped weights
            included.
        """
        total, available = memory.total_memory_mb(), self.get_available_memory_mb()
        used = max(0.0, total - available)
        return {
            "total_mb": total,
            "available_mb": available,
            "used_mb": used,
            "percent": 100.0 * used / total,
            "process_mb": psutil.Process().memory_info().rss / 2**20,
        }

    def __enter__(self) -> Self:
        """Return the manager; the model is loaded when it is first asked for."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model's memory."""
        self.unload_model()


class _Watch:
    """Looks after a manager's model from a thread that sleeps in between, and ends when there is none."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = weakref.ref(manager)
        self._lock = threading.Lock()
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
            self._thread = None
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
