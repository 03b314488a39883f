"""Results in a notebook and in a session: short lines, escaped HTML, the same verbs on every kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import backtrader as bt
import pandas as pd
import pytest

from bt_llm import Advisor, AdvisorConfig, Policy, perturbation_check
from bt_llm.backtest import panel_study, run_backtest
from bt_llm.exceptions import ConfigError, DataError
from tests.engines import walk
from tests.report_cases import BARS, EVIL, KINDS, Page, one_of_each
from tests.research_cases import Alternate, gate_of


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found = one_of_each()
    found["one run"] = found["run"].gated
    gate = gate_of("scripted:trend")
    found["panel"] = panel_study(Alternate, {"a": walk(120, seed=1), "b": walk(120, seed=2)}, gate)
    found["pooled"] = found["panel"].runs["gated"]
    found["policy"] = Policy.of(Advisor(AdvisorConfig(model="scripted:trend", cache_mode="off")))
    found["leaks"] = perturbation_check(Alternate, BARS, gate=gate)
    return found


EVERY = (*KINDS, "one run", "panel", "pooled", "policy", "leaks")


@pytest.mark.parametrize("kind", EVERY)
def test_a_result_is_one_short_line(kind: str, results: dict[str, Any]) -> None:
    line = repr(results[kind])
    assert line.startswith(f"<{type(results[kind]).__name__}: ")
    assert len(line) < 300
    assert "\n" not in line


def test_an_account_that_never_moves_is_shown() -> None:
    never = run_backtest(bt.Strategy, BARS)
    assert never.metrics["trades"] == 0
    assert "10,000" in never._repr_html_()


def test_what_results_hold_is_short_too(results: dict[str, Any]) -> None:
    held = [
        results["test"].random,
        results["test"].effect,
        results["compare"].standing,
        results["compare"].skill,
        *results["compare"].pairs,
        *results["compare"].scores.values(),
        *results["compare"].judged.values(),
        *results["walk-forward"].folds,
        *results["walk-forward"].models,
        *results["one run"].asked,
    ]
    assert max(len(repr(one)) for one in held) < 300


@pytest.mark.parametrize("kind", EVERY)
def test_a_notebook_shows_it_and_nothing_in_it_is_live(kind: str, results: dict[str, Any]) -> None:
    html = results[kind]._repr_html_()
    page = Page(html)
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= set(
        ["div", "p", "ul", "li", "svg", "line", "text", "polyline", "title", "table", "caption"]
    ) | {*("thead", "tbody", "tr", "th", "td", "span")}
    assert "http" not in html
    if kind in (*KINDS, "one run", "panel"):
        assert "<svg" in html
        assert "Sharpe ratio" in page.text


def test_a_notebook_shows_names_of_strangers_as_text(results: dict[str, Any]) -> None:
    evil = dataclasses.replace(results["run"].gated, strategy=EVIL, name=EVIL)
    study = dataclasses.replace(results["run"], gated=evil)
    for result in (evil, study, results["compare"]):
        html = result._repr_html_()
        assert "<script" not in html
        assert EVIL[:20] in Page(html).text


@pytest.mark.parametrize("kind", [*KINDS, "one run", "panel", "pooled"])
def test_the_same_verbs_on_every_result_of_runs(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    result = results[kind]
    summary, daily = result.summary(), result.returns_daily()
    assert list(summary.columns) == list(result.accounts)
    assert {"return", "sharpe", "volatility", "profit_factor", "sqn"} <= set(summary.index)
    assert len(daily) > 50
    assert pd.DatetimeIndex(daily.index).is_normalized
    assert "pnlcomm" in result.trades
    if len(result.accounts) > 1:
        assert set(result.trades["run"]) <= set(result.accounts)
        assert list(daily.columns) == list(result.accounts)
    figure = result.plot(tmp_path / "picture.png")
    assert len(figure.axes) == 2
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert figure._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("kind", [*KINDS, "one run", "panel", "policy"])
def test_a_result_writes_its_page(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    path = results[kind].report(tmp_path / "page.html")
    assert Page(path.read_text(encoding="utf-8")).open == []


def test_a_policy_is_a_table_and_a_picture(results: dict[str, Any]) -> None:
    table = results["policy"].summary()
    assert len(table) == 105
    assert {"trend", "answer", "bullish"} <= set(table.columns)
    assert len(results["policy"].plot().axes) >= 6


def test_what_cannot_be_drawn_says_so(results: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="LeakReport has no picture"):
        results["leaks"].plot()
    with pytest.raises(ConfigError, match="report of a LeakReport"):
        results["leaks"].report("never.html")


def test_a_ruined_account_has_no_daily_returns(results: dict[str, Any]) -> None:
    run = results["one run"]
    ruined = dataclasses.replace(run, equity=run.equity - run.equity.iloc[-1])
    with pytest.raises(DataError, match="ruined"):
        ruined.returns_daily()
