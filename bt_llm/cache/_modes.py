"""The four modes of a cache, where it is by default, and what is counted in it."""

from __future__ import annotations

import contextlib
import difflib
import enum
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import platformdirs

from bt_llm.exceptions import ConfigError
from bt_llm.models import ModelIdentity

__all__ = ["CacheMode", "CacheStats", "default_directory", "forced", "only_replaying"]

Folder: TypeAlias = str | os.PathLike[str] | None


class CacheMode(enum.StrEnum):
    """What `VerdictCache.fetch` does with stored verdicts.

    ==========  ==================================================================
    mode        a question is ...
    ==========  ==================================================================
    record      answered from disk, else asked and stored
    replay      answered from disk; one that is not there is an error; nothing is written
    refresh     asked, and the answer replaces what is stored
    off         asked; nothing is read or stored
    ==========  ==================================================================
    """

    RECORD = "record"
    REPLAY = "replay"
    REFRESH = "refresh"
    OFF = "off"

    @classmethod
    def parse(cls, text: str) -> CacheMode:
        """Return the mode of that name.

        Raises
        ------
        ConfigError
            If there is none; the message lists them, and the nearest.

        Examples
        --------
        >>> CacheMode.parse("replay").name
        'REPLAY'
        >>> CacheMode.parse("reply")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bt_llm.exceptions.ConfigError: cache mode 'reply' (did you mean 'replay'?): expected ...
        """
        names = [mode.value for mode in cls]
        if text in names:
            return cls(text)
        near = difflib.get_close_matches(str(text).lower(), names, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"cache mode {text!r}{hint}: expected {', '.join(names[:-1])} or {names[-1]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What a cache folder holds.

    Parameters
    ----------
    directory : Path
        The folder.
    verdicts : int
        Stored verdicts.
    by_model : mapping of str to int
        Stored verdicts by the SHA-256 of their model.
    models : tuple of ModelIdentity
        Models whose identity is stored.
    documents : int
        Other stored rows, such as remembered facts of files.
    bytes : int
        Size of the database file.
    """

    directory: Path
    verdicts: int
    by_model: Mapping[str, int]
    models: tuple[ModelIdentity, ...]
    documents: int
    bytes: int


def default_directory() -> Path:
    """Return the cache folder: ``BT_LLM_CACHE_DIR``, else the platform's cache folder of the user."""
    return Path(os.environ.get("BT_LLM_CACHE_DIR") or platformdirs.user_cache_dir("bt_llm", appauthor=False))


_only: list[Folder] = []
"""Folders that everything is replayed from just now, the last one first; empty but for `only_replaying`."""


@contextlib.contextmanager
def only_replaying(directory: Folder) -> Iterator[None]:
    """Have every cache that is made in here, in any thread, replay from one folder, whatever it is told.

    A strategy that somebody else wrote makes its own advisors: so none of them asks a model, and none
    reads or writes elsewhere.

    Parameters
    ----------
    directory : path or None
        The folder; None for the default one.
    """
    _only.append(directory)
    try:
        yield
    finally:
        _only.remove(directory)


def forced(directory: Folder, mode: CacheMode) -> tuple[Folder, CacheMode]:
    """Return the folder and mode to use for those that are given."""
    return (_only[-1], CacheMode.REPLAY) if _only else (directory, mode)
