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
from bt_llm.research.walk_forward._supplies import Supplies
from bt_llm.verdicts import calibrated, mean_prior

ASKED = AdvisorConfig(model="scripted:random", calibration="none")
REPLAYED = dataclasses.replace(ASKED, cache_mode="replay", cache_dir="/a/folder/of/another/machine")


@pytest.fixture
def supplies(tmp_path: Path) -> Supplies:
    """What a worker gets: twelve cells, of a cache folder that it does not see."""
    Advisor.forget_shared()
    config = dataclasses.replace(ASKED, cache_dir=REPLAYED.cache_dir)
    Advisor.share(
        Advisor(config, cache=Advisor(dataclasses.replace(ASKED, cache_dir=tmp_path / "here")).cache)
    )
    Advisor.shared(config).raw_cells(range(12))
    made = pickle.loads(pickle.dumps(Supplies.of([Gate(advisor=config)])))
    Advisor.forget_shared()
    return made


def test_a_worker_answers_from_the_pack_alone(supplies: Supplies) -> None:
    supplies.settle({"gate": Gate(advisor=REPLAYED)})
    expected = Advisor(dataclasses.replace(ASKED, cache_mode="off")).raw_cells(range(12))
    assert Advisor.shared(REPLAYED).raw_cells(range(12)) == expected
    assert all(
        verdict.model == "scripted:random" for verdict in Advisor.shared(REPLAYED).raw_cells(range(12))
    )


def test_every_calibration_is_served_from_the_same_raw_verdicts(supplies: Supplies) -> None:
    raw = Advisor(dataclasses.replace(ASKED, cache_mode="off")).raw_cells(range(12))
    prior = mean_prior(raw)
    trained = dataclasses.replace(REPLAYED, calibration=prior)
    supplies.settle({"gate": Gate(advisor=trained)})
    assert Advisor.shared(trained).advise_cells([3]) == [calibrated(raw[3], prior)]


def test_what_is_not_in_the_pack_is_a_miss_that_says_so(supplies: Supplies) -> None:
    supplies.settle({"gate": Gate(advisor=REPLAYED)})
    with pytest.raises(
        VerdictMiss, match=r"not stored in the pack that was sent(.|\n)*The nearest stored one"
    ):
        Advisor.shared(REPLAYED).raw_cells([50])


def test_another_search_on_the_same_worker_brings_its_own(supplies: Supplies) -> None:
    gate = {"gate": Gate(advisor=REPLAYED)}
    supplies.settle(gate)
    first = Advisor.shared(REPLAYED)
    supplies.settle(gate)
    assert Advisor.shared(REPLAYED) is first
    (own,) = supplies.answered
    renamed = dataclasses.replace(own, identity=dataclasses.replace(own.identity, name="other"))
    dataclasses.replace(supplies, answered=(renamed,)).settle(gate)
    assert Advisor.shared(REPLAYED).identity.name == "other"


def test_a_pack_that_was_altered_is_refused(supplies: Supplies) -> None:
    text = zlib.decompress(supplies.pack).replace(b'"bullish":0', b'"bullish":1', 1)
    with pytest.raises(PackError, match="the pack that was sent, line"):
        dataclasses.replace(supplies, pack=zlib.compress(text)).settle({"gate": Gate(advisor=REPLAYED)})


def test_gates_that_ask_nobody_need_nothing(supplies: Supplies) -> None:
    for params in ({}, {"gate": None}, {"gate": AlwaysOpen()}):
        supplies.settle(params)
    assert Advisor._shared == {}
