from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import Market, run_backtest
from bt_llm.exceptions import ConfigError
from bt_llm.gates import Gate, RuleGate, attach_gate
from bt_llm.research import LEDGER, ModelComparison, TrialLedger, compare_models, gates_by_name
from bt_llm.verdicts import TREND, Feature, StateSpace
from tests.engines import QuickAdvice, walk
from tests.research_cases import CASH, Alternate, gate_of, regimes

BARS = walk(300, seed=1)
MODELS = {"trend": "scripted:trend", "contrarian": "scripted:contrarian", "random": "scripted:random:4"}


def small(models: Any = MODELS, **settings: Any) -> ModelComparison:
    chosen = {"gate": gate_of("scripted:trend"), "resamples": 99, "block_length": 5} | settings
    return compare_models(Alternate, BARS, models, **chosen)


@pytest.fixture(scope="module")
def found() -> ModelComparison:
    return small(commission=0.001)


# results


def test_the_table_is_that_of_separate_backtests(found: ModelComparison) -> None:
    table = found.table
    assert list(table.index) == ["trend", "contrarian", "random", "ungated", "rule"]
    trend = gate_of("scripted:trend")
    gates = {name: gate_of(model) for name, model in MODELS.items()}
    rule = RuleGate(indicator=trend.indicator, advisor=trend.advisor)
    for name, gate in {**gates, "ungated": trend.baseline(), "rule": rule}.items():
        run = run_backtest(Alternate, BARS, gate=gate, commission=0.001)
        row = table.loc[name]
        assert row["pnl"] == run.final_value - CASH
        for column in ("return", "sharpe", "sortino", "max_drawdown", "turnover", "trades", "exposure"):
            assert row[column] == run.metrics[column]
        assert row["hit_rate"] == run.metrics["win_rate"]
        # Young's ratio from its parts; daily bars, 284 of them.
        growth = (run.equity.iloc[-1] / run.equity.iloc[0]) ** (365.25 / 284) - 1.0
        assert row["calmar"] == pytest.approx(growth / run.metrics["max_drawdown"])


def test_every_two_models_are_compared_once(found: ModelComparison) -> None:
    assert [pair.models for pair in found.pairs] == [
        ("trend", "contrarian"),
        ("trend", "random"),
        ("contrarian", "random"),
    ]


def test_agreement_and_kappa_are_those_counted_by_hand(found: ModelComparison) -> None:
    pair = found.pairs[1]
    first, second = (found.judged[name].bars for name in pair.models)
    assert pair.agreement.to_numpy().sum() == len(first) == 285
    assert (
        pair.agreement.loc["bullish", "bearish"]
        == ((first["answer"] == "bullish") & (second["answer"] == "bearish")).sum()
    )
    assert pair.agreed == pytest.approx((first["answer"] == second["answer"]).mean())
    assert pair.kappa == pytest.approx(cohen_kappa_score(first["answer"], second["answer"]))


def test_verdicts_are_judged_on_the_bars_that_have_an_outcome(found: ModelComparison) -> None:
    skill = found.skill
    assert skill.bars == 280  # of 285, the last five have none
    for name, one in skill.right.each.items():
        assert one.observed == pytest.approx(found.scores[name].accuracy)
        said = np.sign(found.judged[name].bars["worth"].to_numpy()[:280])
        outcome = 1.0 - found.judged[name].bars["outcome"].to_numpy()[:280]
        by_hand = [np.mean(said == np.roll(outcome, -k)) for k in range(280)]
        assert one.expected == pytest.approx(np.mean(by_hand))
    one, two = (found.scores[name] for name in ("trend", "random"))
    scores = skill.scores("trend", "random")
    assert scores["brier"].estimate == pytest.approx(one.brier - two.brier)
    assert scores["log"].estimate == pytest.approx(one.log - two.log)


def test_opposite_models_agree_only_where_both_are_neutral(found: ModelComparison) -> None:
    pair = found.pairs[0]
    counts = pair.agreement
    assert counts.loc["neutral", "neutral"] == np.trace(counts.to_numpy())
    assert pair.shared_trades == 0


def test_the_trades_that_differ_and_their_worth_add_up(found: ModelComparison) -> None:
    for pair in found.pairs:
        for name in pair.models:
            alone = pair.trades[pair.trades["model"] == name]
            assert len(alone) + pair.shared_trades == len(found.runs[name].trades)
            assert pair.worth[name] == pytest.approx(alone["pnlcomm"].sum())
            assert set(alone["opened"]) <= set(found.runs[name].trades["opened"])
    first, second = (found.runs[name].trades for name in ("trend", "random"))
    key = ["opened", "direction"]
    both = first.merge(second, on=key)
    assert found.pairs[1].shared_trades == len(both)
    assert len(both) > 0


class EachOfSeveral(bt.Strategy):
    """Ask to go long in every data at every fourth bar, and leave two bars later."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gates = [attach_gate(self.p.gate, self, data) for data in self.datas]

    def next(self) -> None:
        for data, gate in zip(self.datas, self.gates, strict=True):
            if len(self) % 4 == 0 and gate.allows_long():
                self.buy(data, size=5)
            elif len(self) % 4 == 2 and self.getposition(data).size:
                self.close(data)


def test_trades_of_two_datas_at_one_time_are_two_trades() -> None:
    datas = {"a": walk(200, seed=1), "b": walk(200, seed=7)}
    models = {"trend": "scripted:trend", "contrarian": "scripted:contrarian"}
    found = compare_models(
        EachOfSeveral, datas, models, gate=gate_of("scripted:trend"), resamples=99, block_length=5
    )
    one, two = (
        set(found.runs[name].trades[["opened", "data"]].itertuples(index=False, name=None)) for name in models
    )
    # Opposite models never let in the same entry, but often one of each data at the same bar.
    assert not one & two
    assert {opened for opened, _ in one} & {opened for opened, _ in two}
    (pair,) = found.pairs
    assert (pair.shared_trades, len(pair.trades)) == (0, len(one) + len(two))
    assert found.standing.differing["trend", "contrarian"] == len(one) + len(two)


def test_differences_are_the_first_less_the_second(found: ModelComparison) -> None:
    standing, table = found.standing, found.table
    assert [(one.first, one.second) for one in standing.between.pairs] == [
        pair.models for pair in found.pairs
    ]
    assert len(standing.against.pairs) == 3 + 3 * 2  # every two models; each against ungated and rule
    for one in standing.against.pairs:
        assert one.estimate == pytest.approx(table.loc[one.first, "sharpe"] - table.loc[one.second, "sharpe"])
        returns = (found.runs[name].returns.mean() for name in (one.first, one.second))
        apart = standing.returns.of(one.first, one.second).estimate
        assert np.sign(apart) == np.sign(next(returns) - next(returns))


def test_one_model_twice_is_the_same_model() -> None:
    found = small({"one": "scripted:trend", "two": "scripted:trend"})
    same = found.pairs[0]
    assert (same.agreed, same.kappa, len(same.trades)) == (1.0, 1.0, 0)
    assert same.worth == {"one": 0.0, "two": 0.0}
    assert found.standing.question.p_value == 1.0
    assert found.standing.confidence_set == {"one": 1.0, "two": 1.0}
    assert found.skill.right.pairs["one", "two"].p_value == 1.0
    assert "cannot tell; fewer than 10 trades differ" in found.sentences[0]


def test_it_is_plain_json_with_the_answer_first(found: ModelComparison) -> None:
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert back["runs"]["trend"]["sharpe"] == found.table.loc["trend", "sharpe"]
    assert back["costs"]["trend"]["memory_mb"] is None
    assert back["pairs"][0]["agreement"]["neutral"]["neutral"] > 0
    assert back["pairs"][0]["trades"][0]["opened"].startswith("2020-")
    question = back["primary"]
    assert question["answer"] == back["sentences"][0] == found.standing.answer
    assert question["p_value"] == min(one["p_value"] for one in back["between"])
    assert (question["smallest_p_value"], question["comparisons"], question["found"]) == (0.01, 3, False)
    assert question["detectable"] == max(one["detectable"] for one in back["between"])
    # The answer, the best, the benchmarks, the verdicts, and one for each pair.
    assert len(found.sentences) == 4 + 3
    assert found.sentences[0].startswith("Which is better: cannot tell; no difference")
    titles = [section.title for section in found.sections()]
    assert {"Who is better", "Among the best", "Right at the right times"} <= set(titles)


def test_one_that_knows_is_called_better_and_so_are_its_verdicts() -> None:
    found = compare_models(
        Alternate,
        regimes(600, drift=0.003),
        {"trend": "scripted:trend", "one": "scripted:random:4", "two": "scripted:random:9"},
        gate=gate_of("scripted:trend"),
        resamples=199,
        horizon=1,
    )
    assert not found.problems
    assert "trend better than two by +" in found.sentences[0]
    assert "one better than trend" not in found.sentences[0]
    assert "two better than trend" not in found.sentences[0]
    assert found.standing.question.p_value == found.standing.primary.smallest_p == 1 / 200
    assert found.standing.confidence_set["two"] <= 0.05
    assert found.standing.spa["ungated"] <= 0.05
    assert found.skill.right.each["trend"].p_value <= 0.05
    assert "bars right at the right times: trend" in found.skill.sentence


def test_a_model_that_ruins_the_account_ends_the_questions_and_not_the_program(tmp_path: Path) -> None:
    found = compare_models(
        Alternate,
        regimes(1200),
        {"trend": "scripted:trend", "contrarian": "scripted:contrarian"},
        gate=gate_of("scripted:trend"),
        resamples=99,
        output=tmp_path,
    )
    assert found.runs["contrarian"].ruined is not None
    assert found.sentences[0].startswith("No conclusion: contrarian: the account was ruined")
    assert found.to_dict()["primary"] is None
    # It was tried all the same, so the other one is the better of two.
    assert found.tried is not None
    assert (found.tried.n_trials, found.tried.new) == (2, 2)
    assert np.isnan(found.tried.deflated["contrarian"])
    with TrialLedger(tmp_path / LEDGER) as ledger:
        assert sorted(ledger.sharpes().values())[0] < 0.0


def test_accounts_of_one_function_are_other_trials(tmp_path: Path) -> None:
    def opening(cash: float) -> Callable[[bt.Cerebro, Market], None]:
        return lambda cerebro, _: cerebro.broker.setcash(cash)

    models = {"trend": "scripted:trend", "contrarian": "scripted:contrarian"}
    counts = [small(models, setup=opening(cash), output=tmp_path).tried for cash in (1e4, 1e4, 1e5)]
    assert [(one.n_trials, one.new) for one in counts if one is not None] == [(2, 2), (2, 0), (4, 2)]


def test_a_model_that_never_trades_is_compared_too() -> None:
    gate = gate_of("scripted:trend", min_confidence=1.0)
    found = small({"shy": "scripted:trend", "bold": "scripted:contrarian"}, gate=gate)
    assert found.table.loc["shy", "trades"] == 0
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert back["runs"]["shy"]["sharpe"] is None
    assert back["runs"]["shy"]["hit_rate"] is None


# which models


def test_names_come_from_files_or_from_a_mapping() -> None:
    gate = gate_of("scripted:trend", min_confidence=0.4)
    gates = gates_by_name(
        ["smollm2", "some/where/A.Model.GGUF", AdvisorConfig(model="scripted:random")], gate
    )
    assert list(gates) == ["smollm2", "A.Model", "scripted:random"]
    assert all(chosen.min_confidence == 0.4 for chosen in gates.values())
    assert gates["smollm2"].advisor.cache_mode == "off"  # the gate's advisor but for the model
    assert gates["scripted:random"].advisor == AdvisorConfig(model="scripted:random")


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (["smollm2"], r"models=\['smollm2'\]: expected two or more"),
        ("smollm2", "expected a list of models, such as"),
        (["a/one.gguf", "b/one.gguf"], "the name 'one' is taken; give a mapping"),
        ({"ungated": "smollm2", "b": "smollm2"}, "the name 'ungated' is taken"),
        ({"rule": "smollm2", "b": "smollm2"}, "the name 'rule' is taken"),
    ],
)
def test_models_are_checked(models: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        gates_by_name(models, Gate())


def slow_average(data: bt.feed.AbstractDataBase) -> bt.Indicator:
    return bt.ind.SMA(data, period=40)


class SlowAdvice(QuickAdvice):
    lines = ("slow",)


def test_models_that_warm_up_differently_are_refused() -> None:
    quick = AdvisorConfig(model="scripted:trend", cache_mode="off")
    feature = Feature(name="slow", edges=(100.0,), labels=("low", "high"), indicator=slow_average)
    slow = AdvisorConfig(
        model="scripted:trend", cache_mode="off", state_space=StateSpace().with_feature(feature)
    )
    gate = Gate(advisor=quick, indicator=SlowAdvice)
    with pytest.raises(ConfigError, match="'slow' warms up in 40 bars and 'quick' in 16"):
        small({"quick": quick, "slow": slow}, gate=gate)


def test_two_state_spaces_of_one_model_can_be_compared() -> None:
    narrow = AdvisorConfig(
        model="scripted:trend", cache_mode="off", state_space=StateSpace(features=(TREND,))
    )
    found = small({"all": "scripted:trend", "trend only": narrow})
    assert found.costs["trend only"].prompts <= 5 < found.costs["all"].prompts


@pytest.mark.model
def test_a_real_model_against_a_script() -> None:
    """The study that 1B against 3B is, with the model that comes with the package."""
    narrow = StateSpace(features=(TREND,))
    advisor = AdvisorConfig(model="smollm2", state_space=narrow, n_threads=2)
    gate = Gate(advisor=advisor, indicator=QuickAdvice, require="not_against")
    found = small(["smollm2", "scripted:trend"], gate=gate)
    cost = found.costs["smollm2"]
    assert cost.model_calls == 5
    assert cost.stored_tokens > 0
    assert cost.memory_mb > 90
    assert 0.0 < found.scores["smollm2"].brier < 2.0
    again = small(["smollm2", "scripted:trend"], gate=gate)
    assert again.table.equals(found.table)
