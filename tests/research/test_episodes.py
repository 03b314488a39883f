"""Null gates that are replayed from episodes: Backtrader's figures, or Backtrader runs them."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np
import pytest

from bt_llm.backtest import Market, Setup, legs_of, load_strategy, run_backtest
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import DataError
from bt_llm.gates import (
    AlwaysOpen,
    Answers,
    DatedAnswers,
    DatesGate,
    EntryGate,
    NeverOpen,
    RandomGate,
    ShiftedGate,
    known_answers,
    permute_dates,
)
from bt_llm.research import gate_test
from bt_llm.research._gate_runs import GateRuns, HowRun
from bt_llm.research._runs import run_many
from bt_llm.research._timing import TimingOf
from tests.engines import walk
from tests.research_cases import gate_of
from tests.strategies_of_others import CASES, Case, LongOnly

BARS = walk(300, seed=8)


def nulls(n: int = 24, warm_up: int = 14, passed: float = 0.5) -> list[EntryGate]:
    """Return gates that let in a share of the entries, in a random order."""
    rng = np.random.default_rng(3)
    long, short = (bytes((rng.random(37) < passed).astype(np.uint8)) for _ in range(2))
    answers = Answers(long=long, short=short, per="entry", warm_up=warm_up)
    return [RandomGate(answers=answers, draw=draw) for draw in range(n)]


def timing_on(strategy: Any, market: Market, warm_up: int = 14, **settings: Any) -> TimingOf:
    ungated = run_backtest(strategy, market, gate=AlwaysOpen(warm_up=warm_up), **settings)
    return TimingOf(ungated=legs_of(ungated, market), market=market)


def setup_of(case: Case) -> Any:
    def setup(cerebro: bt.Cerebro, market: Any) -> None:
        cerebro.broker.setcommission(commission=0.001)
        case.setup(cerebro)

    return Setup(function=setup, cerebro=dict(case.cerebro))


def apart(mine: list[dict[str, float]], true: list[dict[str, float]]) -> float:
    """Return the largest difference of metrics; of those above 1, relative to them."""
    found = 0.0
    for one, other in zip(mine, true, strict=True):
        for name, value in other.items():
            assert np.isnan(one[name]) == np.isnan(value)
            if one[name] == one[name] and one[name] != value:
                found = max(found, abs(one[name] - value) / max(1.0, abs(value)))
    return found


QUALIFY = (
    "long_only",
    "short_only",
    "close_then_turn",
    "turn_in_one_order",
    "waits_for_its_order",
    "quick_notify",
    "target_size",
    "long_bracket",
    "short_bracket",
    "child_stop",
    "child_trail",
    "loose_stop",
    "stop_after_the_fill",
    "stop_limit",
    "scales_out",
    "at_the_close",
    "signal_strategy",
    "from_the_first_bar",
    "own_gate",
    "no_size_on_mondays",
    "own_buy",
)
"""More than half of the strategies of others."""

UNFIT = {
    "target_value": "the broker refuses orders",
    "target_percent": "its sizes are neither shares of the account nor fixed",
    "forgets_its_stop": "an order asks as it fills",
    "limits_in_group": "it asks twice about one entry",
    "pyramid": "it asks about more entries while it holds one",
    "month_timer": "Backtrader has to run it in its own loop",
    "at_the_open": "Backtrader has to run it in its own loop",
}


@pytest.mark.parametrize("name", QUALIFY)
def test_strategies_that_forget_when_they_are_flat_are_replayed_as_backtrader_runs_them(name: str) -> None:
    case, gates, market = CASES[name], nulls(), Market.of(BARS)
    settings = {"setup": setup_of(case), "params": case.params}
    timing = timing_on(case.strategy, market, **settings)
    runs = GateRuns(case.strategy, market, timing=timing, **settings)
    mine = runs(gates)
    assert (runs.how.replayed, runs.how.ran, runs.how.reason) == (len(gates), 0, "")
    some = slice(1, None, 5)
    true = run_many(case.strategy, BARS, gates[some], engine="plain", measure=timing, **settings)
    assert apart(mine[some], true) <= 1e-9
    assert len({metrics["final_value"] for metrics in mine}) > 5
    assert len({round(metrics["timing"], 9) for metrics in mine}) > 5


@pytest.mark.parametrize("name", UNFIT)
def test_other_strategies_are_run_and_the_reason_is_said(name: str) -> None:
    case, gates = CASES[name], nulls(24)
    runs = GateRuns(case.strategy, Market.of(BARS), setup=setup_of(case), params=case.params)
    found = runs(gates)
    assert (runs.how.replayed, runs.how.ran) == (0, 24)
    assert runs.how.reason.startswith(UNFIT[name])
    true = run_many(case.strategy, BARS, gates[:2], setup=setup_of(case), params=case.params)
    assert repr(found[:2]) == repr(true)


class Cooling(LongOnly):
    """Rests after an exit."""

    left = -99

    def next(self):
        if self.position and self.cross < 0:
            self.left = len(self)
            self.sell()
        elif not self.position and self.cross > 0 and len(self) > self.left + 12:
            self.buy()


class Martingale(LongOnly):
    """Doubles its stake after a loss."""

    stake = 1

    def notify_trade(self, trade):
        if trade.isclosed:
            self.stake = 1 if trade.pnl > 0 else 2 * self.stake

    def next(self):
        if self.position and self.cross < 0:
            self.close()
        elif not self.position and self.cross > 0:
            self.buy(size=self.stake)


class StopsAtALoss(LongOnly):
    """Trades no more once it has lost."""

    def next(self):
        if self.position and self.cross < 0:
            self.sell()
        elif not self.position and self.cross > 0 and self.broker.getvalue() > 9_900.0:
            self.buy(size=20)


class CountsItsEntries(LongOnly):
    """Takes every third entry at another size."""

    entries = 0

    def next(self):
        if self.position and self.cross < 0:
            self.close()
        elif not self.position and self.cross > 0:
            self.entries += 1
            self.buy(size=9 if self.entries % 3 else 4)


class WholeShares(LongOnly):
    """A share of the account in whole pieces."""

    def next(self):
        if self.position and self.cross < 0:
            self.close()
        elif not self.position and self.cross > 0:
            self.buy(size=int(self.broker.getvalue() * 0.2 / self.data.close[0]))


class LeavesByItsWorth(LongOnly):
    """Takes its profit at a sum of money, whatever its size."""

    def next(self):
        if self.position and (self.cross < 0 or self.broker.getvalue() > self.before + 40.0):
            self.close()
        elif not self.position and self.cross > 0:
            self.before = self.broker.getvalue()
            self.buy()


class EndsItsRun(LongOnly):
    """Has enough at its third exit."""

    exits = 0

    def notify_trade(self, trade):
        self.exits += trade.isclosed
        if self.exits == 3:
            self.env.runstop()


@pytest.mark.parametrize(
    "strategy",
    [Cooling, Martingale, StopsAtALoss, CountsItsEntries, WholeShares, LeavesByItsWorth, EndsItsRun],
)
def test_a_strategy_that_remembers_or_looks_at_what_it_has_is_found_out(strategy: Any) -> None:
    runs = GateRuns(strategy, Market.of(BARS), commission=0.001)
    runs(nulls())
    assert runs.how.replayed == 0
    assert runs.how.reason


def test_the_timing_of_a_run_that_ends_itself_is_refused():
    timing, run = timing_on(LongOnly, Market.of(BARS)), run_backtest(EndsItsRun, BARS, name="mine")
    with pytest.raises(DataError, match=r"^the run of mine ends at .* \(runstop\) cannot be compared"):
        timing(run)


@pytest.mark.parametrize("sizer", [None, (bt.sizers.FixedSize, {"stake": 7})])
@pytest.mark.parametrize(
    "name", ["sma_cross.py:GatedSmaCross", "rsi_reversion.py:GatedRsiReversion", "donchian.py:GatedDonchian"]
)
def test_a_test_of_the_examples_has_the_same_nulls_whether_they_are_replayed_or_run(
    name: str, sizer: Any
) -> None:
    file, _, kind = name.partition(":")
    strategy, bars = load_strategy(f"{shipped(file)}:{kind}"), load_bars(shipped("eurusd_hourly.csv"))[-600:]
    settings = {"commission": 0.0002, "slippage": 0.0001, "sizer": sizer, "n": 24, "shifts": 4}
    some = {"resamples": 99, "block_length": 10, **settings}
    gate = gate_of("scripted:random:1")
    mine = gate_test(strategy, bars, gate, **some)
    true = gate_test(strategy, bars, gate, episodes=False, engine="plain", **some)
    how = mine.null_gates
    assert (how.replayed, how.ran, how.checked, true.null_gates.replayed) == (28, 0, 4, 0)
    assert how.largest_difference is not None
    assert how.largest_difference <= 1e-9
    for one, other in ((mine.random, true.random), (mine.shifted, true.shifted)):
        assert one is not None
        assert other is not None
        assert "timing" in one.nulls
        assert list(one.nulls) == list(other.nulls)
        assert apart(one.nulls.to_dict("records"), other.nulls.to_dict("records")) <= 1e-9
    assert len({round(timing, 9) for timing in mine.random.nulls["timing"]}) > 3
    assert (mine.question.p_value, mine.random.seen("timing")) == (
        true.question.p_value,
        true.random.seen("timing"),
    )


def test_a_timing_that_differs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from bt_llm.research import _replayed

    def less_exposed(*given: Any, **settings: Any) -> Any:
        money = earned_by(*given, **settings)
        money[2] *= 0.99
        return money

    earned_by = _replayed.earned_by
    monkeypatch.setattr(_replayed, "earned_by", less_exposed)
    market = Market.of(BARS)
    timing = timing_on(LongOnly, market)
    runs = GateRuns(LongOnly, market, timing=timing)
    mine = runs(nulls())
    assert runs.how.replayed == 0
    assert runs.how.reason.startswith("a gate that was run differs by")
    assert repr(mine[:2]) == repr(run_many(LongOnly, market, nulls()[:2], measure=timing))


def test_an_account_that_starts_later_is_run() -> None:
    settings = {"start": BARS.index[60]}
    runs = GateRuns(LongOnly, Market.of(BARS[:90]), **settings)
    mine = runs(nulls())
    assert (runs.how.ran, runs.how.reason) == (24, "it starts later than it could")
    assert repr(mine[:1]) == repr(run_many(LongOnly, BARS[:90], nulls()[:1], **settings))


@pytest.mark.parametrize("name", ["long_only", "close_then_turn", "target_size"])
def test_what_is_open_at_the_end_is_closed_there_if_that_is_asked_for(name: str) -> None:
    strategy, gates = CASES[name].strategy, nulls()
    settings = {"commission": 0.001, "slippage": 0.002, "params": CASES[name].params}
    sold = 0
    for length in (90, 91, 97, 105, 140):
        market = Market.of(BARS[:length])
        runs = GateRuns(strategy, market, settles=True, **settings)
        mine = runs(gates)
        assert (runs.how.replayed, runs.how.reason) == (24, "")
        true = run_many(strategy, market, gates, engine="plain", settles=True, **settings)
        assert apart(mine, true) <= 1e-9
        left = run_many(strategy, market, gates, **settings)
        sold += sum(one["final_value"] != other["final_value"] for one, other in zip(true, left, strict=True))
    assert sold > 20


def test_answers_per_bar_are_replayed_by_their_bar() -> None:
    rng = np.random.default_rng(5)
    long, short = (bytes(rng.integers(0, 2, len(BARS) - 13, dtype=np.uint8)) for _ in range(2))
    answers = Answers(long=long, short=short, per="bar", warm_up=14)
    gates = [ShiftedGate(answers=answers, bars=number) for number in range(1, 25)]
    strategy = CASES["close_then_turn"].strategy
    runs = GateRuns(strategy, Market.of(BARS))
    mine = runs(gates)
    assert runs.how.replayed == 24
    assert apart(mine[2:5], run_many(strategy, BARS, gates[2:5])) <= 1e-9


def test_gates_whose_answers_are_not_known_before_are_run() -> None:
    class Strange(NeverOpen):
        def known_answers(self, *_: Any) -> None:
            return None

    runs = GateRuns(LongOnly, Market.of(BARS[:80]))
    runs([Strange(warm_up=14)] * 24)
    assert (runs.how.ran, runs.how.reason) == (24, "their answers are not known before")


def test_few_gates_are_run() -> None:
    runs = GateRuns(LongOnly, Market.of(BARS[:80]))
    runs(nulls(3))
    assert (runs.how.ran, runs.how.reason) == (3, "fewer than 24 on one market are not replayed")
    # Of two symbols there are 38 of them: the sentence is of 19 on each.
    assert runs.how.plus(HowRun(ran=35)).sentence == (
        "Backtrader ran all 38 of them: fewer than 24 on one market are not replayed."
    )
    assert HowRun(ran=1, reason="why").sentence == "Backtrader ran it: why."


def test_what_was_replayed_is_told_in_whole_numbers() -> None:
    how = HowRun(replayed=13532, episodes=165, checked=56, largest_difference=7e-13)
    assert how.sentence == (
        "13,532 were replayed from 165 episodes of the strategy; as a check Backtrader ran 56 of the "
        "replayed ones too: the largest difference is 7e-13."
    )


def test_a_gate_that_differs_withdraws_what_was_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = GateRuns(LongOnly, Market.of(BARS))
    runs(nulls())
    assert runs.how.replayed == 24
    monkeypatch.setattr("bt_llm.research._gate_runs._AGREE", -1.0)
    runs(nulls())
    assert runs.withdrawn
    assert (runs.how.replayed, runs.how.ran) == (0, 24)
    assert runs.how.reason.startswith("a gate that was run differs by")


class TestManyAtOnce:
    def test_they_are_replayed_in_parts_and_how_far_all_are_is_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        market, gates = Market.of(BARS), nulls(70)
        whole = GateRuns(LongOnly, market)(gates)
        monkeypatch.setattr("bt_llm.research._gate_runs._AT_ONCE", 30)
        told: list[tuple[int, int]] = []
        runs = GateRuns(LongOnly, market, total=70, on_progress=lambda *done: told.append(done))
        assert apart(runs(gates), whole) <= 1e-9
        assert (runs.how.replayed, runs.how.ran, runs.how.checked) == (70, 0, 6)
        assert {(30, 70), (60, 70), (70, 70)} <= set(told)
        assert told == sorted(told)

    def test_where_a_later_part_differs_all_are_run_and_counted_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bt_llm.research._gate_runs._AT_ONCE", 30)
        apart = iter([0.0, 0.0, 0.0, 1.0])  # two gates of each part are run
        monkeypatch.setattr("bt_llm.research._gate_runs._difference", lambda *_: next(apart))
        runs = GateRuns(LongOnly, Market.of(BARS))
        gates = nulls(40)
        assert runs(gates) == run_many(LongOnly, BARS, gates)
        assert (runs.how.replayed, runs.how.ran, runs.withdrawn) == (0, 40, False)


def test_an_account_near_its_last_cash_is_run() -> None:
    """Fixed stakes that a lost account could not pay any more."""

    class Dear(LongOnly):
        def next(self):
            if self.position and self.cross < 0:
                self.close()
            elif not self.position and self.cross > 0:
                self.buy(size=9_500.0 / self.data.close[0])

    gates, market = nulls(), Market.of(BARS)
    timing = timing_on(Dear, market, commission=0.004)
    runs = GateRuns(Dear, market, commission=0.004, timing=timing)
    mine = runs(gates)
    assert runs.how.ran > 0
    assert apart(mine, run_many(Dear, BARS, gates, commission=0.004, measure=timing)) <= 1e-9


@pytest.mark.parametrize("place", ["_episodes.sightings_in", "_episodes.is_flat", "_sightings.is_flat"])
def test_a_bug_of_ours_is_no_reason_to_run_gates(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"bt_llm.research.{place}", None)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        GateRuns(LongOnly, Market.of(BARS))(nulls())


def test_a_strategy_that_fails_where_it_is_put_elsewhere_is_run() -> None:
    class GoesForward(LongOnly):
        latest = 0

        def next(self):
            if len(self) <= self.latest:
                raise RuntimeError("time went back")
            self.latest = len(self)
            super().next()

    runs = GateRuns(GoesForward, Market.of(BARS))
    runs(nulls())
    assert (runs.how.replayed, runs.how.ran) == (0, 24)
    assert "time went back (test_episodes.py" in runs.how.reason


@pytest.mark.parametrize("passed", [0.0, 0.95, 1.0])
def test_gates_that_let_nearly_all_or_nothing_in_have_the_timing_of_a_run(passed: float) -> None:
    """What is left of the timing is then small against its parts, or nothing but rounding."""
    case, market = CASES["close_then_turn"], Market.of(BARS)
    gates, settings = nulls(passed=passed), {"commission": 0.001}
    timing = timing_on(case.strategy, market, **settings)
    runs = GateRuns(case.strategy, market, timing=timing, **settings)
    mine = runs(gates)
    assert (runs.how.replayed, runs.how.reason) == (24, "")
    assert apart(mine[:4], run_many(case.strategy, market, gates[:4], measure=timing, **settings)) <= 1e-9


def test_gates_that_answer_at_other_times_are_asked_together_as_each_alone() -> None:
    rng = np.random.default_rng(2)
    times = Market.of(BARS).numbers
    entries = [
        ("a", side, float(time), bool(rng.random() < 0.5)) for time in times[30::7] for side in (1, -1)
    ]
    answers, dates = DatedAnswers.of(entries[:-1]), times[20:]
    orders = [permute_dates(len(dates), 11, np.random.default_rng(draw)) for draw in range(5)]
    gates = [
        DatesGate(answers=answers, dates=dates.tobytes(), others=dates[order].tobytes()) for order in orders
    ]
    asked = known_answers(gates, "a", times)
    assert asked is not None
    every = np.arange(len(gates))
    for bar in range(1, len(times) + 1):
        for side in (1, -1):
            alone = [gate.answer("a", side, float(times[bar - 1])) for gate in gates]
            assert asked(every, bar, side).tolist() == alone
            assert asked(every[[3, 1]], bar, side).tolist() == [alone[3], alone[1]]
