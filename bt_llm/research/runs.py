"""Many backtests at once, and a look inside one."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import backtrader as bt
import pandas as pd

from bt_llm.backends.base import Progress
from bt_llm.backtest import BacktestResult, run_backtest
from bt_llm.exceptions import ConfigError, MissingExtraError
from bt_llm.gates import GateProtocol
from bt_llm.strategy_files import load_strategy

__all__ = ["Source", "inspect_run", "run_many"]

Source: TypeAlias = type[bt.Strategy] | str
"""A strategy, or ``path/to/file.py:ClassName``."""

_FROM_FILE = "bt_llm_strategy_"  # how load_strategy names the modules it makes, which no worker can import
_CHUNKS_A_WORKER = 8  # a chunk sends the bars once; more chunks make smoother progress


def inspect_run(strategy: Source, data: pd.DataFrame, **settings: Any) -> tuple[BacktestResult, bt.Strategy]:
    """Run a backtest, and return the strategy too, as it stood at the end.

    Parameters
    ----------
    strategy : type or str
        As in `run_backtest`.
    data : DataFrame
        Bars.
    **settings
        Other arguments of `run_backtest`.

    Returns
    -------
    BacktestResult, bt.Strategy
        The strategy's indicators, data and broker are as Backtrader left them.
    """
    kept: list[bt.Strategy] = []
    chosen = load_strategy(strategy) if isinstance(strategy, str) else strategy

    class Inspected(chosen):  # type: ignore[misc, valid-type]
        __module__ = chosen.__module__

        def stop(self) -> None:
            kept.append(self)
            super().stop()

    Inspected.__name__ = chosen.__name__
    result = run_backtest(Inspected, data, **settings)
    return result, kept[0]


def run_many(
    strategy: Source,
    data: pd.DataFrame,
    gates: Sequence[GateProtocol],
    *,
    n_jobs: int = 1,
    on_progress: Progress | None = None,
    **settings: Any,
) -> list[dict[str, float]]:
    """Run a strategy with one gate after the other, and return the metrics of each, in the gates' order.

    Parameters
    ----------
    strategy : type or str
        As in `run_backtest`. A class from a strategy file is loaded anew by the workers; any other class
        must be at the top of a module that they can import.
    data : DataFrame
        Bars.
    gates : sequence of gate
        Each is given to the strategy's parameter ``gate``.
    n_jobs : int
        Processes; -1 is one for each CPU. Results do not depend on it. Where the work is done can be
        changed by `joblib.parallel_config`.
    on_progress : callable, optional
        Called with (runs done, runs in all).
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If `n_jobs` is neither -1 nor a positive number.
    MissingExtraError
        If `n_jobs` is not 1 and joblib is not installed.
    """
    if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != -1):
        raise ConfigError(f"n_jobs={n_jobs!r}: expected a number of processes, or -1 for one each CPU")
    workers = os.cpu_count() or 1 if n_jobs == -1 else n_jobs
    metrics: list[dict[str, float]] = []
    for chunk in _chunks_done(_portable(strategy), data, gates, workers, settings):
        metrics += chunk
        if on_progress is not None:
            on_progress(len(metrics), len(gates))
    return metrics


def _chunks_done(
    strategy: Source,
    data: pd.DataFrame,
    gates: Sequence[GateProtocol],
    workers: int,
    settings: dict[str, Any],
) -> Iterator[list[dict[str, float]]]:
    if workers == 1:
        yield from (_run_chunk(strategy, data, [gate], settings) for gate in gates)
        return
    try:
        import joblib  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "several processes need joblib: pip install 'bt-llm[research]', or use n_jobs=1"
        ) from error
    size = max(1, math.ceil(len(gates) / (workers * _CHUNKS_A_WORKER)))
    chunks = [gates[start : start + size] for start in range(0, len(gates), size)]
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    yield from parallel(joblib.delayed(_run_chunk)(strategy, data, chunk, settings) for chunk in chunks)


def _run_chunk(
    strategy: Source, data: pd.DataFrame, gates: Sequence[GateProtocol], settings: dict[str, Any]
) -> list[dict[str, float]]:
    chosen = _loaded(strategy) if isinstance(strategy, str) else strategy
    return [run_backtest(chosen, data, gate=gate, **settings).metrics for gate in gates]


@lru_cache(maxsize=32)
def _loaded(spec: str) -> type[bt.Strategy]:
    """Load a strategy file once in each process."""
    return load_strategy(spec)


def _portable(strategy: Source) -> Source:
    """Return a strategy in a form that a worker can load: by its file, if that is where it comes from."""
    if isinstance(strategy, str):
        file, colon, name = strategy.rpartition(":")
        is_file = colon and not {"/", "\\"} & set(name)
        return f"{Path(file).resolve()}:{name}" if is_file else str(Path(strategy).resolve())
    if strategy.__module__.startswith(_FROM_FILE):
        return f"{Path(inspect.getfile(strategy)).resolve()}:{strategy.__name__}"
    return strategy
