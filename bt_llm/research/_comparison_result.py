"""What comparing models found: the answer, the verdicts, and what each two models did differently."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bt_llm import statistics
from bt_llm.backtest import (
    BacktestResult,
    ManyRuns,
    Section,
    added_sections,
    bars_section,
    count,
    equity_section,
    metrics_section,
    number,
    percent,
    periods_per_year,
    problems_in,
    refusal,
    sentences_section,
    table_section,
    trades_section,
)
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.research._scoring import Judged, ModelCost, ModelScore
from bt_llm.research._standing import Standing
from bt_llm.research._tried import Tried
from bt_llm.research._verdict_skill import VerdictSkill
from bt_llm.shown import Told

__all__ = ["RULE", "UNGATED", "ModelComparison", "PairComparison"]

UNGATED, RULE = "ungated", "rule"
"""Names of the runs without a model."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PairComparison(Told):
    """What two models said and did differently on the same bars; descriptive.

    Attributes
    ----------
    models : (str, str)
        Their names.
    agreement : DataFrame
        Bars by the answers of both; rows are the first's, columns the second's.
    agreed : float
        Share of bars with the same answer.
    kappa : float
        Cohen's kappa: agreement beyond chance; NaN if both only ever gave one and the same answer.
    trades : DataFrame
        Trades that only one of the two made (by opening time, direction and data): ``model``, ``opened``,
        ``closed``, ``direction`` and ``pnlcomm``, what it was worth after commission.
    shared_trades : int
        Trades that both made.
    """

    models: tuple[str, str]
    agreement: pd.DataFrame
    agreed: float
    kappa: float
    trades: pd.DataFrame
    shared_trades: int

    @property
    def worth(self) -> dict[str, float]:
        """What each model's own trades came to, after commission."""
        return {
            name: float(self.trades.loc[self.trades["model"] == name, "pnlcomm"].sum())
            for name in self.models
        }

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        first, second = self.models
        counts = {name: int((self.trades["model"] == name).sum()) for name in self.models}
        return [
            f"{first} and {second} gave the same answer on {100 * self.agreed:.0f} % of the bars (kappa "
            f"{self.kappa:.2f}); {counted(self.shared_trades, 'trade')} "
            f"{'is' if self.shared_trades == 1 else 'are'} common to both, {counts[first]} of {first} "
            f"alone came to {self.worth[first]:,.2f}, {counts[second]} of {second} alone to "
            f"{self.worth[second]:,.2f}.",
        ]

    def sections(self) -> Iterator[Section]:
        """Yield where the two agree, and the trades that only one of them made."""
        first, second = self.models
        rows = [[str(label), *(count(value) for value in row)] for label, row in self.agreement.iterrows()]
        yield table_section(
            f"Bars by answer: {first} in rows, {second} in columns",
            ["", *map(str, self.agreement.columns)],
            rows,
            f"Cohen's kappa is {number(self.kappa)}: 1 is full agreement, 0 what chance gives.",
        )
        if len(self.trades):
            yield trades_section(self.trades, f"Trades that only one of {first} and {second} made")

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "models": self.models,
                "agreement": self.agreement.to_dict("index"),
                "agreed": self.agreed,
                "kappa": self.kappa,
                "shared_trades": self.shared_trades,
                "worth": self.worth,
                "trades": self.trades,
                "sentences": self.sentences,
            }
        )
        return found


def _confidence(name: str, score: ModelScore) -> Section:
    filled = score.reliability[score.reliability["count"] > 0]
    rows = [
        [percent(row["mean_confidence"], 0), percent(row["frequency"], 0), count(row["count"])]
        for _, row in filled.iterrows()
    ]
    text = "Confidence that can be believed is right as often as it says."
    return table_section(f"Confidence of {name}", ["stated", "right", "bars"], rows, text)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ModelComparison(ManyRuns):
    """One strategy gated by each of several models.

    Attributes
    ----------
    runs : dict of str to BacktestResult
        By the model's name, ``ungated``, and ``rule`` where there is a rule to compare with.
    scores : dict of str to ModelScore
        How good the verdicts were.
    costs : dict of str to ModelCost
        What they took.
    standing : Standing
        Which is better, if any, and how each stands to the ungated strategy and the plain rule.
    skill : VerdictSkill
        Whether the verdicts are right at the right times, and how their probabilities score.
    pairs : list of PairComparison
        Every two models.
    judged : dict of str to Judged
        The answers bar by bar.
    tried : Tried or None
        How many configurations were tried, where the comparison was written into a ledger.
    """

    runs: dict[str, BacktestResult]
    scores: dict[str, ModelScore]
    costs: dict[str, ModelCost]
    standing: Standing
    skill: VerdictSkill
    pairs: list[PairComparison]
    judged: dict[str, Judged]
    tried: Tried | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against any conclusion, one line each, with the run it is of; usually nothing."""
        return problems_in(self.runs)

    @property
    def table(self) -> pd.DataFrame:
        """The metrics, one row a run.

        ``pnl`` (account currency), ``return``, ``sharpe``, ``sortino``, ``calmar``, ``max_drawdown``,
        ``turnover``, ``trades``, ``hit_rate`` (share of trades that won after commission), ``exposure``; as
        in `BacktestResult.metrics`.
        """
        return pd.DataFrame({name: _row(run) for name, run in self.runs.items()}).T

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        if refused := refusal(self.problems):
            return refused
        found = [*self.standing.sentences, self.skill.sentence]
        found += [sentence for pair in self.pairs for sentence in pair.sentences]
        return found + ([self.tried.sentence] if self.tried else [])

    @property
    def notes(self) -> list[str]:
        """What is to be said of the bars and of any of the gates, each line once."""
        return list(dict.fromkeys(note for run in self.runs.values() for note in run.notes))

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.notes)
        yield metrics_section(
            {str(n): {str(k): v for k, v in row.items()} for n, row in self.table.iterrows()}
        )
        if not self.problems:
            yield from self.standing.sections()
        yield self._models()
        yield from self._skill()
        for name, scored in self.scores.items():
            yield _confidence(name, scored)
        for pair in self.pairs:
            yield from pair.sections()
        yield equity_section({name: run.equity for name, run in self.runs.items()})
        marked = [run.trades.assign(model=name) for name, run in self.runs.items() if len(run.trades)]
        trades = pd.concat(marked, ignore_index=True) if marked else next(iter(self.runs.values())).trades
        yield trades_section(trades.sort_values("opened", kind="stable"))
        yield from added_sections(self)

    def _models(self) -> Section:
        scores, costs = self.scores.values(), self.costs.values()
        rows = [
            ["right", *(percent(one.accuracy, 0) for one in scores)],
            ["right by the commonest answer", *(percent(one.base_rate, 0) for one in scores)],
            ["Brier score (lower is better)", *(number(one.brier, 3) for one in scores)],
            ["Brier score of a constant", *(number(one.brier_constant, 3) for one in scores)],
            ["logarithmic score (lower is better)", *(number(one.log, 3) for one in scores)],
            ["market states", *(count(one.prompts) for one in costs)],
            ["model calls", *(count(one.model_calls) for one in costs)],
            ["seconds in the model", *(number(one.model_seconds, 1) for one in costs)],
            ["tokens", *(count(one.tokens) for one in costs)],
            ["ms a stored verdict", *(number(one.stored_ms, 1) for one in costs)],
            ["memory, MB (estimate)", *(number(one.memory_mb, 0) for one in costs)],
        ]
        text = "How often each was right about what came next, and its cost."
        return table_section("Models", ["", *self.scores], rows, text)

    def _skill(self) -> Iterator[Section]:
        """Yield the verdicts at their own times and at others, and what their probabilities score."""
        right = self.skill.right
        named = {
            **{str(name): one for name, one in right.each.items()},
            **{f"{first} less {second}": one for (first, second), one in right.pairs.items()},
        }
        yield table_section(
            "Right at the right times",
            ["", "right", "the same words at other times", "adjusted p"],
            [
                [name, percent(one.observed, 1), percent(one.expected, 1), f"{one.p_value:.3g}"]
                for name, one in named.items()
            ],
            "The outcomes rolled against all verdicts, round and round: how often each word is said and "
            "comes true stays, and only the timing goes.",
        )
        rows = [
            [f"{pair[0]} less {pair[1]}", name, *(f"{x:+.4f}" for x in (one.estimate, one.low, one.high))]
            for pair in right.pairs
            for name, one in self.skill.scores(*pair).items()
        ]
        if rows:
            yield table_section(
                "Scores of the probabilities",
                ["", "score", "difference", "from", "to"],
                rows,
                "Lower is better. Descriptive, base rates included: who says the commonest word scores well "
                "and knows nothing. The intervals of a score hold together in 95 of 100 samples.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None, and so is what `problems` forbid to conclude."""
        concluded = {**self.standing.to_dict(), "pairs": [pair.to_dict() for pair in self.pairs]}
        found: dict[str, Any] = plain(
            {
                "runs": self.table.to_dict("index"),
                "scores": {name: model.to_dict() for name, model in self.scores.items()},
                "skill": self.skill.to_dict(),
                "costs": {name: dataclasses.asdict(cost) for name, cost in self.costs.items()},
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "tried": self.tried and self.tried.to_dict(),
                "problems": self.problems,
                "sentences": self.sentences,
                "notes": self.notes,
            }
        )
        return found


def _row(run: BacktestResult) -> dict[str, float]:
    metrics = run.metrics
    yearly = periods_per_year(pd.DatetimeIndex(run.equity.index))
    return {
        "pnl": metrics["final_value"] - run.settings["cash"],
        "return": metrics["return"],
        "sharpe": metrics["sharpe"],
        "sortino": metrics["sortino"],
        "calmar": math.nan
        if run.ruined is not None
        else statistics.calmar_ratio(run.equity.to_numpy(), yearly),
        "max_drawdown": metrics["max_drawdown"],
        "turnover": metrics["turnover"],
        "trades": metrics["trades"],
        "hit_rate": metrics["win_rate"],
        "exposure": metrics["exposure"],
    }
