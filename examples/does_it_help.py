"""
Does the gate help, or would a coin do as well?
===============================================

The gated result among those of random gates that give the same answers at other bars. There are 39 here,
so that this is quick; for an answer to rely on take a few hundred, with ``n_jobs=-1``.
"""

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, gate_test
from bt_llm.data import shipped

test = gate_test(
    f"{shipped('sma_cross.py')}:GatedSmaCross",
    shipped("eurusd_hourly.csv"),
    Gate(advisor=AdvisorConfig(model="smollm2")),
    n=39,
    shifts=0,
    resamples=500,
    commission=0.00002,
)
for name, run in test.runs.items():
    print(f"{name:13} return {run.metrics['return']:+7.2%}  exposure {run.metrics['exposure']:4.0%}")

# %%
# One question, answered in one sentence; what follows describes, and is no test.

print(*test.sentences, sep="\n")

# %%
# The score of the timing: the observed one, and those of the random gates. The p-value counts those that
# are no worse, and the observed one with them.

timing = test.random.values("timing")
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
axes.hist(timing, bins=15, color="#c7d3cf")
axes.axvline(
    test.random.observed["timing"], color="#0b6e4f", label=f"the gate: p = {test.question.p_value:.2f}"
)
axes.set_xlabel("score of the timing")
axes.set_ylabel("random gates")
axes.legend(frameon=False)
plt.show()
