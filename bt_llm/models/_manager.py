"""ModelManager: one model in memory for all who ask it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from bt_llm import plain_text
from bt_llm.exceptions import ConfigError, ModelError, ModelFileError
from bt_llm.locks import ForkableLock
from bt_llm.models._base import Backend
from bt_llm.models._config import ModelConfig
from bt_llm.models._keeping import ManagerUsage, ModelKeeper, ModelWatch, process_mb
from bt_llm.models._manager_pool import the_one_for
from bt_llm.models._registry import KnownModels, ModelKind, kind_of, model_kinds
from bt_llm.models._succession import Answerer, Succession
from bt_llm.models.llama import _memory as memory
from bt_llm.models.llama._llama import LlamaModel
from bt_llm.settings import instance, is_number, path_text, python_scalar, several

__all__ = ["ModelManager"]

_log = plain_text.logger("bt_llm.manager")


class ModelManager:
    """Loads, shares and unloads one model for all who ask it, and watches the memory. Thread-safe.

    Text, scores and JSON come from one load. A model that is idle is taken out of memory (`idle_seconds`,
    `max_memory_percent`) and comes back when it is used, by whoever holds it. Nothing is ever unloaded while
    it answers: who unloads waits.

    A fallback answers a whole run or none of it: it is decided on before the first answer. A model that has
    answered, if only from the cache, is not replaced; that it fails later is an error. `unload_model` ends
    the run.

    Parameters
    ----------
    model_path : str or path
        A GGUF file, a name in the models folder, ``smollm2``, or ``kind:rest``; see `model_kinds`.
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
    config : ModelConfig, optional
        How it is loaded until `load_model` says otherwise; its path is `model_path`.
    clock : callable
        Returns seconds, never going back.

    Notes
    -----
    A manager is pickled as its description, without a clock of its own: in another process it is the one of
    that process with this description. A copy is the manager itself.

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
        config: ModelConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        memory_threshold_mb = python_scalar(memory_threshold_mb)
        max_memory_percent, idle_seconds = python_scalar(max_memory_percent), python_scalar(idle_seconds)
        if not is_number(memory_threshold_mb) or memory_threshold_mb < 0:
            raise ConfigError(
                f"memory_threshold_mb={memory_threshold_mb!r}: expected a number of MB of at least 0"
            )
        if max_memory_percent is not None and not (
            is_number(max_memory_percent) and 0 < max_memory_percent <= 100
        ):
            raise ConfigError(
                f"max_memory_percent={max_memory_percent!r}: expected a number above 0, up to 100, or None"
            )
        if idle_seconds is not None and not (is_number(idle_seconds) and idle_seconds > 0):
            raise ConfigError(f"idle_seconds={idle_seconds!r}: expected a number of seconds above 0, or None")
        if config is not None:
            instance("config", config, ModelConfig, "a ModelConfig, or None")
        fallback_paths = several("fallback_paths", fallback_paths, "paths or names")
        self.model_path = model_path
        self.memory_threshold_mb = memory_threshold_mb
        self.max_memory_percent = max_memory_percent
        self.idle_seconds = idle_seconds
        self.fallback_paths = tuple(path_text("fallback_paths", one) for one in fallback_paths)
        self._clock = clock
        self._lock = ForkableLock()
        self._config = dataclasses.replace(config or ModelConfig(), model_path=model_path)
        self._succession = Succession([model_path, *self.fallback_paths])
        self._backend: Backend | None = None
        self._opened: ModelKind | None = None
        self._watch = ModelWatch(self)
        self._keeper = ModelKeeper(clock, self.memory_threshold_mb, self._watch)

    def __repr__(self) -> str:
        return f"ModelManager({os.fspath(self.model_path)!r})"

    # Descriptions

    def _description(self) -> dict[str, Any]:
        return {
            "model_path": os.fspath(self.model_path),
            "memory_threshold_mb": self.memory_threshold_mb,
            "max_memory_percent": self.max_memory_percent,
            "idle_seconds": self.idle_seconds,
            "fallback_paths": tuple(map(os.fspath, self.fallback_paths)),
            "config": self._config,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(ModelManager.described, **self._description()), ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @classmethod
    def described(
        cls, model_path: str | os.PathLike[str], *, config: ModelConfig | None = None, **settings: Any
    ) -> ModelManager:
        """Return the one manager of this process for a description, made when first asked for.

        Two names of one file with the same settings are one description.

        Parameters
        ----------
        model_path, config, **settings
            As of a manager, without a clock.
        """
        made = cls(model_path, config=config, **settings)
        facts = made._description()
        names = [made.model_path, *made.fallback_paths]
        addresses = tuple(kind_of(os.fspath(name)).address for name in names)
        facts["config"] = dataclasses.replace(made._config, model_path="any")
        key = (addresses, *(facts[name] for name in sorted(facts) if "path" not in name))
        return the_one_for(key, made)

    # Text, and the settings of a load

    @property
    def config(self) -> ModelConfig:
        """How the model is loaded; the path is the manager's, whoever answers."""
        return self._config

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
    def usage(self) -> ManagerUsage:
        """What it has done so far, as a copy."""
        return dataclasses.replace(self._keeper.usage)

    @property
    def is_loaded(self) -> bool:
        """Whether a model is in memory."""
        return isinstance(self._backend, LlamaModel) and self._backend.is_loaded

    @property
    def loaded_path(self) -> str | None:
        """The path or name of the model in memory, a fallback's if it came to that; None if there is none."""
        return self._succession.model(self._succession.place).name if self.is_loaded else None

    def load_model(self, config: ModelConfig | None = None) -> bool:
        """Load the model; False, and one line in the log that says what to do, if that fails.

        Parameters
        ----------
        config : ModelConfig, optional
            By default the last one, or the defaults. The same one again keeps the model that is
            loaded; another one replaces it.
        """
        try:
            with self._lock:
                if config is not None and config != self._config:
                    self.unload_model()
                    self.model_path, self._config = config.model_path, config
                    self._succession.rename(config.model_path)
                self.get_model()
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
        ConfigError
            If it is of a kind that writes no text.
        """
        with self._lock:
            while True:
                place = self._succession.place
                model = self._succession.model(place)
                if "generate" not in model.capabilities:
                    able = [kind.form for kind in model_kinds().values() if "generate" in kind.capabilities]
                    raise ConfigError(f"model {model.name!r} writes no text: expected {' or '.join(able)}")
                try:
                    backend = self._open(model)
                    backend.load()  # type: ignore[attr-defined]  # what writes text can be loaded
                except ModelError as error:
                    self.fall_back(place, error)
                    continue
                self._answered(model.name)
                return backend  # type: ignore[return-value]

    # Who answers

    def look_up(self, known: KnownModels, *, replay: bool = False) -> Answerer:
        """Return who answers: the first of the model and its fallbacks that is there; nothing is loaded.

        Parameters
        ----------
        known, replay
            As of `ModelKind.identify`.

        Raises
        ------
        ModelNotFoundError, ModelFileError
            If none is there.
        """
        with self._lock:
            return self._succession.look_up(known, replay=replay, leave=self._drop)

    def begin_run(self) -> None:
        """Decide anew who answers; what is in memory stays there."""
        with self._lock:
            self._succession.begin_run()

    def stands(self, who: Answerer) -> bool:
        """Return whether a model still is the one that answers."""
        return self._succession.stands(who)

    def settle(self, who: Answerer) -> bool:
        """Note that a model's answers are given: from now on no fallback takes over in this run.

        Returns
        -------
        bool
            False if another one has taken over already: then the answers are not to be used.
        """
        with self._lock:
            if self.stands(who):
                self._answered(who.identity.name)
            return self.stands(who)

    @property
    def run(self) -> int:
        """Number of the run: who answers is decided once in each."""
        return self._succession.run

    def _answered(self, name: str) -> None:
        self._succession.settled = True
        usage = self._keeper.usage
        if name not in usage.answered:
            usage.answered = (*usage.answered, name)

    def backend(self, who: Answerer) -> Backend:
        """Return what can be asked, not loaded until it is.

        Raises
        ------
        ModelFileError
            If what has the name now is not who was found.
        """
        with self._lock:
            backend = self._open(who.model)
            if backend.identity.sha256 != who.identity.sha256:
                raise ModelFileError(
                    f"{who.model.name} was replaced in the middle of a run: it is "
                    f"{backend.identity.sha256[:12]} now and was {who.identity.sha256[:12]}; run again"
                )
            return backend

    def _open(self, model: ModelKind) -> Backend:
        """Return the backend of a model, another one if its file has changed since it was opened."""
        if self._opened is not model:
            self._drop()
        if self._backend is not None:
            try:
                model.recognise(self._backend)
            except ModelFileError:
                self._drop()
        if self._backend is None:
            self._backend = model.open(dataclasses.replace(self._config, model_path=model.name))
            self._opened = model
            if isinstance(self._backend, LlamaModel):
                self._backend.keeper = self._keeper
        return self._backend

    def fall_back(self, place: int, error: ModelError) -> None:
        """Go on with the next model, after what came of the one at a place.

        Raises
        ------
        ModelError
            Of the error's type: if there is no next one, or the model at the place has answered in this run.
        """
        with self._lock:
            self._succession.fall_back(place, error, self._drop)

    def refusal(self, place: int, error: ModelError) -> ModelError:
        """Return an error that says why no fallback follows a model that has answered."""
        return self._succession.refusal(place, error)

    # Memory

    def close(self) -> None:
        """Free the model's memory; whoever asks it again loads it again, in the same run."""
        with self._lock:
            self._watch.stop()
            if self._backend is not None:
                self._backend.close()

    def unload_model(self) -> None:
        """Free the model's memory and end the run; the next run begins with the model, not a fallback."""
        with self._lock:
            self._watch.stop()
            self._drop()
            self.begin_run()

    def _drop(self) -> None:
        if isinstance(self._backend, LlamaModel):
            self._backend.unload_model()
        elif self._backend is not None:
            self._backend.close()
        self._backend = self._opened = None

    def _tend(self) -> float | None:
        """Take an idle model out of memory if it is time; return the seconds until the next look, if any."""
        model = self._backend
        if not isinstance(model, LlamaModel):
            return None
        return self._keeper.tend(
            model,
            idle_seconds=self.idle_seconds,
            max_memory_percent=self.max_memory_percent,
            used_percent=lambda: self.get_memory_stats()["percent"],
        )

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
            "process_mb": process_mb(),
        }

    def __enter__(self) -> Self:
        """Return the manager; the model is loaded when it is first asked for."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model's memory."""
        self.unload_model()
