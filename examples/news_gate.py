"""
Do not trade against the news
=============================

39 real events of 2017 are judged by the model that comes with bt_llm: the first run takes a minute, the
next none. A crossover then makes no entry against a mood that fades by half in a day.
"""

import sys

import matplotlib.pyplot as plt

from bt_llm import Headlines, NewsGate, gate_study
from bt_llm.advice import AnalystConfig, NewsAnalyst
from bt_llm.data import load_bars, shipped


def main(model: str = "smollm2", bars: int | None = None) -> None:
    """Judge the headlines, gate the strategy, and draw the scores on the price."""
    headlines = Headlines.load(shipped("eurusd_news.csv"))
    config = AnalystConfig(model=model)
    with NewsAnalyst(config) as analyst:
        said = analyst.analyze_many([one.text for one in headlines])
        for headline, sentiment in zip(headlines, said, strict=True):
            print(f"{headline.time:%Y-%m-%d %H:%M}  {sentiment.score:+.2f}  {headline.text}")
        print(f"{analyst.usage.invalid} of {analyst.usage.answers} answers could not be read\n")

    prices = load_bars(shipped("eurusd_hourly.csv")).iloc[:bars]
    gate = NewsGate(headlines=headlines, analyst=config, half_life=24, min_score=0.1)
    study = gate_study(f"{shipped('sma_cross.py')}:GatedSmaCross", prices, gate, commission=0.00002)
    for name, run in study.runs.items():
        print(f"{name:13}", {key: round(run.metrics[key], 4) for key in ("return", "max_drawdown", "trades")})

    _, (above, below) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    above.plot(prices["close"], color="#7a7a7a", linewidth=0.8)
    above.set_ylabel("EUR/USD")
    scores = [one.score for one in said]
    below.stem([one.time for one in headlines], scores, markerfmt=".", basefmt=" ", linefmt="#0b6e4f")
    below.axhline(0, color="black", linewidth=0.5)
    below.set_ylabel("score of the headline")
    plt.show()


if __name__ == "__main__":
    main(*sys.argv[1:2])
