"""Bars: how long `load_bars` takes beside `pandas.read_csv`, and how much memory beside the arrays it makes.

The time is of a CSV of 100,000 hourly bars in full precision, each way reading it into numbers and times, in
turns in one process. The memory is of a CSV of 5 million bars: a process of its own imports everything, reads
a small file, notes its resident memory, reads the large one, and notes the growth of the highest resident
size. The arrays are five columns of float64 and the times, 48 bytes a bar.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_memory import peak_mb, resident_mb
from measuring import Figure, interleaved, median, note, options, report

BARS, MANY = 100_000, 5_000_000
BYTES_A_BAR = 48
_MB = 2**20


def write_bars(path: Path, count: int) -> None:
    """Write a random walk of bars as `pandas` writes it, in pieces so that little memory is used."""
    generator = np.random.default_rng(0)
    last, begin = 100.0, pd.Timestamp("2000-01-03")
    for start in range(0, count, BARS):
        size = min(BARS, count - start)
        close = last * np.exp(np.cumsum(generator.normal(0, 1e-4, size)))
        opened = np.concatenate([[last], close[:-1]])
        frame = pd.DataFrame(
            {
                "open": opened,
                "high": np.maximum(opened, close) * 1.0003,
                "low": np.minimum(opened, close) * 0.9997,
                "close": close,
                "volume": generator.integers(0, 1000, size),
            },
            index=pd.date_range(begin + pd.Timedelta(minutes=start), periods=size, freq="min", name="time"),
        )
        frame.to_csv(path, mode="a", header=start == 0)
        last = float(close[-1])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(
        __doc__,
        argv,
        add=lambda parser: parser.add_argument("--child", type=Path, help="measure in this process"),
    )
    if chosen.child:
        print(json.dumps({"grown_mb": _growth(chosen.child)}))  # noqa: T201
        return {}
    with tempfile.TemporaryDirectory(prefix="bt_llm-bench-") as folder:
        path, large = Path(folder) / "bars.csv", Path(folder) / "many.csv"
        write_bars(path, BARS)
        times = _times(path, 3 if chosen.quick else 15)
        many = 10 * BARS if chosen.quick else MANY
        note(f"bars: {many:,} of them")
        write_bars(large, many)
        grown = _in_child(large)
    arrays = many * BYTES_A_BAR / _MB
    figures = [
        Figure(
            name=f"load_bars over pandas.read_csv, {BARS:,} bars",
            value=median(times["load_bars"]) / median(times["read_csv"]),
            unit="x",
            target=("<=", 2),
        ),
        Figure(
            name=f"memory over the arrays, {many:,} bars",
            value=grown / arrays,
            unit="x",
            target=("<=", 2),
            note=f"grown {grown:,.0f} MB, arrays {arrays:,.0f} MB",
        ),
    ]
    return report(__file__, __doc__, figures, {"seconds": times}, quick=chosen.quick)


def _times(path: Path, rounds: int) -> dict[str, list[float]]:
    from bt_llm.data import load_bars

    load_bars(path)
    return interleaved(
        {
            "load_bars": lambda: load_bars(path),
            "read_csv": lambda: pd.read_csv(path, parse_dates=["time"], index_col="time"),
        },
        rounds,
    )


def _in_child(path: Path) -> float:
    command = [sys.executable, __file__, "--child", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["grown_mb"])


def _growth(path: Path) -> float:
    from bt_llm.data import load_bars, shipped

    load_bars(shipped("eurusd_hourly.csv"))
    before = resident_mb()
    load_bars(path)
    return peak_mb() - before


if __name__ == "__main__":
    main()
