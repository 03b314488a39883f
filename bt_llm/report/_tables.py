"""Trades and verdicts as CSV."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from bt_llm.data import save_csv, writing_into
from bt_llm.writing import refuse_others

__all__ = ["Frames", "write_tables"]

Frames: TypeAlias = Mapping[str, pd.DataFrame]
"""Tables by what they are of."""


def write_tables(
    folder: str | os.PathLike[str],
    trades: Frames,
    verdicts: Frames | None = None,
    more: Mapping[str, Frames] | None = None,
) -> list[Path]:
    """Write ``trades.csv``, and with verdicts ``verdicts.csv``, into a folder; of none there is no file.

    Parameters
    ----------
    folder : path
        Made if it is not there; files of these names are replaced.
    trades : mapping of str to DataFrame
        By run; the column ``run`` has the name.
    verdicts : mapping of str to DataFrame, optional
        By model; see `bt_llm.research.Judged`.
    more : mapping of str to mapping of str to DataFrame, optional
        Further tables by the names of their files, each by run, with their index as a column.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ConfigError
        If a file cannot be written, or another one of its name is there than bt_llm writes.
    """
    path, written = Path(folder), []
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    if trades:
        tables["trades"] = {name: frame.reset_index(drop=True) for name, frame in trades.items()}
    if verdicts:
        tables["verdicts"] = {
            name: frame.rename_axis("time").reset_index() for name, frame in verdicts.items()
        }
    for title, frames in (more or {}).items():
        tables[title] = {name: frame.reset_index() for name, frame in frames.items()}
    with writing_into(path, "tables"):
        refuse_others(*(path / f"{title}.csv" for title in tables))
        for title, frames in tables.items():
            label = "model" if title == "verdicts" else "run"
            parts = []
            for name, frame in frames.items():
                frame.insert(0, label, name)
                parts.append(frame)
            full = [part for part in parts if len(part)] or parts[:1]
            written.append(path / f"{title}.csv")
            save_csv(pd.concat(full, ignore_index=True), written[-1], index=False)
    return written
