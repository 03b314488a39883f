"""
Decisions of another tool
=========================

Decisions that another tool wrote down, in the place of a model: the same gate, runs and warnings.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, gate_study

ROOT = Path(sys.argv[0]).resolve().parent.parent


def main() -> None:
    _, grid = plt.subplots(2, 1, figsize=(9, 4.5), sharex=True, layout="constrained")
    for axes, options in zip(grid, ("", "?valid=10d"), strict=True):
        model = f"decisions:{ROOT / 'examples' / 'decisions.csv'}{options}"
        study = gate_study(
            f"{ROOT / 'strategies' / 'sma_cross.py'}:GatedSmaCross",
            {"EURUSD": ROOT / "data" / "eurusd_hourly.csv"},
            Gate(advisor=AdvisorConfig(model=model)),
            commission=0.00002,
        )
        print(f"decisions.csv{options}")
        for name, run in study.runs.items():
            print(f"  {name:13}", {key: round(run.metrics[key], 4) for key in ("return", "trades")})
        for note in study.gated.warnings:
            if note.startswith("decisions"):
                print(f"  {note}")
        [said] = study.gated.verdicts.values()
        close = study.buy_and_hold.equity
        axes.plot(close, color="#7a7a7a", linewidth=0.8)
        for name, colour in (("bullish", "#0b6e4f"), ("bearish", "#c8553d")):
            here = (said["answer"] == name).reindex(close.index, fill_value=False)
            axes.fill_between(
                close.index, close.min(), close.max(), where=here, color=colour, alpha=0.25, label=name
            )
        axes.set_title(f"decisions.csv{options}", loc="left", fontsize=10)
        axes.set_ylabel("buy and hold")
    grid[0].legend(frameon=False)
    plt.show()


if __name__ == "__main__":
    main()
