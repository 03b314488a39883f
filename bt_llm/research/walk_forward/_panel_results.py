"""What a walk-forward study of many symbols found, and what is shown of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.backtest import (
    DESCRIPTIVE,
    Accounted,
    OneRun,
    PooledRun,
    Primary,
    Section,
    added_sections,
    bars_section,
    count,
    equity_section,
    metrics_section,
    number,
    percent,
    periods_per_year,
    refusal,
    sentences_section,
    table_section,
    trades_section,
)
from bt_llm.equality import nan_equal
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.research._fold_diagram import fold_diagram
from bt_llm.research._splits import Fold
from bt_llm.research._standing import Standing
from bt_llm.research.walk_forward._contenders import Contenders
from bt_llm.research.walk_forward._metrics import Metric, Metrics
from bt_llm.research.walk_forward._panel_contenders import tested_returns
from bt_llm.research.walk_forward._question import sharpe_question
from bt_llm.research.walk_forward._results import WalkForwardResult, save_document
from bt_llm.research.walk_forward._saving import save_results

__all__ = ["PanelFold", "PanelWalkForwardResult"]

_ALONE = ("question", "probabilistic_sharpe", "deflated_sharpe")
"""What a study of one symbol concludes, which is not said of each of many."""


@nan_equal
@dataclass(frozen=True, kw_only=True)
class PanelFold:
    """One fold of a panel.

    Attributes
    ----------
    fold : Fold
        Where it lies, by positions in all times of the panel.
    symbols : tuple of str
        Those that are in it.
    settings : dict or None
        What was chosen for all of them; None where each symbol chose its own.
    in_sample : dict or None
        Pooled figures of that over the train stretch.
    scores : tuple of float
        What each combination scored, more being better; empty where each symbol chose its own.
    """

    fold: Fold
    symbols: tuple[str, ...]
    settings: dict[str, Any] | None
    in_sample: Metrics | None
    scores: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN becomes None."""
        times = ("train_start", "train_end", "test_start", "test_end")
        found: dict[str, Any] = plain(
            {
                "fold": self.fold.number,
                **{name: getattr(self.fold, name) for name in times},
                "symbols": self.symbols,
                "settings": self.settings,
                "in_sample": self.in_sample,
                "scores": self.scores,
            }
        )
        return found


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _TestRecord(PooledRun[WalkForwardResult]):
    """The out-of-sample records of many symbols as one; a symbol counts in the folds that it is in."""

    @cached_property
    def by_symbol(self) -> pd.DataFrame:
        """Returns of the accounts, one column a symbol; NaN outside of its test stretches."""
        return tested_returns(
            {name: one.equity for name, one in self.symbols.items()},
            {name: [fold.fold for fold in one.folds] for name, one in self.symbols.items()},
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PanelWalkForwardResult(OneRun):
    """What a walk-forward study of many symbols found.

    Attributes
    ----------
    name : str
        Name of the strategy's class.
    metric : Metric
        What the folds chose by.
    parameters : {'panel', 'symbol'}
        Whether one set of settings was chosen for all symbols, or one for each.
    symbols : dict of str to WalkForwardResult
        Of each symbol, traded with what was chosen.
    weights : dict of str to float
        Of its account in the pooled record.
    left_out : dict of str to str
        Symbols that are in no fold, and why.
    folds : tuple of PanelFold
        In order of time.
    combinations : tuple of dict
        All that were tried.
    trials_run : int
        Trials that this run added to the ledger.
    n_trials : int
        Distinct configurations in the ledger: of the panel as a whole, or with settings for each symbol, of
        each symbol.
    probabilistic_sharpe, deflated_sharpe : float
        As of `WalkForwardResult`, of the pooled record.
    settings : dict
        Everything else that was asked for.
    contenders : Contenders or None
        Pooled and out of sample, what each model or template of the grid comes to if it is searched for
        itself, or else what was chosen; and what was chosen without a gate. None without a gate that asks a
        model.
    said : tuple of str
        What else is to be said of the study.
    """

    name: str
    metric: Metric
    parameters: str
    symbols: dict[str, WalkForwardResult]
    weights: dict[str, float]
    left_out: dict[str, str]
    folds: tuple[PanelFold, ...]
    combinations: tuple[dict[str, Any], ...]
    trials_run: int
    n_trials: int = 0
    probabilistic_sharpe: float = math.nan
    deflated_sharpe: float = math.nan
    settings: dict[str, Any] = field(default_factory=dict)
    contenders: Contenders | None = None
    said: tuple[str, ...] = ()

    @cached_property
    def standing(self) -> Standing | None:
        """Which of the `contenders` is better out of sample, if any; None if there are none to compare.

        Raises
        ------
        MissingExtraError
            If ``arch`` is not installed.
        """
        return None if self.contenders is None or self.problems else self.contenders.standing()

    @property
    def question(self) -> Primary | None:
        """Whether the true pooled Sharpe ratio is above 0, given all trials; None with `problems`."""
        if self.problems:
            return None
        return sharpe_question(
            self.returns,
            self.deflated_sharpe,
            n_trials=self.n_trials,
            trades=self.metrics["trades"],
            periods_per_year=periods_per_year(pd.DatetimeIndex(self.returns.index)),
        )

    @property
    def accounts(self) -> dict[str, Accounted]:
        """The pooled record, as ``out_of_sample``."""
        return {"out_of_sample": self.pooled}

    def _told(self) -> str:
        told = super()._told().partition(", ")[2]
        symbols, folds = counted(len(self.symbols), "symbol"), counted(len(self.folds), "fold")
        return f"{self.name}: {symbols}, {folds}, out of sample {told}"

    @cached_property
    def pooled(self) -> PooledRun[WalkForwardResult]:
        """The out-of-sample record of all symbols; see `PooledRun`."""
        return _TestRecord(name="out of sample", symbols=self.symbols, weights=self.weights)

    @property
    def trials(self) -> int:
        """Trials of this study: of the panel, or with settings for each symbol, of each."""
        if self.parameters == "panel":
            return len(self.folds) * len(self.combinations)
        return sum(one.trials for one in self.symbols.values())

    @property
    def runs(self) -> dict[str, PooledRun[WalkForwardResult]]:
        """The pooled record by name."""
        return {"out_of_sample": self.pooled}

    @property
    def returns(self) -> pd.Series[float]:
        """Pooled out-of-sample return of each bar."""
        return self.pooled.returns

    @property
    def equity(self) -> pd.Series[float]:
        """Growth of the pooled out-of-sample record, 1 at its first bar."""
        return self.pooled.equity

    @property
    def trades(self) -> pd.DataFrame:
        """The closed out-of-sample trades, with a column ``symbol``."""
        return self.pooled.trades

    @property
    def metrics(self) -> Metrics:
        """Figures of the pooled out-of-sample record."""
        return self.pooled.metrics

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against any conclusion: what is wrong with any account, or with all the gates."""
        of_accounts = [
            f"{name}: {problem}"
            for name, one in self.symbols.items()
            for problem in one.problems
            if problem.startswith("fold ")
        ]
        more = [f"and {len(of_accounts) - 3} more such"] if of_accounts[3:] else []
        of_gates = [
            {problem.partition(":")[0] for problem in one.problems if not problem.startswith("fold ")}
            for one in self.symbols.values()
        ]
        return (*of_accounts[:3], *more, *sorted(set.intersection(*of_gates)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the symbols, one line each."""
        said: dict[str, list[str]] = {}
        for name, one in self.symbols.items():
            for note in one.notes:
                said.setdefault(note, []).append(name)
        out = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return (*out, *(f"{_listed(names)}: {note}" for note, names in said.items()), *self.said)

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words, that of the one question first."""
        metrics = self.metrics
        whose = "for all symbols" if self.parameters == "panel" else "for each symbol"
        figures = (
            f"{counted(len(self.symbols), 'symbol')}, {counted(len(self.folds), 'fold')}, settings chosen "
            f"{whose}: out of sample and pooled, {percent(metrics['return'])} in "
            f"{counted(metrics['trades'], 'trade')}, with a Sharpe ratio of {number(metrics['sharpe'])}."
        )
        asked = self.question
        if asked is None:
            return [*refusal(self.problems), figures]
        found = [asked.sentence, *(() if self.standing is None else self.standing.sentences)]
        return [
            *found,
            DESCRIPTIVE,
            figures,
            f"The bars of the record were not searched, so that p, from the deflated Sharpe ratio of all "
            f"{self.n_trials} configurations, is the cautious end. If this was the only study ever run on "
            f"them, the Sharpe ratio is above 0 with probability {percent(self.probabilistic_sharpe, 0)}; "
            f"the truth lies between.",
        ]

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.notes)
        yield metrics_section({"out of sample, pooled": self.metrics})
        yield self._folds()
        if self.standing is not None:
            yield from self.standing.sections()
        text = "Growth of the pooled out-of-sample record, from 1."
        yield equity_section({"out of sample": self.equity}, text)
        yield self._symbols()
        yield trades_section(self.trades)
        yield from added_sections(self)

    def _folds(self) -> Section:
        searched = [
            name for name in self.combinations[0] if len({str(c[name]) for c in self.combinations}) > 1
        ]
        rows = []
        for one in self.folds:
            inside = (self.returns.index >= one.fold.test_start) & (self.returns.index <= one.fold.test_end)
            part = self.returns[inside]
            chosen = one.settings
            rows.append(
                [
                    str(one.fold.number),
                    f"{one.fold.test_start:%Y-%m-%d}",
                    f"{one.fold.test_end:%Y-%m-%d}",
                    str(len(one.symbols)),
                    *("each its own" if chosen is None else str(chosen[name]) for name in searched),
                    "-" if one.in_sample is None else number(one.in_sample["sharpe"]),
                    percent(float(np.prod(1.0 + part.to_numpy())) - 1.0),
                ]
            )
        head = ["fold", "test from", "to", "symbols", *searched, "Sharpe in", "return out"]
        text = "Each fold chose on its in-sample stretch and traded the next. Only the latter counts."
        return table_section(f"Folds, chosen by {self.metric}", head, rows, text)

    def _symbols(self) -> Section:
        rows = [
            [
                name,
                str(len(one.folds)),
                percent(one.metrics["return"]),
                number(one.metrics["sharpe"]),
                count(one.metrics["trades"]),
                "; ".join(f"{s.name} {s.usual} ({percent(s.share, 0)})" for s in one.stability),
            ]
            for name, one in self.symbols.items()
        ]
        head = ["symbol", "folds", "return out", "Sharpe out", "trades", "usual choice (share of folds)"]
        return table_section("Symbols", head, rows, "Each symbol's own out-of-sample record.")

    def diagram(self, width: int = 80) -> str:
        """Draw the folds as text; see `fold_diagram`."""
        return fold_diagram([one.fold for one in self.folds], width)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write into a folder: ``result.json``, and the pooled equity and trades as CSV.

        Each symbol has a folder of its name below ``symbols``; see `WalkForwardResult.save`. What would be
        concluded from one of them alone is None there: the symbols are judged together.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        tables = {
            "equity.csv": self.equity.rename_axis("time").reset_index(),
            "trades.csv": self.trades,
        }
        path = save_results(folder, text, tables)
        for place, (name, one) in enumerate(self.symbols.items()):
            plainly = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name)
            save_document(one, _of_panel(one), path / "symbols" / f"{place:03}-{plainly.strip('. ')}")

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None, and so is what `problems` forbid to conclude.

        So is, of a symbol, what would be concluded from it alone: the symbols are judged together.
        """
        concluded = {
            "question": self.question and self.question.to_dict(),
            "probabilistic_sharpe": self.probabilistic_sharpe,
            "deflated_sharpe": self.deflated_sharpe,
        }
        found: dict[str, Any] = plain(
            {
                "strategy": self.name,
                "metric": str(self.metric),
                "parameters": self.parameters,
                "out_of_sample": self.metrics,
                "folds": [one.to_dict() for one in self.folds],
                "symbols": {name: _of_panel(one) for name, one in self.symbols.items()},
                "weights": self.weights,
                "left_out": self.left_out,
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "standing": None if self.standing is None else self.standing.to_dict(),
                "n_trials": self.n_trials,
                "combinations": len(self.combinations),
                "settings": _plain(self.settings),
                "problems": self.problems,
                "notes": self.notes,
                "sentences": self.sentences,
            }
        )
        return found


def _of_panel(symbol: WalkForwardResult) -> dict[str, Any]:
    """Return what is said of one symbol, without a p-value that knows nothing of the others."""
    return {**symbol.to_dict(), **dict.fromkeys(_ALONE)}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in settings.items()}


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:3])} and {len(names) - 3} more" if names[3:] else ", ".join(names)
