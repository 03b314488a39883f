"""WalkForward: choose on the past, trade what follows, move on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_llm.backtest import (
    Market,
    Setup,
    SetupFunction,
    Source,
    Universe,
    UniverseSource,
    strategy_class,
)
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import EntryGate
from bt_llm.models import Progress
from bt_llm.progress import shows_progress
from bt_llm.research._ledger import TrialLedger
from bt_llm.research._splits import WalkForwardSplit
from bt_llm.research._workers import check_jobs
from bt_llm.research.walk_forward._grid import Space
from bt_llm.research.walk_forward._metrics import Metric
from bt_llm.research.walk_forward._results import WalkForwardResult
from bt_llm.research.walk_forward._search import Search
from bt_llm.settings import path_text, whole
from bt_llm.statistics import choose

if TYPE_CHECKING:
    from bt_llm.research.walk_forward._panel_results import PanelWalkForwardResult
    from bt_llm.research.walk_forward._panel_search import Parameters

__all__ = ["LEDGER", "SYMBOLS_LEDGER", "WalkForward"]

LEDGER = "trials.sqlite"
"""Name of the ledger in the output folder."""

SYMBOLS_LEDGER = "symbols.sqlite"
"""Name of the file beside it that keeps what trials of a panel are made of."""


@dataclass(frozen=True, kw_only=True)
class WalkForward(WalkForwardSplit):
    """Walk-forward research: search on each train stretch, judge by the test stretch that follows it.

    Parameters
    ----------
    train_size, test_size : int, str, datetime.timedelta or pandas.DateOffset
        Lengths of the stretches: both in bars, or both in time, such as ``'3MS'`` and ``'1MS'``.
    expand_train : bool
        Train on everything since the first bar, instead of on the last `train_size`.
    purged_size : int, or time
        How much to leave out between train and test.
    embargo : int, or time
        How much of what follows a test stretch is left out of the scores of later trains.
    reduce_test : bool
        Keep a last test stretch that the data cuts short.
    warm_up : int, optional
        Bars that the indicators of every trial see up to its first decision, that bar included. By
        default as many as the slowest combination needs. Averages with a long memory (EMA, Wilder's RSI
        and ATR) depend a little on where they start: more bars make that less.

    Raises
    ------
    ConfigError
        If a size is wrong; see `bt_llm.research.WalkForwardSplit`, which also says what the purge and the
        embargo assume about timing.

    Notes
    -----
    *What crosses a boundary.* A trial runs on its window and on the `warm_up` - 1 bars before it, which only
    indicators see: the strategy's own methods are first called at the window's first bar. Nothing else
    crosses: no position, no order, no state of the strategy, no bar after the window. A train window at
    the very start of the data begins later by the warm-up. All combinations trade over the same bars.

    *Positions are not carried.* At the close of the last but one bar of a window, open orders are cancelled
    and the position is closed at the next open, the window's last, at the usual costs; the strategy
    decides nothing on those two bars. In sample and out of sample alike, so that both are measured the
    same way.

    *The equity curve is not reset.* The test stretches are joined: each begins with the value that the one
    before ended with. An account at or below zero trades no more; a position that it cannot buy its way
    out of is valued at the last close.

    *Choice.* The best score wins; of those that tie, the first in the grid's order (names in alphabetical
    order, values as given). A combination with fewer closed trades than `min_trades`, or without
    a score, is chosen only if there is no other.

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> bars = load_bars(shipped("eurusd_hourly.csv")).iloc[:900]
    >>> result = WalkForward(train_size=300, test_size=200).run(
    ...     f"{shipped('sma_cross.py')}:GatedSmaCross", bars,
    ...     gate=Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off")),
    ...     grid={"fast": [5, 10], "gate.require": ["agree", "not_against"]},
    ... )
    >>> len(result.folds), len(result.combinations), len(result.equity)
    (3, 4, 600)
    """

    warm_up: int | None = None

    def __post_init__(self) -> None:
        """Check the sizes, once."""
        super().__post_init__()
        if self.warm_up is not None:
            object.__setattr__(self, "warm_up", whole("warm_up", self.warm_up, 1, of=" of bars"))

    @shows_progress("trials", on_prompts="asking")
    def run(
        self,
        strategy: type[Any] | str,
        data: Source,
        *,
        format: BarFormat | None = None,
        gate: EntryGate | None = None,
        grid: Mapping[str, Sequence[Any]] | None = None,
        params: Mapping[str, Any] | None = None,
        constraints: Sequence[str] = (),
        metric: Metric | str = Metric.SHARPE,
        min_trades: int = 1,
        cash: float = 10_000.0,
        commission: Any = 0.0,
        slippage: float = 0.0,
        percent: float = 95.0,
        sizer: Any = None,
        cerebro: Mapping[str, Any] | None = None,
        setup: Setup | SetupFunction | str | None = None,
        n_jobs: int | None = None,
        output: str | os.PathLike[str] | None = None,
        on_progress: Progress | None = None,
        on_prompts: Progress | None = None,
    ) -> WalkForwardResult:
        """Run the study: ask for all verdicts, run the trials that are not in the ledger, stitch the tests.

        Parameters
        ----------
        strategy : type or str
            A `backtrader.Strategy`, or ``path/to/file.py:ClassName``.
        data : path, DataFrame, feed, mapping, sequence or Market
            Bars of one or several datas; see `Market.of`. The stretches are cut from all times at which
            some data has a bar; one with fewer bars than the warm-up joins when it has them.
        format : BarFormat, optional
            What is stated of the bars, where their source does not say it.
        gate : Gate, optional
            Given to the strategy's parameter ``gate``; None runs it ungated.
        grid : mapping
            Name to the values to try: a parameter of the strategy (``fast``), a field of the gate
            (``gate.min_confidence``, ``gate.require``) or of its advisor (``gate.advisor.model``,
            ``gate.advisor.template``, ``gate.advisor.calibration``). The calibration may be ``'train'``:
            the prior is then the mean of the raw verdicts over the bars of the fold's train stretch.
        params : mapping
            Names as in the grid to one value, for all combinations.
        constraints : sequence of str
            Such as ``'fast < slow'``: combinations that break one are left out, and are no trials.
        metric : {'sharpe', 'sortino', 'calmar', 'return', 'max_drawdown'}
            What the best combination of a train stretch is chosen by; of a drawdown, less is better.
        min_trades : int
            Closed trades that a combination needs in sample.
        cash, commission, slippage, percent, sizer, cerebro, setup
            As in `run_backtest`.
        n_jobs : int, optional
            Processes; -1 is one for each CPU, 1 none but this one. Results do not depend on it. By default
            what a surrounding `joblib.parallel_config` or `bt_llm.dask_cluster` says, else 1. Workers get the
            bars, the strategy's source and a pack of the verdicts, and load no model.
        output : path, optional
            Folder of the ledger of trials, ``trials.sqlite``. A search that was interrupted goes on where it
            was, and later searches in the same folder are counted with it. Without one, nothing is kept.
        on_progress : callable, optional
            Called with (trials done, trials in all).
        on_prompts : callable, optional
            Called with (prompts answered, prompts to ask) while a model is asked.

        Raises
        ------
        ConfigError
            If a setting, name or value is wrong, or the data are too short.
        DataError
            If the bars cannot be used.
        StrategyError
            If the strategy cannot be loaded, or fails in a trial.
        MissingExtraError
            If trials leave this process and joblib is not installed.
        """
        check_jobs(n_jobs)
        path = None if output is None else Path(path_text("output", output)) / LEDGER
        search = Search(
            market=Market.of(data, format=format),
            **self._asked(
                strategy,
                gate=gate,
                grid=grid,
                params=params,
                constraints=constraints,
                metric=metric,
                min_trades=min_trades,
                setup=Setup.of(
                    setup,
                    cash=cash,
                    commission=commission,
                    slippage=slippage,
                    percent=percent,
                    sizer=sizer,
                    cerebro=cerebro,
                ),
            ),
        )
        with TrialLedger(path) as ledger:
            return search.run(ledger, n_jobs, on_progress, on_prompts)

    @shows_progress("trials", on_prompts="asking")
    def run_panel(
        self,
        strategy: type[Any] | str,
        universe: UniverseSource,
        *,
        parameters: Parameters = "panel",
        weights: Mapping[str, float] | None = None,
        format: BarFormat | None = None,
        gate: EntryGate | None = None,
        grid: Mapping[str, Sequence[Any]] | None = None,
        params: Mapping[str, Any] | None = None,
        constraints: Sequence[str] = (),
        metric: Metric | str = Metric.SHARPE,
        min_trades: int = 1,
        setup: Setup | SetupFunction | str | None = None,
        n_jobs: int | None = None,
        output: str | os.PathLike[str] | None = None,
        on_progress: Progress | None = None,
        on_prompts: Progress | None = None,
        **account: Any,
    ) -> PanelWalkForwardResult:
        """Run the study on every symbol of a universe, and pool the tests.

        Parameters
        ----------
        strategy, gate, grid, params, constraints, metric, min_trades, setup, n_jobs, on_progress, on_prompts
            As in `run`. The metric is that of the pooled record of a train stretch, and trades are those of
            all symbols, where one set of settings is chosen for all.
        universe, weights, format
            As in `panel_study`.
        parameters : {'panel', 'symbol'}
            Whether a fold chooses one set of settings for all symbols, or one for each.
        output : path, optional
            Folder of the ledger. Where one set is chosen for all, ``trials.sqlite`` counts the trials of the
            panel, and what they are made of, a symbol each, is in ``symbols.sqlite`` beside it.
        **account
            ``cash``, ``commission``, ``slippage``, ``percent``, ``sizer`` and ``cerebro`` of `run_backtest`.

        Raises
        ------
        ConfigError
            If a setting, name or value is wrong, or the data are too short.
        DataError
            If no symbol is in any fold.

        Notes
        -----
        Folds are cut from all times at which some symbol has a bar, so that they are of the same dates in all
        symbols. Where a gate asks a model, the result's ``standing`` says which model or template of the grid
        is better out of sample, if any, each searched for itself, and how they stand to no gate.

        A symbol is in those folds in which its own bars, within its membership, are enough for a trial in
        the train stretch and go on into the test stretch. One whose bars end within a stretch is closed there
        at its last close.

        Examples
        --------
        >>> from bt_llm.data import load_bars, shipped
        >>> files = {name: load_bars(shipped(f"{name}.csv"))[-400:] for name in ("sp500_daily", "wti_daily")}
        >>> result = WalkForward(train_size=200, test_size=100).run_panel(
        ...     f"{shipped('sma_cross.py')}:GatedSmaCross", files, grid={"fast": [5, 10]})
        >>> len(result.folds), result.n_trials, list(result.symbols)
        (2, 2, ['sp500_daily', 'wti_daily'])
        """
        from bt_llm.research.walk_forward._panel_search import PARAMETERS, PanelSearch

        if parameters not in PARAMETERS:
            raise ConfigError(f"parameters={parameters!r}: expected one of {list(PARAMETERS)}")
        check_jobs(n_jobs)
        folder = None if output is None else Path(path_text("output", output))
        search = PanelSearch(
            universe=Universe.of(universe, weights=weights, format=format),
            parameters=parameters,
            **self._asked(
                strategy,
                gate=gate,
                grid=grid,
                params=params,
                constraints=constraints,
                metric=metric,
                min_trades=min_trades,
                setup=Setup.of(setup, **account),
            ),
        )
        path, parts = (None if folder is None else folder / name for name in (LEDGER, SYMBOLS_LEDGER))
        with TrialLedger(path) as ledger, TrialLedger(parts) as kept:
            return search.run(ledger, kept, n_jobs, on_progress, on_prompts)

    def _asked(
        self,
        strategy: type[Any] | str,
        *,
        gate: EntryGate | None,
        grid: Mapping[str, Sequence[Any]] | None,
        params: Mapping[str, Any] | None,
        constraints: Sequence[str],
        metric: Metric | str,
        min_trades: int,
        setup: Setup,
    ) -> dict[str, Any]:
        """Return the arguments of a `Search` but its market, checked."""
        loaded = strategy_class(strategy)
        return {
            "split": self,
            "warm_up": self.warm_up,
            "strategy": loaded,
            "space": Space(
                strategy=loaded,
                gate=gate,
                grid={} if grid is None else grid,
                fixed={} if params is None else params,
                constraints=constraints,
            ),
            "metric": choose(Metric, metric, "metric"),
            "min_trades": whole("min_trades", min_trades, 0),
            "setup": setup,
        }
