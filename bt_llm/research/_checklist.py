"""The reviewer's page: two checklists for backtests of language models, answered from a result alone.

The lines are in words of our own. What they rest on, and what of the two papers could be read, stands in
docs/reviewer.md: topics of Kong et al. (arXiv 2602.14233) are its five biases and the five parts of its
framework, and those of Yao and Zheng (arXiv 2606.08285) the columns of its evidence matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bt_llm.backtest import Section, sentences_section
from bt_llm.plain_json import plain
from bt_llm.research import _checklist_answers as answers

__all__ = ["CheckLine", "checklist", "checklist_sections"]

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
    outcome: answers.Outcome
    because: str
    command: str

    def to_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        found: dict[str, str] = plain(vars(self))
        return found


_LINES: tuple[tuple[str, str, str, Callable[[answers.Facts], answers.Said], str], ...] = (
    (
        KONG,
        "look-ahead bias, temporal sanitation",
        "Every bar that counts comes after all that the model has read.",
        answers.unread,
        "bt-llm run ... --after-cutoff",
    ),
    (
        KONG,
        "look-ahead bias, temporal sanitation",
        "Nothing in a prompt tells the model where in the past it is.",
        answers.masked,
        "bt-llm run ... --manifest run.json (template, identify)",
    ),
    (
        KONG,
        "look-ahead bias, temporal sanitation",
        "The model was probed for what it remembers of this market.",
        answers.probed,
        "bt-llm leakage -d FILE -m MODEL",
    ),
    (
        KONG,
        "survivorship bias, dynamic universe",
        "Symbols that left the universe are in it while they were there.",
        answers.survivors,
        "bt-llm run ... --each -d universe.csv (name, file, from, to)",
    ),
    (
        KONG,
        "narrative bias, rationale robustness",
        "Verdicts do not hang on one wording of the question.",
        answers.wording,
        "bt-llm multiverse -m MODEL",
    ),
    (
        KONG,
        "objective bias",
        "It is judged by money after costs, against the same strategy without the model.",
        answers.objective,
        "bt-llm run ...",
    ),
    (
        KONG,
        "epistemic calibration",
        "The test says what it could have found, and may say that it cannot tell.",
        answers.uncertain,
        "bt-llm test ...",
    ),
    (
        KONG,
        "epistemic calibration",
        "Everything that was tried is counted.",
        answers.counted,
        "bt-llm test ... --output FOLDER",
    ),
    (
        KONG,
        "cost bias, realistic implementation",
        "Trading costs something.",
        answers.charged,
        "bt-llm run ... --commission 0.0001 --slippage 0.0001",
    ),
    (
        YAO,
        "point-in-time controls",
        "No state and no order changes when only later bars do.",
        answers.known_in_time,
        "bt-llm leakage -d FILE -s FILE.py:CLASS",
    ),
    (
        YAO,
        "split transparency",
        "Stretches to choose on and to judge by are told apart, with their dates.",
        answers.split,
        "bt-llm walkforward STUDY.toml",
    ),
    (
        YAO,
        "held-out evaluation",
        "The record is out of sample.",
        answers.held_out,
        "bt-llm walkforward STUDY.toml",
    ),
    (
        YAO,
        "cost treatment",
        "Commission and slippage are stated, and above nothing.",
        answers.charged,
        "bt-llm run ... --commission 0.0001 --slippage 0.0001",
    ),
    (YAO, "turnover treatment", "Turnover is told.", answers.turnover, "bt-llm run ..."),
    (
        YAO,
        "execution semantics",
        "Orders are filled after the close that they were decided at, and none was refused.",
        answers.filled_later,
        "bt-llm run ...",
    ),
    (
        YAO,
        "universe definition",
        "What was traded is known by its content.",
        answers.universe,
        "bt-llm data FILE",
    ),
    (
        YAO,
        "artifact release",
        "Model and prompts are known by their content, so that others can recompute it.",
        answers.recomputable,
        "bt-llm run ... --manifest run.json; bt-llm reproduce run.json",
    ),
    (
        YAO,
        "artifact release",
        "Verdicts and manifest are published.",
        answers.released,
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
    facts = answers.Facts.of(result)
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
    """Yield what a page shows of the checklists of a result, at its end; nothing of what nobody traded."""
    if not answers.Facts.of(result).known:
        return
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
