"""What every statistic asks of its input, and the two functions of the normal distribution they share."""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Collection, Mapping
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.settings import in_short, python_scalar

Floats = NDArray[np.float64]
Choice = TypeVar("Choice", bound=enum.StrEnum)

MOST_RESAMPLES = 1_000_000
"""More are gigabytes, and no digit of an interval."""

_STANDARD = NormalDist()
_SIZES = (1e-100, 1e100)
"""Of numbers whose squares, and sums of them, a float can still hold."""


def as_floats(values: ArrayLike, name: str, ndim: int) -> Floats:
    """Return an array of floats with `ndim` axes; infinities and NaN are let through."""
    try:
        array = _numbers(values)
    except (TypeError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{name}: expected numbers, got something else ({why:.100})") from None
    if array.ndim != ndim:
        raise DataError(f"{in_short(name)[1:-1]} of shape {array.shape}: expected {ndim} axis or axes")
    return array


def _numbers(values: Any) -> Floats:
    """Return floats; texts, dates, durations and complex numbers are none, and a masked value is NaN."""
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    elif isinstance(values, str | bytes | Mapping) or not isinstance(values, Collection):
        values = np.asarray(values)
        if values.dtype == object:
            raise TypeError(f"of type {type(values[()]).__name__}")
    found = np.asarray(values)
    if found.dtype.kind == "O":
        kinds = {type(one) for one in found.ravel().tolist()}
        if texts := [kind.__name__ for kind in kinds if issubclass(kind, str | bytes | complex)]:
            raise TypeError(f"of type {min(texts)}")
    elif found.dtype.kind not in "biuf":
        raise TypeError(f"of type {found.dtype}")
    floats: Floats = np.asarray(values, dtype=np.float64)
    return floats


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
    largest = float(np.abs(array).max(initial=0.0))
    if largest and not _SIZES[0] <= largest <= _SIZES[1]:
        raise DataError(
            f"{name}: the largest value is {largest:g} in size, expected {_SIZES[0]:g} to {_SIZES[1]:g}: the "
            f"squares of others are lost; give them in another unit"
        )
    return array


def pair(a: ArrayLike, b: ArrayLike, *, minimum: int) -> tuple[Floats, Floats]:
    """Return two series of equal length, bar by bar."""
    first, second = finite(a, "a", minimum=minimum), finite(b, "b", minimum=minimum)
    if len(first) != len(second):
        raise DataError(f"a has {len(first)} values and b has {len(second)}: expected the same bars in both")
    return first, second


def plain_array(values: Any, name: str) -> NDArray[Any]:
    """Return an array of whatever it holds, with as many in each row."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name}: expected rows of one length ({error!s:.60})") from None


def codes_of(labels: Any, name: str) -> NDArray[np.intp]:
    """Return the number of each label among those that differ, in the order in which they come first."""
    try:
        codes: NDArray[np.intp] = pd.factorize(pd.Series(labels))[0]
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(f"{name}: expected labels, got something else ({error!s:.60})") from None
    if (codes < 0).any():
        raise DataError(f"{name}: the label at position {int(np.argmax(codes < 0))} is missing")
    return codes


def choose(kind: type[Choice], value: str, name: str) -> Choice:
    """Return the member of an enum that `value` names."""
    if isinstance(value, str) and value in list(kind):
        return kind(value)
    else:
        choices = [str(member) for member in kind]
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{name}={in_short(value)}: expected one of {choices}{hint}")


def between(value: float, low: float, high: float, name: str) -> float:
    """Return a setting that lies strictly between two numbers."""
    found = python_scalar(value)
    if type(found) not in (int, float) or not low < found < high or abs(found) > 1e300:
        raise ConfigError(f"{name}={in_short(value)}: expected a number between {low} and {high}")
    return float(found)


def in_blocks(block_length: int, bars: int, of: str = "bars there are") -> int:
    """Return a block length that is a whole number of the bars there are."""
    found = python_scalar(block_length)
    if type(found) is not int or not 1 <= found <= bars:
        raise ConfigError(f"block_length={in_short(block_length)}: expected 1 to the {bars} {of}")
    return found


def by_name(values: Any, name: str, of: str) -> Mapping[Any, Any]:
    """Return what was given as a mapping of names, as a frame is one."""
    if not isinstance(values, Mapping) and not hasattr(values, "columns"):
        raise DataError(f"{name}={in_short(values)}: expected a mapping of names to {of}")
    found: Mapping[Any, Any] = values
    return found


def distributions(values: ArrayLike, name: str) -> Floats:
    """Return rows of probabilities that each sum to 1."""
    p = finite(values, name, ndim=2)
    wrong = (p < 0.0).any(axis=1) | (np.abs(p.sum(axis=1) - 1.0) > 1e-6)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{name} {in_short(p[row].tolist())} in row {row}: expected numbers from 0 that sum to 1"
        )
    return p


def annual_factor(periods_per_year: float | None) -> float:
    """Return the bars in a year, or 1 for a figure per bar."""
    if periods_per_year is None:
        return 1.0
    return between(periods_per_year, 0.0, math.inf, "periods_per_year")


def normal_cdf(x: float) -> float:
    """Return the probability that a standard normal falls below x; exact in both tails."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_quantile(p: float) -> float:
    """Return the value that a standard normal falls below with probability p.

    Raises
    ------
    ConfigError
        If p is not between 0 and 1.
    """
    return _STANDARD.inv_cdf(between(p, 0.0, 1.0, "p"))
