"""
A board of models
=================

Two entries under one task, ranked from their packs, with what knows nothing beside them.

``bt-llm board`` does the same with the tasks and packs in ``data/board``, which takes longer.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig
from bt_llm.advice import Advisor, Policy
from bt_llm.cache import VerdictCache, export_pack
from bt_llm.research import board

TASKS = """
format = 1
chance = 1
resamples = 199

[[task]]
name = "EUR/USD hours, moving averages"
strategy = "sma_cross.py:GatedSmaCross"
data = "eurusd_hourly.csv"
commission = 0.00002
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tasks.toml").write_text(TASKS)
        for entry, model in (("follower", "scripted:trend"), ("contrarian", "scripted:contrarian")):
            with VerdictCache(folder / entry) as cache:
                Policy.of(Advisor(AdvisorConfig(model=model, cache_dir=cache.directory)))
                export_pack(cache, folder / f"{entry}.jsonl")
        found = board(folder)
        for one in found.ranked:
            print(f"{one.name:12} {one.kind:8} score {one.score:+.4f}  p {one.confidence:.3g}")
        print("\n".join(found.sentences))

    ranked = found.ranked[::-1]
    _, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    colours = ["#0b6e4f" if one.kind == "pack" else "#b0b0b0" for one in ranked]
    axes.barh([one.name for one in ranked], [one.score for one in ranked], color=colours)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("score; grey knows nothing")
    plt.show()


if __name__ == "__main__":
    main()
