"""
Decisions of another tool
=========================

Decisions that another tool wrote down, in the place of a model: the same gate, runs and warnings.
"""

import sys
from pathlib import Path

from bt_llm import AdvisorConfig, Gate, gate_study

ROOT = Path(sys.argv[0]).resolve().parent.parent


def main() -> None:
    for options in ("", "?valid=10d"):
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


if __name__ == "__main__":
    main()
