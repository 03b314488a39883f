"""What the lines of the checklists are answered from: a result, and what it says on each topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pandas as pd

from bt_llm.advice import AdvisorConfig, AnalystConfig
from bt_llm.backtest import BacktestResult, Panel
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AskingGate
from bt_llm.models import split_name
from bt_llm.plain_text import counted as counted_of
from bt_llm.research._cutoff_table import latest_cutoff
from bt_llm.research._cutoffs import models_asked
from bt_llm.research.leakage._result import LeakageResult
from bt_llm.research.multiverses._results import Multiverse
from bt_llm.research.walk_forward._panel_results import PanelWalkForwardResult
from bt_llm.research.walk_forward._results import WalkForwardResult

__all__ = ["Facts", "Outcome", "Said"]

Outcome: TypeAlias = Literal["passed", "failed", "not examined"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """What of a result the lines are answered from."""

    result: Any
    runs: tuple[BacktestResult, ...]
    folds: tuple[WalkForwardResult, ...]
    leakage: LeakageResult | None

    @classmethod
    def of(cls, result: Any) -> Facts:
        parts = list(_parts(result))
        return cls(
            result=result,
            runs=tuple(run for part in parts for run in _runs(part)),
            folds=tuple(part for part in parts if isinstance(part, WalkForwardResult)),
            leakage=result if isinstance(result, LeakageResult) else None,
        )

    @property
    def configs(self) -> list[AdvisorConfig | AnalystConfig]:
        """How models were asked, each once."""
        gates = [run.settings.get("params", {}).get("gate") for run in self.runs]
        found = [gate.config for gate in gates if isinstance(gate, AskingGate)]
        found += [model.advisor for study in self.folds for model in study.models]
        return list(dict.fromkeys(found))

    @property
    def known(self) -> bool:
        """Whether there is anything that a line could be answered from."""
        return bool(self.runs or self.folds or self.leakage is not None)

    @property
    def traded(self) -> list[BacktestResult]:
        """The runs that asked a model; all of them where none did."""
        return [run for run in self.runs if run.asked] or list(self.runs)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The accounts'."""
        return [run.settings for run in self.traded] + [study.settings for study in self.folds]

    @property
    def first(self) -> pd.Timestamp | None:
        """The first bar whose return counts."""
        curves = [run.equity for run in self.runs] + [study.equity for study in self.folds]
        times = [curve.index[0] for curve in curves if len(curve)]
        return min(times) if times else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against any conclusion."""
        found: tuple[str, ...] = tuple(getattr(self.result, "problems", ()) or ())
        return found


def _runs(part: Any) -> Iterator[BacktestResult]:
    """Yield the single runs of a result, itself if it is one."""
    if isinstance(part, BacktestResult):
        yield part
        return
    runs = getattr(part, "runs", None)
    for run in runs.values() if isinstance(runs, Mapping) else ():
        if isinstance(run, BacktestResult):
            yield run


def _parts(result: Any) -> Iterator[Any]:
    """Yield a result, or those of a panel's symbols."""
    if isinstance(result, Panel | PanelWalkForwardResult):
        yield from result.symbols.values()
    else:
        yield result


Said: TypeAlias = tuple[Outcome, str]
"""An outcome, and what in the result says so."""


def unread(facts: Facts) -> Said:
    """Whether all bars that count came after what the models have read."""
    configs = [c for c in facts.configs if split_name(str(c.model))[0] != "scripted" or c.fallbacks]
    if facts.first is None:
        return "not examined", "nothing was traded here"
    if not facts.configs:
        return "not examined", "no model was asked"
    if not configs:
        return "passed", "a scripted model has read nothing"
    try:
        last, why = latest_cutoff(models_asked(*configs))
    except ConfigError:
        return "not examined", f"the cut-off of {configs[0].model} is not known"
    told = f"the first bar that counts is {facts.first.date()}, and {why[0]}"
    return ("passed" if facts.first.date() > last else "failed"), told


def masked(facts: Facts) -> Said:
    """Whether prompts name neither market nor time, or what that recalls is taken out."""
    configs = [config for config in facts.configs if isinstance(config, AdvisorConfig)]
    if facts.leakage is not None:
        return "not examined", "the probes name market and time themselves"
    if not configs or len(configs) < len(facts.configs):
        return "not examined", "no verdicts on market states alone" if facts.configs else "no model was asked"
    named = [config for config in configs if config.identify]
    if not named:
        return "passed", "no prompt names market or time, unless the template itself does"
    if all(config.reader == "contrast" for config in named):
        return "passed", f"{named[0].identify!r} is named, and what it gets alone is taken out"
    return "failed", f"prompts name {named[0].identify!r}"


def probed(facts: Facts) -> Said:
    """Whether the model was probed for memory."""
    if facts.leakage is None:
        return "not examined", "no probe was run on this result"
    outcome: dict[bool | None, Outcome] = {True: "failed", False: "passed", None: "not examined"}
    return outcome[facts.leakage.found], facts.leakage.sentence


def known_in_time(facts: Facts) -> Said:
    """Whether what a verdict is told changes when only later bars do."""
    if facts.leakage is None:
        return "not examined", "later bars were not changed to see whether anything before them changes"
    future = facts.leakage.probes[0]
    if future.exact:
        return "failed", future.sentence
    looked = facts.leakage.strategy
    if looked is not None:
        return ("passed" if looked.clean else "failed"), looked.sentence
    return "passed", "no state changed when only later bars did; the strategy was not looked at"


def survivors(facts: Facts) -> Said:
    """Whether symbols that left are in the universe."""
    return "not examined", "a result does not know which symbols there were at each date"


def wording(facts: Facts) -> Said:
    """Whether verdicts hang on how the question is worded."""
    if not isinstance(facts.result, Multiverse):
        return "not examined", "one wording was asked in"
    changed = facts.result.policies.by_dimension
    if "wording" not in changed.index:
        return "not examined", "one wording was asked in"
    share, most = (float(changed[name].to_dict()["wording"]) for name in ("changed", "most"))
    told = f"another wording alone changes {share:.0%} of the answers on average, and {most:.0%} at most"
    return ("failed" if most > 0.0 else "passed"), told


def objective(facts: Facts) -> Said:
    """Whether it is judged by money after costs against the same strategy without the model."""
    names = set(getattr(facts.result, "runs", {}))
    if facts.problems:
        return "failed", f"no conclusion: {facts.problems[0]}"
    if facts.folds:
        compared = any(study.contenders is not None for study in facts.folds)
        return (
            ("passed", "out of sample, with and without the gate")
            if compared
            else ("not examined", "no gate")
        )
    if "ungated" in names and len(names) > 1:
        return "passed", "the same strategy ran without the model on the same bars"
    return "not examined", "no strategy was run with and without the model"


def uncertain(facts: Facts) -> Said:
    """Whether there is a test that says what it could have found."""
    if facts.leakage is not None:
        return "passed", "each probe has p, the smallest p and what would have been found, or cannot tell"
    question = getattr(facts.result, "question", None)
    if isinstance(facts.result, Multiverse) and facts.result.traded and facts.result.traded.joint:
        question = facts.result.traded.joint.question
    if question is not None:
        return "passed", question.sentence
    if getattr(facts.result, "standing", None) is not None:
        return "passed", "models are compared with intervals that hold together"
    return "not examined", "this result asks no question that has a p-value"


def counted(facts: Facts) -> Said:
    """Whether every configuration that was tried is counted."""
    traded = facts.result.traded if isinstance(facts.result, Multiverse) else None
    tried = getattr(traded or facts.result, "tried", None)
    trials = getattr(facts.result, "n_trials", None) if tried is None else tried.n_trials
    if trials is None:
        return "not examined", "this result was written into no ledger of trials"
    return "passed", f"{trials} configurations are in the ledger"


def charged(facts: Facts) -> Said:
    """Whether trading costs something."""
    if not facts.settings:
        return "not examined", "nothing was traded here"
    if any("commission" not in one and "slippage" not in one for one in facts.settings):
        return "not examined", "the account is set up by a function of the user's"
    costs = [(float(one.get("commission", 0.0)), float(one.get("slippage", 0.0))) for one in facts.settings]
    commission, slippage = min(costs)
    told = f"commission {commission:g}, slippage {slippage:g} of the traded value"
    return ("passed" if min(sum(pair) for pair in costs) > 0.0 else "failed"), told


def turnover(facts: Facts) -> Said:
    """Whether turnover is told."""
    metrics = [run.metrics for run in facts.traded] + [dict(study.metrics) for study in facts.folds]
    found = [float(one["turnover"]) for one in metrics if one.get("turnover") is not None]
    found = [value for value in found if value == value]
    if not found:
        return "not examined", "there is no turnover"
    return "passed", f"turnover {max(found):,.1f} of the account's mean value"


def filled_later(facts: Facts) -> Said:
    """Whether orders are decided at a close and filled after it, and none was refused."""
    accounts = facts.traded
    if not accounts:
        return "not examined", "no single run is in this result"
    if any(run.setup.function is not None or run.setup.cerebro for run in accounts):
        return "not examined", "broker or Cerebro are set up by the user"
    if refused := [run for run in accounts if run.orders.get("refused")]:
        return "failed", f"the broker refused {counted_of(refused[0].orders['refused'], 'order')}"
    return "passed", "decided at a close, filled at the next bar's open or later; no order was refused"


def split(facts: Facts) -> Said:
    """Whether stretches for choosing and for judging are told apart."""
    if not facts.folds:
        return "not examined", "nothing was cut into stretches to choose on and to judge by"
    folds = facts.folds[0].folds
    return "passed", f"{counted_of(len(folds), 'fold')}, each with its dates"


def held_out(facts: Facts) -> Said:
    """Whether the record is out of sample."""
    if not facts.folds:
        return "not examined", "settings were not chosen here, or not on other bars than these"
    first, last = facts.folds[0].equity.index[[0, -1]]
    return "passed", f"the record from {first.date()} to {last.date()} is out of sample only"


def universe(facts: Facts) -> Said:
    """Whether it is said what was traded, by content."""
    hashes = [run.market["sha256"] for run in facts.runs if run.market.get("sha256")]
    hashes += [study.settings["bars_sha256"] for study in facts.folds if "bars_sha256" in study.settings]
    if facts.leakage is not None:
        hashes.append(str(facts.leakage.settings["SHA-256 of the bars"]))
    if not hashes:
        return "not examined", "no hash of the bars is in this result"
    return "passed", f"bars of {_counting(hashes, 'data set')}, known by SHA-256"


def _counting(hashes: list[str], what: str) -> str:
    distinct = len(set(hashes))
    return f"one {what}" if distinct == 1 else f"{distinct} {what}s"


def recomputable(facts: Facts) -> Said:
    """Whether model and words are known by their content."""
    hashes = [one.identity.sha256 for run in facts.runs for one in run.asked]
    hashes += [model.sha256 for study in facts.folds for model in study.models]
    if not hashes:
        return "not examined", "no model and template are known by their hash here"
    return "passed", f"{_counting(hashes, 'model')} with the prompts, known by SHA-256"


def released(facts: Facts) -> Said:
    """Whether others have it."""
    return "not examined", "a result does not know what was published of it"
