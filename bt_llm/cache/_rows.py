"""Rows of the cache's database: a JSON text under its key, with the hash that shows damage."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from bt_llm.plain_json import strict_json

__all__ = ["FORMAT", "FORMAT_ROW", "HEAD", "MAX_TEXT", "Row", "seal", "unseal"]

FORMAT = 1
"""Version of the rows; a database of another version is refused."""

MAX_TEXT = 4 * 2**20
"""Longest text of a row, in characters."""

FORMAT_ROW = ("format", f'{{"bt_llm_cache":{FORMAT}}}')
"""The row by which a database of ours is known."""

HEAD = f'{{"format":{FORMAT},"sha256":"'
"""What every other row's text begins with."""

_MIDDLE = '","content":'
_DIGEST = 64


class Row(NamedTuple):
    """One stored text; `tag` groups rows that are counted and deleted together."""

    key: str
    text: str
    tag: str | None = None


def seal(key: str, body: str) -> str:
    """Return the row of a JSON text: itself, its format version and a hash that shows damage.

    The hash is for damaged files and interrupted copies: who can write the file can write a hash too.
    """
    digest = hashlib.sha256(f"{key}\n{body}".encode()).hexdigest()
    return f"{HEAD}{digest}{_MIDDLE}{body}}}"


def unseal(key: str, text: str) -> Any:
    """Return the content of a row that `seal` made.

    Raises
    ------
    ValueError
        If the row is of another format, damaged, or belongs to another key.

    Examples
    --------
    >>> unseal("a", seal("a", '{"x":1}'))
    {'x': 1}
    >>> unseal("b", seal("a", '{"x":1}'))
    Traceback (most recent call last):
    ValueError: the row is damaged: its SHA-256 is another one
    """
    start = len(HEAD) + _DIGEST + len(_MIDDLE)
    body = text[start:-1]
    if text[: len(HEAD)] != HEAD or text[start - len(_MIDDLE) : start] != _MIDDLE or text[-1:] != "}":
        raise ValueError(f"the row does not start with {HEAD}...")
    if hashlib.sha256(f"{key}\n{body}".encode()).hexdigest() != text[len(HEAD) : len(HEAD) + _DIGEST]:
        raise ValueError("the row is damaged: its SHA-256 is another one")
    return strict_json(body)
