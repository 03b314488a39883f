"""What is shown of a walk-forward study: folds, choices, and what it all comes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bt_llm.backtest import (
    DESCRIPTIVE,
    Section,
    added_sections,
    bars_section,
    equity_section,
    metrics_section,
    number,
    percent,
    refusal,
    sentences_section,
    table_of,
    table_section,
    trades_section,
)
from bt_llm.plain_text import counted

if TYPE_CHECKING:
    from bt_llm.research.walk_forward._results import WalkForwardResult

__all__ = ["walk_forward_sections"]


def walk_forward_sections(result: WalkForwardResult) -> Iterator[Section]:
    """Yield the parts of a study, the findings first."""
    yield sentences_section(_sentences(result))
    yield from bars_section(result.notes)
    yield metrics_section(
        {"in sample (mean of folds)": result.in_sample, "out of sample (joined)": result.metrics}
    )
    yield _folds(result)
    if result.stability:
        yield _stability(result)
    if not result.problems:
        yield _judgement(result)
        if result.standing is not None:
            yield from result.standing.sections()
    text = "The out-of-sample stretches joined, with no position between."
    yield equity_section({"out of sample": result.equity}, text)
    yield trades_section(result.trades)
    yield from added_sections(result)


def _folds(result: WalkForwardResult) -> Section:
    searched = [one.name for one in result.stability]
    rows = [
        [
            str(one.fold.number),
            *(str(one.settings[name]) for name in searched),
            number(one.in_sample["sharpe"]),
            number(one.out_of_sample["sharpe"]),
            percent(one.in_sample["annual_return"], 1),
            percent(one.out_of_sample["annual_return"], 1),
            str(int(one.out_of_sample["trades"])),
        ]
        for one in result.folds
    ]
    names = [name.rpartition(".")[2] for name in searched]
    figures = ["Sharpe in", "out", "return a year in", "out", "trades out"]
    return Section(
        kind="folds",
        title=f"Folds, chosen by {result.metric}",
        text="Each fold chose on its in-sample stretch and traded the next. Only the latter counts.",
        table=table_of(["fold", *names, *figures], rows),
        content=result.folds,
    )


def _stability(result: WalkForwardResult) -> Section:
    rows = [
        [one.name, str(one.usual), percent(one.share, 0), percent(1.0 / one.values, 0), str(one.changes)]
        for one in result.stability
    ]
    return Section(
        kind="stability",
        title="Parameter stability",
        text="What each fold chose. A real edge tends to be found with the same settings again.",
        table=table_of(["parameter", "usual choice", "folds that chose it", "by lot", "changes"], rows),
        content={"folds": [one.fold.number for one in result.folds], "parameters": result.stability},
    )


def _judgement(result: WalkForwardResult) -> Section:
    pbo = result.overfitting
    tried = f"{result.n_trials} ({len(result.combinations)} here, in {counted(len(result.folds), 'fold')})"
    return table_section(
        "What it is worth",
        ["", ""],
        [
            ["walk-forward efficiency", percent(result.efficiency, 0)],
            ["configurations tried", tried],
            ["probability that the Sharpe ratio is above 0", percent(result.probabilistic_sharpe, 0)],
            [
                f"the same, as the best of {result.n_trials} trials (DSR)",
                percent(result.deflated_sharpe, 0),
            ],
            ["probability of backtest overfitting (PBO)", "-" if pbo is None else percent(pbo.pbo, 0)],
        ],
    )


def _sentences(result: WalkForwardResult) -> list[str]:
    metrics, pbo = result.metrics, result.overfitting
    figures = (
        f"Out of sample, {counted(len(result.folds), 'fold')} made {percent(metrics['return'])} in "
        f"{counted(metrics['trades'], 'trade')}, with a Sharpe ratio of {number(metrics['sharpe'])}; in "
        f"sample it was {number(result.in_sample['sharpe'])} on average."
    )
    if refused := refusal(result.problems):
        return [*refused, figures]
    asked = result.question
    compared = [] if result.standing is None else result.standing.sentences
    found = [figures] if asked is None else [asked.sentence, *compared, DESCRIPTIVE, figures]
    found.append(
        f"Walk-forward efficiency, the share of the in-sample return a year that was left out of sample, is "
        f"{percent(result.efficiency, 0)}; a search that fitted noise has one near 0 or below."
        if result.efficiency == result.efficiency
        else "Walk-forward efficiency has no meaning here: in sample, the chosen settings earned nothing."
    )
    found.append(
        f"The bars of the record were not searched, so that p, from the deflated Sharpe ratio of all "
        f"{result.n_trials} configurations, is the cautious end. If this was the only study ever run on "
        f"them, the Sharpe ratio is above 0 with probability {percent(result.probabilistic_sharpe, 0)}; "
        f"the truth lies between."
    )
    if pbo is not None:
        found.append(
            f"In {percent(pbo.pbo, 0)} of the ways to halve the bars, what was best in one half was below "
            "the median in the other (probability of backtest overfitting): 50 % is what chance gives."
        )
    return found
