"""What an `LLMAdvice` is given, checked when it is made, so that a mistake is one line and no IndexError."""

from __future__ import annotations

import math
from typing import Any

import backtrader as bt

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.feeds import data_name, feed_of
from bt_llm.indicators._frequency import Frequency
from bt_llm.indicators._state_lines import check_periods
from bt_llm.settings import one_of

__all__ = ["check_datas", "check_length", "checked_config", "checked_frequency"]

_LIVE = ("auto", "on", "off")


def check_datas(advice: Any, misplaced: tuple[Any, ...], unknown: dict[str, Any]) -> None:
    """Check what an indicator was called with: data feeds by position, its parameters by keyword."""
    name, datas = type(advice).__name__, advice.datas
    if unknown:
        raise ConfigError(f"{name} has no parameters {list(unknown)}, only {list(advice.p._getkeys())}")
    if constants := [data for data in datas if _is_constant(data)]:
        misplaced = (constants[0].lines[0].a.wrapped,)
    if misplaced:
        raise ConfigError(
            f"{name} got {type(misplaced[0]).__name__} by position: expected data feeds only; "
            f"pass settings by keyword, such as {name}(self.data, advisor=config)"
        )
    if not all(hasattr(datas[0], line) for line in ("open", "high", "low", "close")):
        raise DataError(
            f"{name} got {type(datas[0]).__name__} without open, high, low and close: expected a data "
            f"feed as its first argument, such as {name}(self.data, advisor=config)"
        )
    if len(datas) > 2:
        raise ConfigError(
            f"{name} got {len(datas)} datas: expected one data feed and at most one trigger line; "
            f"make one {name} a data feed"
        )
    if len(datas) > 1 and feed_of(datas[1]) is not feed_of(datas[0]):
        raise ConfigError(
            f"{name} has a trigger of another data feed: expected a line on the bars of its first data; "
            f"combine timeframes in the strategy"
        )


def checked_config(advice: Any) -> AdvisorConfig:
    """Return how the model is asked, after a look at the periods."""
    name, p = type(advice).__name__, advice.p
    check_periods(advice)
    if p.advisor is None:
        return AdvisorConfig(manager=p.manager)
    if not isinstance(p.advisor, AdvisorConfig):
        raise ConfigError(
            f"{name} got advisor={p.advisor!r}: expected an AdvisorConfig, such as "
            f"AdvisorConfig(model='smollm2')"
        )
    return p.advisor.asked_through(p.manager)


def checked_frequency(advice: Any) -> Frequency:
    """Return on which bars the model is asked, after a look at what a live run needs."""
    p = advice.p
    seconds = {"timeout_s": "above 0", "min_seconds": "of at least 0", "deadline_s": "above 0"}
    for name, least in seconds.items():
        value = getattr(p, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (least == "above 0" and value == 0):
            raise ConfigError(f"{name}={value!r}: expected a number of seconds {least}")
    one_of("live", p.live, _LIVE)
    return Frequency(every=p.every, min_minutes=p.min_minutes, max_age=p.max_age)


def check_length(advice: Any) -> None:
    """Say so in one line if the data is too short, where Backtrader would fail with an IndexError.

    Beside other datas it may be a young one, of which there is no advice: the run goes bar by bar.
    """
    needed = max(line._minperiod for line in advice.lines)
    bars = advice.data.buflen()  # 0 before a feed that is not preloaded has started
    if not 0 < bars < needed:
        return
    owner = feed_of(advice.data)._env
    if owner is None or len(owner.datas) < 2:
        raise DataError(
            f"data {data_name(advice.data)!r} has {bars} bars, but {type(advice).__name__} needs {needed} to "
            f"warm up; give more bars or shorter periods (median={advice.p.median})"
        )
    owner._disable_runonce()


def _is_constant(data: Any) -> bool:
    """Return whether Backtrader wrapped an argument that is no data into a line of one repeated value."""
    return isinstance(getattr(data.lines[0], "a", None), bt.linebuffer.PseudoArray)
