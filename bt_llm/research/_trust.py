"""Servers that a file names: found wherever in it they stand, and asked only where the user says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError
from bt_llm.models import kind_of

__all__ = ["Trust", "addresses_in", "check_addresses"]

Trust: TypeAlias = bool | Callable[[Sequence[str]], bool]
"""Whether servers may be asked that a file names, or who is given their addresses and says so."""


def addresses_in(values: Any) -> tuple[str, ...]:
    """Return the addresses of the servers that texts in plain values name, sorted.

    Examples
    --------
    >>> addresses_in({"models": ["smollm2", "openai:http://127.0.0.1:8000/v1?model=m"]})
    ('http://127.0.0.1:8000/v1',)
    """
    found: set[str] = set()
    for name in _texts(values):
        with contextlib.suppress(ConfigError):  # whoever uses the name says what is wrong with it
            found.update(kind_of(name).addresses)
    return tuple(sorted(found))


def check_addresses(addresses: Sequence[str], trust: Trust, cache_mode: str | None) -> None:
    """Refuse to ask servers that only a study file names; in replay nobody is asked.

    Raises
    ------
    ConfigError
        If nobody has said to trust them.
    """
    if not addresses or VerdictCache(mode=cache_mode).mode is CacheMode.REPLAY:
        return
    if not (trust(addresses) if callable(trust) else trust):
        raise ConfigError(
            f"the study names {', '.join(addresses)}: an address that comes from a file is asked only where "
            "you say so, load_study(path, trust=True); nothing was sent"
        )


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (*_texts(name), *_texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
