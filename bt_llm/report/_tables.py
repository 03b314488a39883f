"""Numbers as text, tables of results, and the same as CSV."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bt_llm.data import save_csv
from bt_llm.exceptions import ConfigError

__all__ = ["METRICS", "Table", "count", "metrics_table", "number", "percent", "trades_table", "write_tables"]

Table = dict[str, Any]
"""``head`` (list of str), ``rows`` (lists of str), ``note`` (str)."""

SHOWN_TRADES = 200


def number(value: float | None, digits: int = 2) -> str:
    """Return a number as text; a dash for NaN.

    Examples
    --------
    >>> number(1234.5), number(math.nan), percent(0.123), percent(0.5, 0), count(1200.0)
    ('1,234.50', '-', '12.30 %', '50 %', '1,200')
    """
    return "-" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """Return a fraction as text, in percent."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:,.{digits}f} %"


def count(value: float | None) -> str:
    """Return a whole number as text."""
    return number(value, 0)


METRICS: dict[str, tuple[str, Callable[[float], str], str]] = {
    "final_value": ("final value", number, "What the account was worth at the last close."),
    "pnl": ("profit and loss", number, "What the account gained or lost, in its currency."),
    "return": ("return", percent, "What the account gained or lost, as a share of the starting cash."),
    "annual_return": ("return a year", percent, "Mean return of a bar times the bars in a year."),
    "sharpe": ("Sharpe ratio", number, "Mean return over its spread, a year: reward per unit of swing."),
    "sortino": ("Sortino ratio", number, "As the Sharpe ratio, with only the losses counted as swing."),
    "calmar": ("Calmar ratio", number, "Return a year over the deepest fall."),
    "max_drawdown": ("max drawdown", percent, "The deepest fall from a high, measured on every bar."),
    "trades": ("trades", count, "Closed trades. With few of them, any number here is mostly luck."),
    "win_rate": ("hit rate", lambda v: percent(v, 0), "Share of trades that won after commission."),
    "hit_rate": ("hit rate", lambda v: percent(v, 0), "Share of trades that won after commission."),
    "exposure": ("exposure", lambda v: percent(v, 0), "Share of bars with a position."),
    "turnover": ("turnover", number, "Value traded over the mean value of the account."),
}
"""By name: what it is called, how it is written, and what it means."""


def metrics_table(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the metrics of several runs, one column each, and what each means."""
    known = [name for name in METRICS if any(name in metrics for metrics in runs.values())]
    rows = [
        [METRICS[name][0], *(METRICS[name][1](metrics.get(name, math.nan)) for metrics in runs.values())]
        for name in known
    ]
    return {
        "head": ["", *(name.replace("_", " ") for name in runs)],
        "rows": rows,
        "note": "",
        "meanings": [(METRICS[name][0], METRICS[name][2]) for name in known],
    }


def trades_table(trades: pd.DataFrame) -> Table:
    """Return the last trades, newest first."""
    shown = trades.iloc[::-1][:SHOWN_TRADES]
    named = ["model"] if "model" in trades else []
    rows = [
        [
            *(str(row[name]) for name in named),
            *(f"{pd.Timestamp(row[name]).round('s'):%Y-%m-%d %H:%M}" for name in ("opened", "closed")),
            "long" if row["direction"] > 0 else "short",
            number(row["pnlcomm"]),
        ]
        for _, row in shown.iterrows()
    ]
    note = f"The last {len(shown)} of {len(trades):,}." if len(shown) < len(trades) else ""
    return {"head": [*named, "opened", "closed", "side", "result"], "rows": rows, "note": note}


def write_tables(
    folder: str | os.PathLike[str],
    trades: Mapping[str, pd.DataFrame],
    verdicts: Mapping[str, pd.DataFrame] | None = None,
) -> list[Path]:
    """Write ``trades.csv``, and with verdicts ``verdicts.csv``, into a folder.

    Parameters
    ----------
    folder : path
        Made if it is not there; files of these names are replaced.
    trades : mapping of str to DataFrame
        By run; the column ``run`` has the name.
    verdicts : mapping of str to DataFrame, optional
        By model; see `bt_llm.research.Judged`.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ConfigError
        If a file cannot be written.
    """
    path, written = Path(folder), []
    tables = {"trades": {name: frame.reset_index(drop=True) for name, frame in trades.items()}}
    if verdicts:
        tables["verdicts"] = {
            name: frame.rename_axis("time").reset_index() for name, frame in verdicts.items()
        }
    try:
        path.mkdir(parents=True, exist_ok=True)
        for title, frames in tables.items():
            label = "run" if title == "trades" else "model"
            parts = []
            for name, frame in frames.items():
                frame.insert(0, label, name)
                parts.append(frame)
            full = [part for part in parts if len(part)] or parts[:1]
            written.append(path / f"{title}.csv")
            save_csv(pd.concat(full, ignore_index=True), written[-1], index=False)
    except OSError as error:
        raise ConfigError(f"tables cannot be written into {str(path)!r} ({error})") from error
    return written
