from __future__ import annotations

import threading

import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.models import LLMThrottler


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_defaults_are_the_documented_ones():
    throttler = LLMThrottler()
    assert throttler.min_interval == 5.0
    assert throttler.can_call()
    assert not throttler.can_call()


def test_the_first_call_is_allowed_and_the_next_ones_after_the_interval():
    clock = Clock()
    throttler = LLMThrottler(min_interval=5.0, clock=clock)
    assert throttler.seconds_left() == 0.0
    assert throttler.can_call()
    assert throttler.last_call == 100.0
    clock.now = 104.9
    assert not throttler.can_call()
    assert throttler.seconds_left() == pytest.approx(0.1)
    assert throttler.last_call == 100.0, "a refused call does not count"
    clock.now = 105.0
    assert throttler.can_call()
    assert throttler.last_call == 105.0


def test_a_clock_near_zero_does_not_block_the_first_call():
    assert LLMThrottler(min_interval=3600, clock=lambda: 0.5).can_call()


def test_no_interval_never_blocks():
    throttler = LLMThrottler(min_interval=0, clock=Clock())
    assert all(throttler.can_call() for _ in range(3))


def test_of_many_threads_one_may_call():
    throttler = LLMThrottler(min_interval=60, clock=Clock())
    barrier, allowed = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        for _ in range(50):
            if throttler.can_call():
                allowed.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 1


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "5", True, None])
def test_bad_intervals_are_refused(bad):
    with pytest.raises(ConfigError, match="min_interval"):
        LLMThrottler(min_interval=bad)
