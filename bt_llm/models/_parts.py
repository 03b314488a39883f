"""The files of a model that was split, ``NAME-00001-of-00003.gguf`` and so on, known by the first."""

from __future__ import annotations

import re
from pathlib import Path

from bt_llm.exceptions import ModelFileError

__all__ = ["file_parts", "is_later_part", "whole_stem"]

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_MOST = 1000


def whole_stem(path: Path) -> str:
    """Return a file's name without its ending, and without the number of its part.

    Examples
    --------
    >>> whole_stem(Path("m-00001-of-00003.gguf")), whole_stem(Path("m.gguf"))
    ('m', 'm')
    """
    found = _PART.fullmatch(path.stem)
    return found["stem"] if found else path.stem


def is_later_part(path: Path) -> bool:
    """Whether a name is that of a part, and not of the first one."""
    found = _PART.fullmatch(path.stem)
    return found is not None and int(found["number"]) != 1


def file_parts(path: Path) -> list[Path]:
    """Return all files of a model, by its only or first one, in order; they need not be there.

    Raises
    ------
    ModelFileError
        If it is another part than the first.

    Examples
    --------
    >>> [part.name for part in file_parts(Path("m-00001-of-00002.gguf"))]
    ['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf']
    """
    found = _PART.fullmatch(path.stem)
    if found is None:
        return [path]
    count = int(found["count"])
    if not 1 <= count <= _MOST:
        raise ModelFileError(f"{path} is named as one of {count} parts: expected 1 to {_MOST}")
    names = [
        f"{found['stem']}-{number:05d}-of-{found['count']}{path.suffix}" for number in range(1, count + 1)
    ]
    if path.name != names[0]:
        raise ModelFileError(
            f"{path} is part {int(found['number'])} of {count}: expected the first, {names[0]}"
        )
    return [path.with_name(name) for name in names]
