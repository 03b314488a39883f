from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest

from bt_llm.exceptions import CacheCorruptError, ConfigError
from bt_llm.verdicts import (
    DEFAULT_LABELS,
    Action,
    Label,
    LabelSet,
    Prior,
    Verdict,
    calibrated,
    mean_prior,
)


def labels(**worths: float) -> LabelSet:
    return LabelSet([Label(name=n, word=n.title(), worth=worth) for n, worth in worths.items()])


GRADES = labels(strong_buy=2, buy=1, hold=0, sell=-1, strong_sell=-2)
SIZES = labels(zero=0, half=0.5, full=1)
NAN = float("nan")  # another object than math.nan


# The set.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "strong buy"}, "label name 'strong buy': expected a Python identifier"),
        ({"name": "invalid"}, "label name 'invalid'"),
        ({"name": "label_mass"}, "label name 'label_mass'"),
        ({"name": 3}, "label name 3"),
        ({"word": " "}, "word ' ': expected a text that is not blank"),
        ({"word": None}, "word None"),
        ({"worth": math.inf}, "worth inf: expected a finite number"),
        ({"worth": NAN}, "worth nan"),
        ({"worth": True}, "worth True"),
        ({"worth": "1"}, "worth '1'"),
    ],
)
def test_a_wrong_label_says_what_is_wrong(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Label(**{"name": "a", "word": "A", "worth": 1.0} | change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "words"), [(["a"], ["A"]), (["a", "a"], ["A", "B"]), (["a", "b"], ["A", "A"]), ([], [])]
)
def test_labels_can_be_told_apart(names: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected two or more, all different"):
        LabelSet([Label(name=n, word=w, worth=0) for n, w in zip(names, words, strict=True)])


def test_a_label_set_is_a_value() -> None:
    assert labels(a=1, b=0) == labels(a=1, b=0) != labels(b=0, a=1)
    assert len({labels(a=1, b=0), labels(a=1, b=0), labels(a=2, b=0)}) == 2
    assert pickle.loads(pickle.dumps(GRADES)) == GRADES
    assert LabelSet.from_dict(json.loads(json.dumps(GRADES.to_dict()))) == GRADES
    with pytest.raises(KeyError, match="no label 'sell'"):
        SIZES["sell"]


@pytest.mark.parametrize("stored", [None, {}, ["a"], [{"name": "a", "word": "A"}], [{"name": "a"}] * 2])
def test_stored_labels_are_untrusted(stored: object) -> None:
    with pytest.raises(ConfigError, match="labels"):
        LabelSet.from_dict(stored)


def test_only_names_order_and_worths_make_the_default_labels() -> None:
    assert DEFAULT_LABELS.with_words(["Up", "Flat", "Down"]).is_default
    assert not labels(bullish=2, neutral=0, bearish=-1).is_default
    assert not labels(bearish=-1, neutral=0, bullish=1).is_default


def test_answers_are_named_by_the_lines_of_the_indicator() -> None:
    place, confidence = np.array([1.0, NAN, NAN, 0.0]), np.array([0.5, 0.0, NAN, 0.9])
    assert SIZES.answers(place, confidence).tolist() == ["half", "invalid", "", "zero"]


# The verdict.


def test_sides_are_sums_over_what_is_worth_more_exactly_and_less_than_nothing() -> None:
    verdict = Verdict(labels=GRADES, strong_buy=0.25, buy=0.125, hold=0.5, sell=0.125, strong_sell=0)
    assert (verdict.bullish, verdict.neutral, verdict.bearish) == (0.375, 0.5, 0.125)
    assert (verdict.answer, verdict.worth, verdict.action) == ("hold", 0.0, Action.NEUTRAL)
    verdict = Verdict(labels=SIZES, zero=0.125, half=0.375, full=0.5)
    assert (verdict.bullish, verdict.neutral, verdict.bearish) == (0.875, 0.125, 0.0)
    assert (verdict.answer, verdict.worth, verdict.confidence) == ("full", 1.0, 0.5)


@pytest.mark.parametrize(
    ("of", "probabilities", "answer", "confidence"),
    [
        (GRADES, (0.4, 0.4, 0.2, 0.0, 0.0), "buy", 0.4),  # of one side the milder
        (GRADES, (0.0, 0.0, 0.2, 0.4, 0.4), "sell", 0.4),
        (GRADES, (0.0, 0.4, 0.2, 0.4, 0.0), "hold", 0.2),  # of two sides neither
        (GRADES, (0.0, 0.4, 0.2, 0.0, 0.4), "buy", 0.4),  # the one that does less
        (GRADES, (0.4, 0.0, 0.2, 0.0, 0.4), "hold", 0.2),
        (GRADES, (0.2, 0.2, 0.2, 0.2, 0.2), "hold", 0.2),
        (SIZES, (0.25, 0.375, 0.375), "half", 0.375),
        (labels(cash=0, wait=0, buy=1), (0.5, 0.5, 0.0), "cash", 0.5),  # worth the same: the first
    ],
)
def test_a_tie_goes_to_what_does_least(
    of: LabelSet, probabilities: tuple[float, ...], answer: str, confidence: float
) -> None:
    verdict = Verdict(labels=of, probabilities=probabilities)
    assert (verdict.answer, verdict.confidence) == (answer, confidence)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"zero": 0.5, "half": 0.5}, r"probabilities of \['half', 'zero'\]: expected one of each label"),
        ({"bullish": 1.0, "neutral": 0.0, "bearish": 0.0}, "expected one of each label"),
        ({"probabilities": (0.5, 0.5)}, "expected 3 numbers from 0 to 1 that sum to 1"),
        ({"probabilities": (NAN, NAN)}, "expected 3 numbers"),
        ({"probabilities": (1.0, 0.0, 0.0), "zero": 1.0}, "beside those in order"),
    ],
)
def test_probabilities_fit_the_labels(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Verdict(labels=SIZES, **given)  # type: ignore[arg-type]


def test_nan_equals_nan_in_a_verdict() -> None:
    valid = {"bullish": 0.5, "neutral": 0.2, "bearish": 0.3}
    assert Verdict(**valid, label_mass=NAN) == Verdict(**valid)
    invalid = Verdict(probabilities=(NAN, NAN, NAN), reason="x")
    assert invalid == Verdict.invalid("x") != Verdict.invalid("y")
    assert len({invalid, Verdict.invalid("x"), pickle.loads(pickle.dumps(invalid))}) == 1
    assert Verdict.invalid(labels=SIZES) != Verdict.invalid()


def test_words_do_not_change_a_verdict_but_names_and_worths_do() -> None:
    said = Verdict(labels=SIZES, zero=0.25, half=0.5, full=0.25, label_mass=0.5)
    assert said == said.over(SIZES.with_words(["No", "Some", "All"]))
    dearer = said.over(labels(zero=0, half=3, full=4))
    assert dearer != said
    assert dearer.same_answer(said)
    assert (dearer.worth, dearer.confidence, dearer.label_mass) == (3.0, 0.5, 0.5)
    with pytest.raises(ConfigError, match="expected 5 numbers"):
        said.over(GRADES)


# As it is stored.


def test_default_verdicts_are_stored_as_they_always_were() -> None:
    words = DEFAULT_LABELS.with_words(["Up", "Flat", "Down"])
    verdict = Verdict(labels=words, bullish=0.5, neutral=0.2, bearish=0.3, label_mass=0.75)
    assert verdict.to_dict() == {"bullish": 0.5, "neutral": 0.2, "bearish": 0.3, "label_mass": 0.75}
    assert Verdict.from_dict(verdict.to_dict(), words=words.words).labels == words
    assert Verdict.invalid("no JSON").to_dict() == {"invalid": True, "reason": "no JSON"}


def test_other_verdicts_are_stored_under_the_names_of_their_labels() -> None:
    verdict = Verdict(labels=SIZES, zero=0.25, half=0.5, full=0.25)
    stored = verdict.to_dict()
    assert stored["probabilities"] == {"zero": 0.25, "half": 0.5, "full": 0.25}
    text = json.dumps(stored, sort_keys=True)  # as records are: the order is not that of the keys
    assert Verdict.from_dict(json.loads(text)) == verdict
    read = Verdict.from_dict(json.loads(text), words=[" None", " Half", " Full"])
    assert (read, read.labels.words) == (verdict, (" None", " Half", " Full"))
    unread = Verdict.invalid("cut off", labels=SIZES)
    assert Verdict.from_dict(json.loads(json.dumps(unread.to_dict(), allow_nan=False))) == unread


NAMED = [{"name": "zero", "worth": 0.0}, {"name": "full", "worth": 1.0}]


@pytest.mark.parametrize(
    "stored",
    [
        {"labels": NAMED},
        {"labels": NAMED, "probabilities": {"zero": 0.5}},
        {"labels": NAMED, "probabilities": {"zero": 0.5, "half": 0.5}},
        {"labels": NAMED, "probabilities": {"zero": 1, "full": 0.0}},
        {"labels": NAMED, "probabilities": {"zero": 0.75, "full": 0.75}},
        {"labels": NAMED, "probabilities": [0.5, 0.5]},
        {"labels": NAMED, "zero": 0.5, "full": 0.5},
        {"labels": NAMED[:1], "probabilities": {"zero": 1.0}},
        {"labels": [*NAMED, {"name": "half"}], "probabilities": {}},
        {"labels": {"zero": 0.0, "full": 1.0}, "probabilities": {"zero": 0.5, "full": 0.5}},
        {"labels": [{"name": "zero", "worth": 0.0, "word": "x"}, NAMED[1]], "more": 1},
        {"labels": [{"name": "zero", "worth": "0"}, NAMED[1]], "invalid": True},
        {"labels": [{"name": 7, "worth": 0.0}, NAMED[1]], "invalid": True},
        {
            "labels": [{"name": label.name, "worth": label.worth} for label in DEFAULT_LABELS],
            "probabilities": {"bullish": 1.0, "neutral": 0.0, "bearish": 0.0},
        },
    ],
)
def test_stored_verdicts_on_other_labels_are_untrusted(stored: dict[str, object]) -> None:
    with pytest.raises(CacheCorruptError, match="stored verdict"):
        Verdict.from_dict(stored)


def test_a_stored_verdict_fits_the_words_of_its_question() -> None:
    stored = Verdict(labels=SIZES, zero=0.25, half=0.5, full=0.25).to_dict()
    with pytest.raises(CacheCorruptError, match="3 labels to a question that has 2"):
        Verdict.from_dict(stored, words=["A", "B"])
    with pytest.raises(CacheCorruptError, match="2 words"):
        Verdict.from_dict({"bullish": 1.0, "neutral": 0.0, "bearish": 0.0}, words=["A", "B"])


# Calibration.


def test_calibration_over_five_grades_worked_by_hand() -> None:
    prior = Prior(labels=GRADES, strong_buy=0.125, buy=0.125, hold=0.5, sell=0.125, strong_sell=0.125)
    raw = Verdict(labels=GRADES, strong_buy=0.125, buy=0.25, hold=0.5, sell=0.0625, strong_sell=0.0625)
    # over the prior 1, 2, 1, 0.5, 0.5, which sum to 5
    lifted = calibrated(raw, prior)
    assert raw.answer == "hold"
    assert lifted.answer == "buy"
    assert lifted.probabilities == pytest.approx((0.2, 0.4, 0.2, 0.1, 0.1))
    assert mean_prior([raw, raw]) == Prior(labels=GRADES, probabilities=raw.probabilities)


def test_a_prior_is_of_the_labels_it_is_used_on() -> None:
    prior = Prior(bullish=0.25, neutral=0.5, bearish=0.25)
    on_sizes = Verdict(labels=SIZES, zero=0.25, half=0.5, full=0.25)
    with pytest.raises(ConfigError, match="prior of bullish, neutral, bearish for a verdict on zero"):
        calibrated(on_sizes, prior)
    with pytest.raises(ConfigError, match="one prior is of one label set"):
        mean_prior([on_sizes, Verdict(bullish=0.5, neutral=0.25, bearish=0.25)])
    assert pickle.loads(pickle.dumps(prior)) == prior
