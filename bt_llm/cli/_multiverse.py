"""``bt-llm multiverse``: one verdict asked for in every way that would have been as good."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bt_llm import advice as advising
from bt_llm import cache as caches
from bt_llm.cli._bar_options import BarsRead, StrategyOrStudy
from bt_llm.cli._budget import check_budget, check_budget_of_states
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import refuse_idle, takes_groups
from bt_llm.cli._interrupt import says_what_is_kept
from bt_llm.cli._options import Account, Asking, GateRule, Output, Spending, whole_number
from bt_llm.cli._output import deliver, progress_bar, say, say_assumed
from bt_llm.cli._places import file_to_write, folder_to_write
from bt_llm.exceptions import ConfigError
from bt_llm.writing import temporary_folder

__all__ = ["multiverse"]


@takes_groups
def multiverse(
    what: StrategyOrStudy,
    read: BarsRead,
    asking: Asking,
    rule: GateRule,
    account: Account,
    spending: Spending,
    out: Output,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A model, as for run; repeat it for several, or for one model's files in several "
            "quantisations. The first is the headline's. Default: smollm2.",
        ),
    ] = None,
    wording: Annotated[
        list[str] | None,
        typer.Option(
            "--wording",
            "-w",
            help="A template's name or file, yours too; repeatable, the first is the headline's. "
            "Default: the "
            "eight that come with bt_llm; 'all' beside your own adds them.",
        ),
    ] = None,
    label_orders: Annotated[
        bool, typer.Option(help="Put the list of answers in the instructions in every order.")
    ] = True,
    example_orders: Annotated[
        bool, typer.Option(help="Put the worked examples in every order, by their answers.")
    ] = False,
    random: Annotated[
        int,
        typer.Option(
            "--random", callback=whole_number(0, 20_000), help="Draws of the joint null; 0 for no test."
        ),
    ] = 199,
    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 is one for each CPU.")] = 1,
    pack: Annotated[
        Path | None,
        typer.Option("--pack", help="Take the verdicts from this pack: no model is asked, no cache read."),
    ] = None,
    write_pack: Annotated[
        Path | None,
        typer.Option(
            "--write-pack",
            help="Write all verdicts to this pack; a name in .gz is compressed.",
            callback=file_to_write,
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of a ledger, in which all specifications are counted.",
            callback=folder_to_write,
        ),
    ] = None,
) -> None:
    """Ask in every way that would have been as good, and see what hangs on the choice.

    A verdict depends on words that nobody chose with care: how the question is put, the order in which the
    answers are listed, whether raw probabilities are calibrated, which quantisation was at hand. Each
    combination is a specification. All of them judge every market state, and with a strategy and bars all of
    them trade:

    - on which states all agree, and how much changes with one choice alone;

    - what share of the variance each choice has, and what the answers depend on: exact, since all states are
    known;

    - the results of all specifications as a curve, with the headline's place in it;

    - one test: whether the median timing is better than luck, all answers moved to other times together.

    --calibration makes it one level; by default both. Without -s and -d the policies alone are examined.

    Example, half a minute, no model needed: bt-llm multiverse -s strategies/sma_cross.py:GatedSmaCross
    -d data/eurusd_hourly.csv --commission 0.00002 --pack data/demo_multiverse.jsonl.gz --report page.html

    Example, two quantisations and a wording of your own: bt-llm multiverse -m f16.gguf -m q4_0.gguf
    -w mine.toml -w all
    """
    from bt_llm.research import multiverse as run_multiverse
    from bt_llm.research import specifications_of

    if asking.template is not None:
        raise ConfigError(f"--template {asking.template}: a multiverse has several; give each by --wording")
    if bool(what.strategy) != bool(what.data):
        raise ConfigError("--strategy and --data: expected both of them, or none for the policies alone")
    if not what.data:
        for group in (what, read, rule, account):
            refuse_idle(group, "--strategy and --data")
        if ledger is not None:
            raise ConfigError(f"--output {ledger} without --strategy and --data: nothing is counted there")
    with _placed(asking, pack) as placed:
        gate = rule.gate(placed.config(model=(model or ["smollm2"])[0]))
        varied: dict[str, Any] = {
            "models": model or (),
            "templates": _templates(wording),
            "label_orders": label_orders,
            "example_orders": example_orders,
            "calibrations": ("grid", "none") if asking.calibration is None else (asking.calibration,),
        }
        configs = [one.config for one in specifications_of(gate.advisor, **varied)]
        say_doubts([gate.advisor], account)
        told: dict[str, Any] = {}
        market = None
        if what.data:
            market = what.market(read.unseen_by(*configs).format())
            say_assumed(account.assumed)
            told = {"params": what.params, "output": ledger, **account.settings()}
            check_budget(configs, market, spending)
        else:
            check_budget_of_states(configs, spending)
        with (
            says_what_is_kept(),
            progress_bar("asking") as asked,
            progress_bar("gates that know nothing") as nulls,
        ):
            found = run_multiverse(
                what.strategy or None,
                market,
                gate=gate,
                n=random,
                seed=seed,
                n_jobs=jobs,
                on_asked=asked,
                on_progress=nulls,
                **varied,
                **told,
            )
        if write_pack is not None:
            _write(write_pack, configs)
    deliver(found, market, **out.settings())


@contextlib.contextmanager
def _placed(asking: Asking, pack: Path | None) -> Iterator[Asking]:
    """Yield how the models are asked, with a pack's verdicts in place of the cache where one is given."""
    if pack is None:
        yield asking
        return
    with temporary_folder() as folder:
        with caches.VerdictCache(folder, "record") as imported:
            caches.import_pack(imported, pack)
        yield dataclasses.replace(asking, cache=folder, cache_mode="replay")


def _templates(wording: list[str] | None) -> list[Any] | None:
    """Return the wordings; ``all`` stands for those that ship, which are not given again."""
    from bt_llm.prompts import PromptTemplate, wordings

    if wording is None:
        return None
    own = [PromptTemplate.load(one) for one in wording if one != "all"]
    return own + [one for one in wordings() if "all" in wording and one not in own]


def _write(path: Path, configs: Sequence[advising.AdvisorConfig]) -> None:
    """Write the verdicts of all specifications to a pack."""
    keys: dict[str, None] = {}
    for config in configs:
        keys |= dict.fromkeys(advising.Advisor(config).keys(range(len(config.state_space))))
    first = configs[0]
    pack = caches.export_pack(caches.VerdictCache(first.cache_dir, first.cache_mode), path, list(keys))
    say(f"{path}: {len(pack.records):,} verdicts, {path.stat().st_size / 1000:,.0f} kB")
