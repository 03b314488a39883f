"""How a manifest's file is laid out, written and read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bt_llm.exceptions import ConfigError
from bt_llm.files import read_bytes
from bt_llm.plain_json import canonical_json, strict_json
from bt_llm.settings import path_text
from bt_llm.writing import refuse_others, write_whole

__all__ = ["MAX_MB", "laid_out", "read_document", "write_text"]

T = TypeVar("T")

MAX_MB = 64
"""Largest manifest, in MB; see `bt_llm.files`."""

_DEPTH = 100
_LINE = 120  # what fits into it stands on one line of the file


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a manifest's text in one step; see `RunManifest.write`."""
    target = Path(path)
    try:
        refuse_others(target)
        write_whole(target, text.encode("ascii"))
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written ({error.strerror or error}); name another file"
        ) from error


def read_document(path: str | os.PathLike[str], made_of: Callable[[Any, Path], T]) -> T:
    """Return what is made of a file's JSON and the file's folder; see `read_manifest`."""
    source = Path(path_text("path", path))
    try:
        data = read_bytes(source, MAX_MB)
    except OSError as error:
        raise ConfigError(
            f"{source}: cannot be read ({error.strerror or error}); write one with bt-llm run --manifest FILE"
        ) from error
    try:
        document = strict_json(data.decode("utf-8"))
        _refuse_deep(document)
        return made_of(document, source.absolute().parent)
    except (ConfigError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise ConfigError(f"{source}: not a run manifest: {error}") from error


def _refuse_deep(document: Any) -> None:
    """Refuse what no manifest needs, and what reads it would fail on, call within call."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(_DEPTH):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {_DEPTH} deep")


def laid_out(value: Any, depth: int = 0) -> str:
    """Return JSON that a person can read and diff: what is short stands on one line."""
    compact = canonical_json(value)
    if len(compact) <= _LINE - depth or not isinstance(value, dict | list | tuple) or not value:
        return compact
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        entries = [f"{canonical_json(name)}: {laid_out(value[name], depth + 1)}" for name in sorted(value)]
    else:
        entries = [laid_out(item, depth + 1) for item in value]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return f"{opened}\n{pad}" + f",\n{pad}".join(entries) + f"\n{' ' * depth}{closed}"
