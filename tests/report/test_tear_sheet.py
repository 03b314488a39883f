"""The tear sheet of a page: every part right, or refused; and the library that draws is unchanged."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import plot_cerebro
from bt_llm.exceptions import ConfigError
from bt_llm.report._page import library
from bt_llm.report._pictures import bars_of
from bt_llm.report._series import MAX_POINTS
from bt_llm.report._tear_sheet import trades_listed
from tests.engines import walk
from tests.report_cases import BARS, KINDS, one_of_each, page_of


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return one_of_each()


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_every_part(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    text, page = page_of(results[kind], tmp_path, data=BARS)
    parts = (
        *(
            "growth a year (CAGR)",
            "volatility",
            "Calmar ratio",
            "profit factor",
            "expectancy",
            "SQN",
            "exposure",
        ),
        *(
            "Returns by month",
            "Rolling Sharpe ratio and volatility",
            "Worst drawdowns",
            "Distribution of returns",
        ),
        "The verdicts that trade.",
    )
    for part in parts:
        assert part in page.text, part
    if kind in ("run", "test"):
        for part in ("commission paid", "alpha a year", "beta", "correlation", "Entries kept out"):
            assert part in page.text, part
    assert text.index("Findings") < text.index("growth a year (CAGR)") < text.index("Equity and drawdown")


def test_figures_of_the_page_are_those_of_the_summary(results: dict[str, Any], tmp_path: Path) -> None:
    text, _ = page_of(results["run"], tmp_path, data=BARS)
    summary = results["run"].summary()
    for figure, title in (("annual_growth", "growth a year (CAGR)"), ("volatility", "volatility")):
        row = re.search(rf"<td>{re.escape(title)}</td>(.*?)</tr>", text)
        assert row is not None
        shown = re.findall(r"<td>([^<]*)</td>", row[1])
        assert shown == [f"{100 * value:,.2f} %" for value in summary.loc[figure]]


def test_a_ruined_account_is_refused_part_by_part(results: dict[str, Any], tmp_path: Path) -> None:
    run = results["run"].gated
    equity = run.equity.copy()
    equity.iloc[-1] = -1.0
    ruined = dataclasses.replace(run, equity=equity, ruined=equity.index[-1])
    page = page_of(ruined, tmp_path)[1]
    for part in ("what follows ruin has no return", "the account was ruined"):
        assert part in page.text
    assert "No figure:" in page.text


def test_bars_of_a_week_have_dashes_with_reasons(results: dict[str, Any], tmp_path: Path) -> None:
    run = results["run"].gated
    short = dataclasses.replace(run, equity=run.equity.iloc[:6], trades=run.trades.iloc[:0])
    text = page_of(short, tmp_path)[1].text
    for why in (
        "and a growth a year takes 90",
        "days of returns, and it takes 95",
        "it takes 5",
        "no trade was closed",
    ):
        assert why in text, why


def test_a_million_bars_are_thinned_out_and_that_is_said(results: dict[str, Any], tmp_path: Path) -> None:
    index = pd.date_range("2020", periods=1_000_000, freq="min")
    rng = np.random.default_rng(2)
    equity = pd.Series(1e4 * np.exp(np.cumsum(1e-4 * rng.standard_normal(len(index)))), index, name="equity")
    long = dataclasses.replace(results["walk-forward"], equity=equity)
    text, page = page_of(long, tmp_path)
    assert "of 1,000,000 points are drawn" in page.text
    chart = page.charts[0]
    assert chart["drawn"] <= 1.1 * MAX_POINTS
    assert max(chart["panes"][0]["values"][0]) == pytest.approx(equity.max(), abs=0.01)
    assert len(text) < 3_000_000


def test_trades_are_listed_with_numbers_to_sort_by() -> None:
    trades = pd.DataFrame(
        {
            "opened": pd.to_datetime(["2024-01-02", "2024-01-03"]),
            "closed": pd.to_datetime(["2024-01-04", "2024-01-05"]),
            "direction": [1, -1],
            "bars": [2, 2],
            "data": "a",
            "size": [5.0, np.nan],
            "price": [10.0, np.nan],
            "pnlcomm": [1234.5, -1.0],
            "verdict": ["bullish", ""],
            "confidence": [0.61, np.nan],
        }
    )
    listed = trades_listed(trades)
    assert listed["head"] == [
        *("opened", "closed", "side", "bars", "size", "entry", "result", "verdict", "confidence")
    ]
    assert listed["rows"][1][-3:] == (("1,234.50", "1234.5"), ("bullish", "bullish"), ("61 %", "0.61"))
    assert listed["rows"][0][-2:] == (("-", ""), ("-", ""))


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(3).standard_normal(1000)
    found = bars_of(values, "name", "Median 0.", lambda value: f"{value:.2f}")
    assert sum(bar["count"] for bar in found["bars"]) == 1000
    assert "0.00" in [tick["text"] for tick in found["ticks"]]
    gains = sum(bar["count"] for bar in found["bars"] if bar["gains"])
    assert gains == (values >= 0.0).sum()


def test_the_library_ships_as_it_is_with_its_license() -> None:
    folder = resources.files("bt_llm").joinpath("report/vendor")
    told = dict(re.findall(r"`(\S+)` \| `([0-9a-f]{64})`", folder.joinpath("README.md").read_text("utf-8")))
    assert set(told) == {"uPlot.iife.min.js", "uPlot.min.css"}
    for name, digest in told.items():
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest
    assert "Permission is hereby granted" in library()
    assert "http" not in library()


class Still(bt.Strategy):
    """Does nothing."""


class Sized(bt.Strategy):
    """Does nothing, by a parameter."""

    params = (("size", 1),)


def cerebro_of(**how: Any) -> bt.Cerebro:
    cerebro = bt.Cerebro(**how)
    cerebro.adddata(bt.feeds.PandasData(dataname=walk(40, seed=1)))
    return cerebro


def test_backtraders_plot_needs_no_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    cerebro = cerebro_of()
    cerebro.addstrategy(Still)
    cerebro.run()
    (figure,) = plot_cerebro(cerebro, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    last = min(figure.axes, key=lambda axes: axes.get_position().y0)
    assert any(re.match(r"\d{4}-\d\d-\d\d", label.get_text()) for label in last.get_xticklabels())


def test_a_cerebro_that_kept_nothing_to_draw_says_so() -> None:
    with pytest.raises(ConfigError, match="has not run"):
        plot_cerebro(cerebro_of())
    kept = cerebro_of(exactbars=1)
    kept.addstrategy(Still)
    kept.run()
    with pytest.raises(ConfigError, match="exactbars=1"):
        plot_cerebro(kept)
    optimised = cerebro_of()
    optimised.optstrategy(Sized, size=(1, 2))
    optimised.run(maxcpus=1)
    with pytest.raises(ConfigError, match="has optimised"):
        plot_cerebro(optimised)
