"""Cache: the share of a gated backtest that goes into looking up its verdicts, and what opening costs.

Taking turns, in one process: reading the records of all distinct prompts of a run from the cache on disk,
each time by a new `VerdictCache`; the same with everything that leads to it in an advisor (rendering the
prompts and hashing the questions); and the whole `run_backtest` of the moving-average crossover with a
`Gate` over the EURUSD hours, its verdicts on disk. The median of the rounds' ratios is reported. What is
stored costs the same whoever answered, so a script does.

Opening: one verdict written to a new folder, and one to a folder that is there, each by a new `VerdictCache`;
over the same by the standard library's sqlite3 (a connection, a table, a row; on disk when it returns).
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import Figure, fresh_cache, interleaved, median, note, options, report

ALLOWED = 0.05
OPENING = 4.0


def opening(rounds: int) -> dict[str, list[float]]:
    """Time a first write to a new folder, and one to a folder that is there, by the cache and by SQLite."""
    from bt_llm.cache import Question, Record, VerdictCache
    from bt_llm.verdicts import Verdict

    question = Question(
        model_sha256="ab" * 32,
        chat_template_sha256="cd" * 32,
        prompt=("Trend: up. Bias:",),
        labels=("Bullish", "Neutral", "Bearish"),
        reader="logprobs",
        sampling={},
        numerics="canonical",
    )
    record = Record(question, Verdict(bullish=0.5, neutral=0.2, bearish=0.3), {})

    def cache() -> None:
        VerdictCache(folder).put_many([record], overwrite=True)

    def plain() -> None:
        connection = sqlite3.connect(Path(folder, "plain.db"), isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("CREATE TABLE IF NOT EXISTS Cache (key TEXT PRIMARY KEY, value TEXT)")
            connection.execute("REPLACE INTO Cache VALUES (?, ?)", (record.key, record.body))

    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("first write", "reopening"):
                for way, taken in interleaved({"cache": cache, "plain": plain}, 1).items():
                    times.setdefault(f"{name}, {way}", []).extend(taken)
    return times


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
    opened = opening(rounds)
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
            Figure(
                name=f"{name} with one verdict, over plain SQLite",
                value=median(opened[f"{name}, cache"]) / median(opened[f"{name}, plain"]),
                unit="x",
                target=("<=", OPENING),
            )
            for name in ("first write", "reopening")
        ),
        *(
            Figure(name=f"{name} of {len(keys)} prompts", value=median(times[name]), unit="s")
            for name in ("lookup", "advisor")
        ),
        Figure(name=f"backtest of {len(bars):,} bars", value=median(times["backtest"]), unit="s"),
    ]
    details = {"bars": len(bars), "keys": len(keys), "rounds": rounds, "model": str(chosen.model)}
    return report(__file__, __doc__, figures, {**details, "seconds": {**times, **opened}}, quick=chosen.quick)


if __name__ == "__main__":
    main()
