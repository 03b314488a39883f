"""Pack files: verdicts as one text file, written whole and read with every check, since it is untrusted.

The file is JSON Lines, in ASCII::

    {"about":[...],"counts":{...},"format":1,"kind":"bt_llm pack","models":[...],"sha256":"..."}
    {"id":"16 hex digits","value":...}          one a part, sorted by id
    {"key":"64 hex digits","prompt":[id,...],"provenance":id,"settings":id,"verdict":{...}}   sorted by key

An answer that is a generated text stands under ``text`` in the place of ``verdict``, and counts as one.
A file whose name ends in ``.gz`` is written compressed, a quarter of the size; any may be read so.

A *part* is what verdicts share (a chunk of prompt, the other ingredients of the question, a provenance),
under the start of its own SHA-256. The first line's ``sha256`` is that of the whole file without ``sha256``.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bt_llm import files
from bt_llm.cache._models import checked_model, model_from_document
from bt_llm.cache._records import Record
from bt_llm.exceptions import CacheCorruptError, PackError
from bt_llm.files import most_bytes, read_bytes
from bt_llm.models import ModelIdentity
from bt_llm.plain_json import canonical_json, strict_json
from bt_llm.writing import refuse_others, write_whole

__all__ = ["Pack", "parse_pack", "read_pack", "write_pack"]

FORMAT = 1
KIND = "bt_llm pack"

VOLATILE = ("milliseconds", "server", "written")
"""Parts of a provenance that differ between two recordings of one verdict; packs leave them out."""

MAX_MB = 256
"""Largest pack, in MB; see `bt_llm.files`."""

MAX_PROMPT = 2**20
"""Longest prompt, in characters: a pack of 1 MB could spell out a far longer one by naming a chunk again."""

_UNPACKED_MB, _UNPACKED_TIMES = 64, 100
"""Characters of all prompts together: so many MB, and so many times the pack's bytes; usual are ten times."""

_GZIP, _GZIP_WINDOW = b"\x1f\x8b", 31

_PROMPT = "prompt"


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
    room = most_bytes(_UNPACKED_MB) + _UNPACKED_TIMES * len(content)
    for number, line in enumerate(lines[1:], 2):
        with _at(source, number):
            read = _object(line)
            if "id" in read:
                _take_part(read, parts)
            else:
                records.append(_unpacked(read, parts))
                room -= sum(map(len, records[-1].question.prompt))
                if room < 0:
                    raise PackError(
                        "its prompts unpack to over a hundred times its size: refused; if you trust it, set "
                        f"{files.MAX_MB} to the MB that they may take"
                    )
    with _at(source, 1):
        models = tuple(checked_model(str(one.get("sha256")), one) for one in manifest["models"])
        pack = Pack(records=tuple(records), models=models, about=tuple(manifest["about"]))
    _check_bytes(source, lines, pack)
    return pack


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
        content = read_bytes(path, MAX_MB)
    except OSError as error:
        raise PackError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _expanded(content, path) if content.startswith(_GZIP) else content


def _expanded(content: bytes, path: Path) -> bytes:
    """Return what a compressed file holds; never more than a pack may be long."""
    most, opened = most_bytes(MAX_MB), zlib.decompressobj(wbits=_GZIP_WINDOW)
    try:
        found = opened.decompress(content, most + 1)
    except zlib.error as error:
        raise PackError(f"{path}: its compression is damaged ({error}): get the file again") from error
    if len(found) > most:
        raise PackError(f"{path}: over {most:,} bytes unpacked: expected a pack of at most so many")
    if not opened.eof or opened.unused_data:
        raise PackError(f"{path}: it is cut off, or something follows its end: get the file again")
    return found


def _lines(content: bytes, source: str) -> list[bytes]:
    """Return the lines of a pack, without their ends."""
    if not content or len(content) > most_bytes(MAX_MB):
        raise PackError(f"{source}: {len(content):,} bytes: expected a pack of 1 to {most_bytes(MAX_MB):,}")
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


def write_pack(pack: Pack, path: Path) -> None:
    """Write the file beside its place and move it there when it is complete and on disk."""
    content = pack.text.encode("ascii")
    try:
        refuse_others(path)
        write_whole(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    except OSError as error:
        raise PackError(
            f"{path}: cannot be written ({error.strerror or error}); name another file"
        ) from error
