"""ModelManager: one model in memory at a time, and the memory it needs. batch_analyze: many prompts."""

from __future__ import annotations

import difflib
import logging
import math
import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import psutil

from bt_llm.backends import memory
from bt_llm.backends.llama import LlamaModel
from bt_llm.config import ModelConfig
from bt_llm.exceptions import ConfigError, InsufficientMemoryError, ModelError

__all__ = ["ModelManager", "TextModel", "batch_analyze"]

_log = logging.getLogger("bt_llm.manager")


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


class ModelManager:
    """Loads, shares and unloads one model, and watches the memory. Thread-safe.

    Parameters
    ----------
    model_path : str or path
        A GGUF file, a name in the models folder, or ``smollm2``.
    memory_threshold_mb : float
        Memory in MB that must be available before a model is loaded, whatever the model's size.
        The model's own need is estimated from its file, and must fit too.

    Examples
    --------
    >>> with ModelManager("smollm2") as manager:                                  # doctest: +SKIP
    ...     print(manager.get_model().generate("Gold is", max_tokens=8))
    """

    def __init__(self, model_path: str | os.PathLike[str], memory_threshold_mb: float = 1024) -> None:
        number = type(memory_threshold_mb) in (int, float) and math.isfinite(memory_threshold_mb)
        if not number or memory_threshold_mb < 0:
            raise ConfigError(
                f"memory_threshold_mb={memory_threshold_mb!r}: expected a number of MB of at least 0"
            )
        self.model_path = model_path
        self.memory_threshold_mb = memory_threshold_mb
        self._lock = threading.RLock()
        self._config: ModelConfig | None = None
        self._model: LlamaModel | None = None

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
            if self._model is not None and self._model.is_loaded and self._config == config:
                return self._model
            self.unload_model()
            if not self._check_memory_available():
                raise InsufficientMemoryError(
                    f"{self.get_available_memory_mb():,.0f} MB of memory are available, and "
                    f"memory_threshold_mb={self.memory_threshold_mb:g} must be: close other programs, "
                    "lower the threshold, or use a smaller model"
                )
            model = LlamaModel(config)
            model.load()
            self._config, self._model = config, model
            return model

    def unload_model(self) -> None:
        """Free the model's memory; the next `get_model` loads it again."""
        with self._lock:
            if self._model is not None:
                self._model.unload_model()
                self._model = None

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
