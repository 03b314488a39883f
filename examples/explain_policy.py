"""
A policy as a rule
==================

What a model is: its policy as a rule, written to a file, and the model against its own rule.

No model is needed: the verdicts of SmolLM2 come with bt_llm.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from bt_llm import Advisor, AdvisorConfig, Gate, Policy, VerdictCache, gate_test
from bt_llm.backtest import load_function
from bt_llm.cache import import_pack
from bt_llm.data import shipped
from bt_llm.gates import FunctionGate
from bt_llm.research import cell_visits, explain


def main() -> None:
    bars = shipped("eurusd_hourly.csv")
    with tempfile.TemporaryDirectory() as folder:
        with VerdictCache(folder, "record") as cache:
            import_pack(cache, shipped("demo_pack.jsonl"))
        config = AdvisorConfig(cache_dir=folder, cache_mode="replay")
        found = explain(Policy.of(Advisor(config)), visits=cell_visits(bars, config), depth=3)
        print("", *found.sentences, sep="\n- ")
        print("", *found.rule.lines(), sep="\n")

        rule = Path(folder) / "rule.py"
        found.export(rule)
        gate = FunctionGate(function=load_function(f"{rule}:verdict"), advisor=config)
        test = gate_test(
            f"{shipped('sma_cross.py')}:GatedSmaCross",
            bars,
            Gate(advisor=config),
            rule=gate,
            n=49,
            shifts=0,
            resamples=499,
            commission=0.00002,
        )
    print("\nDoes the model beat a rule of seven leaves?")
    print("", *test.sentences, sep="\n- ")

    _, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    agreed = [100 * found.agreement(tree) for tree in found.depths]
    axes.step(range(len(agreed)), agreed, "o-", where="mid", color="#0b6e4f")
    axes.set_xlabel("cuts in a row of the best tree")
    axes.set_ylabel("states on which it\nsays the same, in %")
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.25)
    plt.show()


if __name__ == "__main__":
    main()
