"""
How sure must the model be?
===========================

The same verdicts under stricter floors of confidence. A floor is applied to what is stored, so this asks
the model nothing new. It describes, and is no search: the best floor of many, found on the bars that it
is judged by, is luck until a walk-forward study says otherwise.
"""

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, run_backtest
from bt_llm.data import shipped

floors = [0.0, 0.34, 0.36, 0.38, 0.40, 0.44]
runs = [
    run_backtest(
        f"{shipped('sma_cross.py')}:GatedSmaCross",
        shipped("eurusd_hourly.csv"),
        gate=Gate(advisor=AdvisorConfig(model="smollm2"), min_confidence=floor),
        commission=0.00002,
    )
    for floor in floors
]
for floor, run in zip(floors, runs, strict=True):
    print(f"{floor:.2f}  return {run.metrics['return']:+.2%}  trades {run.metrics['trades']:3.0f}")

# %%
# Fewer entries pass under a higher floor.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.step(floors, [run.metrics["trades"] for run in runs], where="post", color="#0b6e4f")
left.set_xlabel("min_confidence")
left.set_ylabel("trades")
right.plot(floors, [100 * run.metrics["return"] for run in runs], "o-", color="#c8553d")
right.set_xlabel("min_confidence")
right.set_ylabel("return in %")
plt.show()
