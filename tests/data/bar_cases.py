"""Bars for tests, and what a source is refused with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bt_llm.data import load_bars
from bt_llm.exceptions import DataError

OHLCV = "time,open,high,low,close,volume\n"
TWO_BARS = OHLCV + "2024-01-02,10,12,9,11,100\n2024-01-03,11,13,10,12.5,200\n"
ONLY_CLOSE = ["no open, high and low: set to close", "no volume: set to 0"]

Writer = Callable[..., Path]


def frame_of(index: Any, **columns: Any) -> pd.DataFrame:
    """Bars with a close of 10 and whatever else is given."""
    return pd.DataFrame({"Close": [10.0] * len(index), **columns}, index=index)


def days(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(list(texts))


def refused(source: Any, **arguments: Any) -> str:
    """The one-line message with which a source is refused."""
    with pytest.raises(DataError) as caught:
        load_bars(source, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message
