"""A small version of the size table, which can fail, and what makes its studies quick."""

from __future__ import annotations

import dataclasses

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import Market, run_backtest
from bt_llm.backtest import legs_of
from bt_llm.gates import LONG, AlwaysOpen, Answers, DatesGate, ShiftedGate, attach_gate
from tests.size import settings_gates, settings_intervals, settings_power
from tests.size.accounts import WARM_UP, Account
from tests.size.markets import Bars, garch, iid, walk
from tests.size.setting import Goal, Rate, Setting, all_settings, measure, rates
from tests.size.settings_gates import BETTER, TEST
from tests.size.table import misses, page

COST = 0.001


class Turns(bt.Strategy):
    """Goes with the crossings of two averages of closes, as the account worked out by hand does."""

    params = (("gate", None),)

    def __init__(self) -> None:
        fast, slow = bt.ind.SMA(period=10), bt.ind.SMA(period=30)
        self.cross = bt.ind.CrossOver(fast, slow)
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        if self.cross[0] > 0:
            if self.position.size < 0:
                self.close()
            if self.gate.allows_long():
                self.buy()
        elif self.cross[0] < 0:
            if self.position.size > 0:
                self.close()
            if self.gate.allows_short():
                self.sell()


def frame_of(bars: Bars) -> pd.DataFrame:
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close")}
    times = pd.date_range("2020-01-01", periods=len(bars), freq="D", name="time")
    return pd.DataFrame(columns | {"volume": 1.0}, index=times)


def test_accounts_worked_out_by_hand_earn_what_backtraders_do() -> None:
    rng = np.random.default_rng(5)
    bars = walk(iid(500, rng), rng)
    account = Account.of("cross", bars, COST)
    market = Market.of(frame_of(bars))
    said = [rng.random(500) < 0.5 for _ in range(2)]
    run = account.with_lines(*said)
    _, told = account.log(run)
    lines = [np.asarray(line[WARM_UP - 1 :], dtype=np.uint8).tobytes() for line in said]
    shifted = ShiftedGate(answers=Answers(long=lines[0], short=lines[1], per="bar", warm_up=WARM_UP), bars=0)
    times = account.moments.times
    random = DatesGate(answers=told, dates=times.tobytes(), others=np.roll(times, 37).tobytes())
    first = bt.date2num(market.index[0])
    same = tuple(
        dataclasses.replace(one, data="data", times=(np.frombuffer(one.times) + first).tobytes())
        for one in told
    )
    in_backtrader = DatesGate(
        answers=same,
        dates=(times + first).tobytes(),
        others=(np.roll(times, 37) + first).tobytes(),
        warm_up=WARM_UP,
    )
    for gate, mask in (
        (AlwaysOpen(warm_up=WARM_UP), account.everything),
        (shifted, account.mask(run)),
        (in_backtrader, account.mask(account.run_of(random))),
        (in_backtrader, account.mask_of(random)),
    ):
        result = run_backtest(Turns, market, gate=gate, commission=COST)
        own, theirs = account.legs(mask), legs_of(result, market)
        for name in ("long", "short", "long_exposure", "short_exposure", "cost", "traded"):
            # An account that turns over counts the way out and the way in of one bar one after the other.
            assert getattr(own, name) == pytest.approx(getattr(theirs, name), abs=2e-3), name
        assert np.sum(own.long) == pytest.approx(np.sum(theirs.long), abs=2e-3)


def test_scores_from_products_of_entries_are_those_of_the_statistic() -> None:
    rng = np.random.default_rng(6)
    bars = walk(garch(600, rng, 0.05), rng)
    for strategy in ("cross", "breakout", "hold", "reversion", "alternate", "long cross"):
        account = Account.of(strategy, bars, COST)
        runs = [account.made(lambda entry: rng.random() < 0.5) for _ in range(5)]
        masks = np.array([account.mask(run) for run in runs])
        expected = [account.timing(mask).score for mask in masks]
        assert account.scores(masks) == pytest.approx(expected, rel=1e-6), strategy


def setting_of(settings: list[Setting], *words: str) -> Setting:
    (found,) = (one for one in settings if all(word in one.name for word in words))
    return found


# Seeded, so that they give the same counts every time. Of 40 studies 5 % are 2; more than 7 are what a test
# that is right at 5 % has once in a thousand such counts.


def test_a_gate_that_knows_nothing_is_seldom_found() -> None:
    setting = setting_of(settings_gates.SETTINGS, "verdicts at random", "cross; market: random walk")
    counted = rates(measure(setting, range(40)))
    assert counted[TEST].told >= 35
    assert counted[TEST].said <= 7
    assert counted[BETTER].said <= 4


def test_a_side_is_not_timing() -> None:
    setting = setting_of(settings_gates.SETTINGS, "bullish for ever", "cross")
    counted = rates(measure(setting, range(15)))
    assert (counted[TEST].refused, counted[BETTER].said) == (15, 0)
    assert counted[settings_gates.WHOLE].said > 0


def test_a_gate_that_knows_is_found() -> None:
    setting = setting_of(settings_power.SETTINGS, "by 0.2 deviations")
    counted = rates(measure(setting, range(10)))
    assert counted[TEST].said >= 8
    assert counted[BETTER].said >= 7


def test_intervals_hold_the_truth_under_garch() -> None:
    setting = setting_of(settings_intervals.SETTINGS, "gated and ungated, GARCH; 1,000")
    for rate in rates(measure(setting, range(40))).values():
        assert 33 <= rate.said <= 40


# the table


def test_a_goal_that_is_missed_is_said() -> None:
    always = Setting(
        group="Any",
        name="a liar",
        study=lambda seed: {"found": True},
        goals={"found": Goal("false positives", most=0.06)},
    )
    found = measure(always, range(30))
    assert misses(always, found, 2.0) == ["a liar: found: 100.0 %, expected at most 6 %"]
    assert "| a liar | found | 100.0 ± 2.3 % | false positives: at most 6 % (missed) | 30 | 0 |" in page(
        [always], {"a liar": found}
    )


def test_a_sentence_that_cannot_tell_counts_in_no_share() -> None:
    found = [{"found": None}, {"found": True}, {"found": False}]
    assert rates(found)["found"] == Rate(said=1, told=2, refused=1)


def test_every_setting_is_named_once_and_tests_have_controls() -> None:
    settings = all_settings()
    assert len({setting.name for setting in settings}) == len(settings)
    tested = {
        name for setting in settings for name, goal in setting.goals.items() if goal.kind == "false positives"
    }
    found = {name for setting in settings if setting.control for name in setting.goals}
    assert {TEST, BETTER} <= tested & found


def test_long_and_short_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    account = Account.of("alternate", walk(iid(300, rng), rng))
    assert set(account.sides.tolist()) == {LONG, -LONG}
