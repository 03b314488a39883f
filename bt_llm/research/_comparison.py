"""Compare models: the same strategy on the same bars, gated by one after the other."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.advice import AdvisorConfig, AnalystConfig
from bt_llm.backtest import (
    BacktestResult,
    Bootstrap,
    Market,
    Section,
    added_sections,
    answer_names,
    bars_section,
    count,
    equity_section,
    interval,
    is_shown,
    metrics_section,
    number,
    percent,
    periods_per_year,
    problems_in,
    refusal,
    run_backtest,
    sentences_section,
    table_section,
    trades_section,
)
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AskingGate, Gate
from bt_llm.plain_json import plain
from bt_llm.research._runs import Source
from bt_llm.research._scoring import Judged, ModelCost, ModelScore, judge, model_cost, score
from bt_llm.research._tried import Tried, count_trials
from bt_llm.statistics import BootstrapResult

__all__ = ["ModelComparison", "Models", "PairComparison", "compare_models", "gates_by_name"]

Model: TypeAlias = str | os.PathLike[str] | AdvisorConfig | AnalystConfig
G = TypeVar("G", bound=AskingGate)
Models: TypeAlias = Sequence[Model] | Mapping[str, Model]

UNGATED = "ungated"


@dataclass(frozen=True, kw_only=True, eq=False)
class PairComparison:
    """Two models on the same bars; differences are the first less the second.

    Attributes
    ----------
    models : (str, str)
        Their names.
    agreement : DataFrame
        Bars by the answers of both; rows are the first's, columns the second's.
    agreed : float
        Share of bars with the same answer.
    kappa : float
        Cohen's kappa: agreement beyond chance; NaN if both only ever gave one and the same answer.
    only_first_right, only_second_right : int
        Bars, each `horizon` after the last so that their outcomes do not overlap, on which only that model
        was right.
    mcnemar_p : float
        That these two numbers differ by chance; see `statistics.mcnemar` (mid-p).
    difference : dict of str to BootstrapResult
        Of the gated strategies' Sharpe ratios and mean returns, both a year.
    trades : DataFrame
        Trades that only one of the two made (by opening time and direction): ``model``, ``opened``,
        ``closed``, ``direction`` and ``pnlcomm``, what it was worth after commission.
    shared_trades : int
        Trades that both made.
    """

    models: tuple[str, str]
    agreement: pd.DataFrame
    agreed: float
    kappa: float
    only_first_right: int
    only_second_right: int
    mcnemar_p: float
    difference: dict[str, BootstrapResult]
    trades: pd.DataFrame
    shared_trades: int

    @property
    def worth(self) -> dict[str, float]:
        """What each model's own trades came to, after commission."""
        return {
            name: float(self.trades.loc[self.trades["model"] == name, "pnlcomm"].sum())
            for name in self.models
        }

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        first, second = self.models
        sharpe = self.difference["sharpe"]
        found = "a difference" if is_shown(sharpe) else "no difference shown"
        counts = {name: int((self.trades["model"] == name).sum()) for name in self.models}
        right = "differ" if self.mcnemar_p <= 1.0 - sharpe.confidence else "are not shown to differ"
        return [
            f"Sharpe ratio of {first} less that of {second}: {interval(sharpe, 'sharpe')}: {found}.",
            f"They gave the same answer on {100 * self.agreed:.0f} % of the bars (kappa {self.kappa:.2f}). "
            f"Only {first} was right on {self.only_first_right} bars, only {second} on "
            f"{self.only_second_right}: how often they are right, they {right} "
            f"(McNemar p = {self.mcnemar_p:.3g}).",
            f"{self.shared_trades} trades are common to both; {counts[first]} of {first} alone came to "
            f"{self.worth[first]:,.2f}, {counts[second]} of {second} alone to {self.worth[second]:,.2f}.",
        ]

    def sections(self) -> Iterator[Section]:
        """Yield where the two agree, and the trades that only one of them made."""
        first, second = self.models
        rows = [[str(label), *(count(value) for value in row)] for label, row in self.agreement.iterrows()]
        yield table_section(
            f"Bars by answer: {first} in rows, {second} in columns",
            ["", *map(str, self.agreement.columns)],
            rows,
            f"Cohen's kappa is {number(self.kappa)}: 1 is full agreement, 0 what chance gives.",
        )
        if len(self.trades):
            yield trades_section(self.trades, f"Trades that only one of {first} and {second} made")

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "models": self.models,
                "agreement": self.agreement.to_dict("index"),
                "agreed": self.agreed,
                "kappa": self.kappa,
                "only_first_right": self.only_first_right,
                "only_second_right": self.only_second_right,
                "mcnemar_p": self.mcnemar_p,
                "difference": self.difference,
                "shared_trades": self.shared_trades,
                "worth": self.worth,
                "trades": self.trades,
                "sentences": self.sentences,
            }
        )
        return found


def _confidence(name: str, score: ModelScore) -> Section:
    filled = score.reliability[score.reliability["count"] > 0]
    rows = [
        [percent(row["mean_confidence"], 0), percent(row["frequency"], 0), count(row["count"])]
        for _, row in filled.iterrows()
    ]
    text = "Confidence that can be believed is right as often as it says."
    return table_section(f"Confidence of {name}", ["stated", "right", "bars"], rows, text)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelComparison:
    """One strategy gated by each of several models.

    Attributes
    ----------
    runs : dict of str to BacktestResult
        By the model's name, and ``ungated``.
    scores : dict of str to ModelScore
        How good the verdicts were.
    costs : dict of str to ModelCost
        What they took.
    over_ungated : dict of str to dict of str to BootstrapResult
        Each model's Sharpe ratio and mean return less those of the ungated strategy, both a year.
    pairs : list of PairComparison
        Every two models.
    judged : dict of str to Judged
        The answers bar by bar.
    tried : Tried or None
        How many configurations were tried, where the comparison was written into a ledger.
    """

    runs: dict[str, BacktestResult]
    scores: dict[str, ModelScore]
    costs: dict[str, ModelCost]
    over_ungated: dict[str, dict[str, BootstrapResult]]
    pairs: list[PairComparison]
    judged: dict[str, Judged]
    tried: Tried | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against any conclusion, one line each, with the run it is of; usually nothing."""
        return problems_in(self.runs)

    @property
    def table(self) -> pd.DataFrame:
        """The metrics, one row a run.

        ``pnl`` (account currency), ``return``, ``sharpe``, ``sortino``, ``calmar``, ``max_drawdown``,
        ``turnover``, ``trades``, ``hit_rate`` (share of trades that won after commission), ``exposure``; as
        in `BacktestResult.metrics`.
        """
        return pd.DataFrame({name: _row(run) for name, run in self.runs.items()}).T

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        if refused := refusal(self.problems):
            return refused
        found = []
        for name, over in self.over_ungated.items():
            shown = "a difference" if is_shown(over["sharpe"]) else "no difference shown"
            found.append(
                f"Sharpe ratio with {name} less that of the ungated strategy: "
                f"{interval(over['sharpe'], 'sharpe')}: {shown}."
            )
        for name, model in self.scores.items():
            brier = f"; Brier score {model.brier:.3f}, {model.brier_constant:.3f} for a constant forecast"
            found.append(
                f"{name} was right on {100 * model.accuracy:.0f} % of {model.bars} bars, where always giving "
                f"the commonest answer is right on {100 * model.base_rate:.0f} %"
                f"{'' if math.isnan(model.brier) else brier}."
            )
        found += [sentence for pair in self.pairs for sentence in pair.sentences]
        return found + ([self.tried.sentence] if self.tried else [])

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(next(iter(self.runs.values())).notes)
        yield metrics_section(
            {str(n): {str(k): v for k, v in row.items()} for n, row in self.table.iterrows()}
        )
        yield self._models()
        for name, scored in self.scores.items():
            yield _confidence(name, scored)
        for pair in self.pairs:
            yield from pair.sections()
        yield equity_section({name: run.equity for name, run in self.runs.items()})
        marked = [run.trades.assign(model=name) for name, run in self.runs.items() if len(run.trades)]
        trades = pd.concat(marked, ignore_index=True) if marked else next(iter(self.runs.values())).trades
        yield trades_section(trades.sort_values("opened", kind="stable"))
        yield from added_sections(self)

    def _models(self) -> Section:
        scores, costs = self.scores.values(), self.costs.values()
        rows = [
            ["right", *(percent(one.accuracy, 0) for one in scores)],
            ["right by the commonest answer", *(percent(one.base_rate, 0) for one in scores)],
            ["Brier score (lower is better)", *(number(one.brier, 3) for one in scores)],
            ["Brier score of a constant", *(number(one.brier_constant, 3) for one in scores)],
            ["market states", *(count(one.prompts) for one in costs)],
            ["model calls", *(count(one.model_calls) for one in costs)],
            ["seconds in the model", *(number(one.model_seconds, 1) for one in costs)],
            ["tokens", *(count(one.tokens) for one in costs)],
            ["ms a stored verdict", *(number(one.stored_ms, 1) for one in costs)],
            ["memory, MB (estimate)", *(number(one.memory_mb, 0) for one in costs)],
        ]
        text = "How often each was right about what came next, and its cost."
        return table_section("Models", ["", *self.scores], rows, text)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None, and so is what `problems` forbid to conclude."""
        concluded = {"over_ungated": self.over_ungated, "pairs": [pair.to_dict() for pair in self.pairs]}
        found: dict[str, Any] = plain(
            {
                "runs": self.table.to_dict("index"),
                "scores": {name: model.to_dict() for name, model in self.scores.items()},
                "costs": {name: dataclasses.asdict(cost) for name, cost in self.costs.items()},
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "tried": self.tried and self.tried.to_dict(),
                "problems": self.problems,
                "sentences": self.sentences,
                "notes": next(iter(self.runs.values())).notes,
            }
        )
        return found


def compare_models(
    strategy: Source,
    data: DataSource,
    models: Models,
    *,
    gate: AskingGate | None = None,
    horizon: int = 5,
    flat: float = 0.25,
    resamples: int = 2000,
    seed: int = 0,
    block_length: int | None = None,
    format: BarFormat | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> ModelComparison:
    """Run a strategy gated by each model, and ungated, and compare results and verdicts.

    Parameters
    ----------
    strategy : type or str
        See `run_backtest`; one that attaches no gate has its orders judged.
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one or several datas; see `Market.of`.
    models : sequence or mapping
        Two or more. A name or path replaces the model of `gate`; an `AdvisorConfig` replaces its advisor (an
        `AnalystConfig` its analyst), so that two templates of one model can be compared. A mapping gives
        them names.
    gate : AskingGate, optional
        The rule, and how models are asked; by default ``Gate()``.
    horizon, flat
        What a verdict is judged by; see `bt_llm.research`.
    resamples, seed, block_length
        Of the bootstrap; see `Bootstrap`.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    output : path, optional
        Folder of a ledger, into which each model's run is written as a trial; see `WalkForward.run`.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If there are fewer than two models, two of one name, or two whose warm-ups differ: their runs would
        not be of the same bars.

    Notes
    -----
    One model is in memory at a time. Each is asked about every bar's market state, once a distinct one.
    With several pairs some interval leaves out zero by chance: the more models, the more so.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> gate = Gate(advisor=AdvisorConfig(cache_mode="off"))
    >>> found = compare_models(strategy, load_bars(shipped("sp500_daily.csv"))[-700:],
    ...                        {"trend": "scripted:trend", "contrarian": "scripted:contrarian"},
    ...                        gate=gate, resamples=99)
    >>> list(found.table.index), found.pairs[0].shared_trades
    (['trend', 'contrarian', 'ungated'], 0)
    """
    gates = gates_by_name(models, gate or Gate())
    market = Market.of(data, format=format)
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    _check_warm_up(gates)
    runs: dict[str, BacktestResult] = {}
    judged: dict[str, Judged] = {}
    costs: dict[str, ModelCost] = {}
    for name, chosen in gates.items():
        judged[name] = judge(market, chosen, horizon=horizon, flat=flat)
        costs[name] = model_cost(chosen, judged[name].usage)
        runs[name] = run_backtest(strategy, market, gate=chosen, name=name, **settings)
        chosen.asker().close()
    baseline = next(iter(gates.values())).baseline()
    runs[UNGATED] = run_backtest(strategy, market, gate=baseline, name=UNGATED, **settings)
    return ModelComparison(
        runs=runs,
        scores={name: score(found) for name, found in judged.items()},
        costs=costs,
        over_ungated={name: bootstrap.between(runs[name], runs[UNGATED]) for name in gates},
        pairs=[_pair(names, runs, judged, bootstrap) for names in itertools.combinations(gates, 2)],
        judged=judged,
        tried=None
        if output is None
        else count_trials(
            output, strategy, market, {name: (runs[name], one) for name, one in gates.items()}, settings
        ),
    )


def gates_by_name(models: Models, gate: G) -> dict[str, G]:
    """Return a gate for each model, by the name it has in tables.

    Raises
    ------
    ConfigError
        If there are fewer than two models, or two of one name.

    Examples
    --------
    >>> list(gates_by_name(["smollm2", "models/Llama-3.2-1B.gguf"], Gate()))
    ['smollm2', 'Llama-3.2-1B']
    """
    if isinstance(models, str) or len(models) < 2:
        raise ConfigError(f"models={models!r}: expected two or more, such as ['smollm2', 'scripted:trend']")
    pairs = models.items() if isinstance(models, Mapping) else [(_name(model), model) for model in models]
    gates: dict[str, G] = {}
    for name, model in pairs:
        if name in gates or name == UNGATED:
            raise ConfigError(
                f"models: the name {name!r} is taken; give a mapping from names of your own to models"
            )
        gates[name] = gate.with_config(_config(model, gate))
    return gates


def _config(model: Model, gate: AskingGate) -> AdvisorConfig | AnalystConfig:
    """Return how a gate asks a model."""
    if not isinstance(model, AdvisorConfig | AnalystConfig):
        return dataclasses.replace(gate.config, model=model)
    if type(model) is not type(gate.config):
        raise ConfigError(
            f"models: {model!r:.60}: expected a name or a {type(gate.config).__name__}, which a "
            f"{type(gate).__name__} asks by"
        )
    return model


def _check_warm_up(gates: Mapping[str, AskingGate]) -> None:
    bars = {name: gate.warm_up_bars for name, gate in gates.items()}
    slow, quick = max(bars, key=bars.__getitem__), min(bars, key=bars.__getitem__)
    if bars[slow] != bars[quick]:
        raise ConfigError(
            f"models: {slow!r} warms up in {bars[slow]} bars and {quick!r} in {bars[quick]}; give indicators "
            f"of one warm-up, so that the same bars are compared"
        )


def _name(model: Model) -> str:
    text = str(model.model) if isinstance(model, AdvisorConfig | AnalystConfig) else os.fspath(model)
    return Path(text).stem if text.lower().endswith(".gguf") else text


def _row(run: BacktestResult) -> dict[str, float]:
    metrics = run.metrics
    yearly = periods_per_year(pd.DatetimeIndex(run.equity.index))
    return {
        "pnl": metrics["final_value"] - run.settings["cash"],
        "return": metrics["return"],
        "sharpe": metrics["sharpe"],
        "sortino": metrics["sortino"],
        "calmar": math.nan
        if run.ruined is not None
        else statistics.calmar_ratio(run.equity.to_numpy(), yearly),
        "max_drawdown": metrics["max_drawdown"],
        "turnover": metrics["turnover"],
        "trades": metrics["trades"],
        "hit_rate": metrics["win_rate"],
        "exposure": metrics["exposure"],
    }


def _pair(
    names: tuple[str, str],
    runs: Mapping[str, BacktestResult],
    judged: Mapping[str, Judged],
    bootstrap: Bootstrap,
) -> PairComparison:
    first, second = (judged[name].bars for name in names)
    both = first.index.intersection(second.index)
    first, second = first.loc[both], second.loc[both]
    said = first["answer"], second["answer"]
    known = first["outcome"].notna() & second["outcome"].notna()
    apart = np.flatnonzero(known)[:: judged[names[0]].horizon]
    one, two = (frame["right"].to_numpy()[apart] == 1.0 for frame in (first, second))
    only = int(np.sum(one & ~two)), int(np.sum(two & ~one))
    trades = {name: runs[name].trades.set_index(["opened", "direction"], drop=False) for name in names}
    shared = trades[names[0]].index.intersection(trades[names[1]].index)
    alone = [found.drop(index=shared).assign(model=name) for name, found in trades.items()]
    table = pd.concat(alone, ignore_index=True).sort_values("opened", kind="stable", ignore_index=True)
    return PairComparison(
        models=names,
        agreement=statistics.agreement_matrix(*said, answer_names(*said)),
        agreed=float(np.mean(first["answer"].to_numpy() == second["answer"].to_numpy())),
        kappa=statistics.cohens_kappa(*said),
        only_first_right=only[0],
        only_second_right=only[1],
        mcnemar_p=statistics.mcnemar(*only),
        difference=bootstrap.between(runs[names[0]], runs[names[1]]),
        trades=table[["model", "opened", "closed", "direction", "pnlcomm"]],
        shared_trades=len(shared),
    )
