"""
Three lines, and a feature of your own
======================================

A strategy that you have already becomes a gated one by the three lines that are marked. The market state
gets one more feature, which the prompt speaks of. The model is scripted here, so that this runs in a
second; name yours, such as ``"smollm2"``.
"""

import backtrader as bt
import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Feature, Gate, LLMAdvice, StateSpace, attach_gate, gate_study
from bt_llm.data import shipped


class MacdCross(bt.Strategy):
    """Long while the MACD is above its signal."""

    params = (("gate", None),)  # 1: the gate is a parameter; None runs the strategy as it was

    def __init__(self) -> None:
        macd = bt.ind.MACD(self.data)
        self.cross = bt.ind.CrossOver(macd.macd, macd.signal)
        self.gate = attach_gate(self.p.gate, self)  # 2: attached here, where indicators are made

    def next(self) -> None:
        if self.cross[0] > 0 and self.gate.allows_long():  # 3: entries ask; exits never do
            self.buy()
        elif self.cross[0] < 0 and self.position:
            self.close()


# %%
# A feature is an indicator, the edges of its buckets, and what the prompt says for each.

BAND = Feature(
    name="percent_b",
    title="Bollinger %B",
    edges=(0.0, 0.5, 1.0),
    labels=("below the band", "lower half", "upper half", "above the band"),
    indicator=bt.ind.BollingerBandsPct,
)


class BandAdvice(LLMAdvice):
    """The advice indicator with a line for the feature."""

    lines = ("percent_b",)


space = StateSpace().with_feature(BAND)
gate = Gate(
    advisor=AdvisorConfig(model="scripted:trend", state_space=space),
    require="not_against",
    indicator=BandAdvice,
)
study = gate_study(MacdCross, shipped("sp500_daily.csv"), gate, commission=0.0001)
for name, run in study.runs.items():
    print(f"{name:13}", {key: round(run.metrics[key], 4) for key in ("return", "max_drawdown", "trades")})

# %%
# The verdict line on the last three hundred bars: what a long entry is asked about.

said = next(iter(study.gated.verdicts.values())).tail(300)
close = study.buy_and_hold.equity.reindex(said.index)
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
axes.plot(close, color="#7a7a7a", linewidth=1)
for name, colour in (("bullish", "#0b6e4f"), ("neutral", "#b0b0b0"), ("bearish", "#c8553d")):
    here = close[said["answer"] == name]
    axes.plot(here.index, here, ".", color=colour, label=f"{name}: {len(here)} bars", markersize=5)
axes.set_ylabel("buy and hold")
axes.legend(frameon=False)
plt.show()
