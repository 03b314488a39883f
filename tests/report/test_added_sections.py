"""A section of somebody's own: in one file, shown in the terminal and on the page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from bt_llm import AdvisorConfig, Gate, GateStudy, gate_study
from bt_llm.backtest import Section, adds_section, table_section
from bt_llm.backtest import _sections as sections_module
from bt_llm.cli._output import show_sections
from bt_llm.data import load_bars, shipped
from bt_llm.report import write_report


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Take out again what a test registers."""
    before = list(sections_module._ADDED)
    yield
    sections_module._ADDED[:] = before


@pytest.fixture(scope="module")
def study() -> GateStudy:
    gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    return gate_study(
        f"{shipped('sma_cross.py')}:GatedSmaCross", load_bars(shipped("eurusd_hourly.csv"))[:400], gate
    )


def test_a_table_and_an_image_of_ones_own(
    study: GateStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @adds_section(GateStudy)
    def trades_by_weekday(found: GateStudy) -> Section:
        counts = found.gated.trades["opened"].dt.day_name().value_counts(sort=False)
        return table_section("Trades by weekday", ["day", "trades"], [[d, str(n)] for d, n in counts.items()])

    @adds_section(GateStudy)
    def results_of_trades(found: GateStudy) -> Section:
        matplotlib.use("Agg")
        figure, drawn = Figure(), io.BytesIO()
        figure.subplots().hist(found.gated.trades["pnlcomm"])
        figure.savefig(drawn, format="png")
        return Section(kind="image", title="Results of trades", content=drawn.getvalue())

    write_report(tmp_path / "run.html", study)
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "Trades by weekday" in page
    assert 'src="data:image/png;base64,iVBOR' in page
    show_sections(study.sections())
    assert "Trades by weekday" in capsys.readouterr().out


def test_a_section_may_have_nothing_to_say_and_belongs_to_its_kind(study: GateStudy) -> None:
    adds_section(GateStudy)(lambda found: None)
    adds_section(int)(lambda found: table_section("Never", ["a"], []))
    titles = [section.title for section in study.sections()]
    assert titles[:3] == ["Findings", "Noted", "Results"]
    assert "Never" not in titles
