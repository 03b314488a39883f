"""A policy as a rule: the smallest tree, what it says, and that it trades like the model."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from bt_llm.advice import Advisor, AdvisorConfig, Policy
from bt_llm.backtest import Market, load_function, run_backtest
from bt_llm.cache import VerdictCache, import_pack
from bt_llm.data import shipped
from bt_llm.exceptions import ConfigError
from bt_llm.gates import FunctionGate, Gate
from bt_llm.report import write_report
from bt_llm.research import Explanation, cell_visits, compare_models, explain
from bt_llm.research.explained._exports import Rule, to_pine
from bt_llm.research.explained._shape import monotonicity, symmetry
from bt_llm.research.explained._trees import Leaf, best_tree, depth_of, leaves, smallest_tree, told
from bt_llm.verdicts import TREND, Feature, StateSpace
from tests.research_cases import Alternate, gate_of, random_walk

GRID = (3, 7, 5)
STRATEGY = f"{shipped('sma_cross.py')}:GatedSmaCross"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> AdvisorConfig:
    """Return how SmolLM2 is asked from the pack that ships."""
    folder = tmp_path_factory.mktemp("pack")
    with VerdictCache(folder, "record") as cache:
        import_pack(cache, shipped("demo_pack.jsonl"))
    return AdvisorConfig(cache_dir=folder, cache_mode="replay")


def explained(config: AdvisorConfig, **settings: Any) -> Explanation:
    return explain(Policy.of(Advisor(config)), **settings)


@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_tree_agrees_everywhere_and_greed_finds_none_that_is_smaller(seed: int) -> None:
    answers = np.random.default_rng(seed).integers(0, 3, GRID)
    buckets = np.stack(np.unravel_index(np.arange(answers.size), GRID), axis=1)
    greedy = DecisionTreeClassifier(random_state=0).fit(buckets, answers.ravel())

    tree = smallest_tree(answers)

    assert (told(tree, GRID) == answers).all()
    assert len(list(leaves(tree))) < greedy.get_n_leaves()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_best_tree_of_a_depth_agrees_at_least_as_often_as_a_greedy_one(depth: int) -> None:
    answers = np.random.default_rng(7).integers(0, 3, GRID)
    buckets = np.stack(np.unravel_index(np.arange(answers.size), GRID), axis=1)
    greedy = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(buckets, answers.ravel())

    tree = best_tree(answers, depth)

    assert depth_of(tree) <= depth
    assert (told(tree, GRID) == answers).mean() >= greedy.score(buckets, answers.ravel())


def test_two_cuts_that_no_first_cut_pays_for_are_found() -> None:
    # Exclusive or: either cut alone is worth nothing, so that greed would stop.
    assert (told(best_tree(np.array([[0, 1], [1, 0]]), 2), (2, 2)) == [[0, 1], [1, 0]]).all()


def test_a_grid_of_too_many_boxes_is_refused() -> None:
    with pytest.raises(ConfigError, match="16,807 cells in 17,210,368 boxes: the smallest tree is searched"):
        smallest_tree(np.zeros((7,) * 5, dtype=np.int64))


def test_the_exported_rule_trades_like_the_model_on_every_bar(smollm2: AdvisorConfig, tmp_path: Path) -> None:
    found = explained(smollm2)
    found.export(tmp_path / "rule.py")
    rule = FunctionGate(function=load_function(f"{tmp_path / 'rule.py'}:verdict"))
    bars = Market.of(shipped("eurusd_hourly.csv"))

    model, written = (run_backtest(STRATEGY, bars, gate=gate) for gate in (Gate(advisor=smollm2), rule))

    assert found.is_exact
    assert len(model.trades) > 20
    assert written.equity.equals(model.equity)
    assert written.fills.equals(model.fills)


def test_the_exported_function_says_what_the_policy_says_at_every_edge_and_between(
    smollm2: AdvisorConfig, tmp_path: Path
) -> None:
    found = explained(smollm2)
    found.export(tmp_path / "rule.py")
    verdict = load_function(f"{tmp_path / 'rule.py'}:verdict")
    worths = np.array(found.labels.worths)

    for cell in range(len(found.space)):
        for nudge in (0.0, 1e-9):  # an edge belongs to the bucket above it
            buckets = zip(found.space.features, found.space.buckets(cell), strict=True)
            state = {f.name: f.edges[b - 1] + nudge if b else f.edges[0] - 1.0 for f, b in buckets}
            assert found.space.cell(state) == cell
            assert verdict(**state) == worths[found.answers.ravel()[cell]]
    assert math.isnan(verdict(volatility=1.0, rsi=math.nan, trend=0.0))


def pine_function(text: str) -> Callable[..., float]:
    """Return the verdict of a Pine script, whose nested conditions are Python's but for three words."""
    body = text[text.index("\nverdict(") + 1 :].split("\n\n")[0].splitlines()[1:]
    lines = ["def verdict(volatility, rsi, trend):"]
    for line in body:
        said = line.strip().partition(" // ")[0].replace("na(", "math.isnan(")
        indent = line[: len(line) - len(line.lstrip())]
        number = said.replace("float(math.isnan)", "math.nan").replace("float(na)", "math.nan")
        lines.append(indent + (f"{said}:" if said.startswith(("if ", "else")) else f"return {number}"))
    made: dict[str, Any] = {"math": math}
    exec("\n".join(lines), made)
    found: Callable[..., float] = made["verdict"]
    return found


def test_the_three_exports_say_the_same_of_every_state(smollm2: AdvisorConfig, tmp_path: Path) -> None:
    found = explained(smollm2)
    for ending in ("py", "pine", "csv"):
        found.export(tmp_path / f"rule.{ending}")
    python = load_function(f"{tmp_path / 'rule.py'}:verdict")
    pine = pine_function((tmp_path / "rule.pine").read_text())
    rows = pd.read_csv(tmp_path / "rule.csv")

    assert len(rows) == 105
    for row in rows.to_dict("records"):
        names = found.space.names
        low = {name: row[f"{name}_from"] for name in names}
        state = {k: v if math.isfinite(v) else row[f"{k}_below"] - 1.0 for k, v in low.items()}
        assert python(**state) == pine(**state) == row["worth"]
        assert row["policy"] == row["rule"]
    assert math.isnan(pine(volatility=1.0, rsi=math.nan, trend=0.0))


def test_where_a_smaller_rule_differs_the_cells_are_listed(smollm2: AdvisorConfig) -> None:
    found = explained(smollm2, depth=2)

    assert not found.is_exact
    assert len(found.disagreeing) == round((1.0 - found.agreement(found.tree)) * 105) == 31
    assert json.loads(json.dumps(found.to_dict()))["disagreeing"][0] == found.space.describe(
        found.disagreeing[0]
    )
    frame = found.cells()
    assert (frame["policy"] != frame["rule"]).sum() == 31


def test_agreement_is_weighted_by_the_bars_that_visit_a_state(smollm2: AdvisorConfig) -> None:
    visits = cell_visits(shipped("eurusd_hourly.csv"), smollm2)
    found = explained(smollm2, visits=visits, depth=0)

    commonest = found.answers.ravel() == found.labels.names.index("neutral")
    assert visits.sum() == 5000 - 113  # bars of the warm-up have no state
    assert found.agreement(found.tree, visited=True) == pytest.approx(visits[commonest].sum() / visits.sum())


def test_a_rule_runs_beside_models_in_a_comparison() -> None:
    bars, gate = random_walk(300), gate_of("scripted:trend")
    rule = FunctionGate(function=with_the_trend, indicator=gate.indicator, advisor=gate.advisor)

    found = compare_models(
        Alternate, bars, ["scripted:trend", "scripted:random"], gate=gate, rule=rule, resamples=99
    )

    assert found.runs["rule"].equity.equals(found.runs["scripted:trend"].equity)


def with_the_trend(volatility: float, rsi: float, trend: float) -> float:
    return float(np.sign(TREND.bucket(trend) - 2))


def test_a_rule_that_fails_is_one_line() -> None:
    rule = FunctionGate(function=lambda trend: trend)
    with pytest.raises(ConfigError, match="expected a function of volatility, rsi, trend"):
        run_backtest(STRATEGY, shipped("eurusd_hourly.csv"), gate=rule)


def test_monotonicity_counts_the_pairs_that_go_against_the_direction() -> None:
    space = StateSpace(features=(Feature(name="x", edges=(0, 1, 2), labels=("a", "b", "c", "d")),))

    [one] = monotonicity(space, np.array([-1.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.1, 0.3]))

    assert (one.direction, one.pairs, one.changed, one.against, one.bias_against) == ("up", 3, 3, 1, 1)
    assert one.sentence == (
        "X: not one way; one bucket higher, 2 of 3 changes are to the more bullish and 1 to the more bearish."
    )
    [only] = monotonicity(space, np.array([1.0, 0.0, 0.0, -1.0]), np.zeros(4))
    assert only.sentence == "X: the higher, the more bearish, without exception."


def test_symmetry_pairs_a_state_with_the_one_whose_trend_and_rsi_are_turned_round() -> None:
    space = StateSpace(features=(TREND,))

    whole = symmetry(space, np.array([-1.0, -1.0, 0.0, 1.0, 1.0]), np.zeros(5))
    broken = symmetry(space, np.array([-1.0, 0.0, 1.0, 1.0, 1.0]), np.full(5, 0.25))

    assert whole is not None
    assert (whole.pairs, whole.opposite, whole.lean) == (3, 3, 0.0)
    assert whole.sentence.endswith("it says the opposite; on average it leans to neither side.")
    assert broken is not None
    assert (broken.pairs, broken.opposite, broken.lean) == (3, 1, 0.25)
    assert symmetry(StateSpace(features=(StateSpace()["rsi"],)), np.zeros(7), np.zeros(7)) is not None
    lopsided = Feature(name="rsi", edges=(20, 30, 80), labels=("a", "b", "c", "d"))
    assert symmetry(StateSpace(features=(lopsided,)), np.zeros(4), np.zeros(4)) is None


def test_pine_reads_features_of_ones_own_from_inputs() -> None:
    own = Feature(name="depth", title="Book depth", edges=(0.5,), labels=("thin", "thick"))
    rule = Rule(
        tree=best_tree(np.array([[1, 1, 1, 1, 2], [0, 0, 0, 0, 0]]), 2),
        space=StateSpace(features=(own, TREND)),
        answers=["bullish", "neutral", "bearish"],
        worths=[1.0, 0.0, -1.0],
    )

    text = to_pine(rule)

    assert text.startswith("//@version=6\n")
    assert 'depth = input.source(close, "Book depth")' in text
    assert "        if depth < 0.5\n            if trend < 0.12\n                0.0 // neutral\n" in text


def test_an_invalid_answer_is_no_number_in_the_exports() -> None:
    space = StateSpace(features=(TREND,))
    rule = Rule(tree=Leaf(((0, 5),), 1), space=space, answers=["bullish", "invalid"], worths=[1.0, math.nan])

    assert "        float(na) // invalid" in to_pine(rule)


def test_a_file_of_another_kind_is_refused(smollm2: AdvisorConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a file that ends in .py, .pine, .csv"):
        explained(smollm2, depth=1).export(tmp_path / "rule.txt")


def test_it_has_a_page(smollm2: AdvisorConfig, tmp_path: Path) -> None:
    write_report(tmp_path / "rule.html", explained(smollm2, depth=3))

    page = (tmp_path / "rule.html").read_text(encoding="utf-8")
    assert "How much a rule of a size explains" in page
    assert "Where the rule says something else (19)" in page
