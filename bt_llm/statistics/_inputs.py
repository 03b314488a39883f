"""What every statistic asks of its input, and the two functions of the normal distribution they share."""

from __future__ import annotations

import difflib
import enum
import math
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bt_llm.exceptions import ConfigError, DataError

Floats = NDArray[np.float64]
Choice = TypeVar("Choice", bound=enum.StrEnum)

_STANDARD = NormalDist()


def as_floats(values: ArrayLike, name: str, ndim: int) -> Floats:
    """Return an array of floats with `ndim` axes; infinities and NaN are let through."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected numbers, got something else ({error})") from None
    if array.ndim != ndim:
        raise DataError(f"{name} of shape {array.shape}: expected {ndim} axis or axes")
    return array


def finite(values: ArrayLike, name: str, *, ndim: int = 1, minimum: int = 1) -> Floats:
    """Return `values` as finite floats.

    A NaN is refused, not dropped: two series that lose different bars are no longer paired, and
    a return that is missing from the middle of a record shifts every block and lag after it.
    """
    array = as_floats(values, name, ndim)
    if len(array) < minimum:
        raise DataError(f"{name}: {len(array)} values, expected at least {minimum}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        where = place[0] if ndim == 1 else place
        raise DataError(
            f"{name}: {len(bad)} of {array.size} values are not finite, the first at position {where}; "
            f"drop or fill them first"
        )
    return array


def pair(a: ArrayLike, b: ArrayLike, *, minimum: int) -> tuple[Floats, Floats]:
    """Return two series of equal length, bar by bar."""
    first, second = finite(a, "a", minimum=minimum), finite(b, "b", minimum=minimum)
    if len(first) != len(second):
        raise DataError(f"a has {len(first)} values and b has {len(second)}: expected the same bars in both")
    return first, second


def choose(kind: type[Choice], value: str, name: str) -> Choice:
    """Return the member of an enum that `value` names."""
    try:
        return kind(value)
    except ValueError:
        choices = [str(member) for member in kind]
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{name}={value!r}: expected one of {choices}{hint}") from None


def between(value: float, low: float, high: float, name: str) -> float:
    """Return a setting that lies strictly between two numbers."""
    if not low < value < high:
        raise ConfigError(f"{name}={value!r}: expected a number between {low} and {high}")
    return float(value)


def annual_factor(periods_per_year: float | None) -> float:
    """Return the bars in a year, or 1 for a figure per bar."""
    if periods_per_year is None:
        return 1.0
    return between(periods_per_year, 0.0, math.inf, "periods_per_year")


def normal_cdf(x: float) -> float:
    """Return the probability that a standard normal falls below x; exact in both tails."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_quantile(p: float) -> float:
    """Return the value that a standard normal falls below with probability p."""
    return _STANDARD.inv_cdf(p)
