"""One result of each kind that there is a report for, and a reader of its page."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

from bt_llm.advice import forget_answers
from bt_llm.backtest import gate_study
from bt_llm.report import write_report
from bt_llm.research import WalkForward, compare_models, gate_test
from tests.research_cases import Alternate, gate_of, random_walk

KINDS = ("run", "test", "compare", "walk-forward")
EVIL = "<script>alert('x')</script>\"&{{ 7*7 }}"
BARS = random_walk(300)


def one_of_each() -> dict[str, Any]:
    """Return a result of each kind, on the same bars."""
    forget_answers()
    gate = gate_of("scripted:trend")
    grid = {"gate.require": ["agree", "not_against"], "gate.min_confidence": [0.0, 0.4]}
    return {
        "run": gate_study(Alternate, BARS, gate),
        "test": gate_test(Alternate, BARS, gate, n=9, shifts=3, resamples=99),
        "compare": compare_models(
            Alternate, BARS, {EVIL: "scripted:trend", "other": "scripted:contrarian"}, gate=gate, resamples=99
        ),
        "walk-forward": WalkForward(train_size=80, test_size=40).run(Alternate, BARS, gate=gate, grid=grid),
    }


class Page(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.words).append(data)

    @property
    def charts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.scripts[0])
        return found

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page_of(result: Any, folder: Path, **settings: Any) -> tuple[str, Page]:
    """Write a report and return its text, and what it is made of."""
    path = folder / "report.html"
    write_report(path, result, **settings)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


EXPECTED = {
    "run": (
        "The effect at other costs",
        "Equity and drawdown",
        "Price, verdicts and trades",
        "Policy of scripted:trend, raw",
        "bullish",
    ),
    "test": (
        *("random gates with the same answers at other times", "the gate:", "p = ", "plain rule"),
        *("What the gate's effect is made of", "side bias", "of the value traded"),
    ),
    "compare": ("Brier score", "Bars by answer", "Which is better", "Policy of scripted:contrarian, raw"),
    "walk-forward": (
        *("Folds", "Parameter stability", "gate.require", "deflated Sharpe", "strategy sha256"),
        *("Policy of scripted:trend, raw (folds 1 to 5)", "Policy of scripted:trend, calibrated"),
        *("SHA-256 of the model", "A dashed line begins a stretch", "calibrated by", "on_missing='block'"),
    ),
}
"""Words that the page of each kind has."""
