"""One walk-forward study: its trials, its choices, and the stretches that they are judged by."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import bt_llm
from bt_llm import statistics
from bt_llm.backtest import (
    Market,
    Setup,
    Window,
    periods_per_year,
    problems_of,
    warm_up_of,
    year_assumed,
)
from bt_llm.exceptions import ConfigError
from bt_llm.gates import content_sha256
from bt_llm.indicators import assumptions_of
from bt_llm.models import Progress
from bt_llm.plain_json import canonical_json
from bt_llm.research._ledger import TrialLedger, TrialOutcome, TrialRecord
from bt_llm.research._splits import Fold, WalkForwardSplit
from bt_llm.research._workers import code_sha256
from bt_llm.research.walk_forward._advice import Desk, open_desk
from bt_llm.research.walk_forward._contenders import contenders, searched_alone
from bt_llm.research.walk_forward._grid import (
    Settings,
    Space,
    configure,
    describe_gate,
    describe_params,
)
from bt_llm.research.walk_forward._jobs import Job, run_jobs
from bt_llm.research.walk_forward._metrics import Metric, best_of, measure, returns_of, sharpe_per_bar
from bt_llm.research.walk_forward._models import AskedModel, asked_models, gate_answers, how_calibrated
from bt_llm.research.walk_forward._results import FoldResult, WalkForwardResult
from bt_llm.research.walk_forward._trials import Stretches, Trial, deflated, in_all_of, told_of
from bt_llm.research.walk_forward._windows import run_trial

__all__ = ["SHORTEST", "Search"]

Floats = NDArray[np.float64]

SHORTEST = 4  # bars of a train window: one to decide at, one to enter, one to leave, and one return more
_MAX_BLOCKS, _MIN_BLOCKS, _BARS_A_BLOCK = 16, 8, 10


class Search:
    """One study, checked and ready to run.

    Parameters
    ----------
    split : WalkForwardSplit
        How the bars are cut.
    warm_up : int or None
        Bars up to a trial's first decision; None for as many as the slowest combination needs.
    strategy : type
        What is searched.
    market : Market
        What is traded.
    space : Space
        The combinations.
    metric : Metric
        What a fold chooses by.
    min_trades : int
        Closed trades that a combination needs in sample.
    setup : Setup
        How an account is opened.
    folds : list of Fold, optional
        Instead of those of the split, by positions in the market's times.
    ended : collection of int, optional
        Stretches within which the market ends, as pairs of the fold's number and 'train' or 'test': what is
        open then is closed at the last close.
    """

    def __init__(
        self,
        *,
        split: WalkForwardSplit,
        warm_up: int | None,
        strategy: type[Any],
        market: Market,
        space: Space,
        metric: Metric,
        min_trades: int,
        setup: Setup,
        folds: list[Fold] | None = None,
        ended: Collection[tuple[int, str]] = (),
    ) -> None:
        self.split = split
        self.strategy = strategy
        self.market = market
        self.index = market.index
        self.label = market.label
        self.space = space
        self.metric = metric
        self.min_trades = min_trades
        self.setup = setup
        self.combinations = space.combinations()
        self.folds = split.split(self.index) if folds is None else folds
        self.warm_up = self._checked_warm_up(warm_up)
        self.trains = [self._train_window(fold) for fold in self.folds]
        self.tests = [self._test_window(fold) for fold in self.folds]
        stretches = (("train", self.trains), ("test", self.tests))
        self.settled = {
            window
            for kind, windows in stretches
            for fold, window in zip(self.folds, windows, strict=True)
            if (fold.number, kind) in ended
        }
        self.source = code_sha256(strategy)
        self.yearly = periods_per_year(self.index)

    def run(
        self,
        ledger: TrialLedger,
        n_jobs: int | None,
        on_progress: Progress | None,
        on_prompts: Progress | None,
    ) -> WalkForwardResult:
        """Ask for all verdicts, run the trials that are not in the ledger, and join the tests."""
        with open_desk(self.market, [*self.trains, *self.tests], on_prompts) as desk:
            desk.ask(configure(settings, self.space.gate)[1:] for settings in self.combinations)
            trials = self.trials(desk)
            before = len(ledger)
            outcomes = self.outcomes(trials, ledger, n_jobs, desk, on_progress)
            alone = searched_alone(self, trials, outcomes)
            results, record = self.walk(trials, outcomes)
            models = asked_models(desk, {one.fold.number: one.gate for one in results})
            compared, missing = contenders(self, trials, results, record, alone)
        run = len(ledger) - before
        found = self.result(results, record, trials, outcomes, ledger, trials_run=run, models=models)
        notes = (*found.notes, *filter(None, [missing]))
        return dataclasses.replace(found, contenders=compared, notes=notes)

    # Windows

    def _checked_warm_up(self, wanted: int | None) -> int:
        needed: dict[int, Settings] = {}
        for settings in self.combinations:
            params, gate, _ = configure(settings, self.space.gate)
            params = {**params, "gate": gate}
            needed.setdefault(warm_up_of(self.strategy, params, self.market, self.setup), settings)
        longest = max(needed)
        if wanted is not None and wanted < longest:
            raise ConfigError(
                f"warm_up={wanted}: {self.strategy.__name__} needs {longest} bars with "
                f"{needed[longest] or 'its defaults'}; expected at least as many, or None"
            )
        return wanted or longest

    def _train_window(self, fold: Fold) -> Window:
        first = max(fold.train.start, self.warm_up - 1)
        if fold.train.stop - first < SHORTEST:
            raise ConfigError(
                f"the train of fold {fold.number} has {fold.train.stop - fold.train.start} bars, of which a "
                f"warm-up of {self.warm_up} leaves {max(fold.train.stop - first, 0)}: expected at least "
                f"{SHORTEST}; lengthen train_size={self.split.train_size!r}"
            )
        return Window(start=first - self.warm_up + 1, first=first, stop=fold.train.stop)

    @property
    def tested(self) -> pd.DatetimeIndex:
        """Times of the bars of all test stretches, joined."""
        times = np.concatenate([np.arange(window.first, window.stop) for window in self.tests])
        return self.index[times]

    def _test_window(self, fold: Fold) -> Window:
        # A test begins after its train, which begins after the warm-up, so there are bars enough.
        return Window(start=fold.test.start - self.warm_up + 1, first=fold.test.start, stop=fold.test.stop)

    # Trials

    def _configuration(self, settings: Settings) -> str:
        """Return the hash of what is tried, whichever train window it is tried on.

        The market is known by the bars of the first: a study of more bars of it goes on with the trials of
        the earlier one, and another market's trials are others, whatever the two are called.
        """
        params, gate, trained = configure(settings, self.space.gate)
        return content_sha256(
            {
                "strategy": [self.strategy.__qualname__, self.source],
                "params": describe_params(self.strategy, params),
                "gate": describe_gate(gate, trained),
                "account": self.setup.content(code_sha256),
                "market": self.market.cut(self.trains[0]).sha256,
            }
        )

    def trials(self, desk: Desk) -> list[list[Trial]]:
        """Return the combinations on the train window of each fold."""
        configurations = [self._configuration(settings) for settings in self.combinations]
        return [list(self._trials(desk, window, configurations)) for window in self.trains]

    def _trials(self, desk: Desk, window: Window, configurations: list[str]) -> Iterator[Trial]:
        """Yield the combinations on one train window."""
        seen = self.market.cut(window).sha256
        ends = ["closed at the last close"] if window in self.settled else []
        stretch = [self.index[window.first].isoformat(), self.index[window.stop - 1].isoformat()]
        for settings, configuration in zip(self.combinations, configurations, strict=True):
            params, gate, trained = configure(settings, self.space.gate)
            prior = desk.prior(gate, window) if trained else None
            if trained:
                gate = configure(settings, self.space.gate, prior)[1]
            description = {
                "strategy": self.strategy.__name__,
                "settings": {name: str(value) for name, value in settings.items()},
                "data": self.label,
                "train": stretch,
            }
            yield Trial(
                key=content_sha256([configuration, seen, self.warm_up, bt_llm.__version__, *ends]),
                configuration=configuration,
                description=canonical_json(description),
                params={**params, "gate": desk.replaying(gate)},
                gate=gate,
                prior=prior,
            )

    def outcomes(
        self,
        trials: list[list[Trial]],
        ledger: TrialLedger,
        n_jobs: int | None,
        desk: Desk,
        on_progress: Progress | None,
    ) -> dict[str, TrialOutcome]:
        """Return what came of every trial, from the ledger or by running it."""
        by_key = {
            trial.key: (trial, window)
            for fold, window in zip(trials, self.trains, strict=True)
            for trial in fold
        }
        outcomes = ledger.get(by_key)
        if on_progress:
            on_progress(len(outcomes), len(by_key))
        jobs = self._jobs({key: found for key, found in by_key.items() if key not in outcomes})
        with contextlib.closing(run_jobs(jobs, n_jobs, desk.supplies)) as done:
            for key, outcome in done:
                trial, _ = by_key[key]
                sharpe = sharpe_per_bar(returns_of(outcome.equity))
                ledger.add(
                    TrialRecord(
                        key=key,
                        configuration=trial.configuration,
                        description=trial.description,
                        sharpe=sharpe,
                        outcome=outcome,
                    )
                )
                outcomes[key] = outcome
                if on_progress:
                    on_progress(len(outcomes), len(by_key))
        return outcomes

    def _jobs(self, trials: Mapping[str, tuple[Trial, Window]]) -> list[Job]:
        cuts = {window: self.market.cut(window) for _, window in trials.values()}
        return [
            Job(
                key=key,
                strategy=self.strategy,
                market=cuts[window],
                window=_within(self.market, window, cuts[window]),
                params=trial.params,
                setup=self.setup,
                settles=window in self.settled,
            )
            for key, (trial, window) in trials.items()
        ]

    # Folds

    def walk(
        self,
        trials: list[list[Trial]],
        outcomes: Mapping[str, TrialOutcome],
        choices: Mapping[int, int] | None = None,
    ) -> tuple[list[FoldResult], Stretches]:
        """Trade every fold's test stretch by its best trial, or by `choices`, places by the fold's number."""
        record = Stretches(value=self.setup.starting_cash(self.market))
        results = []
        for fold, train, test, tried in zip(self.folds, self.trains, self.tests, trials, strict=True):
            found = [outcomes[trial.key] for trial in tried]
            returns = [self.scored(outcome, train, fold) for outcome in found]
            metrics = [measure(o, r, self.yearly) for o, r in zip(found, returns, strict=True)]
            chosen = (
                best_of(metrics, self.metric, self.min_trades) if choices is None else choices[fold.number]
            )
            outcome, verdicts = self.trade(tried[chosen], fold.number, test, record)
            results.append(
                FoldResult(
                    fold=fold,
                    chosen=chosen,
                    settings=self.combinations[chosen],
                    in_sample=metrics[chosen],
                    out_of_sample=measure(outcome, returns_of(outcome.equity), self.yearly),
                    scores=tuple(self.metric.score(one) for one in metrics),
                    deflated_sharpe=deflated(returns[chosen], [sharpe_per_bar(r) for r in returns]),
                    prior=tried[chosen].prior,
                    gate=tried[chosen].gate,
                    verdicts=verdicts,
                )
            )
        return results, record

    def scored(self, outcome: TrialOutcome, window: Window, fold: Fold) -> Floats:
        """Return the in-sample returns that count: those of bars that are not embargoed."""
        returns = returns_of(outcome.equity)
        if not fold.embargoed:
            return returns
        return returns[np.isin(np.arange(window.first + 1, window.stop), fold.scored)]

    def trade(
        self, trial: Trial, number: int, window: Window, record: Stretches
    ) -> tuple[TrialOutcome, pd.DataFrame | None]:
        """Trade a test stretch with the value that the one before left, by the verdicts that come back."""
        seen: pd.DataFrame | None = None
        if record.value <= 0.0:
            equity = np.full(window.stop - window.first, record.value)
            outcome = TrialOutcome(equity=equity, trades=0, wins=0, held=0, traded=0.0)
        else:
            outcome, ran = run_trial(
                self.strategy,
                self.market,
                window,
                trial.params,
                self.setup,
                cash=record.value,
                settles=window in self.settled,
            )
            of_account = problems_of(ran, self.market, None)
            record.problems += [f"fold {number}: {problem}" for problem in of_account]
            record.assumed += assumptions_of(ran.strategy)
            record.gate_problems.append(problems_of(ran, self.market, trial.gate)[len(of_account) :])
            seen = gate_answers(ran.strategy, self.market.cut(window).first.index)
            record.trades += ran.account.trades
            record.listed.append(told_of(ran.account, self.market, seen))
        record.outcomes.append(outcome)
        record.value = float(outcome.equity[-1])
        return outcome, None if seen is None else seen.loc[self.index[window.first] :]

    # Result

    def result(
        self,
        folds: list[FoldResult],
        record: Stretches,
        trials: list[list[Trial]],
        outcomes: Mapping[str, TrialOutcome],
        ledger: TrialLedger,
        trials_run: int,
        models: tuple[AskedModel, ...],
    ) -> WalkForwardResult:
        joined = record.joined()
        returns = returns_of(joined.equity)
        ratios = ledger.sharpes()
        year = filter(None, [year_assumed(self.index)])
        return WalkForwardResult(
            name=self.strategy.__name__,
            metric=self.metric,
            folds=tuple(folds),
            combinations=tuple(self.combinations),
            equity=pd.Series(joined.equity, index=self.tested, name="equity"),
            trades=record.told(self.market),
            metrics=measure(joined, returns, self.yearly),
            probabilistic_sharpe=deflated(returns, [0.0]),
            deflated_sharpe=deflated(returns, [ratios[name] for name in sorted(ratios)]),
            n_trials=len(ratios),
            overfitting=self._overfitting(trials, outcomes),
            warm_up=self.warm_up,
            trials_run=trials_run,
            models=models,
            settings=self._settings(),
            problems=(*record.problems, *in_all_of(record.gate_problems)),
            notes=(*self.market.notes, *year, *dict.fromkeys(record.assumed), *how_calibrated(models)),
        )

    def _overfitting(
        self, trials: list[list[Trial]], outcomes: Mapping[str, TrialOutcome]
    ) -> statistics.OverfittingResult | None:
        """Cross-validate the in-sample returns; each bar counts once, in the first train that holds it."""
        parts, done = [], 0
        for window, tried in zip(self.trains, trials, strict=True):
            columns = [returns_of(outcomes[trial.key].equity) for trial in tried]
            new = max(done - window.first - 1, 0)
            parts.append(np.array(columns).T[new:])
            done = window.stop
        matrix = np.concatenate(parts)
        blocks = min(_MAX_BLOCKS, len(matrix) // _BARS_A_BLOCK // 2 * 2)
        if matrix.shape[1] < 2 or blocks < _MIN_BLOCKS:
            return None
        by = "return" if self.metric is Metric.RETURN else "sharpe"
        return statistics.probability_of_backtest_overfitting(matrix, n_splits=blocks, statistic=by)

    def _settings(self) -> dict[str, Any]:
        sizes = {f.name: getattr(self.split, f.name) for f in dataclasses.fields(WalkForwardSplit)}
        return {
            **sizes,
            **self.setup.describe(),
            "min_trades": self.min_trades,
            "data": self.label,
            "bars_sha256": self.market.sha256,
            "strategy_sha256": self.source,
        }


def _within(market: Market, window: Window, cut: Market) -> Window:
    """Return a window's place in what was cut for it."""
    first = int(np.searchsorted(cut.numbers, market.numbers[window.first]))
    return Window(start=first - window.warm_up + 1, first=first, stop=len(cut.numbers))
