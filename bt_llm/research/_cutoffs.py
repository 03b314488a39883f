"""Does a model remember the market? What its gate adds before and after the end of its training data."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.advice import AdvisorConfig, AnalystConfig
from bt_llm.backtest import (
    Bootstrap,
    Market,
    Primary,
    gate_study,
    interval,
    periods_per_year,
    problems_in,
    refusal,
)
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import AskingGate, EntryGate
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.progress import shows_progress
from bt_llm.research._cutoff_table import latest_cutoff, unknown_cutoff
from bt_llm.research._runs import Source, returns_of_runs
from bt_llm.research._standing import FEWEST_TRADES, told_apart
from bt_llm.shown import Shown
from bt_llm.statistics import BootstrapResult, PairDifference, Statistic, change_of_effect

__all__ = ["CutoffComparison", "after_cutoff", "before_after_cutoff", "day_of", "models_asked"]

_FEWEST_BARS = 30


@dataclass(frozen=True, kw_only=True, repr=False)
class CutoffComparison(Shown):
    """What a gate adds on bars that its model may have read about, and on bars it cannot have.

    Attributes
    ----------
    cutoff : datetime.date
        Last day of the first stretch.
    bars_before, bars_after : int
        Bars of the two.
    before, after : dict of str to BootstrapResult
        Sharpe ratio and mean return of the gated strategy less those of the ungated one, both a year.
    change : dict of str to PairDifference
        The effect after less the effect before, with an interval of its own: the one question is whether
        that of the Sharpe ratio is below zero.
    trades_before, trades_after : int
        Trades that only one of the two runs made, opened in either stretch.
    problems : tuple of str
        What speaks against concluding anything, one line each, with the runs that it is of.
    """

    cutoff: datetime.date
    bars_before: int
    bars_after: int
    before: dict[str, BootstrapResult]
    after: dict[str, BootstrapResult]
    change: dict[str, PairDifference]
    trades_before: int
    trades_after: int
    problems: tuple[str, ...] = ()

    @property
    def question(self) -> Primary:
        """Whether the gate adds less once its model cannot have read what came: one-sided."""
        change = self.change["sharpe"]
        p = change.p_value / 2.0 if change.estimate < 0.0 else 1.0 - change.p_value / 2.0
        few = [
            f"{name} it, the gate changed {counted(count, 'trade')}, fewer than {FEWEST_TRADES}"
            for name, count in (("up to", self.trades_before), ("after", self.trades_after))
            if count < FEWEST_TRADES
        ]
        return Primary(
            claim=f"the gate adds less after {self.cutoff} than before",
            p_value=p,
            smallest=0.5 / (1 + (self.before["sharpe"].n or 1)),
            alpha=(1.0 - change.confidence) / 2.0,
            detectable=change.detectable,
            statistic=Statistic.SHARPE,
            reason="; ".join(self.problems or few),
        )

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        if refused := refusal(self.problems):
            return refused[0]
        question, change = self.question, self.change["sharpe"]
        if question.cannot_tell:
            return f"Of {self.cutoff}, whether it remembered, cannot be told: {question.cannot_tell}."
        parts = [
            f"{name} {self.cutoff} the gate changes the Sharpe ratio by {interval(found['sharpe'], 'sharpe')}"
            for name, found in (("Up to", self.before), ("after", self.after))
        ]
        lost = f"after less before, {interval(change, 'sharpe')}"
        could = f"a loss of {change.detectable:.2f} would be found four times in five"
        if question.found and self.before["sharpe"].estimate > 0.0:
            end = f"it may have remembered (p = {question.p_value:.3g})"
        else:
            end = f"no loss shown (p = {question.p_value:.3g}); {could}"
        return f"{', '.join(parts)}; {lost}: {end}."

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None, and so is what `problems` forbid to conclude."""
        found: dict[str, Any] = plain({**vars(self), "primary": self.question.to_dict()})
        if self.problems:
            found |= dict.fromkeys(("before", "after", "change", "primary"))
        return {**found, "sentence": self.sentence}


@shows_progress("bars")
def before_after_cutoff(
    strategy: Source,
    data: DataSource,
    gate: EntryGate,
    *,
    cutoff: datetime.date | str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    block_length: int | None = None,
    **settings: Any,
) -> CutoffComparison:
    """Compare what a gate adds before and after its model's training data ends.

    A model that remembers what the market did helps on the bars it has read about, and no longer after
    them. Prompts that name neither instrument nor date leave little to remember by; this is the check.

    Parameters
    ----------
    strategy, data, gate
        As in `gate_study`.
    cutoff : date or text, optional
        Last day that the model may have seen; by default what `training_cutoff` knows of the gate's model,
        and the day of its release where the makers do not say.
    resamples, seed, block_length
        Of the bootstrap; see `Bootstrap`.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If the cut-off is not known.
    DataError
        If there are fewer than 30 bars on one side of it, or the two runs are not of the same bars.

    Notes
    -----
    An effect that is found before and not after has not been lost by that: what is tested is the difference
    of the two, with its own error, and what it could have shown is said (`Primary.detectable`). The market
    before and after differs in more than what the model has read: a loss is a reason to look, not a proof.
    One backtest is cut in two, so positions run through the cut.

    Examples
    --------
    >>> from bt_llm import Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> bars = load_bars(shipped("eurusd_hourly.csv"))
    >>> found = before_after_cutoff(strategy, bars, gate, cutoff="2017-06-30", resamples=99)
    >>> found.question.found, found.change["sharpe"].detectable > 1.0
    (False, True)
    """
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    last = _cutoff_day(gate, cutoff)
    study = gate_study(strategy, data, gate, **settings)
    runs = {"gated": study.gated, "ungated": study.ungated}
    returns = bootstrap.pooled(returns_of_runs(runs))
    gated, ungated = returns["gated"], returns["ungated"]
    seen = np.asarray(pd.DatetimeIndex(gated.index).normalize() <= pd.Timestamp(last))
    before, after = int(seen.sum()), int((~seen).sum())
    if min(before, after) < _FEWEST_BARS:
        raise DataError(
            f"cut-off {last}: {before} bars up to it and {after} after; expected at least {_FEWEST_BARS} of "
            f"each. They go from {gated.index[0]} to {gated.index[-1]}: give other bars, or another cutoff"
        )

    yearly = periods_per_year(pd.DatetimeIndex(gated.index))

    def change(statistic: str) -> PairDifference:
        before, after = ((gated[chosen].to_numpy(), ungated[chosen].to_numpy()) for chosen in (seen, ~seen))
        return change_of_effect(
            before,
            after,
            statistic,
            n=resamples,
            seed=seed,
            block_length=block_length,
            periods_per_year=yearly,
        )

    def effect(chosen: NDArray[np.bool_]) -> dict[str, BootstrapResult]:
        return {
            name: bootstrap.difference(gated[chosen], ungated[chosen], name) for name in ("sharpe", "return")
        }

    opened = _changed_trades(study.gated.trades, study.ungated.trades)
    early = int((opened.normalize() <= pd.Timestamp(last)).sum())
    return CutoffComparison(
        cutoff=last,
        bars_before=before,
        bars_after=after,
        before=effect(seen),
        after=effect(~seen),
        change={name: change(name) for name in ("sharpe", "return")},
        trades_before=early,
        trades_after=len(opened) - early,
        problems=problems_in(runs),
    )


def _changed_trades(gated: pd.DataFrame, ungated: pd.DataFrame) -> pd.DatetimeIndex:
    """Return when the trades were opened that only one of two runs made."""
    changed = told_apart(gated).symmetric_difference(told_apart(ungated))
    return pd.DatetimeIndex(changed.get_level_values("opened"))


def _cutoff_day(gate: EntryGate, cutoff: datetime.date | str | None) -> datetime.date:
    if cutoff is not None:
        return day_of(cutoff)
    if not isinstance(gate, AskingGate):
        raise unknown_cutoff(type(gate).__name__)
    return latest_cutoff(models_asked(gate))[0]


def day_of(cutoff: datetime.date | str) -> datetime.date:
    """Return a cut-off as a date.

    Raises
    ------
    ConfigError
        If it is none.
    """
    try:
        return pd.Timestamp(cutoff).date()
    except (TypeError, ValueError):
        raise ConfigError(f"cutoff={cutoff!r}: expected a date, such as '2023-12-31'") from None


def models_asked(*asked: AskingGate | AdvisorConfig | AnalystConfig | str | os.PathLike[str]) -> list[str]:
    """Return the names of all models that gates, or ways to ask, may ask: their fallbacks are among them."""
    names = []
    for one in asked:
        config = one.config if isinstance(one, AskingGate) else one
        if isinstance(config, str | os.PathLike):
            names.append(os.fspath(config))
        else:
            names += [str(config.model), *map(str, getattr(config, "fallbacks", None) or ())]
    return names


def after_cutoff(
    data: DataSource,
    *asked: AskingGate | AdvisorConfig | AnalystConfig | str | os.PathLike[str],
    cutoff: datetime.date | str | None = None,
    format: BarFormat | None = None,
) -> Market:
    """Return only the bars that no model can have read about: those after its training data ends.

    Whatever takes data takes the market that comes of it, so that a run, a test, a comparison or a
    walk-forward study sees nothing else, its warm-up included.

    Parameters
    ----------
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one or several datas; see `Market.of`.
    *asked : gate, AdvisorConfig, AnalystConfig, str or path
        Whose models must not have seen them: the latest day of all counts, fallbacks included. Where the
        makers state no cut-off it is the day of the release.
    cutoff : date or text, optional
        The last day that is left out, instead.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.

    Raises
    ------
    ConfigError
        If a model's cut-off is not known, or no model was trained on anything.
    DataError
        If the bars cannot be used, or a data has none after that day.

    Examples
    --------
    >>> days = pd.date_range("2023-12-01", "2024-03-01", freq="B")
    >>> market = after_cutoff(pd.DataFrame({"close": 10.0}, index=days), "Llama-3.2-3B-Instruct.gguf")
    >>> str(market.index[0]), market.notes[-1][:60]
    ('2024-01-01 00:00:00', 'only bars after 2023-12-31: Llama 3.2: training data to 2023')
    """
    market = Market.of(data, format=format)
    if cutoff is not None:
        return market.after(day_of(cutoff))
    last, why = latest_cutoff(models_asked(*asked))
    return market.after(last, "; ".join(why))
