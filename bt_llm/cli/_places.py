"""Where files are to be written: looked at before the work, which may take hours, and not after it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import typer

from bt_llm.exceptions import ConfigError, MissingExtraError

__all__ = [
    "file_of_a_study_to_write",
    "file_to_write",
    "folder_to_write",
    "picture_or_page_to_write",
    "picture_to_write",
]

_PICTURES = (".png", ".svg", ".pdf")
_PAGES = (".html", ".htm")


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
        If it cannot be.
    """
    if value is not None:
        option = f"{param.opts[0]} {value}"
        if value.is_dir():
            raise ConfigError(f"{option}: a folder; expected the name of a file in it")
        if not value.parent.is_dir():
            raise ConfigError(f"{option}: no folder {str(value.parent)!r}; make it first, or name another")
        _check_access(option, value if value.exists() else value.parent)
    return value


def file_of_a_study_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, whose folder a study may make when it runs; see `file_to_write`."""
    if value is None or value.parent.is_dir():
        return file_to_write(param, value)
    folder_to_write(param, value.parent)
    return value


def folder_to_write(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what an option gives, if a folder is there or can be made there; see `file_to_write`."""
    if value is not None:
        option = f"{param.opts[0]} {value}"
        there = next(one for one in (value, *value.absolute().parents) if one.exists())
        if not there.is_dir():
            raise ConfigError(f"{option}: {str(there)!r} is a file; expected a folder")
        _check_access(option, there)
    return value


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
    return file_to_write(param, value)


def _check_access(option: str, place: Path) -> None:
    if not os.access(place, os.W_OK):
        raise ConfigError(f"{option}: {str(place)!r} may not be written; name another place")
