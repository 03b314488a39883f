"""Prices that lie: raw beside adjusted ones, jumps of a split's size, gaps, lengths that change."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bt_llm.data._columns import Columns
from bt_llm.data._length import bar_length
from bt_llm.data._names import PRICES
from bt_llm.data._reading import Floats, Mask, Reading, name_bars

__all__ = ["adjust", "find_gaps", "find_jumps", "warn_of"]

_SPLITS = tuple(
    ratio
    for whole in (1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)
    for ratio in (whole, 1 / whole)
)
_DAY = 86_400 * 10**9
_LONG_GAP = 14 * _DAY  # longer than any holiday of an exchange
_JUMP = 0.3  # of the logarithm: a third of the price gone, or a third more, in one bar


def adjust(reading: Reading, columns: Columns) -> dict[str, Floats]:
    """Return the prices and the volume that count: raw or adjusted ones, as stated or as splits show.

    Raw prices fall by half at a split of 2:1 and adjusted ones do not. Where the ratio of the two changes by
    a split's size and the source's own split ratio says so, adjusted prices are taken; where only the ratio
    of the two says so, both readings are possible and one has to be stated.
    """
    values, wanted = dict(columns.values), reading.format.adjusted
    _choose_volume(values)
    adjusted = values.get("adj close")
    if adjusted is None or "close" not in values:
        if wanted and adjusted is None:
            raise reading.error("adjusted=True: no adjusted close among the columns; leave adjusted out")
        if wanted:
            values["close"], reading.adjusted = values["adj close"], True
        return _five(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values["close"] / adjusted
    order = np.argsort(columns.times, kind="stable")
    if wanted is None:
        wanted = _split_says(reading, values, ratio[order], columns.times[order], order)
    if wanted:
        _take_adjusted(reading, values, ratio, order)
        return _five(values)
    off = np.nanmax(np.abs(ratio - 1), initial=0.0)
    if off > 0.001 and reading.format.adjusted is None:
        reading.warn(
            f"prices are as they were paid; the adjusted close beside them differs by up to {off:.1%}: "
            "adjusted=True takes it"
        )
    return _five(values)


def _five(values: dict[str, Floats]) -> dict[str, Floats]:
    return {role: values[role] for role in (*PRICES, "volume") if role in values}


def _choose_volume(values: dict[str, Floats]) -> None:
    ticks = values.pop("ticks", None)
    if "volume" not in values and "up" in values and "down" in values:
        values["volume"] = values["up"] + values["down"]
    if ticks is not None and not ("volume" in values and np.nan_to_num(values["volume"]).any()):
        values["volume"] = ticks


def _split_says(
    reading: Reading,
    values: dict[str, Floats],
    ratio: Floats,
    times: np.ndarray[tuple[int], np.dtype[np.int64]],
    order: np.ndarray[tuple[int], np.dtype[np.intp]],
) -> bool:
    """Return whether splits show that the raw prices jump; refuse where both readings stand."""
    known = np.isfinite(ratio)
    if not known.any():
        return False
    places, kept = np.flatnonzero(known), ratio[known]
    steps = kept[:-1] / kept[1:]
    jumps = [
        (int(places[at + 1]), float(step))
        for at, step in enumerate(steps)
        if abs(np.log(abs(step) or 1)) > _JUMP
    ]
    split = values["split"][order] if "split" in values else None
    for at, step in jumps:
        if split is not None and np.isfinite(split[at]) and abs(split[at] / step - 1) < 0.1:
            return True
    if jumps:
        at, step = jumps[0]
        raise reading.error(
            f"at {pd.Timestamp(times[at])} raw prices move to 1/{step:.3g} against adjusted ones, as at a "
            "split: give adjusted=True for adjusted prices, or adjusted=False",
            "adjusted",
        )
    last = float(np.median(kept[-5:]))
    whole = "split" in values or "adj open" in values  # else dividends alone may make the difference
    if whole and any(abs(last / size - 1) < 0.002 for size in _SPLITS):
        raise reading.error(
            f"raw prices are {last:.4g} times the adjusted ones to the last bar, as before a split: "
            "give adjusted=True for adjusted prices, or adjusted=False",
            "adjusted",
        )
    return False


def _take_adjusted(
    reading: Reading,
    values: dict[str, Floats],
    ratio: Floats,
    order: np.ndarray[tuple[int], np.dtype[np.intp]],
) -> None:
    """Put adjusted prices, and the volume that goes with them, where the raw ones are."""
    for role in PRICES:
        if role == "close" or f"adj {role}" in values:
            values[role] = values[f"adj {role}"]
        elif role in values:
            values[role] = values[role] / ratio
    if "adj volume" in values:
        values["volume"] = values["adj volume"]
    elif "split" in values and "volume" in values:
        split = np.where(np.nan_to_num(values["split"]) > 0, values["split"], 1.0)[order]
        later = np.concatenate([np.cumprod(split[::-1])[::-1][1:], [1.0]])
        volume = values["volume"].copy()
        volume[order] = volume[order] * later
        values["volume"] = volume
    reading.adjusted = True
    full = all(f"adj {role}" in values for role in PRICES if role in values)
    how = "of the source" if full else "open, high and low in the close's ratio"
    reading.assume(f"adjusted prices taken, {how}")


def find_jumps(bars: pd.DataFrame) -> tuple[Mask, list[str]]:
    """Return which bars open far from the close before them, and in words how far.

    A jump is one of more than a third and of ten times the usual move, from a positive price to another.
    """
    opens, closes = bars["open"].to_numpy(), bars["close"].to_numpy()
    jumps = np.zeros(len(bars), dtype=bool)
    with np.errstate(all="ignore"):
        moves = np.log(opens[1:] / closes[:-1])
        large = (np.abs(moves) > _JUMP) & (opens[1:] > 0) & (closes[:-1] > 0)
        if len(bars) < 3 or not large.any():
            return jumps, []
        usual = np.abs(np.log(closes[1:] / closes[:-1]))
    usual = usual[np.isfinite(usual)]
    large &= np.abs(moves) > 10 * (np.median(usual) if len(usual) else 0.0)
    jumps[1:] = large
    return jumps, [_spelled(move) for move in moves[large]]


def _spelled(move: float) -> str:
    """Return how far a price jumped, and the split that would explain it."""
    with np.errstate(all="ignore"):
        ratio = float(np.exp(move))
    near = min(_SPLITS, key=lambda size: abs(move + math.log(size)))
    times = f"to {ratio:.3g} times the close before"
    if abs(move + math.log(near)) > 0.08:
        return times
    name = f"{near:.3g}:1" if near > 1 else f"1:{1 / near:.3g}"
    return f"{times}, as at a split of {name}"


def find_gaps(index: pd.DatetimeIndex) -> Mask:
    """Return which bars follow a gap that no holiday explains: two weeks, or three bars of more than that."""
    steps = np.diff(index.as_unit("ns").asi8)
    gaps = np.zeros(len(index), dtype=bool)
    if len(steps):
        gaps[1:] = steps > _LONG_GAP
        if gaps.any():
            gaps[1:] &= steps > 3 * float(np.median(steps))
    return gaps


def warn_of(reading: Reading, bars: pd.DataFrame) -> None:
    """Warn of jumps, gaps and changing lengths in bars that are whole."""
    index = pd.DatetimeIndex(bars.index)
    jumps, how = find_jumps(bars)
    levels = bool(
        (bars["open"].to_numpy() == bars["close"].to_numpy()).all()
    )  # a series, not prices of trades
    if jumps.any() and not levels:
        reading.warn(
            f"prices jump from one bar to the next at {name_bars(index, jumps)}: {how[0]}; adjusted prices?"
        )
    gaps = find_gaps(index)
    if gaps.any():
        longest = int(np.diff(index.as_unit("ns").asi8).max()) // _DAY
        reading.warn(f"gaps before {name_bars(index, gaps)}, the longest {longest} days")
    if len(index) >= 20:
        half = len(index) // 2
        first, second = bar_length(index[:half]), bar_length(index[half:])
        if first != second:
            reading.warn(f"bars change their length: {first} in the first half, {second} in the second")
    zone = reading.format.zone
    if zone is not None and reading.zone == zone and (index != index.normalize()).any():
        _warn_of_zone(reading, index, zone)


def _warn_of_zone(reading: Reading, index: pd.DatetimeIndex, zone: str) -> None:
    local = index.tz_localize(zone, ambiguous=np.ones(len(index), dtype=bool), nonexistent="NaT")
    missing = np.asarray(local.isna())
    if missing.any():
        reading.warn(f"no such time in {zone} at {name_bars(index, missing)}: is the zone right?")
