"""
Models that cannot know
=======================

Each bar judged by the newest model that cannot know it, and beside it the newest model alone.

Scripts stand in for models here, so that it takes seconds; name GGUF files in ``examples/dated.toml``
instead. What the newest model gains over the dated family on old bars is what it may have remembered of
them.
"""

import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, compare_models
from bt_llm.advice import Advisor, Policy, drift_of, member_configs
from bt_llm.research import after_cutoff

ROOT = Path(sys.argv[0]).resolve().parent.parent
FAMILY = f"dated:{ROOT / 'examples' / 'dated.toml'}"


def main() -> None:
    policies = [Policy.of(Advisor(one)) for one in member_configs(AdvisorConfig(model=FAMILY))]
    for change in drift_of(policies):
        later, earlier = change.models
        print(f"{1.0 - change.agreement:.0%} of the states change their verdict from {earlier} to {later}")
    market = after_cutoff(ROOT / "data" / "eurusd_hourly.csv", FAMILY)
    print(f"bars that a member may judge: {len(market.index)}, from {market.index[0]}")
    found = compare_models(
        f"{ROOT / 'strategies' / 'sma_cross.py'}:GatedSmaCross",
        market,
        {"dated": FAMILY, "undated": "scripted:contrarian"},
        commission=0.00002,
        resamples=499,
    )
    for name, run in found.runs.items():
        print(f"{name:10} return {run.metrics['return']:+.4f} with {run.metrics['trades']:.0f} trades")
    (pair,) = found.pairs
    print(f"same verdict on {pair.agreed:.0%} of the bars")

    _, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
    for name, colour in (("dated", "#0b6e4f"), ("undated", "#c8553d"), ("ungated", "#7a7a7a")):
        axes.plot(found.runs[name].equity, label=name, color=colour, linewidth=1.2)
    members = tomllib.loads((ROOT / "examples" / "dated.toml").read_text(encoding="utf-8"))["member"]
    for one in members[1:]:
        axes.axvline(one["knowledge_ends"], color="#7a7a7a", linestyle=":")
        axes.text(one["knowledge_ends"], axes.get_ylim()[0], f" then {one['model']}", va="bottom")
    axes.set_ylabel("account value")
    axes.legend(frameon=False)
    plt.show()


if __name__ == "__main__":
    main()
