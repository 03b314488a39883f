"""Time limits hold inside a decode, in any thread, and leave the model as it was.

Seconds are asserted loosely, since whole answers would take minutes; those of
`tests/benchmarks/bench_timeout.py` are exact.
"""

from __future__ import annotations

import threading
import time

import pytest

from bt_llm.exceptions import GenerationTimeout
from bt_llm.models import LlamaModel, ModelConfig, giving_up_when

pytestmark = pytest.mark.model

LONG = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,"  # it goes on counting, and never ends by itself
ENDLESS = {"max_tokens": 8000, "temperature": 0.0, "repeat_penalty": 1.0}
SHORT = "The capital of France is"
LIMIT_S = 0.2


@pytest.fixture(scope="module")
def model(smollm2_path):
    with LlamaModel(ModelConfig(model_path=smollm2_path, n_ctx=8192, n_threads=1)) as loaded:
        yield loaded


def stopped(model, times):
    for _ in range(times):
        start = time.monotonic()
        with pytest.raises(GenerationTimeout, match=r"timeout_s=0\.2: over before the answer was complete"):
            model.generate(LONG, timeout_s=LIMIT_S, **ENDLESS)
        times_over = (time.monotonic() - start) / LIMIT_S
        assert 1.0 <= times_over < 250.0


def test_a_long_generation_is_stopped_again_and_again_and_the_next_answer_is_right(model):
    expected = model.generate(SHORT, max_tokens=6)
    for _ in range(3):
        stopped(model, 1)
        assert model.generate(SHORT, max_tokens=6) == expected


def test_whoever_asks_can_give_up(model):
    end = time.monotonic() + LIMIT_S
    with giving_up_when(lambda: time.monotonic() > end), pytest.raises(GenerationTimeout):
        model.generate(LONG, **ENDLESS)
    assert time.monotonic() - end < 250 * LIMIT_S


def test_it_is_stopped_in_another_thread_too(model):
    expected, errors = model.generate(SHORT, max_tokens=6), []

    def work():
        try:
            stopped(model, 2)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert model.generate(SHORT, max_tokens=6) == expected


def test_the_limit_of_one_call_is_not_that_of_the_next(model):
    stopped(model, 1)
    assert model.generate(SHORT, max_tokens=6, timeout_s=600) == model.generate(SHORT, max_tokens=6)
