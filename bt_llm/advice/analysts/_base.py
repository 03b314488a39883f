"""Analyst: from something to judge to a typed answer, by way of prompt, cache, model and strict reading."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

from bt_llm.advice._lookup import look_up_model
from bt_llm.advice.analysts._fields import Field, object_schema, read_object
from bt_llm.advice.analysts._untrusted import UnusableError
from bt_llm.cache import CacheMode, GeneratedText, Question, Record, VerdictCache
from bt_llm.exceptions import ConfigError, ModelError, PromptError
from bt_llm.models import Answer, Backend, LlamaModel, ModelIdentity, ModelManager, Prompt
from bt_llm.plain_json import canonical_json, plain
from bt_llm.prompts import PromptTemplate

__all__ = ["Analysis", "Analyst", "AnalystConfig", "AnalystUsage", "ModelSource"]

_SEED = 0
_LONGEST = 20_000  # characters of an answer that are kept; a server can send any number


@dataclass(frozen=True, kw_only=True)
class AnalystConfig:
    """Who answers an analyst, and where answers are kept; small, hashable and picklable.

    Parameters
    ----------
    model : str or path
        A GGUF file, a name in `models/`, ``smollm2``, or ``scripted:NAME``.
    template : str, path or PromptTemplate, optional
        A template, or its name or file; by default the analyst's own.
    max_tokens : int, optional
        Longest answer, in tokens; by default the analyst's own. One that is cut off is INVALID.
    cache_dir : str or path, optional
        By default ``BT_LLM_CACHE_DIR``, or the user's cache folder.
    cache_mode : str, optional
        record, replay, refresh or off; by default ``BT_LLM_CACHE_MODE``, or record.
    n_threads : int, optional
        CPU threads; by default one a physical core. Answers do not depend on it.
    n_gpu_layers : int
        Layers on the GPU.

    Raises
    ------
    ConfigError
        If a setting is out of its range.

    Examples
    --------
    >>> AnalystConfig(cache_mode="replay").model
    'smollm2'
    """

    model: str | os.PathLike[str] = "smollm2"
    template: str | os.PathLike[str] | PromptTemplate | None = None
    max_tokens: int | None = None
    cache_dir: str | os.PathLike[str] | None = None
    cache_mode: CacheMode | str | None = None
    n_threads: int | None = None
    n_gpu_layers: int = 0

    def __post_init__(self) -> None:
        """Check the choices, once, and make paths plain text."""
        for name in ("model", "template", "cache_dir"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, PromptTemplate):
                object.__setattr__(self, name, os.fspath(value))
        if self.cache_mode is not None:
            object.__setattr__(self, "cache_mode", CacheMode.parse(self.cache_mode))
        for name in ("max_tokens", "n_threads"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name}={value!r}: expected a whole number of at least 1, or None")


ModelSource: TypeAlias = AnalystConfig | str | os.PathLike[str] | LlamaModel | ModelManager | Backend
"""What can answer an analyst. A LlamaModel or ModelManager names the file, which is opened anew while the
analyst asks, with numerics that give the same answer in any company, and freed again."""


@dataclass(slots=True)
class AnalystUsage:
    """What an analyst answered, and what it cost.

    Attributes
    ----------
    answers : int
        Answers given, those to the same question included.
    invalid : int
        Of these, answers that could not be read, or questions that could not be asked.
    cache_hits : int
        Distinct questions answered from the cache.
    model_calls : int
        Questions that the model was asked.
    model_seconds : float
        Wall time inside the model.
    tokens : int
        Tokens decoded for them, shared prefixes not counted.
    """

    answers: int = 0
    invalid: int = 0
    cache_hits: int = 0
    model_calls: int = 0
    model_seconds: float = 0.0
    tokens: int = 0

    def add(self, other: AnalystUsage) -> None:
        """Add other counters to these."""
        for counter in dataclasses.fields(self):
            setattr(self, counter.name, getattr(self, counter.name) + getattr(other, counter.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What every analyst's answer has.

    Parameters
    ----------
    problem : str
        Why the answer cannot be read; empty when it can.
    cached : bool
        True when it came from disk. Not part of equality.
    model : str
        Name of the model that answered. Not part of equality.
    """

    problem: str = ""
    cached: bool = field(default=False, compare=False)
    model: str = field(default="", compare=False)

    @property
    def valid(self) -> bool:
        """Whether the answer could be read."""
        return not self.problem

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, with ``valid``."""
        own = [f.name for f in dataclasses.fields(self) if f.name not in _COMMON]
        values = {name: getattr(self, name) for name in own}
        return dict(plain(values | {"valid": self.valid} | {name: getattr(self, name) for name in _COMMON}))


_COMMON = ("problem", "cached", "model")


S = TypeVar("S")
R = TypeVar("R", bound=Analysis)


class Analyst(abc.ABC, Generic[S, R]):
    """Has a model answer in JSON, under a grammar, and reads the answer strictly.

    An answer is a function of the model, the template and what is judged; it is stored like a verdict,
    and replayed without a model. One that was cut off, or is not what was asked for, is INVALID: a typed
    object whose `valid` is False, counted in `usage`, and never an exception.

    Parameters
    ----------
    source : AnalystConfig, str, path, LlamaModel, ModelManager or Backend, optional
        Who answers; by default ``AnalystConfig()``.
    cache : VerdictCache, optional
        Instead of the one that the configuration names, or the default one.
    identity : ModelIdentity, optional
        Who answers, where that is known already and `cache` has all answers: no model is looked for.
    template : PromptTemplate, optional
        Instead of the one that the configuration names.

    Attributes
    ----------
    usage : AnalystUsage
        Counters, of all that was ever asked.

    Raises
    ------
    ConfigError
        If `source` is none of these.
    PromptError
        If the template cannot be used.
    """

    result: ClassVar[type[Any]]
    fields: ClassVar[Mapping[str, Field]]
    template_name: ClassVar[str]
    max_tokens: ClassVar[int]
    _shared: ClassVar[dict[tuple[Any, ...], Any]] = {}
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        source: ModelSource | None = None,
        *,
        cache: VerdictCache | None = None,
        identity: ModelIdentity | None = None,
        template: PromptTemplate | None = None,
    ) -> None:
        if source is None or isinstance(source, str | os.PathLike):
            source = AnalystConfig() if source is None else AnalystConfig(model=source)
        self.config = source if isinstance(source, AnalystConfig) else AnalystConfig()
        self.cache = (
            cache if cache is not None else VerdictCache(self.config.cache_dir, self.config.cache_mode)
        )
        self.template = template or PromptTemplate.load(self.template_source)
        self.usage = AnalystUsage()
        self._source = source
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._identity = identity
        self._backend: Backend | None = None
        self._schema = object_schema(self.fields)
        self._check()

    @classmethod
    def shared(cls, config: AnalystConfig, **settings: Any) -> Self:
        """Return the one analyst of this process for a configuration, made when first asked for."""
        key = cls._shared_key(config, settings)
        with Analyst._shared_lock:
            if key not in Analyst._shared:
                Analyst._shared[key] = cls(config, **settings)
            made: Self = Analyst._shared[key]
            return made

    @classmethod
    def share(cls, analyst: Self, **settings: Any) -> None:
        """Make an analyst the one of this process for its configuration and these settings."""
        with Analyst._shared_lock:
            Analyst._shared[cls._shared_key(analyst.config, settings)] = analyst

    @classmethod
    def _shared_key(cls, config: AnalystConfig, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        environment = (os.environ.get("BT_LLM_CACHE_DIR"), os.environ.get("BT_LLM_CACHE_MODE"))
        return cls, os.getpid(), config, tuple(sorted(settings.items())), *environment

    @staticmethod
    def forget_shared() -> None:
        """Close and drop the shared analysts, so that the next ones read their cache anew."""
        with Analyst._shared_lock:
            for analyst in Analyst._shared.values():
                analyst.close()
            Analyst._shared.clear()

    @abc.abstractmethod
    def variables(self, subject: S) -> Mapping[str, Any]:
        """Return the template's variables for what is to be judged, cleaned.

        Raises
        ------
        ConfigError
            If it is not of the form that is needed.
        """

    # Judging

    def analyze(self, subject: S) -> R:
        """Return the answer on one subject; an answer that cannot be read is INVALID."""
        return self.analyze_many([subject])[0]

    def analyze_many(self, subjects: Sequence[S], usage: AnalystUsage | None = None) -> list[R]:
        """Return the answers in order; the same question is asked once.

        Parameters
        ----------
        subjects : sequence
            What is to be judged.
        usage : AnalystUsage, optional
            Counters to add to, besides the analyst's own.
        """
        counted = AnalystUsage()
        try:
            with self._lock:
                return self._analyze(subjects, counted)
        finally:
            for counters in (self.usage, usage):
                if counters is not None:
                    counters.add(counted)

    def _analyze(self, subjects: Sequence[S], usage: AnalystUsage) -> list[R]:
        if isinstance(self._source, ModelManager):  # it may have another model by now
            self._identity = self._backend = None
        prompts = [self._prompt(subject) for subject in subjects]
        questions = [self._question(p) for p in prompts if isinstance(p, Prompt)]
        texts = self._texts(questions, usage)
        found = iter(texts)
        answers = [self._read(next(found)) if isinstance(p, Prompt) else self._invalid(p) for p in prompts]
        distinct = {q.key: a for q, a in zip(questions, _of(prompts, answers), strict=True)}
        usage.answers += len(answers)
        usage.invalid += sum(not answer.valid for answer in answers)
        usage.cache_hits += sum(answer.cached for answer in distinct.values())
        return answers

    def _texts(self, questions: Sequence[Question], usage: AnalystUsage) -> list[GeneratedText]:
        if not questions:
            return []
        texts = self.cache.fetch(questions, lambda wanted: self._ask(wanted, usage))
        told = {"model": self.identity.name}
        self._records |= {q.key: Record(q, text, told) for q, text in zip(questions, texts, strict=True)}
        return texts

    def used(self) -> dict[str, GeneratedText]:
        """Return the answers that have been given so far, by their keys: what a run depends on."""
        return {key: record.answer for key, record in self._records.items()}  # type: ignore[misc]

    def records(self) -> list[Record]:
        """Return the same with their questions, as a pack holds them."""
        return list(self._records.values())

    def _prompt(self, subject: S) -> Prompt | str:
        """Return the prompt, or why there is none."""
        try:
            values = self.variables(subject)
        except UnusableError as problem:
            return str(problem)
        return self.template.prompt(values, self.identity)

    def _question(self, prompt: Prompt) -> Question:
        schema = hashlib.sha256(canonical_json(self._schema).encode()).hexdigest()
        return Question(
            model_sha256=self.identity.sha256,
            chat_template_sha256=self.identity.chat_template_sha256,
            prompt=prompt.chunks,
            labels=(),
            reader="text",
            sampling={"max_tokens": self._max_tokens, "seed": _SEED, "schema_sha256": schema},
            numerics="canonical",
        )

    @property
    def _max_tokens(self) -> int:
        return self.config.max_tokens or self.max_tokens

    def _ask(
        self, questions: Sequence[Question], usage: AnalystUsage
    ) -> Iterator[list[tuple[Question, GeneratedText, Mapping[str, Any]]]]:
        """Ask the model, and count; each answer goes to the cache as it comes."""
        self.cache.put_model(self.identity)
        prompts = [Prompt(question.prompt) for question in questions]
        with self._asking() as backend:
            started = time.perf_counter()
            answers = backend.generate_json(prompts, self._schema, max_tokens=self._max_tokens, seed=_SEED)
            for question, answer in zip(questions, answers, strict=True):
                if answer is None:
                    continue
                usage.model_seconds += time.perf_counter() - started
                usage.model_calls += 1
                usage.tokens += answer.tokens
                yield [(question, self._generated(answer), self._provenance(backend, answer))]
                started = time.perf_counter()

    def _generated(self, answer: Answer) -> GeneratedText:
        text = answer.text[:_LONGEST]
        finished = answer.finished and len(answer.text) <= _LONGEST
        return GeneratedText(text=text, finished=finished, model=self.identity.name)

    def _provenance(self, backend: Backend, answer: Answer) -> dict[str, Any]:
        return {**backend.provenance, "tokens": answer.tokens, "milliseconds": answer.milliseconds}

    def _read(self, generated: GeneratedText) -> R:
        origin = {"cached": generated.cached, "model": self.identity.name}
        if not generated.finished:
            return self._invalid(f"cut off by max_tokens={self._max_tokens}", **origin)
        try:
            fields = read_object(generated.text, self.fields)
        except ValueError as error:
            return self._invalid(str(error), **origin)
        answer: R = self.result(**fields, **origin)
        return answer

    def _invalid(self, problem: str, **origin: Any) -> R:
        blanks = {name: field.blank for name, field in self.fields.items()}
        answer: R = self.result(**blanks, problem=problem, **origin)
        return answer

    def _check(self) -> None:
        """Find a misspelt variable or a wrong example now, not at the first question."""
        for example in self.template.examples:
            self.template.question(example.values)
            try:
                read_object(example.answer, self.fields)
            except ValueError as error:
                raise PromptError(f"template {self.template.name!r}: example answer: {error}") from None

    @property
    def template_source(self) -> str:
        """Name or path of the template that the configuration names, or the analyst's own."""
        return str(self.config.template or self.template_name)

    # Who answers

    @property
    def identity(self) -> ModelIdentity:
        """Who answers; in replay, without a model file, as the cache knows it."""
        with self._lock:
            if self._identity is None:
                self._identity, self._backend = self._look_up()
            return self._identity

    def _look_up(self) -> tuple[ModelIdentity, Backend | None]:
        source = self._source
        if isinstance(source, AnalystConfig):
            threads, layers = source.n_threads, source.n_gpu_layers
            return look_up_model(str(source.model), self.cache, n_threads=threads, n_gpu_layers=layers)
        if isinstance(source, LlamaModel | ModelManager):
            name, threads, layers = self._file_of(source)
            return look_up_model(name, self.cache, n_threads=threads, n_gpu_layers=layers)
        if callable(getattr(source, "generate_json", None)):
            return source.identity, source
        raise ConfigError(
            f"model={source!r:.60}: expected a model's name or path, an AnalystConfig, a LlamaModel, "
            "a ModelManager or a Backend"
        )

    def _file_of(self, source: LlamaModel | ModelManager) -> tuple[str, int | None, int]:
        """Return the file of a model, threads and GPU layers; of a manager, those of the model it loads."""
        if isinstance(source, ModelManager):
            if self.cache.mode is CacheMode.REPLAY:
                return os.fspath(source.model_path), None, 0
            source = source.get_model()
        return os.fspath(source.config.model_path), source.config.n_threads, source.config.n_gpu_layers

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Backend]:
        """Give the backend; one that was opened beside a loaded model is freed again."""
        backend = self._backend
        if backend is None:
            raise ModelError(f"model {self.identity.name!r} is known from the cache only and cannot be asked")
        try:
            yield backend
        finally:
            if isinstance(self._source, LlamaModel | ModelManager):
                backend.close()

    def close(self) -> None:
        """Free what the analyst opened itself; it can be asked again and loads it anew."""
        with self._lock:
            if isinstance(self._source, AnalystConfig) and self._backend is not None:
                self._backend.close()

    def __enter__(self) -> Self:
        """Return the analyst."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free what the analyst opened itself."""
        self.close()


def _of(prompts: Sequence[Prompt | str], answers: Sequence[R]) -> list[R]:
    """Return the answers to what could be asked."""
    return [a for p, a in zip(prompts, answers, strict=True) if isinstance(p, Prompt)]
