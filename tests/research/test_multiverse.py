"""One verdict asked for in every way that would have been as good."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bt_llm.advice import Advisor, AdvisorConfig, Policy, forget_answers
from bt_llm.backtest import run_backtest
from bt_llm.exceptions import ConfigError
from bt_llm.prompts import PromptTemplate, with_label_order
from bt_llm.report import write_csv, write_report
from bt_llm.research import Multiverse, Policies, checklist, multiverse
from bt_llm.verdicts import Feature, StateSpace
from tests.report_cases import Page
from tests.research_cases import Alternate, gate_of, random_walk

BARS = random_walk(300)
TWO = ("market", "market/brief")


@pytest.fixture(autouse=True)
def _forget() -> None:
    forget_answers()


def found_by(model: str, templates: Sequence[str] = TWO, **settings: Any) -> Multiverse:
    return multiverse(Alternate, BARS, gate=gate_of(model), templates=templates, n=19, **settings)


def policies_of(model: str, templates: Sequence[str] = TWO, **settings: Any) -> Policies:
    return multiverse(gate=gate_of(model), templates=templates, **settings).policies


@pytest.fixture(scope="module")
def noise() -> Multiverse:
    """Return the multiverse of a model that hears only noise, traded."""
    return found_by("scripted:random")


def test_every_combination_is_examined_and_the_headline_is_the_first_of_each(noise: Multiverse) -> None:
    found, space = noise, noise.policies.space

    assert space.shape == (1, 2, 6, 1, 2)
    assert len(found.table) == 24
    assert space.named(0) == {
        "model": "scripted:random",
        "wording": "market",
        "labels": "bullish, bearish, neutral",
        "examples": "as written",
        "calibration": "grid",
    }
    assert found.gated is not None
    alone = run_backtest(Alternate, BARS, gate=gate_of("scripted:random"))
    assert found.gated.equity.equals(alone.equity)


def test_a_specification_is_what_asking_and_trading_it_alone_gives(noise: Multiverse) -> None:
    found, number = noise, 17
    one = found.policies.space.specifications[number]

    gate = gate_of("scripted:random").with_config(one.config)
    alone, policy = run_backtest(Alternate, BARS, gate=gate), Policy.of(Advisor(one.config))

    assert found.policies.space.named(number)["wording"] == "market/brief"
    assert isinstance(one.config.template, PromptTemplate)
    order = ("neutral", "bullish", "bearish")
    assert one.config.template == with_label_order(PromptTemplate.load("market/brief"), order)
    assert found.table["return"][number] == alone.metrics["return"]
    assert found.table["trades"][number] == alone.metrics["trades"]
    assert np.array_equal(found.policies.probabilities[number], policy.calibrated)


def test_a_model_that_does_not_heed_the_words_hangs_on_none_of_them() -> None:
    found = policies_of("scripted:trend", calibrations=["grid"])  # it reads the line of the trend alone

    assert found.unanimous == 105
    frame = found.by_dimension
    assert frame["kappa"].tolist() == pytest.approx([1.0, 1.0])
    assert frame["changed"].tolist() == [0.0, 0.0]
    by = found.by_feature.set_index("feature").loc["trend"].iloc[0]
    assert (by["main"], by["total"]) == pytest.approx((1.0, 1.0))
    assert by["changed"] == pytest.approx(0.8)  # of 20 ordered pairs of 5 buckets 4 stay on their side


def test_a_model_that_hears_only_noise_agrees_by_chance_alone() -> None:
    found = policies_of("scripted:random", templates=("market", "market/brief", "market/sceptic"))

    frame = found.by_dimension
    assert abs(frame.loc["wording", "kappa"]) < 0.05
    assert frame.loc["calibration", "kappa"] > 0.7
    assert frame.loc[["wording", "labels"], "total"].min() > 0.6


def test_levels_are_compared_with_the_headline() -> None:
    found = policies_of("scripted:random", calibrations=["grid"], label_orders=False)

    one = found.by_level.iloc[0]

    answers = found.answers
    assert (one["dimension"], one["level"]) == ("wording", "market/brief")
    assert one["changed"] == (answers[0] != answers[1]).sum() > 30


def test_models_are_a_dimension_and_orders_of_examples_another() -> None:
    found = multiverse(
        gate=gate_of("scripted:trend"),
        models=["scripted:trend", "scripted:contrarian"],
        templates=["market"],
        label_orders=False,
        example_orders=True,
        calibrations=["none"],
    )

    assert found.policies.space.shape == (2, 1, 1, 6, 1)
    assert found.traded is None
    assert found.policies.by_dimension.loc["model", "changed"] == pytest.approx(0.8)
    assert len(set(found.policies.space)) == 12


def test_templates_of_ones_own_are_wordings(tmp_path: Path) -> None:
    text = PromptTemplate.load("market").text.replace('"market"', '"mine"').replace("trading", "patient")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")

    found = multiverse(gate=gate_of("scripted:random"), templates=[tmp_path / "mine.toml", "market"])

    assert found.policies.space.dimensions[1].levels == ("mine", "market")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"templates": []}, "expected at least one"),
        ({"templates": ["market", "market"]}, "wording 'market' is given twice"),
        ({"calibrations": ["mean"]}, "calibrations='mean': expected one of"),
        ({"calibrations": []}, "no calibration is given"),
        ({"templates": ["market", "other"]}, "expected wordings of one question"),
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"data": None}, "expected both of them"),
    ],
)
def test_what_cannot_be_varied_is_one_line(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    text = PromptTemplate.load("market").text
    text = text.replace('labels = { bullish = "Bullish", neutral = "Neutral", bearish = "Bearish" }', "")
    labels = [("up", 1), ("down", -1)]
    tables = [f'[[labels]]\nname = "{name}"\nword = "{name}"\nworth = {worth}\n' for name, worth in labels]
    text = text.split("[[examples]]")[0] + "".join(tables)
    (tmp_path / "other.toml").write_text(text, encoding="utf-8")
    if "other" in settings.get("templates", ()):
        settings = {"templates": ["market", tmp_path / "other.toml"]}
    told = {"strategy": Alternate, "data": BARS, "gate": gate_of("scripted:random"), **settings}
    with pytest.raises(ConfigError, match=message):
        multiverse(**told)


def test_a_large_state_space_is_refused() -> None:
    wide = Feature(name="x", edges=tuple(range(6)), labels=tuple("abcdefg"), indicator=len)
    space = StateSpace().with_feature(wide)
    gate = gate_of("scripted:random").with_config(AdvisorConfig(model="scripted:random", state_space=space))
    with pytest.raises(ConfigError, match="735 cells: a multiverse asks about every cell"):
        multiverse(gate=gate)


def test_json_page_and_tables_show_it(tmp_path: Path, noise: Multiverse) -> None:
    found = noise
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    write_report(tmp_path / "page.html", found, data=BARS)
    write_csv(tmp_path / "tables", found)

    assert told["specifications"] == 24
    assert told["traded"]["question"]["claim"].startswith("the timing of the specifications")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    circles = [attributes for tag, attributes in page.tags if tag == "circle"]
    assert len(circles) == 2 * 24  # for a screen, and for a telephone
    assert sum(attributes["r"] == "5" for attributes in circles) == 2  # the headline
    assert "Where the specifications lean" in text
    frame = pd.read_csv(tmp_path / "tables" / "specifications.csv")
    assert len(frame) == 24
    assert frame["return"][0] == found.table["return"][0]


def test_policies_alone_have_a_page(tmp_path: Path) -> None:
    found = multiverse(gate=gate_of("scripted:random"), templates=["market"])
    write_report(tmp_path / "page.html", found)

    assert "What hangs on each choice" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_same_arguments_give_the_same_result() -> None:
    few = {"templates": ["market"], "label_orders": False}
    one, two = found_by("scripted:random", **few), found_by("scripted:random", **few)

    assert one.to_dict() == two.to_dict()
    # Of two a share of 9 in 10 is none.
    low, high = (f"{100 * value:.2f} %" for value in sorted(one.table["return"]))
    (told,) = [line for line in one.sentences if line.startswith("The strategy returned")]
    assert f"returned {low} to {high} in the 2 specifications, " in told
    assert told.endswith(" of 2 from the top.")


def test_its_page_answers_what_it_examined(noise: Multiverse) -> None:
    told = {line.asked: line for line in checklist(noise)}
    wording = told["Verdicts do not hang on one wording of the question."]
    share = noise.policies.by_dimension["changed"]["wording"]
    assert wording.outcome == "failed"
    assert f"another wording alone changes {share:.0%} of the answers" in wording.because
    asked = told["The test says what it could have found, and may say that it cannot tell."]
    assert asked.outcome == "passed"
    alike = found_by("scripted:trend", label_orders=False, calibrations=["none"])
    (same,) = [line for line in checklist(alike) if line.topic == wording.topic]
    assert (same.outcome, same.because[:38]) == ("passed", "another wording alone changes 0% of th")
    one = found_by("scripted:trend", templates=["market"], label_orders=False)
    assert {line.outcome for line in checklist(one) if line.topic == wording.topic} == {"not examined"}


def test_what_could_have_been_found_is_said(noise: Multiverse) -> None:
    assert noise.traded is not None
    assert noise.traded.joint is not None
    could = noise.traded.joint.question.detectable
    assert could is not None
    assert could > 0.0
    assert "% a year would have been found in 4 of 5 such tests" in noise.sentences[0]


def test_a_specification_that_lets_nothing_in_is_left_out_of_the_test() -> None:
    # Every answer is the first label: every long entry is let in, and every short one blocked.
    found = found_by("scripted:bullish", label_orders=False)

    assert found.traded is not None
    assert found.traded.joint is not None
    assert not found.traded.joint.informative.any()
    assert "Cannot tell whether the timing of the specifications" in found.sentences[0]
