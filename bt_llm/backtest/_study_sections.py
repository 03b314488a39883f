"""What is shown of a strategy gated, ungated, and held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bt_llm.backtest._effect import DESCRIPTIVE
from bt_llm.backtest._findings import refusal
from bt_llm.backtest._sections import (
    Section,
    added_sections,
    bars_section,
    count,
    equity_section,
    metrics_section,
    percent,
    sentences_section,
    table_section,
    trades_section,
)
from bt_llm.plain_text import counted
from bt_llm.verdicts import LabelMasses

if TYPE_CHECKING:
    from bt_llm.backtest._result import BacktestResult
    from bt_llm.backtest._run import GateStudy

__all__ = ["advice_sections", "run_sections", "study_sections"]


def study_sections(study: GateStudy) -> Iterator[Section]:
    """Yield the parts of a study, the findings first."""
    yield sentences_section(_sentences(study))
    yield from bars_section(study.gated.notes)
    yield metrics_section({name: run.metrics for name, run in study.runs.items()})
    if study.effect is not None and not study.problems:
        yield from study.effect.sections()
    yield equity_section({name: run.equity for name, run in study.runs.items()})
    if study.gated.advice is not None:
        yield from advice_sections(study.gated.advice)
    yield trades_section(study.gated.trades)
    yield from added_sections(study)


def run_sections(run: BacktestResult) -> Iterator[Section]:
    """Yield the parts of one run, what it came to first."""
    made = (
        f"The strategy made {percent(run.metrics['return'])} in "
        f"{counted(run.metrics['trades'], 'trade')}. What a gate is worth takes a run without it: see "
        "gate_study."
    )
    yield sentences_section([*refusal(run.problems), made])
    yield from bars_section(run.notes)
    yield metrics_section({run.name: run.metrics})
    yield equity_section({run.name: run.equity})
    if run.advice is not None:
        yield from advice_sections(run.advice)
    yield trades_section(run.trades)
    yield from added_sections(run)


def advice_sections(advice: Mapping[str, Any]) -> Iterator[Section]:
    """Yield what a gate's model was asked and answered, and what the market did next."""
    if advice["questions"]:
        yield _questions(advice["questions"], advice["gate"])
    if advice["bars"]:
        yield from _verdicts(advice)


def _questions(asked: Mapping[str, Any], gate: Mapping[str, int]) -> Section:
    names = ("asked", "answers", "invalid", "missing", "cache_hits", "model_calls")
    rows = [[name.replace("_", " "), count(asked[name])] for name in names]
    text = f"Of its answers to entries {gate['allowed']} allowed and {gate['blocked']} blocked."
    return table_section("Questions of the gate", ["", ""], rows, text)


def _verdicts(advice: Mapping[str, Any]) -> Iterator[Section]:
    verdicts, forward, gate = advice["verdicts"], advice["forward"], advice["gate"]
    yield table_section(
        "Advice",
        ["", ""],
        [
            ["bars asked", f"{advice['asked']:,} of {advice['bars']:,}"],
            ["distinct prompts", f"{advice['distinct']:,} ({advice['cache_hits']:,} from the cache)"],
            ["model calls", f"{advice['model_calls']:,} in {advice['model_seconds']:.1f} s"],
            *_label_mass(advice["label_mass"]),
            ["entries", f"{gate['allowed']:,} allowed, {gate['blocked']:,} blocked"],
        ],
    )
    yield table_section(
        "Verdicts",
        ["verdict", "bars", "mean forward return", "hit rate"],
        [
            [
                name.replace("_", " "),
                count(bars),
                percent(forward[name]["mean"], 3) if name in forward else "-",
                percent(forward[name]["hit_rate"], 0) if name in forward else "-",
            ]
            for name, bars in verdicts.items()
        ],
        f"The forward return is that of the next {_bars(advice['horizon'])}.",
    )


def _label_mass(found: Mapping[str, Any] | None) -> list[list[str]]:
    return [["probability on the labels", str(LabelMasses(**found))]] if found else []


def _bars(number_of: int) -> str:
    return "bar" if number_of == 1 else f"{number_of} bars"


def _sentences(study: GateStudy) -> list[str]:
    gated, ungated, held = study.gated, study.ungated, study.buy_and_hold
    figures = (
        f"Gated, the strategy made {percent(gated.metrics['return'])} in "
        f"{counted(gated.metrics['trades'], 'trade')}; ungated {percent(ungated.metrics['return'])} in "
        f"{count(ungated.metrics['trades'])}; buying and holding {percent(held.metrics['return'])}."
    )
    if refused := refusal(study.problems):
        return [*refused, figures]
    found = [figures]
    if (question := study.question) is not None and study.effect is not None:
        found = [question.sentence, DESCRIPTIVE, figures, *study.effect.sentences]
    found.append("Whether gates that know nothing do as well is another question: see bt-llm test.")
    return found
