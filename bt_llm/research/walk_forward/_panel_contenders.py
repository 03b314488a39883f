"""Out of sample on many symbols, which model is better, if any: each searched for itself, and no gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd

from bt_llm.backtest import aligned_returns, pooled_returns
from bt_llm.exceptions import StrategyError
from bt_llm.gates import AskingGate
from bt_llm.research._splits import Fold
from bt_llm.research.walk_forward._contenders import (
    CHOSEN,
    FEWEST_BARS,
    UNGATED,
    Contenders,
    groups_of,
    opened,
    walked,
)
from bt_llm.research.walk_forward._trials import Stretches, Trial

if TYPE_CHECKING:
    from bt_llm.research.walk_forward._search import Search

__all__ = ["Places", "panel_contenders", "tested_returns"]

Places: TypeAlias = Mapping[str, Sequence[int]]
"""By symbol, the combination that each of its folds trades with."""

_Records: TypeAlias = dict[str, Stretches]


def tested_returns(
    equities: Mapping[str, pd.Series[float]], folds: Mapping[str, Sequence[Fold]]
) -> pd.DataFrame:
    """Return the out-of-sample returns of many accounts, one column a symbol; NaN outside of its tests.

    Parameters
    ----------
    equities : mapping of str to Series
        Value of each account over its test stretches, joined, by time.
    folds : mapping of str to sequence of Fold
        Those that each symbol is in.
    """
    returns = aligned_returns(equities)
    for name, those in folds.items():
        inside = pd.Series(False, index=returns.index)
        for fold in those:
            inside |= (returns.index >= fold.test_start) & (returns.index <= fold.test_end)
        returns.loc[~inside, name] = math.nan
    return returns


def panel_contenders(
    searches: Mapping[str, Search],
    trials: Mapping[str, Sequence[Sequence[Trial]]],
    weights: Mapping[str, float],
    chosen: Places,
    best_among: Callable[[Sequence[int]], Places],
) -> tuple[Contenders | None, str]:
    """Return what models, or templates, and no gate come to out of sample; and why not, if it is to be said.

    As of one symbol (see `contenders`), pooled: each model that the grid names chooses among its own
    combinations, as the study does, for all symbols or for each; ``ungated`` trades with what the study
    chose, its gate open. None of this chooses anything; it is only compared.

    Parameters
    ----------
    searches, trials : mapping of str
        Of each symbol: its search, and its trials by fold.
    weights : mapping of str to float
        Of each symbol's account.
    chosen : Places
        What the study chose.
    best_among : callable
        What it would have chosen among some of the combinations.
    """
    groups = groups_of(next(iter(searches.values())))
    wanted = {name: best_among(of) for name, of in groups.items()} if len(groups) > 1 else {CHOSEN: chosen}
    records = {
        name: {symbol: walked(one, trials[symbol], places[symbol]) for symbol, one in searches.items()}
        for name, places in wanted.items()
    }
    missing = ""
    gated = {
        symbol: [fold[place] for fold, place in zip(trials[symbol], chosen[symbol], strict=True)]
        for symbol in searches
    }
    if all(isinstance(trial.gate, AskingGate) for those in gated.values() for trial in those):
        try:
            records[UNGATED] = {
                symbol: walked(one, [[opened(trial)] for trial in gated[symbol]], [0] * len(one.folds))
                for symbol, one in searches.items()
            }
        except StrategyError as error:  # it reads what only its own gate has
            missing = f"not compared with no gate out of sample: {error}"
    if len(records) < 2:
        return None, missing
    for name, record in records.items():
        if why := _spoilt(record):
            return None, f"out of sample {name} cannot be compared: {why}"
    returns = {name: _pooled(searches, record, weights) for name, record in records.items()}
    if (bars := len(next(iter(returns.values())))) < FEWEST_BARS:
        return None, f"{bars} out-of-sample returns are too few to compare models by"
    trades = {name: _identified(record) for name, record in records.items()}
    return Contenders(returns=pd.DataFrame(returns), trades=trades), missing


def _spoilt(record: _Records) -> str:
    """Return why a pooled record has no ratios; usually empty."""
    for symbol, one in record.items():
        if one.problems:
            return f"{symbol}: {one.problems[0]}"
        if one.value <= 0.0:
            return f"{symbol}: the account was ruined"
    return ""


def _pooled(
    searches: Mapping[str, Search], record: _Records, weights: Mapping[str, float]
) -> pd.Series[float]:
    equities = {
        symbol: pd.Series(one.joined().equity, index=searches[symbol].tested)
        for symbol, one in record.items()
    }
    folds = {symbol: searches[symbol].folds for symbol in record}
    return pooled_returns(tested_returns(equities, folds), weights)


def _identified(record: _Records) -> pd.Index:
    found: pd.Index = pd.Index(
        [
            (symbol, trade.opened, trade.direction, trade.data)
            for symbol, one in record.items()
            for trade in one.trades
        ]
    )
    return found
