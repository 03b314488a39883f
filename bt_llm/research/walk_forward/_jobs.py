"""Trials as jobs: small enough to send to another machine, and the same wherever they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from bt_llm.backtest import Market, Setup, Window
from bt_llm.research._ledger import TrialOutcome
from bt_llm.research._workers import run_each
from bt_llm.research.walk_forward._supplies import Supplies
from bt_llm.research.walk_forward._windows import run_trial

__all__ = ["Job", "run_jobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One trial, and all that it may see.

    Parameters
    ----------
    key : str
        Of the trial, in the ledger.
    strategy : type
        What runs.
    market : Market
        The window's bars and those that its indicators warm up on; nothing after the window is sent.
    window : Window
        Its place in that market.
    params : dict
        Of the strategy, its gate included.
    setup : Setup
        How the account is opened.
    settles : bool
        Whether the market ends in the window.
    """

    key: str
    strategy: type[Any]
    market: Market
    window: Window
    params: dict[str, Any]
    setup: Setup
    settles: bool = False

    def run(self) -> tuple[str, TrialOutcome]:
        """Return the key and what came of it."""
        outcome, _ = run_trial(
            self.strategy, self.market, self.window, self.params, self.setup, settles=self.settles
        )
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
    yield from run_each(_run, [(job,) for job in jobs], n_jobs, ordered=False, supplies=supplies)


def _run(job: Job, supplies: Supplies | None = None) -> tuple[str, TrialOutcome]:
    if supplies is not None:
        job = dataclasses.replace(job, params=supplies.settled(job.params))
    return job.run()
