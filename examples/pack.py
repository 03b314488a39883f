"""
Verdicts without a model: a pack
================================

A pack carries verdicts to a machine that has no model, or no llama.cpp. The demo's is shipped: here it
fills a cache that is new, and the run replays. In replay nothing is ever asked; what is missing is
named.
"""

import tempfile

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, ReplayMiss, VerdictCache, run_backtest
from bt_llm.cache import import_pack
from bt_llm.data import shipped

folder = tempfile.mkdtemp()
with VerdictCache(folder) as cache:
    print(import_pack(cache, shipped("demo_pack.jsonl")), "verdicts")

advisor = AdvisorConfig(model="smollm2", cache_dir=folder, cache_mode="replay")
run = run_backtest(
    f"{shipped('sma_cross.py')}:GatedSmaCross",
    shipped("eurusd_hourly.csv"),
    gate=Gate(advisor=advisor),
    commission=0.00002,
)
print("model calls:", run.advice["model_calls"], " final value:", round(run.final_value, 2))

# %%
# Another template asks other questions, which the pack does not answer:

try:
    run_backtest(
        f"{shipped('sma_cross.py')}:GatedSmaCross",
        shipped("eurusd_hourly.csv"),
        gate=Gate(advisor=AdvisorConfig(model="scripted:contrarian", cache_dir=folder, cache_mode="replay")),
    )
except ReplayMiss as miss:
    print(str(miss)[:300])

# %%
# The probabilities that the pack holds, bar by bar.

said = next(iter(run.verdicts.values())).tail(240)
figure, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
axes.stackplot(
    said.index,
    *(said[name] for name in ("bearish", "neutral", "bullish")),
    labels=("bearish", "neutral", "bullish"),
    colors=("#c8553d", "#d9d9d9", "#0b6e4f"),
)
axes.set_ylabel("probability")
figure.autofmt_xdate()
axes.legend(frameon=False, loc="upper left")
plt.show()
