"""What columns are called: one table a language, to which words are easily added."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DAY_FIRST", "ROLES", "SYMBOLS", "Language"]


@dataclass(frozen=True, kw_only=True)
class Language:
    """Names of columns in one language, in lower case and without marks, `|` between them.

    ``last`` is a close where no column is called one; ``turnover`` is the volume where none is.
    """

    day_first: bool = False
    time: str = ""
    open: str = ""
    high: str = ""
    low: str = ""
    close: str = ""
    last: str = ""
    volume: str = ""
    turnover: str = ""


_LANGUAGES = (
    Language(  # English, and what vendors call columns in their interfaces
        time="time|date|datetime|timestamp|date time|gmt time|local time|utc time|unix|unix timestamp"
        "|unixtime|epoch|open time|start time|trade date|trading date|trade time|exchange date|begin"
        "|observation date|candle begin time|kline open time|t|tradedate|day|caldt|datadate|date gmt"
        "|time utc|date utc|dt|window start",
        open="open|open price|opening price|px open|open prc|opening|trade open|openprice|first",
        high="high|high price|px high|high 1|max|maximum|trade high|highprice",
        low="low|low price|px low|low 1|min|minimum|trade low|lowprice",
        close="close|close price|closing price|close last|trade close|closeprice|closing",
        last="last|last price|px last|trdprc 1|price|settle|settlement|settlement price|settle price|latest",
        volume="volume|vol|px volume|acvol uns|total volume|volume traded|trade volume|shares|shares traded"
        "|volume base|base volume|tottrdqty|volume shares|total trade quantity|volumefrom|no of shares",
    ),
    Language(  # German: the volume is money where the shares stand beside it
        day_first=True,
        time="datum|zeit|zeitstempel",
        open="erster|eröffnung|eröffn|eröffnungskurs|start|anfang",
        high="hoch|höchst|höchstkurs|tageshoch",
        low="tief|tiefst|tiefstkurs|tagestief",
        close="schluss|schlusskurs",
        last="zuletzt|letzter|kurs",
        volume="stuecke|stücke",
        turnover="volumen|umsatz",
    ),
    Language(  # French
        open="ouverture|ouv",
        high="plus haut|haut|+ haut",
        low="plus bas|bas|+ bas",
        close="clôture|cloture",
        last="dernier",
        volume="volumes",
    ),
    Language(  # Spanish
        day_first=True,
        time="fecha",
        open="apertura",
        high="máximo|máx|maximo",
        low="mínimo|mín|minimo",
        close="cierre",
        last="último|ultimo",
    ),
    Language(  # Italian and Portuguese
        day_first=True,
        time="data",
        open="abertura",
        high="massimo|máxima|maxima",
        low="mínima|minima",
        close="chiusura|fechamento",
    ),
    Language(  # Dutch
        time="tijd", high="hoog", low="laag", close="slot", last="laatste"
    ),
    Language(  # Polish
        day_first=True,
        open="otwarcie",
        high="najwyzszy|najwyższy",
        low="najnizszy|najniższy",
        close="zamkniecie|zamknięcie",
        volume="wolumen",
    ),
    Language(  # Russian
        day_first=True,
        time="дата|время",
        open="открытие|откр",
        high="макс|высокий",
        low="мин|низкий",
        close="закрытие",
        last="цена",
        volume="объём|объем",
    ),
    Language(  # Turkish
        day_first=True,
        time="tarih",
        open="aç\u0131l\u0131ş",
        high="yüksek",
        low="düşük",
        close="kapan\u0131ş",
        last="şimdi",
        volume="hacim|hac",
    ),
    Language(  # Chinese
        time="日期|时间|交易日期|交易时间",
        open="开盘|开盘价",
        high="最高|最高价|高",
        low="最低|最低价|低",
        close="收盘|收盘价",
        volume="成交量|交易量",
    ),
    Language(  # Japanese
        time="日付|日付け", open="始値", high="高値", low="安値", close="終値", volume="出来高"
    ),
    Language(  # Korean
        time="날짜|일자", open="시가|오픈", high="고가", low="저가", close="종가", volume="거래량"
    ),
)
SYMBOLS = [
    "ticker",
    "symbol",
    "ts code",
    "act symbol",
    "tic",
    "instrument",
    "ric",
    "股票代码",
    "证券代码",
    "代码",
    "sym",
    "pair",
    "contract",
    "isin",
    "code",
    "security",
    "stock",
    "permno",
    "asset",
    "coin",
    "tickers",
    "symbols",
    "epic",
    "name",
    "名称",
    "股票名称",
]
"""Names of the column of the instrument, the surest first."""

_OTHERS = {
    "ticks": "tickvol|tick volume|tick vol",
    "up": "up|up volume",
    "down": "down|down volume",
    "adj open": "adj open|adjusted open",
    "adj high": "adj high|adjusted high",
    "adj low": "adj low|adjusted low",
    "adj close": "adj close|adjclose|adjusted close|adjusted|close adj|closeadj|adjusted closing price",
    "adj volume": "adj volume|adjusted volume",
    "split": "split ratio|split factor|split coefficient|splits|stock splits|split",
    "period": "per|period|timeframe|interval|resolution|granularity",
    "hour": "hour|hr|stunde",
}
_FIELDS = ("time", "open", "high", "low", "close", "last", "volume", "turnover")

ROLES: dict[str, str] = {
    **{word: role for role, words in _OTHERS.items() for word in words.split("|")},
    **dict.fromkeys(SYMBOLS, "symbol"),
    **{
        word: role for one in _LANGUAGES for role in _FIELDS for word in getattr(one, role).split("|") if word
    },
}
"""Role of a column by its name."""

DAY_FIRST = frozenset(word for one in _LANGUAGES if one.day_first for word in one.time.split("|"))
"""Names of the time in languages whose dates begin with the day."""
