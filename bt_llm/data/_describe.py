"""What bars are, in a few lines of text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bt_llm.data._length import bar_length
from bt_llm.data._prices import find_gaps, find_jumps
from bt_llm.data._reading import Mask, name_bars

__all__ = ["describe_bars"]

_STEPS = " ▁▂▃▄▅▆▇█"


def describe_bars(bars: pd.DataFrame, *, width: int = 60, height: int = 4) -> str:
    """Return what bars are: form, span, length, prices, gaps, jumps, repairs, and a picture of the closes.

    Parameters
    ----------
    bars : DataFrame
        As `load_bars` returns it.
    width, height : int
        Of the picture, in characters.

    Returns
    -------
    str
        Lines of text, without colours.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> print(describe_bars(load_bars(shipped("sp500_daily.csv")), width=40, height=2))
    form      bars of bt_llm
    bars      5,031 of 1 day, from 1999-01-04 00:00:00 to 2018-12-31 00:00:00
    zone      not known
    close     676.53 to 2930.75, last 2506.85
    gaps      none
    jumps     none
                                  ▁▂▃▂▃▄▅▆▇▅
    ▅▆▆▇▅▄▄▃▂▃▄▄▅▅▅▅▆▇▅▄▂▄▅▄▅▅▆▆▇███████████
    """
    index = pd.DatetimeIndex(bars.index)
    source = bars.attrs.get("source", {})
    closes = bars["close"].to_numpy()
    jumps, how = find_jumps(bars)
    length = bar_length(index)
    facts = [
        ("form", source.get("form") or "not known"),
        ("bars", f"{len(bars):,}{f' of {length}' if length else ''}, from {index[0]} to {index[-1]}"),
        ("zone", source.get("zone") or "not known"),
        ("close", f"{closes.min():.6g} to {closes.max():.6g}, last {closes[-1]:.6g}"),
        ("gaps", _named(index, find_gaps(index))),
        ("jumps", _named(index, jumps) + (f": {how[0]}" if how else "")),
        *(("symbol", source["symbol"]) for _ in range(1) if source.get("symbol")),
        *(("prices", "adjusted") for _ in range(1) if source.get("adjusted")),
        *(("assumed", text) for text in source.get("assumed", ())),
        *(("repaired", text) for text in bars.attrs.get("repairs", ())),
        *(("warning", text) for text in bars.attrs.get("warnings", ())),
    ]
    return "\n".join([*(f"{name:<10}{said}" for name, said in facts), *_picture(closes, width, height)])


def _named(index: pd.DatetimeIndex, where: Mask) -> str:
    return name_bars(index, where) if where.any() else "none"


def _picture(closes: np.ndarray[tuple[int], np.dtype[np.float64]], width: int, height: int) -> list[str]:
    """Return lines of blocks, the last close of each part of the bars as a column."""
    ends = np.unique(np.linspace(0, len(closes) - 1, min(width, len(closes))).round().astype(int))
    low, high = float(closes.min()), float(closes.max())
    levels = 1 + (closes[ends] - low) / ((high - low) or 1.0) * (height * 8 - 1)  # the lowest is seen too
    lines = []
    for row in reversed(range(height)):
        eighths = np.clip(levels - 8 * row, 0, 8).round().astype(int)
        lines.append("".join(_STEPS[eighth] for eighth in eighths).rstrip())
    return lines
