"""Where files are to be written: looked at before the work, which may take hours, and not after it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import typer

from bt_llm.exceptions import ConfigError, MissingExtraError
from bt_llm.writing import refuse_others

__all__ = [
    "check_folder_of_results",
    "file_of_a_study_to_write",
    "file_to_write",
    "files_to_write",
    "folder_to_write",
    "picture_or_page_to_write",
    "picture_to_write",
    "tables_to_write",
]

_PICTURES = (".png", ".svg", ".pdf")
_PAGES = (".html", ".htm")
_TABLES = ("trades.csv", "verdicts.csv", "symbols.csv", "returns.csv", "specifications.csv")
_RESULTS = ("result.json", "folds.csv", "equity.csv", "trades.csv", "verdicts.csv")
"""What ``--csv`` and a walk-forward study write into their folders."""


def file_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, if a file can be written there.

    Parameters
    ----------
    param : typer.CallbackParam
        The option.
    value : Path or None
        What it gives.

    Raises
    ------
    ConfigError
        If it cannot be, or another file is there than bt_llm writes, such as bars: none is written over.
    """
    if value is not None:
        _check_file(f"{param.opts[0]} {value}", value)
    return value


def files_to_write(param: typer.CallbackParam, value: Sequence[Path] | None) -> Sequence[Path] | None:
    """Return what a repeated option gives, if a file can be written at each; see `file_to_write`."""
    for path in value or ():
        file_to_write(param, path)
    return value


def file_of_a_study_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, whose folder a study may make when it runs; see `file_to_write`."""
    if value is None or os.path.isdir(value.parent):
        return file_to_write(param, value)
    folder_to_write(param, value.parent)
    return value


def folder_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, if a folder is there or can be made there; see `file_to_write`."""
    if value is not None:
        option = f"{param.opts[0]} {value}"
        _check_name(option, value)
        there = next(one for one in (value, *value.absolute().parents) if one.exists())
        if not there.is_dir():
            raise ConfigError(f"{option}: {str(there)!r} is a file; expected a folder")
        _check_access(option, there)
    return value


def tables_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, if tables can be written into that folder; see `folder_to_write`."""
    if folder_to_write(param, value) is not None and value is not None:
        _check_content(f"{param.opts[0]} {value}", *(value / name for name in _TABLES))
    return value


def check_folder_of_results(folder: Path) -> None:
    """Check that a study's results can be written into a folder, before it runs.

    Raises
    ------
    ConfigError
        If a file is there, of the name of one of them, that bt_llm has not written.
    """
    _check_content(str(folder), *(folder / name for name in _RESULTS))


def picture_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, if a picture can be drawn and written there; see `file_to_write`."""
    return _drawn(param, value, _PICTURES)


def picture_or_page_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, if a picture or a page can be written there; see `file_to_write`."""
    return _drawn(param, value, (*_PICTURES, *_PAGES))


def _drawn(param: typer.CallbackParam, value: Path | None, suffixes: tuple[str, ...]) -> Path | None:
    if value is not None:
        suffix = value.suffix.lower()
        if suffix not in suffixes:
            expected = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
            raise ConfigError(f"{param.opts[0]} {value}: expected a name ending in {expected}")
        if suffix in _PICTURES and importlib.util.find_spec("matplotlib") is None:
            raise MissingExtraError(
                f"{param.opts[0]} {value}: pictures need matplotlib: pip install 'bt-llm[report]'"
            )
        _check_file(f"{param.opts[0]} {value}", value, any_content=suffix in _PICTURES)
    return value


def _check_name(option: str, value: Path) -> None:
    """Refuse what no file can be called, and what lies where nobody may look."""
    try:
        value.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{option}: nothing can be written there ({why}); name another place") from None


def _check_file(option: str, value: Path, *, any_content: bool = False) -> None:
    _check_name(option, value)
    if value.is_dir():
        raise ConfigError(f"{option}: a folder; expected the name of a file in it")
    if not value.parent.is_dir():
        raise ConfigError(f"{option}: no folder {str(value.parent)!r}; make it first, or name another")
    _check_access(option, value if value.exists() else value.parent)
    if not any_content:
        _check_content(option, value)


def _check_content(option: str, *paths: Path) -> None:
    try:
        refuse_others(*paths)
    except FileExistsError as error:
        beside = "" if option.endswith(str(error.filename)) else f" {Path(error.filename).name}:"
        raise ConfigError(f"{option}:{beside} {error.strerror}; name another, or remove it first") from error


def _check_access(option: str, place: Path) -> None:
    if not os.access(place, os.W_OK):
        raise ConfigError(f"{option}: {str(place)!r} may not be written; name another place")
