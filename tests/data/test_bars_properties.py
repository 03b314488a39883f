"""Bars of any kind: they come back equal, or are refused."""

from __future__ import annotations

import datetime as dt
import random
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.data import COLUMNS, bars_sha256, load_bars
from bt_llm.exceptions import DataError

prices = st.floats(-1e6, 1e6, allow_nan=False).filter(bool)  # a zero among prices is refused
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


cells = st.one_of(
    st.text(string.printable, max_size=8),
    st.sampled_from(
        ["time", "close", "open", "high", "low", "2024-01-02", "2024-01-03 10:00Z", "1.5", "nan"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.lists(st.lists(cells, min_size=1, max_size=4), max_size=4).map(
            lambda rows: "\n".join(",".join(row) for row in rows).encode()
        ),
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
