"""Does the gate help on more than one symbol? A panel: a run each, pooled, judged by dates.

Run: python examples/panel.py
One symbol says little: on a year of one, a true Sharpe difference of 1 is seen one time in six. On a panel
all symbols of a block of dates move together, so that what they have in common is not taken for evidence.
"""

from pathlib import Path

from bt_llm import AdvisorConfig, Gate, Universe, panel_study, panel_test

ROOT = Path(__file__).resolve().parent.parent
STRATEGY = f"{ROOT / 'strategies' / 'rsi_reversion.py'}:GatedRsiReversion"


def main() -> None:
    universe = Universe.of(ROOT / "examples" / "panel.csv", weights={"sp500": 2.0})
    gate = Gate(advisor=AdvisorConfig(model="smollm2"), require="not_against")
    costs = {"commission": 0.0005, "percent": 60.0}
    study = panel_study(STRATEGY, universe, gate, **costs)
    for name, one in study.symbols.items():
        gated, ungated = (run.metrics["return"] for run in (one.gated, one.ungated))
        print(f"{name:8} gated {gated:+7.1%}  ungated {ungated:+7.1%}")
    print(*study.sentences, *study.runs["gated"].settled, sep="\n")
    test = panel_test(STRATEGY, universe, gate, n=39, resamples=199, **costs)
    print(test.sentences[0])


if __name__ == "__main__":
    main()
