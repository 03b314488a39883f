from __future__ import annotations

import json
from array import array
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError
from bt_llm.gates import attach_gate
from bt_llm.research import LeakReport, perturbation_check
from bt_llm.research._leakage import _mirrored, _redrawn
from tests.engines import QuickAdvice, walk
from tests.research_cases import Alternate, gate_of

BARS = walk(160, seed=2)


class Follow(bt.Strategy):
    """Honest: buy above the average, sell below it."""

    params = (("gate", None), ("period", 10))

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)
        self.average = bt.ind.SMA(self.data, period=self.p.period)
        self.above = self.data.close - self.average
        self.make()

    def make(self) -> None:
        pass

    def wants(self) -> bool:
        return self.above[0] > 0

    def next(self) -> None:
        if not self.position and self.wants() and self.gate.allows_long():
            self.buy()
        elif self.position and not self.wants():
            self.close()


class PeeksAtTheNextClose(Follow):
    def wants(self) -> bool:
        last = len(self) == self.data.buflen()
        return not last and self.data.close[1] > self.data.close[0]


class Centred(bt.Indicator):
    """A smoother that is centred on its bar."""

    lines = ("centred",)

    def once(self, start: int, end: int) -> None:
        values = pd.Series(self.data.array).rolling(5, center=True).mean().to_numpy()
        self.lines.centred.array[start:end] = array("d", values[start:end].tobytes())


class WholeSample(bt.Indicator):
    """Standardised by mean and deviation of all bars, those to come included."""

    lines = ("z",)

    def once(self, start: int, end: int) -> None:
        values = np.array(self.data.array)
        z = (values - values.mean()) / values.std()
        self.lines.z.array[start:end] = array("d", z[start:end].tobytes())


class Wrapped(bt.Indicator):
    """Hides another indicator inside itself."""

    lines = ("doubled",)

    def __init__(self) -> None:
        self.lines.doubled = Centred(self.data.close) * 2.0


class LooksAtCentred(Follow):
    def make(self) -> None:
        self.centred = Centred(self.data.close)


class LooksAtWrapped(Follow):
    def make(self) -> None:
        self.wrapped = Wrapped(self.data)


class LooksAtWholeSample(Follow):
    def make(self) -> None:
        self.z = WholeSample(self.data.close)


class ReadsAParkedChild(Follow):
    """Backtrader leaves an indicator inside another one at the last bar: its ``[0]`` is the future."""

    def make(self) -> None:
        class Holder(bt.Indicator):
            lines = ("nothing",)

            def __init__(self) -> None:
                self.child = bt.ind.SMA(self.data, period=3)
                self.lines.nothing = self.child * 0.0

        self.holder = Holder(self.data)

    def wants(self) -> bool:
        return self.data.close[0] > self.holder.child[0]


class ChoosesByTheLastPrice(Follow):
    def make(self) -> None:
        rose = self.data.close.array[-1] > self.data.close.array[100]
        self.extra = bt.ind.EMA(self.data) if rose else bt.ind.WMA(self.data)


class SizesByTheFuture(Follow):
    def next(self) -> None:
        if len(self) % 10 == 0:
            ahead = min(5, self.data.buflen() - len(self))
            self.buy(size=1.0 + self.data.close[ahead])


def leak_of(report: LeakReport) -> tuple[str, int, int]:
    first = min(report.leaks, key=lambda leak: (leak.bar, leak.at))
    return first.what, first.bar, first.at


# what is planted is found


@pytest.mark.parametrize("strategy", [PeeksAtTheNextClose, ReadsAParkedChild, SizesByTheFuture])
def test_orders_that_know_the_future_are_found(strategy: type[bt.Strategy]) -> None:
    report = perturbation_check(strategy, BARS, points=3)
    assert not report.clean
    assert leak_of(report)[0] == "order"
    assert "Look-ahead: order at bar" in report.sentence


def test_a_peek_of_one_bar_is_seen_at_the_bar_before_the_change() -> None:
    bars = walk(40, seed=4)
    report = perturbation_check(PeeksAtTheNextClose, bars, range(12, 39))
    assert len(report.leaks) >= 27  # a mirrored move always changes its mind, a random one now and then
    assert all(leak.bar == leak.at for leak in report.leaks)


@pytest.mark.parametrize(
    ("strategy", "line", "bar"),
    [
        (LooksAtCentred, "Centred.centred", 79),  # two bars ahead: the mean of bars 77 to 81 is first
        (LooksAtWrapped, "Wrapped > Centred.centred", 79),
        (LooksAtWholeSample, "WholeSample.z", 1),
    ],
)
def test_lines_that_know_the_future_are_found_and_named(
    strategy: type[bt.Strategy], line: str, bar: int
) -> None:
    report = perturbation_check(strategy, BARS, 80)
    assert {leak.at for leak in report.leaks} == {80}
    found = {leak.what for leak in report.leaks}
    assert line in found or leak_of(report)[0].startswith(line.split(" > ")[0])
    assert leak_of(report)[1] == bar
    first = min(report.leaks, key=lambda leak: leak.bar)
    assert first.time == BARS.index[bar - 1]
    assert first.before != first.after


def test_indicators_that_are_chosen_by_the_future_are_found() -> None:
    report = perturbation_check(ChoosesByTheLastPrice, BARS, 120)
    assert leak_of(report)[0] == "list of indicators"
    assert "EMA" in report.sentence
    assert "WMA" in report.sentence


# what is honest is not


@pytest.mark.parametrize("name", ["sma_cross.py", "rsi_reversion.py", "donchian.py"])
def test_the_strategies_that_come_with_it_are_clean(name: str) -> None:
    report = perturbation_check(str(shipped(name)), BARS, points=3, gate=gate_of("scripted:trend"))
    assert report.clean
    assert report.lines > 10
    assert "No look-ahead found" in report.sentence


def test_a_strategy_with_its_own_lines_and_gate_is_clean_at_every_bar() -> None:
    report = perturbation_check(Follow, walk(45, seed=4), range(1, 45), gate=gate_of("scripted:trend"))
    assert report.clean
    assert report.runs == 88
    assert report.orders > 3


def test_the_difference_of_two_lines_is_compared_too() -> None:
    class Ahead(Follow):
        def make(self) -> None:
            self.sum = Centred(self.data.close).centred + self.average

    report = perturbation_check(Ahead, BARS, 80)
    names = {leak.what for leak in report.leaks}
    assert names <= {"LinesOperation", "Centred.centred"}
    assert names


# how it looks


def test_it_looks_where_the_strategy_acts_unless_told() -> None:
    report = perturbation_check(Alternate, BARS, points=4)
    assert len(report.at) == 4
    assert all(bar % 3 == 0 for bar in report.at)
    assert (report.at[0], report.at[-1]) == (3, 159)
    assert perturbation_check(Alternate, BARS, "2020-02-01").at == (32,)
    assert perturbation_check(Alternate, BARS, [5, BARS.index[9]]).at == (5, 10)

    class Idle(Alternate):
        def next(self) -> None:
            pass

    assert perturbation_check(Idle, BARS).at == (80,)


def test_progress_and_json() -> None:
    seen: list[tuple[int, int]] = []
    report = perturbation_check(LooksAtCentred, BARS, 80, on_progress=lambda *args: seen.append(args))
    assert seen == [(1, 2), (2, 2)]
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["clean"] is False
    assert found["leaks"][0]["time"].startswith("2020-03")
    assert found["sentence"] == report.sentence


@pytest.mark.parametrize(
    ("at", "settings", "says"),
    [
        (0, {}, "at=0: expected a bar from 1 to 159, with bars after it"),
        (160, {}, "at=160"),
        ("2030-01-01", {}, "at='2030-01-01'"),
        ("yesterday or so", {}, "expected a bar's number or time"),
        ([], {}, r"at=\[\]: expected at least one bar, or None; nothing is compared"),
        (b"x", {}, "at=b'x': expected a bar's number or time"),
        (True, {}, "at=True: expected a bar's number or time"),
        (None, {"points": 0}, "points=0: expected a whole number, 1 or more"),
        (None, {"exactbars": 1}, "exactbars=1: expected False"),
    ],
)
def test_settings_are_checked(at: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        perturbation_check(Alternate, BARS, at, **settings)


@pytest.mark.parametrize("below_zero", [False, True])
def test_other_futures_are_bars_that_differ_only_after_the_moment(below_zero: bool) -> None:
    bars = load_bars(BARS)
    if below_zero:
        bars[["open", "high", "low", "close"]] -= 100.0
    for future in (_mirrored(bars, 100), _redrawn(bars, 100, seed=0)):
        checked = load_bars(future)
        assert checked.attrs["repairs"] == []
        pd.testing.assert_frame_equal(checked.iloc[:100], bars.iloc[:100], check_exact=True)
        assert (checked["close"].iloc[100:] != bars["close"].iloc[100:]).all()
    rises = np.sign(bars["close"].diff().iloc[101:])
    assert (np.sign(_mirrored(bars, 100)["close"].diff().iloc[101:]) == -rises).all()


def test_a_gate_with_a_look_ahead_is_found_too() -> None:
    class Future(QuickAdvice):
        def once(self, start: int, end: int) -> None:
            super().once(start, end)
            self.lines.verdict.array[start : end - 1] = self.lines.verdict.array[start + 1 : end]

    from bt_llm.gates import Gate

    gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"), indicator=Future)
    report = perturbation_check(Alternate, BARS, range(60, 70), gate=gate)
    assert "Future.verdict" in {leak.what for leak in report.leaks}
