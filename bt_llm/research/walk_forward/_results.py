"""What a walk-forward study found."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bt_llm.backtest import COLUMNS, Accounted, OneRun, Primary, Section, counted, periods_per_year
from bt_llm.equality import nan_equal
from bt_llm.gates import EntryGate, Gate
from bt_llm.plain_json import plain
from bt_llm.research._fold_diagram import fold_diagram
from bt_llm.research._splits import Fold
from bt_llm.research._standing import Standing
from bt_llm.research.walk_forward._contenders import Contenders
from bt_llm.research.walk_forward._metrics import Metric, Metrics
from bt_llm.research.walk_forward._models import AskedModel
from bt_llm.research.walk_forward._question import sharpe_question
from bt_llm.research.walk_forward._saving import save_results
from bt_llm.research.walk_forward._sections import walk_forward_sections
from bt_llm.shown import Told
from bt_llm.statistics import OverfittingResult
from bt_llm.verdicts import Prior

__all__ = ["FoldResult", "ParameterStability", "WalkForwardResult"]

_COUNTS = ("trades",)


@nan_equal
@dataclass(frozen=True, kw_only=True, repr=False)
class FoldResult(Told):
    """One fold: what was chosen on its train stretch, and what that did in the test that followed.

    Attributes
    ----------
    fold : Fold
        Where it lies.
    chosen : int
        Which of the study's combinations was best, counted from 0.
    settings : dict
        That combination.
    in_sample, out_of_sample : dict
        Figures of the chosen one over the train and the test stretch; see `WalkForwardResult.metrics`.
    scores : tuple of float
        What each combination scored in sample, more being better; NaN where the metric has no meaning.
    deflated_sharpe : float
        Probability that the chosen one's in-sample Sharpe ratio is skill, given all combinations that
        were tried on the same train stretch; see `deflated_sharpe_ratio`. NaN where it has no meaning.
    prior : Prior or None
        What its verdicts were calibrated with, if the prior is that of the train stretch.
    gate : gate or None
        The gate that it traded with out of sample, that prior included.
    verdicts : DataFrame or None
        What the model told that gate on each out-of-sample bar, by time; columns as from
        `bt_llm.backtest.answers_of`. None where no model gated the trades, or the account was ruined
        before the stretch.
    """

    fold: Fold
    chosen: int
    settings: dict[str, Any]
    in_sample: Metrics
    out_of_sample: Metrics
    scores: tuple[float, ...]
    deflated_sharpe: float
    prior: Prior | None = None
    gate: EntryGate | None = None
    verdicts: pd.DataFrame | None = field(default=None, compare=False, repr=False)

    @property
    def efficiency(self) -> float:
        """Out-of-sample over in-sample annual return; NaN unless the latter is positive."""
        return _ratio(self.out_of_sample["annual_return"], self.in_sample["annual_return"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN becomes None."""
        answers = None if self.verdicts is None else self.verdicts["answer"]
        times = ("train_start", "train_end", "test_start", "test_end")
        return {
            "fold": self.fold.number,
            **{name: getattr(self.fold, name).isoformat() for name in times},
            "settings": {name: plain(value) for name, value in self.settings.items()},
            "in_sample": _figures(self.in_sample),
            "out_of_sample": _figures(self.out_of_sample),
            "efficiency": plain(self.efficiency),
            "deflated_sharpe": plain(self.deflated_sharpe),
            "prior": self.prior and self.prior.to_dict(),
            "verdicts": answers if answers is None else counted(answers),
        }


@nan_equal
@dataclass(frozen=True, kw_only=True)
class ParameterStability:
    """How steady the choice of one parameter was.

    Attributes
    ----------
    name : str
        The parameter, as in the grid.
    chosen : tuple
        Its value in each fold.
    usual : object
        The value chosen most often; of those that tie, the one chosen first.
    share : float
        Share of the folds that chose it. With k values, choosing by lot would give about 1 / k.
    values : int
        How many values were tried.
    changes : int
        How often the choice differs from that of the fold before.
    """

    name: str
    chosen: tuple[Any, ...]
    usual: Any
    share: float
    values: int
    changes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "chosen": [plain(value) for value in self.chosen],
            "usual": plain(self.usual),
            "share": self.share,
            "values": self.values,
            "changes": self.changes,
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WalkForwardResult(OneRun):
    """What a walk-forward study found.

    Attributes
    ----------
    name : str
        Name of the strategy's class.
    metric : Metric
        What the folds chose by.
    folds : tuple of FoldResult
        In order of time.
    combinations : tuple of dict
        All that were tried in each fold, in the order of `FoldResult.scores`.
    equity : pandas.Series
        Value of the account at each test bar's close, by time: the test stretches joined, each beginning
        with the value that the one before ended with, and with no position.
    trades : pandas.DataFrame
        The closed out-of-sample trades, with the columns of `BacktestResult.trades`.
    metrics : dict
        Figures of that record: final_value, return (fraction of the starting cash), annual_return (mean
        return per bar times the bars in a year, not compounded), sharpe and sortino (annualised,
        risk-free rate 0), calmar, max_drawdown (positive fraction), trades, win_rate, exposure, turnover.
        NaN where a number has no meaning.
    probabilistic_sharpe : float
        Probability that the record's true Sharpe ratio is above 0. Right if this study was the only one
        ever run on these bars.
    deflated_sharpe : float
        The same given `n_trials`: as if the record were the best of all that was ever tried here. The
        bars were not searched, so this is the cautious end; the truth of a study that was run once lies
        between the two.
    n_trials : int
        Distinct configurations in the ledger: those of this study, and of every earlier one that wrote
        into the same folder.
    overfitting : OverfittingResult or None
        Probability of backtest overfitting, by cross-validation of the in-sample returns of all
        combinations, each bar counted once (in the first train stretch that holds it). None for a single
        combination, or fewer than 80 bars.
    warm_up : int
        Bars that the indicators of every trial see before it may decide, its first bar included.
    trials_run : int
        Trials that this run added to the ledger; the others were there already.
    models : tuple of AskedModel
        The models that the folds traded with, and each way in which one was asked.
    settings : dict
        Everything else that was asked for.
    problems : tuple of str
        What speaks against any conclusion from the record, one line each, with its fold; usually none.
    notes : tuple of str
        What was assumed, repaired or noticed when the bars were read, one line each.
    contenders : Contenders or None
        Out of sample, what each model or template of the grid comes to if it is searched for itself, or else
        what was chosen; and what was chosen without a gate. None without a gate that asks a model.
    """

    name: str
    metric: Metric
    folds: tuple[FoldResult, ...]
    combinations: tuple[dict[str, Any], ...]
    equity: pd.Series[float]
    trades: pd.DataFrame
    metrics: Metrics
    probabilistic_sharpe: float
    deflated_sharpe: float
    n_trials: int
    overfitting: OverfittingResult | None
    warm_up: int
    trials_run: int
    models: tuple[AskedModel, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    contenders: Contenders | None = None

    @property
    def accounts(self) -> dict[str, Accounted]:
        """The record itself, as ``out_of_sample``."""
        return {"out_of_sample": self}

    def _told(self) -> str:
        return f"{self.name}: {len(self.folds)} folds, out of sample {super()._told().partition(', ')[2]}"

    @functools.cached_property
    def standing(self) -> Standing | None:
        """Which of the `contenders` is better out of sample, if any; None if there are none to compare.

        Raises
        ------
        MissingExtraError
            If ``arch`` is not installed.
        """
        return None if self.contenders is None or self.problems else self.contenders.standing()

    @property
    def in_sample(self) -> Metrics:
        """Mean over the folds of the chosen ones' in-sample figures; NaN only where all are."""
        frame = pd.DataFrame([fold.in_sample for fold in self.folds])
        return {str(name): float(value) for name, value in frame.mean().items()}

    @property
    def trials(self) -> int:
        """Trials of this study: combinations on train stretches."""
        return len(self.folds) * len(self.combinations)

    @property
    def efficiency(self) -> float:
        """Walk-forward efficiency: out-of-sample over in-sample annual return (Pardo, 2008).

        In sample is the mean over the folds of what was chosen. NaN unless that is positive. Above
        about 0.5 is what Pardo asks of a strategy; near or below 0 is a search that fitted noise.

        References
        ----------
        R. Pardo, "The Evaluation and Optimization of Trading Strategies", 2nd edition, Wiley, 2008,
        chapter 11.
        """
        return _ratio(self.metrics["annual_return"], self.in_sample["annual_return"])

    @property
    def question(self) -> Primary | None:
        """Whether the true Sharpe ratio is above 0, given all trials; None where there are `problems`."""
        if self.problems:
            return None
        return sharpe_question(
            self.returns,
            self.deflated_sharpe,
            n_trials=self.n_trials,
            trades=self.metrics["trades"],
            periods_per_year=periods_per_year(pd.DatetimeIndex(self.equity.index)),
        )

    @property
    def returns(self) -> pd.Series[float]:
        """Simple out-of-sample return of each bar; the first bar has none."""
        return self.equity.pct_change().iloc[1:]

    @property
    def verdicts(self) -> pd.DataFrame:
        """What the models told the folds' gates, by time; out-of-sample bars with an answer only.

        Columns: ``fold`` (its number), ``model`` (as it was asked for), then those of `FoldResult.verdicts`.
        """
        parts = [
            one.verdicts.assign(fold=one.fold.number, model=str(one.gate.advisor.model))
            for one in self.folds
            if one.verdicts is not None and isinstance(one.gate, Gate)
        ]
        if not parts:
            return pd.DataFrame(columns=["fold", "model", *COLUMNS])
        joined = pd.concat(parts)
        joined["answer"] = joined["answer"].astype(str)  # folds may have label sets of their own
        return joined.loc[joined["answer"] != "", ["fold", "model", *joined.columns.drop(["fold", "model"])]]

    @property
    def stability(self) -> tuple[ParameterStability, ...]:
        """How steady the choice of each parameter was that had more than one value to choose from."""
        names = sorted({name for settings in self.combinations for name in settings})
        found = (self._stability(name) for name in names)
        return tuple(one for one in found if one.values > 1)

    def _stability(self, name: str) -> ParameterStability:
        tried: list[Any] = []
        for settings in self.combinations:
            if settings[name] not in tried:
                tried.append(settings[name])
        chosen = tuple(fold.settings[name] for fold in self.folds)
        usual = max(chosen, key=lambda value: (chosen.count(value), -chosen.index(value)))
        changes = sum(a != b for a, b in itertools.pairwise(chosen))
        return ParameterStability(
            name=name,
            chosen=chosen,
            usual=usual,
            share=chosen.count(usual) / len(chosen),
            values=len(tried),
            changes=changes,
        )

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        return walk_forward_sections(self)

    def diagram(self, width: int = 80) -> str:
        """Draw the folds as text; see `fold_diagram`."""
        return fold_diagram([fold.fold for fold in self.folds], width)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a fold: its times, what it chose, and both its figures."""
        rows = []
        for one in self.folds:
            fold = one.fold
            row: dict[str, Any] = {"train_start": fold.train_start, "train_end": fold.train_end}
            row |= {"test_start": fold.test_start, "test_end": fold.test_end, **one.settings}
            row |= {f"in_{name}": value for name, value in one.in_sample.items()}
            row |= {f"out_{name}": value for name, value in one.out_of_sample.items()}
            rows.append({**row, "efficiency": one.efficiency, "deflated_sharpe": one.deflated_sharpe})
        return pd.DataFrame(rows, index=pd.Index([one.fold.number for one in self.folds], name="fold"))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``result.json``, and the folds, equity, trades and verdicts as CSV; each in one step.

        Raises
        ------
        ConfigError
            If one cannot be written, or another file of its name is there than bt_llm writes.
        """
        save_document(self, self.to_dict(), folder)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints: the same for the same study and ledger.

        NaN becomes None, and so does what `problems` forbid to conclude.
        """
        pbo = self.overfitting
        question = self.question
        concluded = {
            "question": question and plain(question.to_dict()),
            "efficiency": plain(self.efficiency),
            "probabilistic_sharpe": plain(self.probabilistic_sharpe),
            "deflated_sharpe": plain(self.deflated_sharpe),
            "overfitting": pbo and {"pbo": pbo.pbo, "loss_probability": pbo.loss_probability},
        }
        return {
            "strategy": self.name,
            "metric": str(self.metric),
            "folds": [fold.to_dict() for fold in self.folds],
            "out_of_sample": _figures(self.metrics),
            "in_sample": {name: plain(value) for name, value in self.in_sample.items()},
            **(dict.fromkeys(concluded) if self.problems else concluded),
            "standing": None if self.standing is None else self.standing.to_dict(),
            "n_trials": self.n_trials,
            "combinations": len(self.combinations),
            "stability": [one.to_dict() for one in self.stability],
            "models": [one.to_dict() for one in self.models],
            "warm_up": self.warm_up,
            "settings": {name: plain(value) for name, value in self.settings.items()},
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def save_document(
    result: WalkForwardResult, document: Mapping[str, Any], folder: str | os.PathLike[str]
) -> None:
    """Write what is said of a result as ``result.json``, and its tables as CSV."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    tables = {
        "folds.csv": result.to_frame().reset_index(),
        "equity.csv": result.equity.rename_axis("time").reset_index(),
        "trades.csv": result.trades,
        "verdicts.csv": result.verdicts.rename_axis("time").reset_index(),
    }
    save_results(folder, text, tables)


def _ratio(out: float, inside: float) -> float:
    return out / inside if inside > 0.0 else math.nan


def _figures(metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        name: int(value) if name in _COUNTS and not math.isnan(value) else plain(value)
        for name, value in metrics.items()
    }
