"""MemoryCache: records that somebody brought, for asking nobody and reading no folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from bt_llm.cache._cache import VerdictCache
from bt_llm.cache._modes import CacheMode
from bt_llm.cache._records import Record

__all__ = ["MemoryCache"]


class MemoryCache(VerdictCache):
    """Verdicts in memory, in replay: a worker, or a result, may have no folder.

    Parameters
    ----------
    records : iterable of Record
        All that is known.
    place : str
        What messages name in the place of a folder.

    Examples
    --------
    >>> MemoryCache([], "the pack that was sent").keys()
    []
    """

    def __init__(self, records: Iterable[Record], place: str) -> None:
        super().__init__(mode=CacheMode.REPLAY)
        self._place = Path(place)
        self._records = {record.key: record for record in records}

    @property
    def directory(self) -> Path:
        """What messages name in the place of a folder."""
        return self._place

    def keys(self) -> list[str]:
        """Return the sorted keys."""
        return sorted(self._records)

    def get_many(self, keys: Collection[str]) -> dict[str, Record]:
        """Return the records, by key, in the order of `keys`; those not here are left out."""
        return {key: self._records[key] for key in keys if key in self._records}

    def records(self, keys: Collection[str] | None = None) -> Iterator[Record]:
        """Yield the records, sorted by key: those of `keys`, or all."""
        wanted = self._records if keys is None else self.get_many(sorted(set(keys)))
        return iter(list(wanted.values()))
