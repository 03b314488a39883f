"""
A walk-forward study
====================

Does a parameter search hold up on bars it has not seen? Each fold searches two months of EUR/USD hours
for the best moving averages and gate, then trades the month that follows with what it found. Verdicts
and trials are kept: a second run starts none.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, WalkForward
from bt_llm.data import shipped

output = Path(tempfile.gettempdir()) / "bt_llm_walk_forward"
result = WalkForward(train_size="2MS", test_size="1MS", purged_size=1).run(
    f"{shipped('sma_cross.py')}:GatedSmaCross",
    shipped("eurusd_hourly.csv"),
    gate=Gate(advisor=AdvisorConfig(model="smollm2")),
    grid={"fast": [5, 10], "slow": [30, 60], "gate.require": ["agree", "not_against"]},
    commission=0.00002,
    n_jobs=2,
    output=output,
)
print(result.diagram())
columns = ["fast", "slow", "gate.require", "in_sharpe", "out_sharpe", "out_trades"]
print(result.to_frame()[columns].round(2).to_string())

# %%
# What is left out of sample, and how much of it the number of trials explains.

print(f"Sharpe ratio in sample {result.in_sample['sharpe']:.2f}, out of sample", end=" ")
print(f"{result.metrics['sharpe']:.2f}: walk-forward efficiency {result.efficiency:.0%}")
print(f"{result.n_trials} configurations tried. Probability that the result is more than luck:", end=" ")
print(f"{result.deflated_sharpe:.0%} (deflated Sharpe ratio)")
if result.overfitting is not None:
    print(f"Probability of backtest overfitting: {result.overfitting.pbo:.0%}")

# %%
# In sample against out of sample, a point for each fold: a search that finds something lies on the
# diagonal.

frame = result.to_frame()
figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
axes.scatter(frame["in_sharpe"], frame["out_sharpe"], color="#0b6e4f")
low, high = (f(frame[["in_sharpe", "out_sharpe"]].to_numpy().ravel()) for f in (min, max))
axes.plot([low, high], [low, high], color="#7a7a7a", linewidth=0.8)
axes.axhline(0, color="black", linewidth=0.5)
axes.set_xlabel("Sharpe ratio in sample")
axes.set_ylabel("out of sample")
plt.show()
