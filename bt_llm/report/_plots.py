"""Pictures: equity curves and policies. Needs matplotlib (the extra ``report``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bt_llm.advice import Panel, signed
from bt_llm.exceptions import ConfigError, MissingExtraError
from bt_llm.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "new_figure", "panels_figure", "plot_equity", "plot_panels", "save"]

COLOURS = {"gated": "#0b6e4f", "ungated": "#c8553d", "buy_and_hold": "#7a7a7a"}
"""A run keeps its colour in every picture."""


def new_figure(width: float = 9.0, height: float = 4.5) -> Figure:
    """Return an empty figure that needs no display, in inches.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'bt-llm[report]'") from error

    class ShownFigure(Figure):
        """A figure that a notebook shows, which no window does."""

        def _repr_png_(self) -> bytes:
            drawn = io.BytesIO()
            self.savefig(drawn, format="png", dpi=110)
            return drawn.getvalue()

    return ShownFigure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as the kind of file that the path's suffix says, the same bytes every time.

    Raises
    ------
    ConfigError
        If the suffix is not png, svg or pdf, or the file cannot be written.
    """
    import matplotlib

    kind = path.suffix.lower().lstrip(".")
    if kind not in {"png", "svg", "pdf"}:
        raise ConfigError(f"picture {str(path)!r}: expected a name ending in .png, .svg or .pdf")
    drawn = io.BytesIO()
    stamp = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    try:
        with matplotlib.rc_context({"svg.hashsalt": "bt_llm"}):
            figure.savefig(drawn, format=kind, dpi=130, metadata=stamp)
        write_whole(path, drawn.getvalue())
    except OSError as error:
        raise ConfigError(f"picture {str(path)!r} cannot be written ({error})") from error


def plot_equity(runs: Mapping[str, Any], path: Path, title: str = "") -> None:
    """Draw the account's value over time, one line a run.

    Parameters
    ----------
    runs : mapping of BacktestResult
        By name; the name is the line's label.
    path : Path
        Where to; its suffix says the format.
    title : str
        Above the picture.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    for name, run in runs.items():
        label = f"{name.replace('_', ' ')}  {100 * run.metrics['return']:+.2f} %"
        axes.plot(
            run.equity.index, run.equity.to_numpy(), label=label, color=COLOURS.get(name), linewidth=1.2
        )
    axes.set_ylabel("account value")
    axes.set_title(title or "Equity, marked at each bar's close", loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    save(figure, path)


def plot_panels(
    rows: Sequence[tuple[str, Sequence[Panel]]],
    path: Path,
    title: str,
    scale: float = 1.0,
    measure: str = "",
) -> None:
    """Draw policies as heat maps: one row of panels a policy.

    Parameters
    ----------
    rows : sequence of (name, panels)
        Such as the raw and the calibrated policy of a model.
    path : Path
        Where to; its suffix says the format.
    title : str
        Above the picture.
    scale : float
        The value of the strongest colour: green for it, brown for its negative.
    measure : str
        What the values are, beside the colours.
    """
    save(panels_figure(rows, title, scale, measure), path)


def panels_figure(
    rows: Sequence[tuple[str, Sequence[Panel]]], title: str, scale: float = 1.0, measure: str = ""
) -> Figure:
    """Return policies as heat maps: one row of panels a policy; arguments as in `plot_panels`."""
    columns = max(len(panels) for _, panels in rows)
    figure = new_figure(3.1 * columns + 1.6, 3.0 * len(rows) + 0.6)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    image = None
    for axes_row, (name, panels) in zip(grid, rows, strict=True):
        for column, axes in enumerate(axes_row):
            if column >= len(panels):
                axes.set_axis_off()
                continue
            panel = panels[column]
            image = axes.imshow(panel.values, cmap="BrBG", vmin=-scale, vmax=scale, aspect="auto")
            _label(axes, panel, scale, first=column == 0)
            axes.set_title(panel.title, fontsize=9)
        axes_row[0].set_ylabel(f"{name}\n{panels[0].row_title}", fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    if image is not None:
        figure.colorbar(image, ax=grid, shrink=0.8, label=measure)
    return figure


def _label(axes: Any, panel: Panel, scale: float, *, first: bool) -> None:
    axes.set_xticks(range(len(panel.column_labels)), panel.column_labels, rotation=30, ha="right", fontsize=7)
    axes.set_yticks(range(len(panel.row_labels)), panel.row_labels if first else [], fontsize=7)
    axes.set_xlabel(panel.column_title, fontsize=8)
    for (y, x), value in np.ndenumerate(panel.values):
        ink = "white" if abs(value) > 0.6 * scale else "black"
        axes.text(x, y, signed(value), ha="center", va="center", fontsize=6, color=ink)
