"""Forms in which vendors give bars: one row a vendor.

A form never changes how a value is read that the source itself decides. It gives the source its name, and
says what a source cannot: the decimal sign where every number has three digits after it, the order of day and
month where no day is above twelve, the zone of its times, and whether they stamp a bar's open or its close.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FORMS", "Form", "form_of"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """One vendor's form.

    Parameters
    ----------
    name : str
        What a message calls it.
    header : str
        Names of columns, with commas; all must be there, in this writing. With ``exact``, no others.
    first : str
        A pattern of the shape of the first row's time, where digits are 0; its date and clock are joined by a
        comma where they stand apart.
    width : int
        Without a header: number of fields; 0 is any.
    delimiter : str
        The only one that this vendor uses; ``{`` for JSON, empty is any.
    order, decimal, zone, stamp : str, optional
        What the vendor documents.
    note : str
        What it leaves open, for the user.
    whole : str
        What prices may be in this form where all are whole numbers; they are refused then.
    """

    name: str
    header: str = ""
    exact: bool = False
    first: str = ""
    width: int = 0
    delimiter: str = ""
    order: str | None = None
    decimal: str | None = "."
    zone: str | None = None
    stamp: str | None = None
    note: str = ""
    whole: str = ""


_CHINA = "Asia/Shanghai"
_BROKER = "the broker's zone (often EET) is not stated: times taken as given"

FORMS = (
    # With a header
    Form(
        name="MetaTrader 5 export",
        header="<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<TICKVOL>",
        stamp="open",
        note=_BROKER,
    ),
    Form(
        name="CSV with Date and Time, as MetaTrader and others write it",
        header="Date,Time,Open,High,Low,Close,Volume",
        decimal=None,
    ),
    Form(
        name="Stooq database file",
        header="<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
    ),
    Form(name="Finam export", header="<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>"),
    Form(name="Stooq daily (Polish)", header="Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie", order="dmy"),
    Form(
        name="daily CSV as Stooq and others write it",
        header="Date,Open,High,Low,Close,Volume",
        exact=True,
        decimal=None,
    ),
    Form(
        name="daily CSV without volume, as Stooq and others write it",
        header="Date,Open,High,Low,Close",
        exact=True,
        decimal=None,
    ),
    Form(name="Yahoo Finance CSV", header="Date,Open,High,Low,Close,Adj Close,Volume", exact=True),
    Form(
        name="Yahoo Finance CSV (before 2017)", header="Date,Open,High,Low,Close,Volume,Adj Close", exact=True
    ),
    Form(name="yfinance history", header="Open,High,Low,Close,Volume,Dividends,Stock Splits"),
    Form(name="yfinance download", header="Ticker,Price"),  # its header has two lines
    Form(name="Nasdaq.com CSV", header="Date,Close/Last,Volume,Open,High,Low", order="mdy"),
    Form(name="Investing.com export", header="Date,Price,Open,High,Low,Change %"),
    Form(
        name="Investing.com export (German)",
        header="Datum,Zuletzt,Eröffn.,Hoch,Tief",
        order="dmy",
        decimal=",",
    ),
    Form(
        name="Investing.com export (Spanish)",
        header="Fecha,Último,Apertura,Máximo,Mínimo",
        order="dmy",
        decimal=",",
    ),
    Form(
        name="Investing.com export (French)",
        header="Date,Dernier,Ouv.,Plus Haut,Plus Bas",
        order="dmy",
        decimal=",",
    ),
    Form(
        name="Investing.com export (Italian)",
        header="Data,Ultimo,Apertura,Massimo,Minimo",
        order="dmy",
        decimal=",",
    ),
    Form(
        name="Investing.com export (Portuguese)",
        header="Data,Último,Abertura,Máxima,Mínima",
        order="dmy",
        decimal=",",
    ),
    Form(
        name="Alpha Vantage CSV (or dukascopy-node)",
        decimal=None,
        header="timestamp,open,high,low,close,volume",
        exact=True,
    ),
    Form(
        name="Alpha Vantage adjusted CSV",
        header="timestamp,open,high,low,close,adjusted_close,volume,dividend_amount,split_coefficient",
    ),
    Form(name="Alpha Vantage through pandas or JSON", header="1. open,2. high,3. low,4. close"),
    Form(name="Tiingo", header="date,close,high,low,open,volume,adjClose"),
    Form(name="EOD Historical Data", header="Date,Open,High,Low,Close,Adjusted_close,Volume"),
    Form(name="EOD Historical Data JSON", header="date,open,high,low,close,adjusted_close,volume"),
    Form(name="Quandl (WIKI)", header="Date,Open,High,Low,Close,Ex-Dividend,Split Ratio,Adj. Close"),
    Form(name="Quandl (CHRIS futures)", header="Date,Open,High,Low,Last,Settle,Volume"),
    Form(name="Polygon aggregates", header="v,vw,o,c,h,l,t"),
    Form(
        name="Polygon flat file",
        header="ticker,volume,open,close,high,low,window_start,transactions",
        zone="UTC",
    ),
    Form(name="Binance klines", header="open_time,open,high,low,close,volume,close_time", stamp="open"),
    Form(name="CryptoDataDownload", header="unix,date,symbol,open,high,low,close", zone="UTC", stamp="open"),
    Form(
        name="CryptoDataDownload (before 2020)",
        header="Unix Timestamp,Date,Symbol,Open,High,Low,Close",
        zone="UTC",
        stamp="open",
    ),
    Form(name="CryptoDataDownload without seconds", header="Date,Symbol,Open,High,Low,Close"),
    Form(name="ccxt through pandas", header=",timestamp,open,high,low,close,volume", exact=True),
    Form(name="TradingView export", header="time,open,high,low,close,Volume", stamp="open"),
    Form(
        name="Dukascopy export",
        header="Gmt time,Open,High,Low,Close,Volume",
        order="dmy",
        zone="UTC",
        stamp="open",
    ),
    Form(name="Dukascopy export", header="Local time,Open,High,Low,Close,Volume", order="dmy", stamp="open"),
    Form(name="Tushare", header="ts_code,trade_date,open,high,low,close", zone=_CHINA),
    Form(name="AkShare", header="日期,开盘,收盘,最高,最低", zone=_CHINA),
    Form(name="NetEase", header="日期,股票代码,名称,收盘价,最高价,最低价,开盘价", zone=_CHINA),
    Form(name="BaoStock", header="date,code,open,high,low,close,preclose", zone=_CHINA),
    Form(
        name="Interactive Brokers (ib_async)",
        header="date,open,high,low,close,volume,average,barCount",
        stamp="open",
    ),
    Form(
        name="Interactive Brokers (TWS API)",
        header="date,open,high,low,close,volume",
        first="0{8} +00:00:00.*",
        stamp="open",
    ),
    Form(name="Bloomberg", header="PX_OPEN,PX_HIGH,PX_LOW,PX_LAST"),
    Form(name="Refinitiv", header="OPEN_PRC,HIGH_1,LOW_1,TRDPRC_1"),
    Form(name="Refinitiv Workspace", header="Exchange Date,Close,Open,Low,High", decimal=None),
    Form(name="Barchart", header="Time,Open,High,Low,Last", order="mdy"),
    Form(name="Barchart", header="Time,Open,High,Low,Latest", order="mdy"),
    Form(name="Cboe index history", header="DATE,OPEN,HIGH,LOW,CLOSE", exact=True, order="mdy"),
    Form(name="Cboe VIX archive", header="Date,VIX Open,VIX High,VIX Low,VIX Close", order="mdy"),
    Form(name="FRED series", header="observation_date"),
    Form(name="FRED series", header="DATE", width=2),
    Form(name="OANDA candles", header="complete,time,mid", stamp="open", zone="UTC"),
    Form(
        name="Sierra Chart export", header="Date,Time,Open,High,Low,Last,Volume,NumberOfTrades", stamp="open"
    ),
    Form(
        name="TradeStation export", header="Date,Time,Open,High,Low,Close,Up,Down", order="mdy", stamp="close"
    ),
    Form(
        name="TradeStation daily export",
        header="Date,Time,Open,High,Low,Close,Vol,OI",
        order="mdy",
        stamp="close",
    ),
    Form(name="Norgate Data", header="Date,Open,High,Low,Close,Volume,Turnover,Unadjusted Close"),
    Form(name="CSI Data", header="Date,Open,High,Low,Close,Vol,OI"),
    Form(name="NSE India", header="Date,series,OPEN,HIGH,LOW,PREV. CLOSE,ltp,close", zone="Asia/Kolkata"),
    Form(name="Amibroker export", header="Ticker,Date/Time,Open,High,Low,Close"),
    Form(name="quantmod", header=".Open,.High,.Low,.Close"),
    Form(
        name="FirstRate Data or another without volume", decimal=None, header="timestamp,open,high,low,close"
    ),
    Form(name="bars of bt_llm", decimal=None, header="time,open,high,low,close,volume", exact=True),
    Form(name="a series of levels", decimal=None, header="time,close", exact=True),
    Form(name="CryptoDataDownload", header="Unix,Date,Symbol,Open,High,Low,Close", zone="UTC", stamp="open"),
    # JSON
    Form(name="Yahoo Finance chart JSON", header="timestamp,open,high,low,close,volume", delimiter="{"),
    Form(name="Finnhub or TradingView (UDF) JSON", header="t,o,h,l,c,v", delimiter="{"),
    Form(name="Twelve Data JSON", header="datetime,open,high,low,close,volume", delimiter="{"),
    Form(name="Coinbase candles JSON", first="0{10}", width=6, delimiter="{", stamp="open"),
    # Without a header
    Form(
        name="QuantConnect Lean",
        decimal=None,
        first="00000000 00:00",
        width=6,
        whole="ten-thousandths, as QuantConnect's Lean writes them: divide the prices by 10000 in a "
        "frame, or give decimal='.' if they are whole",
    ),
    Form(
        name="MetaTrader 4 or HistData",
        first=r"0000\.00\.00,00:00",
        width=7,
        stamp="open",
        note=_BROKER + "; HistData's are EST without daylight saving, zone='Etc/GMT+5'",
    ),
    Form(
        name="HistData or NinjaTrader",
        decimal=None,
        first=r"00000000 000000",
        delimiter=";",
        width=6,
        note="HistData: EST without daylight saving, zone='Etc/GMT+5', stamped at the open; "
        "NinjaTrader: stamped at the close",
    ),
    Form(name="NinjaTrader daily", decimal=None, first=r"00000000", delimiter=";", width=6, stamp="close"),
    Form(name="Binance klines", first=r"0{13}|0{16}", width=12, stamp="open"),
    Form(name="Kraken OHLCVT", first=r"0{10}", width=7, stamp="open"),
    Form(name="Kraken OHLC", first=r"0{10}", width=8, stamp="open"),
    Form(name="ccxt list", decimal=None, first=r"0{13}", width=6, stamp="open"),
    Form(
        name="FirstRate Data",
        decimal=None,
        first=r"0000-00-00( 00:00:00)?",
        width=6,
        stamp="open",
        note="FirstRate's stocks are in US Eastern time, zone='America/New_York'",
    ),
    Form(
        name="Kibot intraday",
        decimal=None,
        first=r"00/00/0000,00:00",
        width=7,
        note="Kibot's times are US Eastern, zone='America/New_York'",
    ),
    Form(name="Kibot daily", decimal=None, first=r"00/00/0000", width=6),
)


def form_of(names: Sequence[str] | None, delimiter: str, first: str, width: int) -> Form | None:
    """Return the form of a header, or of a first row where there is none; the one that says most.

    Parameters
    ----------
    names : sequence of str, optional
        The header.
    delimiter : str
        Between fields; empty where the source has none.
    first : str
        Shape of the first row's time; date and clock with a comma between where they stand apart.
    width : int
        Number of fields.
    """
    if names is None:
        fitting = [
            form
            for form in FORMS
            if not form.header
            and _begins(form, first)
            and form.width == width
            and form.delimiter in ("", delimiter)
        ]
    else:
        there = [str(name).strip().strip('\ufeff"') for name in names]
        fitting = [
            form
            for form in FORMS
            if form.header
            and _has(form, there)
            and _begins(form, first)
            and form.delimiter in ("", delimiter)
        ]
    return max(fitting, key=_says, default=None)


def _says(form: Form) -> tuple[int, bool, bool, bool]:
    """Return how much a form says: the one that says most is taken."""
    return form.header.count(","), bool(form.delimiter), form.exact, bool(form.first)


def _begins(form: Form, first: str) -> bool:
    return not form.first or re.fullmatch(form.first, first) is not None


def _has(form: Form, names: Sequence[str]) -> bool:
    wanted = form.header.split(",")
    if form.width and len(names) != form.width:
        return False
    if form.exact:
        return list(names) == wanted
    if form.name == "quantmod":
        return all(any(name.endswith(one) for name in names) for one in wanted)
    return set(wanted) <= set(names)
