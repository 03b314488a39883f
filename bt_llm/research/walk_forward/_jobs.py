"""Trials as jobs: small enough to send to another machine, and the same wherever they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from bt_llm.research._ledger import TrialOutcome
from bt_llm.research._workers import PortableStrategy, leaves, run_elsewhere
from bt_llm.research.walk_forward._supplies import Supplies
from bt_llm.research.walk_forward._windows import Account, Bars, run_window

__all__ = ["Job", "run_jobs"]


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


def run_jobs(
    jobs: Sequence[Job], n_jobs: int | None, supplies: Callable[[], Supplies]
) -> Generator[tuple[str, TrialOutcome], None, None]:
    """Yield keys and outcomes as they are done, in any order.

    Parameters
    ----------
    jobs : sequence of Job
        The trials.
    n_jobs : int or None
        See `bt_llm.research.leaves`.
    supplies : callable
        Returns what goes with the jobs, if they leave this process.

    Raises
    ------
    MissingExtraError
        If jobs leave this process and joblib is not installed.
    """
    if not leaves(n_jobs):
        yield from (job.run() for job in jobs)
    elif jobs:
        sent = supplies()
        yield from run_elsewhere(_run, ((job, sent) for job in jobs), n_jobs, ordered=False)


def _run(job: Job, supplies: Supplies) -> tuple[str, TrialOutcome]:
    return dataclasses.replace(job, params=supplies.settled(job.params)).run()
