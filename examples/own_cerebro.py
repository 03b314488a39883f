"""
Your own Cerebro: a pair of futures on margin
=============================================

A strategy that knows of no gate, in its own set-up, its orders judged by a model. From the shell:
``bt-llm run -s examples/own_cerebro.py:Pair --setup examples/own_cerebro.py:futures -d
sp500=data/sp500_daily.csv -d oil=data/wti_daily.csv``. The first run asks the model, which takes
seconds.
"""

import sys

import backtrader as bt

from bt_llm import AdvisorConfig, Gate, Market, gate_study
from bt_llm.data import shipped

CONTRACTS = {"sp500": (5.0, 1_500.0), "oil": (100.0, 900.0)}  # money a point, margin of one contract


def futures(cerebro: bt.Cerebro, market: Market) -> None:
    """Open the account as a script does before ``run()``; the datas are added in their order."""
    cerebro.broker.setcash(50_000.0)
    for name, (mult, margin) in CONTRACTS.items():
        cerebro.broker.setcommission(commission=0.5, mult=mult, margin=margin, name=name)


class Pair(bt.Strategy):
    """Long the first and short the second where it is cheap against it; the reverse where it is dear."""

    params = (("period", 60), ("far", 1.5))

    def __init__(self) -> None:
        ratio = self.data0.close / self.data1.close
        self.score = (ratio - bt.ind.SMA(ratio, period=self.p.period)) / bt.ind.StdDev(
            ratio, period=self.p.period
        )

    def next(self) -> None:
        held = self.getposition(self.data0).size or -self.getposition(self.data1).size
        if held * self.score[0] >= 0 and held:
            self.close(self.data0)
            self.close(self.data1)
        elif not held and self.score[0] < -self.p.far:
            self.buy(self.data0, size=1)
            self.sell(self.data1, size=1)
        elif not held and self.score[0] > self.p.far:
            self.sell(self.data0, size=1)
            self.buy(self.data1, size=1)


def main(model: str = "smollm2") -> None:
    """Run the pair gated, ungated, and buy and hold, and draw what was vetoed."""
    import matplotlib.pyplot as plt

    market = Market.of({"sp500": shipped("sp500_daily.csv"), "oil": shipped("wti_daily.csv")})
    study = gate_study(
        Pair,
        market.between("2010-01-01", None),
        Gate(advisor=AdvisorConfig(model=model), require="not_against"),
        setup=futures,
    )
    for name, run in study.runs.items():
        print(f"{name:13}", {key: round(run.metrics[key], 4) for key in ("return", "max_drawdown", "trades")})
    print(f"{study.gated.orders['vetoed']} orders vetoed; {'; '.join(study.problems) or 'no problems'}")

    _, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    for name in ("gated", "ungated"):
        axes.plot(study.runs[name].equity, label=name, linewidth=1.2)
    orders = study.gated.order_log
    vetoed = orders[orders["vetoed"] & ~orders["early"]]["time"]
    axes.plot(vetoed, study.gated.equity.reindex(vetoed), "v", color="#c8553d", label="an order was vetoed")
    axes.set_ylabel("account value")
    axes.legend(frameon=False)
    plt.show()


if __name__ == "__main__":
    main(*sys.argv[1:2])
