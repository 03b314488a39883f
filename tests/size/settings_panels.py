"""Many symbols at once: what `bt-llm run --each` and `bt-llm test --each` say of gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Bootstrap, effect_between, panel_worth, shown_sentences
from bt_llm.backtest._panel import PanelRun, PooledRun
from bt_llm.gates import EntryGate
from bt_llm.research._against import against
from bt_llm.research._panel_nulls import joint_null_runs
from bt_llm.research._panel_test_result import PanelTest
from tests.size.accounts import WARM_UP, Account
from tests.size.markets import Bars, walk, words
from tests.size.setting import Found, Goal, Setting
from tests.size.settings_gates import FALSE, ONE_SIDE, Lines, gates, markets

__all__ = ["SETTINGS"]

Floats = NDArray[np.float64]

NULLS, RESAMPLES = 99, 199

TEST = "test --each: the gate's pooled Sharpe ratio is better than luck"
STANDS_OUT = "test --each: among null gates it stands out on a symbol"
AGAINST = "test --each: better or worse than the ungated strategy, or than the plain rule"
CHANGES = "run --each: the gate changes the pooled Sharpe ratio"
SHOWN = "run --each: shown better or worse on a symbol, all judged together"
TIMING = "described: the interval of the pooled timing lies above 0"
OF_SYMBOLS = "described: the interval of a symbol's timing, all judged together, lies above 0"


@dataclass(frozen=True, eq=False)
class Run:
    """A run of a symbol, as far as panels look at it."""

    equity: pd.Series
    trades: pd.DataFrame
    metrics: Mapping[str, float]


class Symbols:
    """Accounts of several symbols on the same days."""

    def __init__(self, accounts: Sequence[Account], days: pd.DatetimeIndex) -> None:
        self.accounts = {f"s{number}": account for number, account in enumerate(accounts)}
        self.days = days[WARM_UP - 1 :]

    def run(self, name: str, lines: Sequence[Lines]) -> PanelRun:
        """Return the pooled run of a gate that answers bar by bar."""
        runs = {
            symbol: self._run(account, account.with_lines(*line))
            for (symbol, account), line in zip(self.accounts.items(), lines, strict=True)
        }
        return self._pooled(name, runs)

    def held(self) -> PanelRun:
        """Return the run that buys and holds."""
        runs = {
            symbol: self._made(account.bars.close[WARM_UP - 1 :], pd.DataFrame())
            for symbol, account in self.accounts.items()
        }
        return self._pooled("buy and hold", runs)

    def _pooled(self, name: str, runs: Mapping[str, Run]) -> PanelRun:
        weights = dict.fromkeys(runs, 1.0 / len(runs))
        return cast(PanelRun, PooledRun(name=name, symbols=cast(Any, runs), weights=weights))

    def _run(self, account: Account, run: tuple[list[int], list[bool]]) -> Run:
        return self._made(values_of(account.returns(account.mask(run)[None]))[0], account.trades(run))

    def _made(self, values: Floats, trades: pd.DataFrame) -> Run:
        metrics = {"trades": float(len(trades)), "win_rate": 0.0, "exposure": 0.0, "turnover": 0.0}
        return Run(pd.Series(values, self.days), trades, metrics)

    def values(self, symbol: str, nulls: Sequence[EntryGate]) -> Sequence[Floats]:
        """Return what the account of a symbol is worth with each of some null gates."""
        account = self.accounts[symbol]
        return list(values_of(account.returns(np.array([account.mask_of(gate) for gate in nulls]))))


def values_of(returns: Floats) -> Floats:
    """Return what accounts are worth, from 1 on."""
    grown: Floats = np.cumprod(np.hstack([np.ones((len(returns), 1)), 1.0 + returns]), axis=1)
    return grown


def tested(symbols: Symbols, lines: Sequence[Lines], seed: int) -> PanelTest:
    """Return the test of a gate on several symbols."""
    every = [(np.ones(len(a.bars), dtype=bool),) * 2 for a in symbols.accounts.values()]
    ruled = [(a.bars.trend > 0.04, a.bars.trend < -0.04) for a in symbols.accounts.values()]
    runs = {
        name: symbols.run(name, own) for name, own in (("gated", lines), ("ungated", every), ("rule", ruled))
    }
    gated, ungated = runs["gated"], runs["ungated"]
    bootstrap = Bootstrap(resamples=RESAMPLES, seed=seed)
    effect = effect_between(gated, ungated, bootstrap)
    answers, legs, asked = {}, {}, {}
    for (symbol, account), line in zip(symbols.accounts.items(), lines, strict=True):
        run = account.with_lines(*line)
        answers[symbol] = account.log(run)[1]
        legs[symbol] = (account.legs(account.mask(run)), account.legs(account.everything))
        asked[symbol] = _Asked(len(run[1]), sum(run[1]))
    nulls = joint_null_runs(
        "",
        cast(Any, None),
        gated,
        symbols.held(),
        answers,
        warm_up=WARM_UP,
        n=NULLS,
        seed=seed,
        block_bars=effect.pooled.block_length,
        evaluate=symbols.values,
    )
    stands = against(
        {name: run.returns for name, run in runs.items()},
        bootstrap,
        {name: run.trades for name, run in runs.items()},
    )
    return PanelTest(
        symbols=cast(Any, asked),
        weights=dict(gated.weights),
        random=nulls,
        against=stands,
        over_ungated=effect,
        worth=panel_worth(gated, ungated, legs, bootstrap),
        alpha=0.05,
    )


def said_of(test: PanelTest) -> Found:
    """Return what is said of a gate on several symbols, sentence by sentence."""
    assert test.against is not None
    assert test.over_ungated is not None
    assert test.worth.parts is not None
    return {
        TEST: test.question.found,
        STANDS_OUT: bool(test.stands_out),
        AGAINST: any(map(test.against.shown, test.against.sharpe.pairs)),
        CHANGES: test.over_ungated.pooled.p_value <= 0.05,
        SHOWN: bool(shown_sentences(test.over_ungated)),
        TIMING: test.worth.parts.pooled["timing"].low > 0.0,
        OF_SYMBOLS: any(parts["timing"].low > 0.0 for parts in test.worth.parts.symbols.values()),
    }


@dataclass(frozen=True)
class _Asked:
    asked: int
    allowed: int


def made(prices: Sequence[Bars], strategy: str, cost: float) -> Symbols:
    """Return the accounts of a strategy on several symbols."""
    days = pd.date_range("2000-01-03", periods=len(prices[0]), freq="D", name="time")
    first = float(bt.date2num(days[0]))
    return Symbols([Account.of(strategy, one, cost, first) for one in prices], days)


def drawn(
    seed: int,
    *,
    market: str,
    strategy: str,
    gate: str,
    symbols: int = 6,
    bars: int = 600,
    alike: float = 0.5,
    cost: float = 0.0,
) -> PanelTest:
    """Return the test of a gate that knows nothing; what is drawn in it is the same in all symbols."""
    rng = np.random.default_rng([17, seed, symbols, bars])
    make = markets()[market]
    common = make(bars, rng)
    prices = [
        walk(np.sqrt(alike) * common + np.sqrt(1.0 - alike) * make(bars, rng), rng) for _ in range(symbols)
    ]
    lines = [gates()[gate](one, np.random.default_rng([18, seed])) for one in prices]
    return tested(made(prices, strategy, cost), lines, seed)


def study(seed: int, **settings: Any) -> Found:
    """Return what is said of a gate that knows nothing."""
    return said_of(drawn(seed, **settings))


def right(seed: int, *, symbols: int, bars: int, drift: float, alike: float = 0.5) -> Found:
    """Return what is said of verdicts after which the market drifts as they say, on each symbol its own."""
    rng = np.random.default_rng([19, seed, symbols, bars])
    common = rng.standard_normal(bars)
    prices, lines = [], []
    for _ in range(symbols):
        said = words(bars, rng, 20, (0.5, 0.5))
        toward = np.where(said == 0, 1.0, -1.0)
        moves = np.sqrt(alike) * common + np.sqrt(1.0 - alike) * rng.standard_normal(bars)
        prices.append(walk(moves + drift * np.concatenate([[0.0], toward[:-1]]), rng))
        lines.append((said == 0, said == 1))
    return said_of(tested(made(prices, "alternate", 0.0), lines, seed))


ALONE = {TEST: FALSE, STANDS_OUT: FALSE, TIMING: ONE_SIDE, OF_SYMBOLS: ONE_SIDE}
ANY_REASON = {AGAINST: FALSE, CHANGES: FALSE, SHOWN: FALSE}


def knows_nothing(market: str, strategy: str, gate: str, **settings: float) -> Setting:
    """Return a setting in which no timing should be found; where nothing pays, no difference at all."""
    cost = f", costs of {100 * settings['cost']:g} %" if settings.get("cost") else ""
    goals = ALONE | (ANY_REASON if market in ("random walk", "GARCH") and not cost else {})
    return Setting(
        group="Panels",
        name=f"six symbols; {gate}; strategy: {strategy}; market: {market}{cost}",
        study=partial(study, market=market, strategy=strategy, gate=gate, **settings),
        goals=goals,
        repeats=300,
    )


SETTINGS = [
    knows_nothing("random walk", "cross", "verdicts at random, kept for 20 bars"),
    knows_nothing("GARCH", "alternate", "open when quiet"),
    knows_nothing("rising", "alternate", "bullish 80, bearish 20 % at random"),
    knows_nothing("random walk", "cross", "with the trend", cost=0.01),
    knows_nothing("falling", "hold", "open at random, a third of the time"),
    Setting(
        group="Panels",
        name="six symbols; verdicts after which each drifts by 0.15 deviations a bar; strategy: alternate",
        study=partial(right, symbols=6, bars=600, drift=0.15),
        goals=dict.fromkeys((TEST, AGAINST, CHANGES, TIMING), Goal("power", 0.8))
        | dict.fromkeys((STANDS_OUT, SHOWN, OF_SYMBOLS), Goal("power", 0.5)),
        repeats=100,
        control=True,
    ),
]
