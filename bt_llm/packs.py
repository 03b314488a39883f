"""Packs: verdicts in one text file that can be committed, mailed, merged and replayed elsewhere.

A pack is a function of the verdicts in it and of nothing else: lines and names are sorted, JSON is canonical,
and what differs between two recordings of one verdict (when, how fast, and by which server) stays behind in
the cache. So a pack exported twice has the same bytes, packs merge in any order to the same bytes, and a diff
shows what changed.

The file is JSON Lines, in ASCII::

    {"about":[...],"counts":{...},"format":1,"kind":"bt_llm pack","models":[...],"sha256":"..."}
    {"id":"16 hex digits","value":...}          one a part, sorted by id
    {"key":"64 hex digits","prompt":[id,...],"provenance":id,"settings":id,"verdict":{...}}   sorted by key

An answer that is a generated text stands under ``text`` in the place of ``verdict``, and counts as one.

A *part* is what verdicts share (a chunk of prompt, the other ingredients of the question, a provenance),
under the start of its own SHA-256. The first line's ``sha256`` is that of the whole file without ``sha256``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from bt_llm.backends.base import ModelIdentity, canonical_json
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import CacheCorruptError, ConfigError, PackError
from bt_llm.records import Record, checked_model, model_from_document
from bt_llm.store import strict_json

__all__ = [
    "ImportReport",
    "OnConflict",
    "Pack",
    "export_pack",
    "import_pack",
    "merge_packs",
    "parse_pack",
    "read_pack",
]

OnConflict = Literal["refuse", "ours", "theirs"]
"""What to do with a key that has another verdict on each side."""

FORMAT = 1
KIND = "bt_llm pack"
VOLATILE = ("milliseconds", "server", "written")
"""Parts of a provenance that differ between two recordings of one verdict; packs leave them out."""

MAX_BYTES = 256 * 2**20
"""Largest pack, in bytes."""

MAX_PROMPT = 2**20
"""Longest prompt, in characters: a pack of 1 MB could spell out a far longer one by naming a chunk again."""

_PROMPT = "prompt"
_CONFLICTS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Contents of a pack: sorted, and without what differs between two recordings of one verdict.

    Parameters
    ----------
    records : tuple of Record
        The verdicts, each key once.
    models : tuple of mapping
        Identities of their models, as the cache stores them.
    about : tuple of mapping
        What the exporter said of each pack that this one was merged from: template, state space, run.

    Raises
    ------
    PackError
        If a key or a model is there twice.
    """

    records: tuple[Record, ...]
    models: tuple[Mapping[str, Any], ...] = ()
    about: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Sort everything, so that equal contents are equal bytes."""
        records = {record.key: _without_volatile(record) for record in self.records}
        models = {str(document["sha256"]): document for document in self.models}
        about = {canonical_json(one): one for one in self.about}
        if len(records) < len(self.records) or len(models) < len(self.models):
            raise PackError("it has a verdict or a model twice")
        object.__setattr__(self, "records", tuple(records[key] for key in sorted(records)))
        object.__setattr__(self, "models", tuple(models[key] for key in sorted(models)))
        object.__setattr__(self, "about", tuple(about[text] for text in sorted(about)))

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """The models, by the first of their names."""
        return tuple(model_from_document(document) for document in self.models)

    @property
    def sha256(self) -> str:
        """Hash of the contents, as the file's first line has it."""
        return str(self._manifest(self._body())["sha256"])

    @property
    def text(self) -> str:
        """The file's text."""
        body = self._body()
        return f"{canonical_json(self._manifest(body))}\n{body}"

    def _body(self) -> str:
        parts: dict[str, Any] = {}
        lines = [canonical_json(_packed(record, parts)) for record in self.records]
        shared = [canonical_json({"id": name, "value": parts[name]}) for name in sorted(parts)]
        return "".join(f"{line}\n" for line in shared + lines)

    def _manifest(self, body: str) -> dict[str, Any]:
        manifest: dict[str, Any] = {
            "about": list(self.about),
            "counts": {"models": len(self.models), "verdicts": len(self.records)},
            "format": FORMAT,
            "kind": KIND,
            "models": list(self.models),
        }
        digest = hashlib.sha256(f"{canonical_json(manifest)}\n{body}".encode()).hexdigest()
        return {**manifest, "sha256": digest}


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
    _write(pack, Path(path))
    return pack


def read_pack(path: str | os.PathLike[str]) -> Pack:
    """Read a pack and check all of it; the file is untrusted.

    Raises
    ------
    PackError
        If the file is not exactly what `export_pack` or `merge_packs` would write for its contents; the
        message names the line.
    """
    source = Path(path)
    return parse_pack(_content(source), str(source))


def parse_pack(content: bytes, source: str) -> Pack:
    """Read the content of a pack and check all of it; it is untrusted.

    Parameters
    ----------
    content : bytes
        What `Pack.text` gave, in ASCII.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    PackError
        As `read_pack`.
    """
    lines = _lines(content, source)
    manifest = _manifest(source, lines[0])
    parts: dict[str, Any] = {}
    records: list[Record] = []
    for number, line in enumerate(lines[1:], 2):
        with _at(source, number):
            read = _object(line)
            if "id" in read:
                _take_part(read, parts)
            else:
                records.append(_unpacked(read, parts))
    with _at(source, 1):
        models = tuple(checked_model(str(one.get("sha256")), one) for one in manifest["models"])
        pack = Pack(records=tuple(records), models=models, about=tuple(manifest["about"]))
    _check_bytes(source, lines, pack)
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
    models = [
        _merged_models(known[document["sha256"]], document, on_conflict)
        if document["sha256"] in known
        else document
        for document in pack.models
    ]
    if on_conflict == "refuse" and differ:
        raise _conflict(f"{cache.directory} and {source}", [record.key for record in differ])
    for document in models:
        if document != known.get(document["sha256"]):
            cache.put_model_document(document)
    theirs = on_conflict == "theirs"
    cache.put_many([*added, *(differ if theirs else [])], overwrite=theirs)
    return ImportReport(
        verdicts=len(pack.records),
        added=len(added),
        unchanged=len(pack.records) - len(added) - len(differ),
        replaced=len(differ) if theirs else 0,
        kept=0 if theirs else len(differ),
        models=len(models),
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
    _write(merged, Path(out))
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
        known = models.get(document["sha256"])
        models[document["sha256"]] = (
            document if known is None else _merged_models(known, document, on_conflict)
        )
    about = (*ours.about, *theirs.about)
    return Pack(records=tuple(records.values()), models=tuple(models.values()), about=about)


def _merged_records(ours: Record, theirs: Record, on_conflict: OnConflict) -> Record:
    """Return the one to keep; of two provenances of one verdict the smaller, whichever pack it is in."""
    if _same(ours, theirs):
        return min(ours, theirs, key=lambda record: canonical_json(record.provenance))
    return theirs if on_conflict == "theirs" else ours


def _merged_models(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], on_conflict: OnConflict
) -> Mapping[str, Any]:
    """Return one identity with the names of both; its chat template is the same in both, or in conflict."""
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
    return canonical_json(one.answer.to_dict()) == canonical_json(other.answer.to_dict())


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
        return dict(strict_json(canonical_json(dict(about))))
    except (TypeError, ValueError, RecursionError) as error:
        raise PackError(f"about={about!r}: expected JSON values ({error})") from error


def _without_volatile(record: Record) -> Record:
    kept = {name: value for name, value in record.provenance.items() if name not in VOLATILE}
    return Record(record.question, record.answer, kept)


def _part_id(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def _packed(record: Record, parts: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a record, and put the parts it names into `parts`."""
    settings = record.question.document
    chunks = settings.pop(_PROMPT)

    def shared(value: Any) -> str:
        name = _part_id(value)
        if parts.setdefault(name, value) != value:
            raise PackError(f"two parts of the pack have the same id {name}: export them to two packs")
        return name

    return {
        "key": record.key,
        _PROMPT: [shared(chunk) for chunk in chunks],
        "provenance": shared(dict(record.provenance)),
        "settings": shared(settings),
        record.answer_name: record.answer.to_dict(),
    }


def _unpacked(line: Mapping[str, Any], parts: Mapping[str, Any]) -> Record:
    shared = {"key", _PROMPT, "provenance", "settings"}
    name = "text" if "text" in line else "verdict"
    if set(line) != {*shared, name}:
        raise PackError("expected a part (id, value) before all verdicts, or a verdict")
    names = line[_PROMPT]
    wanted = [*names, line["provenance"], line["settings"]] if isinstance(names, list) else [None]
    if not all(isinstance(name, str) and name in parts for name in wanted):
        raise PackError("it names a part that is not in the pack")
    chunks, settings = [parts[name] for name in names], parts[line["settings"]]
    if not isinstance(settings, dict) or not all(isinstance(chunk, str) for chunk in chunks):
        raise PackError("a part that it names is not of the right kind")
    if sum(map(len, chunks)) > MAX_PROMPT:
        raise PackError(f"a prompt of {sum(map(len, chunks))} characters: expected at most {MAX_PROMPT}")
    document = {**settings, _PROMPT: chunks}
    content = {"question": document, name: line[name], "provenance": parts[line["provenance"]]}
    return Record.from_content(str(line["key"]), content)


def _take_part(line: Mapping[str, Any], parts: dict[str, Any]) -> None:
    if set(line) != {"id", "value"} or line["id"] != _part_id(line["value"]):
        raise PackError("expected a part (id, value) whose id is the start of its SHA-256")
    parts[line["id"]] = line["value"]


def _manifest(source: str, line: bytes) -> Mapping[str, Any]:
    with _at(source, 1):
        manifest = _object(line)
        if manifest.get("kind") != KIND:
            raise PackError(f"expected the first line of a pack, with kind {KIND!r}")
        if manifest.get("format") != FORMAT:
            found = manifest.get("format")
            raise PackError(f"format {found!r}: this bt_llm reads {FORMAT}; use the one that wrote it")
        lists = [manifest.get("models"), manifest.get("about")]
        if not all(isinstance(one, list) and all(isinstance(item, dict) for item in one) for one in lists):
            raise PackError("expected lists of objects for models and about")
        return manifest


def _check_bytes(source: str, found: Sequence[bytes], pack: Pack) -> None:
    """Compare the file with what its contents are written as: order, counts, hash, every byte."""
    expected = pack.text.encode().split(b"\n")[:-1]
    pairs = enumerate(zip(found, expected, strict=False), 1)
    number = next((at for at, (a, b) in pairs if a != b), min(len(found), len(expected)) + 1)
    with _at(source, number):
        if number == 1:
            raise PackError(
                "its SHA-256 or counts do not fit the contents: the file was altered; get it again"
            )
        if number <= max(len(found), len(expected)):
            raise PackError("it is out of order, not needed or not canonical JSON: get the file again")


def _content(path: Path) -> bytes:
    """Return what is in a file, as far as a pack may go."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PackError(f"{path}: cannot be read ({error.strerror or error})") from error


def _lines(content: bytes, source: str) -> list[bytes]:
    """Return the lines of a pack, without their ends."""
    if not content or len(content) > MAX_BYTES:
        raise PackError(f"{source}: expected a pack of 1 to {MAX_BYTES} bytes")
    *lines, rest = content.split(b"\n")
    if rest:
        raise PackError(f"{source}, line {len(lines) + 1}: it has no end: the file was cut off; get it again")
    return lines


def _object(line: bytes) -> dict[str, Any]:
    if line.endswith(b"\r"):
        raise PackError("Windows line ends: get the file again (in git, mark *.jsonl as -text)")
    value = strict_json(line.decode("ascii"))
    if not isinstance(value, dict):
        raise PackError("expected a JSON object")
    return value


@contextlib.contextmanager
def _at(source: str, number: int) -> Iterator[None]:
    """Name the file and the line in any error of what is read."""
    try:
        yield
    except (PackError, CacheCorruptError, ValueError, RecursionError) as error:
        raise PackError(f"{source}, line {number}: {error}") from error


def _write(pack: Pack, path: Path) -> None:
    """Write the file beside its place and move it there when it is complete and on disk."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with unfinished.open("wb") as file:
                file.write(pack.text.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise PackError(
            f"{path}: cannot be written ({error.strerror or error}); name another file"
        ) from error
