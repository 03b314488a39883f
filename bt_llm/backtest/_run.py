"""run_backtest: one strategy on one set of bars, and what came of it."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.analyzers import LLMAnalyzer
from bt_llm.backtest._strategy_files import load_strategy
from bt_llm.data import load_bars
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.feeds import FrameFeed
from bt_llm.gates import AlwaysOpen, GateProtocol, attach_gate

__all__ = ["BacktestResult", "BuyAndHold", "GateStudy", "gate_study", "run_backtest"]


@dataclass(frozen=True, kw_only=True)
class BacktestResult:
    """What came of one backtest; everything is measured from the first bar after the warm-up.

    Attributes
    ----------
    name : str
        Of the run, for tables.
    strategy : str
        Name of the strategy's class.
    equity : pandas.Series
        Value of the account at each bar's close, by time.
    trades : pandas.DataFrame
        One row a closed trade: opened, closed (times of the bars of the fills), direction (1 or -1), bars,
        pnl (before commission) and pnlcomm (after).
    metrics : dict
        final_value, return (fraction of the starting cash), sharpe and sortino (annualised, risk-free rate
        0), max_drawdown (positive fraction), trades (closed), win_rate, exposure (share of bars with a
        position) and turnover (value traded over mean equity). NaN where a number has no meaning.
    advice : dict or None
        `LLMAnalyzer`'s analysis; None for a run without a gate.
    settings : dict
        Cash, commission, slippage and strategy parameters.
    """

    name: str
    strategy: str
    equity: pd.Series[float]
    trades: pd.DataFrame
    metrics: dict[str, float]
    advice: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def final_value(self) -> float:
        """Value of the account at the last close."""
        return self.metrics["final_value"]

    @property
    def returns(self) -> pd.Series[float]:
        """Simple return of each bar; the first bar has none."""
        return self.equity.pct_change().iloc[1:]

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics for JSON: NaN becomes None, counts are whole numbers."""
        whole = {"trades"}
        return {
            key: None if math.isnan(value) else int(value) if key in whole else value
            for key, value in self.metrics.items()
        }


class BuyAndHold(bt.Strategy):
    """Buy on the first bar after the warm-up, and never sell.

    Parameters
    ----------
    gate : gate or None
        Such as `AlwaysOpen`, whose warm-up it waits for.
    """

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        """Buy once."""
        if not self.position and self.gate.allows_long():
            self.buy()


class ShareOfAccount(bt.Sizer):
    """A fixed share of the account's value an entry, whatever position the same bar closes.

    Backtrader's PercentSizer returns the size of the open position where there is one, so that a
    reversal made of `close` and `buy` would trade the wrong size.
    """

    params = (("percent", 95.0),)

    def _getsizing(self, comminfo: Any, cash: float, data: Any, isbuy: bool) -> float:
        return float(self.broker.getvalue() * self.p.percent / 100.0 / data.close[0])


class _Account(bt.Analyzer):
    """Records the account at every bar after the warm-up, and every closed trade."""

    def start(self) -> None:
        """Begin with nothing."""
        self.times: list[float] = []
        self.values: list[float] = []
        self.held = 0
        self.traded = 0.0
        self.closed: list[dict[str, Any]] = []

    def prenext(self) -> None:
        """Leave the warm-up out."""

    def next(self) -> None:
        """Record the close of a bar."""
        strategy = self.strategy
        self.times.append(strategy.data.datetime[0])
        self.values.append(strategy.broker.getvalue())
        self.held += any(strategy.getposition(data).size for data in strategy.datas)

    def notify_order(self, order: Any) -> None:
        """Add up what was traded."""
        if order.status == order.Completed:
            self.traded += abs(order.executed.size * order.executed.price)

    def notify_trade(self, trade: Any) -> None:
        """Keep a closed trade."""
        if trade.isclosed:
            self.closed.append(
                {
                    "opened": bt.num2date(trade.dtopen),
                    "closed": bt.num2date(trade.dtclose),
                    "direction": 1 if trade.long else -1,
                    "bars": trade.barlen,
                    "pnl": trade.pnl,
                    "pnlcomm": trade.pnlcomm,
                }
            )


def run_backtest(
    strategy: type[bt.Strategy] | str,
    data: pd.DataFrame | str | os.PathLike[str],
    *,
    gate: GateProtocol | None = None,
    params: Mapping[str, Any] | None = None,
    cash: float = 10_000.0,
    commission: float = 0.0,
    slippage: float = 0.0,
    percent: float = 95.0,
    name: str = "",
    preload: bool = True,
    runonce: bool = True,
    exactbars: int | bool = False,
) -> BacktestResult:
    """Run one strategy on one set of bars.

    Orders are decided at a bar's close and filled at the next bar's open, Backtrader's default.

    Parameters
    ----------
    strategy : type or str
        A `backtrader.Strategy`, or ``path/to/file.py:ClassName``.
    data : DataFrame, path or str
        Bars, or a CSV of bars; see `bt_llm.data.load_bars`.
    gate : Gate, optional
        Given to the strategy's parameter ``gate``; None runs it ungated.
    params : mapping, optional
        The strategy's other parameters.
    cash : float
        Starting value of the account.
    commission, slippage : float
        Fractions of the traded value and of the price.
    percent : float
        Share of the account, in percent, that an entry of unstated size takes.
    name : str
        Of the run; by default the strategy's name.
    preload, runonce, exactbars : bool, bool, int
        Backtrader's engine modes; the result is the same in all of them.

    Raises
    ------
    DataError
        If the bars cannot be used, or are fewer than the warm-up.
    ConfigError
        If a parameter does not exist.
    StrategyError
        If the strategy cannot be loaded.
    """
    strategy = load_strategy(strategy) if isinstance(strategy, str) else strategy
    bars = load_bars(data)
    chosen = _strategy_params(strategy, dict(params or {}), gate)
    label = Path(data).stem if isinstance(data, str | os.PathLike) else str(bars.attrs.get("name", "data"))
    cerebro = bt.Cerebro(stdstats=False, preload=preload, runonce=runonce, exactbars=exactbars)
    cerebro.adddata(bars_feed(bars), name=label)
    cerebro.addstrategy(strategy, **chosen)
    cerebro.addsizer(ShareOfAccount, percent=in_range("percent", percent, 0, 100))
    cerebro.broker.setcash(in_range("cash", cash, 1e-9, math.inf))
    cerebro.broker.setcommission(commission=in_range("commission", commission, 0, 1))
    cerebro.broker.set_slippage_perc(in_range("slippage", slippage, 0, 1))
    cerebro.addanalyzer(_Account, _name="account")
    cerebro.addanalyzer(LLMAnalyzer, _name="advice")
    run = cerebro.run()[0]
    account = run.analyzers.account
    if not account.times:
        raise DataError(f"{label}: {len(bars)} bars are fewer than the warm-up needs; give more bars")
    advice = dict(run.analyzers.advice.get_analysis())
    equity: pd.Series[float] = pd.Series(
        account.values, index=pd.DatetimeIndex([bt.num2date(time) for time in account.times]), name="equity"
    )
    trades = pd.DataFrame(account.closed, columns=["opened", "closed", "direction", "bars", "pnl", "pnlcomm"])
    settings = {
        "cash": cash,
        "commission": commission,
        "slippage": slippage,
        "percent": percent,
        "params": chosen,
    }
    return BacktestResult(
        name=name or strategy.__name__,
        strategy=strategy.__name__,
        equity=equity,
        trades=trades,
        metrics=_metrics(equity, trades, account, cash),
        advice=advice if advice["bars"] else None,
        settings=settings,
    )


def in_range(name: str, value: float, low: float, high: float) -> float:
    """Return a setting as a float, or say in which range it was expected."""
    if type(value) not in (int, float) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r}: expected a number from {low:g} to {high:g}")
    return float(value)


def _strategy_params(
    strategy: type[bt.Strategy], params: dict[str, Any], gate: GateProtocol | None
) -> dict[str, Any]:
    known = list(strategy.params._getkeys())
    for name in params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{strategy.__name__} has no parameter {name!r}, only {known}{hint}")
    if "gate" in known:
        return {**params, "gate": gate}
    if gate is not None:
        raise ConfigError(
            f"{strategy.__name__} has no parameter 'gate': add params = (('gate', None),) and ask "
            f"bt_llm.attach_gate(self.p.gate, self) before its entries"
        )
    return params


def bars_feed(bars: pd.DataFrame) -> FrameFeed:
    """Return a feed that knows how long its bars are, for plots and analyzers."""
    steps = np.diff(bars.index.to_numpy()) / np.timedelta64(1, "m")
    minutes = max(1, int(np.median(steps))) if len(steps) else 1440
    frame = (bt.TimeFrame.Minutes, minutes) if minutes < 1440 else (bt.TimeFrame.Days, 1)
    return FrameFeed(dataname=bars, timeframe=frame[0], compression=frame[1])


def periods_per_year(index: pd.DatetimeIndex) -> float:
    """Return how many bars a year has, from the bars' own times (years of 365.25 days)."""
    if len(index) < 2:
        return math.nan
    years = float((index[-1] - index[0]) / pd.Timedelta(days=365.25))
    return (len(index) - 1) / years


def _metrics(equity: pd.Series[float], trades: pd.DataFrame, account: Any, cash: float) -> dict[str, float]:
    returns = equity.pct_change().iloc[1:].to_numpy()
    yearly = periods_per_year(pd.DatetimeIndex(equity.index))
    return {
        "final_value": float(equity.iloc[-1]),
        "return": float(equity.iloc[-1] / cash - 1.0),
        "sharpe": statistics.sharpe_ratio(returns, periods_per_year=yearly),
        "sortino": statistics.sortino_ratio(returns, periods_per_year=yearly),
        "max_drawdown": statistics.max_drawdown(equity.to_numpy()),
        "trades": float(len(trades)),
        "win_rate": float((trades["pnlcomm"] > 0).mean()) if len(trades) else math.nan,
        "exposure": account.held / len(equity),
        "turnover": account.traded / float(np.mean(equity)),
    }


@dataclass(frozen=True, kw_only=True)
class GateStudy:
    """One strategy with its gate, without it, and buy and hold, over the same bars and warm-up."""

    gated: BacktestResult
    ungated: BacktestResult
    buy_and_hold: BacktestResult

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The three results by name."""
        return {"gated": self.gated, "ungated": self.ungated, "buy_and_hold": self.buy_and_hold}

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints."""
        return {"runs": {name: run.to_dict() for name, run in self.runs.items()}, "advice": self.gated.advice}


def gate_study(
    strategy: type[bt.Strategy] | str,
    data: pd.DataFrame | str | os.PathLike[str],
    gate: GateProtocol,
    **settings: Any,
) -> GateStudy:
    """Run a strategy gated and ungated, and buy and hold, so that what differs is the gate alone.

    Parameters
    ----------
    strategy, data, gate
        As in `run_backtest`.
    **settings
        Its other arguments.
    """
    strategy = load_strategy(strategy) if isinstance(strategy, str) else strategy
    bars = load_bars(data)
    bars.attrs["name"] = Path(data).stem if isinstance(data, str | os.PathLike) else "data"
    gated = run_backtest(strategy, bars, gate=gate, name="gated", **settings)
    ungated = run_backtest(strategy, bars, gate=gate.baseline(), name="ungated", **settings)
    settings.pop("params", None)
    first = int(pd.DatetimeIndex(bars.index).get_indexer(gated.equity.index[:1])[0])
    wait = AlwaysOpen(warm_up=first + 1)
    held = run_backtest(BuyAndHold, bars, gate=wait, name="buy_and_hold", **settings)
    return GateStudy(gated=gated, ungated=ungated, buy_and_hold=held)
