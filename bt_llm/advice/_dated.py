"""DatedAdvisor: a family of models, each asked about the bars that began after its knowledge had ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bt_llm.advice._advisor import Advisor, Spans
from bt_llm.advice._advisor_config import AdvisorConfig
from bt_llm.advice._asker import Usage
from bt_llm.cache import CacheMode, Question, Record, VerdictCache
from bt_llm.exceptions import ConfigError, ModelError, ModelNotFoundError
from bt_llm.models import (
    DatedFamily,
    DatedModel,
    Member,
    ModelIdentity,
    ModelManager,
    Progress,
    Prompt,
    kind_of,
)
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import Verdict, prior_cells

__all__ = ["DatedAdvisor", "member_configs"]


class Carried(NamedTuple):
    """What a worker needs of a family besides its answers."""

    family: DatedFamily
    members: tuple[tuple[ModelIdentity | None, str], ...]
    """Who each of them is, if that was known, and what computed its answers beside a processor."""


def member_configs(config: AdvisorConfig) -> list[AdvisorConfig]:
    """Return how each member of a family is asked, by their days; of one model, the configuration itself.

    Examples
    --------
    >>> dated = AdvisorConfig(model="dated:2020-12-31=scripted:trend,2021-12-31=scripted:contrarian")
    >>> [str(one.model) for one in member_configs(dated)]
    ['scripted:trend', 'scripted:contrarian']
    """
    model = kind_of(str(config.model))
    if not isinstance(model, DatedModel):
        return [config]
    return [dataclasses.replace(config, model=member.model) for member in model.family.members]


class DatedAdvisor(Advisor):
    """Gives verdicts on bars: on a bar's state, by the newest member whose knowledge ended before it opened.

    A *place* stands for a member and a cell of the state space, ``member * cells + cell``. What is asked and
    stored is the member's own question under its own key: a run of one member alone shares its answers.

    Parameters
    ----------
    config : AdvisorConfig
        Whose model is ``dated:FAMILY``.
    cache, template
        As of `Advisor`.

    Examples
    --------
    >>> family = "dated:2020-12-31=scripted:trend,2021-12-31=scripted:contrarian"
    >>> advisor = DatedAdvisor(AdvisorConfig(model=family, cache_mode="off"))
    >>> [v.action.name for v in advisor.advise_cells([0, 105])]
    ['BEARISH', 'BULLISH']
    """

    by_bar: ClassVar[bool] = True

    def __init__(
        self,
        config: AdvisorConfig,
        *,
        cache: VerdictCache | None = None,
        template: PromptTemplate | None = None,
    ) -> None:
        if config.manager is not None or config.fallbacks:
            raise ConfigError(
                f"model {str(config.model)!r:.80} with manager or fallbacks: a family says itself who answers"
            )
        super().__init__(config, cache=cache, template=template)
        model = kind_of(str(config.model))
        if not isinstance(model, DatedModel):
            raise ConfigError(f"model {model.name!r:.80}: expected {DatedModel.form}")
        self._model = model
        carried = config.supplied.carried if config.supplied else None
        self._carried: Carried | None = carried
        self.family = carried.family if carried else model.family
        self._members: dict[int, Advisor] = {}
        self._awake = -1

    def member(self, place: int) -> Advisor:
        """Return who asks a member, by its place in the family."""
        if place not in self._members:
            model = self.family.members[place].model
            supplied = self.config.supplied
            if supplied is not None and self._carried is not None:
                identity, device = self._carried.members[place]
                if identity is None:
                    raise ModelNotFoundError(f"model {model!r:.80} was not there when answers were asked for")
                supplied = dataclasses.replace(supplied, identity=identity, device=device, carried=None)
            config = dataclasses.replace(self.config, model=model, supplied=supplied)
            cache = self.cache if self._brought_cache and supplied is None else None
            self._members[place] = Advisor(config, cache=cache, template=self.template)
        return self._members[place]

    # Who answers

    @property
    def identity(self) -> ModelIdentity:
        """What stands for the family, in keys of trials; every answer has its member's own."""
        if self.config.supplied is not None:
            return self.config.supplied.identity
        replay = self.cache.mode is CacheMode.REPLAY
        found = [kind_of(one.model).identify(self.cache, replay=replay) for one in self.family.members]
        return self._model.identity_of(self.family, found)

    @property
    def parts(self) -> tuple[Advisor, ...]:  # type: ignore[override]
        """The members that have answered, by their days."""
        return tuple(one for _, one in sorted(self._members.items()) if one.answered_by)

    @property
    def answered_by(self) -> str:
        """Names of the members that have answered."""
        return ", ".join(part.answered_by for part in self.parts)

    @property
    def manager(self) -> ModelManager | None:
        """None: each member has its own."""
        return None

    @property
    def managers(self) -> tuple[ModelManager, ...]:
        """Whose models are asked."""
        return tuple(found for place in range(len(self.family)) for found in self.member(place).managers)

    @property
    def dated(self) -> list[tuple[Member, Advisor]]:
        """The members, by their days, and who asks them."""
        return [(member, self.member(place)) for place, member in enumerate(self.family.members)]

    @property
    def everyone(self) -> tuple[Advisor, ...]:  # type: ignore[override]
        """The members that are here, or known from their answers."""
        members = [self.member(place) for place in range(len(self.family))]
        return tuple(one for one in members if _identity(one) is not None)

    @property
    def device(self) -> str:
        """That of the members, which are loaded alike."""
        return self.member(len(self.family) - 1).device

    @property
    def carried(self) -> Carried:
        """The family, and who its members are."""
        members = [self.member(place) for place in range(len(self.family))]
        return Carried(self.family, tuple((_identity(one), one.device) for one in members))

    # By the bar

    def places(self, cells: NDArray[np.int64], spans: Spans, symbol: str) -> NDArray[np.int64]:
        """Return the member and the cell of each bar as one number; -1 before the first member's time."""
        members = np.array([self.family.member_at(moment) for moment in spans.opened], dtype=np.int64)
        return np.where((cells >= 0) & (members >= 0), members * len(self.space) + cells, -1)

    def with_prior(self, places: Iterable[int]) -> list[int]:
        """Return places with all those that the priors of their members are the means over."""
        found, size, prior = set(places), len(self.space), prior_cells(self.space)
        members = {place // size for place in found}
        return sorted(found | {member * size + cell for member in members for cell in prior})

    def split(self, places: Sequence[int]) -> list[tuple[Advisor, list[int]]]:
        """Return the members that answer places, by their days, and each one's cells."""
        size = len(self.space)
        members = sorted({place // size for place in places})
        return [(self.member(m), [place % size for place in places if place // size == m]) for m in members]

    def silence(self, bars: int) -> tuple[str, str]:
        """Return the problem that bars opened before the first member's knowledge had ended."""
        first = self.family.members[0]
        problem = (
            f"{bars} bars have no verdict: they opened before the knowledge of the first member of "
            f"{self.config.model} had ended, {first.knowledge_ends} in UTC; give bars after that day "
            f"(--after {first.knowledge_ends})"
        )
        return (problem, "") if bars else ("", "")

    # Asking

    def advise_cells(
        self, cells: Sequence[int], usage: Usage | None = None, *, on_progress: Progress | None = None
    ) -> list[Verdict]:
        """Return the calibrated verdict at each place, each member calibrated by its own prior."""
        return self._each(cells, lambda one, own: one.advise_cells(own, usage, on_progress=on_progress))

    def raw_cells(
        self, cells: Sequence[int], usage: Usage | None = None, *, on_progress: Progress | None = None
    ) -> list[Verdict]:
        """Return the verdict at each place as its member gave it."""
        return self._each(cells, lambda one, own: one.raw_cells(own, usage, on_progress=on_progress))

    def _each(self, places: Sequence[int], ask: Any) -> list[Verdict]:
        size, found = len(self.space), dict[int, Verdict]()
        distinct = list(dict.fromkeys(places))
        for member in sorted({place // size for place in distinct}):
            own = [place % size for place in distinct if place // size == member]
            if self._awake not in (-1, member):  # one model in memory at a time
                self.member(self._awake).close()
            self._awake = member
            verdicts = ask(self.member(member), own)
            found |= {member * size + cell: said for cell, said in zip(own, verdicts, strict=True)}
        return [found[place] for place in places]

    def prompts(self, cells: Sequence[int]) -> list[Prompt]:
        """Return what is asked at each place."""
        return [self._at(place).prompts([place % len(self.space)])[0] for place in cells]

    def questions(self, cells: Sequence[int]) -> list[Question]:
        """Return all that the verdicts at places are functions of."""
        return [self._at(place).questions([place % len(self.space)])[0] for place in cells]

    def _at(self, place: int) -> Advisor:
        return self.member(place // len(self.space))

    def known(self) -> dict[int, Verdict]:
        """Return the raw verdicts that the members which answered are known to have given, by place."""
        size, parts = len(self.space), self.parts
        members = [(number, one) for number, one in self._members.items() if one in parts]
        return {m * size + cell: said for m, one in sorted(members) for cell, said in one.known().items()}

    def records(self) -> list[Record]:
        """Return the same with their questions, as a pack holds them."""
        return [record for part in self.parts for record in part.records()]

    def close(self) -> None:
        """Free the members' models."""
        for place in range(len(self.family)):
            self.member(place).close()


def _identity(member: Advisor) -> ModelIdentity | None:
    """Return who a member is; None if it is not here, and the cache does not know it."""
    try:
        return member.identity
    except ModelError:
        return None
