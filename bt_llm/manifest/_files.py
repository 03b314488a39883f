"""How a manifest names files, so that it can be read on another machine, and how they are found again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from bt_llm.data import shipped
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.files import read_text
from bt_llm.sources import SourceFiles

__all__ = ["find_file", "neighbours_sha256", "stored_path", "text_sha256"]


def stored_path(path: Path, folder: Path) -> str:
    """Return the name of a file that comes with bt_llm, or else its path from the manifest's folder."""
    full = path.absolute()
    if (own := _shipped(full.name)) is not None and own.resolve() == full.resolve():
        return full.name
    try:
        return Path(os.path.relpath(full, folder.absolute())).as_posix()
    except ValueError:  # another drive of Windows
        return full.as_posix()


def find_file(
    stored: str | None, folder: Path, *, what: str, option: str, further: Sequence[Path] = ()
) -> Path:
    """Return the file that `stored_path` named: from the manifest's folder, or one that comes with bt_llm.

    Parameters
    ----------
    stored : str or None
        The path, from the manifest's folder; untrusted.
    folder : Path
        The manifest's folder.
    what, option : str
        What it is, and how another one is given, for messages.
    further : sequence of Path
        Folders beside the manifest's in which files may be read. None that leads out of all of them is.

    Raises
    ------
    ConfigError
        If it is not there, or there is none to look for, or it is outside; the message names the option that
        gives it.
    """
    if stored is None:
        raise ConfigError(f"the manifest names no file of the {what}: give it with {option}")
    beside = folder / stored
    if os.path.isfile(beside):  # which no path makes fail
        found = beside.resolve()
        if not any(found.is_relative_to(one.resolve()) for one in (folder, *further)):
            raise ConfigError(
                f"the {what} {stored!r:.80} of the manifest is outside of {folder.absolute()}: read it, then "
                f"allow its folder with --folder, or give the file with {option}"
            )
        return beside
    own = _shipped(stored) if stored == Path(stored).name else None
    if own is None:
        raise ConfigError(
            f"the {what} {stored!r:.80} of the manifest is not in {folder}: give it with {option}"
        )
    return own


def text_sha256(path: Path) -> str:
    """Return the SHA-256 of a text file, line ends normalised; the file is not run.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        return hashlib.sha256(read_text(path, 64).encode()).hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error


def neighbours_sha256(strategy: Path) -> dict[str, str]:
    """Return the hashes of the modules that a strategy's file imports from its folder, by their paths in it.

    Raises
    ------
    ConfigError
        If one cannot be read.
    """
    try:
        found = SourceFiles.read(strategy).texts
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(f"{strategy}: cannot be read ({error})") from error
    near = sorted(relative for relative in found if relative != strategy.name)
    return {relative: text_sha256(strategy.parent / relative) for relative in near}


def _shipped(name: str) -> Path | None:
    try:
        return shipped(name)
    except DataError:
        return None
