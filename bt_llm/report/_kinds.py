"""The kinds of results: what each is called, where its numbers come from, and its tables as CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pandas as pd

from bt_llm.backtest import BacktestResult, GateStudy, Market, PanelStudy, PooledRun
from bt_llm.exceptions import ConfigError
from bt_llm.report._content import verdicts_of
from bt_llm.report._facts import (
    Facts,
    facts_of_board,
    facts_of_folds,
    facts_of_leakage,
    facts_of_panel,
    facts_of_panel_folds,
    facts_of_policies,
    facts_of_runs,
    strategy_of,
)
from bt_llm.report._tables import Frames
from bt_llm.research import (
    Board,
    Explanation,
    GateTest,
    LeakageResult,
    ModelComparison,
    Multiverse,
    PanelComparison,
    PanelTest,
    PanelWalkForwardResult,
    WalkForwardResult,
)

__all__ = ["Kind", "Reportable", "kind_of"]

Reportable: TypeAlias = (
    BacktestResult
    | GateStudy
    | GateTest
    | ModelComparison
    | WalkForwardResult
    | PanelStudy
    | PanelTest
    | PanelComparison
    | PanelWalkForwardResult
    | LeakageResult
    | Board
    | Multiverse
    | Explanation
)
"""What there is a report for."""

Tables: TypeAlias = tuple[Frames, Frames, Mapping[str, Frames]]
"""Trades by run, verdicts by model, and further tables by name; see `bt_llm.report._tables.write_tables`."""


def _name_of_first(result: PanelWalkForwardResult) -> str:
    return next(iter(result.symbols.values())).name


def _strategy_or_model(result: Multiverse | Explanation) -> str:
    return strategy_of(result) if result.runs else result.model


def _tables_of_runs(result: Any) -> Tables:
    return {name: run.trades for name, run in result.runs.items()}, verdicts_of(result)[0], {}


def _tables_of_folds(result: WalkForwardResult) -> Tables:
    return {"out_of_sample": result.trades}, verdicts_of(result)[0], {}


def _tables_of_panel(result: Any) -> Tables:
    trades, verdicts, _ = _tables_of_runs(result)
    symbols = {name: _symbols_table(run) for name, run in result.runs.items()}
    returns = {name: run.returns.rename_axis("time").to_frame() for name, run in result.runs.items()}
    return trades, verdicts, {"symbols": symbols, "returns": returns}


def _tables_of_multiverse(result: Multiverse) -> Tables:
    trades, verdicts, _ = _tables_of_runs(result)
    return trades, verdicts, {"specifications": {"multiverse": result.table}}


def _tables_of_leakage(result: LeakageResult) -> Tables:
    return {}, {result.model: result.answers.copy()}, {}


def _no_tables_of_board(result: Board) -> Tables:
    raise ConfigError("tables of a Board: there are none; its JSON has every figure")


def _no_tables_of_explanation(result: Explanation) -> Tables:
    raise ConfigError("tables of an explanation: write its cells with export, to a file that ends in .csv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What the pages and tables of one kind of result have of their own.

    Attributes
    ----------
    of : type
        The results that are of this kind.
    name, summary : str
        What it is called, and in a sentence.
    heading : callable
        From a result to what its page is headed by.
    facts : callable
        From a result and its market to where its numbers come from.
    tables : callable
        From a result to its tables; raises `ConfigError` where there are none.
    has_one_market : bool
        Whether the bars that are given with it are those that it was found on; a panel's symbols have theirs.
    """

    of: type[Any]
    name: str
    summary: str
    heading: Callable[[Any], str] = strategy_of
    facts: Callable[[Any, Market | None], Facts] = facts_of_runs
    tables: Callable[[Any], Tables] = _tables_of_runs
    has_one_market: bool = True


def kind_of(result: object) -> Kind:
    """Return the kind of a result.

    Raises
    ------
    ConfigError
        If it is of none.
    """
    for kind in _KINDS:
        if isinstance(result, kind.of):
            return kind
    names = ", ".join(kind.of.__name__ for kind in _KINDS)
    raise ConfigError(f"report of a {type(result).__name__}: expected one of {names}")


def _symbols_table(run: PooledRun[Any]) -> pd.DataFrame:
    """Return the figures of each symbol of a pooled run."""
    metrics = {symbol: one.metrics for symbol, one in run.symbols.items()}
    return pd.DataFrame(metrics).T.rename_axis("symbol")


def _panel(of: type[Any], name: str, summary: str) -> Kind:
    return Kind(
        of=of,
        name=name,
        summary=summary,
        facts=facts_of_panel,
        tables=_tables_of_panel,
        has_one_market=False,
    )


_KINDS = (
    Kind(
        of=BacktestResult,
        name="one run",
        summary="A strategy on these bars, with nothing to compare it with.",
    ),
    Kind(
        of=GateStudy,
        name="run",
        summary="A strategy with its gate, without it, and buy and hold, on the same bars.",
    ),
    Kind(
        of=GateTest,
        name="test",
        summary="Does the gate add anything? Its result among those of gates that know nothing.",
    ),
    Kind(
        of=ModelComparison,
        name="compare",
        summary="One strategy on the same bars, gated by one model after the other.",
    ),
    Kind(
        of=WalkForwardResult,
        name="walk-forward",
        summary="Settings chosen on the past, judged by what followed.",
        heading=lambda result: str(result.name),
        facts=facts_of_folds,
        tables=_tables_of_folds,
    ),
    _panel(
        PanelStudy,
        "run on a panel",
        "A strategy with its gate, without it, and held, on many symbols.",
    ),
    _panel(PanelTest, "test on a panel", "Does the gate add anything, on many symbols?"),
    _panel(PanelComparison, "compare on a panel", "One strategy on many symbols, gated by several models."),
    Kind(
        of=PanelWalkForwardResult,
        name="walk-forward on a panel",
        summary="Settings chosen on the past of many symbols.",
        heading=_name_of_first,
        facts=facts_of_panel_folds,
        tables=_tables_of_panel,
        has_one_market=False,
    ),
    Kind(
        of=LeakageResult,
        name="leakage",
        summary="Could the model have known? Five probes for what it remembers of a market.",
        heading=lambda result: f"{result.model} on {result.market}",
        facts=facts_of_leakage,
        tables=_tables_of_leakage,
    ),
    Kind(
        of=Board,
        name="board",
        summary="Many models under one set of tasks, recomputed from their packs.",
        heading=lambda result: ", ".join(result.tasks),
        facts=facts_of_board,
        tables=_no_tables_of_board,
    ),
    Kind(
        of=Multiverse,
        name="multiverse",
        summary="One verdict asked for in every way that would have been as good.",
        heading=_strategy_or_model,
        facts=facts_of_policies,
        tables=_tables_of_multiverse,
    ),
    Kind(
        of=Explanation,
        name="explanation",
        summary="What a model says of market states, as a rule.",
        heading=_strategy_or_model,
        facts=facts_of_policies,
        tables=_no_tables_of_explanation,
    ),
)
