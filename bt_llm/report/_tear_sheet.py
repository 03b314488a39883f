"""The sections of a tear sheet: months, rolling figures, drawdowns, distributions, and entries kept out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.backtest import (
    METRICS,
    BacktestResult,
    Figures,
    Panel,
    PooledRun,
    Section,
    Table,
    daily_returns,
    figures_table,
    kept_out,
    metrics_table,
    monthly_returns,
    number,
    percent,
    periods_per_year,
    table_section,
)
from bt_llm.plain_text import counted
from bt_llm.report._pictures import bars_of
from bt_llm.report._series import lines
from bt_llm.research import ModelComparison, PanelComparison, PanelWalkForwardResult, WalkForwardResult

__all__ = ["all_figures", "kept_out_sections", "main_runs", "tear_sheet", "trades_listed", "with_figures"]

SHOWN_TRADES = 1000
"""Rows of a table of trades."""

_WINDOWS = (126, 63)
_WORST = 5
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HELD = "buy_and_hold"
_TWICE = {"win_rate", "hit_rate"}
"""One figure under two names; a table has whichever it was made with."""

Account = BacktestResult | PooledRun[Any] | WalkForwardResult


def accounts_in(result: Any) -> dict[str, Account]:
    """Return the accounts of a result by the names that its table of figures has for them."""
    if isinstance(result, WalkForwardResult):
        return {"out of sample (joined)": result}
    if isinstance(result, PanelWalkForwardResult):
        return {"out of sample, pooled": result.pooled}
    found: dict[str, Account] = dict(result.runs)
    return found


def main_runs(result: Any) -> dict[str, Account]:
    """Return those that a page looks at more closely: what the gate made, or each model of a comparison."""
    accounts = accounts_in(result)
    if isinstance(result, ModelComparison):
        return {name: accounts[name] for name in result.judged}
    if isinstance(result, PanelComparison):
        return {name: accounts[name] for name in result.models}
    name = "gated" if "gated" in accounts else next(iter(accounts))
    return {name: accounts[name]}


def all_figures(result: Any) -> dict[str, Figures]:
    """Return all figures of the accounts of a result."""
    accounts = accounts_in(result)
    return figures_table(accounts, _HELD if _HELD in accounts else None)


def with_figures(section: Section, result: Any) -> Table:
    """Return the table of a result's metrics with all other figures, and why there is none of some."""
    told = all_figures(result)
    columns = {
        name: {
            **metrics,
            **{figure: v for figure, v in _values(told, name).items() if figure not in _TWICE},
        }
        for name, metrics in section.content.items()
    }
    table = metrics_table(columns)
    missing: dict[tuple[str, str], list[str]] = {}  # by reason and figures: of which accounts
    for name, one in told.items():
        alike: dict[str, dict[str, None]] = {}
        for figure, why in one.reasons.items():
            if figure in METRICS:
                alike.setdefault(why, {})[METRICS[figure][0]] = None
        for why, figures in alike.items():
            missing.setdefault((why, ", ".join(figures)), []).append(name.replace("_", " "))
    said = "; ".join(
        f"{figures} ({why})" if len(names) == len(told) else f"{figures} of {', '.join(names)} ({why})"
        for (why, figures), names in missing.items()
    )
    table["note"] = f"No figure: {said}." if said else ""
    means = [name for name in columns if name not in told]
    if means:
        table["note"] += f" What is of one record alone is not told of: {', '.join(means)}."
    return table


def _values(told: Mapping[str, Figures], name: str) -> Mapping[str, float]:
    return told[name].values if name in told else {}


def tear_sheet(result: Any) -> Iterator[Section]:
    """Yield months, rolling figures, worst drawdowns and distributions of the accounts of a result."""
    main = main_runs(result)
    for name, account in main.items():
        yield _months(account, _of(name, main))
    yield _rolling(accounts_in(result))
    for name, account in main.items():
        yield _worst(account, _of(name, main))
    for name, account in main.items():
        yield _distributions(account, _of(name, main))


def _of(name: str, main: Mapping[str, Any]) -> str:
    return f" of {name}" if len(main) > 1 else ""


def _is_ruined(account: Account) -> bool:
    return float(account.equity.min()) <= 0.0


def _refused(title: str, why: str) -> Section:
    return Section(kind="table", title=title, text=f"- ({why})")


def _months(account: Account, of: str) -> Section:
    title = f"Returns by month{of}"
    if _is_ruined(account):
        return _refused(title, "the account was ruined, and what follows ruin has no return")
    table, index = monthly_returns(account.equity), account.equity.index
    if int(table[list(range(1, 13))].notna().sum().sum()) < 2:
        return _refused(title, "all bars lie in one month")
    largest = float(np.nanmax(np.abs(table[list(range(1, 13))].to_numpy(dtype=np.float64))))
    rows = [
        [
            (percent(round(value, 3) + 0.0, 1), math.nan if column == "year" else value / (largest or 1.0))
            for column, value in row.items()
        ]
        for _, row in table.iterrows()
    ]
    return Section(
        kind="months",
        title=title,
        text=(
            f"From the last close of a month to that of the next. The first month begins with the first bar "
            f"that counts, {index[0]:%Y-%m-%d}, the last ends with the last, {index[-1]:%Y-%m-%d}. "
            "A dash: no bars."
        ),
        content={
            "head": ["", *_MONTHS, "year"],
            "rows": [
                {"year": str(year), "cells": cells} for year, cells in zip(table.index, rows, strict=True)
            ],
        },
    )


def _rolling(accounts: Mapping[str, Account]) -> Section:
    title = "Rolling Sharpe ratio and volatility"
    daily = {name: daily_returns(one.equity) for name, one in accounts.items() if not _is_ruined(one)}
    if not daily:
        return _refused(title, "the account was ruined")
    index = pd.DatetimeIndex(max(daily.values(), key=len).index)
    window = next((one for one in _WINDOWS if len(index) >= 1.5 * one), 0)
    if not window:
        least = math.ceil(1.5 * _WINDOWS[-1])
        return _refused(title, f"{counted(len(index), 'day')} of returns, and it takes {least}")
    yearly = periods_per_year(index)
    sharpe, spread = {}, {}
    for name, returns in daily.items():
        rolled = returns.reindex(index).rolling(window)
        mean, deviation = rolled.mean().to_numpy(), rolled.std().to_numpy()
        moving = deviation > 1e-12
        ratio = np.full(len(index), math.nan)
        np.divide(mean, deviation, out=ratio, where=moving)
        shown = name.replace("_", " ")
        sharpe[shown], spread[shown] = ratio * math.sqrt(yearly), deviation * math.sqrt(yearly)
    begun = slice(window - 1, None)
    panes = [
        ("Sharpe ratio", "number", 170, {name: one[begun] for name, one in sharpe.items()}, 3),
        ("Volatility", "percent", 140, {name: one[begun] for name, one in spread.items()}, 5),
    ]
    content = lines(index[begun], panes)
    left_out = [name.replace("_", " ") for name in accounts if name not in daily]
    text = f"Of the returns of the last {window} days with bars, a year of {yearly:.0f} such days."
    text += f" Not of {', '.join(left_out)}: ruined." if left_out else ""
    return Section(kind="chart", title=title, text=text, content=content)


def _worst(account: Account, of: str) -> Section:
    title = f"Worst drawdowns{of}"
    equity = account.equity
    if float(equity.iloc[0]) <= 0.0:
        return _refused(title, "the account was ruined")
    index = pd.DatetimeIndex(equity.index)
    rows = []
    for one in statistics.drawdowns(equity.to_numpy(dtype=np.float64))[:_WORST]:
        end = len(index) - 1 if one.recovered is None else one.recovered
        length = (index[end] - index[one.peak]) / pd.Timedelta(days=1)
        back = "not yet" if one.recovered is None else f"{index[end]:%Y-%m-%d}"
        rows.append(
            [
                percent(one.depth),
                *(f"{index[at]:%Y-%m-%d}" for at in (one.peak, one.trough)),
                back,
                number(length, 1),
            ]
        )
    if not rows:
        return _refused(title, "the account never fell")
    return table_section(title, ["depth", "high", "lowest", "high again", "days"], rows)


def _distributions(account: Account, of: str) -> Section:
    title = f"Distribution of returns and trades{of}"
    pictures, missing = [], []
    if _is_ruined(account):
        missing.append("of days: the account was ruined")
    else:
        returns = daily_returns(account.equity).to_numpy()
        moved = returns[returns != 0.0]
        if len(moved) < 20:
            missing.append(f"of days: {len(moved)} on which the account moved, and it takes 20")
        else:
            name = f"Returns of the {len(moved):,} days on which it moved"
            pictures.append(_spread(name, moved, percent))
    trades = account.trades
    told = "return" in trades and bool(np.isfinite(trades["return"].to_numpy(dtype=np.float64)).all())
    results = trades["return" if told else "pnlcomm"].to_numpy(dtype=np.float64)
    if len(results) < 5:
        missing.append(f"of trades: {len(results)}, and it takes 5")
    else:
        what = "Returns" if told else "Results"
        pictures.append(
            _spread(
                f"{what} of {counted(len(results), 'trade')} after commission",
                results,
                percent if told else number,
            )
        )
    text = f"- ({'; '.join(missing)})" if missing else ""
    return Section(kind="bars", title=title, text=text, content=pictures)


def _spread(name: str, values: NDArray[np.float64], shown: Any) -> dict[str, Any]:
    text = f"Median {shown(float(np.median(values)))}; {percent(float((values > 0.0).mean()), 0)} above 0."
    return bars_of(values, name, text, shown)


def kept_out_sections(result: Any) -> Iterator[Section]:
    """Yield the entries of ungated runs that the gated ones did not make, if there are any."""
    if isinstance(result, ModelComparison):
        for name in result.judged:
            pair = (result.runs[name], result.runs["ungated"])
            yield from _kept_out([("", *pair)], _of(name, result.judged))
    elif {"gated", "ungated"} <= set(getattr(result, "runs", {})):
        symbols = result.symbols if isinstance(result, Panel) else {"": result}
        pairs = [(name, one.runs["gated"], one.runs["ungated"]) for name, one in symbols.items()]
        yield from _kept_out(pairs, "")


def _kept_out(pairs: Sequence[tuple[str, BacktestResult, BacktestResult]], of: str) -> Iterator[Section]:
    frames = [
        frame.assign(symbol=name) if name else frame
        for name, gated, ungated in pairs
        if len(frame := kept_out(gated, ungated))
    ]
    if not frames:
        return
    found = pd.concat(frames, ignore_index=True).sort_values("opened", kind="stable", ignore_index=True)
    results = found["pnlcomm"].to_numpy(dtype=np.float64)
    vetoed = sum(int(gated.orders["vetoed"]) for _, gated, _ in pairs)
    text = (
        f"Trades of the ungated run that the gated one did not make, and what they came to there: "
        f"{number(float(results.sum()))} after commission, {percent(float((results > 0.0).mean()), 0)} of "
        "them won. Sizes and exits are the ungated run's, on an account of its own; the verdict is the "
        "gated run's, at the close that the entry was decided at. It describes, and is no test."
    )
    if vetoed:
        text += f" Of the gated run's own orders the gate rejected {vetoed:,}."
    title = f"Entries kept out{of} ({len(found):,})"
    yield Section(kind="trades", title=title, text=text, content=found, folded=True)


def trades_listed(trades: pd.DataFrame) -> dict[str, Any]:
    """Return trades as a table that can be sorted, newest first: words, and the numbers behind them.

    Times of day are left out where all of them are midnight, as those of daily bars are.
    """
    shown = trades.iloc[::-1][:SHOWN_TRADES]
    if {"data", "symbol"} <= set(shown) and (shown["data"] == shown["symbol"]).all():
        shown = shown.drop(columns="data")
    times = [pd.DatetimeIndex(shown[name]).round("s") for name in ("opened", "closed")]
    moment = "%Y-%m-%d" if all((one == one.normalize()).all() for one in times) else "%Y-%m-%d %H:%M"
    columns = [one for one in _COLUMNS if one[0] in shown and _is_told(shown[one[0]])]
    cells = [[_cell(value, kind, moment) for value in shown[name].tolist()] for name, _, kind in columns]
    note = f"The last {len(shown):,} of {len(trades):,}." if len(shown) < len(trades) else ""
    rows = list(zip(*cells, strict=True))
    return {"head": [title for _, title, _ in columns], "rows": rows, "note": note}


def _is_told(column: pd.Series[Any]) -> bool:
    if column.name == "data" and column.nunique() < 2:
        return False
    return bool((column.astype(str) != "").any()) and not column.isna().all()


def _cell(value: Any, kind: str, moment: str) -> tuple[str, str]:
    if kind == "time":
        text = f"{pd.Timestamp(value).round('s'):{moment}}"
        return text, text
    if kind == "side":
        text = "long" if value > 0 else "short"
        return text, text
    if kind == "text":
        return (str(value), str(value)) if value else ("-", "")
    if value is None or not math.isfinite(value):
        return "-", ""
    text = percent(value, 0 if kind == "sure" else 2) if kind in ("percent", "sure") else _price(value, kind)
    return text, repr(float(value))


def _price(value: float, kind: str) -> str:
    return number(value) if kind == "money" else f"{value:,.6g}"


_COLUMNS: Sequence[tuple[str, str, str]] = (
    ("model", "model", "text"),
    ("symbol", "symbol", "text"),
    ("data", "data", "text"),
    ("opened", "opened", "time"),
    ("closed", "closed", "time"),
    ("direction", "side", "side"),
    ("bars", "bars", "price"),
    ("size", "size", "price"),
    ("price", "entry", "price"),
    ("exit_price", "exit", "price"),
    ("return", "return", "percent"),
    ("pnlcomm", "result", "money"),
    ("verdict", "verdict", "text"),
    ("confidence", "confidence", "sure"),
)
