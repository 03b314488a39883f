"""Growth: what more bars cost, from 1,000 to a million, and what the advice lines cost beside an RSI.

Bars are resampled paths of the real EURUSD hours: blocks of 120 bars (a trading week) of the real series,
drawn at random with a fixed seed, each bar's open, high, low and close kept as log-returns on the close
before it, less the mean return, so that a long path stays where prices are. Sizes run in ascending order
on one cache that is empty at first, as a user's would be.

For each size, in a process of its own that reads the path from a file: seconds of the whole gated
`run_backtest`, the most memory that the process has taken, distinct states met, prompts that the model was
asked, and the time inside it. In the same runs (Backtrader's once-mode, where a line is computed over all
bars in one call) two lines that stand beside each other in the strategy are timed: `LLMAdvice.once`, the
advice lines' own work less the time inside the model; and `bt.ind.RSI`, the whole line with the indicators
that it is made of, as Backtrader computes it. The state lines that the advice reads (trend, RSI,
volatility) are indicators like any other: their time stands in the details. The memory is of a run of the
largest size without those clocks.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measuring import Figure, fresh_cache, note, options, report

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BLOCK = 120
PRICES = ["open", "high", "low", "close"]


def resampled(bars: pd.DataFrame, count: int, *, block: int = BLOCK, seed: int = 0) -> pd.DataFrame:
    """Return a path of `count` bars made of random blocks of a real one.

    Parameters
    ----------
    bars : DataFrame
        As `bt_llm.data.load_bars` returns it; positive prices.
    count : int
        Bars of the path.
    block : int
        Consecutive bars taken at a time; a block that runs over the end goes on at the beginning.
    seed : int
        Of the draw.

    Returns
    -------
    DataFrame
        Of the same form, hourly from the first bar's time on. Each bar keeps the shape, relative to the close
        before it, of a bar of the real series; closes have no drift.
    """
    generator = np.random.default_rng(seed)
    prices = np.log(bars[PRICES].to_numpy())
    moves = prices[1:] - prices[:-1, 3:]
    moves -= moves[:, 3].mean()
    first = generator.integers(len(moves), size=-(-count // block))
    rows = ((first[:, None] + np.arange(block)) % len(moves)).ravel()[:count]
    drawn = moves[rows]
    closes = prices[0, 3] + np.concatenate([[0.0], np.cumsum(drawn[:, 3])])
    path = pd.DataFrame(
        np.exp(closes[:-1, None] + drawn),
        columns=PRICES,
        index=pd.date_range(bars.index[0], periods=count, freq="h", name="time"),
    )
    # The close is one of the four in every bar: rounding in exp() must not put it outside high and low.
    path["high"] = path[PRICES].max(axis=1)
    path["low"] = path[PRICES].min(axis=1)
    path["volume"] = bars["volume"].to_numpy()[1:][rows]
    return path


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv, add=_own_options)
    if chosen.child:
        sys.stdout.write(
            json.dumps(_run(pd.read_pickle(chosen.child), chosen.model, timed=not chosen.untimed))
        )
        return {}
    from bt_llm.data import load_bars, shipped

    real = load_bars(shipped("eurusd_hourly.csv"))
    sizes = SIZES[:2] if chosen.quick else SIZES
    runs: list[dict[str, Any]] = []
    with fresh_cache(), tempfile.TemporaryDirectory(prefix="bt_llm-bench-") as folder:
        for size in sizes:
            note(f"growth: {size:,} bars")
            path = Path(folder) / f"{size}.pickle"
            resampled(real, size).to_pickle(path)
            runs.append(_in_child(path, chosen.model))
        untimed = _in_child(path, chosen.model, "--untimed")
    last = runs[-1]
    million = last["bars"] == SIZES[-1]
    figures = [
        Figure(
            name=f"advice lines over the RSI line, {sizes[-1]:,} bars",
            value=last["advice_seconds"] / last["rsi_seconds"],
            unit="x",
            target=("<", 1),
        ),
        Figure(
            name="prompts asked after the first run",
            value=sum(run["prompts_asked"] for run in runs[1:]),
            target=("=", 0),
        ),
        *(
            Figure(
                name=f"backtest of {run['bars']:,} bars",
                value=run["seconds"],
                unit="s",
                target=("<=", 28) if million and run is last else None,
                note=f"{run['distinct_states']} distinct states; in the model {run['model_seconds']:.1f} s; "
                f"{1e6 * run['processor_seconds'] / run['bars']:.1f} us of processor time a bar",
            )
            for run in runs
        ),
        Figure(
            name=f"most memory of the process, {sizes[-1]:,} bars",
            value=untimed["most_mb"],
            unit="MB",
            target=("<=", 800) if million else None,
        ),
    ]
    return report(__file__, __doc__, figures, {"model": chosen.model, "runs": runs}, quick=chosen.quick)


def _own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2", help="who is asked")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--untimed", action="store_true", help=argparse.SUPPRESS)


def _in_child(path: Path, model: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(path), "--model", model, *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    run: dict[str, Any] = json.loads(done.stdout)
    return run


def _run(bars: pd.DataFrame, model: str, *, timed: bool = True) -> dict[str, Any]:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.backtest import run_backtest
    from bt_llm.gates import Gate

    strategy, advice, rsi = _timed_classes()
    gate = Gate(advisor=AdvisorConfig(model=model), indicator=advice)
    if not timed:  # lines inside of indicators of one's own, as these are, are not let go
        strategy, gate = strategy.__base__, Gate(advisor=AdvisorConfig(model=model))
    start, worked = time.perf_counter(), time.process_time()
    result = run_backtest(strategy, bars, gate=gate)
    taken, worked = time.perf_counter() - start, time.process_time() - worked
    found = result.advice or {}
    return {
        "bars": len(bars),
        "seconds": taken,
        "processor_seconds": worked,
        "distinct_states": found["distinct"],
        "prompts_asked": found["model_calls"],
        "model_seconds": found["model_seconds"],
        "advice_seconds": advice.seconds - found["model_seconds"],
        "advice_and_its_states_seconds": advice.with_children - found["model_seconds"],
        "rsi_seconds": rsi.with_children,
        "trades": int(result.metrics["trades"]),
        "most_mb": _most_memory_mb(),
    }


def _most_memory_mb() -> float:
    """Return the most memory that this process has taken: `getrusage` on Linux counts its parent's too."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def _timed_classes() -> tuple[Any, Any, Any]:
    """Return a strategy, an advice indicator and an RSI that add up the time of their own lines."""
    import backtrader as bt

    from bt_llm.backtest import load_strategy
    from bt_llm.data import shipped
    from bt_llm.indicators import LLMAdvice

    class TimedAdvice(LLMAdvice):
        seconds = with_children = 0.0

        def once(self, start: int, end: int) -> None:
            before = time.perf_counter()
            super().once(start, end)
            type(self).seconds += time.perf_counter() - before

        def _once(self) -> None:
            before = time.perf_counter()
            super()._once()
            type(self).with_children += time.perf_counter() - before

    class TimedRSI(bt.ind.RSI):
        with_children = 0.0

        def _once(self) -> None:
            before = time.perf_counter()
            super()._once()
            type(self).with_children += time.perf_counter() - before

    class Timed(load_strategy(f"{shipped('sma_cross.py')}:GatedSmaCross")):
        def __init__(self) -> None:
            super().__init__()
            self.beside = TimedRSI(self.data, period=14)

    return Timed, TimedAdvice, TimedRSI


if __name__ == "__main__":
    main()
