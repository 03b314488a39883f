"""What results of one account, and of several, have in common: figures, returns by day, how they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from bt_llm.backtest._calendar import daily_returns
from bt_llm.backtest._figures import Accounted, figures_table, frame_of_figures
from bt_llm.plain_text import counted
from bt_llm.shown import Shown, listed, share

__all__ = ["HELD", "ManyRuns", "OneRun"]

HELD = "buy_and_hold"
"""Name of the run that is the benchmark of the others."""


class OneRun(Shown):
    """A result of one account."""

    equity: Any
    trades: Any
    metrics: Any

    @property
    def accounts(self) -> dict[str, Accounted]:
        """The account itself, by its name."""
        return {str(getattr(self, "name", "") or "result"): self}

    def summary(self) -> pd.DataFrame:
        """Return all figures as numbers, one row each; see `bt_llm.backtest.figures_of`.

        NaN where there is none: `figures_of` says why.
        """
        return frame_of_figures(figures_table(self.accounts))

    def returns_daily(self) -> pd.Series[float]:
        """Return the simple return of each day with a bar, as quantstats and empyrical take them.

        Raises
        ------
        DataError
            If the account was ruined.

        See Also
        --------
        bt_llm.backtest.daily_returns : what a day's return is.
        """
        return daily_returns(self.equity)

    def _told(self) -> str:
        return f"{_made(self)} over {_bars(self.equity)}{_end(self)}"


class ManyRuns(Shown):
    """A result of several accounts on the same bars."""

    if TYPE_CHECKING:

        @property
        def runs(self) -> Mapping[str, Any]:
            """The results by name: a property of some, a field of others."""

    @property
    def accounts(self) -> dict[str, Accounted]:
        """The accounts by name."""
        return dict(self.runs)

    @property
    def trades(self) -> pd.DataFrame:
        """The closed trades of all runs, with a column ``run``; see `BacktestResult.trades`."""
        parts = [run.trades.assign(run=name) for name, run in self.runs.items()]
        found = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        return pd.DataFrame(found[["run", *(name for name in found if name != "run")]])

    def summary(self) -> pd.DataFrame:
        """Return all figures as numbers, one column a run; see `bt_llm.backtest.figures_of`.

        Alpha, beta and correlation are to ``buy_and_hold``, where it is one of the runs.
        """
        accounts = self.accounts
        return frame_of_figures(figures_table(accounts, HELD if HELD in accounts else None))

    def returns_daily(self) -> pd.DataFrame:
        """Return the simple returns of each day with a bar, one column a run; see `daily_returns`.

        Raises
        ------
        DataError
            If an account was ruined.
        """
        return pd.DataFrame({name: daily_returns(one.equity) for name, one in self.accounts.items()})

    def _told(self) -> str:
        runs = {name: share(run.metrics["return"]) + _end(run) for name, run in self.accounts.items()}
        return f"{self._subject()}{listed(runs)} over {_bars(next(iter(self.accounts.values())).equity)}"

    def _subject(self) -> str:
        name = getattr(next(iter(self.runs.values())), "strategy", "")
        return f"{name}: " if name else ""


def _made(account: Accounted) -> str:
    names = dict.fromkeys(str(getattr(account, one, "")) for one in ("name", "strategy"))
    name = " of ".join(filter(None, names))
    return f"{name}, {share(account.metrics['return'])} in {counted(account.metrics['trades'], 'trade')}"


def _end(account: Accounted) -> str:
    """Return that an account was ruined, with the day, for behind what it made; usually nothing."""
    lost = account.equity[account.equity <= 0.0]
    if len(lost):
        return f" (ruined {pd.DatetimeIndex(lost.index)[0]:%Y-%m-%d})"
    return " (with a ruined account)" if getattr(account, "ruined", None) else ""


def _bars(equity: pd.Series[float]) -> str:
    index = pd.DatetimeIndex(equity.index)
    return f"{counted(len(index), 'bar')}, {index[0]:%Y-%m-%d} to {index[-1]:%Y-%m-%d}"
