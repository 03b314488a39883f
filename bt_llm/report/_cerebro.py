"""Backtrader's own plot, where there is no display. Needs matplotlib (the extra ``report``)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_llm.exceptions import ConfigError, MissingExtraError
from bt_llm.report._plots import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_cerebro"]

_SIZE = (14.0, 9.0)
_LOOKS = {"style": "candlestick", "fmt_x_ticks": "%Y-%m-%d"}


def plot_cerebro(cerebro: Any, path: str | os.PathLike[str] | None = None, **settings: Any) -> list[Figure]:
    """Draw a Cerebro that has run as ``cerebro.plot()`` does, without a display, and return the figures.

    Parameters
    ----------
    cerebro : bt.Cerebro
        After ``run()``.
    path : path, optional
        Where the first figure is written, as its suffix says: .png, .svg or .pdf. Further ones, of other
        strategies, get a number before the suffix.
    **settings
        Of Backtrader's plot, such as ``style="candlestick"`` or ``volume=False``.

    Raises
    ------
    ConfigError
        If there is nothing to draw: it has not run, or kept no lines (``exactbars``), or optimised; or a file
        cannot be written.
    MissingExtraError
        If matplotlib is not installed.

    Notes
    -----
    What Backtrader draws is Backtrader's: of the verdicts `LLMAdvice` is drawn as a line below the price, and
    `LLMMarks`, if it was added, as marks on it.

    Examples
    --------
    >>> import backtrader as bt
    >>> from bt_llm.data import load_bars, shipped
    >>> cerebro = bt.Cerebro()
    >>> feed = cerebro.adddata(bt.feeds.PandasData(dataname=load_bars(shipped("sp500_daily.csv"))[-60:]))
    >>> cerebro.addstrategy(bt.Strategy)
    0
    >>> done = cerebro.run()
    >>> len(plot_cerebro(cerebro, volume=False))
    1
    """
    _check(cerebro)
    with _drawing_in_memory() as pyplot:
        drawn = cerebro.plot(**{**_LOOKS, **settings, "iplot": False})
        figures: list[Figure] = [figure for of_strategy in drawn for figure in of_strategy]
        for figure in figures:
            figure.set_size_inches(*_SIZE)
            if figure.axes:
                # Backtrader hides the labels of all axes that share their time, its own among them.
                last = min(figure.axes, key=lambda axes: axes.get_position().y0)
                last.tick_params(axis="x", labelbottom=True, labelrotation=0)
                figure.subplots_adjust(bottom=0.05)
            pyplot.close(figure)
    for number, figure in enumerate(figures if path is not None else ()):
        target = Path(str(path))
        save(figure, target if not number else target.with_stem(f"{target.stem}-{number + 1}"))
    return figures


def _check(cerebro: Any) -> None:
    runs = getattr(cerebro, "runstrats", None)
    if not runs:
        raise ConfigError("cerebro has not run: call cerebro.run() before it is drawn")
    if not all(hasattr(one, "datas") for row in runs for one in row):
        raise ConfigError("cerebro has optimised, and kept no lines: run the chosen parameters alone")
    if cerebro._exactbars > 0:
        raise ConfigError(f"exactbars={cerebro._exactbars}: no lines were kept; run with exactbars=False")


@contextlib.contextmanager
def _drawing_in_memory() -> Iterator[Any]:
    """Have matplotlib draw into memory: what Backtrader imports asks for windows."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'bt-llm[report]'") from error
    before = matplotlib.get_backend() if "matplotlib.pyplot" in sys.modules else None

    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        yield pyplot
    finally:
        if before is not None and before.lower() != "agg":
            with contextlib.suppress(ImportError):
                matplotlib.use(before)
