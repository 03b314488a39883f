from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.advice import AdvisorConfig
from bt_llm.analyzers import LLMAnalyzer
from bt_llm.backtest import run_backtest
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import (
    LONG,
    SHORT,
    AlwaysOpen,
    Answers,
    EntryGate,
    Gate,
    RandomGate,
    RuleGate,
    ShiftedGate,
    attach_gate,
    attached_gates,
)
from bt_llm.gates._null_answers import Run
from bt_llm.statistics import permute_runs
from tests.engines import MODES, QuickAdvice, run, walk
from tests.research_cases import Alternate, gate_of

ENTRIES = Answers(long=bytes([1, 1, 0, 0, 0, 1]), short=bytes([0, 1, 1]), per="entry", warm_up=16)
BARS = walk(120)


def line_of(length: int, seed: int = 0, warm_up: int = 16) -> Answers:
    rng = np.random.default_rng(seed)
    long, short = (bytes((rng.random(length) < 0.4).astype(np.uint8)) for _ in range(2))
    return Answers(long=long, short=short, per="bar", warm_up=warm_up)


answers_of_any_length = st.lists(st.integers(0, 1), max_size=60).map(bytes)


# permuting runs


def permuted(answers: bytes, seed: int) -> bytes:
    return permute_runs(list(answers), np.random.default_rng(seed)).tobytes()


@given(answers_of_any_length, st.integers(0, 2**32))
def test_permuting_keeps_the_pass_rate_and_every_run_length(answers: bytes, seed: int) -> None:
    shuffled = permuted(answers, seed)
    before, after = (Answers(long=which, short=which, per="bar").runs(LONG) for which in (answers, shuffled))
    assert sum(shuffled) == sum(answers)
    assert Counter(after) == Counter(before)


def test_every_order_of_runs_is_equally_likely() -> None:
    # Allowed runs 1 and 2, blocked runs 1 and 2: two orders of each, and either kind may come first.
    answers = bytes([1, 0, 1, 1, 0, 0])
    drawn = Counter(permuted(answers, seed) for seed in range(4000))
    assert len(drawn) == 8
    assert answers in drawn
    assert max(abs(count - 500) for count in drawn.values()) < 80  # under four standard deviations of 21


def test_the_kind_with_one_run_more_comes_first() -> None:
    answers = bytes([1, 0, 1, 1])
    assert {permuted(answers, seed) for seed in range(50)} == {
        bytes([1, 0, 1, 1]),
        bytes([1, 1, 0, 1]),
    }


@pytest.mark.parametrize("answers", [b"", bytes([1]), bytes([0, 0, 0])])
def test_answers_of_one_run_stay_as_they_are(answers: bytes) -> None:
    assert permuted(answers, 0) == answers


# answers


def test_answers_know_their_rate_and_runs() -> None:
    assert ENTRIES.pass_rate(LONG) == 0.5
    assert ENTRIES.pass_rate(SHORT) == pytest.approx(2 / 3)
    assert ENTRIES.pass_rate() == pytest.approx(5 / 9)
    assert ENTRIES.runs(SHORT) == [Run(False, 1), Run(True, 2)]
    assert np.isnan(Answers(long=b"", short=b"", per="entry").pass_rate())


def test_sides_are_permuted_independently() -> None:
    same = Answers(long=bytes([1, 0, 0, 1, 1, 1, 0]), short=bytes([1, 0, 0, 1, 1, 1, 0]), per="bar")
    drawn = [same.permuted(0, draw) for draw in range(20)]
    assert any(found.long != found.short for found in drawn)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"long": bytes([2])}, "bytes of 0 and 1"),
        ({"long": [1, 0]}, "bytes of 0 and 1"),
        ({"per": "bars"}, r"\['entry', 'bar'\]"),
        ({"per": "bar"}, "1 answers to long and 0 to short"),
        ({"warm_up": -1}, "0 or more"),
        ({"warm_up": 1.0}, "0 or more"),
    ],
)
def test_answers_are_checked(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Answers(**({"long": bytes([1]), "short": b"", "per": "entry"} | settings))


# the gates


@pytest.mark.parametrize(
    "gate",
    [
        RandomGate(answers=ENTRIES, seed=3, draw=2),
        ShiftedGate(answers=line_of(10), bars=3),
        RuleGate(indicator=QuickAdvice),
    ],
)
def test_null_gates_are_gates_that_pickle_and_hash(gate: EntryGate) -> None:
    assert isinstance(gate, EntryGate)
    assert pickle.loads(pickle.dumps(gate)) == gate
    assert len({gate, pickle.loads(pickle.dumps(gate))}) == 1
    assert gate.warm_up_bars == 16
    assert gate.baseline() == AlwaysOpen(warm_up=16)
    with pytest.raises(AttributeError):
        gate.seed = 1  # type: ignore[attr-defined, misc]


def test_a_random_gate_depends_on_seed_and_draw_alone() -> None:
    answers = line_of(80)
    assert RandomGate(answers=answers, seed=1).given() == RandomGate(answers=answers, seed=1).given()
    gates = [RandomGate(answers=answers, seed=seed, draw=draw) for seed in (0, 1) for draw in (0, 1)]
    assert len({gate.given() for gate in gates}) == 4


def test_a_random_gate_gives_its_answers_in_turn_and_starts_again() -> None:
    gate = RandomGate(answers=Answers(long=bytes([1, 0, 0]), short=b"", per="entry"), seed=1)
    expected = gate.given().long

    class AskTwice(Alternate):
        def next(self) -> None:
            first = self.gate.decide(LONG), self.gate.decide(LONG)
            assert first[0] == first[1]  # only an entry counts
            self.gate.allows_long()
            assert not self.gate.allows_short()  # no answer to short was ever given

    log = attached_gates(run(AskTwice, walk(7), gate=gate))[0].log
    assert [d.allowed for d in log if d.side == LONG] == [bool(a) for a in expected * 2 + expected[:1]]
    assert [d.bar for d in log if d.side == LONG] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("mode", MODES)
def test_a_gate_of_bars_answers_by_the_number_of_the_bar(mode: dict[str, object]) -> None:
    gate = ShiftedGate(answers=line_of(105), bars=7)
    given_long, given_short = gate.given().long, gate.given().short
    log = attached_gates(run(Alternate, BARS, mode=mode, gate=gate))[0].log
    assert log
    for decision in log:
        answers = given_long if decision.side == LONG else given_short
        assert decision.allowed == bool(answers[decision.bar - 16])


def test_shifting_moves_answers_later_and_round() -> None:
    answers = Answers(long=bytes([1, 1, 0, 0]), short=bytes([0, 0, 0, 1]), per="bar")
    moved = ShiftedGate(answers=answers, bars=1).given()
    assert (list(moved.long), list(moved.short)) == ([0, 1, 1, 0], [1, 0, 0, 0])
    assert ShiftedGate(answers=answers, bars=4).given() == answers


def test_answers_of_fewer_bars_are_refused() -> None:
    with pytest.raises(DataError, match=r"bar 51: the answers end at bar 50; expected those of a gate"):
        run_backtest(Alternate, BARS, gate=ShiftedGate(answers=line_of(35)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RandomGate(answers=b"101"), "expected Answers"),
        (lambda: RandomGate(answers=ENTRIES, seed=-1), "seed=-1: expected a whole number, 0 or more"),
        (lambda: RandomGate(answers=ENTRIES, draw=1.5), "draw=1.5"),
        (lambda: ShiftedGate(answers=ENTRIES, bars=1), "expected answers per bar"),
        (lambda: ShiftedGate(answers=line_of(5), bars=1.0), "whole number of bars"),
        (lambda: RuleGate(trend=-0.1), "trend=-0.1: expected a number of at least 0"),
        (lambda: RuleGate(overbought=101.0), "overbought=101.0: expected a number from 0 to 100"),
        (lambda: RuleGate(indicator=int), "expected LLMAdvice"),
    ],
)
def test_settings_are_checked(make: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()  # type: ignore[operator]


def test_a_null_gate_waits_as_long_as_the_gate() -> None:
    gate = gate_of("scripted:trend")
    line = line_of(105, warm_up=gate.warm_up_bars)
    starts = {
        run_backtest(Alternate, BARS, gate=each).equity.index[0]
        for each in (gate, RandomGate(answers=ENTRIES), ShiftedGate(answers=line), gate.baseline())
    }
    assert len(starts) == 1


# the rule


def test_the_rule_is_the_rule() -> None:
    rule = RuleGate(trend=0.05, overbought=65.0, oversold=35.0)
    for trend, rsi in itertools.product(
        (-0.1, -0.05, 0.0, 0.05, 0.1, np.nan), (20.0, 35.0, 50.0, 65.0, np.nan)
    ):
        assert rule.allows(LONG, trend, rsi) == (trend > 0.05 and rsi < 65.0)
        assert rule.allows(SHORT, trend, rsi) == (trend < -0.05 and rsi > 35.0)


@pytest.mark.parametrize("mode", MODES)
def test_the_rule_reads_the_models_own_features_in_every_engine_mode(mode: dict[str, object]) -> None:
    class Both(Alternate):
        def __init__(self) -> None:
            super().__init__()
            self.model = attach_gate(
                Gate(advisor=gate_of("scripted:trend").advisor, indicator=QuickAdvice), self
            )

        def next(self) -> None:
            advice = self.model.advice
            decision = self.gate.decide(LONG), self.gate.decide(SHORT)
            rule = RuleGate()
            for side, found in zip((LONG, SHORT), decision, strict=True):
                assert found.allowed == rule.allows(side, advice.trend[0], advice.rsi[0])
            seen.append([d.allowed for d in decision])

    seen: list[list[bool]] = []
    run(Both, BARS, mode=mode, gate=RuleGate(indicator=QuickAdvice))
    assert len(seen) == 105
    assert {tuple(pair) for pair in seen} == {(True, False), (False, True), (False, False)}


def test_the_rule_asks_no_model() -> None:
    nobody = AdvisorConfig(model="no-such-model", cache_mode="off")

    def analyse(cerebro: object) -> None:
        cerebro.addanalyzer(LLMAnalyzer, _name="advice")  # type: ignore[attr-defined]

    rule = RuleGate(indicator=QuickAdvice, advisor=nobody)
    found = run(Alternate, BARS, prepare=analyse, gate=rule).analyzers.advice.get_analysis()
    assert (found["asked"], found["model_calls"], found["bars"]) == (0, 0, 120)
    assert found["verdicts"]["not_asked"] == 120
