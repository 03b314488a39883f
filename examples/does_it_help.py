"""Does the model's gate help, or would a coin do as well? The gated result among those of random gates.

Run: python examples/does_it_help.py
The first run asks the model, which takes seconds; then there are 39 random gates, half a second each. For
an answer to rely on use a few hundred, with n_jobs=-1.
"""

from pathlib import Path

from bt_llm import AdvisorConfig, Gate
from bt_llm.research import gate_test

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    test = gate_test(
        f"{ROOT / 'strategies' / 'sma_cross.py'}:GatedSmaCross",
        ROOT / "data" / "eurusd_hourly.csv",
        Gate(advisor=AdvisorConfig(model="smollm2")),
        n=39,
        shifts=0,
        resamples=500,
        commission=0.00002,
    )
    for name, run in test.runs.items():
        print(f"{name:13} return {run.metrics['return']:+7.2%}  exposure {run.metrics['exposure']:4.0%}")
    print(*test.sentences, sep="\n")


if __name__ == "__main__":
    main()
