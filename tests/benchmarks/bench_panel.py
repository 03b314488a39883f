"""Panels: the 200 null gates of a test on 50 symbols, in processor time, as symbols and workers grow.

The strategy is the crossover; symbols are resampled paths of the real EURUSD hours, 5,000 bars each. What is
timed is `joint_null_runs`, all that a panel test does with its null gates; learning episodes and checking
them is part of it. Processor time is this process's and its finished workers'; with several of these it is
divided by their number, as free cores would. No figure is given unless each symbol's checked accounts are
Backtrader's to 1e-9.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

from bench_growth import resampled
from bench_walk_forward import shutdown_workers
from measuring import Figure, note, options, report

SYMBOLS, GATES, BARS = (5, 10, 25, 50), 200, 5_000


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv)
    counts = (2,) if chosen.quick else SYMBOLS
    bars = 1_000 if chosen.quick else BARS
    studies = _studies(max(counts), bars)
    runs = [_timed(studies, count, 1) for count in counts]
    runs.append(_timed(studies, counts[-1], 2))
    one = next(run for run in runs if run["symbols"] == counts[-1])
    sound = all(run["checked"] and run["largest_difference"] <= 1e-9 for run in runs)
    figures = [
        Figure(
            name=f"{GATES} gates, {run['symbols']} symbols of {bars:,} bars, {run['workers']} workers",
            value=run["seconds"] if sound else None,
            unit="s",
            target=("<=", 60) if run["symbols"] == 50 and run["workers"] == 2 else None,
            note=f"{run['wall']:.1f} s by the clock",
        )
        for run in runs
    ]
    figures += [
        Figure(
            name=f"time of {after['symbols']} symbols over that of {before['symbols']}",
            value=after["seconds"] / before["seconds"] if sound else None,
            unit="x",
            note=f"{after['symbols'] / before['symbols']:g} is linear",
        )
        for before, after in itertools.pairwise(runs[:-1])
    ]
    figures.append(
        Figure(
            name="two workers over one, time a core",
            value=runs[-1]["seconds"] / one["seconds"] if sound else None,
            unit="x",
        )
    )
    return report(__file__, __doc__, figures, {"runs": runs}, quick=chosen.quick)


def _studies(count: int, bars: int) -> dict[str, Any]:
    """Return what a panel test knows before it comes to its null gates."""
    from bt_llm import AdvisorConfig, Gate
    from bt_llm.backtest import Universe, load_strategy, panel_study
    from bt_llm.data import load_bars, shipped
    from bt_llm.research._null_runs import dated_answers

    note(f"panel: {count} symbols")
    real = load_bars(shipped("eurusd_hourly.csv"))
    frames = {f"s{seed:02}": resampled(real, bars, seed=seed) for seed in range(count)}
    strategy = load_strategy(f"{shipped('sma_cross.py')}:GatedSmaCross")
    gate = Gate(advisor=AdvisorConfig(model="scripted:random:1", cache_mode="off"))
    universe = Universe.of(frames)
    return {
        "strategy": strategy,
        "frames": frames,
        "study": panel_study(strategy, universe, gate),
        "answers": {name: dated_answers(strategy, universe[name], gate) for name in frames},
        "warm_up": gate.warm_up_bars,
    }


def _timed(studies: dict[str, Any], count: int, workers: int) -> dict[str, Any]:
    from bt_llm.backtest import Panel, Universe
    from bt_llm.research._panel_nulls import joint_null_runs

    note(f"panel: null gates of {count} symbols, {workers} workers")
    names = list(studies["frames"])[:count]
    symbols = {name: studies["study"].symbols[name] for name in names}
    panel = Panel(symbols=symbols, weights=dict.fromkeys(names, 1.0))
    before, wall = _spent(), time.perf_counter()
    nulls = joint_null_runs(
        studies["strategy"],
        Universe.of({name: studies["frames"][name] for name in names}),
        panel.runs["gated"],
        panel.runs["buy_and_hold"],
        {name: studies["answers"][name] for name in names},
        warm_up=studies["warm_up"],
        n=GATES,
        seed=0,
        block_bars=1,
        n_jobs=workers,
    )
    shutdown_workers()
    how = nulls.how
    return {
        "symbols": count,
        "workers": workers,
        "wall": time.perf_counter() - wall,
        "seconds": (_spent() - before) / workers,
        "ran": how.ran,
        "checked": how.checked,
        "reason": how.reason,
        "replayed": how.replayed,
        "largest_difference": how.largest_difference,
    }


def _spent() -> float:
    """Return the processor seconds of this process and of its finished workers."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
