"""A moving-average crossover on a year of EUR/USD hours, gated by the model that comes with bt_llm.

Run: python examples/quickstart.py
The first run asks the model, which takes seconds; later runs read its verdicts from the cache.
"""

from pathlib import Path

from bt_llm import AdvisorConfig, Gate, gate_study

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    study = gate_study(
        f"{ROOT / 'strategies' / 'sma_cross.py'}:GatedSmaCross",
        ROOT / "data" / "eurusd_hourly.csv",
        Gate(advisor=AdvisorConfig(model="smollm2")),
        commission=0.00002,
    )
    for name, run in study.runs.items():
        print(f"{name:13}", {key: round(run.metrics[key], 4) for key in ("return", "max_drawdown", "trades")})
    advice = study.gated.advice
    print("verdicts:", advice["verdicts"])
    print("model calls:", advice["model_calls"], "from the cache:", advice["cache_hits"])


if __name__ == "__main__":
    main()
