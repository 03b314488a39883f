"""run_backtest and gate_study: one strategy on one market, and what came of it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import backtrader as bt
import pandas as pd

from bt_llm.analyzers import LLMAnalyzer
from bt_llm.backtest._effect import Effect
from bt_llm.backtest._engine import Ran, run_strategy, warm_up_of
from bt_llm.backtest._findings import Bootstrap, Primary, problems_in
from bt_llm.backtest._market import Market, Moment, Source, Window, moment
from bt_llm.backtest._result import BacktestResult, result_of
from bt_llm.backtest._sections import Section
from bt_llm.backtest._setup import Engine, Setup, SetupFunction
from bt_llm.backtest._showing import ManyRuns
from bt_llm.backtest._strategy_files import strategy_class
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import EntryGate, check_gate
from bt_llm.plain_json import plain
from bt_llm.progress import shows_progress
from bt_llm.settings import instance, one_of

__all__ = ["Backtest", "BuyAndHold", "GateStudy", "gate_study", "run_backtest"]


class BuyAndHold(bt.Strategy):
    """Buy every data once, and never sell.

    Parameters
    ----------
    first : float
        Backtrader's number of the first bar to decide at; a data that begins later is bought then.
    """

    params = (("first", -math.inf),)

    def __init__(self) -> None:
        self._bought: set[Any] = set()

    def prenext(self) -> None:
        """Buy what is there already."""
        self.next()

    def next(self) -> None:
        """Buy what has not been bought yet."""
        for data in self.datas:
            if data not in self._bought and len(data) and self.datetime[0] >= self.p.first:
                self._bought.add(data)
                self.buy(data=data)


@shows_progress("bars")
def run_backtest(
    strategy: type[bt.Strategy] | str,
    data: Source,
    *,
    format: BarFormat | None = None,
    gate: EntryGate | None = None,
    params: Mapping[str, Any] | None = None,
    cash: float = 10_000.0,
    commission: Any = 0.0,
    slippage: float = 0.0,
    percent: float = 95.0,
    sizer: Any = None,
    cerebro: Mapping[str, Any] | None = None,
    setup: Setup | SetupFunction | str | None = None,
    start: Moment | None = None,
    settles: bool = False,
    name: str = "",
    preload: bool = True,
    runonce: bool = True,
    exactbars: int | bool = False,
    engine: Engine = "lean",
) -> BacktestResult:
    """Run one strategy on one market.

    Orders are decided at a bar's close and filled at the next bar's open, Backtrader's default.

    Parameters
    ----------
    strategy : type or str
        A `backtrader.Strategy`, or ``path/to/file.py:ClassName``.
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one or several datas; see `Market.of`.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    gate : Gate, optional
        Judges the strategy's entries; None runs it ungated.
    params : mapping, optional
        The strategy's other parameters. Of lists, sets and dicts among them each run gets copies: what a
        strategy puts into one, no other run finds.
    cash, commission, slippage, percent, sizer, cerebro
        How the account is opened; see `Setup`. An order of unstated size takes 95 % of the account by
        default, and closes a position that it is against.
    setup : Setup, callable or str, optional
        The account opened otherwise: a `Setup`, or a function ``setup(cerebro, market)`` of your own, which
        may be named as ``path/to/file.py:function``.
    start : str, date or Timestamp, optional
        When it may begin to trade; of the bars before that, as many as it needs warm indicators up.
    settles : bool
        Close what is open at the last close at that close, at the account's costs, as of a symbol that is
        traded no more. By default it stays open, and is valued at that close.
    name : str
        Of the run; by default the strategy's name.
    preload, runonce, exactbars : bool, bool, int
        Backtrader's engine modes; the result is the same in all of them.
    engine : {'lean', 'plain'}
        'plain' runs Backtrader's own loop and broker. 'lean' leaves out what changes nothing, and gives the
        same fills and values to the last bit.

    Raises
    ------
    DataError
        If the bars cannot be used, or are fewer than the warm-up.
    ConfigError
        If a parameter does not exist, or a setting is out of its range.
    StrategyError
        If the strategy cannot be loaded, or fails.

    Examples
    --------
    >>> from bt_llm.data import shipped
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> result = run_backtest(strategy, shipped("sp500_daily.csv"), percent=100)
    >>> result.orders["refused"] > 0, result.problems[0][:32]
    (True, 'the broker refused 32 of 319 ord')
    """
    instance("name", name, str, "a text")
    backtest = Backtest.of(
        strategy,
        data,
        format=format,
        params=params,
        setup=setup,
        cash=cash,
        commission=commission,
        slippage=slippage,
        percent=percent,
        sizer=sizer,
        cerebro=cerebro,
        start=start,
        settles=settles,
        preload=preload,
        runonce=runonce,
        exactbars=exactbars,
        engine=engine,
    )
    return backtest.run(gate, name)[0]


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """What `run_backtest` was asked for, but the gate."""

    strategy: type[bt.Strategy]
    market: Market
    setup: Setup
    params: Mapping[str, Any]
    modes: Mapping[str, Any]
    engine: Engine = "lean"
    start: pd.Timestamp | None = None
    settles: bool = False

    @classmethod
    def of(
        cls,
        strategy: type[bt.Strategy] | str,
        data: Source,
        *,
        format: BarFormat | None = None,
        params: Mapping[str, Any] | None = None,
        setup: Setup | SetupFunction | str | None = None,
        start: Moment | None = None,
        settles: bool = False,
        preload: bool = True,
        runonce: bool = True,
        exactbars: int | bool = False,
        engine: Engine = "lean",
        **account: Any,
    ) -> Backtest:
        strategy = strategy_class(strategy)
        if params is not None:
            instance("params", params, Mapping, "a mapping of names to values")
        if params and params.get("gate") is not None:
            raise ConfigError(f"params: gate={params['gate']!r:.60}: give it as gate=, where it is looked at")
        _check_params(strategy, params or {})
        one_of("exactbars", exactbars, (False, True, -1, -2))
        return cls(
            strategy=strategy,
            market=Market.of(data, format=format),
            setup=Setup.of(setup, **account),
            params=dict(params or {}),
            modes={"preload": preload, "runonce": runonce, "exactbars": exactbars},
            engine=engine,
            start=None if start is None else moment(start),
            settles=settles,
        )

    def run(
        self, gate: EntryGate | None, name: str, first: float | None = None
    ) -> tuple[BacktestResult, Ran]:
        """Run with a gate; `first` is the number of the first bar that counts."""
        params = {**self.params, "gate": gate}
        market, window = self.market, self._window(params) if first is None else None
        if window is not None:  # what lies before costs time, and questions
            begin, warm_up, market = market.numbers[window.first], window.warm_up, market.cut(window)
            place = int(market.numbers.searchsorted(begin))
            window = Window(start=place - warm_up + 1, first=place, stop=len(market.numbers))
        ran = run_strategy(
            self.strategy,
            market,
            self.setup,
            params,
            window=window,
            first=first,
            settles=self.settles,
            analyzers={"bt_llm_advice": LLMAnalyzer},
            engine=self.engine,
            **self.modes,
        )
        found = result_of(
            ran, market, self.setup, strategy=self.strategy, params=params, gate=gate, name=name
        )
        return found, ran

    def _window(self, params: Mapping[str, Any]) -> Window | None:
        """Return where it may decide, if that begins later than its warm-up lets it."""
        market = self.market
        if self.start is None:
            return None
        first = int(market.index.searchsorted(self.start))
        if first == len(market.index):
            raise DataError(f"the bars end at {market.index[-1]}: none is left from start={self.start} on")
        needed = warm_up_of(self.strategy, params, market, self.setup)
        if first < needed:
            return None
        return Window(start=first - needed + 1, first=first, stop=len(market.index))

    def held(self, first: float) -> BacktestResult:
        """Buy and hold from a bar on; of several datas, each with its share of the account."""
        setup, count = self.setup, len(self.market)
        if count > 1 and setup.sizer is None and setup.function is None:
            setup = replace(setup, percent=setup.percent / count)
        holding = replace(self, strategy=BuyAndHold, params={"first": first}, setup=setup)
        return holding.run(None, "buy_and_hold", first)[0]


def _check_params(strategy: type[bt.Strategy], params: Mapping[str, Any]) -> None:
    known = dict(strategy.params._getpairs())
    for name, value in params.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{strategy.__name__} has no parameter {name!r}, only {list(known)}{hint}")
        if isinstance(known[name], int | float) and isinstance(value, str):
            raise ConfigError(f"{name}={value!r}: expected a number, as the default {known[name]!r}")


@dataclass(frozen=True, kw_only=True, repr=False)
class GateStudy(ManyRuns):
    """One strategy with its gate, without it, and buy and hold, over the same bars and warm-up.

    Attributes
    ----------
    gated, ungated, buy_and_hold : BacktestResult
        The three runs.
    effect : Effect or None
        What the gate is worth, taken apart.
    """

    gated: BacktestResult
    ungated: BacktestResult
    buy_and_hold: BacktestResult
    effect: Effect | None = field(default=None, compare=False, repr=False)

    @property
    def question(self) -> Primary | None:
        """Whether the gate's timing is worth anything; None where nothing may be concluded."""
        if self.problems or self.effect is None:
            return None
        told = (self.gated.advice or {}).get("gate")
        blocked = None if told is None else int(told["blocked"])
        return self.effect.question(self.gated.metrics["trades"], blocked)

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The three results by name."""
        return {"gated": self.gated, "ungated": self.ungated, "buy_and_hold": self.buy_and_hold}

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        from bt_llm.backtest._study_sections import study_sections

        return study_sections(self)

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything of the gate, one line each, with the run it is of."""
        return problems_in({"gated": self.gated, "ungated": self.ungated})

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints."""
        question = self.question
        concluded = {
            "question": None if question is None else question.to_dict(),
            "effect": None if question is None or self.effect is None else self.effect.to_dict(),
        }
        return {
            "runs": {name: run.to_dict() for name, run in self.runs.items()},
            "advice": self.gated.advice,
            **{name: plain(value) for name, value in concluded.items()},
            "problems": list(self.problems),
        }


@shows_progress("bars")
def gate_study(
    strategy: type[bt.Strategy] | str, data: Source, gate: EntryGate, **settings: Any
) -> GateStudy:
    """Run a strategy gated and ungated, and buy and hold, so that what differs is the gate alone.

    Parameters
    ----------
    strategy, data, gate
        As in `run_backtest`.
    **settings
        Its other arguments.
    """
    check_gate(gate)
    backtest = Backtest.of(strategy, data, **settings)
    gated, ran = backtest.run(gate, "gated")
    ungated, _ = backtest.run(gate.baseline(), "ungated")
    held = backtest.held(ran.account.numbers[0])
    effect = Effect.of(gated, ungated, backtest.market, Bootstrap(resamples=999))
    return GateStudy(gated=gated, ungated=ungated, buy_and_hold=held, effect=effect)
