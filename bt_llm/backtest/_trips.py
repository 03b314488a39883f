"""What each closed trade was: size, prices and return, and what the model had said before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["kept_out", "trades_told"]

_DUST = 1e-9


@dataclass(slots=True, kw_only=True)
class _Trip:
    """From flat to flat on one data."""

    opened: Any
    side: int
    closed: Any = None
    size: float = 0.0
    paid: float = 0.0
    got: float = 0.0
    open: float = 0.0

    @property
    def earned(self) -> float:
        """What the prices came to, of a contract that is worth its price."""
        return self.side * (self.got - self.paid)


def trades_told(
    trades: pd.DataFrame, fills: pd.DataFrame, orders: pd.DataFrame, verdicts: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return closed trades with what each was, and what its model had said.

    Parameters
    ----------
    trades, fills, orders : DataFrame
        As in `BacktestResult`, ``orders`` being its ``order_log``.
    verdicts : mapping of str to DataFrame
        By data; see `answers_of`.

    Returns
    -------
    DataFrame
        The trades with ``size`` (all that was bought of a long one, sold of a short one), ``price`` and
        ``exit_price`` (means over the fills, weighted by size), ``return`` (after commission, on the value of
        what was entered), and ``verdict`` with ``confidence``, at the close that the entry was decided at.

    Notes
    -----
    Sizes and prices are put together from the fills of a data, flat to flat. Where a strategy keeps several
    trades of one data apart (``tradeid``), and those are not the trades, they are NaN, and so is the return
    of a contract whose multiplier the fills do not tell. The verdict is that of the last close before the
    fill, if an order of that side was sent then; that of its own close for an order that waited for its
    price, or that fills at the close; else empty.
    """
    trips = _by_key(fills)
    found = [
        _matched(trips, row)
        for row in trades[["data", "opened", "closed", "direction"]].itertuples(index=False)
    ]
    worth = _worth_of_a_point(trades, found)
    told = trades.copy()
    told["size"] = [math.nan if one is None else one.size for one in found]
    told["price"] = [math.nan if one is None else one.paid / one.size for one in found]
    told["exit_price"] = [math.nan if one is None else one.got / one.size for one in found]
    entered = np.array([math.nan if one is None else one.paid for one in found], dtype=np.float64)
    points = np.array([worth.get(str(name), math.nan) for name in trades["data"]], dtype=np.float64)
    told["return"] = np.asarray(trades["pnlcomm"], dtype=np.float64) / (entered * points)
    said, sure = _said(trades, orders, verdicts)
    told["verdict"] = pd.Series(said, index=told.index, dtype=object)
    told["confidence"] = sure
    return told


def _by_key(fills: pd.DataFrame) -> dict[tuple[Any, ...], list[_Trip]]:
    """Return round trips by data, times and side; several of one bar in order."""
    alive: dict[str, _Trip] = {}
    found: dict[tuple[Any, ...], list[_Trip]] = {}
    for time, data, size, price in fills[["time", "data", "size", "price"]].itertuples(index=False):
        left, side = abs(size), 1 if size > 0 else -1
        trip = alive.get(data)
        if trip is not None and trip.side != side:
            taken = min(left, trip.open)
            trip.got += taken * price
            trip.open -= taken
            left -= taken
            if trip.open <= _DUST * trip.size:
                trip.closed = time
                found.setdefault((data, trip.opened, time, trip.side), []).append(alive.pop(data))
                trip = None
        if left > _DUST * abs(size):
            if trip is None:
                trip = alive[data] = _Trip(opened=time, side=side)
            trip.size += left
            trip.paid += left * price
            trip.open += left
    return found


def _matched(trips: dict[tuple[Any, ...], list[_Trip]], trade: Any) -> _Trip | None:
    waiting = trips.get((trade.data, trade.opened, trade.closed, trade.direction))
    return waiting.pop(0) if waiting else None


def _worth_of_a_point(trades: pd.DataFrame, trips: list[_Trip | None]) -> dict[str, float]:
    """Return what a price of 1 is worth in money, by data: 1 of a share; NaN where trades disagree on it."""
    by_data: dict[str, list[tuple[float, float, float]]] = {}
    for name, pnl, trip in zip(trades["data"], trades["pnl"], trips, strict=True):
        if trip is not None:
            by_data.setdefault(str(name), []).append((float(pnl), trip.earned, trip.paid))
    found = {}
    for name, rows in by_data.items():
        pnl, earned, paid = np.array(rows).T
        squares = float(earned @ earned)
        points = float(pnl @ earned) / squares if squares else math.nan
        if squares and np.allclose(pnl, earned, rtol=0.0, atol=1e-9 * float(np.abs(paid).max())):
            points = 1.0
        agreed = np.allclose(
            pnl, points * earned, rtol=0.0, atol=1e-6 * float(np.abs(pnl).max(initial=1e-12))
        )
        found[name] = points if agreed and points > 0.0 else math.nan
    return found


def _said(
    trades: pd.DataFrame, orders: pd.DataFrame, verdicts: Mapping[str, pd.DataFrame]
) -> tuple[list[str], NDArray[np.float64]]:
    """Return what each trade's model had said when its entry was decided, and how surely."""
    answers, sure = np.full(len(trades), "", dtype=object), np.full(len(trades), math.nan)
    sent = orders[(orders["traded"] > 0.0) & ~orders["vetoed"].astype(bool)] if len(orders) else orders
    by_side = {key: _Sent.of(part) for key, part in sent.groupby(["data", "side"])} if len(sent) else {}
    for name, own in trades.groupby("data", sort=False).indices.items() if len(trades) else ():
        frame = verdicts.get(str(name))
        if frame is None or not len(frame):
            continue
        times = _clock(frame.index)
        opened, closed = (_clock(trades[column])[own] for column in ("opened", "closed"))
        after = np.concatenate([[np.iinfo(np.int64).min], closed[:-1]])
        sides = trades["direction"].to_numpy()[own]
        places = np.full(len(own), -1)
        for side in np.unique(sides):
            if (known := by_side.get((name, side))) is not None:
                at = sides == side
                places[at] = known.decided(times, opened[at], after[at])
        found = places >= 0
        answers[own[found]] = frame["answer"].iloc[places[found]].astype(str)
        sure[own[found]] = frame["confidence"].to_numpy()[places[found]]
    return answers.tolist(), sure


def _clock(times: Any) -> NDArray[np.int64]:
    return pd.DatetimeIndex(times).as_unit("ns").asi8


@dataclass(frozen=True, slots=True)
class _Sent:
    """When orders of one data and side were sent: all, and those that waited for their price; sorted."""

    all: NDArray[np.int64]
    waited: NDArray[np.int64]

    @classmethod
    def of(cls, orders: pd.DataFrame) -> _Sent:
        times, waited = _clock(orders["time"]), orders["kind"].to_numpy() != "Market"
        return cls(np.sort(times), np.sort(times[waited]))

    def decided(
        self, times: NDArray[np.int64], opened: NDArray[np.int64], after: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the position of the close that each entry was decided at; -1 where that cannot be told.

        Parameters
        ----------
        times : ndarray of int, shape (bars,)
            Of the closes.
        opened, after : ndarray of int, shape (trades,)
            When each trade was opened, and when the one before it was closed.
        """
        before = times.searchsorted(opened) - 1
        at_once = (before >= 0) & np.isin(times[before], self.all)
        last = self.waited.searchsorted(opened) - 1
        waited = self.waited[last] if len(self.waited) else opened
        has_waited = (last >= 0) & (waited >= after)
        sent = np.where(has_waited, waited, opened)
        place = times.searchsorted(sent, side="right") - 1
        told = (has_waited | np.isin(opened, self.all)) & (place >= 0) & (times[place] == sent)
        return np.where(at_once, before, np.where(told, place, -1))


def kept_out(gated: Any, ungated: Any) -> pd.DataFrame:
    """Return the trades of an ungated run that the gated one did not make, and what they came to there.

    Parameters
    ----------
    gated, ungated : BacktestResult
        Of one strategy on the same bars.

    Returns
    -------
    DataFrame
        As `BacktestResult.trades`; ``verdict`` and ``confidence`` are those of the gated run's model at the
        close that the ungated run decided at. A trade is the same if it is of the same data and side and was
        opened on the same bar. It describes: exits and sizes are those of the ungated run, whose account is
        another.
    """
    keys = ["data", "opened", "direction"]
    made = set(gated.trades[keys].itertuples(index=False, name=None))
    rows = ungated.trades[keys].itertuples(index=False, name=None)
    missing = np.array([row not in made for row in rows], dtype=bool)
    found = ungated.trades[missing].reset_index(drop=True)
    said, sure = _said(found, ungated.order_log, gated.verdicts)
    told: pd.DataFrame = found.assign(verdict=pd.Series(said, dtype=object), confidence=sure)
    return told
