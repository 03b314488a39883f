"""
Answers of your own: sizes instead of sides
===========================================

A template says what the model chooses from, and what each answer is worth. Here it is told to choose how
much of the account to hold, and the strategy sizes its entries by that. Names and worths are applied to
stored answers: changing a worth asks the model nothing.
"""

import tempfile
from pathlib import Path

import backtrader as bt
import matplotlib.pyplot as plt

from bt_llm import AdvisorConfig, Gate, attach_gate, run_backtest
from bt_llm.data import shipped

template = Path(tempfile.mkdtemp()) / "size.toml"
template.write_text(
    '''
format = 1
name = "size"
version = 1
answer = "Holding:"
system = """
From the state of a market, say how much of an account to hold in it. Answer Full, Half or Zero."""
user = """
{% for feature in features %}
{{ feature.title }}: {{ feature.label }}
{% endfor %}
"""

[[labels]]
name = "full"
word = "Full"
worth = 1.0

[[labels]]
name = "half"
word = "Half"
worth = 0.5

[[labels]]
name = "zero"
word = "Zero"
worth = 0.0

[[examples]]
state = { volatility = 1.0, rsi = 60.0, trend = 0.08 }
verdict = "full"

[[examples]]
state = { volatility = 1.0, rsi = 50.0, trend = 0.0 }
verdict = "half"

[[examples]]
state = { volatility = 1.0, rsi = 40.0, trend = -0.08 }
verdict = "zero"
''',
    encoding="utf-8",
)


class Sized(bt.Strategy):
    """Long above the average, with the share of the account that the model says."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.cross = bt.ind.CrossOver(self.data.close, bt.ind.SMA(period=50))
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        if self.cross[0] > 0 and self.gate.allows_long():
            self.order_target_percent(target=0.9 * self.gate.log[-1].verdict)
        elif self.cross[0] < 0 and self.position:
            self.close()


run = run_backtest(
    Sized, shipped("sp500_daily.csv"), gate=Gate(advisor=AdvisorConfig(model="smollm2", template=template))
)
print(run.advice["verdicts"])

# %%
# The value that each entry bought, as a share of the account.

bought = run.fills[run.fills["size"] > 0]
share = bought["size"] * bought["price"] / run.equity.reindex(bought["time"]).to_numpy()
figure, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
axes.stem(bought["time"], share, basefmt=" ", markerfmt=".", linefmt="#0b6e4f")
axes.set_ylabel("share of the account")
axes.set_ylim(0, 1)
plt.show()
