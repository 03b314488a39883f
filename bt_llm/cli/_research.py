"""``bt-llm test`` and ``bt-llm compare``: does the model add anything, and which model adds more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_llm.cli._bar_options import BarsRead, StrategyOnBars, StrategyOrStudy
from bt_llm.cli._budget import budget_of, check_budget
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import takes_groups
from bt_llm.cli._interrupt import says_what_is_kept
from bt_llm.cli._options import (
    Account,
    Asking,
    GateRule,
    ModelsOption,
    OneModel,
    Output,
    Resampling,
    Spending,
    whole_number,
)
from bt_llm.cli._output import deliver, progress_bar, say, say_assumed
from bt_llm.cli._places import folder_to_write
from bt_llm.cli._trust import Trusting, TrustOption
from bt_llm.exceptions import ConfigError

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.backtest import Market, Universe
    from bt_llm.gates import FunctionGate, Gate
    from bt_llm.research import ModelComparison, PanelComparison

__all__ = ["compare", "run_test"]


LedgerOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        callback=folder_to_write,
        help="Folder of the ledger of trials; by default the study's, or one beside the stored verdicts.",
    ),
]


RuleOption = Annotated[
    str | None,
    typer.Option(
        "--rule",
        metavar="FILE.py[:NAME]",
        help="A rule to compare with, such as bt-llm explain --export writes; by default a plain one.",
    ),
]


@takes_groups
def run_test(
    what: StrategyOnBars,
    read: BarsRead,
    asking: OneModel,
    rule: GateRule,
    account: Account,
    chance: Resampling,
    spending: Spending,
    out: Output,
    random: Annotated[
        int,
        typer.Option(
            "--random", callback=whole_number(1, 20_000), help="Random gates; each is one backtest."
        ),
    ] = 200,
    shifts: Annotated[
        int | None,
        typer.Option(
            help="Gates with the same verdicts at other bars; by default 50 on one data, 0 on several."
        ),
    ] = None,
    per: Annotated[
        str,
        typer.Option(help="entry or bar: whether random gates have the answers to entries, or to all bars."),
    ] = "entry",
    strata: Annotated[
        bool,
        typer.Option(
            "--strata/--no-strata", help="Whether random gates answer alike in markets as volatile."
        ),
    ] = True,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 is one for each CPU.")] = 1,
    written: RuleOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Test whether the model's gate adds anything, against gates that know nothing.

    With --each the symbols are tested together: gates that know nothing give the same answers on other
    dates, the same dates in all symbols.

    Example: bt-llm test -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv --jobs 2
    """
    from bt_llm.backtest import Universe
    from bt_llm.research import bar_answers, gate_test, panel_test

    gate = rule.gate(asking.config())
    read = read.unseen_by(gate.advisor)
    if what.each and (shifts or per != "entry" or not strata):
        option = "--shifts" if shifts else "--per" if per != "entry" else "--no-strata"
        raise typer.BadParameter(
            f"{option} beside --each: gates that know nothing get the answers of "
            "other dates there; leave it out"
        )
    ruled = _written_rule(written, gate, what.each)
    universe = what.universe(read.format()) if what.each else None
    market = universe or what.market(read.format())
    settings = {"params": what.params, **chance.settings(), **account.settings()}
    say_assumed(account.assumed)
    say_doubts([gate.advisor], account)
    check_budget([gate.advisor], market, spending)
    with _asking([gate.advisor]):
        for one in Universe.of(market).values():
            bar_answers(one, gate)
    with says_what_is_kept(), progress_bar("running gates that know nothing") as update:
        update(0, random)
        folder = _ledger_folder(ledger, gate.advisor)
        told = {"n": random, "n_jobs": jobs, "on_progress": update, "output": folder, **settings}
        ways: dict[str, Any] = {"shifts": shifts, "per": per, "strata": strata, "rule": ruled}
        found = (
            gate_test(what.strategy, market, gate, **ways, **told)
            if universe is None
            else panel_test(what.strategy, universe, gate, **told)
        )
    deliver(found, market, **out.settings())


@takes_groups
def compare(
    context: typer.Context,
    what: StrategyOrStudy,
    read: BarsRead,
    asking: Asking,
    rule: GateRule,
    account: Account,
    chance: Resampling,
    spending: Spending,
    out: Output,
    study: Annotated[
        Path | None,
        typer.Argument(
            help=r"A study file (TOML) with \[compare], which says everything but where verdicts are kept."
        ),
    ] = None,
    model: ModelsOption = None,
    trust: TrustOption = False,
    written: RuleOption = None,
    horizon: Annotated[int, typer.Option(help="Bars from a verdict to what it is judged by.")] = 5,
    ledger: LedgerOption = None,
) -> None:
    """Compare models: the same strategy on the same bars, gated by one after the other.

    Example: bt-llm compare -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv
    -m smollm2 -m scripted:trend; or, from a file: bt-llm compare examples/walk_forward.toml
    """
    from bt_llm.research import compare_models, compare_on_panel, gates_by_name

    if study is not None:
        _check_only_study(context)
        found, market = _compare_study(study, asking.places(), spending, ledger, trust)
        deliver(found, market, **out.settings())
        return
    if not (what.strategy and what.data and model):
        wanted = {"--strategy": what.strategy, "--data": what.data, "--model": model}
        missing = ", ".join(name for name, value in wanted.items() if not value)
        raise typer.BadParameter(f"{missing} missing: give --strategy, --data and --model, or a study file")
    gate = rule.gate(asking.config())
    if len(model) < 2:
        raise ConfigError(
            f"--model {model[0]}: expected two models or more, such as -m smollm2 -m {model[0]}"
        )
    configs = [gate.advisor for gate in gates_by_name(model, gate).values()]
    read = read.unseen_by(*configs)
    universe = what.universe(read.format()) if what.each else None
    market = universe or what.market(read.format())
    settings = {"params": what.params, **chance.settings(), **account.settings()}
    say_assumed(account.assumed)
    say_doubts(configs, account)
    check_budget(configs, market, spending)
    folder = _ledger_folder(ledger, gate.advisor)
    ruled = _written_rule(written, gate, what.each)
    told = {"gate": gate, "horizon": horizon, "output": folder, **settings}
    with _asking(configs):
        compared = (
            compare_models(what.strategy, market, model, rule=ruled, **told)
            if universe is None
            else compare_on_panel(what.strategy, universe, model, **told)
        )
    deliver(compared, market, **out.settings())


def _written_rule(written: str | None, gate: Gate, each: bool) -> FunctionGate | None:
    """Return the gate of a rule in a file, which asks for entries as the model's gate does."""
    if written is None:
        return None
    if each:
        raise typer.BadParameter(f"--rule {written} beside --each: no rule is run on a panel; leave it out")
    from bt_llm.backtest import load_function
    from bt_llm.gates import FunctionGate

    named = written if not written.endswith(".py") else f"{written}:verdict"
    return FunctionGate(
        function=load_function(named),
        require=gate.require,
        on_missing=gate.on_missing,
        indicator=gate.indicator,
        advisor=gate.advisor,
    )


def _ledger_folder(given: Path | None, config: AdvisorConfig) -> Path | None:
    """Return where trials are counted; nowhere, which is said, if nothing is to be stored."""
    from bt_llm.cache import CacheMode, VerdictCache

    if given is not None:
        return given
    cache = VerdictCache(config.cache_dir, config.cache_mode)
    if cache.mode in (CacheMode.RECORD, CacheMode.REFRESH):
        return Path(cache.directory) / "trials"
    say(f"trials are not counted in cache mode {cache.mode}; --output FOLDER counts them")
    return None


_BESIDE_A_STUDY = {
    *("ledger", "study", "threads", "cache", "cache_mode", "trust"),
    *vars(Spending()),
    *vars(Output()),
}


def _check_only_study(context: typer.Context) -> None:
    """Refuse what the study file says itself: the same file gives the same result."""
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params if parameter.name}
    given = [
        option
        for name, option in options.items()
        if name not in _BESIDE_A_STUDY
        and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"{', '.join(given)} beside a study file: write it in the file, or give no file"
        )


def _compare_study(
    path: Path, where: dict[str, Any], spending: Spending, ledger: Path | None, trust: bool
) -> tuple[ModelComparison | PanelComparison, Market | Universe]:
    """Return what a study file compares, and its bars."""
    from bt_llm.advice import AdvisorConfig
    from bt_llm.gates import Gate
    from bt_llm.research import gates_by_name, load_study

    study = load_study(path, trust=Trusting(f"study {path}", trust))
    market = study.bars_read
    if study.compare is None:
        return study.run_compare(), market  # says what is missing
    study.check_trust(where.get("cache_mode"))
    gate = study.make_gate(**where) or Gate(advisor=AdvisorConfig(**where))
    configs = [gate.advisor for gate in gates_by_name(study.compare.models, gate).values()]
    say_doubts(configs, study.account)
    check_budget(configs, market, budget_of(study, spending))
    with _asking(configs):
        return study.run_compare(advisor=where, **({"output": ledger} if ledger else {})), market


@contextlib.contextmanager
def _asking(configs: list[AdvisorConfig]) -> Iterator[None]:
    """Show how far the models are, as they are asked."""
    from bt_llm.advice import telling

    models = ", ".join(str(config.model) for config in configs)
    with progress_bar(f"asking {models}") as update, telling(update):
        yield
