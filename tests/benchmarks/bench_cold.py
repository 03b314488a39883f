"""Cold: a gated backtest of the 5,000 EURUSD hours from nothing, against asking the model on every bar.

Ours: a whole `run_backtest` of the moving-average crossover with a `Gate`, from an empty cache: hashing the
file, loading the model, asking for every state of the grid, and the backtest itself. Then once more with
that cache, by a new advisor.

The naive way is the spec's: `LlamaModel.generate(prompt, max_tokens=300)` on every bar, in the spec's own
words, the model loaded once beforehand. It is timed on a sample of states spread over the grid, in turns
with the cold runs, and its mean is multiplied by the number of bars that have a state (the backtest itself
would come on top). An answer may end before 300 tokens: how many were written is in the details. For
comparison, the same is done for a naive way that asks our own prompt and writes a single token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from measuring import Figure, fresh_cache, median, note, options, report

TIMES_FASTER = 1000.0

_SPEC_PROMPT = """
    Market Analysis Request:

    EUR/USD: {trend}, RSI: {rsi}
    Volatility: {volatility}

    Provide:
    1. Overall market regime (Trending/Ranging/Volatile)
    2. Risk level (Low/Medium/High)
    3. Trading recommendations
    """


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(
        __doc__,
        argv,
        add=lambda parser: parser.add_argument("--model", default="smollm2", help="who is asked"),
    )
    rounds, sample = (1, 2) if chosen.quick else (3, 8)
    times: dict[str, list[float]] = {"cold": [], "again": [], "naive": [], "one_token": []}
    written: list[int] = []
    advice: dict[str, Any] = {}
    again_calls = 0
    with _Naive(chosen.model) as naive:
        for turn in range(rounds):
            note(f"cold: round {turn + 1} of {rounds}")
            cold, again = _cold_and_again(chosen.model)
            advice = cold[1]
            times["cold"].append(cold[0])
            times["again"].append(again[0])
            again_calls += again[1]["model_calls"]
            for state in naive.states(sample, turn, rounds):
                times["naive"].append(naive.spec(state))
                written.append(naive.written)
                times["one_token"].append(naive.one_token(state))
    bars = advice["bars"] - advice["warm_up"]
    ours = median(times["cold"])
    whole = {way: bars * sum(times[way]) / len(times[way]) for way in ("naive", "one_token")}
    figures = [
        Figure(
            name="naive way over ours, cold",
            value=whole["naive"] / ours,
            unit="x",
            target=(">=", TIMES_FASTER),
            note=f"naive: mean of {len(written)} bars times {bars:,}",
        ),
        Figure(
            name="one token of our own prompt on every bar, over ours",
            value=whole["one_token"] / ours,
            unit="x",
            note=f"mean of {len(written)} bars times {bars:,}",
        ),
        Figure(name="model calls of the run after it", value=again_calls, target=("=", 0)),
        Figure(name=f"backtest of {advice['bars']:,} bars, cold", value=ours, unit="s"),
        Figure(name="the same, again in a new advisor", value=median(times["again"]), unit="s"),
        Figure(name="naive way, extrapolated", value=whole["naive"], unit="s"),
    ]
    details = {
        "model": str(chosen.model),
        "bars": advice["bars"],
        "bars_with_a_state": bars,
        "distinct_states_in_the_bars": advice["distinct"],
        "prompts_asked": advice["model_calls"],
        "seconds_in_the_model": advice["model_seconds"],
        "naive_tokens_written": written,
        "seconds": times,
    }
    return report(__file__, __doc__, figures, details, quick=chosen.quick)


def _cold_and_again(model: str) -> list[tuple[float, dict[str, Any]]]:
    """Return seconds and advice of a run from nothing, and of one that finds its cache."""
    from bt_llm.advice import AdvisorConfig, forget_answers
    from bt_llm.backtest import run_backtest
    from bt_llm.data import shipped
    from bt_llm.gates import Gate
    from bt_llm.models import forget_managers

    strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    gate = Gate(advisor=AdvisorConfig(model=model))
    found = []
    with fresh_cache():
        for _ in range(2):
            forget_answers()
            forget_managers()
            start = time.perf_counter()
            result = run_backtest(strategy, shipped("eurusd_hourly.csv"), gate=gate)
            found.append((time.perf_counter() - start, dict(result.advice or {})))
    return found


class _Naive:
    """The model asked bar by bar, in words."""

    def __init__(self, model: str) -> None:
        from bt_llm.models import LlamaModel, ModelConfig
        from bt_llm.models.llama._native import cpu_threads

        self._llama = LlamaModel(ModelConfig(model_path=model, n_threads=cpu_threads()))
        self.written = 0

    def __enter__(self) -> _Naive:
        from bt_llm.models import find_model, identify
        from bt_llm.prompts import PromptTemplate
        from bt_llm.verdicts import StateSpace

        self._llama.load()
        self._space = StateSpace()
        self._prompts = PromptTemplate.load("market").prompts(
            self._space, range(len(self._space)), identify(find_model(self._llama.config.model_path))
        )
        self._llama.generate("Ready?", max_tokens=1)  # the first call touches every page of the file
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.unload_model()

    def states(self, count: int, turn: int, turns: int) -> list[int]:
        """Return some cells of the grid, spread over it, others in each turn."""
        total = count * turns
        return [(turn + i * turns) * len(self._space) // total for i in range(count)]

    def spec(self, cell: int) -> float:
        """Return the seconds that the spec's call takes on a bar in that state."""
        prompt = _SPEC_PROMPT.format(**self._space.describe(cell))
        start = time.perf_counter()
        answer = self._llama.generate(prompt, max_tokens=300)
        taken = time.perf_counter() - start
        self.written = self._llama_tokens(answer)
        return taken

    def one_token(self, cell: int) -> float:
        """Return the seconds that our own prompt and an answer of one token take."""
        start = time.perf_counter()
        self._llama.generate(self._prompts[cell].text, max_tokens=1)
        return time.perf_counter() - start

    def _llama_tokens(self, text: str) -> int:
        return len(self._llama.session.weights().tokens(text, special=False))


if __name__ == "__main__":
    main()
