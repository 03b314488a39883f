"""One strategy gated by one model and then by another: results, and where their verdicts differ.

Run: python examples/compare_models.py [MODEL ...]
With Llama 3.2 files in models/: python examples/compare_models.py Llama-3.2-1B Llama-3.2-3B
"""

import sys
from pathlib import Path

from bt_llm.research import compare_models

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    found = compare_models(
        f"{ROOT / 'strategies' / 'sma_cross.py'}:GatedSmaCross",
        ROOT / "data" / "eurusd_hourly.csv",
        sys.argv[1:] or ["smollm2", "scripted:trend"],
        resamples=500,
        commission=0.00002,
    )
    print(found.table.round(3).to_string())
    for pair in found.pairs:
        print(f"\nBars by answer, {pair.models[0]} in rows, {pair.models[1]} in columns:")
        print(pair.agreement.to_string())
        print("Trades that one of them made alone, the five largest:")
        print(pair.trades.sort_values("pnlcomm", key=abs, ascending=False).head().to_string(index=False))
    print("", *found.sentences, sep="\n")


if __name__ == "__main__":
    main()
