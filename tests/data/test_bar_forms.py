"""Files as vendors give them: each kind is recognised by name, and read right."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd
import pytest

from bt_llm.data import load_bars, load_many
from bt_llm.exceptions import DataError
from tests.data.bar_cases import Writer, refused

FIRST = [10.5, 11.25, 10.25, 11.0, 1200.0]
LAST = [11.0, 11.5, 10.75, 11.25, 900.0]
DAYS = ("2021-03-12", "2021-03-15")
MINUTES = ("2021-03-12 09:30", "2021-03-12 09:31")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A file of two bars: those above, unless it says otherwise."""

    text: str
    form: str
    times: tuple[str, str] = DAYS
    first: tuple[float, ...] = tuple(FIRST)
    last: tuple[float, ...] = tuple(LAST)
    zone: str | None = None


NO_VOLUME = ((*FIRST[:4], 0.0), (*LAST[:4], 0.0))
SAMPLES = {
    "yahoo": Sample(
        form="Yahoo Finance CSV",
        text="Date,Open,High,Low,Close,Adj Close,Volume\n"
        "2021-03-12,10.5,11.25,10.25,11,10.9,1200\n2021-03-15,11,11.5,10.75,11.25,11.15,900\n",
    ),
    "yahoo before 2017": Sample(
        form="Yahoo Finance CSV (before 2017)",
        text="Date,Open,High,Low,Close,Volume,Adj Close\n"
        "2021-03-15,11,11.5,10.75,11.25,900,11.15\n2021-03-12,10.5,11.25,10.25,11,1200,10.9\n",
    ),
    "yahoo with a row of nulls": Sample(
        form="Yahoo Finance CSV",
        text="Date,Open,High,Low,Close,Adj Close,Volume\n2021-03-12,10.5,11.25,10.25,11,11,1200\n"
        "2021-03-13,null,null,null,null,null,null\n2021-03-15,11,11.5,10.75,11.25,11.25,900\n",
    ),
    "yfinance download": Sample(
        form="yfinance download",
        text="Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDate,,,,,\n"
        "2021-03-12,11,11.25,10.25,10.5,1200\n2021-03-15,11.25,11.5,10.75,11,900\n",
    ),
    "yfinance download by ticker": Sample(
        form="yfinance download",
        text="Ticker,A,A,A,A,A\nPrice,Open,High,Low,Close,Volume\nDate,,,,,\n"
        "2021-03-12,10.5,11.25,10.25,11,1200\n2021-03-15,11,11.5,10.75,11.25,900\n",
    ),
    "yfinance history": Sample(
        form="yfinance history",
        text="Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"
        "2021-03-12 00:00:00-05:00,10.5,11.25,10.25,11,1200,0.0,0.0\n"
        "2021-03-15 00:00:00-04:00,11,11.5,10.75,11.25,900,0.0,0.0\n",
    ),
    "metatrader 5": Sample(
        form="MetaTrader 5 export",
        times=MINUTES,
        text="<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\r\n"
        "2021.03.12\t09:30:00\t10.5\t11.25\t10.25\t11\t1200\t0\t3\r\n"
        "2021.03.12\t09:31:00\t11\t11.5\t10.75\t11.25\t900\t0\t3\r\n",
    ),
    "metatrader 4": Sample(
        form="MetaTrader 4 or HistData",
        times=MINUTES,
        first=(108.501, 108.625, 108.425, 108.601, 1200.0),
        last=(108.602, 108.755, 108.575, 108.725, 900.0),
        text="2021.03.12,09:30,108.501,108.625,108.425,108.601,1200\n"
        "2021.03.12,09:31,108.602,108.755,108.575,108.725,900\n",
    ),
    "histdata or ninjatrader": Sample(
        form="HistData or NinjaTrader",
        times=MINUTES,
        text="20210312 093000;10.5;11.25;10.25;11;1200\n20210312 093100;11;11.5;10.75;11.25;900\n",
    ),
    "stooq database": Sample(
        form="Stooq database file",
        text="<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "A.US,D,20210312,000000,10.5,11.25,10.25,11,1200,0\nA.US,D,20210315,000000,11,11.5,10.75,11.25,900,0\n",
    ),
    "stooq in Polish": Sample(
        form="Stooq daily (Polish)",
        text="Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie,Wolumen\n"
        "2021-03-12,10.5,11.25,10.25,11,1200\n2021-03-15,11,11.5,10.75,11.25,900\n",
    ),
    "finam": Sample(
        form="Finam export",
        times=MINUTES,
        text="<TICKER>;<PER>;<DATE>;<TIME>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>\n"
        "A;1;20210312;093000;10.5;11.25;10.25;11;1200\nA;1;20210312;093100;11;11.5;10.75;11.25;900\n",
    ),
    "nasdaq.com": Sample(
        form="Nasdaq.com CSV",
        text="Date,Close/Last,Volume,Open,High,Low\n"
        "03/15/2021,$11.25,900,$11.00,$11.50,$10.75\n03/12/2021,$11.00,1200,$10.50,$11.25,$10.25\n",
    ),
    "investing.com": Sample(
        form="Investing.com export",
        last=(11.0, 11.5, 10.75, 11.25, 900.0),
        text='\ufeff"Date","Price","Open","High","Low","Vol.","Change %"\n'
        '"03/15/2021","11.25","11.00","11.50","10.75","0.90K","0.1%"\n'
        '"03/12/2021","11.00","10.50","11.25","10.25","1.20K","0.1%"\n',
    ),
    "investing.com in German": Sample(
        form="Investing.com export (German)",
        first=(14520.41, 14574.24, 14432.72, 14502.39, 65_500_000.0),
        last=(14502.39, 14523.05, 14424.6, 14461.42, 63_620_000.0),
        text='"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"\n'
        '"15.03.2021","14.461,42","14.502,39","14.523,05","14.424,60","63,62M","-0,28%"\n'
        '"12.03.2021","14.502,39","14.520,41","14.574,24","14.432,72","65,50M","-0,46%"\n',
    ),
    "ariva in German": Sample(
        form="CSV",
        text="Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke;Volumen\n"
        "2021-03-12;10,50;11,25;10,25;11,00;1.200;13.500\n2021-03-15;11,00;11,50;10,75;11,25;900;10.100\n",
    ),
    "alpha vantage": Sample(
        form="Alpha Vantage CSV (or dukascopy-node)",
        text="timestamp,open,high,low,close,volume\n"
        "2021-03-15,11,11.5,10.75,11.25,900\n2021-03-12,10.5,11.25,10.25,11,1200\n",
    ),
    "alpha vantage through pandas": Sample(
        form="Alpha Vantage through pandas or JSON",
        text="date,1. open,2. high,3. low,4. close,5. volume\n"
        "2021-03-15,11,11.5,10.75,11.25,900\n2021-03-12,10.5,11.25,10.25,11,1200\n",
    ),
    "tiingo": Sample(
        form="Tiingo",
        text="symbol,date,close,high,low,open,volume,adjClose\n"
        "A,2021-03-12 00:00:00+00:00,11,11.25,10.25,10.5,1200,10.9\n"
        "A,2021-03-15 00:00:00+00:00,11.25,11.5,10.75,11,900,11.15\n",
        zone="UTC",
    ),
    "eod historical data": Sample(
        form="EOD Historical Data",
        text="Date,Open,High,Low,Close,Adjusted_close,Volume\n"
        "2021-03-12,10.5,11.25,10.25,11,10.9,1200\n2021-03-15,11,11.5,10.75,11.25,11.15,900\n",
    ),
    "polygon": Sample(
        form="Polygon aggregates",
        zone="UTC",
        text="v,vw,o,c,h,l,t,n\n1200,10.9,10.5,11,11.25,10.25,1615507200000,5\n"
        "900,11.1,11,11.25,11.5,10.75,1615766400000,5\n",
    ),
    "binance": Sample(
        form="Binance klines",
        zone="UTC",
        text="1615507200000,10.5,11.25,10.25,11,1200,1615507259999,1,1,1,1,0\n"
        "1615766400000,11,11.5,10.75,11.25,900,1615766459999,1,1,1,1,0\n",
    ),
    "binance in microseconds": Sample(
        form="Binance klines",
        zone="UTC",
        text="1615507200000000,10.5,11.25,10.25,11,1200,1615507259999999,1,1,1,1,0\n"
        "1615766400000000,11,11.5,10.75,11.25,900,1615766459999999,1,1,1,1,0\n",
    ),
    "kraken": Sample(
        form="Kraken OHLCVT",
        zone="UTC",
        text="1615507200,10.5,11.25,10.25,11,1200,5\n1615766400,11,11.5,10.75,11.25,900,5\n",
    ),
    "cryptodatadownload": Sample(
        form="CryptoDataDownload",
        zone="UTC",
        text="https://www.CryptoDataDownload.com\n"
        "unix,date,symbol,open,high,low,close,Volume BTC,Volume USD\n"
        "1615766400,2021-03-15 00:00:00,BTC/USD,11,11.5,10.75,11.25,900,9000\n"
        "1615507200,2021-03-12 00:00:00,BTC/USD,10.5,11.25,10.25,11,1200,12000\n",
    ),
    "cryptodatadownload with am and pm": Sample(
        form="CryptoDataDownload without seconds",
        times=("2021-03-12 09:00", "2021-03-12 22:00"),
        text="Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD\n"
        "2021-03-12 10-PM,BTCUSD,11,11.5,10.75,11.25,900,1\n"
        "2021-03-12 09-AM,BTCUSD,10.5,11.25,10.25,11,1200,1\n",
    ),
    "ccxt through pandas": Sample(
        form="ccxt through pandas",
        zone="UTC",
        text=",timestamp,open,high,low,close,volume\n"
        "0,1615507200000,10.5,11.25,10.25,11,1200\n1,1615766400000,11,11.5,10.75,11.25,900\n",
    ),
    "tradingview": Sample(
        form="TradingView export",
        zone="UTC",
        times=("2021-03-12 14:30", "2021-03-12 14:31"),
        text="time,open,high,low,close,Volume,Volume MA\n"
        "2021-03-12T09:30:00-05:00,10.5,11.25,10.25,11,1200,1\n"
        "2021-03-12T09:31:00-05:00,11,11.5,10.75,11.25,900,1\n",
    ),
    "dukascopy": Sample(
        form="Dukascopy export",
        zone="UTC",
        times=("2021-03-02 09:30", "2021-03-02 09:31"),
        text="Gmt time,Open,High,Low,Close,Volume\n"
        "02.03.2021 09:30:00.000,10.5,11.25,10.25,11,1200\n02.03.2021 09:31:00.000,11,11.5,10.75,11.25,900\n",
    ),
    "dukascopy in local time": Sample(
        form="Dukascopy export",
        zone="UTC",
        times=("2021-03-02 08:30", "2021-03-02 08:31"),
        text="Local time,Open,High,Low,Close,Volume\n"
        "02.03.2021 09:30:00.000 GMT+0100,10.5,11.25,10.25,11,1200\n"
        "02.03.2021 09:31:00.000 GMT+0100,11,11.5,10.75,11.25,900\n",
    ),
    "tushare": Sample(
        form="Tushare",
        zone="Asia/Shanghai",
        text="ts_code,trade_date,open,high,low,close,pre_close,vol,amount\n"
        "000001.SZ,20210315,11,11.5,10.75,11.25,11,900,1\n000001.SZ,20210312,10.5,11.25,10.25,11,10,1200,1\n",
    ),
    "akshare": Sample(
        form="AkShare",
        zone="Asia/Shanghai",
        text="日期,股票代码,开盘,收盘,最高,最低,成交量,成交额\n"
        "2021-03-12,000001,10.5,11,11.25,10.25,1200,1\n2021-03-15,000001,11,11.25,11.5,10.75,900,1\n",
    ),
    "netease": Sample(
        form="NetEase",
        zone="Asia/Shanghai",
        text="日期,股票代码,名称,收盘价,最高价,最低价,开盘价,前收盘,成交量\n"
        "2021-03-15,'000001,平安,11.25,11.5,10.75,11,11,900\n2021-03-12,'000001,平安,11,11.25,10.25,10.5,10,1200\n",
    ),
    "baostock": Sample(
        form="BaoStock",
        zone="Asia/Shanghai",
        text="date,code,open,high,low,close,preclose,volume,amount\n"
        "2021-03-12,sh.600000,10.5,11.25,10.25,11,10,1200,1\n2021-03-15,sh.600000,11,11.5,10.75,11.25,11,900,1\n",
    ),
    "interactive brokers": Sample(
        form="Interactive Brokers (TWS API)",
        zone="UTC",
        times=("2021-03-12 14:30", "2021-03-12 14:31"),
        text="date,open,high,low,close,volume\n20210312 09:30:00 US/Eastern,10.5,11.25,10.25,11,1200\n"
        "20210312 09:31:00 US/Eastern,11,11.5,10.75,11.25,900\n",
    ),
    "bloomberg with a preamble": Sample(
        form="Bloomberg",
        text="Security,A US Equity\nStart Date,3/12/2021\n\nDate,PX_OPEN,PX_HIGH,PX_LOW,PX_LAST,PX_VOLUME\n"
        "3/12/2021,10.5,11.25,10.25,11,1200\n3/15/2021,11,11.5,10.75,11.25,900\n",
    ),
    "barchart with a footer": Sample(
        form="Barchart",
        text="Symbol,Time,Open,High,Low,Latest,Change,%Change,Volume\n"
        'A,2021-03-15,11,11.5,10.75,11.25,0.25,"+2.27%",900\nA,2021-03-12,10.5,11.25,10.25,11,0.1,"+0.9%",1200\n'
        '"Downloaded from Barchart.com as of 03-16-2021 03:45pm CDT"\n',
    ),
    "cboe": Sample(
        form="Cboe index history",
        times=("2021-03-02", "2021-03-03"),
        first=NO_VOLUME[0],
        last=NO_VOLUME[1],
        text="DATE,OPEN,HIGH,LOW,CLOSE\n03/02/2021,10.5,11.25,10.25,11\n03/03/2021,11,11.5,10.75,11.25\n",
    ),
    "cboe archive": Sample(
        form="Cboe VIX archive",
        times=("2021-03-02", "2021-03-03"),
        first=NO_VOLUME[0],
        last=NO_VOLUME[1],
        text='"This file is for information only."\nDate,VIX Open,VIX High,VIX Low,VIX Close\n'
        "3/2/2021,10.5,11.25,10.25,11\n3/3/2021,11,11.5,10.75,11.25\n",
    ),
    "fred": Sample(
        form="FRED series",
        first=(1.64, 1.64, 1.64, 1.64, 0.0),
        last=(1.62, 1.62, 1.62, 1.62, 0.0),
        text="observation_date,DGS10\n2021-03-12,1.64\n2021-03-14,.\n2021-03-15,1.62\n",
    ),
    "tradestation": Sample(
        form="TradeStation export",
        times=("2021-03-02 09:30", "2021-03-02 09:31"),
        text='"Date","Time","Open","High","Low","Close","Up","Down"\n'
        "03/02/2021,09:30,10.5,11.25,10.25,11,700,500\n03/02/2021,09:31,11,11.5,10.75,11.25,500,400\n",
    ),
    "sierra chart": Sample(
        form="Sierra Chart export",
        times=MINUTES,
        text="Date, Time, Open, High, Low, Last, Volume, NumberOfTrades, BidVolume, AskVolume\n"
        "2021/3/12, 09:30:00, 10.5, 11.25, 10.25, 11, 1200, 5, 1, 1\n"
        "2021/3/12, 09:31:00, 11, 11.5, 10.75, 11.25, 900, 5, 1, 1\n",
    ),
    "nse india": Sample(
        form="NSE India",
        zone="Asia/Kolkata",
        first=(2217.9, 2229.75, 2127.9, 2137.6, 8451386.0),
        last=(2150.0, 2163.55, 2103.1, 2126.2, 7451386.0),
        text='"Date ","series ","OPEN ","HIGH ","LOW ","PREV. CLOSE ","ltp ","close ","VOLUME "\n'
        '"15-Mar-2021","EQ","2,150.00","2,163.55","2,103.10","2,137.60","2,126.00","2,126.20","74,51,386"\n'
        '"12-Mar-2021","EQ","2,217.90","2,229.75","2,127.90","2,181.65","2,134.00","2,137.60","84,51,386"\n',
    ),
    "quantmod": Sample(
        form="quantmod",
        text='"","A.Open","A.High","A.Low","A.Close","A.Volume","A.Adjusted"\n'
        '"2021-03-12",10.5,11.25,10.25,11,1200,10.9\n"2021-03-15",11,11.5,10.75,11.25,900,11.15\n',
    ),
    "backtrader's days": Sample(
        form="CSV",
        text="Date,Open,High,Low,Close,Volume,OpenInterest\n"
        "2021-03-12,10.5,11.25,10.25,11,1200,0\n2021-03-15,11,11.5,10.75,11.25,900,0\n",
    ),
    "backtrader's minutes": Sample(
        form="CSV with Date and Time, as MetaTrader and others write it",
        times=MINUTES,
        text="Date,Time,Open,High,Low,Close,Volume,OpenInterest\n"
        "2021-03-12,09:30:00,10.5,11.25,10.25,11,1200,0\n2021-03-12,09:31:00,11,11.5,10.75,11.25,900,0\n",
    ),
    "firstrate": Sample(
        form="FirstRate Data",
        times=MINUTES,
        text="2021-03-12 09:30:00,10.5,11.25,10.25,11,1200\n2021-03-12 09:31:00,11,11.5,10.75,11.25,900\n",
    ),
    "kibot": Sample(
        form="Kibot intraday",
        times=("2021-03-12 09:30", "2021-03-15 09:31"),
        text="03/12/2021,09:30,10.5,11.25,10.25,11,1200\n03/15/2021,09:31,11,11.5,10.75,11.25,900\n",
    ),
    "end of day with the ticker first": Sample(
        form="CSV",
        text="A,20210312,10.5,11.25,10.25,11,1200\nA,20210315,11,11.5,10.75,11.25,900\n",
    ),
    "excel in German": Sample(
        form="CSV",
        text="Kurse;;;;;\nStand: 15.03.2021;;;;;\n;;;;;\nDatum;Eröffnung;Hoch;Tief;Schluss;Volumen\n"
        "12.03.2021;10,50;11,25;10,25;11,00;1200\n15.03.2021;11,00;11,50;10,75;11,25;900\n;;;;;\n",
    ),
    "twelve hours": Sample(
        form="daily CSV as Stooq and others write it",
        times=("2021-03-12 09:30", "2021-03-13 12:30"),
        text="Date,Open,High,Low,Close,Volume\n3/12/2021 9:30:00 AM,10.5,11.25,10.25,11,1200\n"
        "3/13/2021 12:30:00 PM,11,11.5,10.75,11.25,900\n",
    ),
    "an hour of its own": Sample(
        form="CSV",
        times=("2021-03-12 09:00", "2021-03-12 10:00"),
        text="Date,Hour,Open,High,Low,Close,Volume\n"
        "2021-03-12,9,10.5,11.25,10.25,11,1200\n2021-03-12,10,11,11.5,10.75,11.25,900\n",
    ),
}  # fmt: skip
NUMBERED = ("1. open", "2. high", "3. low", "4. close", "5. volume")
OANDA = [dict(zip("ohlc", map(str, bar[:4]), strict=True)) for bar in (FIRST, LAST)]
JSON: dict[str, tuple[object, str]] = {
    "ccxt list": (
        [[1615507200000, 10.5, 11.25, 10.25, 11, 1200], [1615766400000, 11, 11.5, 10.75, 11.25, 900]],
        "ccxt list",
    ),
    "coinbase": (
        [[1615766400, 10.75, 11.5, 11, 11.25, 900], [1615507200, 10.25, 11.25, 10.5, 11, 1200]],
        "Coinbase candles JSON",
    ),
    "kraken": (
        {
            "error": [],
            "result": {
                "XBTUSD": [
                    [1615507200, "10.5", "11.25", "10.25", "11", "10.9", "1200", 5],
                    [1615766400, "11", "11.5", "10.75", "11.25", "11.1", "900", 5],
                ],
                "last": 1,
            },
        },
        "Kraken OHLC",
    ),
    "polygon": (
        {
            "ticker": "A",
            "results": [
                dict(zip("ohlcv", FIRST, strict=True), vw=10.9, t=1615507200000, n=5),
                dict(zip("ohlcv", LAST, strict=True), vw=11.1, t=1615766400000, n=5),
            ],
        },
        "Polygon aggregates",
    ),
    "alpha vantage": (
        {
            "Meta Data": {"1. Information": "Daily"},
            "Time Series (Daily)": {
                "2021-03-15": dict(zip(NUMBERED, map(str, LAST), strict=True)),
                "2021-03-12": dict(zip(NUMBERED, map(str, FIRST), strict=True)),
            },
        },
        "Alpha Vantage through pandas or JSON",
    ),
    "yahoo's chart": (
        {
            "chart": {
                "result": [
                    {
                        "meta": {"regularMarketPrice": 3},
                        "timestamp": [1615507200, 1615766400],
                        "indicators": {
                            "quote": [
                                {
                                    "open": [10.5, 11],
                                    "high": [11.25, 11.5],
                                    "low": [10.25, 10.75],
                                    "close": [11, 11.25],
                                    "volume": [1200, 900],
                                }
                            ]
                        },
                    }
                ]
            }
        },
        "Yahoo Finance chart JSON",
    ),
    "finnhub": (
        {"s": "ok", "t": [1615507200, 1615766400], **{"ohlcv"[at]: [FIRST[at], LAST[at]] for at in range(5)}},
        "Finnhub or TradingView (UDF) JSON",
    ),
    "oanda": (
        {
            "candles": [
                {"complete": True, "volume": 1200, "time": "2021-03-12T00:00:00.000000000Z", "mid": OANDA[0]},
                {"complete": True, "volume": 900, "time": "2021-03-15T00:00:00.000000000Z", "mid": OANDA[1]},
            ]
        },
        "OANDA candles",
    ),
    "pandas": (
        {
            "open": {"1615507200000": 10.5, "1615766400000": 11},
            "high": {"1615507200000": 11.25, "1615766400000": 11.5},
            "low": {"1615507200000": 10.25, "1615766400000": 10.75},
            "close": {"1615507200000": 11, "1615766400000": 11.25},
            "volume": {"1615507200000": 1200, "1615766400000": 900},
        },
        "bars of bt_llm",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_vendors_file_is_recognised_and_read(write: Writer, sample: Sample) -> None:
    bars = load_bars(write(sample.text))
    assert list(bars.index) == [pd.Timestamp(time) for time in sample.times]
    assert bars.to_numpy().tolist() == [list(sample.first), list(sample.last)]
    source = bars.attrs["source"]
    assert (source["form"], source["zone"]) == (sample.form, sample.zone)
    json.dumps(bars.attrs)


@pytest.mark.parametrize("name", JSON)
def test_json_of_the_known_forms_is_read(write: Writer, name: str) -> None:
    value, form = JSON[name]
    bars = load_bars(write(json.dumps(value), "bars.json"))
    assert list(bars.index) == [pd.Timestamp(day) for day in DAYS]
    assert bars.to_numpy().tolist() == [FIRST, LAST]
    assert bars.attrs["source"]["form"] == form


def test_json_of_a_line_a_bar_is_read(write: Writer) -> None:
    records = [
        dict(zip("tohlcv", (1615507200, *FIRST), strict=True)),
        dict(zip("tohlcv", (1615766400, *LAST), strict=True)),
    ]
    assert load_bars(write("\n".join(map(json.dumps, records)), "bars.jsonl")).to_numpy().tolist() == [
        FIRST,
        LAST,
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "no bars in it"),
        (
            '{"a": [{"close": 1, "time": "2021-03-12"}], "b": [{"close": 2, "time": "2021-03-12"}]}',
            "2 tables",
        ),
        ("[" * 3000 + "]" * 3000, "JSON"),
    ],
)
def test_json_without_one_table_is_refused(write: Writer, text: str, why: str) -> None:
    assert why in refused(write(text, "bars.json"))


TWO_TICKERS = (
    "Price,Close,Close,High,High,Low,Low,Open,Open\nTicker,A,B,A,B,A,B,A,B\nDate,,,,,,,,\n"
    "2021-03-12,11,21,11.25,21.25,10.25,20.25,10.5,20.5\n2021-03-15,11.25,21.25,11.5,21.5,10.75,20.75,11,21\n"
)
LONG = (
    "date,open,high,low,close,volume,Name\n"
    "2021-03-12,1,1,1,1,5,A\n2021-03-12,2,2,2,2,6,B\n2021-03-15,3,3,3,3,7,A\n"
)
WIDE = "time,A.open,A.high,A.low,A.close,B.open,B.high,B.low,B.close\n2021-03-12,1,1,1,1,2,2,2,2\n"


@pytest.mark.parametrize("text", [TWO_TICKERS, LONG, WIDE])
def test_several_instruments_are_asked_for_or_read_together(write: Writer, text: str) -> None:
    path = write(text)
    message = refused(path)
    assert "bars of 2 tickers, 'A', 'B'" in message
    assert "give symbol, or read all with load_many" in message
    found = load_many(path)
    assert list(found) == ["A", "B"]
    for name, bars in found.items():
        one = load_bars(path, symbol=name)
        pd.testing.assert_frame_equal(bars, one)
        assert bars.attrs["source"]["symbol"] == one.attrs["source"]["symbol"] == name
    assert "symbol='C': expected one of 'A', 'B'" in refused(path, symbol="C")


def test_an_instrument_is_not_looked_for_where_none_is_named(write: Writer) -> None:
    path = write("time,close\n2021-03-12,1\n")
    for read in (load_bars, load_many):
        with pytest.raises(DataError, match="symbol='A': no instrument is named in it; leave symbol out"):
            read(path, symbol="A")


def test_instruments_whose_times_have_nothing_in_common_are_warned_of(write: Writer) -> None:
    found = load_many(write("date,close,ticker\n2021-03-12,1,A\n2021-03-15,1,A\n2022-03-15,2,B\n"))
    assert found["B"].attrs["warnings"] == [
        "the times of 'B' have nothing in common with those of the others"
    ]


def test_bars_of_several_lengths_in_one_file_are_refused(write: Writer) -> None:
    header = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n"
    text = header + "A,D,20210312,000000,1,1,1,1,1\nA,5,20210315,093000,1,1,1,1,1\n"
    assert "bars of several lengths, '5', 'D'" in refused(write(text))


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("Date,Open,High,Low,Close\n01/02/2021,1.5,1.5,1.5,1.5\n01/03/2021,1.5,1.5,1.5,1.5\n", "day_first"),
        ("Date,Open,High,Low,Close\n2021-03-12,23.477,23.622,23.474,23.600\n", "decimal="),
        ("Date,Open,High,Low,Last,Settle\n2021-03-12,1,1,1,1,1.5\n", "columns"),
        ("20210312 00:00,1210000,1213000,1190000,1210300,88105050\n", "decimal='.'"),
        (
            "date,open,high,low,close,adjOpen,adjHigh,adjLow,adjClose\n2021-03-12,8,8,8,8,4,4,4,4\n",
            "adjusted=True",
        ),
    ],
)
def test_what_two_readings_leave_open_is_refused_with_the_option_that_decides(
    write: Writer, text: str, option: str
) -> None:
    assert option in refused(write(text))


def test_the_option_decides(write: Writer) -> None:
    path = write("Date,Open,High,Low,Last,Settle\n01/02/2021,23.477,23.622,23.474,23.600,23.500\n")
    stated = {"columns": {"close": "Settle"}, "day_first": True}
    assert load_bars(path, decimal=".", **stated).iloc[0].to_list() == [23.477, 23.622, 23.474, 23.5, 0.0]
    bars = load_bars(path, decimal=",", **stated)
    assert bars.iloc[0].to_list() == [23477, 23622, 23474, 23500, 0]
    assert list(bars.index) == [pd.Timestamp("2021-02-01")]
