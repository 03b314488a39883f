"""Timeout: a generation that would take 30 s, stopped after 0.5 s, again and again.

The same long `LlamaModel.generate` is first shown to take more than 30 s (it is stopped there), then called
with ``timeout_s=0.5``, in turns in the main thread and in another one. How long each call took until it
raised is reported, and whether a short generation after each still gave its one correct text. The scorer is
held to the same limit over more prompts than it can answer in that time.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from measuring import Figure, median, note, options, report, seconds

LIMIT_S = 0.5
ALLOWED_S = 0.75
WOULD_TAKE_S = 30.0
LONG = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,"  # it goes on counting, and never ends by itself
ENDLESS = {"max_tokens": 8000, "temperature": 0.0, "repeat_penalty": 1.0}
SHORT = "The capital of France is"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--model", default="smollm2", help="a GGUF")
        parser.add_argument("--threads", type=int, default=2, help="CPU threads")

    chosen = options(__doc__, argv, add=add)
    from bt_llm.models import LlamaModel, ModelConfig

    rounds = 3 if chosen.quick else 20
    with LlamaModel(ModelConfig(model_path=chosen.model, n_ctx=8192, n_threads=chosen.threads)) as model:

        def short() -> str:
            return model.generate(SHORT, max_tokens=8)

        expected = short()
        would_take = None
        if not chosen.quick:
            note("timeout: letting the generation run for 30 s")
            would_take = stopped_after(lambda: model.generate(LONG, timeout_s=WOULD_TAKE_S, **ENDLESS))
        note(f"timeout: {rounds} rounds of {LIMIT_S} s")
        took, correct = [], 0
        for number in range(rounds):
            place = in_a_thread if number % 2 else at_once
            took.append(
                place(lambda: stopped_after(lambda: model.generate(LONG, timeout_s=LIMIT_S, **ENDLESS)))
            )
            correct += short() == expected
    scored, right = scoring(chosen.model, rounds, chosen.threads)
    figures = [
        Figure(name="longest generate(timeout_s=0.5)", value=max(took), unit="s", target=("<=", ALLOWED_S)),
        Figure(name="next calls with the correct text", value=correct, target=("=", rounds)),
        Figure(name="longest score(timeout_s=0.5)", value=max(scored), unit="s", target=("<=", ALLOWED_S)),
        Figure(name="next scores that are the same to the last bit", value=right, target=("=", rounds)),
        Figure(
            name="the same generation, stopped at 30 s",
            value=would_take,
            unit="s",
            target=(">=", WOULD_TAKE_S),
        ),
    ]
    details = {"rounds": rounds, "model": str(chosen.model), "generate_s": took, "score_s": scored}
    details["median_generate_s"] = median(took)
    return report(__file__, __doc__, figures, details, quick=chosen.quick)


def stopped_after(call: Callable[[], object]) -> float:
    """Return how long a call took until it raised GenerationTimeout; anything else is an error."""
    from bt_llm.exceptions import GenerationTimeout

    start = time.perf_counter()
    try:
        call()
    except GenerationTimeout:
        return time.perf_counter() - start
    raise RuntimeError(f"the call was done after {time.perf_counter() - start:.1f} s, before its time limit")


def at_once(work: Callable[[], float]) -> float:
    """Run in this thread."""
    return work()


def in_a_thread(work: Callable[[], float]) -> float:
    """Run in another thread."""
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    seconds(lambda: (thread.start(), thread.join()))
    return found[0]


def scoring(model: str, rounds: int, threads: int) -> tuple[list[float], int]:
    """Return how long each stopped score took, and after how many the next one was right."""
    from bt_llm.models import LlamaModel, ModelConfig, Prompt

    labels = (" up", " down")
    backend = LlamaModel(ModelConfig(model_path=model, n_threads=threads))
    many = [Prompt((SHORT, f" It is number {k} of a great many questions." * 10)) for k in range(320)]
    few = [Prompt((SHORT, " Up or down?"))]

    def score(prompts: Sequence[Prompt], timeout_s: float | None) -> list[Any]:
        return [
            [scores.logprobs for scores in batch]
            for batch in backend.score(prompts, labels, timeout_s=timeout_s)
        ]

    try:
        score(many[:32], None)  # the context is made for the longest prompts, before the clock runs
        expected = score(few, None)
        took, right = [], 0
        for number in range(rounds):
            place = in_a_thread if number % 2 else at_once
            took.append(place(lambda: stopped_after(lambda: score(many, LIMIT_S))))
            right += score(few, None) == expected
        return took, right
    finally:
        backend.close()


if __name__ == "__main__":
    main()
