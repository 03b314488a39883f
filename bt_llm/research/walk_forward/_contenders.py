"""Out of sample, which model is better, if any: each searched for itself, and the choice without a gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import pandas as pd

from bt_llm.backtest import Bootstrap
from bt_llm.exceptions import StrategyError
from bt_llm.gates import AskingGate
from bt_llm.research._ledger import TrialOutcome
from bt_llm.research._standing import Standing, standing
from bt_llm.research.walk_forward._metrics import best_of, measure, returns_of
from bt_llm.research.walk_forward._trials import Stretches, Trial
from bt_llm.shown import Told

if TYPE_CHECKING:
    from bt_llm.research.walk_forward._results import FoldResult
    from bt_llm.research.walk_forward._search import Search

__all__ = [
    "CHOSEN",
    "FEWEST_BARS",
    "UNGATED",
    "Contenders",
    "best_places",
    "contenders",
    "groups_of",
    "opened",
    "searched_alone",
    "walked",
]

UNGATED, CHOSEN = "ungated", "chosen"
FEWEST_BARS = 30
"""Out-of-sample returns before contenders are compared."""

_ASKED = ("gate.advisor.model", "gate.advisor.template")
_RESAMPLES = 999


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Contenders(Told):
    """What each contender of a study came to out of sample, on the same bars.

    Attributes
    ----------
    returns : DataFrame
        Simple returns a bar, of a panel the pooled ones, one column each; ``ungated`` is what was chosen,
        without a gate.
    trades : dict of str to Index
        When the trades of each were opened, their side and data; of a panel their symbol too.
    """

    returns: pd.DataFrame
    trades: dict[str, pd.Index]

    def standing(self) -> Standing:
        """Return which is better, if any.

        Raises
        ------
        MissingExtraError
            If ``arch`` is not installed.
        """
        candidates = [name for name in map(str, self.returns) if name != UNGATED]
        return standing(self.returns, candidates, Bootstrap(resamples=_RESAMPLES), trades=self.trades)


def searched_alone(
    search: Search, trials: Sequence[Sequence[Trial]], outcomes: Mapping[str, TrialOutcome]
) -> dict[str, Stretches]:
    """Return the test stretches of each model and template that the grid names, each searched for itself."""
    groups = groups_of(search)
    if len(groups) < 2:
        return {}
    chosen = {name: best_places(search, trials, outcomes, of) for name, of in groups.items()}
    return {name: walked(search, trials, places) for name, places in chosen.items()}


def contenders(
    search: Search,
    trials: Sequence[Sequence[Trial]],
    results: Sequence[FoldResult],
    record: Stretches,
    alone: Mapping[str, Stretches],
) -> tuple[Contenders | None, str]:
    """Return what models, or templates, and no gate come to out of sample; and why not, if it is to be said.

    Each model that the grid names has its folds choose among its own combinations and trade the test
    stretches with the best of them. ``ungated`` trades them with what the study chose, its gate open. None of
    this chooses anything; it is only compared.

    Parameters
    ----------
    search : Search
        The study.
    trials
        Its trials by fold.
    results, record
        What it chose, and the test stretches of that.
    alone
        From `searched_alone`.
    """
    records = dict(alone) or {CHOSEN: record}
    gated = [fold[one.chosen] for fold, one in zip(trials, results, strict=True)]
    missing = ""
    if all(isinstance(trial.gate, AskingGate) for trial in gated):
        try:
            records[UNGATED] = walked(search, [[opened(trial)] for trial in gated], [0] * len(gated))
        except StrategyError as error:  # it reads what only its own gate has
            missing = f"not compared with no gate out of sample: {error}"
    if len(records) < 2:
        return None, missing
    if spoilt := [name for name, one in records.items() if one.problems or one.value <= 0.0]:
        return None, f"out of sample {', '.join(spoilt)} cannot be compared: {_why(records, spoilt)}"
    index = search.tested[1:]
    if len(index) < FEWEST_BARS:
        return None, f"{len(index)} out-of-sample returns are too few to compare models by"
    returns = {name: returns_of(one.joined().equity) for name, one in records.items()}
    trades: dict[str, pd.Index] = {
        name: pd.Index([(trade.opened, trade.direction, trade.data) for trade in one.trades])
        for name, one in records.items()
    }
    return Contenders(returns=pd.DataFrame(returns, index=index), trades=trades), missing


def _why(records: Mapping[str, Stretches], names: Sequence[str]) -> str:
    return "; ".join([*records[names[0]].problems, "the account was ruined"][:1])


def groups_of(search: Search) -> dict[str, list[int]]:
    """Return the combinations of each model and template that the grid names, by a name of theirs.

    A file is called by its name, or where another one has that name too, by its path.
    """
    asked = [name for name in _ASKED if len({str(one.get(name)) for one in search.combinations}) > 1]
    if not asked:
        return {}
    said = [tuple(str(settings[name]) for name in asked) for settings in search.combinations]
    short = {one: ", ".join(map(_short, one)) for one in said}
    names = list(short.values())
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(said):
        name = short[one] if names.count(short[one]) == 1 else ", ".join(one)
        groups.setdefault(name, []).append(place)
    return groups


def _short(name: str) -> str:
    path = PurePath(name)
    return path.stem if path.suffix.lower() in (".gguf", ".toml") else name


def best_places(
    search: Search,
    trials: Sequence[Sequence[Trial]],
    outcomes: Mapping[str, TrialOutcome],
    of: Sequence[int],
) -> list[int]:
    """Return what each fold chooses if it may only choose among some of the combinations."""
    chosen = []
    for fold, window, tried in zip(search.folds, search.trains, trials, strict=True):
        found = [outcomes[tried[place].key] for place in of]
        metrics = [measure(one, search.scored(one, window, fold), search.yearly) for one in found]
        chosen.append(of[best_of(metrics, search.metric, search.min_trades)])
    return chosen


def walked(search: Search, trials: Sequence[Sequence[Trial]], chosen: Sequence[int]) -> Stretches:
    """Trade the test stretches by the trials that were chosen."""
    record = Stretches(value=search.setup.starting_cash(search.market))
    for fold, window, tried, place in zip(search.folds, search.tests, trials, chosen, strict=True):
        search.trade(tried[place], fold.number, window, record)
    return record


def opened(trial: Trial) -> Trial:
    """Return a trial with an open gate in its gate's place, which warms up as long."""
    assert trial.gate is not None
    opened = trial.gate.baseline()
    return dataclasses.replace(trial, params={**trial.params, "gate": opened}, gate=opened, prior=None)
