"""What a test of a gate on many symbols found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bt_llm import statistics
from bt_llm.backtest import (
    DESCRIPTIVE,
    BacktestResult,
    GateStudy,
    Panel,
    PanelEffect,
    PanelWorth,
    Primary,
    Section,
    added_sections,
    bars_section,
    forest_section,
    number,
    percent,
    problems_in,
    refusal,
    sentences_section,
    shown_sentences,
    table_of,
    table_section,
    trades_section,
)
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.research._against import Against
from bt_llm.research._panel_nulls import PanelNulls
from bt_llm.research._tried import Tried
from bt_llm.shown import Told

__all__ = ["PanelTest", "SymbolTest"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SymbolTest(Told):
    """The runs of one symbol in a test of a gate.

    Attributes
    ----------
    study : GateStudy
        With the gate, with an open one, and held.
    rule : BacktestResult or None
        With a plain rule in the gate's place.
    asked, allowed : int
        Entries that the gate was asked about, and those that it let through.
    """

    study: GateStudy
    rule: BacktestResult | None
    asked: int
    allowed: int

    @property
    def gated(self) -> BacktestResult:
        """The run with the gate."""
        return self.study.gated

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The results by name."""
        rule = {} if self.rule is None else {"rule": self.rule}
        return {"gated": self.study.gated, "ungated": self.study.ungated, **rule, **self._held}

    @property
    def _held(self) -> dict[str, BacktestResult]:
        return {"buy_and_hold": self.study.buy_and_hold}

    @property
    def share(self) -> float:
        """Share of the ungated strategy's exposure that the gate left."""
        ungated = self.study.ungated.metrics["exposure"]
        return self.study.gated.metrics["exposure"] / ungated if ungated else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the runs for JSON."""
        return {
            "runs": {name: run.to_dict() for name, run in self.runs.items()},
            "entries": {"asked": self.asked, "allowed": self.allowed},
            "exposure_share": self.share,
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelTest(Panel[SymbolTest]):
    """Whether a gate adds anything to a strategy on many symbols.

    Attributes
    ----------
    random : PanelNulls
        The gate among gates that give the same answers on other dates.
    against : Against or None
        How the pooled gated run stands to the ungated one and to the rule's, judged together; None where an
        account was ruined.
    over_ungated : PanelEffect or None
        The gated less the ungated Sharpe ratio a year symbol by symbol, and pooled; None likewise.
    worth : PanelWorth
        What the gate is worth, pooled and symbol by symbol, taken apart.
    alpha : float
        Level below which a p-value is called more than luck.
    tried : Tried or None
        How many configurations were tried, where the test was written into a ledger.
    """

    random: PanelNulls
    against: Against | None
    over_ungated: PanelEffect | None
    worth: PanelWorth
    alpha: float
    tried: Tried | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything, one line each, with the runs that it is of."""
        return problems_in({name: run for name, run in self.runs.items() if name != "buy_and_hold"})

    @property
    def asked(self) -> int:
        """Entries that the gate was asked about."""
        return sum(one.asked for one in self.symbols.values())

    @property
    def allowed(self) -> int:
        """Entries that it let through."""
        return sum(one.allowed for one in self.symbols.values())

    @property
    def question(self) -> Primary:
        """Whether the gate's pooled Sharpe ratio is better than that of random gates, by its timing.

        That is the one question. Its p-value is the larger one of two, so that both have to be small: of the
        rank of the pooled Sharpe ratio, and one-sided of the pooled timing. The rank alone is too small where
        null gates pay for more trades than the gate, or hold through wilder bars.
        """
        nulls = self.random.pooled
        values = nulls.values("sharpe")
        timing = self._timing
        least, reason, spread = 1.0 / (1 + nulls.n), "", float(np.std(values))
        different = len(np.unique(values))
        if not 0 < self.allowed < self.asked or (1 + different) * self.alpha < 1.0:
            earned = "earn the same" if different == 1 else f"earn {different} different amounts"
            reason = (
                f"{self.allowed} of {self.asked} entries were let through, and the {nulls.n} null gates "
                f"{earned}, so that no p-value at or below {self.alpha:g} can come out"
            )
        elif timing is None:
            reason = f"the timing is not known: {self.worth.problem}"
        elif timing.n:
            least = max(least, 0.5 / (1 + timing.n))
        bar = float(np.quantile(values, 1.0 - self.alpha) - np.mean(values)) if len(values) else math.nan
        detectable = bar + spread * statistics.detectable(1.0, alpha=0.5)
        return Primary(
            claim="the gate's pooled Sharpe ratio is better than luck",
            p_value=max(nulls.p_value("sharpe"), 0.0 if timing is None else _one_sided(timing)),
            smallest=least,
            alpha=self.alpha,
            detectable=detectable if math.isfinite(detectable) and spread > 0.0 else None,
            statistic=statistics.Statistic.SHARPE,
            reason=reason,
        )

    @property
    def _timing(self) -> statistics.BootstrapResult | None:
        return None if self.worth.parts is None else self.worth.parts.pooled["timing"]

    @property
    def stands_out(self) -> list[str]:
        """Symbols whose Sharpe ratio and timing both stand out, all symbols judged together."""
        parts = {} if self.worth.parts is None else self.worth.parts.symbols
        timed = {name for name, one in parts.items() if _one_sided(one["timing"]) <= self.alpha}
        ranked = self.random.symbols["p_value"]
        return [name for name in map(str, ranked.index) if name in timed and ranked[name] <= self.alpha]

    @property
    def beats_random(self) -> bool:
        """Whether that is found; never where there are `problems`."""
        return not self.problems and bool(self.question.found)

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words, that of the one question first."""
        share = f"{100 * self.allowed / self.asked:.0f} %"
        symbols = counted(len(self.symbols), "symbol")
        figures = f"The gate let {share} of {counted(self.asked, 'entry')} on {symbols} through."
        if refused := refusal(self.problems):
            return [*refused, figures]
        found = [self.question.sentence, *([self.against.sentence] if self.against else [])]
        found += [DESCRIPTIVE, figures]
        if (named := self.stands_out) and len(self.symbols) > 1:
            found.append(
                f"Among null gates, all symbols judged together, it stands out on {', '.join(named)}."
            )
        if self.over_ungated is not None:
            found += shown_sentences(self.over_ungated)
        found.append(self.worth.sentence)
        return found + ([self.tried.sentence] if self.tried else [])

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.notes)
        metrics, equity = self.pooled_sections()
        yield metrics
        if not self.problems:
            if self.against is not None:
                yield from self.against.sections()
            yield from self.worth.sections()
            yield self._ranks()
            yield self._by_symbol()
            if self.over_ungated is not None:
                yield forest_section(self.over_ungated)
        yield equity
        yield self.symbols_section(("gated", "ungated"))
        yield trades_section(self.runs["gated"].trades)
        yield from added_sections(self)

    def _ranks(self) -> Section:
        nulls = self.random.pooled
        rows = [
            [name, percent(nulls.share_below(metric), 0), f"{nulls.p_value(metric):.3g}"]
            for metric, name in (("sharpe", "Sharpe ratio"), ("return", "return"))
        ]
        return Section(
            kind="histograms",
            title=f"The gate among {nulls.n} {nulls.kind}",
            text=f"These gates know nothing: blocks of {self.random.block_dates} dates changed places, of "
            "like volatility, in all symbols alike, so that what symbols have in common stays. The test asks "
            "for a small p-value of the Sharpe ratio here, and of the timing; that of the return is "
            f"descriptive. {self.random.how.sentence}",
            table=table_of(["", "above", "p"], rows),
            content=nulls,
        )

    def _by_symbol(self) -> Section:
        rows = [
            [str(name), number(row["sharpe"]), percent(row["above"], 0), f"{row['p_value']:.3g}"]
            for name, row in self.random.symbols.iterrows()
        ]
        text = "The p-values are adjusted for the number of symbols; what stands above is descriptive."
        return table_section("Symbols among null gates", ["symbol", "Sharpe ratio", "above", "p"], rows, text)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None, and so is what `problems` forbid to conclude."""
        concluded = {
            "random": self.random.pooled.to_dict(),
            "symbols_among_random": self.random.symbols.reset_index(),
            "block_dates": self.random.block_dates,
            "null_gates": self.random.how.to_dict(),
            "question": self.question.to_dict(),
            "against": self.against and self.against.to_dict(),
            "over_ungated": self.over_ungated,
            "worth": self.worth.to_dict(),
            "beats_random": self.beats_random,
        }
        found: dict[str, Any] = plain(
            {
                **self.pooled_dict(),
                "entries": {"asked": self.asked, "allowed": self.allowed},
                "alpha": self.alpha,
                "tried": self.tried and self.tried.to_dict(),
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "sentences": self.sentences,
            }
        )
        return found


def _one_sided(timing: statistics.BootstrapResult) -> float:
    """Return the p-value of a timing that is worth nothing, or less."""
    if timing.n == 0:
        return 0.0 if timing.estimate > 0.0 else 1.0
    return timing.p_value / 2.0 if timing.estimate > 0.0 else 1.0 - timing.p_value / 2.0
