"""What a gate is worth on many symbols, taken apart: exposure, side, cost, and what is left, timing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.backtest._effect import PART_NAMES, Effect, parts_section, told_apart
from bt_llm.backtest._findings import Bootstrap
from bt_llm.backtest._legs import legs_of
from bt_llm.backtest._market import Market
from bt_llm.backtest._panel import PanelRun
from bt_llm.backtest._result import BacktestResult
from bt_llm.backtest._sections import Section, percent, table_section
from bt_llm.backtest._year import periods_per_year
from bt_llm.exceptions import BtLlmError
from bt_llm.statistics import PARTS, Legs, PanelParts, take_apart_jointly

__all__ = ["PanelWorth", "panel_worth", "sides_in", "sides_of"]

_FLOWS = ("long", "short", "cost", "traded")
_HELD = ("long_exposure", "short_exposure")


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelWorth:
    """What a gate is worth on many symbols.

    Attributes
    ----------
    parts : PanelParts or None
        The difference in pooled mean return a year and its parts, pooled and symbol by symbol.
    problem : str
        Why there are none; usually empty.
    """

    parts: PanelParts | None
    problem: str = ""

    @property
    def sentence(self) -> str:
        """What it is made of, in words, which describe."""
        if self.parts is None:
            return f"The gate's effect is not taken apart: {self.problem}."
        return f"Gated less ungated, pooled mean return a year: {told_apart(self.parts.pooled)}."

    def sections(self, name: str = "the gate") -> Iterator[Section]:
        """Yield what it is made of, pooled and symbol by symbol.

        Parameters
        ----------
        name : str
            Whose effect it is.
        """
        if self.parts is None:
            return
        text = (
            "Pooled over the symbols, each compared with itself: which symbols it is open in is exposure. "
            "Blocks of dates were drawn, the same dates of all symbols."
        )
        yield parts_section(f"What the effect of {name} is made of", self.parts.pooled, text)
        rows = []
        for symbol, parts in self.parts.symbols.items():
            timing = parts["timing"]
            span = f"{percent(timing.low)} to {percent(timing.high)}"
            p = "-" if timing.n == 0 else f"{timing.p_value:.3g}"
            rows.append([symbol, *(percent(parts[part].estimate) for part in PARTS), span, p])
        named = [PART_NAMES.get(part, part) for part in PARTS]
        yield table_section(
            f"What each symbol adds to the effect of {name}",
            ["symbol", *named, "timing, 95 % interval", "adjusted p"],
            rows,
            "Points of the pooled mean return a year, which the symbols sum to. The intervals of timing hold "
            "all at once, and its p-values are adjusted for the number of symbols.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        parts = self.parts
        return {
            "pooled": None if parts is None else parts.pooled,
            "symbols": None if parts is None else parts.symbols,
            "problem": self.problem,
        }


def panel_worth(
    gated: PanelRun,
    ungated: PanelRun,
    legs: Mapping[str, tuple[Legs, Legs] | str],
    bootstrap: Bootstrap,
) -> PanelWorth:
    """Return what a gate is worth on many symbols, taken apart.

    Parameters
    ----------
    gated, ungated : PanelRun
        Of the same symbols and bars.
    legs : mapping of str to (Legs, Legs)
        What the sides of each symbol's two runs earned; or why that is not known.
    bootstrap : Bootstrap
        How the intervals are made; blocks are of dates, and all symbols of a block are drawn together.
    """
    for name, told in legs.items():
        if isinstance(told, str):
            return PanelWorth(parts=None, problem=f"{name}: {told}")
        if not gated.symbols[name].equity.index.equals(ungated.symbols[name].equity.index):
            return PanelWorth(parts=None, problem=f"{name}: the two runs are not of the same bars")
    shares = gated.shares.loc[gated.returns.index]
    accounts = {}
    for name, both in legs.items():
        assert not isinstance(both, str)
        index, share = gated.symbols[name].equity.index[1:], shares[name]
        accounts[name] = (_weighted(both[0], index, share), _weighted(both[1], index, share))
    try:
        parts = take_apart_jointly(
            accounts,
            n=bootstrap.resamples,
            seed=bootstrap.seed,
            block_length=bootstrap.block_length,
            periods_per_year=periods_per_year(pd.DatetimeIndex(shares.index)),
        )
    except BtLlmError as error:  # too few bars, or no arch to choose blocks by
        return PanelWorth(parts=None, problem=str(error))
    return PanelWorth(parts=parts)


def _weighted(legs: Legs, index: pd.Index, share: pd.Series[float]) -> Legs:
    """Return what an account adds to the pooled one: a position stays where its symbol has no bar."""
    frame = pd.DataFrame({name: getattr(legs, name) for name in (*_FLOWS, *_HELD)}, index)
    flows = frame[list(_FLOWS)].reindex(share.index).fillna(0.0)
    held = frame[list(_HELD)].reindex(share.index, method="ffill").fillna(0.0)
    columns = pd.concat([flows, held], axis=1).mul(share, axis=0)
    return Legs(**{str(name): column.to_numpy(dtype=np.float64) for name, column in columns.items()})


def sides_of(result: BacktestResult, market: Market) -> Legs | str:
    """Return what the sides of a backtest earned, or why that is not known; see `legs_of`."""
    try:
        return legs_of(result, market)
    except BtLlmError as error:
        return str(error)


def sides_in(effect: Effect | None) -> tuple[Legs, Legs] | str:
    """Return what the sides of the two runs of an effect earned, or why that is not known."""
    if effect is None or effect.gated is None or effect.ungated is None:
        return "what its sides earned is not known" if effect is None else effect.reason
    return effect.gated, effect.ungated
