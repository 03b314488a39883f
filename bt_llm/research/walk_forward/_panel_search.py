"""One walk-forward study of many symbols: one set of settings for all of them, or one for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

import bt_llm
from bt_llm.backtest import Universe, aligned_returns, periods_per_year, pooled_returns
from bt_llm.exceptions import DataError
from bt_llm.gates import content_sha256
from bt_llm.models import Progress
from bt_llm.plain_json import canonical_json
from bt_llm.research._ledger import TrialLedger, TrialOutcome, TrialRecord
from bt_llm.research._splits import Fold, WalkForwardSplit
from bt_llm.research.walk_forward._advice import Desk, answers_folder
from bt_llm.research.walk_forward._contenders import best_places
from bt_llm.research.walk_forward._grid import configure
from bt_llm.research.walk_forward._metrics import Metric, Metrics, best_of, measure, sharpe_per_bar
from bt_llm.research.walk_forward._models import asked_models
from bt_llm.research.walk_forward._panel_contenders import Places, panel_contenders
from bt_llm.research.walk_forward._panel_results import PanelFold, PanelWalkForwardResult
from bt_llm.research.walk_forward._results import WalkForwardResult
from bt_llm.research.walk_forward._search import SHORTEST, Search
from bt_llm.research.walk_forward._trials import Trial, deflated

__all__ = ["PARAMETERS", "PanelSearch", "Parameters"]

Parameters: TypeAlias = Literal["panel", "symbol"]
"""Whether one set of settings is chosen for all symbols, or one for each."""

PARAMETERS: tuple[Parameters, ...] = get_args(Parameters)

Ended: TypeAlias = set[tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A symbol's search, with what it asked and what came of its trials."""

    search: Search
    desk: Desk
    trials: list[list[Trial]]
    outcomes: dict[str, TrialOutcome]

    def trial(self, number: int, place: int) -> tuple[Trial, pd.Series[float], TrialOutcome] | None:
        """Return a combination on the train stretch of a fold, its equity by time, and what came of it."""
        for fold, window, tried in zip(self.search.folds, self.search.trains, self.trials, strict=True):
            if fold.number == number:
                outcome = self.outcomes[tried[place].key]
                times = self.search.index[window.first : window.stop]
                return tried[place], pd.Series(outcome.equity, index=times), outcome
        return None


class PanelSearch:
    """A study of many symbols, checked and ready to run.

    Parameters
    ----------
    universe : Universe
        The symbols. Folds are cut from all times at which one has a bar; a symbol is in a fold where its own
        bars are enough for a trial and go on into the test stretch.
    split : WalkForwardSplit
        How.
    parameters : {'panel', 'symbol'}
        Who gets settings of its own.
    **settings
        Other arguments of `Search`.

    Raises
    ------
    DataError
        If no symbol is in any fold.
    """

    def __init__(
        self, *, universe: Universe, split: WalkForwardSplit, parameters: Parameters, **settings: Any
    ) -> None:
        self.universe, self.split, self.parameters = universe, split, parameters
        self.metric: Metric = settings["metric"]
        self.min_trades: int = settings["min_trades"]
        self.index = universe.index
        self.folds = split.split(self.index)
        self.yearly = periods_per_year(self.index)
        self.searches: dict[str, Search] = {}
        self.left_out: dict[str, str] = {}
        for name, member in universe.members.items():
            probe = Search(split=split, market=member.market, folds=[], **settings)
            folds, ended = _own_folds(self.folds, self.index, probe, member.start)
            if folds:
                market = member.market
                self.searches[name] = Search(split=split, market=market, folds=folds, ended=ended, **settings)
            else:
                self.left_out[name] = f"{len(probe.index)} bars are enough for no fold"
        if not self.searches:
            name, why = next(iter(self.left_out.items()))
            raise DataError(f"no symbol is in any of {len(self.folds)} folds; {name}: {why}")

    @property
    def weights(self) -> dict[str, float]:
        """Of the symbols that are in some fold."""
        return {name: self.universe.weights[name] for name in self.searches}

    def run(
        self,
        ledger: TrialLedger,
        parts: TrialLedger,
        n_jobs: int | None,
        on_progress: Progress | None,
        on_prompts: Progress | None,
    ) -> PanelWalkForwardResult:
        """Ask for all verdicts, run the trials that are not in a ledger, choose, and pool the tests.

        Parameters
        ----------
        ledger : TrialLedger
            Of what was tried and chosen from: trials of the panel, or of each symbol.
        parts : TrialLedger
            Of what the trials of a panel are made of, one a symbol, which are no trials of their own.
        n_jobs, on_progress, on_prompts
            As in `WalkForward.run`.
        """
        one_for_all = self.parameters == "panel"
        before = len(ledger)
        with answers_folder() as folder:
            asked = self._asked(parts if one_for_all else ledger, folder, n_jobs, on_progress, on_prompts)
            scores = self._scores(asked, ledger) if one_for_all else {}
            chosen = {
                number: best_of(metrics, self.metric, self.min_trades) for number, metrics in scores.items()
            }
            run = len(ledger) - before
            symbols = {
                name: self._symbol(one, ledger, chosen if one_for_all else None, run)
                for name, one in asked.items()
            }
            compared, missing = panel_contenders(
                self.searches,
                {name: one.trials for name, one in asked.items()},
                self.weights,
                {name: [fold.chosen for fold in one.folds] for name, one in symbols.items()},
                lambda of: self._best_among(asked, scores, of),
            )
        found = self._result(symbols, scores, chosen, ledger, run)
        return replace(found, contenders=compared, said=tuple(filter(None, [missing])))

    def _best_among(
        self, asked: Mapping[str, _Asked], scores: Mapping[int, Sequence[Metrics]], of: Sequence[int]
    ) -> Places:
        """Return what would be chosen if only some of the combinations could be."""
        if self.parameters == "symbol":
            return {
                name: best_places(one.search, one.trials, one.outcomes, of) for name, one in asked.items()
            }
        best = {
            number: of[best_of([metrics[place] for place in of], self.metric, self.min_trades)]
            for number, metrics in scores.items()
        }
        return {name: [best[fold.number] for fold in one.search.folds] for name, one in asked.items()}

    def _asked(
        self,
        ledger: TrialLedger,
        folder: Callable[[], Path],
        n_jobs: int | None,
        on_progress: Progress | None,
        on_prompts: Progress | None,
    ) -> dict[str, _Asked]:
        found: dict[str, _Asked] = {}
        for place, (name, search) in enumerate(self.searches.items()):
            desk = Desk(search.market, [*search.trains, *search.tests], folder, on_prompts)
            desk.ask(configure(settings, search.space.gate)[1:] for settings in search.combinations)
            trials = search.trials(desk)
            each = _of_all(on_progress, place, len(self.searches))
            outcomes = search.outcomes(trials, ledger, n_jobs, desk, each)
            found[name] = _Asked(search=search, desk=desk, trials=trials, outcomes=outcomes)
        return found

    def _symbol(
        self, asked: _Asked, ledger: TrialLedger, chosen: Mapping[int, int] | None, run: int
    ) -> WalkForwardResult:
        search = asked.search
        results, record = search.walk(asked.trials, asked.outcomes, chosen)
        models = asked_models(asked.desk, {one.fold.number: one.gate for one in results})
        return search.result(
            results, record, asked.trials, asked.outcomes, ledger, trials_run=run, models=models
        )

    # Trials of the panel

    def _scores(self, asked: Mapping[str, _Asked], ledger: TrialLedger) -> dict[int, list[Metrics]]:
        """Return the pooled figures of every combination on each train stretch, and write them down."""
        combinations = next(iter(self.searches.values())).combinations
        configurations = [self._configuration(asked, place) for place in range(len(combinations))]
        found: dict[int, list[Metrics]] = {}
        for fold in self.folds:
            for place, configuration in enumerate(configurations):
                parts = {name: one.trial(fold.number, place) for name, one in asked.items()}
                there = {name: part for name, part in parts.items() if part is not None}
                if there:
                    metrics = self._trial(fold, combinations[place], configuration, there, ledger)
                    found.setdefault(fold.number, []).append(metrics)
        return found

    def _configuration(self, asked: Mapping[str, _Asked], place: int) -> str:
        """Return the hash of what is tried on the panel, whichever of its symbols are there in a fold."""
        weights = self.weights
        each = sorted([one.trials[0][place].configuration, weights[name]] for name, one in asked.items())
        return content_sha256(["panel", each])

    def _trial(
        self,
        fold: Fold,
        settings: Mapping[str, Any],
        configuration: str,
        parts: Mapping[str, tuple[Trial, pd.Series[float], TrialOutcome]],
        ledger: TrialLedger,
    ) -> Metrics:
        returns = pooled_returns(
            aligned_returns({name: equity for name, (_, equity, _) in parts.items()}), self.weights
        )
        counted = np.isin(returns.index, self.index[fold.scored])
        pooled_ones = np.array(returns, dtype=np.float64)
        outcomes = [outcome for _, _, outcome in parts.values()]
        pooled = TrialOutcome(
            equity=np.concatenate([[1.0], np.cumprod(1.0 + pooled_ones)]),
            trades=sum(outcome.trades for outcome in outcomes),
            wins=sum(outcome.wins for outcome in outcomes),
            held=max(outcome.held for outcome in outcomes),
            traded=float(sum(outcome.traded for outcome in outcomes)),
        )
        weights = self.weights
        keys = sorted([trial.key, weights[name]] for name, (trial, _, _) in parts.items())
        description = {
            "strategy": next(iter(self.searches.values())).strategy.__name__,
            "settings": {name: str(value) for name, value in settings.items()},
            "data": self.universe.label,
            "train": [fold.train_start.isoformat(), fold.train_end.isoformat()],
        }
        ledger.add(
            TrialRecord(
                key=content_sha256(["panel", keys, bt_llm.__version__]),
                configuration=configuration,
                description=canonical_json(description),
                sharpe=sharpe_per_bar(pooled_ones),
                outcome=pooled,
            )
        )
        return measure(pooled, pooled_ones[counted], self.yearly)

    # Result

    def _result(
        self,
        symbols: dict[str, WalkForwardResult],
        scores: Mapping[int, Sequence[Metrics]],
        chosen: Mapping[int, int],
        ledger: TrialLedger,
        run: int,
    ) -> PanelWalkForwardResult:
        first = next(iter(self.searches.values()))
        folds = []
        for fold in self.folds:
            there = tuple(
                name for name, one in symbols.items() if fold.number in {f.fold.number for f in one.folds}
            )
            if not there:
                continue
            place = chosen.get(fold.number)
            folds.append(
                PanelFold(
                    fold=fold,
                    symbols=there,
                    settings=None if place is None else first.combinations[place],
                    in_sample=None if place is None else scores[fold.number][place],
                    scores=tuple(self.metric.score(one) for one in scores.get(fold.number, ())),
                )
            )
        settings = next(iter(symbols.values())).settings
        own = {name: value for name, value in settings.items() if name not in ("data", "bars_sha256")}
        found = PanelWalkForwardResult(
            name=first.strategy.__name__,
            metric=self.metric,
            parameters=self.parameters,
            symbols=symbols,
            weights=self.weights,
            left_out=self.left_out,
            folds=tuple(folds),
            combinations=tuple(first.combinations),
            trials_run=run,
            settings={**own, "data": self.universe.label, "bars_sha256": self.universe.sha256},
        )
        ratios = ledger.sharpes()
        returns = np.array(found.returns, dtype=np.float64)
        return replace(
            found,
            n_trials=len(ratios),
            probabilistic_sharpe=deflated(returns, [0.0]),
            deflated_sharpe=deflated(returns, [ratios[name] for name in sorted(ratios)]),
        )


def _own_folds(
    folds: Sequence[Fold], times: pd.DatetimeIndex, search: Search, start: pd.Timestamp | None
) -> tuple[list[Fold], Ended]:
    """Return the folds that a symbol is in, by its own bars, and the stretches in which its bars end."""
    index = search.index
    begins = 0 if start is None else int(index.searchsorted(start))
    found: list[Fold] = []
    ended: Ended = set()
    for fold in folds:
        train = _part(index, fold.train_start, fold.train_end, begins)
        test = _part(index, fold.test_start, fold.test_end, begins)
        first = max(train.start, search.warm_up - 1)
        if train.stop - first < SHORTEST or test.stop - test.start < 2:
            continue
        for kind, part, end in (("train", train, fold.train_end), ("test", test, fold.test_end)):
            if part.stop == len(index) and index[-1] < end:
                ended.add((fold.number, kind))
        parts = [_part(index, times[one.start], times[one.stop - 1], train.start) for one in fold.embargoed]
        embargoed = tuple(slice(one.start, min(one.stop, train.stop)) for one in parts)
        found.append(
            Fold(
                number=fold.number,
                train=train,
                test=test,
                train_start=index[train.start],
                train_end=index[train.stop - 1],
                test_start=index[test.start],
                test_end=index[test.stop - 1],
                embargoed=tuple(one for one in embargoed if one.start < one.stop),
            )
        )
    return found, ended


def _part(index: pd.DatetimeIndex, first: pd.Timestamp, last: pd.Timestamp, least: int) -> slice:
    """Return the positions of the bars of a stretch of time, both ends included, from a position on."""
    stop = int(index.searchsorted(last, side="right"))
    return slice(min(stop, max(least, int(index.searchsorted(first)))), stop)


def _of_all(on_progress: Progress | None, place: int, symbols: int) -> Progress | None:
    """Return what tells of one symbol's trials as a part of those of all."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(place * total + done, symbols * total)
