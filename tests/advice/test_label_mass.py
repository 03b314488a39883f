"""A verdict whose labels hold next to nothing of the probability is no verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bt_llm.advice import Advisor, AdvisorConfig, Policy
from bt_llm.backtest import gate_study
from bt_llm.cache import VerdictCache
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError
from bt_llm.gates import Gate
from bt_llm.models import LabelScores, ModelKind, ScriptedBackend
from bt_llm.models import _registry as registry
from bt_llm.verdicts import LabelMasses, Verdict


class Murmuring(ScriptedBackend):
    """Puts a share of its probability on the labels that depends on the trend, and always the same ratios."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__(lambda prompt: (0.5, 0.2, 0.3), name=f"murmuring:{share}")
        self.share = share

    def score(self, prompts, labels, *, numerics="canonical"):
        for prompt in prompts:
            share = self.share * (1e-6 if prompt.text.rstrip().endswith("down\nVerdict:") else 1.0)
            yield [LabelScores(tuple(math.log(share * p) for p in (0.4, 0.24, 0.16)))]


class MurmuringModel(ModelKind):
    kind, form = "murmuring", "murmuring:SHARE"

    def open(self, config):
        return Murmuring(float(self.rest))


def advisor(share: float = 1.0, cache: VerdictCache | None = None, **settings) -> Advisor:
    config = AdvisorConfig(cache_mode=None if cache else "off", **settings)
    return Advisor(config, backend=Murmuring(share), cache=cache)


UP, DOWN = 53, 51  # cells of a trend up and down


def test_a_verdict_below_the_floor_is_invalid_and_keeps_its_mass() -> None:
    up, down = advisor(calibration="none").advise_cells([UP, DOWN])
    assert (up.answer, up.label_mass) == ("bullish", pytest.approx(0.8))
    assert (down.answer, down.label_mass) == ("invalid", pytest.approx(8e-7))
    assert down.reason.startswith("the labels hold 8e-07 of the probability, less than 0.05")
    assert math.isnan(down.worth)


def test_the_floor_is_a_setting_and_asks_the_model_nothing(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "c")
    assert advisor(cache=cache, calibration="none").advise_cells([DOWN])[0].answer == "invalid"
    lenient = advisor(cache=cache, calibration="none", min_label_mass=0)
    (verdict,) = lenient.advise_cells([DOWN])
    assert (verdict.answer, verdict.cached) == ("bullish", True)
    assert lenient.keys([DOWN]) == advisor(calibration="none").keys([DOWN])
    assert advisor(calibration="none", min_label_mass=0.9).advise_cells([UP])[0].answer == "invalid"


def test_what_is_stored_is_what_the_model_said(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "c")
    one = advisor(cache=cache, calibration="none")
    one.advise_cells([DOWN])
    (record,) = one.records()
    assert record.verdict.valid


def test_invalid_verdicts_have_no_part_in_the_calibration() -> None:
    held = advisor().advise_cells([UP])[0]
    assert held.probabilities == pytest.approx((1 / 3, 1 / 3, 1 / 3)), "all valid cells say the same"
    assert advisor(share=1e-9).advise_cells([UP])[0].answer == "invalid", "no cell is valid"


def test_readers_without_a_mass_have_no_floor() -> None:
    assert AdvisorConfig(reader="json").min_label_mass == 0.0
    assert AdvisorConfig().min_label_mass == 0.05
    no_mass = Verdict(bullish=0.5, neutral=0.2, bearish=0.3)
    assert no_mass.held_to(1.0) is no_mass


@pytest.mark.parametrize("given", [-0.1, 1.5, "much", math.nan, True])
def test_bad_floors_are_refused(given) -> None:
    with pytest.raises(ConfigError, match=r"min_label_mass=.*: expected a number from 0 to 1"):
        AdvisorConfig(min_label_mass=given)


def test_masses_of_many() -> None:
    masses = LabelMasses.of([0.5, 0.25, math.nan, 0.02, 0.03], floor=0.05)
    assert (masses.least, masses.median, masses.most, masses.below) == (0.02, pytest.approx(0.14), 0.5, 2)
    assert str(masses) == "0.02 to 0.5, median 0.14; 2 below 0.05"
    none = LabelMasses.of([math.nan], floor=0.05)
    assert (bool(none), str(none), none.to_dict()) == (False, "-", None)


def test_a_policy_shows_the_mass() -> None:
    policy = Policy.of(advisor(calibration="none"))
    shown = json.loads(json.dumps(policy.to_dict()))
    assert shown["label_mass"]["below"] == policy.counts()["invalid"] == 2 * 21
    assert shown["cells"][UP]["label_mass"] == pytest.approx(0.8)
    assert shown["cells"][DOWN]["answer"] == "invalid"


def test_a_run_shows_the_mass_and_says_why_every_answer_was_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {**registry._registered, "murmuring": MurmuringModel})
    bars = load_bars(shipped("eurusd_hourly.csv"))[:400]
    strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"

    def study(model: str):
        gate = Gate(advisor=AdvisorConfig(model=model, cache_mode="off", calibration="none"))
        return gate_study(strategy, bars, gate)

    mixed = study("murmuring:1")
    found = mixed.gated.advice["label_mass"]
    assert found["least"] == pytest.approx(8e-7)
    assert found["most"] == pytest.approx(0.8)
    assert found["below"] > 0
    assert mixed.gated.advice["verdicts"]["invalid"] > 0
    assert "probability on the labels" in repr(list(mixed.sections()))
    silent = study("murmuring:1e-7")
    why = "the labels hold at most 8e-08 of the probability, less than min_label_mass=0.05"
    assert any(why in line for line in silent.problems)
