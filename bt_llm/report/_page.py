"""From a result to its page, and to its tables."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import pandas as pd

from bt_llm.advice import Policy
from bt_llm.backtest import Market, Source, Universe
from bt_llm.data import COLUMNS
from bt_llm.plain_json import plain
from bt_llm.plain_text import printable
from bt_llm.report._content import parts
from bt_llm.report._kinds import Reportable, kind_of
from bt_llm.report._policy_page import environment, write_page, write_policy_html
from bt_llm.report._tables import write_tables
from bt_llm.settings import instance, path_text

__all__ = ["Reportable", "write_csv", "write_report"]


def write_report(
    path: str | os.PathLike[str],
    result: Reportable | Policy,
    *,
    data: Source | Universe | None = None,
    title: str | None = None,
) -> None:
    """Write the report of a result: one HTML file that loads nothing from anywhere.

    Parameters
    ----------
    path : path
        The file; replaced if bt_llm has written what is there, and refused if somebody else has.
    result : BacktestResult, GateStudy, GateTest, ModelComparison or WalkForwardResult, or the same of a panel
        Or a Policy, an Explanation, a Multiverse, a Board or a LeakageResult: what to report. Near the end of
        a page of trades or of probes stand the checklists of `bt_llm.research.checklist`.
    data : path, DataFrame, feed, mapping, sequence or Market, optional
        The bars it was found on, for their hash, and of one data for the price chart. A panel says itself
        what its symbols' bars are.
    title : str, optional
        Heading; by default the strategy's name and the kind of result.

    Raises
    ------
    ConfigError
        If `result` is something else, or the file cannot be written.
    DataError
        If the bars cannot be read.

    Notes
    -----
    The policy is drawn as far as the run knew it, and no model is asked for the page: where verdicts are
    calibrated by the grid, a whole space of up to 512 cells. Of a larger one the means over all features but
    two are drawn, and the page says how many cells the prior comes from. A walk-forward result carries its
    verdicts and policies, and its page shows each fold's out-of-sample stretch as the gate was told.
    Everything on the page is escaped, and its content security policy lets no script run but its own and no
    request be made. The same result gives the
    same bytes.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from bt_llm import AdvisorConfig, Gate, gate_study
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> bars = load_bars(shipped("eurusd_hourly.csv"))[:300]
    >>> study = gate_study(f"{shipped('sma_cross.py')}:GatedSmaCross", bars, gate)
    >>> with TemporaryDirectory() as folder:
    ...     write_report(f"{folder}/run.html", study, data=bars)
    ...     Path(folder, "run.html").read_text(encoding="utf-8")[:15]
    '<!doctype html>'
    """
    path = Path(path_text("path", path))
    if title is not None:
        instance("title", title, str, "a text, or None")
    if isinstance(result, Policy):
        rows = [(name, result.panels(calibrated=name == "calibrated")) for name in ("calibrated", "raw")]
        write_policy_html(rows, path, title or f"Policy of {result.model}", " ".join(result.sentences))
        return
    kind = kind_of(result)
    market = Market.of(data) if data is not None and kind.has_one_market else None
    bars = _alone(market)
    laid_out = list(parts(result, bars))
    text = (
        environment()
        .get_template("report.html")
        .render(
            title=title or f"{kind.heading(result)}: {kind.name}",
            summary=kind.summary,
            parts=laid_out,
            charts=_json([part["content"] for part in laid_out if part["kind"] == "chart"]),
            facts=kind.facts(result, market),
            scripts=[
                _script(text)
                for text in (library(), _shipped("templates/report.js"), _shipped("templates/sorting.js"))
            ],
            library_css=markupsafe.Markup(_shipped("vendor/uPlot.min.css")),
        )
    )
    write_page(path, text)


def _shipped(name: str) -> str:
    return resources.files("bt_llm").joinpath("report", name).read_text(encoding="utf-8")


def library() -> str:
    """Return the script that draws the charts, with its license in place of an address."""
    script, license = _shipped("vendor/uPlot.iife.min.js"), _shipped("vendor/uPlot.LICENSE")
    return f"/* uPlot 1.6.32\n\n{license.strip()}\n*/\n{script.partition('*/')[2].strip()}"


def _script(text: str) -> dict[str, markupsafe.Markup]:
    """Return a script, and the hash by which the page's policy lets it run."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": markupsafe.Markup(text), "hash": markupsafe.Markup(f"sha256-{digest}")}


def write_csv(folder: str | os.PathLike[str], result: Reportable) -> list[Path]:
    """Write the trades of a result, and the verdicts that it was made with, as CSV.

    Parameters
    ----------
    folder : path
        Gets ``trades.csv`` with a column ``run``, and where models judged bars ``verdicts.csv`` with a column
        ``model``. Of a multiverse also ``specifications.csv``, its table. Of a panel also ``symbols.csv``,
        the figures of each symbol's runs, and ``returns.csv``,
        the pooled return of each bar in each run. Text that a spreadsheet would run as a formula gets an
        apostrophe before it.
    result : object
        As in `write_report`.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ConfigError
        If `result` is something else, or a file cannot be written.
    """
    return write_tables(path_text("folder", folder), *kind_of(result).tables(result))


def _alone(market: Market | None) -> pd.DataFrame | None:
    """Return the bars of a market of one data; those of several have no one price."""
    return market.first[list(COLUMNS)] if market is not None and len(market) == 1 else None


def _json(charts: Sequence[Any]) -> markupsafe.Markup:
    """Return JSON that can stand in a script element: <, >, & and ' are written as escapes."""
    return jinja2.utils.htmlsafe_json_dumps(
        _shown(plain(list(charts))), separators=(",", ":"), allow_nan=False
    )


def _shown(value: Any) -> Any:
    """Return JSON values with all text in them printable."""
    if isinstance(value, dict):
        return {printable(name): _shown(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return printable(value) if isinstance(value, str) else value
