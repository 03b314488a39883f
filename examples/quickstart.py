"""
Gate a strategy by a model
==========================

A moving-average crossover on a year of EUR/USD hours, gated by the model that comes with bt_llm. The
first run asks the model, which takes seconds; later runs read its verdicts from the cache.
"""

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, gate_study
from bt_llm.data import shipped

study = gate_study(
    f"{shipped('sma_cross.py')}:GatedSmaCross",
    shipped("eurusd_hourly.csv"),
    Gate(advisor=AdvisorConfig(model="smollm2")),
    commission=0.00002,
)
for name, run in study.runs.items():
    print(f"{name:13}", {key: round(run.metrics[key], 4) for key in ("return", "max_drawdown", "trades")})

# %%
# What the model said, and how entries fared. ``model_calls`` is 0 in every run but the first.

advice = study.gated.advice
print("verdicts:", advice["verdicts"])
print("model calls:", advice["model_calls"], "from the cache:", advice["cache_hits"])

# %%
# The three runs start at the same bar, once the gate has warmed up, so that their difference is the gate
# alone.

figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
for name, run in study.runs.items():
    axes.plot(run.equity, label=f"{name.replace('_', ' ')} {run.metrics['return']:+.2%}", linewidth=1.2)
axes.set_ylabel("account value")
axes.legend(frameon=False)
plt.show()
