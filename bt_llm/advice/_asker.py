"""Asker: questions answered from the cache where it can be, by a model where it must be; for all who ask."""

from __future__ import annotations

import abc
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from bt_llm.advice._asker_config import AskerConfig
from bt_llm.cache import CacheMode, GeneratedText, Question, VerdictCache
from bt_llm.exceptions import (
    ConfigError,
    InsufficientMemoryError,
    ModelFileError,
    ModelNotFoundError,
)
from bt_llm.locks import ForkableLock
from bt_llm.models import (
    Answerer,
    Backend,
    Capability,
    ModelIdentity,
    ModelManager,
    Progress,
    Prompt,
    model_kinds,
)
from bt_llm.progress import telling, told
from bt_llm.settings import instance
from bt_llm.verdicts import Verdict

__all__ = ["Asker", "Usage", "telling"]


@dataclass(slots=True)
class Usage:
    """What answering cost, counted by whoever asked.

    Attributes
    ----------
    distinct : int
        Distinct prompts needed.
    cache_hits : int
        Of these, answered from the cache or from this process's memory of it.
    model_calls : int
        Prompts that the model was asked, those of the calibration grid included.
    model_seconds : float
        Wall time inside the model.
    tokens : int
        Tokens decoded for those prompts, shared prefixes not counted.
    """

    distinct: int = 0
    cache_hits: int = 0
    model_calls: int = 0
    model_seconds: float = 0.0
    tokens: int = 0

    def add(self, other: Self) -> None:
        """Add what another one counted, field by field."""
        for name in (f.name for f in dataclasses.fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def __add__(self, other: Self) -> Self:
        """Return the sum, field by field."""
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)))


A = TypeVar("A", Verdict, GeneratedText)
T = TypeVar("T")

_REPLACEABLE = (ModelNotFoundError, ModelFileError, InsufficientMemoryError)


class Asker(abc.ABC, Generic[A]):
    """Has a model answer prompts, each distinct one at most once. Thread-safe.

    Whoever answers the first question answers all: a fallback takes over before that, or never.

    Parameters
    ----------
    config : AskerConfig
        Who is asked, and where answers are kept.
    backend : Backend or ModelManager, optional
        Who answers, instead of the model that `config` names.
    cache : VerdictCache, optional
        Instead of the one that `config` names.
    """

    config: AskerConfig

    def __init__(
        self,
        config: AskerConfig,
        *,
        backend: Backend | ModelManager | None = None,
        cache: VerdictCache | None = None,
    ) -> None:
        self.cache = self._chosen_cache(config, cache)
        self.config = config
        self._brought_cache = cache is not None or config.supplied is not None
        self._manager = backend if isinstance(backend, ModelManager) else config.manager
        self._is_managed = self._manager is not None  # by somebody who decides when a run ends
        self._backend = None if isinstance(backend, ModelManager) else backend
        self._who: Answerer | None = None
        self._has_answered = False
        self._lock = ForkableLock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the configuration: what is loaded and remembered stays in its process.

        Raises
        ------
        ConfigError
            If a backend or a cache was brought, which a configuration does not name.
        """
        if self._backend is not None or (self._brought_cache and self.config.supplied is None):
            what = "backend" if self._backend is not None else "cache"
            raise ConfigError(
                f"{type(self).__name__} with a {what} of its own goes to no other process: expected it to be "
                "named in the configuration"
            )
        manager = self._manager if self._is_managed else None
        return functools.partial(type(self), **self._settings()), (self.config.asked_through(manager),)

    def _settings(self) -> dict[str, Any]:
        """Return the keyword arguments of this class that its configuration does not have."""
        return {}

    @staticmethod
    def _chosen_cache(config: AskerConfig, cache: VerdictCache | None) -> VerdictCache:
        if cache is not None:
            instance("cache", cache, VerdictCache, "a VerdictCache, or None")
            return cache
        if config.supplied is not None:
            return config.supplied.cache
        return VerdictCache(config.cache_dir, config.cache_mode)

    # What a subclass asks

    @property
    @abc.abstractmethod
    def _needs(self) -> Capability:
        """What of a model it needs."""

    @abc.abstractmethod
    def _question(self, prompt: Prompt) -> Question:
        """Return everything that the answer to a prompt depends on."""

    @abc.abstractmethod
    def _readings(
        self, backend: Backend, prompts: Sequence[Prompt]
    ) -> Iterator[Sequence[tuple[A, Mapping[str, Any]] | None]]:
        """Yield answers in order, in batches, with what to write beside each; None where none came."""

    def _forget(self) -> None:
        """Another model answers from now on: drop what the one before said."""

    # Who answers

    @property
    def manager(self) -> ModelManager | None:
        """Whose model is asked; None where a backend was given."""
        if self._manager is None and self._backend is None and self.config.supplied is None:
            self._manager = self.config.described_manager()
        return self._manager

    @property
    def identity(self) -> ModelIdentity:
        """Who answers; in replay, without a model file, as the cache knows it."""
        with self._lock:
            if self.config.supplied is not None:
                return self.config.supplied.identity
            if self._backend is not None:
                return self._backend.identity
            return self._current().identity

    @property
    def answered_by(self) -> str:
        """Name of the model that has answered, stored answers included; empty before."""
        return self.identity.name if self._has_answered else ""

    @property
    def parts(self) -> tuple[Self, ...]:
        """Who of it has answered: itself, or each member of a family."""
        return (self,) if self.answered_by else ()

    @property
    def everyone(self) -> tuple[Self, ...]:
        """Who of it may answer, as far as it is known here."""
        return (self,)

    @property
    def managers(self) -> tuple[ModelManager, ...]:
        """Whose models are asked."""
        return () if self.manager is None else (self.manager,)

    @property
    def device(self) -> str:
        """What computes beside the processor; see `ModelKind.device`."""
        if self.config.supplied is not None:
            return self.config.supplied.device
        if self._backend is not None:
            return ""
        return self._current().model.device(self._found_manager().config.n_gpu_layers)

    def _found_manager(self) -> ModelManager:
        manager = self.manager
        assert manager is not None
        return manager

    def _current(self) -> Answerer:
        """Return who answers: whoever has answered before, unless its manager has begun another run."""
        manager, before = self._found_manager(), self._who
        if before is not None:
            same_run = before.run == manager.run or not self._is_managed
            if same_run if self._has_answered else manager.stands(before):
                return before
        elif not self._is_managed:
            manager.begin_run()
        new = manager.look_up(self.cache, replay=self.cache.mode is CacheMode.REPLAY)
        if before is not None:
            self._has_answered = False
            self._forget()
        if self._needs not in new.model.capabilities:
            kinds = [kind for kind in model_kinds().values() if not kind.by_bar]
            able = [kind.form for kind in kinds if self._needs in kind.capabilities]
            raise ConfigError(f"model {new.model.name!r} cannot {self._needs}: expected {' or '.join(able)}")
        self._who = new
        return new

    def _answering(self, work: Callable[[], T]) -> T:
        """Return what work comes to, with one model from its first question to its last."""
        with self._lock:
            if self._backend is not None or self.config.supplied is not None:
                result, self._has_answered = work(), True
                return result
            manager = self._found_manager()
            while True:
                who = self._current()
                try:
                    result = work()
                except _REPLACEABLE as error:
                    if self._has_answered:
                        raise manager.refusal(who.place, error) from None
                    manager.fall_back(who.place, error)  # which raises it where there is nobody else
                    continue
                self._has_answered = self._has_answered or manager.settle(who)
                if self._has_answered:
                    return result

    # Asking

    @property
    def asked(self) -> Backend:
        """What answers, loaded when it is asked; asking it stores nothing.

        Raises
        ------
        ModelError
            If it is not there.
        ConfigError
            If answers are all that there is, as in a worker.
        """
        if self.config.supplied is not None:
            raise ConfigError("answers were supplied, and no model is there to be asked")
        return self._backend or self._found_manager().backend(self._current())

    def _fetch(
        self,
        prompts: Sequence[Prompt],
        usage: Usage,
        on_progress: Progress | None,
        where: Callable[[Question], str] | None = None,
    ) -> list[A]:
        """Return the answers to prompts, in order."""

        def ask(wanted: Sequence[Question]) -> Iterator[list[tuple[Question, A, Mapping[str, Any]]]]:
            yield from self._ask(wanted, usage)

        questions = [self._question(prompt) for prompt in prompts]
        return self.cache.fetch(questions, ask, on_progress=on_progress or told(), where=where)

    def _ask(
        self, questions: Sequence[Question], usage: Usage
    ) -> Iterator[list[tuple[Question, A, Mapping[str, Any]]]]:
        """Ask the model, and count; each batch goes to the cache as it comes."""
        backend = self.asked
        identity = self.identity
        self.cache.put_model(identity)
        readings = self._readings(backend, [Prompt(question.prompt) for question in questions])
        done, common = 0, {"model": identity.name, **backend.provenance}
        started = time.perf_counter()
        for batch in readings:
            usage.model_seconds += time.perf_counter() - started
            asked = questions[done : done + len(batch)]
            done += len(batch)
            answered: list[tuple[Question, A, Mapping[str, Any]]] = [
                (question, reading[0], {**common, **reading[1]})
                for question, reading in zip(asked, batch, strict=True)
                if reading is not None
            ]
            usage.model_calls += len(answered)
            usage.tokens += sum(int(extra.get("tokens", 0)) for _, _, extra in answered)
            yield answered
            started = time.perf_counter()

    def close(self) -> None:
        """Free the model that the configuration describes; whoever asks it again loads it anew.

        A backend or manager that somebody brought is left as it is.
        """
        if self._backend is None and not self._is_managed and self.config.supplied is None:
            self._found_manager().close()

    def __enter__(self) -> Self:
        """Return the asker."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the model."""
        self.close()
