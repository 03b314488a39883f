"""Add the gate to a strategy that you already have: the three lines marked below.

Run: python examples/custom_strategy.py
"""

from pathlib import Path

import backtrader as bt

from bt_llm import AdvisorConfig, Feature, Gate, LLMAdvice, StateSpace, attach_gate, gate_study

DATA = Path(__file__).resolve().parent.parent / "data" / "sp500_daily.csv"


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


# A feature of your own: its indicator, the edges of its buckets, and what the prompt says for each.
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


def main() -> None:
    # The model is scripted here, so that the example runs in a second; name yours, such as "smollm2".
    space = StateSpace().with_feature(BAND)
    advisor = AdvisorConfig(model="scripted:trend", state_space=space)
    gate = Gate(advisor=advisor, require="not_against", indicator=BandAdvice)
    for name, run in gate_study(MacdCross, DATA, gate, commission=0.0001).runs.items():
        print(f"{name:13}", {key: round(run.metrics[key], 4) for key in ("return", "max_drawdown", "trades")})


if __name__ == "__main__":
    main()
