"""Advisor: from states to verdicts, by way of prompt, cache, model and calibration."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bt_llm.advice._advisor_config import DECISIONS, AdvisorConfig
from bt_llm.advice._asker import Asker, Usage
from bt_llm.advice._readers import (
    contrast_sampling,
    json_sampling,
    read_contrast,
    read_json,
    read_logprobs,
)
from bt_llm.advice._tables import TABLES
from bt_llm.cache import Question, Record, VerdictCache
from bt_llm.exceptions import ConfigError
from bt_llm.models import (
    Backend,
    Capability,
    ModelIdentity,
    ModelManager,
    Progress,
    Prompt,
)
from bt_llm.progress import shows_progress
from bt_llm.prompts import PromptTemplate
from bt_llm.settings import instance
from bt_llm.verdicts import (
    Prior,
    Verdict,
    calibrated,
    mean_prior,
    prior_cells,
)

__all__ = ["Advisor", "Spans"]


class Spans(Protocol):
    """When bars opened and closed, in their order."""

    @property
    def opened(self) -> Sequence[datetime.datetime]:
        """With their zones."""
        ...

    @property
    def closed(self) -> Sequence[datetime.datetime]:
        """With their zones; a bar's verdict is known then."""
        ...

    @property
    def zone(self) -> datetime.tzinfo:
        """Of the times of the bars."""
        ...


class Advisor(Asker[Verdict]):
    """Gives verdicts on states: a pure function of the state, the template and the model.

    It is cheap to make: models are loaded when they are asked, once for all, and verdicts that this process
    knows are shared by all advisors on which they depend alike.

    Parameters
    ----------
    config : AdvisorConfig
        How.
    backend : Backend or ModelManager, optional
        Who answers, instead of `config.model`; for tests and for models of your own.
    cache : VerdictCache, optional
        Instead of the one that `config` names.
    template : PromptTemplate, optional
        Instead of the one that `config` names.

    Examples
    --------
    >>> from bt_llm.verdicts import MarketState
    >>> advisor = Advisor(AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> advisor.advise(MarketState(trend=0.2, rsi=60, volatility=1.0)).action.name
    'BULLISH'
    """

    config: AdvisorConfig
    by_bar: ClassVar[bool] = False
    """Whether it answers on bars (`places`), and not on cells of the state space alone."""

    def __init__(
        self,
        config: AdvisorConfig,
        *,
        backend: Backend | ModelManager | None = None,
        cache: VerdictCache | None = None,
        template: PromptTemplate | None = None,
    ) -> None:
        instance("config", config, AdvisorConfig, "an AdvisorConfig")
        if template is not None:
            instance("template", template, PromptTemplate, "a PromptTemplate")
        if backend is None and config.by_bar and not self.by_bar:
            raise ConfigError(
                f"model {str(config.model)!r:.80} answers by the bar, and is asked here about states alone: "
                "expected one model, such as a member"
            )
        super().__init__(config, backend=backend, cache=cache)
        self.space = config.state_space
        self._brought = {} if template is None else {"template": template}
        if template is None:
            supplied = config.supplied
            template = supplied.template if supplied else PromptTemplate.load(config.template_source)
        self.template: PromptTemplate = template
        self.labels = self.template.choices
        self.template.check_states(self.space)
        self._own: dict[int, Verdict] = {}  # raw, of a backend that nobody else has
        self._verdicts: dict[int, Verdict] = {}
        self._fresh: set[int] = set()  # cells that this advisor has asked the model about
        self._contrast: tuple[ModelIdentity, Prompt] | None = None  # what its verdicts are contrasted with
        self._prior: tuple[object, Prior | None] = (None, None)  # and the raw verdicts that it was found in

    def _settings(self) -> dict[str, Any]:
        return self._brought

    @classmethod
    def of(cls, config: AdvisorConfig) -> Advisor:
        """Return who answers as a configuration says: an advisor, or one that answers by the bar."""
        instance("config", config, AdvisorConfig, "an AdvisorConfig")
        if not config.by_bar:
            return cls(config)
        from bt_llm.advice._dated import DatedAdvisor
        from bt_llm.advice._decisions import DecisionsAdvisor

        is_file = str(config.model).startswith(DECISIONS)
        return DecisionsAdvisor(config) if is_file else DatedAdvisor(config)

    @property
    def template_source(self) -> str | PromptTemplate:
        """Name or path of the template that the configuration names, or the template."""
        return self.config.template_source

    # By the bar

    @property
    def carried(self) -> Any:
        """What else than answers a worker needs; see `Supplied`."""
        return None

    def places(self, cells: NDArray[np.int64], spans: Spans, symbol: str) -> NDArray[np.int64]:
        """Return what is asked about at each bar, as `advise_cells` takes it; -1 where nobody answers.

        Parameters
        ----------
        cells : ndarray of int64, shape (n_bars,)
            Of the state space; -1 where the state is not finite.
        spans : Spans
            When the bars opened and closed; only used where `by_bar` says so.
        symbol : str
            Name of the data.
        """
        return cells

    def with_prior(self, places: Iterable[int]) -> list[int]:
        """Return places with all those that a prior of the grid is the mean over, ascending."""
        return sorted({*prior_cells(self.space), *places})

    def split(self, places: Sequence[int]) -> list[tuple[Advisor, list[int]]]:
        """Return who answers places, and the cells that each is asked about, in the places' order."""
        return [(self, list(places))]

    def silence(self, bars: int) -> tuple[str, str]:
        """Return a problem and a note on bars on which nobody answered; empty if there is nothing to say."""
        return "", ""

    @property
    def _needs(self) -> Capability:
        return "generate_json" if self.config.reader == "json" else "score"

    @property
    def numerics(self) -> str:
        """What rounds the sums, as it stands in keys: the configuration's numerics, and a device if any."""
        device = self.device
        return f"{self.config.numerics}:{device}" if device else self.config.numerics

    def _raw(self) -> dict[int, Verdict]:
        """Return the raw verdicts that are known, of this model to these words."""
        if self._backend is not None:
            return self._own
        identity = self.identity
        who = (identity.sha256, identity.chat_template_sha256)
        how = (self.template, self.space, self.config.reader, self.numerics, self.config.identify)
        return TABLES.of(self.cache, (*who, *how), brought=self._brought_cache)

    def _forget(self) -> None:
        self._verdicts.clear()
        self._fresh.clear()

    # Asking

    def advise(self, state: Mapping[str, float]) -> Verdict:
        """Return the verdict on a state; INVALID if one of its numbers is not finite."""
        return self.advise_many([state])[0]

    def advise_many(
        self, states: Sequence[Mapping[str, float]], *, on_progress: Progress | None = None
    ) -> list[Verdict]:
        """Return the verdicts on states, in their order; each distinct prompt is asked at most once."""
        cells = [self.space.cell(state) for state in states]
        distinct = sorted({cell for cell in cells if cell >= 0})
        found = self.advise_cells(distinct, on_progress=on_progress)
        verdicts = dict(zip(distinct, found, strict=True))
        unasked = Verdict.invalid("state is not finite", labels=self.labels)
        return [verdicts[c] if c >= 0 else unasked for c in cells]

    @shows_progress("asking")
    def advise_cells(
        self, cells: Sequence[int], usage: Usage | None = None, *, on_progress: Progress | None = None
    ) -> list[Verdict]:
        """Return the calibrated verdict of each cell of the state space, in their order.

        Parameters
        ----------
        cells : sequence of int
            Cells of `space`, duplicates allowed.
        usage : Usage, optional
            Counters to add to.
        on_progress : callable, optional
            Called with (answered, to ask) while the model is asked.
        """
        counted = usage if usage is not None else Usage()
        return self._answering(lambda: self._advise_cells(cells, counted, on_progress))

    def _advise_cells(
        self, cells: Sequence[int], usage: Usage, on_progress: Progress | None
    ) -> list[Verdict]:
        distinct = list(dict.fromkeys(cells))
        new = [cell for cell in distinct if cell not in self._verdicts]
        if new:
            self._judge(new, usage, on_progress)
        usage.distinct += len(distinct)
        usage.cache_hits += len(distinct) - sum(not self._verdicts[cell].cached for cell in new)
        answers = [self._verdicts[cell] for cell in cells]
        for cell in new:  # from now on the answer comes from memory
            self._verdicts[cell] = _marked(self._verdicts[cell], self._verdicts[cell].model, cached=True)
        return answers

    def _judge(self, cells: Sequence[int], usage: Usage, on_progress: Progress | None) -> None:
        """Fetch and calibrate; what the grid's prior needs is fetched with the first cells."""
        known, prior = self._prior
        wanted: Sequence[int] = cells
        sample = self.config.prior_cells if known is not self._raw() else ()
        if sample:
            wanted = sorted({*sample, *cells})
        raw = self._fetched(wanted, usage, on_progress)
        if sample:
            prior = mean_prior(raw[cell] for cell in sample)
            self._prior = self._raw(), prior
        if isinstance(self.config.calibration, Prior):
            prior = self.config.calibration
        for cell in cells:
            self._verdicts[cell] = calibrated(raw[cell], prior)

    @shows_progress("asking")
    def raw_cells(
        self, cells: Sequence[int], usage: Usage | None = None, *, on_progress: Progress | None = None
    ) -> list[Verdict]:
        """Return the verdicts as the model gave them, before calibration; arguments as of `advise_cells`.

        Those whose labels hold less than `min_label_mass` are invalid.
        """
        counted = usage if usage is not None else Usage()

        def fetched() -> list[Verdict]:
            raw = self._fetched(list(dict.fromkeys(cells)), counted, on_progress)
            return [raw[cell] for cell in cells]

        return self._answering(fetched)

    def _fetched(
        self, cells: Sequence[int], usage: Usage, on_progress: Progress | None
    ) -> dict[int, Verdict]:
        """Return the raw verdicts of cells, from memory, the cache or the model."""
        known, name = self._raw(), self.identity.name
        found = {
            cell: _marked(known[cell], name, cached=cell not in self._fresh)
            for cell in cells
            if cell in known
        }
        missing = [cell for cell in cells if cell not in found]
        if missing:
            prompts = self.prompts(missing)
            cell_of = {
                self._question(prompt).key: cell for prompt, cell in zip(prompts, missing, strict=True)
            }

            def where(question: Question) -> str:
                return self._described(cell_of[question.key])

            verdicts = self._fetch(prompts, usage, on_progress, where)
            for cell, verdict in zip(missing, verdicts, strict=True):
                found[cell] = dataclasses.replace(verdict.over(self.labels), model=name)
                known[cell] = found[cell]
                if not verdict.cached:
                    self._fresh.add(cell)
        least = self.config.floor
        return {cell: found[cell].held_to(least) for cell in cells}

    def _described(self, cell: int) -> str:
        """Return what a cell is, for messages."""
        return f"state {self.space.describe(cell)}"

    def prompts(self, cells: Sequence[int]) -> list[Prompt]:
        """Return what the model is asked about each cell, in their order."""
        if self.config.reader != "json":
            self.template.check_answer(self.identity)
        return self.template.prompts(self.space, cells, self.identity, identify=self.config.identify)

    def verdicts_on(
        self, prompts: Sequence[Prompt], usage: Usage | None = None, *, on_progress: Progress | None = None
    ) -> list[Verdict]:
        """Return the verdicts on prompts of the template, before calibration, in their order.

        Parameters
        ----------
        prompts : sequence of Prompt
            Such as `PromptTemplate.named_prompts` gives. Each distinct one is asked at most once.
        usage, on_progress
            As in `advise_cells`.
        """
        counted, least = usage if usage is not None else Usage(), self.config.floor
        if self.config.reader != "json":
            self.template.check_answer(self.identity)

        def fetched() -> list[Verdict]:
            found = self._fetch(list(dict.fromkeys(prompts)), counted, on_progress)
            counted.distinct += len(found)
            counted.cache_hits += sum(verdict.cached for verdict in found)
            by_prompt = dict(zip(dict.fromkeys(prompts), found, strict=True))
            return [by_prompt[prompt].over(self.labels).held_to(least) for prompt in prompts]

        return self._answering(fetched)

    def questions(self, cells: Sequence[int]) -> list[Question]:
        """Return all that the verdicts on cells are functions of, in their order."""
        return [self._question(prompt) for prompt in self.prompts(cells)]

    def keys(self, cells: Sequence[int]) -> list[str]:
        """Return the keys of the verdicts on cells, in their order."""
        return [question.key for question in self.questions(cells)]

    def known(self) -> dict[int, Verdict]:
        """Return the raw verdicts that are known by now, by cell."""
        with self._lock:
            return dict(self._raw())

    def used(self) -> dict[str, Verdict]:
        """Return the raw verdicts that are known by now, by their keys: those that runs here depend on."""
        return {record.key: record.verdict for record in self.records()}

    def records(self) -> list[Record]:
        """Return the same with their questions, as a pack holds them."""
        with self._lock:
            raw = dict(sorted(self._raw().items()))
            questions = map(self._question, self.prompts(list(raw)))
            told = {"model": self.identity.name}
            return [Record(q, verdict, told) for q, verdict in zip(questions, raw.values(), strict=True)]

    def _question(self, prompt: Prompt) -> Question:
        identity, template = self.identity, self.template
        json_reader = self.config.reader == "json"
        sampling: dict[str, Any] = json_sampling(self.labels.words) if json_reader else {}
        if self.config.reader == "contrast":
            sampling = contrast_sampling(self._named())
        return Question(
            model_sha256=identity.sha256,
            chat_template_sha256=identity.chat_template_sha256,
            prompt=prompt.chunks,
            labels=self.labels.words if json_reader else template.continuations,
            reader=self.config.reader,
            sampling=sampling,
            numerics=self.numerics,
        )

    def _named(self) -> Prompt:
        """Return the prompt that names market and time, and no state."""
        if self._contrast is None or self._contrast[0] != self.identity:
            line = [self.config.identify]
            (prompt,) = self.template.named_prompts(self.space, [None], self.identity, line)
            self._contrast = self.identity, prompt
        return self._contrast[1]

    def _readings(
        self, backend: Backend, prompts: Sequence[Prompt]
    ) -> Iterator[Sequence[tuple[Verdict, Mapping[str, Any]] | None]]:
        if self.config.reader == "json":
            return read_json(backend, prompts, self.labels)
        words, numerics = self.template.continuations, self.config.numerics
        if self.config.reader == "contrast":
            return read_contrast(backend, prompts, self._named(), words, self.labels, numerics)
        return read_logprobs(backend, prompts, words, self.labels, numerics)


def _marked(verdict: Verdict, model: str, *, cached: bool) -> Verdict:
    """Return the verdict as one of a model, cached or not; the same one where it is so already."""
    if verdict.cached is cached and verdict.model == model:
        return verdict
    return dataclasses.replace(verdict, model=model, cached=cached)
