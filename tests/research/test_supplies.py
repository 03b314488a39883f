"""The pack that goes with trials, and what a worker makes of it."""

from __future__ import annotations

import dataclasses
import pickle
import zlib
from pathlib import Path

import pytest

from bt_llm import AdvisorConfig, Gate
from bt_llm.advice import Advisor
from bt_llm.cache._misses import VerdictMiss
from bt_llm.exceptions import PackError
from bt_llm.gates import AlwaysOpen
from bt_llm.models import ModelKind
from bt_llm.prompts import PromptTemplate
from bt_llm.research.walk_forward._supplies import Supplies, _source
from bt_llm.verdicts import calibrated, mean_prior

ASKED = AdvisorConfig(model="scripted:random", calibration="none")
REPLAYED = dataclasses.replace(ASKED, cache_mode="replay", cache_dir="/a/folder/of/another/machine")


@pytest.fixture
def supplies(tmp_path: Path) -> Supplies:
    """What a worker gets: twelve cells, of a cache folder that it does not see."""
    config = dataclasses.replace(ASKED, cache_dir=tmp_path / "here")
    gate = Gate(advisor=config)
    gate.asker().raw_cells(range(12))
    made = pickle.loads(pickle.dumps(Supplies.of([(gate, gate.asker())])))
    (own,) = made.answered
    elsewhere = dataclasses.replace(own, source=_source(Gate(advisor=REPLAYED)))
    return dataclasses.replace(made, answered=(elsewhere,))


def settled(supplies: Supplies, config: AdvisorConfig) -> Advisor:
    """What a worker asks in the place of a configuration."""
    gate = supplies.settled({"gate": Gate(advisor=config), "period": 3})["gate"]
    assert gate == Gate(advisor=config), "keys and results are those of the gate that was sent"
    return Advisor(gate.advisor)


def test_a_worker_answers_from_the_pack_alone(supplies: Supplies, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Advisor(dataclasses.replace(ASKED, cache_mode="off")).raw_cells(range(12))
    monkeypatch.setattr(ModelKind, "__init__", lambda *_: pytest.fail("a model was looked for"))
    monkeypatch.setattr(PromptTemplate, "load", lambda *_: pytest.fail("a template was read"))
    found = settled(supplies, REPLAYED).raw_cells(range(12))
    assert found == expected
    assert {verdict.model for verdict in found} == {"scripted:random"}


def test_every_calibration_is_served_from_the_same_raw_verdicts(supplies: Supplies) -> None:
    raw = Advisor(dataclasses.replace(ASKED, cache_mode="off")).raw_cells(range(12))
    prior = mean_prior(raw)
    trained = dataclasses.replace(REPLAYED, calibration=prior)
    assert settled(supplies, trained).advise_cells([3]) == [calibrated(raw[3], prior)]


def test_what_is_not_in_the_pack_is_a_miss_that_says_so(supplies: Supplies) -> None:
    with pytest.raises(
        VerdictMiss, match=r"not stored in the pack that was sent(.|\n)*The nearest stored one"
    ):
        settled(supplies, REPLAYED).raw_cells([50])


def test_another_search_on_the_same_worker_brings_its_own(supplies: Supplies) -> None:
    assert settled(supplies, REPLAYED).identity.name == "scripted:random"
    (own,) = supplies.answered
    renamed = dataclasses.replace(own, identity=dataclasses.replace(own.identity, name="other"))
    other = dataclasses.replace(supplies, answered=(renamed,))
    assert settled(other, REPLAYED).identity.name == "other"


def test_a_pack_that_was_altered_is_refused(supplies: Supplies) -> None:
    text = zlib.decompress(supplies.pack).replace(b'"bullish":0', b'"bullish":1', 1)
    with pytest.raises(PackError, match="the pack that was sent, line"):
        dataclasses.replace(supplies, pack=zlib.compress(text)).settled({"gate": Gate(advisor=REPLAYED)})


def test_gates_that_ask_nobody_need_nothing(supplies: Supplies) -> None:
    for params in ({}, {"gate": None}, {"gate": AlwaysOpen()}):
        assert supplies.settled(params) == params
