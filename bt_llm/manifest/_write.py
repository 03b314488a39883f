"""From a run to its manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

import bt_llm
from bt_llm.backtest import BacktestResult, GateStudy, load_strategy
from bt_llm.cache import StoredAnswer
from bt_llm.data import bars_sha256, load_bars
from bt_llm.exceptions import ConfigError
from bt_llm.gates import Asker, model_name
from bt_llm.manifest._document import (
    TRADE_COLUMNS,
    DataFacts,
    ModelFacts,
    RunFacts,
    RunManifest,
    StrategyFacts,
    finite,
)
from bt_llm.manifest._encoding import Encoder
from bt_llm.manifest._files import neighbours_sha256, stored_path, text_sha256
from bt_llm.models import canonical_json

__all__ = ["Source", "data_facts", "run_facts", "versions", "write_manifest"]

Source: TypeAlias = pd.DataFrame | str | os.PathLike[str]

_BUILD = ("backend", "llama_cpp", "llama_cpp_python")
_ONE_MILLISECOND = np.timedelta64(1, "ms")  # Backtrader's times are floats


def write_manifest(
    path: str | os.PathLike[str],
    outcome: GateStudy | BacktestResult,
    *,
    strategy: type[Any] | str,
    data: Source,
) -> RunManifest:
    """Write the manifest of a run that this process has just made.

    Parameters
    ----------
    path : path
        The file, replaced in one step.
    outcome : GateStudy or BacktestResult
        What `gate_study` or `run_backtest` returned.
    strategy : type or str
        As it was given to them. The hash of its whole file goes into the manifest, and of those beside it
        that it imports.
    data : DataFrame, path or str
        As it was given to them.

    Returns
    -------
    RunManifest
        What was written.

    Raises
    ------
    ConfigError
        If the strategy or data are not those of the run, something in the gate or the parameters has no JSON
        form, or verdicts that the run used are not known any more.
    StrategyError, DataError
        If the strategy or the data cannot be read.

    Notes
    -----
    With grid calibration a run depends on the verdicts on the whole grid, and these are listed. Without it,
    those on all states that this process has asked about so far with the same configuration.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from bt_llm import AdvisorConfig, Gate, gate_study
    >>> from bt_llm.data import shipped
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> data = load_bars(shipped("eurusd_hourly.csv"))[:300]
    >>> with TemporaryDirectory() as folder:
    ...     gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=folder))
    ...     study = gate_study(strategy, data, gate)
    ...     manifest = write_manifest(f"{folder}/run.json", study, strategy=strategy, data=data)
    >>> manifest.data.bars, len(manifest.verdicts), sorted(manifest.runs)
    (300, 105, ['buy_and_hold', 'gated', 'ungated'])
    """
    folder = Path(path).absolute().parent
    chosen = load_strategy(strategy) if isinstance(strategy, str) else strategy
    runs = outcome.runs if isinstance(outcome, GateStudy) else {outcome.name: outcome}
    main = outcome.gated if isinstance(outcome, GateStudy) else outcome
    if main.strategy != chosen.__name__:
        raise ConfigError(f"strategy {chosen.__name__}: expected that of the run, {main.strategy}")
    settings = dict(main.settings)
    params = dict(settings.pop("params"))
    encoder = Encoder(chosen, folder)
    gate = encoder.describe("gate", params.pop("gate", None))
    described = {name: encoder.describe(name, value) for name, value in params.items()}
    models, verdicts = _used(encoder.askers, main)
    manifest = RunManifest(
        study=isinstance(outcome, GateStudy),
        data=data_facts(data, folder, main),
        strategy=_strategy_facts(chosen, folder),
        params=described,
        broker=settings,
        gate=gate,
        models=tuple(models),
        versions=versions(),
        verdicts=verdicts,
        runs={name: run_facts(run) for name, run in runs.items()},
        folder=folder,
    )
    manifest.write(path)
    return manifest


def versions() -> dict[str, str]:
    """Return the versions of what computes a backtest from its verdicts."""
    packages = ("backtrader", "numpy", "pandas")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "bt_llm": bt_llm.__version__, **found}


def data_facts(data: Source, folder: Path, run: BacktestResult | None = None) -> DataFacts:
    """Return the facts of bars; `run`, if given, must have been made on them."""
    bars = load_bars(data)
    if run is not None:
        last = abs(bars.index[-1].to_datetime64() - run.equity.index[-1].to_datetime64())
        if len(run.equity) > len(bars) or last > _ONE_MILLISECOND:
            raise ConfigError(
                f"data of {len(bars)} bars to {bars.index[-1]}: expected the run's, to {run.equity.index[-1]}"
            )
    return DataFacts(
        file=None if isinstance(data, pd.DataFrame) else stored_path(Path(data), folder),
        bars=len(bars),
        first=bars.index[0].isoformat(),
        last=bars.index[-1].isoformat(),
        sha256=bars_sha256(bars),
    )


def _strategy_facts(strategy: type[Any], folder: Path) -> StrategyFacts:
    try:
        file = Path(inspect.getfile(strategy))
    except (OSError, TypeError) as error:
        raise ConfigError(
            f"strategy {strategy.__name__} is in no file: put it into one, so that its source can be hashed"
        ) from error
    return StrategyFacts(
        file=stored_path(file, folder),
        name=strategy.__name__,
        sha256=text_sha256(file),
        neighbours=neighbours_sha256(file),
    )


def run_facts(run: BacktestResult) -> RunFacts:
    """Return what a manifest says of a result."""
    digest = hashlib.sha256(b"bt_llm equity 1\n")
    digest.update(run.equity.index.to_numpy().astype("datetime64[ns]").astype("<i8").tobytes())
    digest.update(run.equity.to_numpy(dtype=np.float64).astype("<f8").tobytes())
    return RunFacts(
        metrics=run.to_dict(),
        bars=len(run.equity),
        equity_sha256=digest.hexdigest(),
        trades=tuple(_trade_row(trade) for trade in run.trades.to_dict("records")),
    )


def _trade_row(trade: Mapping[Any, Any]) -> tuple[Any, ...]:
    opened, closed, direction, bars, *amounts = (trade[name] for name in TRADE_COLUMNS)
    return opened.isoformat(), closed.isoformat(), int(direction), int(bars), *map(finite, amounts)


def _used(askers: Sequence[Asker], run: BacktestResult) -> tuple[list[ModelFacts], dict[str, StoredAnswer]]:
    """Return the models that were asked, and their raw answers by key."""
    questions = (run.advice or {}).get("questions") or {"asked": 0}
    needed = (run.advice["distinct"] if run.advice is not None else 0) + questions["asked"]
    if not needed:
        return [], {}
    models: dict[str, ModelFacts] = {}
    answers: dict[str, StoredAnswer] = {}
    for asker in askers:
        found = asker.used()
        answers |= found
        if found:
            models[asker.identity.sha256] = _model_facts(asker, list(found))
    if len(answers) < needed:
        raise ConfigError(
            f"{len(answers)} of the run's {needed} verdicts are known: write its manifest in the process "
            "that made it, and give the AdvisorConfig in the gate or in a parameter"
        )
    return [models[key] for key in sorted(models)], answers


def _model_facts(asker: Asker, keys: list[str]) -> ModelFacts:
    builds = {
        canonical_json({name: record.provenance[name] for name in _BUILD if name in record.provenance})
        for record in asker.cache.get_many(keys).values()
    }
    return ModelFacts(
        name=model_name(asker.config),
        sha256=asker.identity.sha256,
        answered_by=tuple(json.loads(build) for build in sorted(builds)),
    )
