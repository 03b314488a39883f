"""Sections: the parts of what is shown of a result, which a terminal and a page both lay out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import pandas as pd

__all__ = [
    "METRICS",
    "Section",
    "Table",
    "added_sections",
    "adds_section",
    "bars_section",
    "count",
    "equity_section",
    "metrics_section",
    "metrics_table",
    "number",
    "percent",
    "roughly",
    "sentences_section",
    "table_of",
    "table_section",
    "trades_section",
    "trades_table",
]

Table: TypeAlias = dict[str, Any]
"""``head`` (list of str), ``rows`` (lists of str), ``note`` (str)."""

Make = TypeVar("Make", bound=Callable[[Any], "Section | None"])

SHOWN_TRADES = 200


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of what is shown of a result.

    Parameters
    ----------
    kind : str
        ``sentences``, ``table``, ``metrics`` (a table, whose content are the figures by run and name),
        ``trades`` (a table, whose content is all of them), ``image``, or a picture that a page draws from
        what the section holds: ``equity``, ``histograms``, ``forest``, ``folds``, ``stability``, ``policy``,
        ``checklist``.
    title : str
        Its heading.
    text : str
        A sentence or two in plain words, above it.
    table : Table, optional
        What a terminal shows of it; of a picture, the numbers behind it.
    content : object
        Of ``sentences`` a list of str, of an ``image`` the bytes of a PNG, of another picture what is drawn.
    folded : bool
        Whether it is closed until somebody opens it; a terminal leaves it out.
    """

    kind: str
    title: str
    text: str = ""
    table: Table | None = None
    content: Any = None
    folded: bool = False


def sentences_section(sentences: Sequence[str], title: str = "Findings") -> Section:
    """Return findings in plain words."""
    return Section(kind="sentences", title=title, content=list(sentences))


def bars_section(notes: Sequence[str]) -> Iterator[Section]:
    """Yield what is to be said of the bars, if there is anything."""
    if notes:
        yield sentences_section(notes, "Noted")


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> Table:
    """Return a table of texts."""
    return {"head": list(head), "rows": [list(row) for row in rows], "note": note}


def table_section(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], text: str = "", *, folded: bool = False
) -> Section:
    """Return a section that is a table of texts."""
    return Section(kind="table", title=title, text=text, table=table_of(head, rows), folded=folded)


def metrics_section(runs: Mapping[str, Mapping[str, Any]]) -> Section:
    """Return the metrics of several runs, one column each."""
    return Section(kind="metrics", title="Results", table=metrics_table(runs), content=dict(runs))


def equity_section(curves: Mapping[str, pd.Series[float]], text: str = "") -> Section:
    """Return equity curves over the same bars, with their drawdowns."""
    return Section(kind="equity", title="Equity and drawdown", text=text, content=dict(curves))


def trades_section(trades: pd.DataFrame, title: str = "Trades") -> Section:
    """Return closed trades, newest first, folded."""
    return Section(
        kind="trades",
        title=f"{title} ({len(trades):,})",
        table=trades_table(trades),
        content=trades,
        folded=True,
    )


_ADDED: list[tuple[type[Any], Callable[[Any], Section | None]]] = []


def adds_section(kind: type[Any]) -> Callable[[Make], Make]:
    """Register a function that makes one more section of each result of a kind.

    Parameters
    ----------
    kind : type
        Such as `GateStudy`; ``object`` for every result.

    Notes
    -----
    It is shown in the terminal and on the page. A function may return None: there is nothing to say.

    Examples
    --------
    >>> from bt_llm import GateStudy
    >>> @adds_section(GateStudy)
    ... def longest_trade(study):
    ...     bars = study.gated.trades["bars"]
    ...     return sentences_section([f"The longest trade took {bars.max()} bars."], "Patience")
    >>> _ADDED.clear()
    """

    def register(make: Make) -> Make:
        _ADDED.append((kind, make))
        return make

    return register


def added_sections(result: object) -> Iterator[Section]:
    """Yield the sections that `adds_section` registered for a result."""
    for kind, make in _ADDED:
        if isinstance(result, kind) and (section := make(result)) is not None:
            yield section


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


def roughly(value: float) -> str:
    """Return a positive number as text with two digits that count, never as a power of ten.

    Examples
    --------
    >>> roughly(0.0712), roughly(7.0), roughly(104.2), roughly(1234.5)
    ('0.071', '7', '100', '1,200')
    """
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10.0 else f"{rounded:.2g}"


METRICS: dict[str, tuple[str, Callable[[float], str], str]] = {
    "final_value": ("final value", number, "What the account was worth at the last close."),
    "pnl": ("profit and loss", number, "What the account gained or lost, in its currency."),
    "return": ("return", percent, "What the account gained or lost, as a share of the starting cash."),
    "annual_return": ("return a year", percent, "Mean return of a bar times the bars in a year."),
    "annual_growth": ("growth a year (CAGR)", percent, "The yearly growth that compounds to the return."),
    "volatility": ("volatility", percent, "Spread of the bars' returns (standard deviation), a year."),
    "sharpe": ("Sharpe ratio", number, "Mean return over its spread, a year: reward per unit of swing."),
    "sortino": ("Sortino ratio", number, "As the Sharpe ratio, with only the losses counted as swing."),
    "calmar": ("Calmar ratio", number, "Growth a year over the deepest fall."),
    "max_drawdown": ("max drawdown", percent, "The deepest fall from a high, measured on every bar."),
    "longest_drawdown": (
        "longest fall, days",
        lambda v: number(v, 1),
        "From a high until it was reached again, or the end.",
    ),
    "trades": ("trades", count, "Closed trades. With few of them, any number here is mostly luck."),
    "win_rate": ("hit rate", lambda v: percent(v, 0), "Share of trades that won after commission."),
    "hit_rate": ("hit rate", lambda v: percent(v, 0), "Share of trades that won after commission."),
    "profit_factor": ("profit factor", number, "What trades that won gained, over what the others lost."),
    "expectancy": ("expectancy", number, "Mean result of a trade after commission, in money."),
    "sqn": (
        "SQN",
        number,
        "System quality number: a trade's mean result over its spread, times root trades.",
    ),
    "exposure": ("exposure", lambda v: percent(v, 0), "Share of bars with a position."),
    "turnover": ("turnover", number, "Value traded over the mean value of the account."),
    "commission": (
        "commission paid",
        number,
        "Of all fills, in money; slippage is in the prices of the fills.",
    ),
    "alpha": ("alpha a year", percent, "Return a year that the benchmark's does not explain."),
    "beta": ("beta", number, "How much of the benchmark's return of a bar the account takes on, on average."),
    "correlation": ("correlation", number, "Of the bars' returns with those of the benchmark."),
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
    named = [name for name in ("model", "symbol") if name in trades]
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
