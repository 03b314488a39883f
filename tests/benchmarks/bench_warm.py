"""Warm: a gated backtest over the same one ungated, with every verdict known.

Whole `run_backtest` calls of the moving-average crossover over the EURUSD hours, in one process and taking
turns: gated with the verdicts in this process's memory; gated with the verdicts on disk, as the first run of
a new process finds them (the model file is not hashed again, only looked up); and ungated with the same
warm-up (`Gate.baseline`), so that all run over the same bars. The median of the rounds' ratios is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from measuring import Figure, fresh_cache, interleaved, median, note, options, report

ALLOWED = 1.05


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(
        __doc__,
        argv,
        add=lambda parser: parser.add_argument("--model", default="smollm2", help="who is asked"),
    )
    from bt_llm.advice import AdvisorConfig, forget_answers
    from bt_llm.backtest import load_strategy, run_backtest
    from bt_llm.data import load_bars, shipped
    from bt_llm.gates import Gate

    strategy = load_strategy(f"{shipped('sma_cross.py')}:GatedSmaCross")
    bars = load_bars(shipped("eurusd_hourly.csv"))
    gate = Gate(advisor=AdvisorConfig(model=chosen.model))
    calls = 0

    def gated() -> None:
        nonlocal calls
        advice = run_backtest(strategy, bars, gate=gate).advice
        calls += advice["model_calls"] if advice else 0

    def from_disk() -> None:
        forget_answers()
        gated()

    with fresh_cache():
        note("warm: asking the model once")
        gated()
        asked, calls = calls, 0
        rounds = 3 if chosen.quick else 21
        note(f"warm: {rounds} rounds")
        ways = {
            "ungated": lambda: run_backtest(strategy, bars, gate=gate.baseline()),
            "memory": gated,
            "disk": from_disk,
        }
        interleaved(ways, 1)
        times = interleaved(ways, rounds)
    ratio = {
        name: median([t / u for t, u in zip(times[name], times["ungated"], strict=True)])
        for name in ("memory", "disk")
    }
    figures = [
        Figure(
            name="gated over ungated, verdicts in memory",
            value=ratio["memory"],
            unit="x",
            target=("<=", ALLOWED),
        ),
        Figure(
            name="gated over ungated, verdicts on disk",
            value=ratio["disk"],
            unit="x",
            target=("<=", ALLOWED),
        ),
        Figure(name="model calls of the warm runs", value=calls, target=("=", 0)),
        *(
            Figure(name=f"backtest of {len(bars):,} bars, {name}", value=median(taken), unit="s")
            for name, taken in times.items()
        ),
    ]
    details = {"bars": len(bars), "rounds": rounds, "model": str(chosen.model), "asked_before": asked}
    return report(__file__, __doc__, figures, {**details, "seconds": times}, quick=chosen.quick)


if __name__ == "__main__":
    main()
