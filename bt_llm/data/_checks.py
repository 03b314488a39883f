"""Bars that cannot be right: refused by default, repaired where that is stated."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pandas as pd

from bt_llm.data._names import PRICES
from bt_llm.data._reading import Floats, Mask, Reading, name_bars

Values: TypeAlias = dict[str, Floats]

__all__ = ["COLUMNS", "make_bars"]

COLUMNS = (*PRICES, "volume")
"""Columns of a frame of bars, in order."""

_ROUNDING = 1e-9  # relative: far below a tick, far above what adjusting prices for dividends leaves
_LARGEST, _SMALLEST = 1e30, 1e-30  # a price beyond is damage, and sums of such overflow
_LISTED = 100  # repaired bars that are named


def make_bars(reading: Reading, times: pd.DatetimeIndex, values: Values) -> pd.DataFrame:
    """Return bars oldest first, each time once, whole and without contradictions; refuse what is not so."""
    values, whole = _completed(reading, times, values)
    keep = _without_numbers(reading, times, values, whole)
    if keep is not None:
        times, values = times[keep], {name: column[keep] for name, column in values.items()}
    if not times.is_monotonic_increasing:
        reading.repaired("times out of order: sorted, oldest first")
        order = np.argsort(times.asi8, kind="stable")
        times, values = times[order], {name: column[order] for name, column in values.items()}
    times, values = _once(reading, times, values)
    times, values = _priced(reading, times, values, whole)
    times, values = _contained(reading, times, values)
    return pd.DataFrame({name: values[name] for name in COLUMNS}, index=times, copy=False)


def _completed(reading: Reading, times: pd.DatetimeIndex, values: Values) -> tuple[Values, bool]:
    """Return all five columns, and whether the four prices are the source's own."""
    for name in (*PRICES, "volume"):
        if name in values and np.isinf(values[name]).any():
            raise reading.error(
                f"infinite {name} at {name_bars(times, np.isinf(values[name]))}: expected finite numbers"
            )
    for name in PRICES:
        if name in values:
            size = np.abs(values[name])
            odd = (size > _LARGEST) | ((size < _SMALLEST) & (size > 0.0))
            if odd.any():
                raise reading.error(
                    f"{name} {values[name][int(odd.argmax())]:g} at {name_bars(times, odd)}: expected prices "
                    f"from {_SMALLEST:g} to {_LARGEST:g}"
                )
    values = {name: values[name] for name in COLUMNS if name in values}
    whole = "open" in values
    if not whole:
        reading.repaired("no open, high and low: set to close")
        values |= {name: values["close"].copy() for name in PRICES[:3]}
    if "volume" not in values:
        reading.repaired("no volume: set to 0")
        values["volume"] = np.zeros(len(times))
        return values, whole
    return values, whole


def _without_numbers(reading: Reading, times: pd.DatetimeIndex, values: Values, whole: bool) -> Mask | None:
    """Return which rows have a price at all; those without are no bars, where four prices are expected."""
    if reading.format.repair == "fill" or not (whole or reading.form.startswith("FRED")):
        return None
    empty = (
        np.isnan(values["open"])
        & np.isnan(values["high"])
        & np.isnan(values["low"])
        & np.isnan(values["close"])
    )
    empty &= np.nan_to_num(values["volume"]) == 0
    if not empty.any() or empty.all():
        return None
    reading.repaired(f"rows without a price at {name_bars(times, empty, _LISTED)}: left out")
    return ~empty


def _once(reading: Reading, times: pd.DatetimeIndex, values: Values) -> tuple[pd.DatetimeIndex, Values]:
    """Return bars without repeats; refuse two different ones of one time, or drop the later."""
    if times.is_unique:
        return times, values
    frame = pd.DataFrame(values, index=times).reset_index()
    again = frame.duplicated().to_numpy()
    if again.any():
        reading.repaired(f"repeats of an equal bar at {name_bars(times, again, _LISTED)}: dropped")
    twice = times.duplicated() & ~again
    if twice.any():
        where = name_bars(times, twice)
        if reading.format.repair != "drop":
            raise reading.error(
                f"another bar of the same time at {where}: expected one bar a time; "
                "repair='drop' keeps the first of each",
                "repair",
            )
        reading.repaired(f"another bar of the same time at {name_bars(times, twice, _LISTED)}: dropped")
    keep = ~(again | twice)
    return times[keep], {name: column[keep] for name, column in values.items()}


def _priced(
    reading: Reading, times: pd.DatetimeIndex, values: Values, whole: bool
) -> tuple[pd.DatetimeIndex, Values]:
    """Return bars whose prices are all there; a zero among prices above zero is none."""
    nulls = np.zeros(len(times), dtype=bool)
    zeros = nulls.copy()
    positive = whole and all(np.nanmin(values[name], initial=0.0) == 0 for name in PRICES)
    for name in PRICES:
        nulls |= np.isnan(values[name])
        if positive:
            zeros |= values[name] == 0
    zeros = zeros & ~nulls if not zeros.all() else np.zeros_like(zeros)
    for bad, what in ((nulls, "no price"), (zeros, "a price of 0")):
        if not bad.any():
            continue
        repair = reading.format.repair
        if repair not in ("drop", "fill"):
            own = PRICES if whole else ("close",)
            missing = next((name for name in own if np.isnan(values[name]).any()), "price")
            said = f"no {missing}" if what == "no price" else what
            raise reading.error(
                f"{said} at {name_bars(times, bad)}, of {len(times):,}: expected a number; "
                "repair='drop' leaves such bars out, repair='fill' sets them to the close before",
                "repair",
            )
        named = name_bars(times, bad, _LISTED)
        reading.repaired(f"{what} at {named}: {'dropped' if repair == 'drop' else 'set to the close before'}")
    bad = nulls | zeros
    if bad.any() and reading.format.repair == "fill":
        values = _filled(reading, times, values, bad)
    elif bad.any():
        if bad.all():
            raise reading.error("no bar with a price: expected at least one")
        times, values = times[~bad], {name: column[~bad] for name, column in values.items()}
    return times, _with_volume(reading, times, values)


def _filled(reading: Reading, times: pd.DatetimeIndex, values: Values, bad: Mask) -> Values:
    """Return values in which bad bars stand at the close before them."""
    if bad[0]:
        raise reading.error(
            f"no price at {times[0]}, the first bar, to fill from; use repair='drop'", "repair"
        )
    close = pd.Series(np.where(bad, np.nan, values["close"])).ffill().to_numpy()
    filled = {name: np.where(bad, close, values[name]) for name in PRICES}
    return {**filled, "volume": np.where(bad, 0.0, values["volume"])}


def _with_volume(reading: Reading, times: pd.DatetimeIndex, values: Values) -> Values:
    volume = values["volume"]
    missing = np.isnan(volume)
    if missing.any():
        reading.repaired(f"no volume at {name_bars(times, missing)}: set to 0")
        values = {**values, "volume": np.nan_to_num(volume, nan=0.0)}
    if (values["volume"] < 0).any():
        raise reading.error(f"volume below 0 at {name_bars(times, values['volume'] < 0)}: expected 0 or more")
    return values


def _contained(reading: Reading, times: pd.DatetimeIndex, values: Values) -> tuple[pd.DatetimeIndex, Values]:
    """Return bars whose high and low hold open and close; those that are off by rounding are widened."""
    opened, high, low, close = (values[name] for name in PRICES)
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    off = (high < top) | (low > bottom)
    if not off.any():
        return times, values
    slack = _ROUNDING * np.maximum(np.abs(top), np.abs(bottom))
    wrong = (high < top - slack) | (low > bottom + slack)
    repair = reading.format.repair
    if wrong.any() and repair not in ("drop", "widen"):
        raise _contradiction(reading, times, values, wrong)
    if wrong.any():
        done = "dropped" if repair == "drop" else "widened to hold open and close"
        reading.repaired(f"prices contradict each other at {name_bars(times, wrong, _LISTED)}: {done}")
    if (off & ~wrong).any():
        where = name_bars(times, off & ~wrong)
        reading.repaired(f"high or low off the open or close by rounding at {where}: widened")
    values = {**values, "high": np.maximum(high, top), "low": np.minimum(low, bottom)}
    if wrong.any() and repair == "drop":
        if wrong.all():
            raise reading.error("no bar whose prices agree: expected at least one")
        return times[~wrong], {name: column[~wrong] for name, column in values.items()}
    return times, values


def _contradiction(reading: Reading, times: pd.DatetimeIndex, values: Values, wrong: Mask) -> Exception:
    row = int(wrong.argmax())
    first = ", ".join(f"{name} {values[name][row]:.12g}" for name in PRICES)
    return reading.error(
        f"prices contradict each other at {name_bars(times, wrong)}, of {len(times):,}: {first}; "
        "expected low <= open, close <= high; repair='drop' leaves such bars out, "
        "repair='widen' moves high and low out to the open and close",
        "repair",
    )
