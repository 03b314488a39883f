"""One trial: a strategy on one window of a market, with nothing before it but indicators that warm up."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm.backtest import Account, Bars, Market, Ran, Setup, Window, run_strategy
from bt_llm.gates import LONG, SHORT, EntryGate, attach_gate
from bt_llm.indicators import LLMAdvice, copy_values, warm_up_bars
from bt_llm.research._ledger import TrialOutcome
from bt_llm.verdicts import Verdict

__all__ = ["ask_every_bar", "outcome_of", "run_trial", "window_cells"]


def run_trial(
    strategy: type[bt.Strategy],
    market: Market,
    window: Window,
    params: Mapping[str, Any],
    setup: Setup,
    cash: float | None = None,
    settles: bool = False,
) -> tuple[TrialOutcome, Ran]:
    """Run a strategy over a window.

    Parameters
    ----------
    strategy : type
        The strategy.
    market : Market
        That the window is of.
    window : Window
        Where it decides.
    params : mapping
        Of the strategy, its gate included.
    setup : Setup
        How the account is opened.
    cash : float, optional
        What it begins with, instead of the set-up's.
    settles : bool
        Whether the market ends in the window: what is open is closed at the last close.

    Returns
    -------
    TrialOutcome, Ran
        Facts from the window's first bar on, and the run.
    """
    ran = run_strategy(strategy, market, setup, params, window=window, cash=cash, settles=settles)
    return outcome_of(ran.account, market.numbers[window.first : window.stop]), ran


def outcome_of(account: Account, numbers: NDArray[np.float64]) -> TrialOutcome:
    """Return the facts of an account at given bars, in Backtrader's numbers."""
    return TrialOutcome(
        equity=account.equity_at(numbers),
        trades=len(account.trades),
        wins=sum(trade.pnlcomm > 0 for trade in account.trades),
        held=account.held,
        traded=account.traded,
    )


class _AskEveryBar(bt.Strategy):  # type: ignore[misc]
    params = (("gate", None),)

    def __init__(self) -> None:
        self.gates = [attach_gate(self.p.gate, self, data) for data in self.datas]

    def next(self) -> None:
        for gate in self.gates:
            for side in (LONG, SHORT):
                gate.decide(side)


def ask_every_bar(gate: EntryGate, market: Market) -> None:
    """Have a gate ask everything that any strategy may make it ask on these bars."""
    cerebro = bt.Cerebro(stdstats=False)
    market.add_to(cerebro)
    cerebro.addstrategy(_AskEveryBar, gate=gate)
    cerebro.run()


class _Holder(bt.Strategy):  # type: ignore[misc]
    params = (("make", None), ("advisor", None))

    def __init__(self) -> None:
        self.advice = self.p.make(self.data, advisor=self.p.advisor)


@functools.lru_cache(maxsize=8)
def _silent(indicator: type[LLMAdvice]) -> type[LLMAdvice]:
    """Return the indicator without its verdicts: the states cost no model."""

    class Silent(indicator):  # type: ignore[misc, valid-type]
        advises_places = True

        def advise(self, cells: Any) -> list[Verdict]:
            return [Verdict.invalid("not asked")] * len(cells)

    return Silent


def window_cells(
    indicator: type[LLMAdvice], advisor: Any, market: Market, window: Window, *, warming: bool = False
) -> NDArray[np.int64]:
    """Return what each bar of a window is asked about, its cell, of all datas one after the other.

    Parameters
    ----------
    indicator : type
        `LLMAdvice`, or a subclass.
    advisor : AdvisorConfig
        Whose state space.
    market : Market
        That the window is of.
    window : Window
        Whose bars.
    warming : bool
        Those before the first one that counts, too: an indicator that is warm before its strategy is asked
        about them.

    Returns
    -------
    ndarray of int64
        -1 where a state is not finite, as on bars of a data that has not warmed up. Of a model that answers
        by the bar, the places that its advisor is asked about.
    """
    first = market.numbers[0 if warming else window.first]
    needed = warm_up_bars(indicator, advisor=advisor) if len(market) > 1 else 0
    return np.concatenate(
        [
            _cells(indicator, advisor, bars, name)[int(np.searchsorted(bars.numbers, first)) :]
            if len(bars) >= needed
            else np.full(len(bars), -1)
            for name, bars in market.cut(window).bars.items()
        ]
    )


def _cells(indicator: type[LLMAdvice], advisor: Any, bars: Bars, name: str) -> NDArray[np.int64]:
    """Return the cell of each bar of one data, or its place where the model answers by the bar."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bars.feed(), name=name)
    cerebro.addstrategy(_Holder, make=_silent(indicator), advisor=advisor)  # type: ignore[arg-type]
    advice, space = cerebro.run()[0].advice, advisor.state_space
    columns = [copy_values(getattr(advice.lines, feature)) for feature in space.names]
    return np.asarray(advice.places(columns, bars.numbers))
