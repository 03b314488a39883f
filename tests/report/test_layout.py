"""Pages on a screen, a telephone and paper: nothing cut off, nothing over another, and all of it printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm import Advisor, AdvisorConfig, Gate, Policy, gate_study
from bt_llm.backtest import Universe
from bt_llm.report import write_report
from bt_llm.report._pictures import bars_of
from bt_llm.report._policy_page import ink, shade
from bt_llm.report._tear_sheet import trades_listed
from bt_llm.research import multiverse
from tests.browser import Browser, chromium, needs_chromium
from tests.panel_cases import symbols
from tests.report_cases import BARS, KINDS, one_of_each
from tests.research_cases import Alternate, gate_of

PAGES = (*KINDS, "panel", "multiverse", "policy")
PAPER = 718  # pixels across A4 between the margins

PICTURES = """[...document.querySelectorAll("svg")].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].filter(one => one.textContent.trim());
  const places = texts.map(one => one.getBoundingClientRect());
  return places.flatMap((a, i) => {
    if (!a.width) return [];
    const cut = a.left < box.left - 1 || a.right > box.right + 1
      || a.top < box.top - 1 || a.bottom > box.bottom + 1;
    const over = places.slice(0, i).filter(b => b.width && a.left < b.right - 1 && b.left < a.right - 1
      && a.top < b.bottom - 4 && b.top < a.bottom - 4);
    const bad = cut || over.length || a.height < 10;
    return bad ? [svg.getAttribute("aria-label") + ": " + texts[i].textContent] : [];
  });
})"""
"""Texts of pictures that are cut off, over another, or too small to read."""

PALE = """(() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const parts = (colour) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (colour) => colour.slice(0, 3).map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const found = parts(getComputedStyle(one).backgroundColor);
      if (found[3] > 200) return found;
    }
    return [255, 255, 255];
  };
  const words = "h1, h2, p, li, td, th, dt, dd, caption, figcaption, summary, svg text, code, b";
  return [...document.querySelectorAll(words)]
    .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())).filter(one => {
      const style = getComputedStyle(one), colour = one.matches("text") ? style.fill : style.color;
      const pair = [parts(colour), behind(one)].map(light);
      return Math.max(...pair) / Math.min(...pair) < 4;
    }).map(one => one.tagName + " " + one.textContent.slice(0, 40));
})()"""
"""Words whose contrast with what is behind them is below 4 to 1."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of each kind; the panel's counts have four figures."""
    folder = tmp_path_factory.mktemp("pages")
    quiet = AdvisorConfig(model="scripted:random", cache_mode="off")
    results: dict[str, Any] = one_of_each()
    results["panel"] = gate_study(Alternate, Universe.of(symbols()), gate_of("scripted:trend"))
    gate = Gate(advisor=quiet)
    results["multiverse"] = multiverse(Alternate, BARS, gate=gate, templates=["market", "market/brief"], n=9)
    results["policy"] = Policy.of(Advisor(quiet))
    for name, result in results.items():
        write_report(
            folder / f"{name}.html", result, **({} if name in ("panel", "policy") else {"data": BARS})
        )
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_their_words_whole_and_apart(name: str, written: Path, browser: Browser) -> None:
    for width in (1280, 390):
        browser.open(written / f"{name}.html", width=width)
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value(PICTURES) == []
        assert browser.value("document.querySelectorAll('.scroll svg, .scroll p').length") == 0


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_every_word_stands_out_from_what_is_behind_it(name: str, written: Path, browser: Browser) -> None:
    for dark in (False, True):
        browser.open(written / f"{name}.html", dark=dark)
        red = int(browser.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
        assert (red < 60) == dark
        assert browser.value(PALE) == []


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_paper_is_white_and_has_everything(name: str, written: Path, browser: Browser) -> None:
    browser.open(written / f"{name}.html", dark=True)
    folded = browser.value("document.querySelectorAll('details:not([open])').length")
    widths = "[...document.querySelectorAll('canvas')].map(one => one.width)"
    before = browser.value(widths)
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser("Emulation.setEmulatedMedia", media="print", features=[dark])
    browser.value("window.dispatchEvent(new Event('beforeprint'))")
    # Only then is the window as narrow as paper: what is drawn has its size by that time.
    browser("Emulation.setDeviceMetricsOverride", width=PAPER, height=1000, deviceScaleFactor=1, mobile=False)
    assert browser.value("document.documentElement.scrollWidth") <= PAPER
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.value("getComputedStyle(document.body).printColorAdjust") == "exact"
    assert browser.value("document.querySelectorAll('details:not([open])').length") == 0
    assert (
        browser.value("[...document.querySelectorAll('table')].filter(one => !one.offsetHeight).length") == 0
    )
    # A button is not repeated at the head of the next page, and with it neither is the row that it is in.
    assert set(
        browser.value("[...document.querySelectorAll('th button')].map(one => getComputedStyle(one).display)")
    ) <= {"contents"}
    browser("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    browser("Emulation.setEmulatedMedia", media="", features=[])
    browser.value("window.dispatchEvent(new Event('afterprint'))")
    browser.settle()
    assert browser.value("document.querySelectorAll('details:not([open])').length") == folded
    assert browser.value(widths) == before


@needs_chromium
def test_folds_keep_their_strips_on_a_telephone(written: Path, browser: Browser) -> None:
    browser.open(written / "walk-forward.html", width=390)
    strips = browser.value(
        "[...document.querySelectorAll('.strip')].map(one => one.getBoundingClientRect().width)"
    )
    assert len(strips) == 5
    assert min(strips) > 100


@needs_chromium
def test_a_legend_has_no_colon_before_nothing(written: Path, browser: Browser) -> None:
    browser.open(written / "run.html")
    legend = "document.querySelector('.u-legend')"
    colon = f"getComputedStyle({legend}.rows[1].cells[0], '::after').content"
    said = f"[{colon}, getComputedStyle({legend}.rows[0]).visibility]"
    assert browser.value(said) == ["none", "hidden"]
    browser.value(f"{legend}.scrollIntoView({{block: 'end'}})")
    place = "document.querySelector('.u-over').getBoundingClientRect()"
    left, top = browser.value(f"[{place}.left, {place}.top]")
    browser.mouse("Moved", left + 200, top + 50)
    assert browser.value(said) == ['":"', "visible"]


def test_counts_of_four_figures_have_room() -> None:
    few, many = (bars_of(np.repeat([1.0, 2.0], n), "name", "Text.", str) for n in (40, 4000))
    assert few["most"] == "40"
    assert many["most"] == "4,000"
    assert many["margin"] > few["margin"]


def test_ink_contrasts_with_every_shade() -> None:
    def light(colour: tuple[int, int, int]) -> float:
        share = np.array(colour) / 255
        linear = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05

    for value in np.linspace(-1.0, 1.0, 201):
        pair = [light(shade(value)), 1.05 if ink(value) == "#ffffff" else light((27, 27, 27))]
        assert max(pair) / min(pair) > 4.1


def test_days_have_no_time_of_day_and_a_symbol_is_named_once() -> None:
    days = pd.to_datetime(["2024-01-02", "2024-01-03"])
    trades = pd.DataFrame({"opened": days, "closed": days, "direction": 1, "pnlcomm": 1.0})
    trades = trades.assign(symbol=["a", "b"], data=["a", "b"])
    listed = trades_listed(trades)
    assert listed["head"] == ["symbol", "opened", "closed", "side", "result"]
    assert listed["rows"][0][1] == ("2024-01-03", "2024-01-03")
    later = trades_listed(trades.assign(closed=days + pd.Timedelta("1h")))
    assert [text for text, _ in later["rows"][0][1:3]] == ["2024-01-03 00:00", "2024-01-03 01:00"]


@needs_chromium
def test_dates_and_percentages_of_trades_do_not_break(written: Path, browser: Browser) -> None:
    browser.open(written / "run.html", width=390)
    browser.value("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    dates = "[...document.querySelectorAll('.sorted time')]"
    lines = browser.value(f"{dates}.map(one => one.getClientRects().length)")
    assert len(lines) > 20
    assert set(lines) == {1}
    cells = browser.value("[...document.querySelectorAll('.sorted td')].map(one => one.textContent)")
    assert any(cell.endswith("\u00a0%") for cell in cells)
    assert not any(" %" in cell for cell in cells)
