"""One verdict asked for in every way that would have been as good, and what hangs on the choice."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Backtest, BacktestResult, Bootstrap, Effect, Market, gate_study
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import LONG, SHORT, Gate, attached_gates
from bt_llm.models import Progress
from bt_llm.progress import shows_progress
from bt_llm.research._gate_runs import GateRuns
from bt_llm.research._kept_runs import KeptRuns, arrays_sha256, legs_sha256, made_of, place_of_runs
from bt_llm.research._moments import Moments
from bt_llm.research._null_runs import MOST_NULLS, Evaluate
from bt_llm.research._runs import Source, inspect_run
from bt_llm.research._timing import TimingOf
from bt_llm.research._tried import check_ledger, count_trials
from bt_llm.research._workers import check_jobs
from bt_llm.research.multiverses._joint import Entries, JointNull, joint_null
from bt_llm.research.multiverses._policies import Policies, ask_all
from bt_llm.research.multiverses._results import Multiverse, Traded
from bt_llm.research.multiverses._specifications import Model, Template, specifications_of
from bt_llm.settings import in_short, number, whole

__all__ = ["multiverse"]


@shows_progress("specifications")
def multiverse(
    strategy: Source | None = None,
    data: DataSource | None = None,
    *,
    gate: Gate | None = None,
    models: Sequence[Model] = (),
    templates: Sequence[Template] | None = None,
    label_orders: bool = True,
    example_orders: bool = False,
    calibrations: Sequence[str] = ("grid", "none"),
    n: int = 199,
    seed: int = 0,
    alpha: float = 0.05,
    n_jobs: int | None = None,
    on_asked: Progress | None = None,
    on_progress: Progress | None = None,
    evaluate: Evaluate | None = None,
    format: BarFormat | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Multiverse:
    """Ask a model in every way that would have been as good, over all market states, and trade each.

    A specification is one level of each dimension: model, wording, order of the labels, order of the
    examples, calibration. All combinations are examined. The first of each is the headline: what one would
    have reported.

    Parameters
    ----------
    strategy : type or str, optional
        See `run_backtest`. Without strategy and data the policies alone are examined.
    data : path, DataFrame, feed, mapping, sequence or Market, optional
        Bars; see `Market.of`.
    gate : Gate, optional
        What lets entries in, and how the model is asked; its template is not used. By default ``Gate()``.
    models : sequence of str or path, optional
        Models, or one model's files in several quantisations; by default the gate's.
    templates : sequence of str, path or PromptTemplate, optional
        Wordings whose answers mean the same; by default `bt_llm.prompts.wordings`.
    label_orders : bool
        Whether the list of answers in the instructions is put in every order.
    example_orders : bool
        Whether worked examples are.
    calibrations : sequence of {'grid', 'none'}
        By default both.
    n : int
        Draws of the joint null; 0 for none.
    seed : int
        Where their chance comes from.
    alpha : float
        Level of the test.
    n_jobs : int, optional
        Processes for null gates that Backtrader runs.
    on_asked, on_progress : callable, optional
        Called with (questions answered, in all), and with (null gates done, in all).
    evaluate : callable, optional
        As in `gate_test`.
    format : BarFormat, optional
        What is stated of the bars.
    output : path, optional
        Folder of a ledger, into which every specification that trades otherwise than those before is written
        as a trial; see `WalkForward.run`.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If only one of strategy and data is given, a level is there twice, wordings have different answers, or
        the state space is too large.
    PromptError
        If a template does not list its labels in one row, and orders are asked for.

    Notes
    -----
    Policies are finite, so that agreement, shares of variance and dependence on features are exact. The one
    test is of the median timing, by answers that are moved to other entries, the same in all specifications
    (see `bt_llm.research.multiverses._joint`). Which specification did best is no finding: it was looked for.

    References
    ----------
    S. Steegen et al., "Increasing Transparency Through a Multiverse Analysis", Perspectives on Psychological
    Science 11, 2016. U. Simonsohn, J. P. Simmons and L. D. Nelson, "Specification Curve Analysis", Nature
    Human Behaviour 4, 2020.

    Examples
    --------
    >>> from bt_llm.advice import AdvisorConfig
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:random", cache_mode="off"))
    >>> found = multiverse(gate=gate, templates=["market", "market/brief"], calibrations=["grid"])
    >>> len(found.policies.space), list(found.policies.by_dimension.index)
    (12, ['wording', 'labels'])
    """
    chosen = Gate() if gate is None else gate
    if not isinstance(chosen, Gate):
        raise ConfigError(f"gate={in_short(chosen)}: expected a Gate, whose model judges market states")
    if (strategy is None) != (data is None):
        raise ConfigError("strategy and data: expected both of them, or none for the policies alone")
    check_jobs(n_jobs)
    check_ledger(output)
    n, seed = whole("n", n, 0, MOST_NULLS), whole("seed", seed, 0)
    if not 0.0 < (alpha := number("alpha", alpha)) < 1.0:
        raise ConfigError(f"alpha={alpha!r}: expected a number between 0 and 1")
    market = None if data is None else Market.of(data, format=format)
    space = specifications_of(
        chosen.advisor,
        models=models,
        templates=templates,
        label_orders=label_orders,
        example_orders=example_orders,
        calibrations=calibrations,
    )
    policies = ask_all(space, on_asked)
    if strategy is None or market is None:
        return Multiverse(policies=policies)
    traded = _Trader(strategy, market, chosen, policies, settings).traded(
        n=n, seed=seed, alpha=alpha, n_jobs=n_jobs, on_progress=on_progress, evaluate=evaluate, output=output
    )
    return Multiverse(policies=policies, traded=traded)


class _Trader:
    """Runs a strategy with the gate of every specification; those that answer alike are one run."""

    def __init__(
        self,
        strategy: Source,
        market: Market,
        gate: Gate,
        policies: Policies,
        settings: dict[str, Any],
    ) -> None:
        self.strategy, self.market, self.settings = strategy, market, settings
        self.gates = [gate.with_config(one.config) for one in policies.space]
        self.study = gate_study(strategy, market, self.gates[0], **settings)
        self.asked: set[tuple[int, int]] = set()
        self._look(gate.baseline())
        told = [
            tuple(
                one.allows(side, verdict.worth, verdict.confidence)
                for side in (LONG, SHORT)
                for verdict in policies.verdicts(number)
            )
            for number, one in enumerate(self.gates)
        ]
        firsts: dict[tuple[bool, ...], int] = {}
        self.alike = [firsts.setdefault(one, number) for number, one in enumerate(told)]
        self.runs: dict[int, BacktestResult] = {}
        for first in firsts.values():
            self.runs[first] = self._look(self.gates[first])

    def _look(self, gate: Any) -> BacktestResult:
        """Run the strategy, and note which entries it asked about."""
        result, ran = inspect_run(self.strategy, self.market, gate=gate, **self.settings)
        self.asked |= {(told.bar, told.side) for one in attached_gates(ran) for told in one.log}
        return result

    def traded(
        self,
        *,
        n: int,
        seed: int,
        alpha: float,
        n_jobs: int | None,
        on_progress: Progress | None,
        evaluate: Evaluate | None,
        output: str | os.PathLike[str] | None,
    ) -> Traded:
        study = self.study
        effect = Effect.of(study.gated, study.ungated, self.market, Bootstrap(resamples=99))
        joint, how = None, ""
        if effect.ungated is None:
            how = effect.reason
        elif len(self.market) > 1:
            how = "there are several datas, whose answers have no one order"
        elif not self.asked:
            how = "the strategy asked its gate for no entry"
        elif n:
            timing = TimingOf(ungated=effect.ungated, market=self.market)
            entries = self._entries()
            kept = self._kept(entries, timing, output, n, seed)
            runs = GateRuns(
                self.strategy,
                self.market,
                n_jobs=n_jobs,
                total=n * len(self.runs),
                on_progress=on_progress,
                timing=timing,
                kept=kept,
                **self.settings,
            )
            scores = {first: timing(run)["timing"] for first, run in self.runs.items()}
            errors = {first: timing.error(run) for first, run in self.runs.items()}
            with kept:
                joint = joint_null(
                    entries,
                    np.array([scores[first] for first in self.alike]),
                    evaluate or runs,
                    moments=Moments.of(self.market, self.gates[0].warm_up_bars),
                    trades=study.ungated.trades,
                    n=n,
                    seed=seed,
                    warm_up=self.gates[0].warm_up_bars,
                    alpha=alpha,
                    errors=np.array([errors[first] for first in self.alike]),
                )
            how = runs.how.sentence
        tried = None
        if output is not None:
            trials = {
                f"specification {number + 1}": (run, self.gates[number]) for number, run in self.runs.items()
            }
            tried = count_trials(output, self.strategy, self.market, trials, self.settings)
        return Traded(
            gated=dataclasses.replace(study.gated, name="headline"),
            ungated=study.ungated,
            buy_and_hold=study.buy_and_hold,
            table=self._table(joint),
            joint=joint,
            how=how,
            problems=self._problems(),
            tried=tried,
        )

    def _kept(
        self,
        entries: Entries,
        timing: TimingOf,
        output: str | os.PathLike[str] | None,
        n: int,
        seed: int,
    ) -> KeptRuns:
        """Return where the null gates that Backtrader ran are kept until this has ended."""

        def made() -> Any:
            backtest = Backtest.of(self.strategy, self.market, **self.settings)
            answers = arrays_sha256(entries.times, entries.sides, entries.allowed)
            return {"runs": made_of(backtest), "multiverse": [answers, legs_sha256(timing.ungated), seed]}

        return KeptRuns(place_of_runs(self.gates[0], output), made, total=n * len(self.runs))

    def _problems(self) -> tuple[str, ...]:
        """Return what is wrong with accounts; that a specification let no entry in is a finding."""
        lines: dict[str, int] = {}
        for first, run in sorted(self.runs.items()):
            for line in run.problems:
                if line not in run.gate_problems:
                    lines.setdefault(line, first)
        found = [f"specification {first + 1}: {line}" for line, first in lines.items()]
        return tuple([*(f"ungated: {line}" for line in self.study.ungated.problems), *found])

    def _table(self, joint: JointNull | None) -> pd.DataFrame:
        rows = []
        for first in self.alike:
            metrics = self.runs[first].metrics
            told = {
                name: metrics[name] for name in ("return", "sharpe", "max_drawdown", "trades", "win_rate")
            }
            rows.append({"pnl": metrics["final_value"] - self.runs[first].settings["cash"], **told})
        frame = pd.DataFrame(rows)
        if joint is not None:
            frame["timing"], frame["p_value"] = joint.observed, joint.p_values
        return frame

    def _entries(self) -> Entries:
        """Return the entries that any run asked about, and what each specification answers to them."""
        asked = sorted(self.asked)
        bars, sides = (np.array([one[at] for one in asked], dtype=np.int64) for at in (0, 1))
        ((data, told),) = self.market.bars.items()
        columns = {first: self._answers(first, bars, sides) for first in self.runs}
        allowed = np.stack([columns[first] for first in self.alike], axis=1)
        return Entries(data=data, times=told.numbers[bars - 1], sides=sides, allowed=allowed)

    def _answers(self, number: int, bars: NDArray[np.int64], sides: NDArray[np.int64]) -> NDArray[np.bool_]:
        said = next(iter(self.runs[number].verdicts.values()))
        worths, sure = said["worth"].to_numpy()[bars - 1], said["confidence"].to_numpy()[bars - 1]
        gate = self.gates[number]
        told = zip(sides.tolist(), worths.tolist(), sure.tolist(), strict=True)
        return np.array([gate.allows(*one) for one in told], dtype=bool)
