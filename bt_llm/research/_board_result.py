"""What a board says: who is among the best, who cannot be told apart, and who is not ranked, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bt_llm.backtest import Primary, Section, number, percent, roughly, sentences_section, table_section
from bt_llm.plain_json import plain
from bt_llm.shown import Shown, Told

__all__ = ["UNGATED", "Board", "BoardEntry", "TaskScore"]

UNGATED = "ungated"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TaskScore(Told):
    """An entry on a task.

    Attributes
    ----------
    metrics : mapping of str to float
        ``return``, ``sharpe``, ``max_drawdown`` and ``trades``; empty where it could not be run.
    problems : tuple of str
        What speaks against any conclusion from the run.
    refused : str
        Why it could not be run; else empty.
    equity : pandas.Series, optional
        Of the account, by time.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    refused: str = ""
    equity: pd.Series[float] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BoardEntry(Told):
    """An entry of a board.

    Attributes
    ----------
    name : str
        That of its pack, or of what needs none.
    kind : str
        ``pack``, ``chance``, ``rule`` or ``no gate``.
    score : float
        Mean over standard deviation of its returns a bar, over all tasks; see `board`. NaN if not ranked.
    confidence : float
        P-value that it is among the best; NaN if it is not known.
    left_out : str
        Why it is not ranked; empty if it is.
    tasks : mapping of str to TaskScore
        What it did on each.
    """

    name: str
    kind: str
    score: float
    confidence: float
    left_out: str
    tasks: Mapping[str, TaskScore]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Board(Shown):
    """Entries under one set of tasks, ranked.

    Attributes
    ----------
    tasks : tuple of str
        Their names.
    entries : tuple of BoardEntry
        As they were read; `ranked` has those that can be compared, the best first.
    level : float
        One less the confidence of the model confidence set.
    question : Primary or None
        Whether one entry is better than another, all pairs judged together: the one question, and the first
        step of the model confidence set. None where it cannot be asked.
    over_ungated : Primary or None
        Whether the best is better than the strategies without a gate; None likewise.
    bars : int
        Returns of an entry over all tasks.
    """

    tasks: tuple[str, ...]
    entries: tuple[BoardEntry, ...]
    level: float
    question: Primary | None
    over_ungated: Primary | None
    bars: int

    @property
    def ranked(self) -> tuple[BoardEntry, ...]:
        """The entries that can be compared, by their scores."""
        found = [one for one in self.entries if not one.left_out]
        return tuple(sorted(found, key=lambda one: (-one.score, one.name)))

    @property
    def best(self) -> tuple[BoardEntry, ...]:
        """Those that may be the best: the model confidence set; without the ungated strategies."""
        return tuple(one for one in self.ranked if one.confidence > self.level)

    @property
    def sentences(self) -> list[str]:
        """What is found, first; and what cannot be told."""
        compared = [one for one in self.ranked if one.kind != "no gate"]
        if self.question is None or self.over_ungated is None:
            why = "fewer than two entries" if len(compared) < 2 else f"only {self.bars} returns"
            return [f"Cannot tell which is best: {why} can be compared.", *self._left_out]
        sure = f"{100 * (1 - self.level):g} % confidence"
        names = ", ".join(one.name for one in self.best)
        if len(self.best) == 1:
            found = [f"Best with {sure}: {names} ({_asked(self.question)})."]
        elif len(self.best) == len(compared):
            found = [
                f"Cannot tell which is best: with {sure} each of the {len(compared)} entries may be it "
                f"({_asked(self.question)}).{_could(self.question)}"
            ]
        else:
            worse = len(compared) - len(self.best)
            found = [
                f"Cannot tell which of {len(self.best)} is best: {names} (model confidence set, {sure}); "
                f"{worse} of {len(compared)} {'is' if worse == 1 else 'are'} shown to be worse "
                f"({_asked(self.question)}).{_could(self.question)}"
            ]
        chance = [one.name for one in self.best if one.kind == "chance"]
        ruled = [one.name for one in self.best if one.kind == "rule"]
        if chance and len(self.best) > 1:
            found.append(f"Among these are entries that know nothing, drawn by chance: {', '.join(chance)}.")
        if ruled and len(self.best) > 1:
            found.append(f"Among these is a rule that asks no model: {', '.join(ruled)}.")
        found.append(self.over_ungated.sentence)
        return [*found, *self._left_out]

    @property
    def _left_out(self) -> list[str]:
        return [f"Not ranked: {one.name}: {one.left_out}." for one in self.entries if one.left_out]

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        rows = [
            [one.name, one.kind, number(one.score, 4), _p(one.confidence), "yes" if one in self.best else ""]
            for one in self.ranked
        ]
        yield table_section(
            "Ranking",
            ["", "kind", "score", "p", "may be the best"],
            rows,
            "Score: mean over standard deviation of the returns a bar over all tasks, each task in units of "
            "its ungated strategy's deviation. p: that it is among the best (Hansen, Lunde and Nason's model "
            f"confidence set).{_could(self.question) if self.question else ''}",
        )
        for name in self.tasks:
            cells = [[one.name, *_cells(one.tasks[name])] for one in (*self.ranked, *self._others)]
            yield table_section(name, ["", "return", "Sharpe ratio", "max drawdown", "trades"], cells)

    @property
    def _others(self) -> tuple[BoardEntry, ...]:
        return tuple(one for one in self.entries if one.left_out)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "tasks": list(self.tasks),
                "returns": self.bars,
                "level": self.level,
                "question": self.question and self.question.to_dict(),
                "over_ungated": self.over_ungated and self.over_ungated.to_dict(),
                "best": [one.name for one in self.best],
                "sentences": self.sentences,
                "entries": [
                    {
                        "name": one.name,
                        "kind": one.kind,
                        "rank": None if one.left_out else self.ranked.index(one) + 1,
                        "score": one.score,
                        "confidence": one.confidence,
                        "left_out": one.left_out,
                        "tasks": {
                            name: {
                                "metrics": dict(score.metrics),
                                "problems": list(score.problems),
                                "refused": score.refused,
                            }
                            for name, score in one.tasks.items()
                        },
                    }
                    for one in (*self.ranked, *self._others)
                ],
            }
        )
        return found


def _asked(told: Primary) -> str:
    """Return the p-value with the least that it could be."""
    return f"that no two differ: p = {told.p_value:.3g}, {told.smallest:.2g} at the least"


def _could(told: Primary) -> str:
    """Return what could have been found, as a further sentence."""
    if told.cannot_tell or told.detectable is None:
        return ""
    more = roughly(told.detectable)
    return f" On these tasks a score higher by {more} than another one would be found four times in five."


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _cells(score: TaskScore) -> list[str]:
    if score.refused:
        return ["-"] * 4
    metrics = score.metrics
    return [
        percent(metrics["return"]),
        number(metrics["sharpe"]),
        percent(metrics["max_drawdown"]),
        number(metrics["trades"], 0),
    ]
