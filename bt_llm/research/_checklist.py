"""The reviewer's page: two checklists for backtests of language models, answered from a result alone.

The lines are in words of our own. What they rest on, and what of the two papers could be read, stands in
docs/reviewer.md: topics of Kong et al. (arXiv 2602.14233) are its five biases and the five parts of its
framework, and those of Yao and Zheng (arXiv 2606.08285) the columns of its evidence matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bt_llm.advice import AdvisorConfig, AnalystConfig
from bt_llm.backtest import BacktestResult, Panel, Section, sentences_section
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AskingGate
from bt_llm.models import split_name
from bt_llm.plain_json import plain
from bt_llm.research._cutoff_table import latest_cutoff
from bt_llm.research._cutoffs import models_asked
from bt_llm.research.leakage._result import LeakageResult
from bt_llm.research.walk_forward._panel_results import PanelWalkForwardResult
from bt_llm.research.walk_forward._results import WalkForwardResult

__all__ = ["CheckLine", "checklist", "checklist_sections"]

Outcome = Literal["passed", "failed", "not examined"]

KONG = "Kong et al., arXiv 2602.14233"
YAO = "Yao and Zheng, arXiv 2606.08285"


@dataclass(frozen=True, kw_only=True)
class CheckLine:
    """One line of a checklist.

    Attributes
    ----------
    source : str
        Whose checklist.
    topic : str
        What of it the line is about, as its authors call it.
    asked : str
        The line, in our words.
    outcome : {'passed', 'failed', 'not examined'}
        What the result says; what it does not know is not examined.
    because : str
        What in the result says so.
    command : str
        What examines or proves it.
    """

    source: str
    topic: str
    asked: str
    outcome: Outcome
    because: str
    command: str

    def to_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        found: dict[str, str] = plain(vars(self))
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Facts:
    """What of a result the lines are answered from."""

    result: Any
    runs: tuple[BacktestResult, ...]
    folds: tuple[WalkForwardResult, ...]
    leakage: LeakageResult | None

    @classmethod
    def of(cls, result: Any) -> _Facts:
        parts = list(_parts(result))
        return cls(
            result=result,
            runs=tuple(run for part in parts for run in getattr(part, "runs", {}).values()),
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
    def settings(self) -> list[dict[str, Any]]:
        """The accounts'."""
        return [run.settings for run in self.runs if run.asked] + [study.settings for study in self.folds]

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


def _parts(result: Any) -> Iterator[Any]:
    """Yield a result, or those of a panel's symbols."""
    if isinstance(result, Panel | PanelWalkForwardResult):
        yield from result.symbols.values()
    else:
        yield result


_Said = tuple[Outcome, str]


def _unread(facts: _Facts) -> _Said:
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


def _masked(facts: _Facts) -> _Said:
    """Whether prompts name neither market nor time, or what that recalls is taken out."""
    configs = [config for config in facts.configs if isinstance(config, AdvisorConfig)]
    if not configs or len(configs) < len(facts.configs):
        return "not examined", "no verdicts on market states alone" if facts.configs else "no model was asked"
    named = [config for config in configs if config.identify]
    if not named:
        return "passed", "no prompt names market or time, unless the template itself does"
    if all(config.reader == "contrast" for config in named):
        return "passed", f"{named[0].identify!r} is named, and what it gets alone is taken out"
    return "failed", f"prompts name {named[0].identify!r}"


def _probed(facts: _Facts) -> _Said:
    """Whether the model was probed for memory."""
    if facts.leakage is None:
        return "not examined", "no probe was run on this result"
    outcome: dict[bool | None, Outcome] = {True: "failed", False: "passed", None: "not examined"}
    return outcome[facts.leakage.found], facts.leakage.sentence


def _known_in_time(facts: _Facts) -> _Said:
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


def _survivors(facts: _Facts) -> _Said:
    """Whether symbols that left are in the universe."""
    return "not examined", "a result does not know which symbols there were at each date"


def _wording(facts: _Facts) -> _Said:
    """Whether verdicts hang on how the question is worded."""
    return "not examined", "one wording was asked in"


def _objective(facts: _Facts) -> _Said:
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


def _uncertain(facts: _Facts) -> _Said:
    """Whether there is a test that says what it could have found."""
    if facts.leakage is not None:
        return "passed", "each probe has p, the smallest p and what would have been found, or cannot tell"
    question = getattr(facts.result, "question", None)
    if question is not None:
        return "passed", question.sentence
    if getattr(facts.result, "standing", None) is not None:
        return "passed", "models are compared with intervals that hold together"
    return "not examined", "this result asks no question that has a p-value"


def _counted(facts: _Facts) -> _Said:
    """Whether every configuration that was tried is counted."""
    tried = getattr(facts.result, "tried", None)
    trials = getattr(facts.result, "n_trials", None) if tried is None else tried.n_trials
    if trials is None:
        return "not examined", "this result was written into no ledger of trials"
    return "passed", f"{trials} configurations are in the ledger"


def _charged(facts: _Facts) -> _Said:
    """Whether trading costs something."""
    if not facts.settings:
        return "not examined", "nothing was traded here"
    if any("commission" not in one and "slippage" not in one for one in facts.settings):
        return "not examined", "the account is set up by a function of the user's"
    costs = [(float(one.get("commission", 0.0)), float(one.get("slippage", 0.0))) for one in facts.settings]
    commission, slippage = min(costs)
    told = f"commission {commission:g}, slippage {slippage:g} of the traded value"
    return ("passed" if min(sum(pair) for pair in costs) > 0.0 else "failed"), told


def _turnover(facts: _Facts) -> _Said:
    """Whether turnover is told."""
    metrics = [run.metrics for run in facts.runs if run.asked] + [
        dict(study.metrics) for study in facts.folds
    ]
    found = [float(one["turnover"]) for one in metrics if one.get("turnover") is not None]
    found = [value for value in found if value == value]
    if not found:
        return "not examined", "there is no turnover"
    return "passed", f"turnover {max(found):,.1f} of the account's mean value"


def _filled_later(facts: _Facts) -> _Said:
    """Whether orders are decided at a close and filled after it, and none was refused."""
    accounts = [run for run in facts.runs if run.asked]
    if not accounts:
        return "not examined", "no single run is in this result"
    if any(run.setup.function is not None or run.setup.cerebro for run in accounts):
        return "not examined", "broker or Cerebro are set up by the user"
    if refused := [run for run in accounts if run.orders.get("refused")]:
        return "failed", f"the broker refused {refused[0].orders['refused']} orders"
    return "passed", "decided at a close, filled at the next bar's open or later; no order was refused"


def _split(facts: _Facts) -> _Said:
    """Whether stretches for choosing and for judging are told apart."""
    if not facts.folds:
        return "not examined", "nothing was cut into stretches to choose on and to judge by"
    folds = facts.folds[0].folds
    return "passed", f"{len(folds)} folds, each with its dates"


def _held_out(facts: _Facts) -> _Said:
    """Whether the record is out of sample."""
    if not facts.folds:
        return "not examined", "settings were not chosen here, or not on other bars than these"
    first, last = facts.folds[0].equity.index[[0, -1]]
    return "passed", f"the record from {first.date()} to {last.date()} is out of sample only"


def _universe(facts: _Facts) -> _Said:
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


def _recomputable(facts: _Facts) -> _Said:
    """Whether model and words are known by their content."""
    hashes = [one.identity.sha256 for run in facts.runs for one in run.asked]
    hashes += [model.sha256 for study in facts.folds for model in study.models]
    if not hashes:
        return "not examined", "no model and template are known by their hash here"
    return "passed", f"{_counting(hashes, 'model')} with the prompts, known by SHA-256"


def _released(facts: _Facts) -> _Said:
    """Whether others have it."""
    return "not examined", "a result does not know what was published of it"


_LINES: tuple[tuple[str, str, str, Callable[[_Facts], _Said], str], ...] = (
    (
        KONG,
        "look-ahead bias, temporal sanitation",
        "Every bar that counts comes after all that the model has read.",
        _unread,
        "bt-llm run ... --after-cutoff",
    ),
    (
        KONG,
        "look-ahead bias, temporal sanitation",
        "Nothing in a prompt tells the model where in the past it is.",
        _masked,
        "bt-llm run ... --manifest run.json (template, identify)",
    ),
    (
        KONG,
        "look-ahead bias, temporal sanitation",
        "The model was probed for what it remembers of this market.",
        _probed,
        "bt-llm leakage -d FILE -m MODEL",
    ),
    (
        KONG,
        "survivorship bias, dynamic universe",
        "Symbols that left the universe are in it while they were there.",
        _survivors,
        "bt-llm run ... --each -d universe.csv (name, file, from, to)",
    ),
    (
        KONG,
        "narrative bias, rationale robustness",
        "Verdicts do not hang on one wording of the question.",
        _wording,
        "bt-llm policy --template OTHER.toml",
    ),
    (
        KONG,
        "objective bias",
        "It is judged by money after costs, against the same strategy without the model.",
        _objective,
        "bt-llm run ...",
    ),
    (
        KONG,
        "epistemic calibration",
        "The test says what it could have found, and may say that it cannot tell.",
        _uncertain,
        "bt-llm test ...",
    ),
    (
        KONG,
        "epistemic calibration",
        "Everything that was tried is counted.",
        _counted,
        "bt-llm test ... --output FOLDER",
    ),
    (
        KONG,
        "cost bias, realistic implementation",
        "Trading costs something.",
        _charged,
        "bt-llm run ... --commission 0.0001 --slippage 0.0001",
    ),
    (
        YAO,
        "point-in-time controls",
        "No state and no order changes when only later bars do.",
        _known_in_time,
        "bt-llm leakage -d FILE -s FILE.py:CLASS",
    ),
    (
        YAO,
        "split transparency",
        "Stretches to choose on and to judge by are told apart, with their dates.",
        _split,
        "bt-llm walkforward STUDY.toml",
    ),
    (YAO, "held-out evaluation", "The record is out of sample.", _held_out, "bt-llm walkforward STUDY.toml"),
    (
        YAO,
        "cost treatment",
        "Commission and slippage are stated, and above nothing.",
        _charged,
        "bt-llm run ... --commission 0.0001 --slippage 0.0001",
    ),
    (YAO, "turnover treatment", "Turnover is told.", _turnover, "bt-llm run ..."),
    (
        YAO,
        "execution semantics",
        "Orders are filled after the close that they were decided at, and none was refused.",
        _filled_later,
        "bt-llm run ...",
    ),
    (YAO, "universe definition", "What was traded is known by its content.", _universe, "bt-llm data FILE"),
    (
        YAO,
        "artifact release",
        "Model and prompts are known by their content, so that others can recompute it.",
        _recomputable,
        "bt-llm run ... --manifest run.json; bt-llm reproduce run.json",
    ),
    (
        YAO,
        "artifact release",
        "Verdicts and manifest are published.",
        _released,
        "bt-llm cache export --run run.json PACK.jsonl",
    ),
)


def checklist(result: Any) -> tuple[CheckLine, ...]:
    """Return the lines of both checklists, answered from a result and from nothing else.

    Parameters
    ----------
    result : GateStudy, GateTest, ModelComparison, WalkForwardResult, LeakageResult, or one of a panel
        What there is a report for.

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate, gate_study
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> bars = load_bars(shipped("eurusd_hourly.csv"))[:300]
    >>> lines = checklist(gate_study(f"{shipped('sma_cross.py')}:GatedSmaCross", bars, gate))
    >>> [line.because for line in lines if line.outcome == "failed"][0]
    'commission 0, slippage 0 of the traded value'
    """
    facts = _Facts.of(result)
    found = []
    for source, topic, asked, answer, command in _LINES:
        outcome, because = answer(facts)
        because = because.removesuffix(".")
        found.append(
            CheckLine(
                source=source, topic=topic, asked=asked, outcome=outcome, because=because, command=command
            )
        )
    return tuple(found)


def checklist_sections(result: Any) -> Iterator[Section]:
    """Yield what a page shows of the checklists of a result, at its end."""
    lines = checklist(result)
    counts = {
        name: sum(line.outcome == name for line in lines) for name in ("passed", "failed", "not examined")
    }
    yield sentences_section(
        [
            f"Of {len(lines)} lines {counts['passed']} passed, {counts['failed']} failed, and "
            f"{counts['not examined']} "
            "were not examined by this result.",
            "The lines are in our words, on the topics of two reviews; they are answered from this "
            "result alone.",
        ],
        "What a reviewer asks",
    )
    for source in (KONG, YAO):
        chosen = [line.to_dict() for line in lines if line.source == source]
        yield Section(kind="checklist", title=f"Checklist: {source}", content=chosen)
