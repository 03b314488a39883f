"""Does the gate add anything on many symbols? Its pooled result among those of gates that know nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bt_llm.backtest import (
    Backtest,
    Bootstrap,
    Member,
    Panel,
    Universe,
    UniverseSource,
    each_member,
    effect_between,
    gate_study,
    panel_worth,
    run_backtest,
    sides_in,
    strategy_class,
)
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import Describer, EntryGate, check_gate
from bt_llm.models import Progress
from bt_llm.plain_text import counted
from bt_llm.progress import shows_progress
from bt_llm.research._against import against
from bt_llm.research._kept_runs import KeptRuns, made_of, place_of_runs
from bt_llm.research._null_runs import MOST_NULLS, dated_answers
from bt_llm.research._panel_nulls import EvaluatePanel, joint_null_runs
from bt_llm.research._panel_test_result import PanelTest, SymbolTest
from bt_llm.research._runs import Source, plain_rule
from bt_llm.research._tried import check_ledger, count_panel_trials
from bt_llm.settings import number as setting
from bt_llm.settings import whole

__all__ = ["panel_test"]


@shows_progress("gates that know nothing")
def panel_test(
    strategy: Source,
    universe: UniverseSource,
    gate: EntryGate,
    *,
    weights: Mapping[str, float] | None = None,
    n: int = 200,
    seed: int = 0,
    n_jobs: int | None = None,
    rule: EntryGate | None = None,
    alpha: float = 0.05,
    resamples: int = 2000,
    block_length: int | None = None,
    on_progress: Progress | None = None,
    evaluate: EvaluatePanel | None = None,
    format: BarFormat | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> PanelTest:
    """Test whether a gate adds anything to a strategy on many symbols, against gates that know nothing.

    The one question is whether the pooled Sharpe ratio stands out among those of null gates, and by its
    timing. A null gate gives the answers that the gate gave on other dates: blocks of dates change places,
    the same in all symbols.

    Parameters
    ----------
    strategy, gate, n, seed, n_jobs, rule, alpha, resamples, block_length, on_progress, format, output
        As in `gate_test`; the pooled run is one trial.
    universe, weights
        As in `panel_study`.
    evaluate : callable, optional
        Runs the null gates instead of Backtrader; see `EvaluatePanel`.
    **settings
        Other arguments of `run_backtest`, the same for every symbol.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    DataError
        If the gate is asked for no entry on any symbol, or no symbol has bars enough.

    Notes
    -----
    Blocks hold at least twice the dates that an answer or a trade lasts on average, and `block_length` bars.
    They change places among blocks of like volatility only. A symbol with a shorter history than the others
    gets the dates that it has, in the order in which they come.

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> files = {name: load_bars(shipped(f"{name}.csv"))[-400:] for name in ("sp500_daily", "wti_daily")}
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> test = panel_test(f"{shipped('rsi_reversion.py')}:GatedRsiReversion", files, gate, n=4, resamples=99)
    >>> test.random.pooled.n, test.question.cannot_tell == "", list(test.random.symbols.index)
    (4, False, ['sp500_daily', 'wti_daily'])
    """
    n, resamples = whole("n", n, 1, MOST_NULLS), whole("resamples", resamples, 1)
    seed = whole("seed", seed, 0)
    check_ledger(output)
    if not 0.0 < (alpha := setting("alpha", alpha)) < 1.0:
        raise ConfigError(f"alpha={alpha!r}: expected a number between 0 and 1")
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    chosen = strategy_class(strategy)
    symbols = Universe.of(universe, weights=weights, format=format)
    gate = check_gate(gate)
    ruling = plain_rule(gate, rule if rule is None else check_gate(rule))
    answers = {}

    def run(name: str, member: Member) -> SymbolTest:
        how = member.run_settings(settings)
        study = gate_study(chosen, member.market, gate, **how)
        told = answers[name] = dated_answers(chosen, member.market, gate, **how)
        ruled = ruling and run_backtest(chosen, member.market, gate=ruling, name="rule", **how)
        return SymbolTest(
            study=study,
            rule=ruled if ruled and ruled.equity.index[0] == study.gated.equity.index[0] else None,
            asked=sum(len(one.allowed) for one in told),
            allowed=sum(sum(one.allowed) for one in told),
        )

    found, left_out = each_member(symbols, run)
    if not any(one.asked for one in found.values()):
        raise DataError(
            f"{chosen.__name__} asked its gate for no entry on {counted(len(found), 'symbol')}: nothing to "
            "test"
        )
    kept = {name: symbols.weights[name] for name in found}
    panel = Panel[SymbolTest](symbols=found, weights=kept)
    gated, ungated = panel.runs["gated"], panel.runs["ungated"]
    compared = {name: run for name, run in panel.runs.items() if name != "buy_and_hold"}
    sound = not any(run.ruined for run in compared.values())
    over_ungated = effect_between(gated, ungated, bootstrap) if sound else None
    length = block_length or (over_ungated.pooled.block_length if over_ungated else 1)

    def made() -> Any:
        members = [(name, symbols.members[name]) for name in found]
        runs = [
            [name, made_of(Backtest.of(chosen, one.market, **one.run_settings(settings)))]
            for name, one in members
        ]
        return {"runs": runs, "answers": Describer().describe("answers", answers), "seed": seed}

    with KeptRuns(place_of_runs(gate, output), made, total=n * len(found)) as keeping:
        random = joint_null_runs(
            chosen,
            symbols,
            gated,
            panel.runs["buy_and_hold"],
            answers,
            warm_up=gate.warm_up_bars,
            n=n,
            seed=seed,
            block_bars=length,
            n_jobs=n_jobs,
            on_progress=on_progress,
            evaluate=evaluate,
            kept=keeping,
            settings=settings,
        )
        runs = {"gated": (gated, gate)}
        return PanelTest(
            symbols=found,
            weights=kept,
            left_out=left_out,
            random=random,
            against=against(
                {name: run.returns for name, run in compared.items()},
                bootstrap,
                {name: run.trades for name, run in compared.items()},
            )
            if sound
            else None,
            over_ungated=over_ungated,
            worth=panel_worth(
                gated, ungated, {name: sides_in(one.study.effect) for name, one in found.items()}, bootstrap
            ),
            alpha=alpha,
            tried=None if output is None else count_panel_trials(output, chosen, symbols, runs),
        )
