"""Gates: a run over a bare one, and the 200 null gates of a test over 200 runs, in processor time.

The bare run is Backtrader's own ``cerebro.run()`` of the strategy on a `PandasData` feed, without bt_llm.
The null gates give the answers of a gate with a pass rate of 0.4 at other times, as those of `gate_test` do,
with the timing that it ranks them by. They are replayed from the strategy's episodes: learning these, and
running some gates in Backtrader as a check, is counted in. They are timed against single `run_backtest`
calls of the same gates in the same rounds, of the lean engine and of the plain one, which measure no timing.
No figure is given unless metrics agree: 12 more gates are run in Backtrader's own loop, and have to be those
that were replayed to 1e-9, timing included. A whole `gate_test`, with its other runs, 50 shifted gates and
its bootstrap, is timed over one that replays none, once. Growth is that of the time of all gates, with bars
and with gates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from measuring import Figure, interleaved, median, note, options, report

CASES = {
    "crossover, EURUSD hours": ("sma_cross.py:GatedSmaCross", "eurusd_hourly.csv", 0.03),
    "RSI reversion, S&P 500 days": ("rsi_reversion.py:GatedRsiReversion", "sp500_daily.csv", 0.06),
    "breakout, EURUSD hours": ("donchian.py:GatedDonchian", "eurusd_hourly.csv", 0.06),
}
WARM_UP, GATES, COMMISSION = 114, 200, 0.0002
_BLOCK = 100
"""Bars that keep their order in a null gate."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv)
    rounds = 1 if chosen.quick else 7
    cases = [_case(name, rounds, chosen.quick) for name in CASES]
    growth = [] if chosen.quick else _growth()
    figures = [figure for case in cases for figure in case["figures"]]
    figures += [
        Figure(name=f"{name} over half of them, time", value=ratio, unit="x", note="2 is linear")
        for name, ratio in growth
    ]
    details = {case["name"]: {k: v for k, v in case.items() if k != "figures"} for case in cases}
    return report(__file__, __doc__, figures, {"rounds": rounds, **details}, quick=chosen.quick)


def _case(name: str, rounds: int, quick: bool) -> dict[str, Any]:
    import backtrader as bt

    from bt_llm.backtest import Market, load_strategy, run_backtest
    from bt_llm.data import load_bars, shipped
    from bt_llm.research._gate_runs import GateRuns

    file, data, allowed = CASES[name]
    path, _, kind = file.partition(":")
    strategy, bars = load_strategy(f"{shipped(path)}:{kind}"), load_bars(shipped(data))
    market = Market.of(bars)
    gates = _gates(strategy, market, 40 if quick else GATES)
    timing, one = _timing(strategy, market), iter(gates * 99)

    def bare() -> None:
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.adddata(bt.feeds.PandasData(dataname=bars, openinterest=None))
        cerebro.addstrategy(strategy)
        cerebro.addsizer(bt.sizers.PercentSizer, percents=95)
        cerebro.broker.setcommission(commission=COMMISSION)
        cerebro.run()

    def many() -> GateRuns:
        runs = GateRuns(strategy, market, timing=timing, commission=COMMISSION)
        many.found = runs(gates)  # type: ignore[attr-defined]
        many.how = runs.how  # type: ignore[attr-defined]
        return runs

    ways = {
        "bare": bare,
        "run": lambda: run_backtest(strategy, market, gate=next(one), commission=COMMISSION),
        "plain": lambda: run_backtest(
            strategy, market, gate=next(one), commission=COMMISSION, engine="plain"
        ),
        "gates": many,
    }
    note(f"gates: {name}, {rounds} rounds")
    interleaved(ways, 1)
    times = interleaved(ways, rounds, clock=time.process_time)
    off = _difference(strategy, market, timing, gates[5:17], many.found[5:17])  # type: ignore[attr-defined]
    how = many.how.to_dict()  # type: ignore[attr-defined]
    agree = off <= 1e-9
    over_bare = median([r / b for r, b in zip(times["run"], times["bare"], strict=True)])
    over_runs = median([g / r / len(gates) for g, r in zip(times["gates"], times["run"], strict=True)])
    over_plain = median([g / r / len(gates) for g, r in zip(times["gates"], times["plain"], strict=True)])
    figures = [
        Figure(
            name=f"a run over a bare cerebro.run(), {name}", value=over_bare, unit="x", target=("<=", 0.35)
        ),
        Figure(
            name=f"{len(gates)} gates over as many run_backtest, {name}",
            value=over_runs if agree else None,
            unit="x",
            target=("<=", allowed),
            note="" if agree else f"figures differ by {off:.1e}",
        ),
        Figure(
            name=f"{len(gates)} gates over as many run_backtest of the plain engine, {name}",
            value=over_plain if agree else None,
            unit="x",
        ),
        Figure(name=f"largest difference of a metric, {name}", value=off, target=("<=", 1e-9)),
    ]
    if not quick:
        whole, said = _whole_test(strategy, market)
        figures.append(
            Figure(name=f"gate_test over one that replays no gate, {name}", value=whole, unit="x", note=said)
        )
    return {"name": name, "figures": figures, "how": how, "processor_seconds": times}


def _gate() -> Any:
    """Return a gate to test, with a pass rate of 0.4."""
    import numpy as np

    from bt_llm.gates import Answers, RandomGate

    rng = np.random.default_rng(1)
    long, short = (bytes((rng.random(150) < 0.4).astype(np.uint8)) for _ in range(2))
    return RandomGate(answers=Answers(long=long, short=short, per="entry", warm_up=WARM_UP))


def _gates(strategy: Any, market: Any, count: int) -> list[Any]:
    """Return the null gates of its test."""
    import numpy as np

    from bt_llm.gates import DatesGate, permute_dates
    from bt_llm.research._moments import Moments
    from bt_llm.research._null_runs import dated_entries, entry_log

    told = dated_entries(entry_log(strategy, market, _gate(), commission=COMMISSION))
    moments = Moments.of(market, WARM_UP)
    times, count_of = moments.times, len(moments.times)
    orders = [
        permute_dates(count_of, 60, np.random.default_rng([0, k]), moments.levels) for k in range(count)
    ]
    return [
        DatesGate(answers=told, dates=times.tobytes(), others=times[order].tobytes(), warm_up=WARM_UP)
        for order in orders
    ]


def _timing(strategy: Any, market: Any) -> Any:
    from bt_llm.backtest import legs_of, run_backtest
    from bt_llm.research._timing import TimingOf

    ungated = run_backtest(strategy, market, gate=_gate().baseline(), commission=COMMISSION)
    return TimingOf(ungated=legs_of(ungated, market), market=market)


def _whole_test(strategy: Any, market: Any) -> tuple[float | None, str]:
    """Return the time of a whole test over that of one that runs all gates, and what was done."""
    from bt_llm import AdvisorConfig, Gate
    from bt_llm.research import gate_test

    gate = Gate(advisor=AdvisorConfig(model="scripted:random:1", cache_mode="off"))
    taken, tests = [], []
    for episodes in (True, False):
        start = time.process_time()
        tests.append(gate_test(strategy, market, gate, episodes=episodes, commission=COMMISSION))
        taken.append(time.process_time() - start)
    mine, true = tests
    if mine.question.p_value != true.question.p_value:
        return None, f"p is {mine.question.p_value:.4g} and {true.question.p_value:.4g}"
    how = mine.null_gates
    return taken[0] / taken[1], f"{taken[0]:.1f} s; {how.replayed} replayed, {how.ran} run"


def _difference(
    strategy: Any, market: Any, timing: Any, gates: Sequence[Any], found: Sequence[dict[str, float]]
) -> float:
    """Return the largest difference from Backtrader's own loop; of metrics above 1, relative to them."""
    from bt_llm.research._runs import run_many

    true = run_many(strategy, market, gates, commission=COMMISSION, engine="plain", measure=timing)
    return max(
        0.0
        if mine[name] == value or (math.isnan(mine[name]) and math.isnan(value))
        else abs(mine[name] - value) / max(1.0, abs(value))
        for mine, other in zip(found, true, strict=True)
        for name, value in other.items()
    )


def _growth() -> list[tuple[str, float]]:
    """Return how the time of all gates grows with twice the bars, and with twice the gates."""
    from bt_llm.backtest import Market, load_strategy
    from bt_llm.data import load_bars, shipped
    from bt_llm.research._gate_runs import GateRuns

    strategy = load_strategy(f"{shipped('sma_cross.py')}:GatedSmaCross")
    bars = load_bars(shipped("eurusd_hourly.csv"))
    half, whole = Market.of(bars[: len(bars) // 2]), Market.of(bars)
    gates = {market: _gates(strategy, market, 2 * GATES) for market in (half, whole)}
    timings = {market: _timing(strategy, market) for market in (half, whole)}

    def replayed(market: Any, count: int) -> None:
        GateRuns(strategy, market, timing=timings[market], commission=COMMISSION)(gates[market][:count])

    ways = {
        "half bars": lambda: replayed(half, GATES),
        "base": lambda: replayed(whole, GATES),
        "twice gates": lambda: replayed(whole, 2 * GATES),
    }
    interleaved(ways, 1)
    taken = {name: median(times) for name, times in interleaved(ways, 5, clock=time.process_time).items()}
    return [
        (f"{len(bars):,} bars", taken["base"] / taken["half bars"]),
        (f"{2 * GATES} gates", taken["twice gates"] / taken["base"]),
    ]


if __name__ == "__main__":
    main()
