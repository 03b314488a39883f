"""Does a model remember the market? Tell it which market it looks at and when, and see what that changes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bt_llm import statistics
from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.backtest import (
    BacktestResult,
    Bootstrap,
    Market,
    interval,
    is_shown,
    problems_in,
    refusal,
    run_backtest,
    strategy_class,
)
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import Gate
from bt_llm.plain_json import plain
from bt_llm.progress import shows_progress
from bt_llm.research._runs import Source, returns_of_runs
from bt_llm.settings import instance
from bt_llm.shown import Shown
from bt_llm.statistics import BootstrapResult, PairDifference
from bt_llm.verdicts import StateSpace, Verdict, prior_cells

__all__ = ["FlippedVerdict", "IdentifiedProbe", "identified_probe"]

_FIGURES = ("sharpe", "return")


@dataclass(frozen=True, kw_only=True)
class FlippedVerdict:
    """A market state on which the two prompts get different answers.

    Attributes
    ----------
    cell : int
        Its number in the gate's state space.
    state : dict of str to str
        The label of each feature, as the prompt says it.
    masked, identified : Verdict
        The two answers, calibrated.
    """

    cell: int
    state: dict[str, str]
    masked: Verdict
    identified: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: the answers' names and confidences."""
        both = {"masked": self.masked, "identified": self.identified}
        answers = {
            name: {"answer": answer.answer, "confidence": answer.confidence} for name, answer in both.items()
        }
        return {"cell": self.cell, "state": self.state, **answers}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IdentifiedProbe(Shown):
    """What changes when a model is told which market it looks at, and when.

    Attributes
    ----------
    identify : str
        What it was told.
    cells : int
        Market states that were asked about: all of the state space, or of a large one a sample of 512.
    agreed : float
        Share of them with the same answer.
    kappa : float
        Cohen's kappa of the answers; NaN if both prompts only ever got one and the same.
    flips : tuple of FlippedVerdict
        The states with different answers, by their number.
    masked, identified, ungated : BacktestResult
        The strategy with the gate asked either way, and without it, over the same bars and warm-up.
    masked_effect, identified_effect : dict of str to BootstrapResult
        What either gate adds: Sharpe ratio and mean return less those of the ungated strategy, both a year.
    difference : dict of str to PairDifference
        The identified effect less the masked one. The ungated strategy is in both and cancels out: this is
        the paired difference of the two gated strategies. That of the Sharpe ratio is the one question; the
        effects beside it are descriptive.
    """

    identify: str
    cells: int
    agreed: float
    kappa: float
    flips: tuple[FlippedVerdict, ...]
    masked: BacktestResult
    identified: BacktestResult
    ungated: BacktestResult
    masked_effect: dict[str, BootstrapResult]
    identified_effect: dict[str, BootstrapResult]
    difference: dict[str, PairDifference]

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The three results by name."""
        return {"masked": self.masked, "identified": self.identified, "ungated": self.ungated}

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything, one line each, with the runs that it is of."""
        return problems_in(self.runs)

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        if refused := refusal(self.problems):
            return refused[0]
        sharpe = self.difference["sharpe"]
        if not self.flips:
            changed = f"no answer on {self.cells} market states"
        else:
            changed = f"{len(self.flips)} of {self.cells} answers (kappa {self.kappa:.2f})"
        could = f"a gain of {sharpe.detectable:.2f} would be found four times in five"
        if not self.flips:
            end = "told or not, it says the same"
        elif not is_shown(sharpe):
            end = f"cannot tell whether it remembers (p = {sharpe.p_value:.3g}); {could}"
        elif sharpe.estimate > 0.0:
            end = f"it may remember this market (p = {sharpe.p_value:.3g})"
        else:
            end = "the name changes its advice, but not for the better"
        return (
            f"Told {self.identify!r}, the model changes {changed}, and what the gate adds to the Sharpe "
            f"ratio by {interval(sharpe, 'sharpe')}: {end}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None, and so is what `problems` forbid to conclude."""
        concluded = {
            "masked_effect": self.masked_effect,
            "identified_effect": self.identified_effect,
            "difference": self.difference,
        }
        found: dict[str, Any] = plain(
            {
                "identify": self.identify,
                "cells": self.cells,
                "agreed": self.agreed,
                "kappa": self.kappa,
                "flips": [flip.to_dict() for flip in self.flips],
                "runs": {name: run.to_dict() for name, run in self.runs.items()},
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "problems": self.problems,
                "sentence": self.sentence,
            }
        )
        return found


@shows_progress("bars")
def identified_probe(
    strategy: Source,
    data: DataSource,
    gate: Gate,
    identify: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
    block_length: int | None = None,
    format: BarFormat | None = None,
    **settings: Any,
) -> IdentifiedProbe:
    """Compare a model that is told which market it looks at, and when, with the same one that is not.

    A model that reasons from the state gives the same answers either way. One that knows how the market
    went answers better when it is told which one it is; what it adds then is memory, which no future bar
    pays for.

    Parameters
    ----------
    strategy : type or str
        With a parameter ``gate``; see `run_backtest`.
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one or several datas; see `Market.of`.
    gate : Gate
        The rule and the model. Asked as it is, but masked, and with `identify`.
    identify : str
        What the model is told, such as ``"EUR/USD, hourly, 2017"``; see `AdvisorConfig`.
    resamples, seed, block_length
        Of the bootstrap; see `Bootstrap`.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If `gate` is no `Gate`, or `identify` is empty or not one printable line.
    DataError
        If the bars cannot be used.

    Notes
    -----
    One line stands for all bars: name the stretch that they cover. A small model changes some answers at any
    line that is put before the question, whatever it says; compare with one that means nothing, such as
    ``"Market A, hourly, year 1"``, before calling it memory.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> bars = load_bars(shipped("sp500_daily.csv"))[-400:]
    >>> found = identified_probe(strategy, bars, gate, "S&P 500, daily, 2024", resamples=99)
    >>> found.cells, found.agreed, found.flips
    (105, 1.0, ())
    """
    instance("gate", gate, Gate, "a Gate, whose model can be told")
    instance("identify", identify, str, "a line, such as 'EUR/USD, hourly, 2017'")
    if not identify:
        raise ConfigError(f"identify={identify!r}: expected a line, such as 'EUR/USD, hourly, 2017'")
    told = {"masked": _told(gate, ""), "identified": _told(gate, identify)}
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    strategy = strategy_class(strategy)
    market = Market.of(data, format=format)
    answers: dict[str, list[Verdict]] = {}
    runs: dict[str, BacktestResult] = {}
    for name, chosen in told.items():
        answers[name] = _policy(chosen.advisor)
        runs[name] = run_backtest(strategy, market, gate=chosen, name=name, **settings)
        Advisor(chosen.advisor).close()  # one model in memory at a time
    runs["ungated"] = run_backtest(strategy, market, gate=gate.baseline(), name="ungated", **settings)
    returns = returns_of_runs(runs)

    def effect(name: str) -> dict[str, BootstrapResult]:
        return {one: bootstrap.difference(returns[name], returns["ungated"], one) for one in _FIGURES}

    flips = _flips(gate.advisor.state_space, answers["masked"], answers["identified"])
    masked, identified = ([answer.answer for answer in answers[name]] for name in told)
    return IdentifiedProbe(
        identify=identify,
        cells=len(masked),
        agreed=1.0 - len(flips) / len(masked),
        kappa=statistics.cohens_kappa(masked, identified),
        flips=flips,
        masked=runs["masked"],
        identified=runs["identified"],
        ungated=runs["ungated"],
        masked_effect=effect("masked"),
        identified_effect=effect("identified"),
        difference={
            name: bootstrap.jointly(
                {run: returns[run] for run in ("identified", "masked")}, [("identified", "masked")], name
            ).pairs[0]
            for name in _FIGURES
        },
    )


def _told(gate: Gate, identify: str) -> Gate:
    return dataclasses.replace(gate, advisor=dataclasses.replace(gate.advisor, identify=identify))


def _policy(config: AdvisorConfig) -> list[Verdict]:
    """Return the model's answer to every market state, or of many to those that a prior comes from."""
    advisor = Advisor(config)
    return advisor.advise_cells(prior_cells(advisor.space))


def _flips(space: StateSpace, masked: list[Verdict], identified: list[Verdict]) -> tuple[FlippedVerdict, ...]:
    return tuple(
        FlippedVerdict(cell=cell, state=space.describe(cell), masked=one, identified=other)
        for cell, one, other in zip(prior_cells(space), masked, identified, strict=True)
        if one.answer != other.answer
    )
