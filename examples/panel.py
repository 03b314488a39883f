"""
Many symbols: a panel
=====================

Does the gate help on more than one symbol? A run each, pooled, judged by dates. One symbol says little:
on a year of one, a true Sharpe difference of 1 is seen one time in six. On a panel all symbols of a
block of dates move together, so that what they have in common is not taken for evidence.
"""

import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, Universe, panel_study, panel_test
from bt_llm.data import shipped

strategy = f"{shipped('rsi_reversion.py')}:GatedRsiReversion"
universe = Universe.of(
    {name: shipped(f"{name}_daily.csv") for name in ("sp500", "vix", "wti")}, weights={"sp500": 2.0}
)
gate = Gate(advisor=AdvisorConfig(model="smollm2"), require="not_against")
costs = {"commission": 0.0005, "percent": 60.0}
study = panel_study(strategy, universe, gate, **costs)
for name, one in study.symbols.items():
    gated, ungated = (run.metrics["return"] for run in (one.gated, one.ungated))
    print(f"{name:8} gated {gated:+7.1%}  ungated {ungated:+7.1%}")
print(*study.sentences, sep="\n")

# %%
# The test is joint: null gates give the same answers on other dates, the same dates in all symbols.

test = panel_test(strategy, universe, gate, n=39, resamples=199, **costs)
print(test.sentences[0])

# %%
# Each symbol's difference, and its trades.

figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
differences = {
    name: one.gated.metrics["sharpe"] - one.ungated.metrics["sharpe"] for name, one in study.symbols.items()
}
axes.barh(list(differences), list(differences.values()), color="#0b6e4f")
axes.axvline(0, color="black", linewidth=0.8)
axes.set_xlabel("Sharpe ratio, gated less ungated")
plt.show()
