"""AskerConfig: who is asked, in which words, and where answers are kept, whatever is asked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError
from bt_llm.models import ModelConfig, ModelIdentity, ModelManager
from bt_llm.prompts import PromptTemplate
from bt_llm.settings import instance, make_plain, path_text, several

__all__ = ["AskerConfig", "Supplied"]

_PATHS = {
    "model": "a name, a path or kind:rest",
    "template": "a name, a path or a PromptTemplate",
    "cache_dir": "the path of a folder",
}

_KEEP_FREE_MB = 256.0
"""Threshold of a manager that only a configuration describes: its contexts adapt to the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplied:
    """Answers that come with a job, and who gave them to which words: no model, folder or template is read.

    Parameters
    ----------
    identity : ModelIdentity
        Who answered.
    template : object
        The words that were asked.
    cache : VerdictCache
        The answers.
    device : str
        What computed them beside a processor; see `ModelKind.device`.
    carried : object
        What else an asker needs that answers by the bar; see `Advisor.carried`.
    """

    identity: ModelIdentity
    template: Any
    cache: VerdictCache
    device: str = ""
    carried: Any = None


@dataclass(frozen=True, kw_only=True)
class AskerConfig:
    """Who is asked, in which words, and where answers are kept: what every asker's configuration has."""

    model: str | os.PathLike[str] | None = None
    fallbacks: Sequence[str | os.PathLike[str]] = ()
    template: str | os.PathLike[str] | PromptTemplate | None = None
    cache_dir: str | os.PathLike[str] | None = None
    cache_mode: CacheMode | str | None = None
    n_threads: int | None = None
    n_gpu_layers: int = 0
    manager: ModelManager | None = field(default=None, compare=False, repr=False)
    supplied: Supplied | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the choices, once, and make paths and numbers plain."""
        make_plain(self)
        if self.manager is not None:
            self._describe(self.manager)
        if self.model is None:
            object.__setattr__(self, "model", "smollm2")
        for name, expected in _PATHS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, PromptTemplate):
                object.__setattr__(self, name, path_text(name, value, expected=expected))
        fallbacks = several("fallbacks", self.fallbacks, "models")
        paths = (path_text("fallbacks", one, expected=_PATHS["model"]) for one in fallbacks)
        object.__setattr__(self, "fallbacks", tuple(paths))
        if self.supplied is not None:
            instance("supplied", self.supplied, Supplied, "answers of a job, or None")
        if self.cache_mode is not None:
            object.__setattr__(self, "cache_mode", CacheMode.parse(self.cache_mode))
        self._check_count("n_threads")
        if type(self.n_gpu_layers) is not int or self.n_gpu_layers < -1:
            raise ConfigError(f"n_gpu_layers={self.n_gpu_layers!r}: expected a whole number of at least -1")

    def _check_count(self, name: str) -> None:
        value = getattr(self, name)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"{name}={value!r}: expected a whole number of at least 1, or None")

    def _describe(self, manager: ModelManager) -> None:
        """Take over what a manager says of its model."""
        if not isinstance(manager, ModelManager):
            raise ConfigError(f"manager={manager!r:.60}: expected a ModelManager")
        name = os.fspath(manager.model_path)
        asked = None if self.model is None else path_text("model", self.model, expected=_PATHS["model"])
        if asked is not None and asked != name:
            raise ConfigError(f"model={asked!r} and a manager of {name!r}: give one of them")
        facts = {
            "model": name,
            "fallbacks": manager.fallback_paths,
            "n_threads": manager.config.n_threads,
            "n_gpu_layers": manager.config.n_gpu_layers,
        }
        for field_name, value in facts.items():
            object.__setattr__(self, field_name, value)

    def asked_through(self, manager: ModelManager | None) -> Self:
        """Return the configuration with a manager's model, whatever it had; the same for None."""
        if manager is None or manager is self.manager:
            return self
        return dataclasses.replace(self, model=None, manager=manager)

    def described_manager(self) -> ModelManager:
        """Return the one manager of this process for what the configuration describes."""
        config = ModelConfig(n_threads=self.n_threads, n_gpu_layers=self.n_gpu_layers)
        return ModelManager.described(
            str(self.model),
            memory_threshold_mb=_KEEP_FREE_MB,
            fallback_paths=self.fallbacks,
            config=config,
        )
