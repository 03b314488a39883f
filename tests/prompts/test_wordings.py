"""The wordings that ship, and questions with their answers and examples in another order."""

import dataclasses
import re

import pytest

from bt_llm.exceptions import PromptError
from bt_llm.models import ModelIdentity
from bt_llm.prompts import (
    PromptTemplate,
    label_order,
    orders,
    with_example_order,
    with_label_order,
    wordings,
)
from bt_llm.verdicts import DEFAULT_LABELS, StateSpace

WHO = ModelIdentity(name="base", sha256="0" * 64)
TURNED = ("neutral", "bearish", "bullish")


def template(system: str, user: str = "{{ trend }}") -> PromptTemplate:
    return PromptTemplate(name="own", version=1, user=user, system=system, labels=DEFAULT_LABELS)


def test_there_are_eight_each_with_a_reason_of_its_own_and_one_is_chinese() -> None:
    found = wordings()

    assert found[0].name == "market"
    assert len({one.sha256 for one in found}) == len(found) == 8
    assert all(one.choices.is_default for one in found)
    assert len({one.reason for one in found} - {""}) == 8
    assert any(re.search("[\u4e00-\u9fff]", one.system) for one in found)


@pytest.mark.parametrize("one", wordings(), ids=lambda one: one.name)
def test_each_tells_every_state_apart_and_takes_every_order(one: PromptTemplate) -> None:
    space = StateSpace()
    texts = {prompt.text for prompt in one.prompts(space, range(len(space)), WHO)}
    assert len(texts) == len(space)

    turned = with_label_order(one, TURNED)

    assert label_order(one) == ("bullish", "bearish", "neutral")
    assert label_order(turned) == TURNED
    assert with_label_order(turned, label_order(one)).sha256 == one.sha256
    assert sorted(turned.system) == sorted(one.system)  # words changed places, and nothing else did


def test_a_reason_is_not_told_to_the_model() -> None:
    one = PromptTemplate.load("market/brief")

    assert dataclasses.replace(one, reason="another").sha256 == one.sha256


def test_every_list_of_the_labels_is_turned() -> None:
    one = template("Bullish, Neutral or Bearish.", "{{ trend }}: (Bullish | Neutral | Bearish)?")

    turned = with_label_order(one, TURNED)

    assert turned.system == "Neutral, Bearish or Bullish."
    assert turned.user == "{{ trend }}: (Neutral | Bearish | Bullish)?"


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("What is next?", "lists its labels nowhere"),
        ("Bullish if it rises, Bearish if it falls, Neutral else.", "names the label 'Bullish' outside"),
        ("Bullish, Bearish or Neutral. Rarely say Neutral.", "names the label 'Neutral' outside"),
        ("Bullish, Bullish or Neutral.", "names the label 'Bullish' outside"),
    ],
)
def test_labels_that_are_more_than_listed_are_not_moved(system: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        with_label_order(template(system), TURNED)


def test_a_label_inside_another_word_is_no_label() -> None:
    one = template("Be not Bullishly blind: Bullish, Bearish, Neutral.")

    assert with_label_order(one, TURNED).system == "Be not Bullishly blind: Neutral, Bearish, Bullish."


def test_examples_are_shown_in_the_order_of_their_answers() -> None:
    one = PromptTemplate.load("market")

    turned = with_example_order(one, TURNED)

    assert [example.answer for example in turned.examples] == ["neutral", "bearish", "bullish"]
    assert with_example_order(one, ("bullish", "neutral", "bearish")) is one
    assert with_example_order(PromptTemplate.load("market/zero_shot"), TURNED).examples == ()


def test_of_five_labels_each_stands_at_each_place_as_often() -> None:
    found = orders("abcde", "abcde")

    assert found[0] == tuple("abcde")
    assert len(set(found)) == 10
    assert all(sorted(column) == sorted("abcde" * 2) for column in zip(*found, strict=True))
