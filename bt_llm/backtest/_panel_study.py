"""A strategy on many symbols, a run each, with its gate, without it, and held; and what is shown of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import backtrader as bt

from bt_llm.backtest._effect import DESCRIPTIVE
from bt_llm.backtest._findings import Bootstrap, Primary, interval, is_shown, problems_in, refusal
from bt_llm.backtest._panel import PanelEffect, PanelRun, effect_between
from bt_llm.backtest._panel_worth import PanelWorth, panel_worth, sides_in
from bt_llm.backtest._result import BacktestResult
from bt_llm.backtest._run import GateStudy, gate_study
from bt_llm.backtest._sections import (
    METRICS,
    Section,
    added_sections,
    bars_section,
    count,
    equity_section,
    metrics_section,
    number,
    percent,
    sentences_section,
    table_of,
    table_section,
    trades_section,
)
from bt_llm.backtest._showing import ManyRuns
from bt_llm.backtest._strategy_files import strategy_class
from bt_llm.backtest._universe import Member, Universe, UniverseSource, each_member
from bt_llm.data import BarFormat
from bt_llm.exceptions import DataError, MissingExtraError
from bt_llm.gates import EntryGate
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.progress import shows_progress
from bt_llm.statistics import Statistic, normal_quantile

__all__ = ["Panel", "PanelStudy", "forest_section", "panel_study", "shown_sentences"]

_FEWEST_TRADES = 5


class HasRuns(Protocol):
    """A result with runs by name."""

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The results by name."""

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints."""


S = TypeVar("S", bound=HasRuns)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Panel(Generic[S], ManyRuns):
    """What came of many symbols, and of all of them pooled.

    Attributes
    ----------
    symbols : dict of str to result
        Of each symbol.
    weights : dict of str to float
        Of its account in the pooled record; see `PanelRun`.
    left_out : dict of str to str
        Symbols whose bars were too few, and what was said of them.
    """

    symbols: dict[str, S]
    weights: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)

    @cached_property
    def runs(self) -> dict[str, PanelRun]:
        """The pooled runs by name."""
        names = next(iter(self.symbols.values())).runs
        return {
            name: PanelRun(
                name=name.replace("_", " "),
                symbols={symbol: result.runs[name] for symbol, result in self.symbols.items()},
                weights=self.weights,
            )
            for name in names
            if all(name in result.runs for result in self.symbols.values())
        }

    def _subject(self) -> str:
        return f"{counted(len(self.symbols), 'symbol')}, pooled: "

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against any conclusion, one line each, with the runs that it is of."""
        return problems_in(self.runs)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the symbols, one line each."""
        out = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        first, *others = self.runs.values()
        settled = [*first.settled]
        if any(run.settled for run in others):
            settled.append("What the other runs had open was closed likewise: no position is left open.")
        return (*out, *settled, *dict.fromkeys(note for run in self.runs.values() for note in run.notes))

    def symbols_section(self, names: Sequence[str]) -> Section:
        """Return a table of the symbols: their bars, and some runs of each."""
        figures = ("return", "sharpe") if len(names) < 3 else ("sharpe",)
        rows = []
        for symbol, result in self.symbols.items():
            runs = [result.runs[name] for name in names]
            index = runs[0].equity.index
            cells = [METRICS[figure][1](run.metrics[figure]) for figure in figures for run in runs]
            rows.append([symbol, f"{index[0]:%Y-%m-%d}", f"{index[-1]:%Y-%m-%d}", *cells])
        head = [f"{METRICS[figure][0]} {name}" for figure in figures for name in names]
        text = "A run each, on accounts of their own; a symbol that ends is closed at its last close."
        return table_section("Symbols", ["symbol", "from", "to", *head], rows, text)

    def pooled_sections(self) -> Iterator[Section]:
        """Yield the pooled metrics and equity curves."""
        yield metrics_section({name: run.metrics for name, run in self.runs.items()})
        text = (
            "Growth of the pooled record, from 1: each bar's return is the weighted mean of those of the "
            "accounts that there are then: they are brought back to their weights at each bar, for free."
        )
        yield equity_section({name: run.equity for name, run in self.runs.items()}, text)

    def pooled_dict(self) -> dict[str, Any]:
        """Return what all panels have in JSON."""
        return {
            "pooled": {name: run.figures for name, run in self.runs.items()},
            "symbols": {name: result.to_dict() for name, result in self.symbols.items()},
            "weights": self.weights,
            "left_out": self.left_out,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelStudy(Panel[GateStudy]):
    """A strategy on many symbols with its gate, without it, and held."""

    bootstrap: Bootstrap = field(default_factory=lambda: Bootstrap(resamples=1000))

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything of the gate, one line each, with the runs it is of."""
        return problems_in({name: self.runs[name] for name in ("gated", "ungated")})

    @cached_property
    def effects(self) -> dict[str, PanelEffect]:
        """Gated less ungated, by statistic: pooled and symbol by symbol."""
        gated, ungated = self.runs["gated"], self.runs["ungated"]
        return {
            str(statistic): effect_between(gated, ungated, self.bootstrap, statistic)
            for statistic in Statistic
        }

    @cached_property
    def worth(self) -> PanelWorth:
        """What the gate is worth, pooled and symbol by symbol, taken apart."""
        sides = {name: sides_in(study.effect) for name, study in self.symbols.items()}
        return panel_worth(self.runs["gated"], self.runs["ungated"], sides, self.bootstrap)

    @property
    def question(self) -> Primary | None:
        """Whether the gate changes the pooled Sharpe ratio; None where nothing may be concluded."""
        if self.problems:
            return None
        found = self.effects["sharpe"].pooled
        z = normal_quantile(0.5 + found.confidence / 2.0)
        trades = self.runs["gated"].metrics["trades"]
        few = f"the gate left {counted(trades, 'trade')}, and at least {_FEWEST_TRADES} are needed"
        return Primary(
            claim="the gate changes the pooled Sharpe ratio",
            p_value=found.p_value,
            smallest=1.0 / (1 + found.n),
            detectable=(found.high - found.low) / (2.0 * z) * (z + normal_quantile(0.8)),
            statistic=Statistic.SHARPE,
            reason=few if trades < _FEWEST_TRADES else "",
        )

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        gated, ungated, held = (self.runs[name].metrics for name in ("gated", "ungated", "buy_and_hold"))
        figures = (
            f"{counted(len(self.symbols), 'symbol')}, pooled: gated, the strategy made "
            f"{percent(gated['return'])} in {counted(gated['trades'], 'trade')}; ungated "
            f"{percent(ungated['return'])} in {count(ungated['trades'])}; buying and holding "
            f"{percent(held['return'])}."
        )
        if refused := refusal(self.problems):
            return [*refused, figures]
        try:
            question = self.question
            effects = _effect_sentences(self.effects["sharpe"])
        except (DataError, MissingExtraError) as error:
            return [figures, f"No interval for the gate's effect: {error}"]
        return [
            *([] if question is None else [question.sentence, DESCRIPTIVE]),
            figures,
            *effects,
            self.worth.sentence,
            "Whether gates that know nothing do as well is another question: see bt-llm test.",
        ]

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.notes)
        metrics, equity = self.pooled_sections()
        yield metrics
        if not self.problems:
            yield from self.worth.sections()
            yield forest_section(self.effects["sharpe"])
        yield equity
        yield self.symbols_section(("gated", "ungated"))
        yield trades_section(self.runs["gated"].trades)
        yield from added_sections(self)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; what `problems` forbid to conclude is None."""
        concluded = None if self.problems else (self.effects, self.worth.to_dict())
        effects, worth = concluded or (None, None)
        question = self.question
        found: dict[str, Any] = plain(
            {
                **self.pooled_dict(),
                "question": question and question.to_dict(),
                "effects": effects,
                "worth": worth,
                "sentences": self.sentences,
            }
        )
        return found


def _effect_sentences(effect: PanelEffect) -> list[str]:
    """Return what is found of a difference in Sharpe ratio, pooled and in the symbols."""
    found = f"{effect.name.capitalize()}, Sharpe ratio: {interval(effect.pooled, effect.statistic)}."
    return [found, *shown_sentences(effect)]


def shown_sentences(effect: PanelEffect) -> list[str]:
    """Return on which symbols a difference is shown, judged together; nothing of a single one."""
    found = []
    for sign, word in ((1.0, "better"), (-1.0, "worse")):
        names = [name for name, one in effect.symbols.items() if is_shown(one) and one.estimate * sign > 0.0]
        if names and len(effect.symbols) > 1:
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            found.append(
                f"{effect.name.capitalize()}, shown {word} on {len(names)} of {len(effect.symbols)} symbols, "
                f"judged together: {listed}."
            )
    return found


def forest_section(effect: PanelEffect) -> Section:
    """Return a picture of a difference symbol by symbol and pooled, and the numbers behind it."""
    shown = percent if effect.statistic == Statistic.RETURN else number
    rows = [
        [name, percent(effect.weights.get(name), 1), shown(one.estimate), shown(one.low), shown(one.high)]
        for name, one in effect.symbols.items()
    ]
    pooled = effect.pooled
    rows.append(["pooled", "100.0 %", shown(pooled.estimate), shown(pooled.low), shown(pooled.high)])
    named = {"sharpe": "Sharpe ratio", "return": "mean return a year"}[str(effect.statistic)]
    return Section(
        kind="forest",
        title=f"{effect.name.capitalize()}: {named}, symbols and pooled",
        text=(
            f"The symbols' {100 * pooled.confidence:g} % intervals hold all at once; that of the pooled "
            "record by itself. All are from resampled blocks of dates, the same dates in all symbols."
        ),
        table=table_of(["symbol", "weight", "estimate", "low", "high"], rows),
        content=effect,
    )


@shows_progress("symbols")
def panel_study(
    strategy: type[bt.Strategy] | str,
    universe: UniverseSource,
    gate: EntryGate,
    *,
    weights: Mapping[str, float] | None = None,
    format: BarFormat | None = None,
    **settings: Any,
) -> PanelStudy:
    """Run a strategy on every symbol of a universe, gated, ungated and held, and pool what came of it.

    Parameters
    ----------
    strategy, gate
        As in `gate_study`.
    universe : path, mapping, sequence, Market or Universe
        See `Universe.of`.
    weights : mapping of str to float, optional
        Of the symbols' accounts in the pooled record; equal by default.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    **settings
        Other arguments of `run_backtest`, the same for every symbol.

    Raises
    ------
    DataError
        If no symbol has bars enough. Single ones that have not are left out, and named.

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> files = {name: load_bars(shipped(f"{name}.csv"))[-300:] for name in ("sp500_daily", "wti_daily")}
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> study = panel_study(f"{shipped('sma_cross.py')}:GatedSmaCross", files, gate)
    >>> list(study.symbols), sorted(study.runs)
    (['sp500_daily', 'wti_daily'], ['buy_and_hold', 'gated', 'ungated'])
    """
    chosen = strategy_class(strategy)
    symbols = Universe.of(universe, weights=weights, format=format)

    def run(_: str, member: Member) -> GateStudy:
        return gate_study(chosen, member.market, gate, **member.run_settings(settings))

    found, left_out = each_member(symbols, run)
    return PanelStudy(
        symbols=found, weights={name: symbols.weights[name] for name in found}, left_out=left_out
    )
