"""What many symbols and a strategy could show of a gate, before any model is asked.

The panel test and the panel comparison themselves are run, on gates that know nothing: what they could find
of these is what they could find of a model.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from bt_llm.backtest import (
    Bootstrap,
    Member,
    PanelRun,
    Primary,
    Universe,
    UniverseSource,
    each_member,
    panel_study,
    periods_per_year,
    roughly,
    strategy_class,
)
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import LONG, Gate, StateGate, attached_gates
from bt_llm.models import Progress
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.progress import shows_progress
from bt_llm.research._null_runs import MOST_NULLS
from bt_llm.research._panel_test import panel_test
from bt_llm.research._runs import Source, inspect_run
from bt_llm.research._standing import standing
from bt_llm.settings import instance, number, whole
from bt_llm.shown import Shown

__all__ = ["PanelPowerPlan", "draw_states", "plan_panel_power"]

_MOST_MODELS = 50
_MOST_DRAWS = 99


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelPowerPlan(Shown):
    """What tests and comparisons of gates on many symbols could find.

    Attributes
    ----------
    symbols : tuple of str
        Their names.
    left_out : dict of str to str
        Those whose bars are too few, and why.
    entries, long_entries : int
        That the ungated strategy makes on all of them, and how many of these to the long side.
    dates, common_dates : int
        Days on which some symbol, and on which every symbol, has a bar.
    years : float
        Length of the pooled record.
    pass_rate : float
        Share of the entries that a gate is assumed to let through.
    models, draws : int
        Models that are compared, and draws of stand-ins.
    diversification : float
        Pooled Sharpe ratio of gated accounts that have a ratio of 1 each.
    test, comparison : Primary or None
        What `panel_test` asks of a stand-in, and `compare_on_panel` of several: the least p-value, and what
        would be found in 4 of 5 of them, or why they cannot tell; of the draws the middle one. Its p-value is
        chance's. None where there is a `problem`.
    problem : str
        Why neither would conclude anything; usually empty.
    """

    symbols: tuple[str, ...]
    left_out: dict[str, str]
    entries: int
    long_entries: int
    dates: int
    common_dates: int
    years: float
    pass_rate: float
    models: int
    draws: int
    diversification: float
    test: Primary | None
    comparison: Primary | None
    problem: str = ""

    def years_for(self, sharpe: float) -> float | None:
        """Return how many years of such bars tell gates apart that differ by a pooled Sharpe ratio a year."""
        told = self.comparison
        if told is None or told.cannot_tell or told.detectable is None or sharpe <= 0.0:
            return None
        return self.years * (told.detectable / sharpe) ** 2

    @property
    def sentences(self) -> list[str]:
        """What to expect, in words."""
        found = [
            f"Ungated, the strategy makes {counted(self.entries, 'entry')} on "
            f"{counted(len(self.symbols), 'symbol')} in {roughly(self.years)} years, "
            f"{self.long_entries:,} of them long; of {counted(self.dates, 'date')} {self.common_dates:,} are "
            "common to all symbols."
        ]
        if self.problem:
            return [*found, f"Neither a test nor a comparison on them could tell anything: {self.problem}."]
        return [
            *found,
            *(self._of_test(self.test) if self.test else ()),
            *(self._of_comparison(self.comparison) if self.comparison else ()),
            "Of gates that know nothing and answer by the market's state, alike in all symbols; of "
            f"{counted(self.draws, 'draw')} the middle one.",
        ]

    def _of_test(self, told: Primary) -> list[str]:
        if told.cannot_tell:
            return [f"A test (test --each) could not tell whether {told.claim}: {told.cannot_tell}."]
        found = (
            f"If a gate lets {100 * self.pass_rate:.0f} % of them through, the smallest p that a test (test "
            f"--each) could give is {told.smallest:.3g}"
        )
        if told.detectable is None:
            return [f"{found}; what it could find is not known."]
        worth = f"a pooled Sharpe ratio {roughly(told.detectable)} a year above that of luck"
        return [f"{found}; {worth}{self._each(told)} would be found in 4 of 5 tests."]

    def _of_comparison(self, told: Primary) -> list[str]:
        if told.cannot_tell:
            return [f"A comparison (compare --each) could not tell which is better: {told.cannot_tell}."]
        if told.detectable is None:
            return ["What a comparison (compare --each) could find is not known: such gates do not differ."]
        two = "two such gates" if self.models == 2 else f"two of {self.models} such gates"
        apart = f"The pooled Sharpe ratios of {two} would have to differ by {roughly(told.detectable)} a year"
        years = roughly(self.years * told.detectable**2)
        return [
            f"{apart}{self._each(told)} to be told apart in 4 of 5 comparisons (compare --each), whose "
            f"smallest p is {told.smallest:.2g}; a pooled difference of 1 takes {years} years."
        ]

    def each(self, told: Primary) -> float | None:
        """Return a detectable pooled effect as one that every symbol has alike."""
        return None if told.detectable is None else told.detectable / self.diversification

    def _each(self, told: Primary) -> str:
        each = self.each(told)
        return "" if each is None or len(self.symbols) == 1 else f" ({roughly(each)} in every symbol alike)"

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        names = ("symbols", "left_out", "entries", "long_entries", "dates", "common_dates", "years")
        found: dict[str, Any] = plain(
            {
                **{name: getattr(self, name) for name in names},
                **{name: getattr(self, name) for name in ("pass_rate", "models", "draws", "diversification")},
                "problem": self.problem,
                "test": self._could_find(self.test),
                "comparison": self._could_find(self.comparison),
                "years_for_a_sharpe_of_1": self.years_for(1.0),
                "sentences": self.sentences,
            }
        )
        return found

    def _could_find(self, told: Primary | None) -> dict[str, Any] | None:
        """Return what a question could show; its answer is chance's, and nobody's business."""
        if told is None:
            return None
        shown = {name: value for name, value in told.to_dict().items() if name not in ("found", "p_value")}
        return {**shown, "detectable_in_every_symbol": self.each(told)}


@shows_progress("gates that stand in for a model")
def plan_panel_power(
    strategy: Source,
    universe: UniverseSource,
    gate: Gate,
    *,
    weights: Mapping[str, float] | None = None,
    pass_rate: float = 0.5,
    models: int = 2,
    draws: int = 3,
    n: int = 200,
    alpha: float = 0.05,
    seed: int = 0,
    resamples: int = 2000,
    block_length: int | None = None,
    n_jobs: int | None = None,
    on_progress: Progress | None = None,
    format: BarFormat | None = None,
    **settings: Any,
) -> PanelPowerPlan:
    """Return what a test and a comparison of gates on many symbols could find; no model is asked.

    Parameters
    ----------
    strategy, universe, weights, n, alpha, seed, resamples, block_length, n_jobs, format
        As in `panel_test`.
    gate : Gate
        Its indicator and its state space count.
    pass_rate : float
        Share of the ungated strategy's entries that it is assumed to let through, between 0 and 1.
    models : int
        How many are compared.
    draws : int
        How many gates stand in for it, one after the other.
    on_progress : callable, optional
        Called with (null accounts done, null accounts in all).
    **settings
        Other arguments of `run_backtest`, the same for every symbol.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    DataError
        If the strategy makes no entry on any symbol, or no symbol has bars enough.

    Notes
    -----
    A stand-in is a `StateGate`: states are drawn until it lets the share of entries through, so that it
    answers for as long, and as often in several symbols at once, as the states last and are shared. That
    decides what a panel can show: of gates that answer alike everywhere, ten symbols show little more than
    one. `panel_test` is run with each stand-in, and what it states is stated here. So is what `standing`, by
    which `compare_on_panel` judges, states of the accounts of as many stand-ins as there are models.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> files = {name: load_bars(shipped(f"{name}.csv"))[-500:] for name in ("sp500_daily", "wti_daily")}
    >>> strategy = f"{shipped('rsi_reversion.py')}:GatedRsiReversion"
    >>> made = plan_panel_power(strategy, files, Gate(), n=39, draws=1, resamples=99)
    >>> made.test.smallest, made.test.detectable > 0.0, made.common_dates <= made.dates
    (0.025, True, True)
    """
    instance("gate", gate, Gate, "a Gate, whose states stand-ins answer by")
    if not 0.0 < (pass_rate := number("pass_rate", pass_rate)) < 1.0:
        raise ConfigError(f"pass_rate={pass_rate!r}: expected a number between 0 and 1")
    n, seed = whole("n", n, 1, MOST_NULLS), whole("seed", seed, 0)
    models, draws = whole("models", models, 2, _MOST_MODELS), whole("draws", draws, 1, _MOST_DRAWS)
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    chosen = strategy_class(strategy)
    symbols = Universe.of(universe, weights=weights, format=format)
    every = StateGate(indicator=gate.indicator, advisor=gate.advisor)
    asked = _asked(chosen, symbols, every, settings)
    entries = sum(asked.values())
    if not entries:
        raise DataError(f"{chosen.__name__} makes no entry on any symbol: nothing to plan a test of")
    gates = [
        replace(every, states=draw_states(asked, pass_rate, np.random.default_rng([seed, draw])))
        for draw in range(max(draws, models + 1))
    ]
    chance: dict[str, Any] = {"resamples": resamples, "seed": seed, "block_length": block_length}
    tests = [
        panel_test(
            chosen,
            symbols,
            stand_in,
            n=n,
            alpha=alpha,
            n_jobs=n_jobs,
            on_progress=None if on_progress is None else functools.partial(_of_all, on_progress, draw, draws),
            **chance,
            **settings,
        )
        for draw, stand_in in enumerate(gates[:draws])
    ]
    problem = next(("; ".join(one.problems) for one in tests if one.problems), "")
    runs = [one.runs["gated"] for one in tests]
    if not problem:
        others = [panel_study(chosen, symbols, one, **settings) for one in gates[draws:]]
        runs += [one.runs["gated"] for one in others]
    ungated = tests[0].runs["ungated"]
    index = pd.DatetimeIndex(ungated.returns.index)
    days = [set(pd.DatetimeIndex(one.equity.index).normalize()) for one in ungated.symbols.values()]
    return PanelPowerPlan(
        symbols=tuple(tests[0].symbols),
        left_out=tests[0].left_out,
        entries=entries,
        long_entries=sum(count for (side, _), count in asked.items() if side == LONG),
        dates=len(set.union(*days)),
        common_dates=len(set.intersection(*days)),
        years=len(index) / periods_per_year(index),
        pass_rate=pass_rate,
        models=models,
        draws=draws,
        diversification=float(np.mean([_diversification(one.runs["gated"]) for one in tests])),
        test=None if problem else _middle([one.question for one in tests]),
        comparison=None if problem else _compared(runs, models, draws, bootstrap),
        problem=problem,
    )


def _asked(
    strategy: type[bt.Strategy], symbols: Universe, every: StateGate, settings: Mapping[str, Any]
) -> Counter[tuple[int, int]]:
    """Return how many entries the ungated strategy makes, by their sides and the states they are made in."""

    def run(name: str, member: Member) -> Counter[tuple[int, int]]:
        _, ran = inspect_run(strategy, member.market, gate=every, **member.run_settings(settings))
        log = [told for one in attached_gates(ran) for told in one.log]
        return Counter((told.side, -1 if told.missing else int(told.verdict)) for told in log)

    found, _ = each_member(symbols, run)
    return sum(found.values(), Counter())


def draw_states(
    asked: Mapping[tuple[int, int], int], pass_rate: float, rng: np.random.Generator
) -> frozenset[tuple[int, int]]:
    """Return sides with states, drawn until about a share of the entries is made in them.

    Parameters
    ----------
    asked : mapping of (int, int) to int
        Entries by side and state; those in no state, -1, never pass.
    pass_rate : float
        The share.
    rng : numpy.random.Generator
        Where chance comes from.

    Examples
    --------
    >>> asked = {(1, state): 10 for state in range(20)}
    >>> drawn = draw_states(asked, 0.3, np.random.default_rng(0))
    >>> len(drawn), drawn <= set(asked)
    (6, True)
    """
    known = sorted(key for key in asked if key[1] >= 0)
    wanted, passed, drawn = pass_rate * sum(asked.values()), 0, set()
    for place in rng.permutation(len(known)).tolist():
        more = passed + asked[known[place]]
        if abs(more - wanted) < abs(passed - wanted):
            drawn.add(known[place])
            passed = more
    return frozenset(drawn)


def _diversification(run: PanelRun) -> float:
    """Return the pooled Sharpe ratio of accounts that have a ratio of 1 each, and spread as these do."""
    spread = float((run.by_symbol.std() * run.shares.mean()).sum())
    pooled = float(run.returns.std())
    return spread / pooled if pooled > 0.0 else 1.0


def _compared(runs: Sequence[PanelRun], models: int, draws: int, bootstrap: Bootstrap) -> Primary:
    """Return what a comparison asks of as many of some accounts as there are models."""
    found = []
    for chosen in itertools.islice(itertools.combinations(runs, models), draws):
        returns = {f"stand-in {place}": run.returns for place, run in enumerate(chosen)}
        found.append(standing(returns, list(returns), bootstrap).question)
    return _middle(found)


def _middle(questions: Sequence[Primary]) -> Primary:
    """Return the one with the middle effect; those that cannot tell, or do not know theirs, come last."""

    def effect(one: Primary) -> float:
        return math.inf if one.cannot_tell or one.detectable is None else one.detectable

    return sorted(questions, key=effect)[len(questions) // 2]


def _of_all(tell: Progress, draw: int, draws: int, done: int, total: int) -> None:
    """Tell how far all draws are, by how far one of them is."""
    tell(draw * total + done, draws * total)
