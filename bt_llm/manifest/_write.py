"""From a run to its manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bt_llm
from bt_llm.advice import Asked
from bt_llm.backtest import (
    BacktestResult,
    Bars,
    GateStudy,
    Market,
    Member,
    Setup,
    Source,
    strategy_class,
)
from bt_llm.cache import StoredAnswer, VerdictCache
from bt_llm.exceptions import ConfigError
from bt_llm.manifest._document import (
    TRADE_COLUMNS,
    DataFacts,
    ModelFacts,
    RunFacts,
    RunManifest,
    StrategyFacts,
)
from bt_llm.manifest._encoding import Encoder, shown_name
from bt_llm.manifest._files import neighbours_sha256, stored_path, text_sha256
from bt_llm.plain_json import canonical_json, plain
from bt_llm.settings import instance, path_text

__all__ = [
    "data_facts",
    "manifest_from",
    "market_facts",
    "run_facts",
    "shown_name",
    "versions",
    "write_manifest",
]

_BUILD = ("backend", "llama_cpp", "llama_cpp_python")


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
    data : path, DataFrame, feed, mapping, sequence or Market
        As it was given to them.

    Returns
    -------
    RunManifest
        What was written.

    Raises
    ------
    ConfigError
        If the strategy or data are not those of the run, something in the gate, the parameters or the set-up
        has no JSON form, or verdicts that the run used are not known any more.
    StrategyError, DataError
        If the strategy or the data cannot be read.

    Notes
    -----
    With grid calibration a run depends on the verdicts on the whole grid, and these are listed. Without it,
    those on all states that the run's model had been asked about when it ended.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from bt_llm import AdvisorConfig, Gate, gate_study
    >>> from bt_llm.data import load_bars, shipped
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> data = load_bars(shipped("eurusd_hourly.csv"))[:300]
    >>> with TemporaryDirectory() as folder:
    ...     gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=folder))
    ...     study = gate_study(strategy, data, gate)
    ...     manifest = write_manifest(f"{folder}/run.json", study, strategy=strategy, data=data)
    >>> manifest.data["data"].bars, len(manifest.verdicts), sorted(manifest.runs)
    (300, 105, ['buy_and_hold', 'gated', 'ungated'])
    """
    path = path_text("path", path)
    manifest = manifest_from(outcome, Path(path).absolute().parent, strategy=strategy, data=data)
    manifest.write(path)
    return manifest


def manifest_from(
    outcome: GateStudy | BacktestResult,
    folder: Path,
    *,
    strategy: type[Any] | str,
    data: Source | Member,
) -> RunManifest:
    """Return the manifest of a run; see `write_manifest`. Paths in it start at a folder."""
    instance("outcome", outcome, (GateStudy, BacktestResult), "a GateStudy or a BacktestResult")
    chosen = strategy_class(strategy)
    runs = outcome.runs if isinstance(outcome, GateStudy) else {outcome.name: outcome}
    main = outcome.gated if isinstance(outcome, GateStudy) else outcome
    if main.strategy != chosen.__name__:
        raise ConfigError(f"strategy {chosen.__name__}: expected that of the run, {main.strategy}")
    params = dict(main.settings["params"])
    encoder = Encoder(chosen, folder, main.asked)
    gate = encoder.describe("gate", params.pop("gate", None))
    described = {name: encoder.describe(name, value) for name, value in params.items()}
    models, verdicts = _used(main)
    member = data if isinstance(data, Member) else None
    return RunManifest(
        study=isinstance(outcome, GateStudy),
        data=data_facts(data, folder, main),
        start=None if member is None else _moment(_began(member, main)),
        end=None if member is None else _moment(member.end),
        settles=member is not None,
        setup=_setup_facts(main.setup, folder),
        strategy=_code_facts("strategy", chosen, folder),
        params=described,
        broker=_broker(main.setup),
        gate=gate,
        models=tuple(models),
        versions=versions(),
        verdicts=verdicts,
        runs={name: run_facts(run) for name, run in runs.items()},
        folder=folder,
    )


def _began(member: Member, run: BacktestResult) -> pd.Timestamp | None:
    """Return when a run was let begin: by its membership, or later by its own `start`."""
    if member.start is None or list(member.market.hashes.values()) == list(run.market["datas"].values()):
        return member.start
    bars, first = member.market.index, run.equity.index[0]
    return first if first > bars[int(bars.searchsorted(member.start))] else member.start


def _moment(time: pd.Timestamp | None) -> str | None:
    return None if time is None else time.isoformat()


def versions() -> dict[str, str]:
    """Return the versions of what computes a backtest from its verdicts."""
    packages = ("backtrader", "numpy", "pandas")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "bt_llm": bt_llm.__version__, **found}


def data_facts(data: Source | Member, folder: Path, run: BacktestResult) -> dict[str, DataFacts]:
    """Return the facts of the datas of a run.

    Raises
    ------
    ConfigError
        If it was made on others, or they have further lines.
    """
    begins = isinstance(data, Member) and data.start is not None  # then the run saw its warm-up alone
    market = data.market if isinstance(data, Member) else Market.of(data)
    if begins:
        same = market.index[-1] == run.equity.index[-1]
    else:
        same = list(market.hashes.values()) == list(run.market["datas"].values())
    if not same:
        lengths = " and ".join(f"{len(bars)} bars to {bars.index[-1]}" for bars in market.values())
        raise ConfigError(f"data of {lengths}: expected the run's, to {run.equity.index[-1]}")
    if further := [line for bars in market.bars.values() for line in bars.lines]:
        raise ConfigError(f"data with the lines {further}: a manifest holds none beside those of bars")
    return dict(zip(market, market_facts(market, folder), strict=True))


def market_facts(market: Market, folder: Path) -> list[DataFacts]:
    """Return the facts of each data; paths in them start at a folder."""
    return [_facts_of(bars, folder) for bars in market.bars.values()]


def _facts_of(bars: Bars, folder: Path) -> DataFacts:
    index = bars.frame.index
    first, last = (time.isoformat() for time in (index[0], index[-1]))
    return DataFacts(
        file=None if bars.file is None else stored_path(Path(bars.file), folder),
        bars=len(bars),
        first=first,
        last=last,
        sha256=bars.sha256,
        format=bars.format.stated,
        notes=bars.notes,
    )


def _broker(setup: Setup) -> dict[str, float]:
    """Return the numbers of the default account; none of one that a set-up of the user's opens."""
    if setup.function is not None:
        return {}
    if setup.sizer is not None or setup.cerebro or not isinstance(setup.commission, float):
        raise ConfigError(
            "an account with a sizer, a commission scheme or settings of Cerebro: put them into a function "
            "setup(cerebro, market) in a file, and give that"
        )
    names = ("cash", "commission", "slippage", "percent")
    return {name: getattr(setup, name) for name in names}


def _setup_facts(setup: Setup, folder: Path) -> StrategyFacts | None:
    if setup.function is None:
        return None
    return _code_facts("set-up", setup.function, folder)


def _code_facts(what: str, code: Any, folder: Path) -> StrategyFacts:
    try:
        file = Path(inspect.getfile(code))
    except (OSError, TypeError) as error:
        raise ConfigError(
            f"{what} {code.__name__} is in no file: put it into one, so that its source can be hashed"
        ) from error
    return StrategyFacts(
        file=stored_path(file, folder),
        name=code.__name__,
        sha256=text_sha256(file),
        neighbours=neighbours_sha256(file),
    )


def run_facts(run: BacktestResult) -> RunFacts:
    """Return what a manifest says of a result."""
    digest = hashlib.sha256(b"bt_llm equity 1\n")
    digest.update(run.equity.index.to_numpy().astype("datetime64[ns]").astype("<i8").tobytes())
    digest.update(run.equity.to_numpy(dtype=np.float64).astype("<f8").tobytes())
    return RunFacts(
        metrics=run.figures,
        bars=len(run.equity),
        equity_sha256=digest.hexdigest(),
        trades=tuple(_trade_row(trade) for trade in run.trades.to_dict("records")),
    )


def _trade_row(trade: Mapping[Any, Any]) -> tuple[Any, ...]:
    opened, closed, direction, bars, *amounts = (trade[name] for name in TRADE_COLUMNS)
    return opened.isoformat(), closed.isoformat(), int(direction), int(bars), *map(plain, amounts)


def _used(run: BacktestResult) -> tuple[list[ModelFacts], dict[str, StoredAnswer]]:
    """Return the models that were asked, and their raw answers by key."""
    models: dict[str, ModelFacts] = {}
    answers: dict[str, StoredAnswer] = {}
    for asked in run.asked:
        found = asked.used()
        answers |= found
        if found:
            models[asked.identity.sha256] = _model_facts(asked, list(found))
    return [models[key] for key in sorted(models)], answers


def _model_facts(asked: Asked, keys: list[str]) -> ModelFacts:
    stored = VerdictCache(asked.config.cache_dir, "replay").get_many(keys).values()
    builds = {
        canonical_json({name: record.provenance[name] for name in _BUILD if name in record.provenance})
        for record in stored
    }
    return ModelFacts(
        name=shown_name(asked.identity.name),
        sha256=asked.identity.sha256,
        answered_by=tuple(json.loads(build) for build in sorted(builds)),
    )
