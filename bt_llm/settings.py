"""Settings as people give them: numpy's numbers are taken for Python's."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

__all__ = ["is_number", "make_plain", "plain"]


def plain(value: Any) -> Any:
    """Return a numpy scalar as the number, flag or text of Python's that it is; anything else as it came.

    Examples
    --------
    >>> plain(np.int64(3)), plain(np.float64(0.5)), plain(np.bool_(True)), plain("3")
    (3, 0.5, True, '3')
    """
    return value.item() if isinstance(value, np.generic) else value


def make_plain(config: Any) -> None:
    """Make the numpy scalars among the fields of a frozen dataclass plain; in its ``__post_init__``."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(config, field.name, value.item())


def is_number(value: Any) -> bool:
    """Return whether a plain value is a finite number, and no flag.

    Examples
    --------
    >>> is_number(3), is_number(True), is_number(math.inf), is_number("3")
    (True, False, False, False)
    """
    return type(value) in (int, float) and math.isfinite(value)
