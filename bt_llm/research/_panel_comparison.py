"""Compare models on many symbols: pooled results, all pairs judged together, and symbol by symbol."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.backtest import (
    Bootstrap,
    Member,
    Panel,
    PanelEffect,
    PanelWorth,
    Section,
    Universe,
    UniverseSource,
    added_sections,
    bars_section,
    each_member,
    effect_between,
    forest_section,
    panel_worth,
    percent,
    refusal,
    sentences_section,
    sides_of,
    strategy_class,
    trades_section,
)
from bt_llm.data import BarFormat
from bt_llm.gates import AskingGate, Gate
from bt_llm.plain_json import plain
from bt_llm.progress import shows_progress
from bt_llm.research._comparison import Models, compare_models, gates_by_name
from bt_llm.research._comparison_result import RULE, UNGATED, ModelComparison
from bt_llm.research._runs import Source
from bt_llm.research._standing import Standing, standing, told_apart
from bt_llm.research._tried import Tried, check_ledger, count_panel_trials
from bt_llm.research._verdict_skill import VerdictSkill, verdict_skill
from bt_llm.statistics import Legs, PairDifference

__all__ = ["PanelComparison", "compare_on_panel"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelComparison(Panel[ModelComparison]):
    """One strategy on many symbols, gated by each of several models.

    Attributes
    ----------
    bootstrap : Bootstrap
        How differences are judged.
    sides : dict of str to dict of str to Legs
        What the sides of each symbol's runs earned, by symbol and run; or why that is not known.
    tried : Tried or None
        How many configurations were tried, where the comparison was written into a ledger.
    """

    bootstrap: Bootstrap
    sides: dict[str, dict[str, Legs | str]]
    tried: Tried | None = None

    @property
    def models(self) -> list[str]:
        """Their names."""
        return [name for name in self.runs if name not in (UNGATED, RULE)]

    @cached_property
    def standing(self) -> Standing:
        """Which is better, if any, pooled over the symbols, and how each stands to the runs without a model.

        Blocks of dates are drawn, and all symbols of a date with it.
        """
        returns = {name: run.returns for name, run in self.runs.items()}
        trades = {name: told_apart(run.trades) for name, run in self.runs.items()}
        return standing(returns, self.models, self.bootstrap, trades=trades)

    @cached_property
    def skill(self) -> VerdictSkill:
        """Whether the verdicts of all symbols are right at the right times; dates are rolled alike in all."""
        judged = {
            name: dataclasses.replace(
                next(iter(self.symbols.values())).judged[name],
                bars=pd.concat({symbol: one.judged[name].bars for symbol, one in self.symbols.items()}),
            )
            for name in self.models
        }
        chance = self.bootstrap
        return verdict_skill(
            judged, resamples=chance.resamples, seed=chance.seed, block_length=chance.block_length
        )

    @property
    def pairs(self) -> dict[tuple[str, str], PairDifference]:
        """Pooled Sharpe ratios a year, the first less the second, judged together; those of `standing`."""
        family = self.standing.against or self.standing.primary
        return {(one.first, one.second): one for one in family.pairs}

    @cached_property
    def effects(self) -> dict[tuple[str, str], PanelEffect]:
        """The same symbol by symbol; the pooled intervals in them are each by itself."""
        return {
            (one, two): effect_between(self.runs[one], self.runs[two], self.bootstrap)
            for one, two in self.pairs
        }

    @cached_property
    def worth(self) -> dict[str, PanelWorth]:
        """What each model's gate is worth against the ungated strategy, taken apart."""
        return {
            name: panel_worth(
                self.runs[name],
                self.runs[UNGATED],
                {symbol: _pair(sides[name], sides[UNGATED]) for symbol, sides in self.sides.items()},
                self.bootstrap,
            )
            for name in self.models
        }

    @property
    def scores(self) -> pd.DataFrame:
        """How good the verdicts were over all symbols, one row a model.

        ``bars`` judged, ``accuracy``, and ``base_rate``, of always giving each symbol's commonest answer;
        means over the judged bars of all symbols.
        """
        rows = {}
        for model in self.models:
            scores = [one.scores[model] for one in self.symbols.values() if one.scores[model].bars]
            bars = np.array([score.bars for score in scores], dtype=float)
            right, usual = (
                np.array([getattr(score, name) for score in scores]) for name in ("accuracy", "base_rate")
            )
            total = bars.sum()
            rows[model] = {
                "bars": total,
                "accuracy": float(right @ bars / total) if total else np.nan,
                "base_rate": float(usual @ bars / total) if total else np.nan,
            }
        return pd.DataFrame(rows).T

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words, which model is better, if any, first."""
        if refused := refusal(self.problems):
            return refused
        found = [*self.standing.sentences, self.skill.sentence]
        for name, row in self.scores.iterrows():
            found.append(
                f"{name} was right on {percent(row['accuracy'], 0)} of {row['bars']:,.0f} bars, where each "
                f"symbol's commonest answer is right on {percent(row['base_rate'], 0)} (descriptive)."
            )
        return found + ([self.tried.sentence] if self.tried else [])

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.notes)
        metrics, equity = self.pooled_sections()
        yield metrics
        if not self.problems:
            yield from self.standing.sections()
            for name, worth in self.worth.items():
                yield from worth.sections(name)
            for effect in self.effects.values():
                yield forest_section(effect)
        yield equity
        yield self.symbols_section(list(self.runs))
        trades = [run.trades.assign(model=name) for name, run in self.runs.items() if len(run.trades)]
        if trades:
            joined = pd.concat(trades, ignore_index=True)
            yield trades_section(joined.sort_values("opened", kind="stable"))
        yield from added_sections(self)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None, and so is what `problems` forbid to conclude."""
        concluded = {
            **self.standing.to_dict(),
            "skill": self.skill.to_dict(),
            "effects": list(self.effects.values()),
            "worth": {name: worth.to_dict() for name, worth in self.worth.items()},
        }
        found: dict[str, Any] = plain(
            {
                **self.pooled_dict(),
                "scores": self.scores.to_dict("index"),
                "tried": self.tried and self.tried.to_dict(),
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "sentences": self.sentences,
            }
        )
        return found


@shows_progress("symbols")
def compare_on_panel(
    strategy: Source,
    universe: UniverseSource,
    models: Models,
    *,
    gate: AskingGate | None = None,
    weights: Mapping[str, float] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    block_length: int | None = None,
    format: BarFormat | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> PanelComparison:
    """Run a strategy on every symbol of a universe, gated by each model and ungated, and compare them.

    Parameters
    ----------
    strategy, models, gate, resamples, seed, block_length, format, output
        As in `compare_models`; each model's pooled run is one trial.
    universe, weights
        As in `panel_study`.
    **settings
        Other arguments of `compare_models`, the same for every symbol.

    Raises
    ------
    ConfigError
        As from `compare_models`.
    DataError
        If no symbol has bars enough.

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> files = {name: load_bars(shipped(f"{name}.csv"))[-300:] for name in ("sp500_daily", "wti_daily")}
    >>> models = {"trend": "scripted:trend", "contrarian": "scripted:contrarian"}
    >>> found = compare_on_panel(f"{shipped('sma_cross.py')}:GatedSmaCross", files, models,
    ...                          gate=Gate(advisor=AdvisorConfig(cache_mode="off")), resamples=99)
    >>> list(found.pairs)[:3]
    [('trend', 'contrarian'), ('trend', 'ungated'), ('trend', 'rule')]
    """
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    check_ledger(output)
    chosen = strategy_class(strategy)
    symbols = Universe.of(universe, weights=weights, format=format)
    sides: dict[str, dict[str, Legs | str]] = {}
    chance = dataclasses.asdict(bootstrap)

    def run(name: str, member: Member) -> ModelComparison:
        how = member.run_settings(settings)
        compared = compare_models(chosen, member.market, models, gate=gate, **chance, **how)
        sides[name] = {one: sides_of(run, member.market) for one, run in compared.runs.items()}
        return compared

    found, left_out = each_member(symbols, run)
    panel = PanelComparison(
        symbols=found,
        weights={name: symbols.weights[name] for name in found},
        left_out=left_out,
        bootstrap=bootstrap,
        sides=sides,
    )
    if output is None:
        return panel
    gates = gates_by_name(models, Gate() if gate is None else gate)
    runs = {name: (panel.runs[name], one) for name, one in gates.items()}
    return dataclasses.replace(panel, tried=count_panel_trials(output, chosen, symbols, runs))


def _pair(gated: Legs | str, ungated: Legs | str) -> tuple[Legs, Legs] | str:
    if isinstance(gated, str):
        return gated
    return ungated if isinstance(ungated, str) else (gated, ungated)
