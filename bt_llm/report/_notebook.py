"""Results in a notebook: findings, figures and small curves, as HTML that needs no script."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bt_llm.advice import Policy
from bt_llm.backtest import ManyRuns, OneRun
from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import printable
from bt_llm.report._content import policy_section
from bt_llm.report._pictures import ticks
from bt_llm.report._plots import COLOURS, new_figure, panels_figure, save
from bt_llm.report._policy_page import environment
from bt_llm.report._series import drawdown, keep
from bt_llm.report._tear_sheet import with_figures
from bt_llm.settings import path_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_result", "result_html"]

_WIDTH, _HEIGHT, _POINTS = 640, 180, 600
_TONES = ("#0b6e4f", "#c8553d", "#3a66b1", "#8a5fb0", "#7a7a7a", "#b07d12")


def result_html(result: Any) -> str:
    """Return what a notebook shows of a result: what was found, the figures, and small curves.

    Parameters
    ----------
    result : object
        One that `write_report` takes, a `Policy`, or any with sentences.

    Returns
    -------
    str
        HTML with nothing live in it: no script, no address, and all text escaped.

    Examples
    --------
    >>> from bt_llm import run_backtest
    >>> from bt_llm.data import load_bars, shipped
    >>> bars = load_bars(shipped("sp500_daily.csv"))[:300]
    >>> shown = result_html(run_backtest(f"{shipped('sma_cross.py')}:GatedSmaCross", bars))
    >>> "<svg" in shown, "<script" in shown
    (True, False)
    """
    if not isinstance(result, Policy | OneRun | ManyRuns) and not _has_sentences(result):
        raise ConfigError(f"a {type(result).__name__} is no result: expected one of bt_llm's, or a Policy")
    found: dict[str, Any] = {
        "title": repr(result)[1:-1],
        "findings": [],
        "table": None,
        "curve": None,
        "policy": None,
    }
    if isinstance(result, Policy):
        found |= {"findings": result.sentences, "policy": policy_section(result)}
    elif isinstance(result, OneRun | ManyRuns) and hasattr(result, "sections"):
        found |= _of_sections(result)
    elif isinstance(result, OneRun):
        found["curve"] = _curve({str(getattr(result, "name", "")): result.equity})
    else:
        found["findings"] = list(getattr(result, "sentences", None) or [getattr(result, "sentence", "")])
    return printable(environment().get_template("notebook.html").render(**found))


def _has_sentences(result: Any) -> bool:
    return hasattr(result, "sentences") or hasattr(result, "sentence")


def _of_sections(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in result.sections():
        if section.kind == "sentences":
            found.setdefault("findings", section.content)
        elif section.kind == "metrics":
            found["table"] = with_figures(section, result)
        elif section.kind == "equity":
            found["curve"] = _curve(section.content)
    return found


def _curve(equities: Mapping[str, pd.Series[float]]) -> dict[str, Any] | None:
    """Return equity curves as the points of lines, with round values beside them."""
    curves = {name: np.asarray(equity, dtype=np.float64) for name, equity in equities.items()}
    index = pd.DatetimeIndex(next(iter(equities.values())).index)
    low, high = (float(one([one(values) for values in curves.values()])) for one in (np.min, np.max))
    if not np.isfinite([low, high]).all() or len(index) < 2:
        return None
    span, last = (high - low) or 1.0, len(index) - 1
    kept = keep(list(curves.values()), points=_POINTS)

    def up(value: float) -> float:
        return round(_HEIGHT - (value - low) / span * _HEIGHT, 1)

    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "lines": [
            {
                "name": name.replace("_", " "),
                "colour": COLOURS.get(name, _TONES[place % len(_TONES)]),
                "points": " ".join(
                    f"{at / last * _WIDTH:.1f},{up(value)}"
                    for at, value in zip(kept.tolist(), values[kept].tolist(), strict=True)
                ),
            }
            for place, (name, values) in enumerate(curves.items())
        ],
        "ticks": [{"y": up(value), "text": f"{value:,.6g}"} for value in ticks(low, high, 4)],
        "first": f"{index[0]:%Y-%m-%d}",
        "last": f"{index[-1]:%Y-%m-%d}",
    }


def plot_result(result: Any, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw a result with matplotlib: the accounts' values and drawdowns, or a policy.

    Parameters
    ----------
    result : result of runs, or Policy
        What to draw.
    path : path, optional
        Also written there, as its suffix says: .png, .svg or .pdf.

    Returns
    -------
    matplotlib.figure.Figure
        It belongs to no window; a notebook shows it.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ConfigError
        If there is nothing to draw of such a result, or the file cannot be written.
    """
    if isinstance(result, Policy):
        rows = [(name, result.panels(calibrated=name == "calibrated")) for name in ("calibrated", "raw")]
        figure = panels_figure(rows, f"Policy of {result.model}", measure=result.measure)
    elif isinstance(result, OneRun | ManyRuns):
        figure = _accounts_figure(
            {name: one.equity for name, one in result.accounts.items()}, repr(result)[1:-1]
        )
    else:
        raise ConfigError(f"{type(result).__name__} has no picture: expected a result of runs, or a policy")
    if path is not None:
        save(figure, Path(path_text("path", path)))
    return figure


def _accounts_figure(equities: Mapping[str, pd.Series[float]], title: str) -> Figure:
    figure = new_figure(9.0, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for name, equity in equities.items():
        colour, times, values = COLOURS.get(name), equity.index, np.asarray(equity, dtype=np.float64)
        change = 100 * (values[-1] / values[0] - 1.0)
        label = f"{name.replace('_', ' ')}  {change:+.2f} %"
        above.plot(times, values, label=label, color=colour, linewidth=1.2)
        below.plot(times, 100 * drawdown(values), color=colour, linewidth=1.0)
    above.set_ylabel("account value")
    below.set_ylabel("drawdown, %")
    above.set_title(title, loc="left", fontsize=10, wrap=True)
    above.legend(frameon=False, loc="upper left")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
