"""A moving-average crossover that does not trade against the news.

39 real events are judged by the model that comes with bt_llm: the first run takes a minute, the next none.

Run: python examples/news_gate.py
"""

from bt_llm import gate_study
from bt_llm.advice import AnalystConfig, NewsAnalyst
from bt_llm.data import Headlines, load_bars, shipped
from bt_llm.gates import NewsGate


def main(model: str = "smollm2", bars: int | None = None) -> None:
    headlines = Headlines.load(shipped("eurusd_news.csv"))
    config = AnalystConfig(model=model)
    analyst = NewsAnalyst(config)
    for headline, sentiment in zip(headlines, analyst.analyze_many([h.text for h in headlines]), strict=True):
        print(f"{headline.time:%Y-%m-%d %H:%M}  {sentiment.score:+.2f}  {headline.text}")
    print(f"{analyst.usage.invalid} of {analyst.usage.answers} answers could not be read\n")
    analyst.close()

    gate = NewsGate(headlines=headlines, analyst=config, half_life=24, min_score=0.1)
    study = gate_study(
        f"{shipped('sma_cross.py')}:GatedSmaCross",
        load_bars(shipped("eurusd_hourly.csv")).iloc[:bars],
        gate,
        commission=0.00002,
    )
    for name, run in study.runs.items():
        print(f"{name:13}", {key: round(run.metrics[key], 4) for key in ("return", "max_drawdown", "trades")})


if __name__ == "__main__":
    main()
