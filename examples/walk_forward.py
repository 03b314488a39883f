"""Does a parameter search hold up on bars it has not seen? A walk-forward study, offline, in a minute.

Each fold searches two months of EUR/USD hours for the best moving averages and gate, then trades the month
that follows with what it found. Run it twice: verdicts and trials are kept, and the second run starts none.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bt_llm import AdvisorConfig, Gate
from bt_llm.data import shipped
from bt_llm.research import WalkForward


def main() -> None:
    """Run the study and say what is left of it out of sample."""
    output = Path(tempfile.gettempdir()) / "bt_llm_walk_forward"
    result = WalkForward(train_size="2MS", test_size="1MS", purged_size=1).run(
        f"{shipped('sma_cross.py')}:GatedSmaCross",
        shipped("eurusd_hourly.csv"),
        gate=Gate(advisor=AdvisorConfig(model="smollm2")),
        grid={"fast": [5, 10], "slow": [30, 60], "gate.require": ["agree", "not_against"]},
        commission=0.00002,
        n_jobs=2,
        output=output,
    )
    print(result.diagram())
    columns = ["fast", "slow", "gate.require", "in_sharpe", "out_sharpe", "out_trades"]
    print(result.to_frame()[columns].round(2).to_string())
    print(f"\nSharpe ratio in sample {result.in_sample['sharpe']:.2f}, out of sample", end=" ")
    print(f"{result.metrics['sharpe']:.2f}: walk-forward efficiency {result.efficiency:.0%}")
    print(f"{result.n_trials} configurations tried. Probability that the result is more than luck:", end=" ")
    print(f"{result.deflated_sharpe:.0%} (deflated Sharpe ratio)")
    if result.overfitting is not None:
        print(f"Probability of backtest overfitting: {result.overfitting.pbo:.0%}")
    print(f"The ledger of trials is in {output}")


if __name__ == "__main__":
    main()
