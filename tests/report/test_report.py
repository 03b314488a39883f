"""Reports: what they hold, and that nothing in them is live."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bt_llm.advice import forget_answers
from bt_llm.backtest import trades_table
from bt_llm.cli import app
from bt_llm.data import shipped
from bt_llm.exceptions import ConfigError
from bt_llm.report import write_csv, write_report
from bt_llm.report._series import MAX_BARS, MAX_POINTS, curves, drawdown, keep, price
from tests.engines import walk
from tests.report_cases import BARS, EVIL, EXPECTED, KINDS, Page, one_of_each, page_of
from tests.walk_forward_cases import cross_file


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return one_of_each()


@pytest.mark.parametrize("kind", KINDS)
def test_structure(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    _, page = page_of(results[kind], tmp_path, data=BARS)
    assert page.open == []
    assert len(page.scripts) == 4
    for part in (*EXPECTED[kind], "Findings", "Where this comes from", "SHA-256 of the bars", "Results"):
        assert part in page.text, part
    kinds = [chart["kind"] for chart in page.charts]
    assert kinds == ["lines", *["price"] * (2 if kind == "compare" else 1), "lines"]
    drawn = [tags for _, tags in page.tags if "data-chart" in tags]
    assert [tags["data-chart"] for tags in drawn] == [str(i) for i in range(len(kinds))]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    text, page = page_of(results[kind], tmp_path, data=BARS)
    assert not re.search(r"https?:|url\(|@import|[\"'(]//|fetch\(|XMLHttpRequest|import\(", text)
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "img", "object", "embed", "base", "form"}
        assert "src" not in attributes
        assert attributes.get("href", "data:,") == "data:,"
        assert not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_result_gives_the_same_bytes(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    assert page_of(results[kind], tmp_path, data=BARS)[0] == page_of(results[kind], tmp_path, data=BARS)[0]


def test_names_are_text(results: dict[str, Any], tmp_path: Path) -> None:
    gated = results["run"].gated
    settings = {**gated.settings, "params": {**gated.settings["params"], "note": EVIL}}
    evil = dataclasses.replace(gated, strategy=EVIL, name=EVIL, settings=settings)
    study = dataclasses.replace(results["run"], gated=evil)
    walked = dataclasses.replace(results["walk-forward"], name=EVIL, settings={EVIL: EVIL})
    for result in (study, results["compare"], walked):
        text, page = page_of(result, tmp_path, data=BARS)
        assert "<script>alert" not in text
        assert EVIL in page.text
        assert [tag for tag, _ in page.tags].count("script") == 4
        json.loads(page.scripts[0])
    text, page = page_of(results["run"], tmp_path, title=EVIL)
    assert "<script>alert" not in text
    assert page.text.count(EVIL) == 2


def test_chart_data_by_hand(results: dict[str, Any], tmp_path: Path) -> None:
    run = results["run"].gated
    equity, drawn, _ = page_of(results["run"], tmp_path, data=BARS)[1].charts
    values, falls = (pane["values"] for pane in equity["panes"])
    assert equity["names"] == ["gated", "ungated", "buy and hold"]
    np.testing.assert_allclose(values[0], run.equity, atol=0.006)
    assert min(falls[0]) == pytest.approx(-run.metrics["max_drawdown"], abs=1e-5)
    assert equity["times"][0] == run.equity.index[0].round("s").timestamp()
    np.testing.assert_allclose(drawn["ohlc"][3], BARS["close"], rtol=1e-6)
    assert drawn["answers"] == [["bullish", 1.0], ["neutral", 0.0], ["bearish", -1.0]]
    said = {n: drawn["verdicts"].count(code) for code, (n, _) in zip("abc", drawn["answers"], strict=True)}
    assert said == {name: run.advice["verdicts"][name] for name in said}
    assert drawn["verdicts"].count(".") == run.advice["verdicts"]["not_asked"]
    assert drawn["confidence"][0] is None
    assert len(drawn["trades"]) == len(run.trades)
    place, _, entry, *_ = drawn["trades"][0]
    assert BARS.index[place] == run.trades["opened"].iloc[0].round("s")
    assert entry == BARS["open"].iloc[place]


def test_without_bars_there_is_no_price(results: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(results["run"], tmp_path)[1]
    assert [chart["kind"] for chart in page.charts] == ["lines", "lines"]
    assert "SHA-256 of the bars" not in page.text


def test_long_curves_keep_their_extremes_and_say_so(results: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = 1e4 + np.cumsum(rng.standard_normal(50_000))
    values[31_234] = 1.0
    long = pd.Series(values, index=pd.date_range("2020", periods=len(values), freq="min"))
    found = curves({"a": long, "b": long[::-1].set_axis(long.index)})
    assert found["drawn"] <= 1.1 * MAX_POINTS
    assert found["bars"] == 50_000
    equity, falls = (pane["values"] for pane in found["panes"])
    assert min(equity[0]) == 1.0
    assert min(falls[0]) == pytest.approx(drawdown(values).min(), abs=1e-5)
    assert keep([values[:10]]).tolist() == list(range(10))
    longer = dataclasses.replace(results["walk-forward"], equity=long)
    assert "of 50,000 points are drawn" in page_of(longer, tmp_path)[1].text


def test_many_bars_are_joined() -> None:
    bars = walk(MAX_BARS + 1, freq="min")
    trades = pd.DataFrame(
        {"opened": bars.index[[4]], "closed": bars.index[[9]], "direction": [1], "pnlcomm": [2.0]}
    )
    found = price(bars, None, trades)
    assert found["drawn"] == MAX_BARS // 2 + 1 == len(found["times"])
    assert found["ohlc"][1][0] == pytest.approx(bars["high"].iloc[:2].max(), rel=1e-6)
    assert found["trades"][0][:2] == [2, 4]


def test_many_trades_are_cut() -> None:
    times = pd.date_range("2020", periods=300)
    trades = pd.DataFrame({"opened": times, "closed": times, "direction": -1, "pnlcomm": 1.0})
    table = trades_table(trades)
    assert len(table["rows"]) == 200
    assert table["rows"][0][0] == f"{times[-1]:%Y-%m-%d %H:%M}"
    assert table["note"] == "The last 200 of 300."


def test_csv(results: dict[str, Any], tmp_path: Path) -> None:
    written = write_csv(tmp_path / "out", results["compare"])
    assert [path.name for path in written] == ["trades.csv", "verdicts.csv"]
    trades, verdicts = (pd.read_csv(path) for path in written)
    assert list(dict.fromkeys(trades["run"])) == [EVIL, "other", "ungated", "rule"]
    assert len(trades) == sum(len(run.trades) for run in results["compare"].runs.values())
    assert verdicts["answer"].isin(["bullish", "neutral", "bearish"]).all()
    written = write_csv(tmp_path, results["walk-forward"])
    assert [path.name for path in written] == ["trades.csv", "verdicts.csv"]
    assert pd.read_csv(written[1])["fold"].nunique() == len(results["walk-forward"].folds)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_written_again_and_no_file_of_anybody_else(
    kind: str, results: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    for _ in range(2):
        write_report(page, results[kind])
        written = write_csv(tmp_path / "tables", results[kind])
    for path in written:
        path.write_text("of,somebody\n", encoding="utf-8")
        others = {one: one.read_bytes() for one in written if one.exists()}
        with pytest.raises(ConfigError, match=f"a file is there that bt_llm has not written: {path.name}"):
            write_csv(tmp_path / "tables", results[kind])
        assert {one: one.read_bytes() for one in written if one.exists()} == others, (
            "none is written if one cannot be"
        )
        path.unlink()
    page.write_text("import backtrader", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a file is there that bt_llm has not written\); name another"):
        write_report(page, results[kind])
    assert page.read_text(encoding="utf-8") == "import backtrader"


def test_errors_name_what_to_do(results: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="report of a int: expected one of BacktestResult, GateStudy"):
        write_report(tmp_path / "a.html", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(tmp_path / "none" / "a.html", results["run"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written into"):
        write_csv(tmp_path / "file", results["run"])


def test_commands_write_them(tmp_path: Path) -> None:
    forget_answers()
    bars, strategy = tmp_path / "bars.csv", f"{shipped('sma_cross.py')}:GatedSmaCross"
    walk(300, seed=3).rename_axis("time").to_csv(bars)
    shared = ["-s", strategy, "-d", str(bars), "-p", "slow=15", "-m", "scripted:trend"]
    cross_file(tmp_path)
    study = tmp_path / "study.toml"
    study.write_text(
        'strategy = "cross.py:Cross"\ndata = "bars.csv"\n[gate.advisor]\nmodel = "scripted:random"\n'
        '[grid]\nfast = [2, 4]\n[walk_forward]\ntrain_size = "6MS"\ntest_size = "1MS"\n'
    )
    commands = {
        "run": ["run", *shared],
        "test": ["test", *shared, "--random", "4", "--shifts", "0", "--resamples", "99"],
        "compare": ["compare", *shared, "-m", "scripted:bullish", "--resamples", "99"],
        "walk": ["walkforward", str(study)],
    }
    for name, command in commands.items():
        path, tables = tmp_path / f"{name}.html", tmp_path / name
        done = CliRunner().invoke(app, [*command, "--report", str(path), "--csv", str(tables)])
        assert done.exit_code == 0, done.output
        assert Page(path.read_text(encoding="utf-8")).charts
        assert (tables / "trades.csv").exists()
