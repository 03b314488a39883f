"""
A multiverse of specifications
==============================

One verdict asked for in every way that would have been as good: 96 specifications, from a pack.

No model is needed: the verdicts of SmolLM2 come with bt_llm. The table and the page show more:
``bt-llm multiverse -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv --commission 0.00002
--pack data/demo_multiverse.jsonl.gz --report multiverse.html``
"""

import tempfile

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, VerdictCache
from bt_llm.cache import import_pack
from bt_llm.data import shipped
from bt_llm.research import multiverse


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with VerdictCache(folder, "record") as cache:
            import_pack(cache, shipped("demo_multiverse.jsonl.gz"))
        found = multiverse(
            f"{shipped('sma_cross.py')}:GatedSmaCross",
            shipped("eurusd_hourly.csv"),
            gate=Gate(advisor=AdvisorConfig(cache_dir=folder, cache_mode="replay")),
            n=39,
            commission=0.00002,
        )
    print(found.policies.by_dimension.round(2).to_string())
    print("\nThe headline with one choice changed, of 105 answers:")
    print(found.policies.by_level.round(2).to_string(index=False))
    print("", *found.sentences, sep="\n- ")

    table = found.traded.table
    order = table["return"].argsort(kind="stable").tolist()  # of positions: the headline is the first
    returns = 100 * table["return"].to_numpy()[order]
    _, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
    axes.plot(returns, "o", color="#0b6e4f", markersize=3, label="a specification")
    axes.plot(order.index(0), returns[order.index(0)], "o", color="#c8553d", label="the headline")
    ungated = 100 * found.traded.ungated.metrics["return"]
    axes.axhline(ungated, color="#3a66b1", linestyle="--", linewidth=1, label="ungated")
    axes.set_xlabel("specifications, lowest first")
    axes.set_ylabel("return in %")
    axes.legend(frameon=False)
    plt.show()


if __name__ == "__main__":
    main()
