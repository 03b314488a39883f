"""Reports in a browser: drawn without a word or a request, zoomed, and read with the mouse."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from bt_llm.advice import forget_answers
from bt_llm.cli import app
from bt_llm.research import judge
from tests.browser import CTRL, Browser, chromium, needs_chromium
from tests.engines import walk
from tests.report_cases import BARS, EVIL, EXPECTED, KINDS, Page, one_of_each, page_of
from tests.research_cases import gate_of
from tests.walk_forward_cases import cross_file

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return one_of_each()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def assert_drawn_in_silence(browser: Browser, path: Path, charts: int) -> None:
    """Check a page, wide and narrow, light and dark: drawn, within its width, no message and no request."""
    for width, dark in ((1280, False), (390, True)):
        browser.open(path, width=width, dark=dark)
        assert browser.said == []
        assert [url for url in browser.requested if not url.startswith("data:")] == [path.as_uri()]
        assert browser.value("document.documentElement.dataset.charts") == str(charts)
        assert browser.value("document.documentElement.scrollWidth") <= width
        colours = """[...document.querySelectorAll("canvas")].map(canvas => new Set(new Uint32Array(
            canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)"""
        counts = browser.value(colours)
        assert len(counts) >= charts
        assert all(number > 20 for number in counts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_draws_it_without_a_word(
    kind: str, results: dict[str, Any], tmp_path: Path, browser: Browser
) -> None:
    page_of(results[kind], tmp_path, data=BARS, title=EVIL)
    assert_drawn_in_silence(browser, tmp_path / "report.html", charts=4 if kind == "compare" else 3)


def test_a_page_that_says_or_asks_something_is_noticed(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "loud.html").write_text(
        "<img src='file:///none.png'><script>console.log(1); nothing()</script>"
    )
    browser.open(tmp_path / "loud.html")
    assert len(browser.said) >= 2
    assert browser.requested[1:] == ["file:///none.png"]


def test_a_study_that_compares_has_a_report(tmp_path: Path, browser: Browser) -> None:
    forget_answers()
    walk(300, seed=3).rename_axis("time").to_csv(tmp_path / "bars.csv")
    cross_file(tmp_path)
    (tmp_path / "study.toml").write_text(
        'strategy = "cross.py:Cross"\ndata = "bars.csv"\n[compare]\n'
        'models = ["scripted:trend", "scripted:contrarian"]\nresamples = 99\n'
    )
    path, tables = tmp_path / "compare.html", tmp_path / "tables"
    command = ["compare", str(tmp_path / "study.toml"), "--report", str(path), "--csv", str(tables)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"report: {path}" in done.stderr.replace("\n", "")
    page = Page(path.read_text(encoding="utf-8"))
    for model in ("scripted:trend", "scripted:contrarian"):
        for part in (f"Price, verdicts and trades of {model}", f"Policy of {model}, calibrated"):
            assert part in page.text
    for part in (*EXPECTED["compare"], "Cross", "bars.csv", "SHA-256 of the model", "Findings"):
        assert part in page.text, part
    assert [chart["kind"] for chart in page.charts] == ["lines", "price", "price", "lines"]
    assert set(pd.read_csv(tables / "verdicts.csv")["model"]) == {"scripted:trend", "scripted:contrarian"}
    assert_drawn_in_silence(browser, path, charts=4)


class Chart:
    """The price chart of a page in a browser, read by what stands above it."""

    BOX = "document.querySelectorAll('.chart')[1]"

    def __init__(self, browser: Browser, path: Path, width: int) -> None:
        self.browser = browser
        browser.open(path, width=width)
        self.spec = Page(path.read_text(encoding="utf-8")).charts[1]
        self.last = len(self.spec["times"]) - 1
        browser.value(f"{self.BOX}.scrollIntoView({{block: 'center'}})")
        browser.settle()
        self.box = browser.value(
            "(box => [box.left, box.top, box.width, box.height])"
            f"({self.BOX}.querySelector('.u-over').getBoundingClientRect())"
        )

    def x(self, share: float) -> float:
        """Return the place of a share of the bars that are shown, from the left of the window."""
        left, _, width, _ = self.box
        return float(left + share * width)

    @property
    def y(self) -> float:
        return float(self.box[1] + self.box[3] / 2)

    def point(self, share: float) -> str:
        self.browser.mouse("Moved", self.x(share), self.y)
        return self.readout

    @property
    def readout(self) -> str:
        return str(self.browser.value("document.querySelector('.readout').textContent"))

    @property
    def shown(self) -> tuple[int, int]:
        """Positions of the first and last bar that are shown."""
        self.browser.mouse("Moved", 1, 1)
        first, _, rest = self.readout.partition(" to ")
        stamps = [f"{pd.Timestamp(second, unit='s'):%Y-%m-%d %H:%M}" for second in self.spec["times"]]
        return stamps.index(first), stamps.index(rest.partition(".")[0])

    def about(self, first: float, end: float) -> bool:
        """Return whether these bars are shown, but for one at each end: a pixel is not a bar."""
        shown = self.shown
        return abs(shown[0] - first) <= 1.5 and abs(shown[1] - end) <= 1.5

    def click(self, label: str) -> None:
        script = f"[...{self.BOX}.querySelectorAll('button')]"
        self.browser.value(f"{script}.find(one => one.textContent === {json.dumps(label)}).click()")
        self.browser.settle()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_price_chart_zooms(width: int, results: dict[str, Any], tmp_path: Path, browser: Browser) -> None:
    page_of(results["run"], tmp_path, data=BARS)
    chart = Chart(browser, tmp_path / "report.html", width)
    last = chart.last
    assert chart.shown == (0, last)
    x, y = chart.x(2 / 3), chart.y
    under = chart.point(2 / 3)
    browser.mouse("Wheel", x, y, deltaX=0, deltaY=-400, modifiers=CTRL)
    share = math.exp(-1)
    first = last * 2 / 3 * (1 - share)
    assert chart.about(first, first + last * share)
    assert chart.point(2 / 3)[:10] in {under[:10], *_neighbours(under)}  # what is pointed at stays there
    browser.mouse("Wheel", x, y, deltaX=0, deltaY=400, modifiers=CTRL)
    assert chart.about(0, last)
    browser.mouse("Wheel", x, y, deltaX=0, deltaY=10, modifiers=0)  # without Ctrl the page scrolls
    assert chart.about(0, last)

    chart = Chart(browser, tmp_path / "report.html", width)
    chart.click("+")
    assert chart.about(last / 4, last * 3 / 4)
    browser.mouse("Moved", chart.x(0.5), chart.y)
    browser.mouse("Pressed", chart.x(0.5), chart.y, button="left", buttons=1, clickCount=1)
    browser.mouse("Moved", chart.x(0.75), chart.y, button="left", buttons=1)
    browser.mouse("Released", chart.x(0.75), chart.y, button="left", clickCount=1)
    assert chart.about(last / 2, last * 5 / 8)  # the stretch that was dragged over
    chart.click("All")
    assert chart.shown == (0, last)

    browser.value(f"{Chart.BOX}.focus()")
    browser.key("+")
    assert chart.about(last / 4, last * 3 / 4)
    browser.key("ArrowRight")
    assert chart.about(last * 0.35, last * 0.85)
    browser.key("-")
    assert chart.shown == (0, last)
    for _ in range(9):
        chart.click("+")
    low, high = chart.shown
    assert 10 <= high - low <= 13
    assert browser.said == []


def _neighbours(readout: str) -> set[str]:
    day = pd.Timestamp(readout[:10])
    return {f"{day + pd.Timedelta(days=by):%Y-%m-%d}" for by in (-1, 1)}


def test_the_price_chart_says_what_is_pointed_at(
    results: dict[str, Any], tmp_path: Path, browser: Browser
) -> None:
    page_of(results["run"], tmp_path, data=BARS)
    chart = Chart(browser, tmp_path / "report.html", 1280)
    said = judge(BARS, gate_of("scripted:trend"), horizon=1).bars
    trades = results["run"].gated.trades
    kinds = set()
    for place in (3, *range(20, 300, 13)):
        bar, words = BARS.iloc[place], chart.point(place / chart.last).split("   ")
        prices = ", ".join(f"{n} {float(f'{bar[n]:.7g}'):.6g}" for n in ("open", "high", "low", "close"))
        expected = [f"{BARS.index[place]:%Y-%m-%d %H:%M}", prices]
        if BARS.index[place] in said.index:
            answer, confidence = said.loc[BARS.index[place], ["answer", "confidence"]]
            expected.append(f"{answer}, confidence {100 * confidence:.1f} %")
        held = trades[(trades["opened"].dt.round("s") <= BARS.index[place])]
        held = held[held["closed"].dt.round("s") >= BARS.index[place]]
        assert words[: len(expected)] == expected
        assert any("trade that came to" in word for word in words) == bool(len(held))
        kinds.add((len(expected), bool(len(held))))
    assert kinds == {(2, False), (3, False), (3, True)}
    assert browser.said == []


def test_walk_forward_bands_are_out_of_sample_only(
    results: dict[str, Any], tmp_path: Path, browser: Browser
) -> None:
    result = results["walk-forward"]
    page_of(result, tmp_path, data=BARS)
    chart = Chart(browser, tmp_path / "report.html", 1280)
    told, answers = result.verdicts["answer"], set()
    context = f"{Chart.BOX}.querySelector('canvas').getContext('2d')"
    place_of = f"{Chart.BOX}.querySelector('canvas').getBoundingClientRect()"
    left, top = browser.value(f"[{place_of}.left, {place_of}.top]")
    above = round(chart.box[1] - top)
    browser.mouse("Moved", 1, 1)
    for place in range(5, 300, 7):
        time, column = BARS.index[place], round(chart.x(place / chart.last) - left)
        # Bands are a fifth opaque, from the top of the pane to its foot; some of this column is only band.
        column_of = (
            f"[...{context}.getImageData({column}, {above + 4}, 1, 280).data].filter((_, i) => i % 4 === 3)"
        )
        found = browser.value(f"Math.min(...{column_of})")
        answer = told.get(time, "")
        assert (found > 0) == (answer in {"bullish", "bearish"}), (place, answer, found)
        answers.add(answer)
    assert answers >= {"", "bullish", "bearish"}
    for fold in result.folds:
        place = fold.fold.test.start + 3
        words = chart.point(place / chart.last)
        assert f"{told[BARS.index[place]]}, confidence" in words
        assert words.endswith(f"fold {fold.fold.number}, scripted:trend")
    assert "fold" not in chart.point(40 / chart.last)
