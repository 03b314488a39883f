"""The hash of bars: times and numbers alone."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import bars_sha256, load_bars
from bt_llm.exceptions import DataError
from tests.data.bar_cases import TWO_BARS, Writer


def test_the_hash_is_of_times_and_numbers_alone(write: Writer) -> None:
    seconds = [1704153600, 1704240000]  # 2024-01-02 and 03, midnight UTC
    content = b"bt_llm bars 1\n" + struct.pack("<2q", *(second * 10**9 for second in seconds))
    for column in ([10, 11], [12, 13], [9, 10], [11, 12.5], [100, 200]):
        content += struct.pack("<2d", *column)
    assert bars_sha256(load_bars(write(TWO_BARS))) == hashlib.sha256(content).hexdigest()


def test_the_hash_does_not_see_the_source_the_resolution_or_the_sign_of_zero(write: Writer) -> None:
    bars = load_bars(write(TWO_BARS.replace("100\n", "0\n")))
    other = bars.set_axis(pd.DatetimeIndex(bars.index).as_unit("s"))
    other.iloc[0, 4] = -0.0
    assert bars_sha256(other) == bars_sha256(bars)


@pytest.mark.parametrize("cell", [(row, column) for row in range(2) for column in range(5)])
def test_the_hash_sees_every_number(write: Writer, cell: tuple[int, int]) -> None:
    bars = load_bars(write(TWO_BARS))
    before = bars_sha256(bars)
    bars.iloc[cell] = np.nextafter(bars.iloc[cell], np.inf)
    assert bars_sha256(bars) != before


def test_the_hash_sees_times(write: Writer) -> None:
    bars = load_bars(write(TWO_BARS))
    assert bars_sha256(bars.shift(1, freq="ns")) != bars_sha256(bars)


def test_the_hash_wants_bars(write: Writer) -> None:
    bars = load_bars(write(TWO_BARS))
    zoned = bars.set_axis(pd.DatetimeIndex(bars.index).tz_localize("UTC"))
    for other in (bars[["close"]], bars.reset_index(drop=True), zoned, bars.astype("float32"), bars.shift(1)):
        with pytest.raises(DataError, match="as load_bars returns them"):
            bars_sha256(other)
