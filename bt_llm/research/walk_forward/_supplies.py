"""What workers answer from: the pack of a search's answers, and who gave them; no file and no model."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import bt_llm
from bt_llm.advice import Advisor, Supplied
from bt_llm.cache import CacheMode, MemoryCache, Pack, Record, VerdictCache, parse_pack
from bt_llm.exceptions import ClusterError
from bt_llm.gates import Asker, AskingGate, Gate
from bt_llm.models import ModelIdentity
from bt_llm.prompts import PromptTemplate

__all__ = ["Supplies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Who answered gates.

    Parameters
    ----------
    source : hashable
        `AskingGate.source` of the gates, in replay and without a calibration.
    identity : ModelIdentity
        Who answered.
    template : PromptTemplate
        The words that were asked in.
    device : str
        What computed the answers beside a processor.
    carried : object
        What else an asker needs that answers by the bar.
    """

    source: Hashable
    identity: ModelIdentity
    template: PromptTemplate
    device: str
    carried: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplies:
    """All that a search's jobs need besides themselves, small enough to send along.

    Parameters
    ----------
    version : str
        Of bt_llm.
    pack : bytes
        The answers, verdicts and generated texts, as a compressed pack; see `bt_llm.cache`.
    answered : tuple of Answered
        Who gave them, to which gates, and in which words they were asked.
    """

    version: str
    pack: bytes
    answered: tuple[Answered, ...]

    @classmethod
    def of(cls, askers: Iterable[tuple[AskingGate, Asker]]) -> Supplies:
        """Return what gates have been answered in this process, each beside who answered it."""
        records: dict[str, Record] = {}
        answered = []
        for gate, asker in askers:
            records |= {record.key: record for record in asker.records()}
            found = Answered(
                source=_source(gate),
                identity=asker.identity,
                template=asker.template,
                device=asker.device,
                carried=asker.carried if isinstance(asker, Advisor) else None,
            )
            answered.append(found)
        pack = Pack(records=tuple(records.values()))
        return cls(
            version=bt_llm.__version__, pack=zlib.compress(pack.text.encode()), answered=tuple(answered)
        )

    def settled(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a strategy's parameters with a gate that is answered from here.

        Raises
        ------
        ClusterError
            If this process runs another version of bt_llm.
        PackError
            If the pack is not as it was sent.
        """
        if self.version != bt_llm.__version__:
            raise ClusterError(
                f"a worker has bt_llm {bt_llm.__version__}, the search {self.version}: install the same "
                f"version on both"
            )
        gate = params.get("gate")
        if not isinstance(gate, AskingGate):
            return dict(params)
        for one in self.answered:
            if one.source == _source(gate):
                supplied = Supplied(
                    identity=one.identity,
                    template=one.template,
                    cache=_unpacked(self.pack),
                    device=one.device,
                    carried=one.carried,
                )
                answered = gate.with_config(dataclasses.replace(gate.config, supplied=supplied))
                return {**params, "gate": answered}
        return dict(params)


def _source(gate: AskingGate) -> Hashable:
    """Return what a gate's raw answers depend on, but for where they are kept."""
    raw: dict[str, Any] = {"calibration": "none"} if isinstance(gate, Gate) else {}
    told = dataclasses.replace(gate.config, cache_mode=CacheMode.REPLAY, manager=None, **raw)
    return gate.with_config(told).source


@functools.lru_cache(maxsize=4)
def _unpacked(pack: bytes) -> VerdictCache:
    place = "the pack that was sent"
    return MemoryCache(parse_pack(zlib.decompress(pack), place).records, place)
