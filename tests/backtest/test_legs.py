"""What the sides of an account earned is all that it earned; or it is refused."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np
import pytest

from bt_llm import Gate, Market, gate_study, run_backtest
from bt_llm.backtest import Bootstrap, Effect, earned_by, legs_of
from bt_llm.exceptions import DataError
from tests.engines import QuickAdvice
from tests.market_cases import ExitsBySell
from tests.panel_cases import symbols
from tests.research_cases import Alternate, gate_of, random_walk

BARS = random_walk(150, seed=4)


class EachWhenReady(bt.Strategy):
    """Turns each data over every seven bars of its own, from its first on, long one and short the other."""

    def prenext(self) -> None:
        """Turn over those that are there."""
        self.next()

    def next(self) -> None:
        """Turn over."""
        for sign, data in zip((1, -1), self.datas, strict=True):
            turn, rest = divmod(len(data), 7)
            if len(data) and rest == 0:
                self.order_target_size(data, sign * (20 if turn % 2 else -20))


class Pair(bt.Strategy):
    """Long one data and short the other, turned over every seven bars."""

    params = (("gate", None),)

    def next(self) -> None:
        """Turn over."""
        turn, rest = divmod(len(self), 7)
        if rest == 0:
            size = 20 if turn % 2 else -20
            self.order_target_size(self.data0, size)
            self.order_target_size(self.data1, -size)


class Joins(Pair):
    """Turns over one data until there are two."""

    def prenext(self) -> None:
        """Do it with what is there."""
        self.order_target_size(self.data0, 20 if len(self) % 14 < 7 else -20)
        if len(self.data1):
            self.next()


def futures(cerebro: Any, market: Market) -> None:
    cerebro.broker.setcash(100_000.0)
    cerebro.broker.setcommission(commission=2.0, margin=1_000.0, mult=5.0, stocklike=False)


@pytest.mark.parametrize(
    ("strategy", "data", "settings"),
    [
        (Alternate, BARS, {"commission": 0.002, "slippage": 0.001}),
        (Pair, {"a": BARS, "b": random_walk(150, seed=5)}, {"commission": 0.001}),
        (Pair, {"a": BARS, "b": random_walk(110, seed=5).iloc[:90]}, {}),
        (Joins, {"a": BARS, "late": random_walk(150, seed=5).iloc[60:]}, {"commission": 0.001}),
        (Pair, {"a": BARS, "b": random_walk(150, seed=5)}, {"setup": futures}),
        (EachWhenReady, {"a": BARS, "b": random_walk(150, seed=5).iloc[40:]}, {}),
    ],
)
def test_the_sides_add_up_to_the_account(strategy: type[Any], data: Any, settings: dict[str, Any]) -> None:
    market = Market.of(data)
    result = run_backtest(strategy, market, **settings)
    legs = legs_of(result, market)
    assert legs.returns == pytest.approx(result.returns.to_numpy(), abs=1e-12)
    assert legs.long_exposure.max() > 0.0 < legs.short_exposure.max()


def test_a_fill_that_turns_a_position_over_is_the_longs_up_to_flat_and_the_shorts_from_there_on() -> None:
    """Two bought at 10 and five sold at 11, a hundredth worse each; closes of 10, 11, 12."""
    money = earned_by(
        np.array([10.0, 11.0, 12.0]),
        np.array([0, 1]),
        np.array([2.0, -5.0]),
        np.array([10.1, 10.89]),
        np.array([1.0, 2.0]),
        slippage=0.01,
    )
    long, short, long_value, short_value, cost, traded = money.round(12).tolist()
    assert (long, short) == ([0.0, 2.0, 0.0], [0.0, 0.0, -3.0])
    assert (long_value, short_value) == ([20.0, 0.0, 0.0], [0.0, 33.0, 36.0])
    assert (cost, traded) == ([1.2, 2.55, 0.0], [20.2, 54.45, 0.0])


def test_slippage_and_commission_are_costs_and_not_what_positions_earned() -> None:
    market = Market.of(BARS)
    runs = run_backtest(Alternate, market), run_backtest(Alternate, market, commission=0.002, slippage=0.001)
    free, paid = (legs_of(run, market) for run in runs)
    assert free.cost.sum() == 0.0
    assert paid.cost.sum() == pytest.approx(0.003 * paid.traded.sum(), rel=1e-3)
    # In money, which does not depend on how large the account was: the same positions earned the same.
    earned = [legs.long * run.equity.to_numpy()[:-1] for legs, run in zip((free, paid), runs, strict=True)]
    assert earned[0] == pytest.approx(earned[1], abs=1e-6)


def test_what_is_closed_at_the_last_close_has_sides_too() -> None:
    """No order was sent for that fill, so that it says nothing of the size of a contract."""
    market = Market.of(symbols()["s2"])
    run = run_backtest(ExitsBySell, market, commission=0.001, settles=True)
    assert len(run.settled) == 1
    legs = legs_of(run, market)
    assert legs.returns == pytest.approx(run.returns.to_numpy())
    assert legs.long_exposure[-1] == 0.0


def test_an_account_with_cash_of_another_source_is_refused() -> None:
    class Paid(Alternate):
        def next(self) -> None:
            super().next()
            if len(self) == 90:
                self.broker.add_cash(500.0)

    market = Market.of(BARS)
    with pytest.raises(
        DataError, match=r"\+500\.00 of the account's change .* its sides cannot be told apart"
    ):
        legs_of(run_backtest(Paid, market), market)


def test_a_study_answers_one_question_and_says_what_the_effect_is_made_of() -> None:
    study = gate_study(Alternate, BARS, gate_of("scripted:trend"), commission=0.001)
    assert study.question is not None
    asked, describes, first, *rest = next(iter(study.sections())).content
    assert first.startswith("Gated, the strategy made")
    assert asked == study.question.sentence
    assert describes == "What follows describes these bars, and is no test of anything."
    assert not [word for word in ("better", "chance", "a difference:") if word in " ".join(rest)]
    told = study.to_dict()
    parts = {name: part["estimate"] for name, part in told["effect"]["parts"].items()}
    assert parts["whole"] == pytest.approx(sum(parts.values()) / 2)
    titles = [section.title for section in study.sections()]
    assert {"What the gate's effect is made of", "The effect at other costs"} <= set(titles)
    assert told["question"]["p_value"] == study.question.p_value


def test_a_gate_that_leaves_few_trades_cannot_be_told_of() -> None:
    gate = Gate(advisor=gate_of("scripted:trend").advisor, indicator=QuickAdvice, min_confidence=0.0)
    study = gate_study(Alternate, BARS.iloc[:60], gate)
    effect = Effect.of(study.gated, study.ungated, Market.of(BARS.iloc[:60]), Bootstrap(resamples=99))
    assert "and at least 5 are needed" in effect.question(3.0, 10).sentence
    assert "the gate blocked 2 entries" in effect.question(30.0, 2).sentence
    assert effect.question(30.0, 20).found is not None


def test_bars_too_few_for_blocks_leave_the_effect_whole() -> None:
    bars = BARS.iloc[:40]
    study = gate_study(Alternate, bars, gate_of("scripted:trend"))
    assert study.effect is not None
    assert study.effect.parts == {}
    assert "too few to choose a block length" in study.effect.sentences[0]
    assert study.question is not None
    assert study.question.found is None
    assert np.isnan(study.question.p_value)
