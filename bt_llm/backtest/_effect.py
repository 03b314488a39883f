"""What a gate is worth, taken apart, and what it would be worth at other costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from bt_llm import statistics
from bt_llm.backtest._findings import Bootstrap, Primary, interval
from bt_llm.backtest._legs import legs_of
from bt_llm.backtest._market import Market
from bt_llm.backtest._result import BacktestResult
from bt_llm.backtest._sections import Section, percent, table_of, table_section
from bt_llm.backtest._year import periods_per_year
from bt_llm.exceptions import BtLlmError
from bt_llm.plain_text import counted
from bt_llm.shown import Told
from bt_llm.statistics import BootstrapResult, CostPoint, Legs

__all__ = ["DESCRIPTIVE", "PART_NAMES", "Effect", "parts_section", "told_apart"]

DESCRIPTIVE = "What follows describes these bars, and is no test of anything."

_MEANINGS = {
    "whole": "gated less ungated, a year",
    "exposure": "in the market for another share of the time",
    "side": "long for another share of that",
    "cost": "commission and slippage that were not paid",
    "timing": "when it let the strategy in: what is left",
}
PART_NAMES = {"side": "side bias", "cost": "costs saved"}
"""Of the parts of an effect, where they are called otherwise."""

_POINTS = 9
_LEAST_RANGE = 0.002
_FEWEST = 5


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Effect(Told):
    """What a gate changed, as its parts.

    Parameters
    ----------
    gated, ungated : Legs or None
        What the sides of the two runs earned; None where they cannot be told apart.
    index : DatetimeIndex
        Times of their bars.
    bootstrap : Bootstrap
        How the intervals are made.
    rate : float
        What trading cost the ungated strategy, as a share of the value traded.
    reason : str
        Why there is no effect to speak of; usually empty.
    """

    gated: Legs | None
    ungated: Legs | None
    index: pd.DatetimeIndex
    bootstrap: Bootstrap
    rate: float = 0.0
    reason: str = ""

    @classmethod
    def of(
        cls, gated: BacktestResult, ungated: BacktestResult, market: Market, bootstrap: Bootstrap
    ) -> Effect:
        """Return the effect of a gate, from both runs and what they ran on."""
        index = pd.DatetimeIndex(gated.equity.index[1:])
        try:
            if not gated.equity.index.equals(ungated.equity.index):
                raise BtLlmError("the two runs are not of the same bars")
            own, other = legs_of(gated, market), legs_of(ungated, market)
        except BtLlmError as error:
            return cls(gated=None, ungated=None, index=index, bootstrap=bootstrap, reason=str(error))
        traded = float(other.traded.sum())
        rate = float(other.cost.sum()) / traded if traded else 0.0
        return cls(gated=own, ungated=other, index=index, bootstrap=bootstrap, rate=rate)

    @cached_property
    def _parts(self) -> tuple[dict[str, BootstrapResult], str]:
        if self.gated is None or self.ungated is None:
            return {}, self.reason
        try:
            return self.bootstrap.apart(self.gated, self.ungated, self.index), ""
        except BtLlmError as error:  # too few bars, or no arch to choose blocks by
            return {}, str(error)

    @property
    def parts(self) -> dict[str, BootstrapResult]:
        """The whole difference in mean return a year, and its parts; see `statistics.take_apart`."""
        return self._parts[0]

    @property
    def problem(self) -> str:
        """Why there are no parts; usually empty."""
        return self._parts[1]

    @cached_property
    def error(self) -> float:
        """Standard error of the timing, a year."""
        if self.gated is None or self.ungated is None:
            return math.nan
        return statistics.timing_of(self.gated, self.ungated).error * periods_per_year(self.index)

    @cached_property
    def breakeven(self) -> float | None:
        """Cost, as a share of the value traded, at which gated and ungated earn the same; None if none is."""
        if self.gated is None or self.ungated is None:
            return None
        return statistics.breakeven_cost(self.gated, self.ungated)

    @cached_property
    def curve(self) -> list[CostPoint]:
        """The whole effect a year at several costs, from none to twice what is charged or breaks even."""
        if self.gated is None or self.ungated is None or not self.parts:
            return []
        most = max(2.0 * self.rate, 2.0 * min(self.breakeven or 0.0, 0.05), _LEAST_RANGE)
        return statistics.cost_curve(
            self.gated,
            self.ungated,
            [most * step / (_POINTS - 1) for step in range(_POINTS)],
            n=min(self.bootstrap.resamples, 999),
            seed=self.bootstrap.seed,
            block_length=self.bootstrap.block_length,
            periods_per_year=periods_per_year(self.index),
        )

    def question(self, trades: float, blocked: int | None, alpha: float = 0.05) -> Primary:
        """Return whether the gate's timing is worth anything, by the bootstrap: two-sided.

        Parameters
        ----------
        trades : float
            That the gate left.
        blocked : int or None
            Entries that it blocked, where that is known.
        alpha : float
            Level of the test.
        """
        timing = self.parts.get("timing")
        reason = self.problem
        if reason:
            pass
        elif trades < _FEWEST:
            reason = f"the gate left {counted(trades, 'trade')}, and at least {_FEWEST} are needed"
        elif blocked is not None and blocked < _FEWEST:
            reason = f"the gate blocked {counted(blocked, 'entry')}, and at least {_FEWEST} are needed"
        elif timing is not None and timing.n == 0:
            reason = "gated and ungated do not differ in when they are in the market"
        gains = timing is None or timing.estimate >= 0.0
        return Primary(
            claim=f"the gate's timing is worth {'more' if gains else 'less'} than nothing",
            p_value=math.nan if timing is None else timing.p_value,
            smallest=1.0 / (1 + self.bootstrap.resamples),
            alpha=alpha,
            detectable=None if reason else statistics.detectable(self.error, alpha=alpha, two_sided=True),
            reason=reason,
        )

    @property
    def sentences(self) -> list[str]:
        """What it is made of, in words; they describe."""
        if not self.parts:
            return [f"The gate's effect is not taken apart: {self.problem}."]
        return [
            f"Gated less ungated, mean return a year: {told_apart(self.parts)}.",
            self._breakeven_sentence,
        ]

    @property
    def _breakeven_sentence(self) -> str:
        if self.breakeven is None:
            return "There is no cost of trading at which gated and ungated would earn the same."
        return (
            f"Gated and ungated would earn the same at a cost of {100 * self.breakeven:.3g} % of the value "
            f"traded; {100 * self.rate:.3g} % was charged."
        )

    def sections(self) -> Iterator[Section]:
        """Yield what it is made of, and its curve against cost."""
        if not self.parts:
            return
        yield parts_section("What the gate's effect is made of", self.parts)
        yield Section(
            kind="costs",
            title="The effect at other costs",
            text=f"All else the same. {self._breakeven_sentence}",
            table=table_of(["cost", "effect a year", "95 % interval"], map(_cost_row, self.curve)),
            content=self.curve,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "parts": self.parts,
            "problem": self.problem,
            "cost_charged": self.rate,
            "breakeven_cost": self.breakeven,
            "at_cost": [{"cost": point.cost, "effect": point.effect} for point in self.curve],
        }


def told_apart(parts: Mapping[str, BootstrapResult]) -> str:
    """Return the whole of a gate's effect with its interval, and what it is made of, in words."""
    others = ", ".join(
        f"{PART_NAMES.get(name, name)} {100 * part.estimate:+.2f} %"
        for name, part in parts.items()
        if name != "whole"
    )
    return (
        f"{interval(parts['whole'], 'return')}. That is {others}; only the last is the gate's choice of when"
    )


def parts_section(title: str, parts: Mapping[str, BootstrapResult], text: str = "") -> Section:
    """Return a table of the parts of a gate's effect."""
    rows = [
        [
            PART_NAMES.get(name, name),
            percent(part.estimate),
            f"{percent(part.low)} to {percent(part.high)}",
            _MEANINGS[name],
        ]
        for name, part in parts.items()
    ]
    head = ["", "a year", "95 % interval", "what it is"]
    said = f"Each side is compared with its own. The parts sum to the whole, and describe it. {text}".strip()
    return table_section(title, head, rows, said)


def _cost_row(point: CostPoint) -> Sequence[str]:
    effect = point.effect
    span = f"{percent(effect.low)} to {percent(effect.high)}"
    return [percent(point.cost, 3), percent(effect.estimate), span]
