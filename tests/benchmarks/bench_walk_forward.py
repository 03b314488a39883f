"""How long a walk-forward study takes: a trial against a bare ``cerebro.run()``, two workers against one.

Prints JSON. The study is 12 folds by 60 trials over the 5,000 hours that come with bt_llm. Another program on
the same cores spoils the comparison of workers. CPU seconds are what the processes themselves used:
``speedup_by_cpu`` is what two free cores would give, counting the parent's work as done by nobody else.

    python tests/benchmarks/bench_walk_forward.py --repeats 2
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import backtrader as bt
import pandas as pd

from bt_llm import AdvisorConfig, Gate
from bt_llm.backtest import load_strategy
from bt_llm.data import load_bars, shipped
from bt_llm.research import WalkForward

GRID = {
    "fast": [5, 8, 10, 15, 20],
    "slow": [30, 50, 80],
    "gate.min_confidence": [0.0, 0.4],
    "gate.require": ["agree", "not_against"],
}
SPEC = f"{shipped('sma_cross.py')}:GatedSmaCross"


def busy() -> float:
    """Return the CPU seconds of this process."""
    return time.process_time()


def children(times: os.times_result) -> float:
    """Return the CPU seconds of finished children."""
    return times.children_user + times.children_system


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall seconds, CPU seconds and the result."""
    gc.collect()
    wall, cpu = time.perf_counter(), busy()
    result = action()
    return time.perf_counter() - wall, busy() - cpu, result


def bare(strategy: type[bt.Strategy], bars: pd.DataFrame, gate: Gate, **params: Any) -> None:
    """Run what a trial runs, as a user without bt_llm's research would."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=bars, openinterest=None))
    cerebro.addstrategy(strategy, gate=gate, **params)
    cerebro.addsizer(bt.sizers.PercentSizer, percents=95)
    cerebro.run()


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=2000, help="bars")
    parser.add_argument("--test", type=int, default=250, help="bars")
    parser.add_argument("--trials", type=int, default=60, help="at most 60")
    parser.add_argument("--repeats", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(chosen, folder), indent=2))  # noqa: T201 - the output itself


def measure(chosen: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Return the figures."""
    bars = load_bars(shipped("eurusd_hourly.csv"))
    gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=folder))
    split = WalkForward(train_size=chosen.train, test_size=chosen.test)
    grid = {**GRID, "fast": GRID["fast"][: max(1, chosen.trials // 12)]}

    def study(n_jobs: int) -> Any:
        return split.run(SPEC, bars, gate=gate, grid=grid, n_jobs=n_jobs)

    strategy = load_strategy(SPEC)
    window = bars.iloc[: chosen.train + gate.warm_up_bars]
    combinations = [(fast, slow) for fast in grid["fast"] for slow in grid["slow"]]

    def all_bare() -> None:
        for fast, slow in combinations:
            bare(strategy, window, gate, fast=fast, slow=slow)

    bare(strategy, window, gate)  # verdicts and imports out of the way
    workers: list[float] = []
    runs: dict[str, list[tuple[float, float]]] = {"bare": [], "1": [], "2": []}
    for _ in range(chosen.repeats):
        runs["bare"].append(timed(all_bare)[:2])
        for n_jobs in (1, 2):
            before = os.times()
            wall, cpu, result = timed(lambda n_jobs=n_jobs: study(n_jobs))
            shutdown_workers()
            runs[str(n_jobs)].append((wall, cpu))
            workers.append(children(os.times()) - children(before))
    trials = len(result.folds) * len(result.combinations)
    bare_wall, bare_cpu = (best(runs["bare"], i) / len(combinations) for i in (0, 1))
    wall, cpu = (best(runs["1"], i) / trials for i in (0, 1))
    shared = min(cpu + of_workers / 2 for (_, cpu), of_workers in zip(runs["2"], workers[1::2], strict=True))
    return {
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "folds": len(result.folds),
        "trials": trials,
        "bare_seconds": bare_wall,
        "bare_cpu_seconds": bare_cpu,
        "seconds_per_trial": wall,
        "cpu_seconds_per_trial": cpu,
        "per_trial_over_bare": wall / bare_wall,
        "per_trial_over_bare_cpu": cpu / bare_cpu,
        "one_worker_seconds": [run[0] for run in runs["1"]],
        "two_workers_seconds": [run[0] for run in runs["2"]],
        "speedup": statistics.median(one[0] / two[0] for one, two in zip(runs["1"], runs["2"], strict=True)),
        "one_worker_cpu_seconds": [run[1] for run in runs["1"]],
        "two_workers_cpu_seconds": [
            list(pair) for pair in zip((r[1] for r in runs["2"]), workers[1::2], strict=True)
        ],
        "speedup_by_cpu": best(runs["1"], 1) / shared,
        "load_average": os.getloadavg(),
    }


def best(runs: list[tuple[float, float]], which: int) -> float:
    """Return the least of several timings: what else ran only ever adds."""
    return min(run[which] for run in runs)


def shutdown_workers() -> None:
    """End joblib's workers, so that the next study pays for its own."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


if __name__ == "__main__":
    main()
