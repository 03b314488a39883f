"""
What a model believes: its policy
=================================

States are bucketed, so a model is a table: a verdict for each of the 105 states. It can be drawn before
any bar is looked at. A small model prefers one label whatever the state; dividing by the mean over the
grid takes that out, without looking at the data.
"""

import matplotlib.pyplot as plt

from bt_llm import Advisor, AdvisorConfig, Policy

with Advisor(AdvisorConfig(model="smollm2")) as advisor:
    policy = Policy.of(advisor)
for name, answers in (("raw", policy.answers(calibrated=False)), ("calibrated", policy.answers())):
    print(f"{name:11}", {label: int((answers == label).sum()) for label in policy.labels.names})
print("of the probability the labels hold", policy.masses)

# %%
# Bullish less bearish probability, raw above and calibrated below; a panel for each volatility.

rows = {"raw": policy.panels(calibrated=False), "calibrated": policy.panels()}
columns = len(rows["raw"])
figure, grid = plt.subplots(2, columns, figsize=(3.1 * columns, 5), layout="constrained", squeeze=False)
for axes_row, (name, panels) in zip(grid, rows.items(), strict=True):
    for axes, panel in zip(axes_row, panels, strict=True):
        image = axes.imshow(panel.values, cmap="BrBG", vmin=-0.5, vmax=0.5, aspect="auto")
        axes.set_xticks(
            range(len(panel.column_labels)), panel.column_labels, rotation=30, ha="right", fontsize=7
        )
        axes.set_yticks(range(len(panel.row_labels)), panel.row_labels, fontsize=7)
        axes.set_title(panel.title, fontsize=9)
    axes_row[0].set_ylabel(name)
figure.colorbar(image, ax=grid, shrink=0.8)
plt.show()
