"""What workers answer from: the pack of a search's verdicts, and who gave them; no file and no model."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bt_llm
from bt_llm.advice import Advisor, AdvisorConfig, Supplied
from bt_llm.cache import CacheMode, Pack, Record, VerdictCache, parse_pack
from bt_llm.exceptions import ClusterError
from bt_llm.gates import Gate
from bt_llm.models import ModelIdentity
from bt_llm.prompts import PromptTemplate

__all__ = ["Supplies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplies:
    """All that a search's jobs need besides themselves, small enough to send along.

    Parameters
    ----------
    version : str
        Of bt_llm.
    pack : bytes
        The verdicts, as a compressed pack; see `bt_llm.cache`.
    advisors : tuple
        Of each configuration that was asked: itself, without a calibration; who answers; the prompt's words;
        what computed the answers beside a processor.
    """

    version: str
    pack: bytes
    advisors: tuple[tuple[AdvisorConfig, ModelIdentity, PromptTemplate, str], ...]

    @classmethod
    def of(cls, configs: Iterable[AdvisorConfig]) -> Supplies:
        """Return what the advisors of this process have been asked.

        Parameters
        ----------
        configs : iterable of AdvisorConfig
            Those that were asked.
        """
        records: dict[str, Record] = {}
        advisors = []
        for config in configs:
            advisor = Advisor(config)
            records |= {record.key: record for record in advisor.records()}
            advisors.append((_asked(config), advisor.identity, advisor.template, advisor.device))
        pack = Pack(records=tuple(records.values()))
        return cls(
            version=bt_llm.__version__, pack=zlib.compress(pack.text.encode()), advisors=tuple(advisors)
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
        if not isinstance(gate, Gate):
            return dict(params)
        for asked, identity, template, device in self.advisors:
            if asked == _asked(gate.advisor):
                supplied = Supplied(
                    identity=identity, template=template, cache=_unpacked(self.pack), device=device
                )
                advisor = dataclasses.replace(gate.advisor, supplied=supplied)
                return {**params, "gate": dataclasses.replace(gate, advisor=advisor)}
        return dict(params)


def _asked(config: AdvisorConfig) -> AdvisorConfig:
    return dataclasses.replace(config, calibration="none", cache_mode=CacheMode.REPLAY, manager=None)


@functools.lru_cache(maxsize=4)
def _unpacked(pack: bytes) -> VerdictCache:
    return _PackCache(parse_pack(zlib.decompress(pack), "the pack that was sent"))


class _PackCache(VerdictCache):
    """The verdicts of a pack, in memory: a worker may have no folder to write to."""

    def __init__(self, pack: Pack) -> None:
        super().__init__(mode=CacheMode.REPLAY)
        self._records = {record.key: record for record in pack.records}

    @property
    def directory(self) -> Path:
        """What messages name in the place of a folder."""
        return Path("the pack that was sent")

    def get_many(self, keys: Collection[str]) -> dict[str, Record]:
        """Return the records, by key, in the order of `keys`; those not in the pack are left out."""
        return {key: self._records[key] for key in keys if key in self._records}

    def records(self, keys: Collection[str] | None = None) -> Iterator[Record]:
        """Yield the records, sorted by key: those of `keys`, or all."""
        wanted = self._records if keys is None else self.get_many(sorted(set(keys)))
        return iter(list(wanted.values()))
