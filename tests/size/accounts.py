"""What a strategy earns with any answers to its entries, worked out without Backtrader.

Of the strategies here each entry has a way out that does not depend on what was answered before, and takes
95 % of the account. So what it earns, as a share of the account, is the same in every run that makes it, and
a run is a choice among the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from bt_llm.gates import LONG, SHORT, Answers, DatedAnswers, DatesGate, EntryGate, ShiftedGate
from bt_llm.research._moments import Moments
from bt_llm.statistics import Legs, Timing, timing_of
from tests.size.markets import Bars, mean

__all__ = ["STRATEGIES", "WARM_UP", "Account", "Entry"]

WARM_UP = 60
"""First bar, from 1, at whose close a strategy decides."""

SHARE = 0.95
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """An entry: decided at a close, filled at the next open, left at the open after `leaves`."""

    bar: int
    side: int
    leaves: int


@dataclass(eq=False)
class Account:
    """A strategy on a market.

    Parameters
    ----------
    bars : Bars
        The market.
    entries : sequence of Entry
        All that it might make, in order; with `again` it makes one only while it has no other.
    again : bool
        Whether it asks again after a veto, so that what it asks about depends on the answers.
    cost : float
        Share of the value traded.
    first : float
        Number of the day of the first bar; the others are one a day.
    """

    bars: Bars
    entries: Sequence[Entry]
    again: bool = False
    cost: float = 0.0
    first: float = 0.0

    @classmethod
    def of(cls, strategy: str, bars: Bars, cost: float = 0.0, first: float = 0.0) -> Account:
        """Return an account of one of `STRATEGIES`."""
        entries, again = STRATEGIES[strategy](bars)
        return cls(bars, [one for one in entries if one.bar < len(bars) - 1], again, cost, first)

    @cached_property
    def times(self) -> Floats:
        """Numbers of the bars' days."""
        return self.first + np.arange(len(self.bars), dtype=float)

    @cached_property
    def paths(self) -> dict[str, sparse.csr_array]:
        """By series, one row an entry: what each adds to it, bar by bar from the warm-up on."""
        rows = [self._path(entry) for entry in self.entries]
        ends = np.cumsum([0, *(len(row["gain"]) for row in rows)])
        places = np.concatenate(
            [entry.bar + 1 - WARM_UP + np.arange(len(row["gain"])) for entry, row in self._with(rows)]
        )
        shape = (len(rows), len(self.bars) - WARM_UP)
        return {
            name: sparse.csr_array((np.concatenate([row[name] for row in rows]), places, ends), shape=shape)
            for name in ("gain", "exposure", "cost", "traded")
        }

    def _with(self, rows: list[dict[str, Floats]]) -> Iterator[tuple[Entry, dict[str, Floats]]]:
        return zip(self.entries, rows, strict=True)

    def _path(self, entry: Entry) -> dict[str, Floats]:
        """Return what an entry adds from the bar that it is filled at to that of its way out."""
        close, opens = self.bars.close, self.bars.open
        first, last = entry.bar + 1, min(entry.leaves + 1, len(self.bars) - 1)
        leaves = entry.leaves + 1 < len(self.bars)
        units = SHARE / close[entry.bar]
        prices = np.concatenate([[opens[first]], close[first : last + 1]])
        held = units * close[first : last + 1]
        traded = np.zeros(len(held))
        traded[0] += units * opens[first]
        if leaves:
            prices[-1] = opens[last]
            held[-1] = 0.0
            traded[-1] += units * opens[last]
        moves, cost = entry.side * units * np.diff(prices), self.cost * traded
        worth = 1.0 + np.cumsum(moves - cost)
        before = np.concatenate([[1.0], worth[:-1]])
        return {
            "gain": moves / before,
            "exposure": held / worth,
            "cost": cost / before,
            "traded": traded / before,
        }

    @cached_property
    def sides(self) -> NDArray[np.int64]:
        """Side of each entry."""
        return np.array([entry.side for entry in self.entries], dtype=np.int64)

    @cached_property
    def moments(self) -> Moments:
        """The bars at which a gate may answer, one a day."""
        close = self.bars.close
        levels = np.abs(np.diff(close, prepend=close[:1]) / np.concatenate([close[:1], close[:-1]]))
        first = WARM_UP - 1
        return Moments(times=self.times[first:], levels=levels[first:])

    def trades(self, run: tuple[list[int], list[bool]]) -> pd.DataFrame:
        """Return from when to when each trade of a run lasts."""
        made = [self.entries[row] for row, made in zip(*run, strict=True) if made]
        days = np.array([[one.bar + 1, min(one.leaves + 1, len(self.bars) - 1)] for one in made])
        table = pd.to_datetime(days.reshape(-1, 2).ravel(), unit="D").to_numpy().reshape(-1, 2)
        frame = pd.DataFrame(table, columns=["opened", "closed"])
        return frame.assign(direction=[one.side for one in made])

    # Runs

    def made(self, answer: Callable[[Entry], bool]) -> tuple[list[int], list[bool]]:
        """Return which entries are asked about, and which of them made."""
        asked, made, free = [], [], 0
        for row, entry in enumerate(self.entries):
            if self.again and entry.bar < free:
                continue
            asked.append(row)
            made.append(bool(answer(entry)))
            if made[-1]:
                free = entry.leaves
        return asked, made

    def with_lines(self, long: NDArray[np.bool_], short: NDArray[np.bool_]) -> tuple[list[int], list[bool]]:
        """Return the run of a gate that answers bar by bar."""
        return self.made(lambda entry: bool((long if entry.side == LONG else short)[entry.bar]))

    def mask(self, run: tuple[list[int], list[bool]]) -> Floats:
        """Return 1 for the entries that a run makes."""
        found = np.zeros(len(self.entries))
        found[np.array(run[0], dtype=int)] = run[1]
        return found

    @cached_property
    def everything(self) -> Floats:
        """The entries of the ungated strategy."""
        return self.mask(self.made(lambda _: True))

    def legs(self, mask: Floats) -> Legs:
        """Return what a run earns, as the statistics take it."""
        long, short = mask * (self.sides == LONG), mask * (self.sides == SHORT)
        path = self.paths
        return Legs(
            long=path["gain"].T @ long,
            short=path["gain"].T @ short,
            long_exposure=path["exposure"].T @ long,
            short_exposure=path["exposure"].T @ short,
            cost=path["cost"].T @ mask,
            traded=path["traded"].T @ mask,
        )

    def log(self, run: tuple[list[int], list[bool]]) -> tuple[Answers, tuple[DatedAnswers, ...]]:
        """Return what a gate answered in a run, in order and by time."""
        told = [(self.entries[row], made) for row, made in zip(*run, strict=True)]
        long, short = (bytes(made for one, made in told if one.side == side) for side in (LONG, SHORT))
        dated = DatedAnswers.of(("bars", one.side, float(self.times[one.bar]), made) for one, made in told)
        return Answers(long=long, short=short, per="entry"), dated

    def run_of(self, gate: EntryGate) -> tuple[list[int], list[bool]]:
        """Return the run of a null gate."""
        if isinstance(gate, DatesGate):
            return self.with_lines(*(gate.line("bars", side, self.times) for side in (LONG, SHORT)))
        assert isinstance(gate, ShiftedGate)
        given = gate.given()
        lines = {side: np.frombuffer(given.of_side(side), dtype=np.uint8) for side in (LONG, SHORT)}
        return self.made(lambda entry: bool(lines[entry.side][entry.bar - WARM_UP + 1]))

    def evaluate(self, gates: Sequence[EntryGate]) -> list[Mapping[str, float]]:
        """Return the figures of null gates, as `gate_test` asks for them."""
        masks = np.array([self.mask_of(gate) for gate in gates])
        pairs = zip(self.scores(masks), masks, strict=True)
        return [{"timing": score, "trades": float(mask.sum())} for score, mask in pairs]

    def mask_of(self, gate: EntryGate) -> Floats:
        """Return the entries that the run of a null gate makes."""
        if self.again or not isinstance(gate, DatesGate):
            return self.mask(self.run_of(gate))
        # What is asked about does not depend on the answers: each entry has its own.
        times, found = self.times[[one.bar for one in self.entries]], np.empty(len(self.entries))
        for side in (LONG, SHORT):
            here = self.sides == side
            found[here] = gate.line("bars", side, times[here])
        return found

    def sharpes(self, masks: Floats) -> list[float]:
        """Return the Sharpe ratio a bar of many runs."""
        net = self.paths["gain"] - self.paths["cost"]
        bars = net.shape[1]
        mean = masks @ net.sum(axis=1) / bars
        square = np.sum(((net @ net.T) @ masks.T).T * masks, axis=1) / bars
        spread = np.sqrt(np.maximum(square - mean**2, 0.0))
        return [float(m / s) if s > 0.0 else 0.0 for m, s in zip(mean, spread, strict=True)]

    def returns(self, masks: Floats) -> Floats:
        """Return what many runs earn, bar by bar."""
        path = self.paths
        found: Floats = masks @ (path["gain"] - path["cost"])
        return found

    def timing(self, mask: Floats) -> Timing:
        """Return what timing is worth, by the statistic itself."""
        return timing_of(self.legs(mask), self.legs(self.everything))

    def scores(self, masks: Floats) -> list[float]:
        """Return the scores of many runs: the same as `timing`, from products of entries with each other."""
        weights = masks.copy()
        path, everything = self.paths, self.everything
        gain, exposure = path["gain"].sum(axis=1), path["exposure"].sum(axis=1)
        rate = np.zeros(len(self.entries))
        for side in (LONG, SHORT):
            here = self.sides == side
            held = float(exposure[here] @ everything[here])
            if held <= 0.0:
                continue
            share = masks[:, here] @ exposure[here] / held
            weights[:, here] -= share[:, None] * everything[here]
            rate[here] = float(gain[here] @ everything[here]) / held
        total, squares = self._residuals(rate)
        bars = path["gain"].shape[1]
        estimate = weights @ total
        spread = np.sum((squares @ weights.T).T * weights, axis=1) - estimate**2 / bars
        worth = weights @ gain
        error = np.sqrt(np.maximum(spread, 0.0))
        return [float(w / e) if e > 1e-12 else 0.0 for w, e in zip(worth, error, strict=True)]

    def _residuals(self, rate: Floats) -> tuple[Floats, sparse.csr_array]:
        rest = self.paths["gain"] - sparse.diags_array(rate) @ self.paths["exposure"]
        return rest.sum(axis=1), rest @ rest.T


# Strategies: the entries that they might make, and whether they ask again after a veto


def _crossings(bars: Bars) -> list[tuple[int, int]]:
    """Return the bars at which an average of 10 closes crosses one of 30, and to which side."""
    above = mean(bars.close, 10) > mean(bars.close, 30)
    turns = np.flatnonzero(above[1:] != above[:-1]) + 1
    return [(int(bar), LONG if above[bar] else SHORT) for bar in turns if bar >= WARM_UP - 1]


def cross(bars: Bars) -> tuple[list[Entry], bool]:
    """Follow the trend, on either side."""
    turns = _crossings(bars)
    ends = [bar for bar, _ in turns[1:]] + [len(bars)]
    return [Entry(bar, side, end) for (bar, side), end in zip(turns, ends, strict=True)], False


def long_cross(bars: Bars) -> tuple[list[Entry], bool]:
    """Follow the trend upwards."""
    entries, again = cross(bars)
    return [entry for entry in entries if entry.side == LONG], again


def alternate(bars: Bars) -> tuple[list[Entry], bool]:
    """Long, then short, then long, each for five bars."""
    starts = range(WARM_UP - 1, len(bars) - 1, 5)
    return [Entry(bar, LONG if turn % 2 == 0 else SHORT, bar + 5) for turn, bar in enumerate(starts)], False


def hold(bars: Bars) -> tuple[list[Entry], bool]:
    """Long for ten bars whenever it may: it asks at every bar that it is out."""
    return [Entry(bar, LONG, bar + 10) for bar in range(WARM_UP - 1, len(bars) - 1)], True


def breakout(bars: Bars) -> tuple[list[Entry], bool]:
    """Go with a close beyond the range of 20 bars until one beyond that of 10 the other way."""
    close = bars.close
    entries, stop = [], len(bars)
    top, bottom = (_extreme(series, 20, best) for series, best in ((bars.high, np.max), (bars.low, np.min)))
    high, low = (_extreme(series, 10, best) for series, best in ((bars.high, np.max), (bars.low, np.min)))
    out = {LONG: np.flatnonzero(close < low), SHORT: np.flatnonzero(close > high)}
    for bar in range(WARM_UP - 1, stop - 1):
        side = LONG if close[bar] > top[bar] else SHORT if close[bar] < bottom[bar] else 0
        if side:
            later = out[side][out[side] > bar]
            entries.append(Entry(bar, side, int(later[0]) if len(later) else stop))
    return entries, True


def _extreme(values: Floats, bars: int, best: Callable[[Floats], float]) -> Floats:
    found = np.full(len(values), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(values, bars)
    found[bars:] = best(windows, axis=1)[:-1]  # type: ignore[call-arg]
    return found


def reversion(bars: Bars) -> tuple[list[Entry], bool]:
    """Buy an RSI that falls below 35, sell one that rises above 65, leave at 50."""
    rsi = bars.rsi
    entries = []
    out = {LONG: np.flatnonzero(rsi >= 50.0), SHORT: np.flatnonzero(rsi <= 50.0)}
    for bar in range(WARM_UP - 1, len(bars) - 1):
        side = LONG if rsi[bar] < 35.0 <= rsi[bar - 1] else SHORT if rsi[bar] > 65.0 >= rsi[bar - 1] else 0
        if side:
            later = out[side][out[side] > bar]
            entries.append(Entry(bar, side, int(later[0]) if len(later) else len(bars)))
    return entries, True


STRATEGIES: dict[str, Callable[[Bars], tuple[list[Entry], bool]]] = {
    "cross": cross,
    "long cross": long_cross,
    "alternate": alternate,
    "hold": hold,
    "breakout": breakout,
    "reversion": reversion,
}
