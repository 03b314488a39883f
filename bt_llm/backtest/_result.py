"""What came of one backtest, and what speaks against concluding anything from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from bt_llm.advice import AdvisorConfig, Asked, asked_of
from bt_llm.backtest._account import Fill, SentOrder, Trade, frame_of, measure_account, order_counts
from bt_llm.backtest._answers import answers_of
from bt_llm.backtest._engine import Ran
from bt_llm.backtest._market import Market
from bt_llm.backtest._problems import problems_of, silences
from bt_llm.backtest._sections import Section
from bt_llm.backtest._setup import Setup
from bt_llm.backtest._showing import OneRun
from bt_llm.backtest._trips import trades_told
from bt_llm.backtest._year import year_assumed
from bt_llm.exceptions import DataError
from bt_llm.gates import EntryGate, attached_gates, order_gate_of
from bt_llm.indicators import askers_in, assumptions_of, find_advice

__all__ = ["BacktestResult", "result_of"]

_FILL = [one.name for one in fields(Fill)]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BacktestResult(OneRun):
    """What came of one backtest; everything is measured from the first bar after the warm-up.

    Of a strategy that trades datas before all have warmed up, that is the first bar at which one has.

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
        pnl (before commission), pnlcomm (after) and data, its name; then size, price, exit_price, return,
        verdict and confidence, as `trades_told` says.
    fills : pandas.DataFrame
        One row a fill: time, data, size (negative: sold), price and commission.
    order_log : pandas.DataFrame
        One row an order: time (of the close that it was decided at), data, side, size, kind, status, reason
        of a refusal, vetoed (by a gate: it reached no broker), early (sent before the first bar that is
        measured), and the value traded.
    orders : dict
        How many orders were ``submitted`` to the broker, and of these ``filled``, ``cancelled``,
        ``expired``, ``refused`` and still ``open``; how many a gate ``vetoed``; ``first_refused``, the time
        of the first that the broker refused, and ``reason``, both None if there is none.
    metrics : dict
        final_value, return (fraction of the starting cash), sharpe and sortino (annualised, risk-free rate
        0), max_drawdown (positive fraction), trades (closed), win_rate, exposure (share of bars with a
        position, on any data) and turnover (value traded on all datas over mean equity). NaN where a number
        has no meaning: a ruined account has no ratios.
    ruined : pandas.Timestamp or None
        The bar at whose close the account was worth nothing or less: the run ended there.
    advice : dict or None
        `LLMAnalyzer`'s analysis; None for a run without a gate.
    settings : dict
        What the account was, as `Setup.describe` says, ``cash`` as its broker says, and the strategy's
        ``params``.
    market : dict
        ``sha256`` of the content of all datas, and ``datas``: that of each by its name.
    setup : Setup
        How the account was opened.
    asked : tuple of Asked
        Who answered the run, in which words, and what: all that its manifest and its page need.
    verdicts : mapping of str to DataFrame
        What each data's model said bar by bar, by the data's name; see `answers_of`. Empty in runs that keep
        no lines (``exactbars`` above 0).
    problems : tuple of str
        What speaks against any conclusion from this run, one line each; usually none.
    notes : tuple of str
        What is to be said of the bars, one line each: what was assumed, repaired or noticed when they were
        read, how many make a year where that was assumed, and what their times were taken for where news was
        joined with them. And of the gate: whether it judged orders, and whether its prior comes from a sample
        of the state space.
    settled : pandas.DataFrame
        Those of the fills that closed what was open at the last close; see `run_backtest`.
    gate_problems : tuple of str
        Those of the problems that are the gate's, and no fault of the account.
    """

    name: str
    strategy: str
    equity: pd.Series[float]
    trades: pd.DataFrame
    fills: pd.DataFrame
    order_log: pd.DataFrame
    orders: dict[str, Any]
    metrics: dict[str, float]
    ruined: pd.Timestamp | None = None
    advice: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    market: dict[str, Any] = field(default_factory=dict)
    setup: Setup = field(default_factory=Setup)
    asked: tuple[Asked, ...] = ()
    verdicts: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    gate_problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settled: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_FILL))

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The result itself by its name, as of results with several."""
        return {self.name: self}

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        from bt_llm.backtest._study_sections import run_sections

        return run_sections(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems, and what is to be said of the bars."""
        return self.problems + self.notes

    @property
    def final_value(self) -> float:
        """Value of the account at the last close."""
        return self.metrics["final_value"]

    @property
    def returns(self) -> pd.Series[float]:
        """Simple return of each bar; the first bar has none."""
        return self.equity.pct_change().iloc[1:]

    @property
    def figures(self) -> dict[str, float | int | None]:
        """The metrics for JSON: what is undefined or infinite is None, counts are whole numbers."""
        whole = {"trades"}
        return {
            key: None if not math.isfinite(value) else int(value) if key in whole else value
            for key, value in self.metrics.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON, without its series and tables."""
        return {
            **self.figures,
            "ruined": None if self.ruined is None else self.ruined.isoformat(),
            "orders": self.orders,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }


def result_of(
    ran: Ran,
    market: Market,
    setup: Setup,
    *,
    strategy: type[bt.Strategy],
    params: Mapping[str, Any],
    gate: EntryGate | None,
    name: str,
) -> BacktestResult:
    """Return the result of a run over a whole market.

    Raises
    ------
    DataError
        If no bar counted.
    """
    account = ran.account
    if not account.numbers:
        lengths = ", ".join(f"{len(bars)} bars of {name}" for name, bars in market.bars.items())
        raise DataError(f"{lengths}: fewer than the warm-up needs; give more bars")
    equity = pd.Series(np.array(account.equity), index=market.times(account.numbers), name="equity")
    advice = dict(ran.strategy.analyzers.bt_llm_advice.get_analysis())
    orders = order_counts(account, market)
    ruined = None if account.ruined is None else market.times([account.ruined])[0]
    problems = problems_of(ran, market, gate, advice)
    asked = _asked_in(ran.strategy)
    fills, order_log = (
        frame_of(kind, rows, market)
        for kind, rows in ((Fill, account.fills), (SentOrder, list(account.orders.values())))
    )
    verdicts = _verdicts_in(ran.strategy, market)
    year = filter(None, [year_assumed(pd.DatetimeIndex(equity.index))])
    return BacktestResult(
        name=name or strategy.__name__,
        strategy=strategy.__name__,
        equity=equity,
        trades=trades_told(frame_of(Trade, account.trades, market), fills, order_log, verdicts),
        fills=fills,
        order_log=order_log,
        orders=orders,
        metrics=measure_account(account, equity),
        ruined=ruined,
        advice=advice if advice["bars"] or advice["questions"] else None,
        settings={**setup.describe(), "cash": account.cash, "params": dict(params)},
        market={"sha256": market.sha256, "datas": dict(market.hashes)},
        setup=setup,
        asked=asked,
        verdicts=verdicts,
        problems=problems,
        gate_problems=problems[len(problems_of(ran, market, None)) :],
        notes=(*market.notes, *year, *_said_of(ran, strategy, market), *_how_calibrated(asked)),
        settled=frame_of(Fill, account.settled, market),
    )


def _said_of(ran: Ran, strategy: type[bt.Strategy], market: Market) -> Iterator[str]:
    """Yield what its parts assumed, and whether it takes a gate and does nothing with it."""
    yield from dict.fromkeys(assumptions_of(ran.strategy))
    yield from dict.fromkeys(note for _, note in silences(ran, market) if note)
    if order_gate_of(ran.strategy) is not None and hasattr(strategy.params, "gate"):
        yield (
            f"{strategy.__name__} has the parameter gate and attaches none (attach_gate): the gate judged "
            "its orders"
        )


def _how_calibrated(asked: Iterable[Asked]) -> Iterator[str]:
    """Yield what is to be said of the priors of advisors, each sentence once."""
    notes = (one.config.prior_note for one in asked if isinstance(one.config, AdvisorConfig))
    yield from (note for note in dict.fromkeys(notes) if note)


def _asked_in(strategy: bt.Strategy) -> tuple[Asked, ...]:
    """Return what the indicators and gates of a strategy were told."""
    gates = [gate.asker for gate in attached_gates(strategy)]
    askers = dict.fromkeys([*askers_in(strategy), *(asker for asker in gates if asker is not None)])
    return tuple(asked_of(part) for part in dict.fromkeys(part for asker in askers for part in asker.parts))


def _verdicts_in(strategy: bt.Strategy, market: Market) -> dict[str, pd.DataFrame]:
    """Return what stands on the lines of the one advice of each data that has one."""
    found = {}
    for name, data in _datas_of(strategy, market).items():
        advices = [advice for advice in find_advice(strategy, data) if advice.distinct]
        if len(advices) == 1 and len(advices[0].lines.verdict.array) == len(market.bars[name]):
            found[name] = answers_of(advices[0], market[name].index)
    return found


def _datas_of(strategy: bt.Strategy, market: Market) -> dict[str, Any]:
    """Return a strategy's datas by their names in the market, or where they have others, by their order."""
    own = {data._name: data for data in strategy.datas if data._name in market}
    in_order = zip(market, strategy.datas, strict=False)
    others = {name: data for name, data in in_order if data._name not in market}
    return {name: own.get(name, others.get(name)) for name in market if name in own or name in others}
