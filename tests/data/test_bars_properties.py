"""Bars of any kind: they come back equal, or are refused."""

from __future__ import annotations

import datetime as dt
import json
import random
import string
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.data import COLUMNS, bars_sha256, load_bars
from bt_llm.exceptions import DataError

prices = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda price: abs(price) > 1e-30)  # others are refused
instants = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Valid bars, oldest first."""
    times = sorted(draw(st.lists(instants, min_size=1, max_size=8, unique=True)))
    rows = []
    for _ in times:
        low, first, second, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        opened, close = (first, second) if draw(st.booleans()) else (second, first)
        rows.append([opened, high, low, close, draw(st.floats(0, 1e12))])
    return pd.DataFrame(rows, index=pd.DatetimeIndex(times, name="time"), columns=list(COLUMNS))


@settings(max_examples=40, deadline=None)
@given(frame=frames(), seed=st.integers(0, 999))
def test_bars_survive_a_csv_in_any_order_of_rows_and_columns(
    tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, seed: int
) -> None:
    bars = load_bars(frame)
    assert bars.attrs["repairs"] == []
    pd.testing.assert_frame_equal(bars, frame.set_axis(pd.DatetimeIndex(frame.index).as_unit("ns")))
    shuffled = random.Random(seed)
    rows = shuffled.sample(range(len(frame)), len(frame))
    columns = shuffled.sample(["time", *COLUMNS], 6)
    path = tmp_path_factory.mktemp("csv") / "bars.csv"
    table = frame.reset_index().iloc[rows][columns]
    path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *table.itertuples(index=False)]))
    assert bars_sha256(load_bars(path)) == bars_sha256(bars)


VENDORS: dict[str, Callable[[pd.DataFrame], str]] = {  # bars as text, in full precision
    "yahoo": lambda bars: lines(
        "Date,Open,High,Low,Close,Adj Close,Volume", "{t:%Y-%m-%d},{o},{h},{l},{c},{c},{v}", bars
    ),
    "metatrader 5": lambda bars: lines(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>",
        "{t:%Y.%m.%d}\t{t:%H:%M:%S}\t{o}\t{h}\t{l}\t{c}\t{v}\t0",
        bars,
    ),
    "metatrader 4": lambda bars: lines("", "{t:%Y.%m.%d},{t:%H:%M},{o},{h},{l},{c},{v}", bars),
    "binance": lambda bars: lines("", "{s}000,{o},{h},{l},{c},{v},{s}999,1,1,1,1,0", bars),
    "kraken": lambda bars: lines("", "{s},{o},{h},{l},{c},{v},7", bars),
    "nasdaq.com": lambda bars: lines(
        "Date,Close/Last,Volume,Open,High,Low",
        '{t:%m/%d/%Y},"${c:,}",{v},"${o:,}","${h:,}","${l:,}"',
        bars[::-1],
    ),
    "tushare": lambda bars: lines(
        "ts_code,trade_date,open,high,low,close,vol", "A,{t:%Y%m%d},{o},{h},{l},{c},{v}", bars[::-1]
    ),
    "tradingview": lambda bars: lines(
        "time,open,high,low,close,Volume", "{t:%Y-%m-%dT%H:%M:%S}Z,{o},{h},{l},{c},{v}", bars
    ),
    "dukascopy": lambda bars: lines(
        "Gmt time,Open,High,Low,Close,Volume", "{t:%d.%m.%Y %H:%M:%S}.000,{o},{h},{l},{c},{v}", bars
    ),
    "polygon": lambda bars: lines("v,vw,o,c,h,l,t,n", "{v},{c},{o},{c},{h},{l},{s}000,1", bars),
    "finnhub": lambda bars: json.dumps(
        {"s": "ok", "t": [int(time.timestamp()) for time in bars.index]}
        | {name[0]: bars[name].to_list() for name in COLUMNS}
    ),
    "ccxt": lambda bars: json.dumps(
        [[int(time.timestamp()) * 1000, *row] for time, *row in bars.itertuples()]
    ),
}
DAILY = ("yahoo", "nasdaq.com", "tushare")


def lines(header: str, row: str, bars: pd.DataFrame) -> str:
    """A line a bar in a form of vendors: t is the time, s its seconds, then o h l c v."""
    made = (
        row.format(t=time, s=int(time.timestamp()), o=o, h=h, l=low, c=c, v=v)
        for time, o, h, low, c, v in bars.itertuples()
    )
    return "\n".join([*([header] if header else []), *made]) + "\n"


@st.composite
def traded(draw: st.DrawFn) -> pd.DataFrame:
    """Bars of positive prices over months, whose decimals prove what they are."""
    count = draw(st.integers(20, 40))
    seed = np.random.default_rng(draw(st.integers(0, 10**6)))
    body = np.round(1234.5678 * np.exp(np.cumsum(seed.normal(0, 0.01, (count, 4)), axis=0)), 4) + 0.00005
    body.sort(axis=1)
    order = seed.permuted(np.tile([1, 2], (count, 1)), axis=1)
    rows = np.arange(count)
    values = [
        body[rows, order[:, 0]],
        body[:, 3],
        body[:, 0],
        body[rows, order[:, 1]],
        seed.integers(1, 10**6, count),
    ]
    times = pd.date_range(
        "2021-01-04", periods=count, freq=draw(st.sampled_from(["D", "B", "5h", "30min"])), name="time"
    )
    return pd.DataFrame(dict(zip(COLUMNS, map(np.float64, values), strict=True)), index=times)


@pytest.mark.parametrize("vendor", VENDORS)
@settings(max_examples=15, deadline=None)
@given(bars=traded())
def test_bars_come_back_from_the_form_of_every_vendor(
    tmp_path_factory: pytest.TempPathFactory, vendor: str, bars: pd.DataFrame
) -> None:
    if vendor in DAILY:
        bars = bars.set_axis(pd.date_range("2021-01-04", periods=len(bars), name="time"))
    path = tmp_path_factory.mktemp("vendor") / "bars"
    path.write_text(VENDORS[vendor](bars))
    pd.testing.assert_frame_equal(
        load_bars(path), bars.set_axis(pd.DatetimeIndex(bars.index).as_unit("ns")), check_freq=False
    )


WORDS = [
    "time",
    "close",
    "open",
    "high",
    "low",
    "2024-01-02",
    "2024-01-03 10:00Z",
    "1.5",
    "nan",
    "13/01/2024",
]
WORDS += [
    "09:30",
    "1704153600",
    "1,234",
    "1.234",
    "$5",
    "0",
    "2M",
    "Adj Close",
    "ticker",
    "A.Close",
    "Volume BTC",
]
cells = st.one_of(st.text(string.printable, max_size=8), st.sampled_from(WORDS))


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.tuples(
            st.sampled_from(",;\t|"), st.lists(st.lists(cells, min_size=1, max_size=7), max_size=5)
        ).map(lambda made: "\n".join(made[0].join(row) for row in made[1]).encode()),
        st.recursive(
            cells | st.integers() | st.floats(), lambda node: st.lists(node) | st.dictionaries(cells, node)
        ).map(lambda value: json.dumps(value).encode()),
        st.lists(st.tuples(cells, cells), max_size=3).map(
            lambda rows: "\n".join(["time,close", *(",".join(row) for row in rows)]).encode()
        ),
    )
)
def test_any_file_gives_bars_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("csv") / "bars.csv"
    path.write_bytes(content)
    message = ""
    try:
        bars = load_bars(path)
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    if not message:
        assert np.isfinite(bars.to_numpy()).all()
        assert bars.index.is_unique
        assert bars.index.is_monotonic_increasing
