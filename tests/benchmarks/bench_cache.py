"""Cache: the share of a gated backtest that goes into looking up its verdicts.

Taking turns, in one process: reading the records of all distinct prompts of a run from the cache on disk,
each time by a new `VerdictCache`; the same with everything that leads to it in an advisor (rendering the
prompts and hashing the questions); and the whole `run_backtest` of the moving-average crossover with a
`Gate` over the EURUSD hours, its verdicts on disk. The median of the rounds' ratios is reported. What is
stored costs the same whoever answered, so a script does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from measuring import Figure, fresh_cache, interleaved, median, note, options, report

ALLOWED = 0.05


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(
        __doc__,
        argv,
        add=lambda parser: parser.add_argument("--model", default="scripted:trend", help="who is asked"),
    )
    from bt_llm.advice import Advisor, AdvisorConfig, forget_answers
    from bt_llm.backtest import load_strategy, run_backtest
    from bt_llm.cache import VerdictCache
    from bt_llm.data import load_bars, shipped
    from bt_llm.gates import Gate

    strategy = load_strategy(f"{shipped('sma_cross.py')}:GatedSmaCross")
    bars = load_bars(shipped("eurusd_hourly.csv"))
    gate = Gate(advisor=AdvisorConfig(model=chosen.model))
    cells = range(len(gate.advisor.state_space))

    def backtest() -> None:
        forget_answers()
        run_backtest(strategy, bars, gate=gate)

    with fresh_cache():
        note("cache: asking the model once")
        backtest()
        keys = VerdictCache().keys()
        rounds = 3 if chosen.quick else 21
        note(f"cache: {rounds} rounds")
        ways = {
            "lookup": lambda: VerdictCache().get_many(keys),
            "advisor": lambda: Advisor(gate.advisor).raw_cells(cells),
            "backtest": backtest,
        }
        interleaved(ways, 1)
        times = interleaved(ways, rounds)
    shares = {
        name: median([t / whole for t, whole in zip(times[name], times["backtest"], strict=True)])
        for name in ("lookup", "advisor")
    }
    figures = [
        Figure(
            name="lookup of the distinct prompts, share of the backtest",
            value=shares["lookup"],
            target=("<", ALLOWED),
        ),
        Figure(
            name="the same with rendering and hashing them, share of the backtest",
            value=shares["advisor"],
            target=("<", ALLOWED),
        ),
        *(
            Figure(name=f"{name} of {len(keys)} prompts", value=median(times[name]), unit="s")
            for name in ("lookup", "advisor")
        ),
        Figure(name=f"backtest of {len(bars):,} bars", value=median(times["backtest"]), unit="s"),
    ]
    details = {"bars": len(bars), "keys": len(keys), "rounds": rounds, "model": str(chosen.model)}
    return report(__file__, __doc__, figures, {**details, "seconds": times}, quick=chosen.quick)


if __name__ == "__main__":
    main()
