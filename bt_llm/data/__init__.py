"""Bars: read from a CSV or a DataFrame, checked, and given one form; and the data that comes with bt_llm."""

from bt_llm.data._bars import COLUMNS, bars_sha256, load_bars
from bt_llm.data._shipped import shipped

__all__ = ["COLUMNS", "bars_sha256", "load_bars", "shipped"]
