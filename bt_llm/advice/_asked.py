"""Asked: what a run had from a model, for whoever writes it down or draws it; nothing is asked again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bt_llm.advice._advisor import Advisor
from bt_llm.advice._advisor_config import AdvisorConfig
from bt_llm.advice._asker_config import Supplied
from bt_llm.advice._policy import Policy
from bt_llm.advice.analysts._base import Analyst, AnalystConfig
from bt_llm.cache import MemoryCache, Record, StoredAnswer
from bt_llm.exceptions import ConfigError
from bt_llm.models import ModelIdentity
from bt_llm.prompts import PromptTemplate
from bt_llm.shown import Told
from bt_llm.verdicts import Verdict

__all__ = ["Asked", "asked_of"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Asked(Told):
    """Who answered a run, in which words, and what; picklable.

    Parameters
    ----------
    config : AdvisorConfig or AnalystConfig
        How the model was asked.
    identity : ModelIdentity
        Who answered, a fallback if it came to that.
    template : PromptTemplate
        The words, as they were.
    template_source : str or PromptTemplate
        Name or path of the template, or itself.
    device : str
        What computed beside a processor; see `ModelKind.device`.
    carried : object
        What else answers are known by; see `Advisor.carried`.
    verdicts : mapping of int to Verdict
        Of an advisor: the raw verdicts by cell of the state space, those of the calibration included.
    texts : mapping of str to Record
        Of an analyst: what was asked and answered, by key.
    """

    config: AdvisorConfig | AnalystConfig
    identity: ModelIdentity
    template: PromptTemplate
    template_source: str | PromptTemplate
    device: str = ""
    carried: Any = None
    verdicts: Mapping[int, Verdict] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, Record] = dataclasses.field(default_factory=dict)

    def records(self) -> list[Record]:
        """Return the questions with their answers, as a pack holds them."""
        if not isinstance(self.config, AdvisorConfig):
            return list(self.texts.values())
        cells = sorted(self.verdicts)
        questions = self._advisor(()).questions(cells)
        told = {"model": self.identity.name}
        return [Record(q, self.verdicts[cell], told) for q, cell in zip(questions, cells, strict=True)]

    def used(self) -> dict[str, StoredAnswer]:
        """Return the answers by their keys: what the run depends on."""
        return {record.key: record.answer for record in self.records()}

    def policy(self) -> Policy:
        """Return the verdicts on every cell that is known; no model is asked.

        Raises
        ------
        ConfigError
            If an analyst was asked, or a file of decisions: neither has a state space.
        """
        if not isinstance(self.config, AdvisorConfig) or self.config.by_bar:
            raise ConfigError(f"{type(self.config).__name__} of {self.identity.name}: it has no policy")
        return Policy.of(self._advisor(self.records()), list(self.verdicts))

    def _advisor(self, records: Any) -> Advisor:
        cache = MemoryCache(records, "the result")
        supplied = Supplied(
            identity=self.identity,
            template=self.template,
            cache=cache,
            device=self.device,
            carried=self.carried,
        )
        assert isinstance(self.config, AdvisorConfig)
        return Advisor.of(dataclasses.replace(self.config, manager=None, supplied=supplied))


def asked_of(asker: Advisor | Analyst[Any, Any]) -> Asked:
    """Return what an asker has been told so far."""
    config = asker.config
    common: dict[str, Any] = {
        "config": dataclasses.replace(config, manager=None, supplied=None),
        "identity": asker.identity,
        "template": asker.template,
        "template_source": asker.template_source,
        "device": asker.device,
    }
    if isinstance(asker, Advisor):
        return Asked(**common, carried=asker.carried, verdicts=asker.known())
    return Asked(**common, texts={record.key: record for record in asker.records()})
