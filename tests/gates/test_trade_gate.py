from __future__ import annotations

import json
import pickle
from typing import Any

import backtrader as bt
import pytest

from bt_llm.advice import AnalystConfig, Decision, TradeAdvice, TradeAnalyst
from bt_llm.exceptions import ConfigError
from bt_llm.gates import EntryGate, TradeAdviceGate, attach_gate, attached_gates
from bt_llm.gates._trade_gate import AttachedTradeGate
from bt_llm.indicators import LLMAdvice, MarketStateLines
from bt_llm.verdicts import Feature, StateSpace
from tests.analyst_cases import OFF, TRADE, Scripted
from tests.engines import MODES, TREND, bits, build, line, run, walk

CONFIG = AnalystConfig(model="scripted:trend", cache_mode="off")


def words(prompt: str) -> dict[str, str]:
    """The question at the end of a prompt, by name."""
    rows = [row for row in prompt.splitlines() if ": " in row and not row.startswith("{")]
    return dict(row.split(": ", 1) for row in rows[-6:])


def decide(prompt: str) -> str:
    """Take strong signals, reduce moderate ones, skip weak ones; high volatility cannot be read."""
    asked = words(prompt)
    if asked["Volatility"] == "high":
        return "no idea"
    decision = {"strong": "take", "moderate": "reduce", "weak": "skip"}[asked["Signal strength"]]
    return json.dumps({**TRADE, "decision": decision})


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """What answers every trade analyst."""
    scripted = Scripted(decide)
    analyst = TradeAnalyst(scripted, cache=OFF)
    monkeypatch.setattr(AttachedTradeGate, "analyst", analyst)
    return scripted


class Alternating(bt.Strategy):
    """Wants a long entry on every 7th bar and a short one on every 11th."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)
        self.seen: list[tuple[Any, ...]] = []

    def next(self) -> None:
        for every, side in ((7, 1), (11, -1)):
            if len(self) % every == 0:
                allowed = self.gate.allows_long() if side > 0 else self.gate.allows_short()
                self.seen.append((len(self), side, allowed, self.gate.fraction, self.gate.advice))


def test_it_asks_only_when_a_signal_fires_and_each_trade_once(backend: Scripted) -> None:
    made = run(Alternating, walk(500), gate=TradeAdviceGate(analyst=CONFIG))
    assert len(made.seen) > 80
    assert len(backend.asked) == len(set(backend.asked)) < 60
    assert attached_gates(made)[0].log == made.gate.log
    kinds = {advice.decision if advice else None for *_, advice in made.seen}
    assert kinds == {Decision.TAKE, Decision.REDUCE, Decision.SKIP, Decision.INVALID}
    shares = {Decision.TAKE: 1.0, Decision.REDUCE: 0.5, Decision.SKIP: 0.0, Decision.INVALID: 0.0}
    for _, _, allowed, fraction, advice in made.seen:
        assert fraction == shares[advice.decision]
        assert allowed is (fraction > 0)
    for decision, (bar, side, _, fraction, advice) in zip(made.gate.log, made.seen, strict=True):
        assert (decision.bar, decision.side, decision.confidence) == (bar, side, fraction)
        assert decision.missing is not advice.valid
    assert made.gate.missing == sum(not advice.valid for *_, advice in made.seen)


def test_the_model_sees_the_state_of_the_signals_bar_and_nothing_later(backend: Scripted) -> None:
    frame = walk(300)
    whole = run(Alternating, frame, gate=TradeAdviceGate(analyst=CONFIG)).seen
    changed = frame.copy()
    changed.iloc[201:, :4] *= 1.7
    for other in (frame.iloc[:201], changed):
        seen = run(Alternating, other, gate=TradeAdviceGate(analyst=CONFIG)).seen
        assert [row for row in seen if row[0] <= 201] == [row for row in whole if row[0] <= 201]


def test_answers_do_not_depend_on_the_engine_mode(backend: Scripted) -> None:
    runs = [
        run(Alternating, walk(200), mode=mode, gate=TradeAdviceGate(analyst=CONFIG)).seen for mode in MODES
    ]
    assert len(runs[0]) > 10
    assert all(seen == runs[0] for seen in runs)


def test_what_the_model_is_told() -> None:
    gate = TradeAdviceGate(analyst=CONFIG, symbol="EUR/USD")
    state = {"trend": -0.05, "rsi": 25.0, "volatility": 1.3}
    assert gate.signal(-1, state) == {
        "symbol": "EUR/USD",
        "direction": "short",
        "strength": "moderate",
        "indicators": {"Volatility": "high", "RSI": "20 to 30", "Trend": "down"},
    }
    assert gate.signal(1, state)["strength"] == "weak"  # type: ignore[index]
    assert gate.signal(1, {**state, "trend": 0.12})["strength"] == "strong"  # type: ignore[index]
    assert gate.signal(1, {**state, "rsi": float("nan")}) is None


def test_the_number_of_prompts_is_finite() -> None:
    gate = TradeAdviceGate(analyst=CONFIG)
    values = [
        {"trend": trend, "rsi": rsi, "volatility": volatility}
        for trend in (-0.2, -0.12, -0.1, -0.04, 0, 0.04, 0.1, 0.12, 0.3)
        for rsi in range(0, 101, 5)
        for volatility in (0.1, 0.85, 1.0, 1.2, 3.0)
    ]
    signals = {json.dumps(gate.signal(side, state)) for side in (1, -1) for state in values}
    assert len(signals) <= 2 * len(gate.state_space)


@pytest.mark.parametrize(
    ("on_missing", "reduced", "decision", "fraction"),
    [
        ("block", 0.5, None, 0.0),
        ("pass", 0.5, None, 1.0),
        ("block", 0.5, Decision.INVALID, 0.0),
        ("pass", 0.5, Decision.INVALID, 1.0),
        ("block", 0.3, Decision.REDUCE, 0.3),
        ("block", 0.0, Decision.REDUCE, 0.0),
        ("pass", 0.5, Decision.SKIP, 0.0),
        ("block", 0.5, Decision.TAKE, 1.0),
    ],
)
def test_the_share_of_the_usual_size(
    on_missing: Any, reduced: float, decision: Decision | None, fraction: float
) -> None:
    gate = TradeAdviceGate(analyst=CONFIG, on_missing=on_missing, reduced=reduced)
    advice = None
    if decision is not None:
        problem = "no" if decision is Decision.INVALID else ""
        advice = TradeAdvice(decision=decision, risk_reward="", conditions="", timing="", problem=problem)
    assert gate.fraction(advice) == fraction


def test_a_gate_is_a_small_value_with_a_baseline() -> None:
    gate = TradeAdviceGate(analyst=CONFIG)
    assert isinstance(gate, EntryGate)
    assert pickle.loads(pickle.dumps(gate)) == gate
    assert gate.baseline().warm_up == gate.warm_up_bars == 114


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"analyst": "smollm2"}, "expected an AnalystConfig"),
        ({"reduced": 1.1}, "reduced=1.1: expected a number from 0 to 1"),
        ({"on_missing": "hold"}, "on_missing='hold': expected one of"),
        (
            {"state_space": StateSpace().with_feature(Feature(name="adx", edges=(20,), labels=("a", "b")))},
            r"state space has \['adx'\]: expected features out of",
        ),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TradeAdviceGate(**wrong)


@pytest.mark.parametrize("runonce", [True, False])
def test_state_lines_are_those_of_the_advice_indicator(runonce: bool) -> None:
    frame, mode = walk(200), {"runonce": runonce}
    states = build(lambda s: MarketStateLines(s.data), frame, mode=mode)
    advice = build(lambda s: LLMAdvice(s.data, advisor=TREND), frame, mode=mode)
    for name in ("trend", "rsi", "volatility"):
        assert bits(line(states, name)[113:]) == bits(line(advice, name)[113:])
