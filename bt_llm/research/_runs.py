"""Many backtests at once, and a look inside one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeAlias

import backtrader as bt
import pandas as pd

from bt_llm.backtest import BacktestResult, Market, Setup, run_backtest, strategy_class
from bt_llm.backtest import Source as DataSource
from bt_llm.gates import EntryGate, Gate, RuleGate
from bt_llm.models import Progress
from bt_llm.research._workers import chunk_size, run_each

__all__ = ["Measure", "Source", "inspect_run", "plain_rule", "returns_of_runs", "run_many", "runs_of"]

Source: TypeAlias = type[bt.Strategy] | str
"""A strategy, or ``path/to/file.py:ClassName``."""

Measure: TypeAlias = Callable[[BacktestResult], Mapping[str, float]]
"""More figures of a backtest; called where it ran, and so has to be picklable."""

_CHUNKS_A_WORKER = 32  # a chunk sends the bars once; more chunks make smoother progress, and lose less


def inspect_run(strategy: Source, data: DataSource, **settings: Any) -> tuple[BacktestResult, bt.Strategy]:
    """Run a backtest, and return the strategy too, as it stood at the end.

    Parameters
    ----------
    strategy : type or str
        As in `run_backtest`.
    data : path, DataFrame, feed, mapping, sequence or Market
        See `Market.of`.
    **settings
        Other arguments of `run_backtest`.

    Returns
    -------
    BacktestResult, bt.Strategy
        The strategy's indicators, data and broker are as Backtrader left them.
    """
    kept: list[bt.Strategy] = []
    chosen = strategy_class(strategy)

    class Inspected(chosen):  # type: ignore[misc, valid-type]
        __module__ = chosen.__module__

        def stop(self) -> None:
            kept.append(self)
            super().stop()

    Inspected.__name__ = chosen.__name__
    result = run_backtest(Inspected, data, **settings)
    return result, kept[0]


def plain_rule(gate: EntryGate, given: EntryGate | None) -> EntryGate | None:
    """Return the rule that a gate is compared with: the given one, else that on the features of a `Gate`."""
    if given is None and isinstance(gate, Gate):
        return RuleGate(indicator=gate.indicator, advisor=gate.advisor)
    return given


def returns_of_runs(runs: Mapping[str, BacktestResult]) -> dict[str, pd.Series[float]]:
    """Return the returns of runs by name; an account that was ruined, which is a problem, stays as it was."""
    returns = {name: run.returns for name, run in runs.items()}
    if all(run.ruined is None for run in runs.values()):
        return returns
    longest = max(returns.values(), key=len).index
    return {name: one.reindex(longest, fill_value=0.0) for name, one in returns.items()}


def run_many(
    strategy: Source,
    data: DataSource,
    gates: Sequence[EntryGate],
    *,
    n_jobs: int | None = None,
    on_progress: Progress | None = None,
    measure: Measure | None = None,
    **settings: Any,
) -> list[dict[str, float]]:
    """Run a strategy with one gate after the other, and return the metrics of each, in the gates' order.

    Parameters
    ----------
    strategy : type or str
        As in `run_backtest`. Workers get a strategy file as text, and a class of a script or a notebook
        whole; one of a module they import, and it is compared.
    data : path, DataFrame, feed, mapping, sequence or Market
        See `Market.of`.
    gates : sequence of gate
        Each is given to the strategy's parameter ``gate``.
    n_jobs : int, optional
        Processes; -1 is one for each CPU, 1 none but this one. Results do not depend on it. By default what
        a surrounding `joblib.parallel_config` or `bt_llm.dask_cluster` says, else 1.
    on_progress : callable, optional
        Called with (runs done, runs in all).
    measure : callable, optional
        Gives further figures of each result.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If `n_jobs` is neither -1 nor a positive number.
    MissingExtraError
        If runs leave this process and joblib is not installed.
    """
    metrics: list[dict[str, float]] = []
    with contextlib.closing(
        runs_of(strategy, data, gates, n_jobs=n_jobs, measure=measure, **settings)
    ) as done:
        for one in done:
            metrics.append(one)
            if on_progress is not None:
                on_progress(len(metrics), len(gates))
    return metrics


def runs_of(
    strategy: Source,
    data: DataSource,
    gates: Sequence[EntryGate],
    *,
    n_jobs: int | None = None,
    measure: Measure | None = None,
    **settings: Any,
) -> Generator[dict[str, float], None, None]:
    """Yield the metrics of each gate's run as soon as it is done, in the gates' order; see `run_many`."""
    chosen = strategy_class(strategy)
    if settings.get("setup") is not None:  # made where a function of a script has its source
        settings["setup"] = Setup.of(settings["setup"])
    size = chunk_size(len(gates), n_jobs, chunks=_CHUNKS_A_WORKER)
    market = Market.of(data)
    starts = range(0, len(gates), size)
    chunks = [(chosen, market, gates[start : start + size], measure, settings) for start in starts]
    with contextlib.closing(run_each(_run_chunk, chunks, n_jobs, ordered=True)) as done:
        for chunk in done:
            yield from chunk


def _run_chunk(
    strategy: type[bt.Strategy],
    data: Market,
    gates: Sequence[EntryGate],
    measure: Measure | None,
    settings: dict[str, Any],
) -> list[dict[str, float]]:
    found = []
    for gate in gates:
        result = run_backtest(strategy, data, gate=gate, **settings)
        found.append({**result.metrics, **(measure(result) if measure is not None else {})})
    return found
