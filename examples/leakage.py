"""
Could the model have known?
===========================

Could the model have known? Five probes on a scripted model that remembers, and on one that does not.
"""

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig
from bt_llm.data import shipped
from bt_llm.research import leakage_probes

BARS = shipped("sp500_daily.csv")
CUTOFF = "2012-12-31"

figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
for place, model in enumerate((f"memory:{BARS}?until={CUTOFF}&share=0.5", "scripted:trend")):
    config = AdvisorConfig(model=model, cache_mode="off")
    found = leakage_probes(BARS, config, name="S&P 500", cutoff=CUTOFF, points=200, controls=False)
    print("\n- ".join([found.model, *found.sentences]), end="\n\n")
    names = [probe.name for probe in found.probes]
    values = [probe.correlation for probe in found.probes]
    offsets = [number + 0.35 * place for number in range(len(names))]
    axes.barh(offsets, values, height=0.35, color=("#c8553d", "#0b6e4f")[place], label=found.model)
    axes.plot([probe.detectable for probe in found.probes], offsets, "|", color="black", markersize=12)
axes.set_yticks([number + 0.175 for number in range(len(names))], names)
axes.invert_yaxis()
axes.axvline(0, color="black", linewidth=0.8)
axes.set_xlabel("correlation with what came; stroke: found 4 times in 5; no bar: nothing varies")
figure.legend(loc="outside upper right", ncols=2, frameon=False)
plt.show()
