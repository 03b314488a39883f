"""The bars that a model is asked about: what was seen of each, what it is called, and what came."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Market
from bt_llm.exceptions import DataError
from bt_llm.gates import Gate
from bt_llm.indicators import copy_values
from bt_llm.research._leakage import other_futures
from bt_llm.research._runs import inspect_run
from bt_llm.shown import Told

__all__ = ["LookAhead", "Points", "States", "look_ahead", "points_of", "states_of"]

FEWEST = 30
"""Bars with a verdict and an outcome that a probe needs, on either side of a cut-off too."""

_ATR = 14
_AFTER = 40  # bars after the last that is left as it is, in a look for look-ahead
_HISTORY = 3  # warm-ups before it


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class States(Told):
    """The market state of every bar, as the model is told it.

    Attributes
    ----------
    values : dict of str to array of shape (bars,)
        Each feature's number, known at the bar's close.
    cells : array of int, shape (bars,)
        The cell of the state space; -1 before the warm-up and where a number is not finite.
    atr : array of shape (bars,)
        Average true range of 14 bars.
    warm_up : int
        Bars until the first state, that bar included.
    """

    values: dict[str, NDArray[np.float64]]
    cells: NDArray[np.int64]
    atr: NDArray[np.float64]
    warm_up: int


class _Look(bt.Strategy):  # type: ignore[misc]
    """Has the states of every bar worked out, and trades nothing."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.advice = self.p.gate.attach(self).advice
        self.range = bt.ind.ATR(self.data, period=_ATR)


def states_of(market: Market, gate: Gate) -> States:
    """Return the states of a market's bars; no model is asked.

    Parameters
    ----------
    market : Market
        Bars of one data.
    gate : Gate
        Whose state space and indicator say what a state is.
    """
    silent: dict[str, Any] = {
        "model": "scripted:trend",
        "fallbacks": (),
        "template": None,
        "reader": "logprobs",
        "identify": "",
        "calibration": "none",
        "min_label_mass": 0.0,
        "cache_mode": "off",
        "manager": None,
        "supplied": None,
    }
    quiet = dataclasses.replace(gate, advisor=dataclasses.replace(gate.advisor, **silent))
    _, ran = inspect_run(_Look, market, gate=quiet)
    space = gate.advisor.state_space
    values = {name: copy_values(getattr(ran.advice.lines, name)) for name in space.names}
    cells = space.cells(list(values.values()))
    cells[: ran.advice.warm_up_bars - 1] = -1
    return States(
        values=values,
        cells=cells,
        atr=copy_values(ran.range.lines.atr),
        warm_up=int(ran.advice.warm_up_bars),
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Points(Told):
    """Bars that are asked about; none of their outcomes overlap.

    Attributes
    ----------
    market : str
        What the market is called in prompts.
    times : DatetimeIndex
        Of the bars.
    rows : array of int
        Their places among the market's bars.
    cells : array of int
        What was seen of each.
    outcome : array of float
        Move of the close over the next `horizon` bars, in ATR times the root of the horizon.
    horizon : int
        Bars.
    cutoff : date or None
        Last day that the model may have read about.
    why_no_cutoff : str
        What there is to say where that is None.
    """

    market: str
    times: pd.DatetimeIndex
    rows: NDArray[np.int64]
    cells: NDArray[np.int64]
    outcome: NDArray[np.float64]
    horizon: int
    cutoff: datetime.date | None = None
    why_no_cutoff: str = ""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def before(self) -> NDArray[np.bool_]:
        """Which bars the model may have read about; all where no cut-off is known."""
        if self.cutoff is None:
            return np.ones(len(self), dtype=bool)
        return np.asarray(self.times.normalize() <= pd.Timestamp(self.cutoff))

    @property
    def lines(self) -> list[str]:
        """The line that names market and time in the prompt of each bar, such as ``Gold, 2020-03-09``."""
        days = bool((self.times == self.times.normalize()).all())
        written = self.times.strftime("%Y-%m-%d" if days else "%Y-%m-%d %H:%M")
        return [f"{self.market}, {time}" for time in written]

    def other_lines(self, seed: int) -> list[str]:
        """Return for each bar the line of another one, on the same side of the cut-off."""
        rng, found, lines = np.random.default_rng([seed, 1]), [""] * len(self), self.lines
        for side in (True, False):
            places = rng.permutation(np.flatnonzero(self.before == side))
            for own, other in zip(places.tolist(), np.roll(places, 1).tolist(), strict=True):
                found[own] = lines[other]
        return found


def points_of(
    market: Market,
    states: States,
    *,
    name: str,
    points: int,
    horizon: int,
    seed: int,
    cutoff: datetime.date | None = None,
    why_no_cutoff: str = "",
) -> Points:
    """Return bars to ask about, evenly spread from a random first one, with outcomes that do not overlap.

    Raises
    ------
    DataError
        If there are fewer than 30 of them.
    """
    bars = market.alone("a probe for leakage")
    close = bars["close"].to_numpy()
    usable = np.flatnonzero(states.cells[: max(0, len(close) - horizon)] >= 0)
    step = max(horizon, len(usable) // points)
    first = int(np.random.default_rng([seed, 0]).integers(step)) if len(usable) >= step else 0
    rows = usable[first::step][:points]
    atr = states.atr[rows] * np.sqrt(horizon)
    rows, atr = rows[atr > 0.0], atr[atr > 0.0]
    if len(rows) < FEWEST:
        raise DataError(
            f"{len(close):,} bars make {len(rows)} that can be asked about, {step} bars apart after a "
            "warm-up of "
            f"{states.warm_up}: expected at least {FEWEST}; give more bars, more points than {points}, or a "
            f"shorter horizon than {horizon}"
        )
    return Points(
        market=name,
        times=pd.DatetimeIndex(bars.index[rows]),
        rows=rows,
        cells=states.cells[rows],
        outcome=(close[rows + horizon] - close[rows]) / atr,
        horizon=horizon,
        cutoff=cutoff,
        why_no_cutoff=why_no_cutoff,
    )


@dataclass(frozen=True, kw_only=True)
class LookAhead:
    """Whether any state changed when only later bars did.

    Attributes
    ----------
    runs : int
        Histories with another future that were compared with the real one.
    changed : str
        The first thing that changed; empty if nothing did.
    """

    runs: int
    changed: str = ""


def look_ahead(
    market: Market, gate: Gate, points: Points, warm_up: int, *, at: int = 6, seed: int = 0
) -> LookAhead:
    """Change all bars after some of the points, and compare every state up to there, to the last bit.

    Parameters
    ----------
    at : int
        After how many of the points.
    """
    chosen = points.rows[np.unique(np.linspace(0, len(points) - 1, at).round().astype(int))]
    index, runs = market.index, 0
    for row in chosen.tolist():
        start, stop = max(0, row + 1 - _HISTORY * warm_up), row + 1 + _AFTER
        window = market.between(index[start], index[stop] if stop < len(index) else None)
        kept = row + 1 - start
        real = states_of(window, gate)
        for future in other_futures(window, kept, seed):
            runs += 1
            if changed := _difference(real, states_of(future, gate), kept, window.index):
                return LookAhead(runs=runs, changed=changed)
    return LookAhead(runs=runs)


def _difference(one: States, other: States, kept: int, times: pd.DatetimeIndex) -> str:
    for name, values in one.values.items():
        before, after = values[:kept], other.values[name][:kept]
        differs = np.flatnonzero((before != after) & ~(np.isnan(before) & np.isnan(after)))
        if len(differs):
            at = int(differs[0])
            return f"{name} of {times[at]} was {before[at]:.6g} and became {after[at]:.6g}"
    return ""
