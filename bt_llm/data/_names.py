"""Names of columns in the languages and forms that vendors write them in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bt_llm.data._reading import Reading, listed

__all__ = ["PRICES", "Roles", "fields_of", "find_roles", "normal"]

PRICES = ("open", "high", "low", "close")
_SECOND = "last price settle settlement latest value"  # a close only where no column is called one

_WORDS: dict[str, str] = {  # normal names by role, `|` between them
    "time": "time|date|datetime|timestamp|date time|gmt time|local time|utc time|unix|unix timestamp|unixtime|"
    "epoch|open time|opentime|start time|trade date|trading date|trade time|exchange date|observation date|"
    "candle begin time|kline open time|begin|t|tradedate|day|caldt|datadate|date gmt|time utc|date utc|"
    "datum|zeit|zeitstempel|fecha|hora|data|heure|tarih|дата|время|tijd|日期|时间|交易日期|交易时间|日付|日付け|날짜|일자|dt",
    "open": "open|open price|opening price|px open|open prc|open bid|erster|eröffnung|eröffn|eröffnungskurs|start|anfang|"
    "ouverture|ouv|apertura|abertura|opening|open int price|открытие|откр|otwarcie|açılış|开盘|开盘价|始値|시가|오픈|"
    "trade open|openprice|first",
    "high": "high|high price|px high|high 1|hoch|höchst|höchstkurs|tageshoch|plus haut|haut|+ haut|máximo|máx|maximo|"
    "max|massimo|máxima|maxima|hoog|высокий|макс|najwyzszy|najwyższy|yüksek|最高|最高价|高|高値|고가|trade high|highprice|maximum",
    "low": "low|low price|px low|low 1|tief|tiefst|tiefstkurs|tagestief|plus bas|bas|+ bas|mínimo|mín|minimo|min|"
    "mínima|minima|laag|низкий|мин|najnizszy|najniższy|düşük|最低|最低价|低|安値|저가|trade low|lowprice|minimum",
    "close": "close|close price|closing price|close last|schluss|schlusskurs|schlußkurs|schluß|clôture|cloture|cierre|"
    "chiusura|fechamento|slot|закрытие|zamkniecie|zamknięcie|kapanış|收盘|收盘价|終値|종가|trade close|closeprice|closing",
    "last": "last|last price|px last|trdprc 1|zuletzt|letzter|kurs|dernier|último|ultimo|laatste|цена|şimdi|price|settle|"
    "settlement|settlement price|settle price|latest|adj settle",
    "volume": "volume|vol|px volume|acvol uns|total volume|volume traded|trade volume|shares|shares traded|umsatz|stuecke|"
    "stücke|volumen|volumes|volume base|base volume|volumina|объём|объем|wolumen|hacim|hac|成交量|交易量|交易量 股|出来高|거래량|"
    "tottrdqty|volume shares|total trade quantity|volumefrom|no of shares",
    "ticks": "tickvol|tick volume|tick vol",
    "adj open": "adj open|adjopen|adjusted open",
    "adj high": "adj high|adjhigh|adjusted high",
    "adj low": "adj low|adjlow|adjusted low",
    "adj close": "adj close|adjclose|adjusted close|adjusted|close adj|closeadj|adjusted closing price",
    "adj volume": "adj volume|adjvolume|adjusted volume",
    "split": "split ratio|split factor|split coefficient|splits|stock splits|splitfactor|split",
    "symbol": "ticker|symbol|ts code|act symbol|tic|instrument|ric|股票代码|证券代码|代码|sym|pair|contract|isin|code|"
    "security|stock|permno|asset|coin|tickers|symbols|epic|name|名称|股票名称",
    "period": "per|period|timeframe|interval|resolution|granularity",
    "hour": "hour|hr|stunde",
}
_LETTERS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
_ROLES = {word: role for role, words in _WORDS.items() for word in words.split("|")}
_DAY_FIRST = frozenset("datum|fecha|data|tarih|дата|heure|zeit|zeitstempel".split("|"))
_QUOTES = frozenset(("usd", "usdt", "usdc", "busd", "eur", "gbp", "jpy", "fdusd", "tusd", "krw", "chf", "quote", "currency"))


@dataclass(kw_only=True)
class Roles:
    """Positions of the columns that are read, by role.

    Parameters
    ----------
    at : dict
        Position of each number, by role: the four prices, ``volume``, ``ticks``, ``adj ...``, ``split``.
    times : list of int
        Columns that may hold the time, in order of preference.
    symbol, period, hour : int, optional
        Where the instrument, the length of the bars and the hour stand.
    day_first : bool
        Whether the header is in a language whose dates begin with the day.
    """

    at: dict[str, int] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    symbol: int | None = None
    period: int | None = None
    hour: int | None = None
    day_first: bool = False


def normal(name: object) -> str:
    """Return a name in the one way it is compared.

    Examples
    --------
    >>> [normal(name) for name in ("<OPEN>", "1. open", "adjClose", "Adj. Close", "Close/Last", " Vol.")]
    ['open', 'open', 'adj close', 'adj close', 'close last', 'vol']
    """
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", str(name).strip().strip("\ufeff<>\"'"))
    text = re.sub(r"^\d+[a-z]?\. ", "", text.strip())
    return re.sub(r"[\s_\-./\\()\[\]:*]+", " ", text).strip().casefold().replace("ß", "ss")


_ROLES |= {word.replace("ß", "ss"): role for word, role in _ROLES.items()}


def fields_of(names: Sequence[str], columns: Mapping[str, str] | None = None) -> dict[str, list[int]]:
    """Return the positions of each role that names stand for; `columns` are the user's, by ours."""
    plain = [normal(name) for name in names]
    found: dict[str, list[int]] = {}
    stated = {str(theirs).strip().casefold(): ours for ours, theirs in (columns or {}).items()}
    letters = all(letter in plain for letter in "ohlc")
    for position, name in enumerate(plain):
        role = stated.get(str(names[position]).strip().casefold()) or _ROLES.get(name)
        if letters and name in _LETTERS:
            role = _LETTERS[name]
        if role is not None and not (role in (columns or {}) and str(names[position]).strip().casefold() not in stated):
            found.setdefault(role, []).append(position)
    if "volume" not in found and "volume" not in (columns or {}):
        currencies = [(p, name[7:]) for p, name in enumerate(plain) if re.fullmatch(r"volume \w{2,8}", name)]
        base = [position for position, currency in currencies if currency not in _QUOTES]
        if base or currencies:
            found["volume"] = (base or [currencies[0][0]])[:1]
    return found


def prefixed(names: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """Return columns such as ``VIX Open`` or ``AAPL.Close`` by what stands before their role."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for position, name in enumerate(names):
        words = re.fullmatch(r"\W*(.+?)[\s._:/-]+([^\W_]+)\W*", str(name).strip())
        role = _ROLES.get(normal(words[2])) if words else None
        if words and role in (*PRICES, "last", "volume", "adj close") and normal(words[1]) not in ("adj", "adjusted"):
            groups.setdefault(words[1], []).append((position, words[2]))
    whole = {"open", "high", "low"}
    return {
        prefix: columns
        for prefix, columns in groups.items()
        if whole <= {_ROLES[normal(name)] for _, name in columns}
    }


def find_roles(reading: Reading, names: Sequence[str], labels: Sequence[object]) -> Roles:
    """Return what each column is; refuse where a price is not there, or there twice.

    Parameters
    ----------
    names : sequence of str
        As the source has them, less what is common to all prices.
    labels : sequence
        The names as messages show them.
    """
    columns = reading.format.columns
    found = fields_of(names, columns)
    for ours, theirs in columns.items():
        if ours not in found:
            raise reading.error(f"columns: no column {theirs!r} for {ours}; expected one of {listed(labels)}")
    exact = [str(name).strip().casefold() for name in names]
    if "close" not in found and "last" in found:
        found["close"] = found["last"]
    roles = Roles(times=_times(found.get("time", []), exact))
    for role in (*PRICES, "volume", "ticks", "adj open", "adj high", "adj low", "adj close", "adj volume", "split"):
        positions = found.get(role, [])
        if len(positions) > 1:
            positions = [one for one in positions if exact[one] == role] or positions
        if len(positions) > 1:
            twice = listed(labels[position] for position in positions)
            raise reading.error(
                f"columns {twice} occur more than once or may each be the {role}: expected one of each; give columns"
            )
        if positions:
            roles.at[role] = positions[0]
    repeated = [name for name in ("time", "date", "datetime", "timestamp") if exact.count(name) > 1]
    if repeated:
        raise reading.error(f"columns {listed(repeated)} occur more than once: expected one of each")
    roles.symbol = next(iter(sorted(found.get("symbol", []), key=lambda p: _symbol_rank(names[p]))), None)
    roles.period = next(iter(found.get("period", [])), None)
    roles.hour = next(iter(found.get("hour", [])), None)
    roles.day_first = any(normal(names[position]) in _DAY_FIRST for position in found.get("time", []))
    return roles


def _times(positions: list[int], exact: Sequence[str]) -> list[int]:
    """Return columns that may be the time, numbers of seconds first: they leave no order open."""
    return sorted(positions, key=lambda position: (not exact[position].startswith(("unix", "epoch")), position))


def _symbol_rank(name: str) -> int:
    words = _WORDS["symbol"].split("|")
    return words.index(normal(name)) if normal(name) in words else len(words)
