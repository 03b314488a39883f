"""Beside vectorbt: 200 null gates with equal entries and fills, in processor time.

The rules are ones that both can follow: long only, a moving-average crossover, a fixed number of shares,
filled at the next open, with a commission. What is timed of ours is all from the strategy and its gates to
their metrics: episodes are learnt, and two gates are run in Backtrader as a check. Of vectorbt it is all from
bars and answers, as a table that is made beforehand, to the same metrics; its functions are compiled before.
No time is given unless final values and numbers of trades agree. Growth is that of either with the gates.

Needs ``pip install vectorbt``, and is left out where that is not installed.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from bench_gates import COMMISSION, WARM_UP, _gates
from measuring import Figure, interleaved, median, note, options, report

from bt_llm import attach_gate

FAST, SLOW, STAKE, GATES = 10, 30, 5_000, (50, 200, 800)


class LongCross(bt.Strategy):
    """Long while the fast average is above the slow one."""

    params = (("gate", None),)

    def __init__(self) -> None:
        fast, slow = (bt.ind.SMA(self.data, period=period) for period in (FAST, SLOW))
        self.cross = bt.ind.CrossOver(fast, slow)
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        """Leave or enter at a cross."""
        if self.position:
            if self.cross[0] < 0:
                self.close()
        elif self.cross[0] > 0 and self.gate.allows_long():
            self.buy()


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv)
    if importlib.util.find_spec("vectorbt") is None:
        missing = Figure(
            name="200 gates over vectorbt", value=None, unit="x", note="vectorbt is not installed"
        )
        return report(__file__, __doc__, [missing], {}, quick=chosen.quick)
    counts, rounds = (GATES[:1], 1) if chosen.quick else (GATES, 7)
    runs = [_timed(count, rounds) for count in counts]
    figures = [
        Figure(
            name=f"{run['gates']} gates over vectorbt, equal entries and fills",
            value=median([a / b for a, b in zip(run["ours"], run["vectorbt"], strict=True)])
            if run["agree"]
            else None,
            unit="x",
            target=("<=", 2) if run["gates"] == 200 else None,
            note=f"ours {median(run['ours']):.3f} s, vectorbt's {median(run['vectorbt']):.3f} s"
            if run["agree"]
            else f"they differ by {run['apart']:.1e}",
        )
        for run in runs
    ]
    return report(__file__, __doc__, figures, {"runs": runs}, quick=chosen.quick)


def _timed(count: int, rounds: int) -> dict[str, Any]:
    from bt_llm.backtest import Market
    from bt_llm.data import load_bars, shipped
    from bt_llm.gates import LONG
    from bt_llm.research._gate_runs import GateRuns

    note(f"vectorbt: {count} gates")
    bars = load_bars(shipped("eurusd_hourly.csv"))
    market = Market.of(bars)
    gates = _gates(LongCross, market, count)
    ((name, own),) = market.bars.items()
    allowed = np.column_stack([gate.line(name, LONG, own.numbers) for gate in gates])
    settings = {"commission": COMMISSION, "sizer": (bt.sizers.FixedSize, {"stake": STAKE})}
    found: dict[str, Any] = {}

    def ours() -> None:
        runs = GateRuns(LongCross, market, **settings)
        found["ours"], found["how"] = runs(gates), runs.how

    def theirs() -> None:
        found["vectorbt"] = _vectorbt(bars, allowed)

    ways = {"ours": ours, "vectorbt": theirs}
    interleaved(ways, 1)
    times = interleaved(ways, rounds, clock=time.process_time)
    mine = {key: np.array([one[key] for one in found["ours"]]) for key in ("final_value", "trades")}
    apart = max(float(np.max(np.abs(mine[key] / found["vectorbt"][key] - 1.0))) for key in mine)
    return {
        "gates": count,
        **times,
        "apart": apart,
        "agree": apart <= 1e-9,
        "how": found["how"].to_dict(),
        "distinct": len(set(mine["final_value"].tolist())),
    }


def _vectorbt(bars: pd.DataFrame, allowed: np.ndarray) -> dict[str, Any]:
    """Return metrics of each gate."""
    import vectorbt as vbt

    close = bars["close"]
    over = np.sign(close.rolling(FAST).mean() - close.rolling(SLOW).mean()).to_numpy()
    turned = np.concatenate([[0.0], over[1:] - over[:-1]])
    up, down = turned > 1.0, turned < -1.0
    up[: WARM_UP - 1] = False
    entries = np.zeros(allowed.shape, dtype=bool)
    entries[1:] = up[:-1, None] & allowed[:-1]
    exits = np.zeros((len(bars), 1), dtype=bool)
    exits[1:, 0] = down[:-1]
    account = vbt.Portfolio.from_signals(
        close,
        entries,
        exits,
        price=bars["open"].to_numpy()[:, None],
        size=float(STAKE),
        fees=COMMISSION,
        init_cash=10_000.0,
        freq="1h",
    )
    return {
        "final_value": account.final_value().to_numpy(),
        "trades": account.trades.closed.count().to_numpy(),
        "return": account.total_return(),
        "sharpe": account.sharpe_ratio(),
        "sortino": account.sortino_ratio(),
        "max_drawdown": account.max_drawdown(),
        "win_rate": account.trades.closed.win_rate(),
    }


if __name__ == "__main__":
    main()
