"""Compare models: the same strategy on the same bars, gated by one after the other."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.advice import AdvisorConfig, AnalystConfig
from bt_llm.backtest import BacktestResult, Bootstrap, Market, answer_names, run_backtest
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AskingGate, EntryGate, Gate
from bt_llm.progress import current, shows_progress
from bt_llm.research._comparison_result import RULE, UNGATED, ModelComparison, PairComparison
from bt_llm.research._runs import Source, plain_rule, returns_of_runs
from bt_llm.research._scoring import Judged, ModelCost, judge, model_cost, score
from bt_llm.research._standing import standing, told_apart
from bt_llm.research._tried import check_ledger, count_trials
from bt_llm.research._verdict_skill import verdict_skill
from bt_llm.settings import in_short, instance, several

__all__ = ["Models", "compare_models", "gates_by_name"]

Model: TypeAlias = str | os.PathLike[str] | AdvisorConfig | AnalystConfig
G = TypeVar("G", bound=AskingGate)
Models: TypeAlias = Sequence[Model] | Mapping[str, Model]


@shows_progress("models")
def compare_models(
    strategy: Source,
    data: DataSource,
    models: Models,
    *,
    gate: AskingGate | None = None,
    rule: EntryGate | None = None,
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
    rule : gate, optional
        What runs beside the models in their gate's place, such as a policy that was written out
        (`FunctionGate`); by default `RuleGate` on the features of a `Gate`.
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
    The one question is which model is better; its p-value counts all pairs of them (see `Standing`). A plain
    rule on the same features runs beside the models where the gate is a `Gate` that it can stand for.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> gate = Gate(advisor=AdvisorConfig(cache_mode="off"))
    >>> found = compare_models(strategy, load_bars(shipped("sp500_daily.csv"))[-700:],
    ...                        {"trend": "scripted:trend", "contrarian": "scripted:contrarian"},
    ...                        gate=gate, resamples=99)
    >>> list(found.table.index), found.pairs[0].shared_trades
    (['trend', 'contrarian', 'ungated', 'rule'], 0)
    """
    gates = gates_by_name(models, Gate() if gate is None else gate)
    market = Market.of(data, format=format)
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    check_ledger(output)
    _check_warm_up(gates)
    runs: dict[str, BacktestResult] = {}
    judged: dict[str, Judged] = {}
    costs: dict[str, ModelCost] = {}
    progress = current("models")
    for place, (name, chosen) in enumerate(gates.items(), start=1):
        judged[name] = judge(market, chosen, horizon=horizon, flat=flat)
        costs[name] = model_cost(chosen, judged[name].usage)
        runs[name] = run_backtest(strategy, market, gate=chosen, name=name, **settings)
        chosen.asker().close()
        if progress is not None:
            progress(place, len(gates))
    one = next(iter(gates.values()))
    runs[UNGATED] = run_backtest(strategy, market, gate=one.baseline(), name=UNGATED, **settings)
    if (ruling := plain_rule(one, rule)) is not None:
        ruled = run_backtest(strategy, market, gate=ruling, name=RULE, **settings)
        if ruled.equity.index.equals(runs[UNGATED].equity.index):
            runs[RULE] = ruled
    return ModelComparison(
        runs=runs,
        scores={name: score(found) for name, found in judged.items()},
        costs=costs,
        standing=standing(
            returns_of_runs(runs),
            list(gates),
            bootstrap,
            trades={name: told_apart(run.trades) for name, run in runs.items()},
        ),
        skill=verdict_skill(judged, resamples=resamples, seed=seed, block_length=block_length),
        pairs=[_pair(names, runs, judged) for names in itertools.combinations(gates, 2)],
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
        If there are fewer than two models, two of one name, or what is none; or if the gate asks no model.

    Examples
    --------
    >>> list(gates_by_name(["smollm2", "models/Llama-3.2-1B.gguf"], Gate()))
    ['smollm2', 'Llama-3.2-1B']
    """
    instance("gate", gate, AskingGate, "a gate whose model can be asked, such as a Gate")
    given = models if isinstance(models, Mapping) else several("models", models, "models")
    if len(given) < 2:
        raise ConfigError(
            f"models={in_short(models)}: expected two or more, such as ['smollm2', 'scripted:trend']"
        )
    for model in given.values() if isinstance(given, Mapping) else given:
        instance("models", model, (str, os.PathLike, AdvisorConfig, AnalystConfig), "names of models")
    pairs = given.items() if isinstance(given, Mapping) else [(_name(model), model) for model in given]
    gates: dict[str, G] = {}
    for name, model in pairs:
        instance("name of a model", name, str, "a text")
        if name in gates or name in (UNGATED, RULE):
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
            f"models: {in_short(model)}: expected a name or a {type(gate.config).__name__}, which a "
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


def _pair(
    names: tuple[str, str], runs: Mapping[str, BacktestResult], judged: Mapping[str, Judged]
) -> PairComparison:
    first, second = (judged[name].bars for name in names)
    both = first.index.intersection(second.index)
    first, second = first.loc[both], second.loc[both]
    said = first["answer"], second["answer"]
    trades = {name: runs[name].trades.set_index(told_apart(runs[name].trades)) for name in names}
    shared = trades[names[0]].index.intersection(trades[names[1]].index)
    alone = [found.drop(index=shared).assign(model=name) for name, found in trades.items()]
    table = pd.concat(alone, ignore_index=True).sort_values("opened", kind="stable", ignore_index=True)
    return PairComparison(
        models=names,
        agreement=statistics.agreement_matrix(*said, answer_names(*said)),
        agreed=float(np.mean(first["answer"].to_numpy() == second["answer"].to_numpy())),
        kappa=statistics.cohens_kappa(*said),
        trades=table[["model", "opened", "closed", "direction", "pnlcomm"]],
        shared_trades=len(shared),
    )
