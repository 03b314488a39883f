"""Settings checked where they are made: numbers of Python and of numpy alike, kept as Python's."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bt_llm.exceptions import ConfigError

__all__ = [
    "flag",
    "in_short",
    "instance",
    "is_number",
    "make_plain",
    "number",
    "one_of",
    "path_text",
    "python_scalar",
    "several",
    "whole",
]


def _is_of_numpy(value: Any, kind: str) -> bool:
    """Return whether a value is of one of numpy's types; without importing it, which commands wait for."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, getattr(numpy, kind))


def python_scalar(value: Any) -> Any:
    """Return a scalar of numpy as Python's own, and anything else as it is.

    Examples
    --------
    >>> import numpy as np
    >>> python_scalar(np.float64(0.5)), python_scalar(np.bool_(True)), python_scalar("text")
    (0.5, True, 'text')
    """
    return value.item() if _is_of_numpy(value, "generic") else value


def number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float = -math.inf,
    of: str = "",
) -> float:
    """Return a setting as a float.

    Parameters
    ----------
    name : str
        Of the setting, for the message.
    value : object
        What was given.
    low, high : float
        The least and the greatest that it may be.
    above : float
        What it must be greater than.
    of : str
        What the number counts, such as `` of ATR``.

    Raises
    ------
    ConfigError
        If it is no number of this range, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> number("cash", np.int64(1000), 0)
    1000.0
    """
    found = python_scalar(value)
    if type(found) in (int, float) and low <= found <= high and above < found and abs(found) <= _LARGEST:
        return float(found)
    raise ConfigError(f"{name}={in_short(value)}: expected a number{of}{_range(low, high, above)}")


_LARGEST = sys.float_info.max


def _range(low: float, high: float, above: float) -> str:
    if above > -math.inf:
        return f" above {above:g}" + ("" if math.isinf(high) else f" and up to {high:g}")
    if math.isinf(low) and math.isinf(high):
        return ""
    return f" of at least {low:g}" if math.isinf(high) else f" from {low:g} to {high:g}"


def whole(name: str, value: Any, least: float = -math.inf, most: float = math.inf, *, of: str = "") -> int:
    """Return a setting as an int.

    Parameters
    ----------
    name, value, of
        As for `number`.
    least, most : float
        The least and the greatest that it may be.

    Raises
    ------
    ConfigError
        If it is no whole number of this range.

    Examples
    --------
    >>> import numpy as np
    >>> whole("seed", np.uint8(7), 0)
    7
    """
    found = python_scalar(value)
    if type(found) is int and least <= found <= most:
        return found
    more = "" if math.isinf(least) else f", {least:g} or more"
    if not math.isinf(most):
        more = f" from {least:g} to {most:,}"
    raise ConfigError(f"{name}={in_short(value)}: expected a whole number{of}{more}")


def flag(name: str, value: Any) -> bool:
    """Return a setting that is True or False.

    Raises
    ------
    ConfigError
        If it is neither: the text "no" would count as a yes.

    Examples
    --------
    >>> import numpy as np
    >>> flag("expand_train", np.False_)
    False
    """
    found = python_scalar(value)
    if type(found) is bool:
        return found
    raise ConfigError(f"{name}={in_short(value)}: expected True or False")


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Check that a setting is one of a few.

    Raises
    ------
    ConfigError
        If it is none of them.

    Examples
    --------
    >>> one_of("live", "auto", ("auto", "on", "off"))
    """
    if not isinstance(value, str | int | float | None) or value not in choices:
        raise ConfigError(f"{name}={in_short(value)}: expected one of {list(choices)}")


def instance(name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Check that a setting is of a kind.

    Parameters
    ----------
    name, value
        As for `number`.
    kind : type or tuple of type
        What it must be an instance of.
    expected : str
        What that is called, with its article.

    Raises
    ------
    ConfigError
        If it is of another kind.

    Examples
    --------
    >>> instance("params", {}, Mapping, "a mapping of names to values")
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{name}={in_short(value)}: expected {expected}")


def path_text(name: str, value: Any, *, expected: str = "a path") -> str:
    """Return a path as text.

    Raises
    ------
    ConfigError
        If it is none; a number is no path, though Python would open one.

    Examples
    --------
    >>> path_text("cache_dir", "verdicts")
    'verdicts'
    """
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(found, str):
        return found
    raise ConfigError(f"{name}={in_short(value)}: expected {expected}")


def several(name: str, value: Any, of: str) -> tuple[Any, ...]:
    """Return a list of things, or any other iterable of them, as a tuple.

    Raises
    ------
    ConfigError
        If it is none; one text is no list of texts, nor is a mapping.

    Examples
    --------
    >>> several("lines", ["vix"], "names of columns")
    ('vix',)
    """
    shapeless = _is_of_numpy(value, "ndarray") and not value.ndim
    if shapeless or isinstance(value, str | bytes | os.PathLike | Mapping) or not isinstance(value, Iterable):
        such = f", such as [{in_short(value)}]" if isinstance(value, str) else ""
        raise ConfigError(f"{name}={in_short(value)}: expected a list of {of}{such}")
    return tuple(value)


def in_short(value: Any) -> str:
    """Return a value as the beginning of one line, for a message.

    Examples
    --------
    >>> import numpy as np
    >>> in_short(np.zeros((2, 2)))
    'array([[0., 0.], [0., 0.]])'
    """
    return f"{' '.join(repr(value).split()):.60}"


def make_plain(config: Any) -> None:
    """Make the numpy scalars among the fields of a frozen dataclass plain; in its ``__post_init__``."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if _is_of_numpy(value, "generic"):
            object.__setattr__(config, field.name, value.item())


def is_number(value: Any) -> bool:
    """Return whether a plain value is a finite number, and no flag.

    Examples
    --------
    >>> is_number(3), is_number(True), is_number(math.inf), is_number("3")
    (True, False, False, False)
    """
    return type(value) in (int, float) and math.isfinite(value)
