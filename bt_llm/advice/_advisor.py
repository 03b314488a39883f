"""Advisor: from states to verdicts, by way of prompt, cache, model and calibration."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from bt_llm.advice._lookup import look_up_model
from bt_llm.advice._readers import Reader, json_sampling, read_json, read_logprobs
from bt_llm.cache import CacheMode, Question, Record, VerdictCache
from bt_llm.exceptions import (
    ConfigError,
    InsufficientMemoryError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
)
from bt_llm.models import Backend, ModelIdentity, Numerics, Progress, Prompt
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import Prior, StateSpace, Verdict, calibrated, mean_prior

__all__ = ["Advisor", "AdvisorConfig", "Usage"]

logger = logging.getLogger(__name__)

Calibration = Literal["grid", "none"] | Prior

_LONGEST = 200  # characters of `identify`: it is paid for in every prompt's context


@dataclass(frozen=True, kw_only=True)
class AdvisorConfig:
    """Everything that says how a state becomes a verdict; small, hashable and picklable.

    A strategy carries this in its parameters, never a model: a model in the parameters would be loaded
    again by every process and combination of an optimisation.

    Parameters
    ----------
    model : str or path
        A GGUF file, a name in `models/`, ``smollm2``, ``scripted:NAME``, or ``openai:URL``.
    fallbacks : sequence of str or path
        Models to ask instead, in this order, if the model is missing, damaged or too large for the memory.
        Verdicts are stored under, and say, the model that answered; those of two models are never mixed.
    template : str, path or PromptTemplate, optional
        A prompt template, or its name or file; by default the one of the reader.
    state_space : StateSpace
        The features, their buckets and labels.
    reader : {'logprobs', 'json'}
        Read the labels' probabilities, or generate JSON with a reason.
    calibration : {'grid', 'none'} or Prior, optional
        See `bt_llm.verdicts`. By default 'grid' for log-probabilities and 'none' for JSON, whose
        reason would otherwise contradict the action.
    numerics : {'canonical', 'fast'}
        Bitwise the same in any batch, or llama.cpp's defaults.
    cache_dir : str or path, optional
        By default ``BT_LLM_CACHE_DIR``, or the user's cache folder.
    cache_mode : str, optional
        record, replay, refresh or off; by default ``BT_LLM_CACHE_MODE``, or record.
    n_threads : int, optional
        CPU threads; by default one a physical core. Verdicts do not depend on it.
    n_gpu_layers : int
        Layers on the GPU.
    identify : str
        One line that tells the model which market it looks at and when, such as ``"EUR/USD, hourly,
        2017"``, before the state in every question. By default prompts are masked: they name nothing that
        could be remembered. Only for finding out what remembering does; see `identified_probe` in
        `bt_llm.research`.

    Examples
    --------
    >>> AdvisorConfig(model="scripted:trend").reader
    'logprobs'
    """

    model: str | os.PathLike[str] = "smollm2"
    fallbacks: Sequence[str | os.PathLike[str]] = ()
    template: str | os.PathLike[str] | PromptTemplate | None = None
    state_space: StateSpace = field(default_factory=StateSpace)
    reader: Reader = "logprobs"
    calibration: Calibration | None = None
    numerics: Numerics = "canonical"
    cache_dir: str | os.PathLike[str] | None = None
    cache_mode: CacheMode | str | None = None
    n_threads: int | None = None
    n_gpu_layers: int = 0
    identify: str = ""

    def __post_init__(self) -> None:
        """Check the choices, once, and make paths plain text."""
        for name in ("model", "template", "cache_dir"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, PromptTemplate):
                object.__setattr__(self, name, os.fspath(value))
        if isinstance(self.fallbacks, str | os.PathLike):
            raise ConfigError(f"fallbacks={self.fallbacks!r}: expected a list of models")
        object.__setattr__(self, "fallbacks", tuple(map(os.fspath, self.fallbacks)))
        for name, choices in (("reader", get_args(Reader)), ("numerics", get_args(Numerics))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {list(choices)}")
        if self.calibration is None:
            object.__setattr__(self, "calibration", "grid" if self.reader == "logprobs" else "none")
        if self.calibration not in ("grid", "none") and not isinstance(self.calibration, Prior):
            raise ConfigError(f"calibration={self.calibration!r}: expected 'grid', 'none' or a Prior")
        if self.cache_mode is not None:
            object.__setattr__(self, "cache_mode", CacheMode.parse(self.cache_mode))
        if self.n_threads is not None and (type(self.n_threads) is not int or self.n_threads < 1):
            raise ConfigError(f"n_threads={self.n_threads!r}: expected a whole number of at least 1, or None")
        _check_identify(self.identify)

    @property
    def template_source(self) -> str | PromptTemplate:
        """The template, or its name or path; the reader's own one if none was given."""
        default = "market" if self.reader == "logprobs" else "market_json"
        if isinstance(self.template, PromptTemplate):
            return self.template
        return str(self.template) if self.template is not None else default


def _check_identify(line: object) -> None:
    if not isinstance(line, str) or not line.isprintable() or line != line.strip() or len(line) > _LONGEST:
        raise ConfigError(
            f"identify={line!r:.60}: expected one printable line of at most {_LONGEST} characters without "
            "blanks around it, such as 'EUR/USD, hourly, 2017'"
        )


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

    def __add__(self, other: Usage) -> Usage:
        """Return the sum, field by field."""
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)))


class Advisor:
    """Gives verdicts on states: a pure function of the state, the template and the model.

    Parameters
    ----------
    config : AdvisorConfig
        How.
    backend : Backend, optional
        Who answers, instead of `config.model`; for tests and for models of your own.
    cache : VerdictCache, optional
        Instead of the one that `config` names.
    identity : ModelIdentity, optional
        Who answers, where that is known already and `cache` has all answers: no model is looked for.
    template : PromptTemplate, optional
        Instead of the one that `config` names.

    Examples
    --------
    >>> from bt_llm.verdicts import MarketState
    >>> advisor = Advisor(AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> advisor.advise(MarketState(trend=0.2, rsi=60, volatility=1.0)).action.name
    'BULLISH'
    """

    _shared: ClassVar[dict[tuple[int, AdvisorConfig, str | None, str | None], Advisor]] = {}
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        config: AdvisorConfig,
        *,
        backend: Backend | None = None,
        cache: VerdictCache | None = None,
        identity: ModelIdentity | None = None,
        template: PromptTemplate | None = None,
    ) -> None:
        self.config = config
        self.space = config.state_space
        self.template = template or PromptTemplate.load(config.template_source)
        self.labels = self.template.choices
        self.template.check_states(self.space)
        self.cache = cache if cache is not None else VerdictCache(config.cache_dir, config.cache_mode)
        self.on_progress: Progress | None = None
        self._backend = backend
        self._identity = identity
        self._models = [str(config.model), *map(str, config.fallbacks)]  # the first is the one asked
        self._raw: dict[int, Verdict] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._lock = threading.RLock()

    @classmethod
    def shared(cls, config: AdvisorConfig) -> Advisor:
        """Return the one advisor of this process for a configuration, made when first asked for."""
        key = cls._shared_key(config)
        with cls._shared_lock:
            if key not in cls._shared:
                cls._shared[key] = cls(config)
            return cls._shared[key]

    @classmethod
    def share(cls, advisor: Advisor) -> None:
        """Make an advisor the one of this process for its configuration."""
        with cls._shared_lock:
            cls._shared[cls._shared_key(advisor.config)] = advisor

    @staticmethod
    def _shared_key(config: AdvisorConfig) -> tuple[int, AdvisorConfig, str | None, str | None]:
        environment = (os.environ.get("BT_LLM_CACHE_DIR"), os.environ.get("BT_LLM_CACHE_MODE"))
        return os.getpid(), config, *environment

    @classmethod
    def forget_shared(cls) -> None:
        """Close and drop the shared advisors, so that the next ones read their cache anew."""
        with cls._shared_lock:
            for advisor in cls._shared.values():
                advisor.close()
            cls._shared.clear()

    @property
    def template_source(self) -> str | PromptTemplate:
        """Name or path of the template that the configuration names, or the template."""
        return self.config.template_source

    # Who answers

    @property
    def identity(self) -> ModelIdentity:
        """Who answers; in replay, without a model file, as the cache knows it."""
        with self._lock:
            if self._identity is None:
                self._identity = self._backend.identity if self._backend else self._find_identity()
            return self._identity

    def _find_identity(self) -> ModelIdentity:
        config = self.config
        while True:
            try:
                identity, self._backend = look_up_model(
                    self._models[0], self.cache, n_threads=config.n_threads, n_gpu_layers=config.n_gpu_layers
                )
            except (ModelNotFoundError, ModelFileError) as error:
                self._fall_back(error)
            else:
                return identity

    def _fall_back(self, error: ModelError) -> None:
        """Go on with the next model; what the one before answered is its own, and is not mixed in."""
        if len(self._models) == 1:
            raise error
        del self._models[0]
        logger.warning("%s; using the fallback %s", error, self._models[0])
        if self._backend is not None:
            self._backend.close()
        self._identity = self._backend = None
        self._raw.clear()
        self._verdicts.clear()

    # Asking

    def advise(self, state: Mapping[str, float]) -> Verdict:
        """Return the verdict on a state; INVALID if one of its numbers is not finite."""
        return self.advise_many([state])[0]

    def advise_many(self, states: Sequence[Mapping[str, float]]) -> list[Verdict]:
        """Return the verdicts on states, in their order; each distinct prompt is asked at most once."""
        cells = [self.space.cell(state) for state in states]
        distinct = sorted({cell for cell in cells if cell >= 0})
        verdicts = dict(zip(distinct, self.advise_cells(distinct), strict=True))
        unasked = Verdict.invalid("state is not finite", labels=self.labels)
        return [verdicts[c] if c >= 0 else unasked for c in cells]

    def advise_cells(self, cells: Sequence[int], usage: Usage | None = None) -> list[Verdict]:
        """Return the calibrated verdict of each cell of the state space, in their order.

        Parameters
        ----------
        cells : sequence of int
            Cells of `space`, duplicates allowed.
        usage : Usage, optional
            Counters to add to.
        """
        counted = usage if usage is not None else Usage()
        with self._lock:
            return self._with_fallbacks(lambda: self._advise_cells(cells, counted))

    def _advise_cells(self, cells: Sequence[int], usage: Usage) -> list[Verdict]:
        distinct = list(dict.fromkeys(cells))
        new = [cell for cell in distinct if cell not in self._verdicts]
        if new:
            self._judge(new, usage)
        usage.distinct += len(distinct)
        usage.cache_hits += len(distinct) - sum(not self._verdicts[cell].cached for cell in new)
        answers = [self._verdicts[cell] for cell in cells]
        for cell in new:  # from now on the answer comes from memory
            self._verdicts[cell] = dataclasses.replace(self._verdicts[cell], cached=True)
        return answers

    def _with_fallbacks(self, work: Callable[[], list[Verdict]]) -> list[Verdict]:
        while True:
            try:
                return work()
            except (ModelFileError, InsufficientMemoryError) as error:  # seen only when the model is loaded
                self._fall_back(error)

    def _judge(self, cells: Sequence[int], usage: Usage) -> None:
        """Fetch and calibrate; the grid's prior needs every cell of the space."""
        if self.config.calibration == "grid":
            everything = range(len(self.space))
            self._fetch(everything, usage)
            prior = mean_prior(self._raw[cell] for cell in everything)
        else:
            self._fetch(cells, usage)
            prior = self.config.calibration if isinstance(self.config.calibration, Prior) else None
        for cell in cells:
            self._verdicts[cell] = calibrated(self._raw[cell], prior)

    def raw_cells(self, cells: Sequence[int], usage: Usage | None = None) -> list[Verdict]:
        """Return the verdicts as the model gave them, before calibration."""
        counted = usage if usage is not None else Usage()

        def fetched() -> list[Verdict]:
            self._fetch(list(dict.fromkeys(cells)), counted)
            return [self._raw[c] for c in cells]

        with self._lock:
            return self._with_fallbacks(fetched)

    def _fetch(self, cells: Sequence[int], usage: Usage) -> None:
        """Bring the raw verdicts of cells into memory, from the cache or the model."""
        missing = [cell for cell in cells if cell not in self._raw]
        if not missing:
            return
        prompts = self.prompts(missing)
        questions = [self._question(prompt) for prompt in prompts]
        names = {question.key: cell for question, cell in zip(questions, missing, strict=True)}

        def ask(wanted: Sequence[Question]) -> Iterator[list[tuple[Question, Verdict, Mapping[str, Any]]]]:
            yield from self._ask(wanted, usage)

        def where(question: Question) -> str:
            return f"state {self.space.describe(names[question.key])}"

        verdicts = self.cache.fetch(questions, ask, on_progress=self.on_progress, where=where)
        for cell, verdict in zip(missing, verdicts, strict=True):
            self._raw[cell] = dataclasses.replace(verdict.over(self.labels), model=self.identity.name)

    def prompts(self, cells: Sequence[int]) -> list[Prompt]:
        """Return what the model is asked about each cell, in their order."""
        identify = self.config.identify
        return self.template.prompts(self.space, cells, self.identity, identify=identify)

    def used(self) -> dict[str, Verdict]:
        """Return the raw verdicts that have been needed so far, by their keys: what a run depends on."""
        return {record.key: record.verdict for record in self.records()}

    def records(self) -> list[Record]:
        """Return the same with their questions, as a pack holds them."""
        with self._lock:
            cells = sorted(self._raw)
            questions = [self._question(prompt) for prompt in self.prompts(cells)]
            told = {"model": self.identity.name}
            return [Record(q, self._raw[cell], told) for cell, q in zip(cells, questions, strict=True)]

    def _question(self, prompt: Prompt) -> Question:
        identity, template = self.identity, self.template
        json_reader = self.config.reader == "json"
        return Question(
            model_sha256=identity.sha256,
            chat_template_sha256=identity.chat_template_sha256,
            prompt=prompt.chunks,
            labels=self.labels.words if json_reader else template.continuations,
            reader=self.config.reader,
            sampling=json_sampling(self.labels.words) if json_reader else {},
            numerics=self.config.numerics,
        )

    def _ask(
        self, questions: Sequence[Question], usage: Usage
    ) -> Iterator[list[tuple[Question, Verdict, Mapping[str, Any]]]]:
        """Ask the model, and count; each batch goes to the cache as it comes."""
        backend = self._asked_backend()
        self.cache.put_model(self.identity)
        prompts = [Prompt(question.prompt) for question in questions]
        if self.config.reader == "json":
            readings = read_json(backend, prompts, self.labels)
        else:
            words, numerics = self.template.continuations, self.config.numerics
            readings = read_logprobs(backend, prompts, words, self.labels, numerics)
        done, common = 0, {"model": self.identity.name, **backend.provenance}
        started = time.perf_counter()
        for batch in readings:
            usage.model_seconds += time.perf_counter() - started
            asked = questions[done : done + len(batch)]
            done += len(batch)
            answered = [(q, *reading) for q, reading in zip(asked, batch, strict=True) if reading is not None]
            usage.model_calls += len(answered)
            usage.tokens += sum(int(extra.get("tokens", 0)) for _, _, extra in answered)
            yield [(q, verdict, {**common, **extra}) for q, verdict, extra in answered]
            started = time.perf_counter()

    def _asked_backend(self) -> Backend:
        if self._backend is None:
            raise ModelError(f"model {self.config.model!r} is known from the cache only and cannot be asked")
        return self._backend

    def close(self) -> None:
        """Free the model; the advisor can be asked again and loads it anew."""
        with self._lock:
            if self._backend is not None:
                self._backend.close()
