"""Analyst: from something to judge to a typed answer, by way of prompt, cache, model and strict reading."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from bt_llm.advice._asker import Asker, Usage
from bt_llm.advice._asker_config import AskerConfig
from bt_llm.advice._tables import TABLES
from bt_llm.advice.analysts._fields import Field, object_schema, read_object
from bt_llm.advice.analysts._untrusted import UnusableError
from bt_llm.cache import GeneratedText, Question, Record, VerdictCache
from bt_llm.exceptions import ConfigError, PromptError
from bt_llm.models import Backend, Capability, ModelManager, Progress, Prompt
from bt_llm.plain_json import canonical_json, plain
from bt_llm.progress import shows_progress
from bt_llm.prompts import PromptTemplate

__all__ = ["Analysis", "Analyst", "AnalystConfig", "AnalystUsage", "ModelSource"]

_SEED = 0
_LONGEST = 20_000  # characters of an answer that are kept; a server can send any number


@dataclass(frozen=True, kw_only=True)
class AnalystConfig(AskerConfig):
    """Who answers an analyst, and where answers are kept; small, hashable and picklable.

    Parameters
    ----------
    model, fallbacks, cache_dir, cache_mode, n_threads, n_gpu_layers, manager, supplied
        As of `AdvisorConfig`.
    template : str, path or PromptTemplate, optional
        A template, or its name or file; by default the analyst's own.
    max_tokens : int, optional
        Longest answer, in tokens; by default the analyst's own. One that is cut off is INVALID.

    Raises
    ------
    ConfigError
        If a setting is out of its range.

    Examples
    --------
    >>> AnalystConfig(cache_mode="replay").model
    'smollm2'
    """

    max_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check the choices, once."""
        super().__post_init__()
        self._check_count("max_tokens")


ModelSource: TypeAlias = AnalystConfig | str | os.PathLike[str] | ModelManager | Backend
"""What can answer an analyst. A `LlamaModel` is a Backend: it is asked as it is, and loads if it is not."""


@dataclass(slots=True)
class AnalystUsage(Usage):
    """What an analyst answered, and what it cost; see `Usage`.

    Attributes
    ----------
    answers : int
        Answers given, those to the same question included.
    invalid : int
        Of these, answers that could not be read, or questions that could not be asked.
    """

    answers: int = 0
    invalid: int = 0


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


class Analyst(Asker[GeneratedText], Generic[S, R]):
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

    config: AnalystConfig
    result: ClassVar[type[Any]]
    fields: ClassVar[Mapping[str, Field]]
    template_name: ClassVar[str]
    max_tokens: ClassVar[int]

    def __init__(
        self,
        source: ModelSource | None = None,
        *,
        cache: VerdictCache | None = None,
    ) -> None:
        if source is None or isinstance(source, str | os.PathLike):
            source = AnalystConfig(model=source)
        config, backend = (source, None) if isinstance(source, AnalystConfig) else (AnalystConfig(), source)
        can_answer = isinstance(backend, ModelManager) or callable(getattr(backend, "generate_json", None))
        if backend is not None and not can_answer:
            raise ConfigError(
                f"model={source!r:.60}: expected a model's name or path, an AnalystConfig, a LlamaModel, "
                "a ModelManager or a Backend"
            )
        super().__init__(config, backend=backend, cache=cache)
        supplied = config.supplied
        self.template: PromptTemplate = (
            supplied.template if supplied else PromptTemplate.load(self.template_source)
        )
        self.usage = AnalystUsage()
        self._schema = object_schema(self.fields)
        self._check()

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

    @shows_progress("asking")
    def analyze_many(
        self,
        subjects: Sequence[S],
        usage: AnalystUsage | None = None,
        *,
        on_progress: Progress | None = None,
    ) -> list[R]:
        """Return the answers in order; the same question is asked once.

        Parameters
        ----------
        subjects : sequence
            What is to be judged.
        usage : AnalystUsage, optional
            Counters to add to, besides the analyst's own.
        on_progress : callable, optional
            Called with (asked, to ask) while the model is asked.
        """
        counted = AnalystUsage()
        try:
            answers, distinct = self._answering(lambda: self._analyze(subjects, counted, on_progress))
            counted.answers += len(answers)
            counted.invalid += sum(not answer.valid for answer in answers)
            counted.distinct += len(distinct)
            counted.cache_hits += sum(answer.cached for answer in distinct.values())
            return answers
        finally:
            for counters in (self.usage, usage):
                if counters is not None:
                    counters.add(counted)

    def _analyze(
        self, subjects: Sequence[S], usage: AnalystUsage, on_progress: Progress | None
    ) -> tuple[list[R], dict[str, R]]:
        """Return the answers, and those to distinct questions by their keys."""
        prompts = [self._prompt(subject) for subject in subjects]
        asked = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
        given = self._fetch(asked, usage, on_progress) if asked else []
        questions = [self._question(prompt) for prompt in asked]
        told = {"model": self.identity.name}
        self._known().update({q.key: Record(q, text, told) for q, text in zip(questions, given, strict=True)})
        texts = iter(given)
        answers = [self._read(next(texts)) if isinstance(p, Prompt) else self._invalid(p) for p in prompts]
        keys = [question.key for question in questions]
        return answers, dict(zip(keys, _of(prompts, answers), strict=True))

    def used(self) -> dict[str, GeneratedText]:
        """Return the answers that have been given so far, by their keys: what a run depends on."""
        return {key: record.answer for key, record in self._known().items()}  # type: ignore[misc]

    def records(self) -> list[Record]:
        """Return the same with their questions, as a pack holds them."""
        return list(self._known().values())

    def _known(self) -> dict[str, Record]:
        """Return the records of this process that were answered by the same model in the same words."""
        identity = self.identity
        who = (type(self), identity.sha256, identity.chat_template_sha256, self.device)
        how = (self.template, self._max_tokens, tuple(sorted(self._settings().items())))
        return TABLES.of(self.cache, (*who, *how), brought=self._brought_cache)

    def _prompt(self, subject: S) -> Prompt | str:
        """Return the prompt, or why there is none."""
        try:
            values = self.variables(subject)
        except UnusableError as problem:
            return str(problem)
        return self.template.prompt(values, self.identity)

    @property
    def numerics(self) -> str:
        """What rounds the sums, as it stands in keys."""
        return f"canonical:{self.device}" if self.device else "canonical"

    def _question(self, prompt: Prompt) -> Question:
        schema = hashlib.sha256(canonical_json(self._schema).encode()).hexdigest()
        identity = self.identity
        return Question(
            model_sha256=identity.sha256,
            chat_template_sha256=identity.chat_template_sha256,
            prompt=prompt.chunks,
            labels=(),
            reader="text",
            sampling={"max_tokens": self._max_tokens, "seed": _SEED, "schema_sha256": schema},
            numerics=self.numerics,
        )

    @property
    def _needs(self) -> Capability:
        return "generate_json"

    @property
    def _max_tokens(self) -> int:
        return self.config.max_tokens or self.max_tokens

    def _readings(
        self, backend: Backend, prompts: Sequence[Prompt]
    ) -> Iterator[Sequence[tuple[GeneratedText, Mapping[str, Any]] | None]]:
        name = self.identity.name
        for answer in backend.generate_json(prompts, self._schema, max_tokens=self._max_tokens, seed=_SEED):
            if answer is None:
                yield [None]
                continue
            finished = answer.finished and len(answer.text) <= _LONGEST
            generated = GeneratedText(text=answer.text[:_LONGEST], finished=finished, model=name)
            yield [(generated, {"tokens": answer.tokens, "milliseconds": answer.milliseconds})]

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
    def template_source(self) -> str | PromptTemplate:
        """The template that the configuration names, or the analyst's own, or its name."""
        source = self.config.template or self.template_name
        return source if isinstance(source, PromptTemplate) else os.fspath(source)


def _of(prompts: Sequence[Prompt | str], answers: Sequence[R]) -> list[R]:
    """Return the answers to what could be asked."""
    return [a for p, a in zip(prompts, answers, strict=True) if isinstance(p, Prompt)]
