"""Bars as people have them, recognised, checked and given one form; and the data that comes with bt_llm."""

from bt_llm.data._bars import bars_sha256, load_bars, load_many
from bt_llm.data._checks import COLUMNS
from bt_llm.data._describe import describe_bars
from bt_llm.data._format import BarFormat
from bt_llm.data._length import BarLength, bar_length
from bt_llm.data._shipped import shipped

__all__ = [
    "COLUMNS",
    "BarFormat",
    "BarLength",
    "bar_length",
    "bars_sha256",
    "describe_bars",
    "load_bars",
    "load_many",
    "shipped",
]
