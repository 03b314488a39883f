"""Trials as jobs: small enough to send to another process, and the same wherever they run."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bt_llm.exceptions import ConfigError, MissingExtraError, StrategyError
from bt_llm.research.ledger import TrialOutcome
from bt_llm.research.walk_forward._windows import Account, Bars, run_window
from bt_llm.strategy_files import load_strategy, source_sha256

__all__ = ["Job", "PortableStrategy", "count_workers", "run_jobs"]

_FROM_FILE = "bt_llm_strategy_"  # how load_strategy names the modules it makes, which no worker can import


@dataclass(frozen=True, slots=True, kw_only=True)
class PortableStrategy:
    """A strategy as another process gets it: the class, or the file that it loads anew.

    Parameters
    ----------
    made : type or str
        The class, or ``path/to/file.py:ClassName`` with an absolute path.
    source : str
        SHA-256 of the file: a worker that finds another one says so.
    """

    made: type[Any] | str
    source: str

    @classmethod
    def of(cls, strategy: type[Any]) -> PortableStrategy:
        """Return a strategy's portable form."""
        source = source_sha256(strategy)
        if not strategy.__module__.startswith(_FROM_FILE):
            return cls(made=strategy, source=source)
        return cls(made=f"{Path(inspect.getfile(strategy)).resolve()}:{strategy.__name__}", source=source)

    def load(self) -> type[Any]:
        """Return the class.

        Raises
        ------
        StrategyError
            If its file has changed since the search began.
        """
        return _loaded(self.made, self.source) if isinstance(self.made, str) else self.made


@functools.lru_cache(maxsize=32)
def _loaded(spec: str, source: str) -> type[Any]:
    """Load a strategy file once in each process and version."""
    strategy = load_strategy(spec)
    if source_sha256(strategy) != source:
        raise StrategyError(f"{spec!r} was changed while the search ran; run it again")
    return strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One trial, and all that it may see.

    Parameters
    ----------
    key : str
        Of the trial, in the ledger.
    strategy : PortableStrategy
        What runs.
    bars : Bars
        The window's bars and those its indicators warm up on; nothing after the window is sent.
    warm_up : int
        As for `run_window`.
    params : dict
        Of the strategy, its gate included.
    account : Account
        Starting cash and costs.
    """

    key: str
    strategy: PortableStrategy
    bars: Bars
    warm_up: int
    params: dict[str, Any]
    account: Account

    def run(self) -> tuple[str, TrialOutcome]:
        """Return the key and what came of it."""
        outcome, _ = run_window(self.strategy.load(), self.bars, self.warm_up, self.params, self.account)
        return self.key, outcome


def count_workers(n_jobs: int) -> int:
    """Return how many processes a number of jobs asks for; -1 is one for each CPU."""
    if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != -1):
        raise ConfigError(f"n_jobs={n_jobs!r}: expected a number of processes, or -1 for one each CPU")
    return os.cpu_count() or 1 if n_jobs == -1 else n_jobs


def run_jobs(jobs: Sequence[Job], n_jobs: int) -> Iterator[tuple[str, TrialOutcome]]:
    """Yield keys and outcomes as they are done, in any order.

    Raises
    ------
    MissingExtraError
        If `n_jobs` is not 1 and joblib is not installed.
    """
    workers = count_workers(n_jobs)
    if workers == 1:
        yield from (job.run() for job in jobs)
        return
    try:
        import joblib  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "several processes need joblib: pip install 'bt-llm[research]', or use n_jobs=1"
        ) from error
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
    yield from parallel(joblib.delayed(Job.run)(job) for job in jobs)
