"""Symbols for the tests of panels: walks that share a market, and files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tests.engines import walk

MEMBERS = """\
name,file,from,to
late,a.csv,2020-04-01,
gone,b.csv,,2020-06-30
back,c.csv,,2020-03-31
back,c.csv,2020-05-01,2020-08-31
"""


def symbols(count: int = 3, bars: int = 260) -> dict[str, pd.DataFrame]:
    """Return walks of different lengths, each later one beginning a week after the one before."""
    return {f"s{number}": walk(bars, seed=number)[7 * number :] for number in range(count)}


def folder_of(path: Path, count: int = 3) -> Path:
    """Write symbols a, b, c, ... into a folder, and ``members.csv`` beside it."""
    files = path / "symbols"
    files.mkdir()
    for number in range(count):
        frame = walk(260, seed=number)
        frame.to_csv(files / f"{'abcdefgh'[number]}.csv", index_label="time")
    text = MEMBERS.replace(",a.csv", ",symbols/a.csv").replace(",b.csv", ",symbols/b.csv")
    (path / "members.csv").write_text(text.replace(",c.csv", ",symbols/c.csv"), encoding="utf-8")
    return files


def correlated(rng: np.random.Generator, bars: int, count: int, rho: float) -> np.ndarray:
    """Return standard normal moves of symbols that have a market in common."""
    market = rng.standard_normal((bars, 1))
    return np.sqrt(rho) * market + np.sqrt(1.0 - rho) * rng.standard_normal((bars, count))
