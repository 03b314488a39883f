"""One study: a scripted model with a known memory, probed on a market; and many, as rates."""

from __future__ import annotations

import datetime
import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import Market
from bt_llm.data import shipped
from bt_llm.gates import Gate
from bt_llm.research import CONTROLS, PROBES
from bt_llm.research.leakage._controls import asked_control
from bt_llm.research.leakage._points import States, look_ahead, points_of, states_of
from bt_llm.research.leakage._probes import probe

CONFIG = AdvisorConfig(model="scripted:trend", cache_mode="off")
MARKETS = {
    "S&P 500, daily": ("sp500_daily.csv", datetime.date(2011, 12, 31)),
    "EUR/USD, hourly": ("eurusd_hourly.csv", datetime.date(2017, 10, 31)),
}
"""By name: a file that ships, and the last day that the models which remember have read about."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How many of several studies of one model on one market each probe caught it in."""

    market: str
    control: str
    studies: int
    caught: Counter[str]

    def of(self, name: str) -> float:
        """Return the share that a probe caught; ``any`` for at least one of them."""
        return self.caught[name] / self.studies

    @property
    def remembers(self) -> bool:
        """Whether it has to be caught."""
        return self.control.startswith("remembers")


@functools.cache
def _market(name: str) -> tuple[Market, States]:
    market = Market.of(shipped(MARKETS[name][0]))
    return market, states_of(market, Gate(advisor=CONFIG))


def caught_by(name: str, control: str, seed: int, *, points: int = 400, exchanges: int = 999) -> list[str]:
    """Return the probes that catch a control on a market, and ``any`` if one does."""
    market, states = _market(name)
    chosen = points_of(
        market, states, name=name, points=points, horizon=5, seed=seed, cutoff=MARKETS[name][1]
    )
    said = asked_control(control, market.first, chosen, CONFIG, seed)
    found = probe(chosen, said, _looked(name), exchanges=exchanges, seed=seed)
    caught = [one.name for one in found if one.found]
    return [*caught, *(["any"] if caught else [])]


@functools.cache
def _looked(name: str):  # type: ignore[no-untyped-def]
    market, states = _market(name)
    chosen = points_of(market, states, name=name, points=400, horizon=5, seed=0)
    return look_ahead(market, Gate(advisor=CONFIG), chosen, states.warm_up)


def rates(name: str, control: str, seeds: Sequence[int], *, points: int = 400) -> Rates:
    """Return how often each probe catches a control on a market."""
    caught = Counter(probe for seed in seeds for probe in caught_by(name, control, seed, points=points))
    return Rates(market=name, control=control, studies=len(seeds), caught=caught)


def every_pair() -> list[tuple[str, str]]:
    """Return every market with every control."""
    return [(name, control) for name in MARKETS for control in CONTROLS]


def table(found: Sequence[Rates]) -> str:
    """Return the rates as a table in Markdown."""
    head = ["market", "scripted model", *PROBES, "any"]
    rows = [
        [
            one.market,
            f"{one.control} ({'has to be caught' if one.remembers else 'honest'})",
            *(f"{100 * one.of(name):.0f} %" for name in (*PROBES, "any")),
        ]
        for one in found
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def misses(found: Sequence[Rates], alarms: float = 0.05, power: float = 0.9) -> list[str]:
    """Return what is beyond the bounds: false alarms of any probe, and the power of each."""
    missed = []
    for one in found:
        for name in (*PROBES, "any"):
            rate = one.of(name)
            if one.control == "remembers" and name != "any" and rate < power:
                missed.append(f"{one.market}, {one.control}: {name} catches {rate:.2f}, less than {power:g}")
            if not one.remembers and rate > alarms:
                missed.append(
                    f"{one.market}, {one.control}: {name} alarms in {rate:.2f}, more than {alarms:g}"
                )
    return missed
