"""
Compare two models on the same bars
===================================

One strategy gated by one model and then by another: results, and where their verdicts differ. With files
of Llama 3.2 in ``models/``: ``python examples/compare_models.py Llama-3.2-1B Llama-3.2-3B``.
"""

import sys

import matplotlib.pyplot as plt

from bt_llm import compare_models
from bt_llm.data import shipped

names = sys.argv[1:] or ["smollm2", "scripted:trend"]
found = compare_models(
    f"{shipped('sma_cross.py')}:GatedSmaCross",
    shipped("eurusd_hourly.csv"),
    names,
    resamples=500,
    commission=0.00002,
)
print(found.table[["return", "sharpe", "max_drawdown", "trades"]].round(3).to_string())

# %%
# Which is better, if any, is one question with one p-value over all pairs; what these bars could have
# shown stands beside it.

print(*found.sentences, sep="\n")

# %%
# Where do they differ? Bars by answer, and the trades that one of them made alone.

[pair] = found.pairs
print(pair.trades.sort_values("pnlcomm", key=abs, ascending=False).head().to_string(index=False))
table = pair.agreement
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
axes.imshow(table.to_numpy(float), cmap="Greens")
for row in range(table.shape[0]):
    for column in range(table.shape[1]):
        axes.text(column, row, table.iloc[row, column], ha="center", va="center")
axes.set_xticks(range(table.shape[1]), table.columns)
axes.set_yticks(range(table.shape[0]), table.index)
axes.set_xlabel(pair.models[1])
axes.set_ylabel(pair.models[0])
axes.set_title("bars by answer", loc="left")
plt.show()
