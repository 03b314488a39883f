"""Packs: verdicts in one text file that can be committed, mailed, merged and replayed elsewhere.

A pack is a function of the verdicts in it and of nothing else: lines and names are sorted, JSON is canonical,
and what differs between two recordings of one verdict (when, how fast, and by which server) stays behind in
the cache. So a pack exported twice has the same bytes, packs merge in any order to the same bytes, and a diff
shows what changed. See `bt_llm.cache` for the file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal

from bt_llm.cache._cache import VerdictCache
from bt_llm.cache._pack_files import Pack, read_pack, write_pack
from bt_llm.cache._records import Record
from bt_llm.exceptions import ConfigError, PackError
from bt_llm.plain_json import canonical_json, read_back
from bt_llm.verdicts import Verdict

__all__ = ["ImportReport", "OnConflict", "export_pack", "import_pack", "merge_packs"]

OnConflict = Literal["refuse", "ours", "theirs"]
"""What to do with a key that has another verdict on each side."""

_CONFLICTS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What `import_pack` did.

    Parameters
    ----------
    verdicts : int
        Verdicts in the pack: the sum of the next four.
    added, unchanged, replaced, kept : int
        New ones; those stored already; of conflicting ones, those that the pack replaced (``theirs``)
        and those that stayed as they were (``ours``).
    models : int
        Identities in the pack.
    sha256 : str
        Hash of the pack.
    """

    verdicts: int
    added: int
    unchanged: int
    replaced: int
    kept: int
    models: int
    sha256: str


def export_pack(
    cache: VerdictCache, path: str | os.PathLike[str], keys: Collection[str] | None = None, **about: Any
) -> Pack:
    """Write verdicts of a cache to a pack.

    Parameters
    ----------
    cache : VerdictCache
        Where they are stored.
    path : path
        The file, replaced in one step when it is complete.
    keys : collection of str, optional
        Which verdicts; all of them by default.
    **about
        What to say of them in the first line, as JSON values: the template's name and version, the state
        space. Leave out what changes from run to run, such as the time: the pack would change with it.

    Returns
    -------
    Pack
        What was written.

    Raises
    ------
    PackError
        If a key is not stored, or the file cannot be written.
    """
    records = list(cache.records(keys))
    if keys is not None and (missing := set(keys) - {record.key for record in records}):
        raise PackError(
            f"{len(missing)} of {len(set(keys))} verdicts to export are not in {cache.directory},"
            f" such as {min(missing)[:12]}: record them first"
        )
    asked = {record.question.model_sha256 for record in records}
    models = tuple(document for document in cache.model_documents() if document["sha256"] in asked)
    pack = Pack(records=tuple(records), models=models, about=(_plain_about(about),) if about else ())
    write_pack(pack, Path(path))
    return pack


def import_pack(
    cache: VerdictCache, path: str | os.PathLike[str], on_conflict: OnConflict = "refuse"
) -> ImportReport:
    """Store the verdicts and models of a pack in a cache, whatever the cache's mode.

    Parameters
    ----------
    cache : VerdictCache
        Where to store them.
    path : path
        The pack.
    on_conflict : {'refuse', 'ours', 'theirs'}
        For a key that is stored with another verdict: import nothing, keep what is stored, or take
        the pack's.

    Raises
    ------
    PackError
        If the pack fails its checks, or conflicts and `on_conflict` is ``refuse``; nothing is imported then.
    CacheError
        If the cache cannot be read or written.
    """
    _check_choice(on_conflict)
    source = Path(path)
    pack = read_pack(source)
    stored = cache.get_many([record.key for record in pack.records])
    added = [record for record in pack.records if record.key not in stored]
    differ = [r for r in pack.records if r.key in stored and not _same(r, stored[r.key])]
    known = {document["sha256"]: document for document in cache.model_documents()}
    merges = {document["sha256"]: partial(_merged_models, document, on_conflict) for document in pack.models}
    for sha256, merge in merges.items():
        merge(known.get(sha256, {}))  # a conflict is found before anything is written
    if on_conflict == "refuse" and differ:
        raise _conflict(f"{cache.directory} and {source}", [record.key for record in differ])
    for sha256, merge in merges.items():
        cache.change_model(sha256, merge)
    theirs = on_conflict == "theirs"
    cache.put_many([*added, *(differ if theirs else [])], overwrite=theirs)
    return ImportReport(
        verdicts=len(pack.records),
        added=len(added),
        unchanged=len(pack.records) - len(added) - len(differ),
        replaced=len(differ) if theirs else 0,
        kept=0 if theirs else len(differ),
        models=len(merges),
        sha256=pack.sha256,
    )


def merge_packs(
    paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], on_conflict: OnConflict = "refuse"
) -> Pack:
    """Write one pack with the verdicts of several; their order does not change a byte of it.

    Parameters
    ----------
    paths : sequence of path
        The packs, at least one.
    out : path
        The file to write; it may be one of them.
    on_conflict : {'refuse', 'ours', 'theirs'}
        For a key that has another verdict in two packs: write nothing, or let the earlier pack in `paths`
        (ours) or the later one (theirs) win. Only then does their order matter.

    Raises
    ------
    PackError
        If a pack fails its checks, they conflict and `on_conflict` is ``refuse``, or `out` cannot be written.
    """
    _check_choice(on_conflict)
    if not paths:
        raise PackError("no packs to merge: name at least one")
    packs = [read_pack(path) for path in paths]
    merged = reduce(lambda one, other: _merged(one, other, on_conflict), packs)
    write_pack(merged, Path(out))
    return merged


def _merged(ours: Pack, theirs: Pack, on_conflict: OnConflict) -> Pack:
    records = {record.key: record for record in ours.records}
    if on_conflict == "refuse":
        differ = [r.key for r in theirs.records if r.key in records and not _same(r, records[r.key])]
        if differ:
            raise _conflict("the packs to merge", differ)
    for record in theirs.records:
        mine = records.get(record.key)
        records[record.key] = record if mine is None else _merged_records(mine, record, on_conflict)
    models = {document["sha256"]: document for document in ours.models}
    for document in theirs.models:
        known = models.get(document["sha256"], {})
        models[document["sha256"]] = _merged_models(document, on_conflict, known)
    about = (*ours.about, *theirs.about)
    return Pack(records=tuple(records.values()), models=tuple(models.values()), about=about)


def _merged_records(ours: Record, theirs: Record, on_conflict: OnConflict) -> Record:
    """Return the one to keep; of two records of one answer the smaller, whichever pack it is in."""
    if _same(ours, theirs):
        return min(ours, theirs, key=lambda r: (canonical_json(r.provenance), r.body))
    return theirs if on_conflict == "theirs" else ours


def _merged_models(
    theirs: Mapping[str, Any], on_conflict: OnConflict, ours: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return one identity with the names of both; its chat template is the same in both, or in conflict."""
    if not ours:
        return theirs
    texts = ("chat_template", "bos_token", "eos_token")
    same = all(ours[text] == theirs[text] for text in texts)
    if not same and on_conflict == "refuse":
        raise PackError(
            f"model {ours['sha256'][:12]} ({ours['names'][0]}) has another chat template on each side:"
            " say which wins, ours or theirs"
        )
    if same:
        kept = min(ours, theirs, key=lambda document: canonical_json(document["details"]))
    else:
        kept = theirs if on_conflict == "theirs" else ours
    return {**kept, "names": sorted({*ours["names"], *theirs["names"]})}


def _same(one: Record, other: Record) -> bool:
    if isinstance(one.answer, Verdict) and isinstance(other.answer, Verdict):
        return one.answer.same_answer(other.answer)
    return one.answer == other.answer


def _conflict(what: str, keys: Sequence[str]) -> PackError:
    shown = ", ".join(key[:12] for key in sorted(keys)[:_CONFLICTS_SHOWN])
    more = ", ..." if len(keys) > _CONFLICTS_SHOWN else ""
    return PackError(
        f"{what} have different verdicts for {len(keys)} keys ({shown}{more}): nothing is written;"
        " say which wins, ours or theirs"
    )


def _check_choice(on_conflict: str) -> None:
    if on_conflict not in ("refuse", "ours", "theirs"):
        raise ConfigError(f"on_conflict={on_conflict!r}: expected refuse, ours or theirs")


def _plain_about(about: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(read_back(dict(about)))
    except (TypeError, ValueError) as error:
        raise PackError(f"about={about!r}: expected JSON values ({error})") from error
