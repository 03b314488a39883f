"""Equality of results that hold NaN: a number that could not be had is the same as itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["nan_equal"]

T = TypeVar("T")


def nan_equal(cls: type[T]) -> type[T]:
    """Make two of a dataclass equal where their fields are, NaN to NaN, also within tuples and mappings.

    By itself a dataclass compares NaN by identity up to Python 3.12, and never as equal from 3.13 on.

    Examples
    --------
    >>> @nan_equal
    ... @dataclasses.dataclass(frozen=True)
    ... class Found:
    ...     p_value: float
    ...     pair: tuple[float, ...] = ()
    >>> nan, other = float("nan"), float("nan")
    >>> Found(nan, (1.0, nan)) == Found(other, (1.0, other)), Found(nan) == Found(0.5)
    (True, False)
    >>> hash(Found(nan)) == hash(Found(other))
    True
    """
    names = [one.name for one in dataclasses.fields(cls) if one.compare]  # type: ignore[arg-type]
    hashed = [
        one.name
        for one in dataclasses.fields(cls)  # type: ignore[arg-type]
        if (one.compare if one.hash is None else one.hash)
    ]

    def equal(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented  # type: ignore[no-any-return]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    def hash_of(self: Any) -> int:
        return hash(tuple(_key(getattr(self, name)) for name in hashed))

    methods: dict[str, Callable[..., Any]] = {"__eq__": equal}
    if cls.__hash__ is not None:
        methods["__hash__"] = hash_of
    for name, method in methods.items():
        method.__name__, method.__qualname__ = name, f"{cls.__qualname__}.{name}"
        setattr(cls, name, method)
    return cls


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    if isinstance(one, tuple | list) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _key(value: Any) -> Any:
    """Return what a value is hashed as: all NaN alike."""
    if isinstance(value, float) and value != value:
        return "NaN"
    return tuple(map(_key, value)) if isinstance(value, tuple) else value
