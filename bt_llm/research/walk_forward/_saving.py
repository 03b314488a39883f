"""The files that a walk-forward study leaves in its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bt_llm.data import save_csv, writing_into
from bt_llm.settings import path_text
from bt_llm.writing import refuse_others, write_whole

__all__ = ["save_results"]

_JSON = "result.json"


def save_results(folder: str | os.PathLike[str], text: str, tables: Mapping[str, pd.DataFrame]) -> Path:
    """Write ``result.json`` and tables by the names of their files, none of them over somebody else's.

    Raises
    ------
    ConfigError
        If one cannot be written, or another file of its name is there than bt_llm writes.
    """
    path = Path(path_text("folder", folder))
    with writing_into(path, "results"):
        refuse_others(*(path / name for name in (_JSON, *tables)))
        write_whole(path / _JSON, text)
        for name, table in tables.items():
            save_csv(table, path / name, index=False)
    return path
