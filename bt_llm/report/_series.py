"""Curves and prices as the page's script reads them: short enough to draw, and plain JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["MAX_BARS", "MAX_POINTS", "Stretch", "curves", "drawdown", "keep", "lines", "price"]

MAX_POINTS = 12_000
"""About how many points of curves are drawn: highs and lows in as many stretches as a page has pixels."""

MAX_BARS = 20_000
"""Bars of a price chart that are drawn."""

Stretch: TypeAlias = tuple[pd.Timestamp, pd.Timestamp, str]
"""Times of the first and last bar of a stretch, and its name."""

_FIRST_CODE = ord("a")


def seconds(index: pd.Index[Any]) -> list[int]:
    """Return times as whole seconds since 1970; Backtrader's are floats, off by microseconds."""
    times = pd.DatetimeIndex(index)
    naive = times.tz_convert(None) if times.tz is not None else times
    found: list[int] = ((naive.round("s") - pd.Timestamp(0)) // pd.Timedelta("1s")).tolist()
    return found


def drawdown(equity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far an account is below its highest value so far, as a fraction, 0 or negative.

    Examples
    --------
    >>> drawdown(np.array([100.0, 110.0, 99.0])).round(3).tolist()
    [0.0, 0.0, -0.1]
    """
    peak = np.maximum.accumulate(equity)
    return np.divide(equity - peak, peak, out=np.zeros(len(equity)), where=peak > 0.0)


def keep(values: list[NDArray[np.float64]], points: int = MAX_POINTS) -> NDArray[np.int64]:
    """Return the positions to draw: both ends, and the highest and lowest of every curve in every stretch.

    Parameters
    ----------
    values : list of array
        Curves of one length.
    points : int
        About how many positions to keep.

    Examples
    --------
    >>> curve = np.zeros(100)
    >>> curve[37] = 5.0
    >>> kept = keep([curve], points=10)
    >>> 37 in kept, len(kept) <= 12
    (True, True)
    """
    length = len(values[0])
    if length <= points:
        return np.arange(length)
    edges = np.linspace(0, length, max(2, points // (2 * len(values))) + 1).astype(int)
    kept = {0, length - 1}
    for start, stop in itertools.pairwise(edges.tolist()):
        for curve in values:
            part = curve[start:stop]
            known = np.flatnonzero(np.isfinite(part))
            if len(known):
                low, high = known[np.argmin(part[known])], known[np.argmax(part[known])]
                kept |= {start + int(low), start + int(high)}
    return np.array(sorted(kept))


def curves(equities: Mapping[str, pd.Series[float]]) -> dict[str, Any]:
    """Return equity curves with their drawdowns for the script; all have the times of the first.

    Drawdowns are those of every bar; only what is drawn of them is thinned out.
    """
    index = next(iter(equities.values())).index
    found: dict[str, NDArray[np.float64]] = {
        name: np.asarray(equity, dtype=np.float64) for name, equity in equities.items()
    }
    falls = {name: drawdown(values) for name, values in found.items()}
    panes = [("Value of the account", "number", 260, found, 6), ("Drawdown", "percent", 150, falls, 5)]
    return lines(index, panes)


Pane: TypeAlias = tuple[str, str, int, Mapping[str, NDArray[np.float64]], int]
"""Title, unit (``number`` or ``percent``), height, curves by name, and digits to draw by."""


def lines(index: pd.Index[Any], panes: Sequence[Pane]) -> dict[str, Any]:
    """Return curves over one another for the script, with the same names and bars in each pane.

    Where there are too many bars to draw, the highest and the lowest of each curve in each stretch are kept:
    the lowest point of a drawdown need not be one of its equity curve.
    """
    names = list(panes[0][3])
    kept = keep([curve for *_, curves_of, _ in panes for curve in curves_of.values()])
    return {
        "kind": "lines",
        "at": kept.tolist(),
        "times": seconds(index[kept]),
        "names": names,
        "panes": [
            {
                "title": title,
                "unit": unit,
                "height": height,
                "fill": title == "Drawdown",
                "values": [_rounded(found[name][kept], digits) for name in names],
            }
            for title, unit, height, found, digits in panes
        ],
        "bars": len(index),
        "drawn": len(kept),
    }


def _rounded(values: NDArray[np.float64], digits: int) -> list[float | None]:
    """Return values with so many digits behind the point, or of large ones altogether; None for NaN."""
    return [None if math.isnan(v) else round(v, 2 if abs(v) >= 1000.0 else digits) for v in values.tolist()]


def price(
    bars: pd.DataFrame,
    verdicts: pd.DataFrame | None,
    trades: pd.DataFrame,
    stretches: Sequence[Stretch] = (),
) -> dict[str, Any]:
    """Return bars with verdicts and trades for the script.

    Parameters
    ----------
    bars : DataFrame
        Open, high, low and close by time.
    verdicts : DataFrame, optional
        ``answer``, ``worth`` and ``confidence`` by time; see `bt_llm.backtest.answers_of`.
    trades : DataFrame
        With the columns of `BacktestResult.trades`.
    stretches : sequence of Stretch
        Parts of the bars that have a name.

    Notes
    -----
    Of more than `MAX_BARS` bars, neighbours are joined into one, with the verdict of the last of them. A
    trade is drawn at the open of the bar it was filled on; slippage is not in it.
    """
    step = -(-len(bars) // MAX_BARS)
    group = np.arange(len(bars)) // step
    joined = bars.groupby(group).agg({"open": "first", "high": "max", "low": "min", "close": "last"})
    last = np.append(np.flatnonzero(np.diff(group)), len(bars) - 1)
    codes, confidence, kinds = "." * len(last), None, []
    if verdicts is not None:
        kinds = _kinds(verdicts)
        code_of = {name: chr(_FIRST_CODE + at) for at, (name, _) in enumerate(kinds)}
        answers = verdicts.reindex(bars.index).iloc[last]
        codes = "".join(code_of.get(answer, ".") for answer in answers["answer"])
        confidence = [None if value != value else round(value, 3) for value in answers["confidence"].tolist()]
    places = {name: _places(bars.index, trades[name]) // step for name in ("opened", "closed")}
    opened = bars["open"].to_numpy()
    fills = {name: opened[_places(bars.index, trades[name])].tolist() for name in places}
    return {
        "kind": "price",
        "times": seconds(bars.index[last]),
        "ohlc": [[float(f"{value:.7g}") for value in joined[name].tolist()] for name in joined],
        "verdicts": codes,
        "answers": kinds,
        "confidence": confidence,
        "trades": [
            list(row)
            for row in zip(
                places["opened"].tolist(),
                places["closed"].tolist(),
                fills["opened"],
                fills["closed"],
                trades["direction"].tolist(),
                [round(value, 2) for value in trades["pnlcomm"].tolist()],
                strict=True,
            )
        ],
        "stretches": [
            [*(_places(bars.index, pd.Series([first, end])) // step).tolist(), name]
            for first, end, name in stretches
        ],
        "bars": len(bars),
        "drawn": len(last),
    }


def _kinds(verdicts: pd.DataFrame) -> list[tuple[str, float | None]]:
    """Return the answers that occur and their worths, the highest first; an unreadable one has none."""
    found = verdicts.loc[verdicts["confidence"].notna(), ["answer", "worth"]].drop_duplicates()
    worths = {str(name): worth for name, worth in found.itertuples(index=False)}
    ordered = sorted(worths, key=lambda name: (math.isnan(worths[name]), -worths[name], name))
    return [(name, None if math.isnan(worths[name]) else worths[name]) for name in ordered]


def _places(index: pd.Index[Any], times: pd.Series[Any]) -> NDArray[np.int64]:
    if times.empty:
        return np.empty(0, dtype=np.int64)
    own = pd.DatetimeIndex(index)
    naive = own.tz_convert(None) if own.tz is not None else own
    found: NDArray[np.int64] = naive.get_indexer(pd.DatetimeIndex(times).round("s"), method="nearest")
    return found
