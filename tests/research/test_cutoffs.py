from __future__ import annotations

import datetime
import json

import pandas as pd
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import AlwaysOpen, Gate
from bt_llm.research import before_after_cutoff, training_cutoff
from bt_llm.research._cutoffs import CUTOFFS, _cutoff_day
from tests.engines import walk
from tests.research_cases import Alternate, gate_of, regimes

SETTINGS = {"resamples": 99, "block_length": 5}


@pytest.mark.parametrize(
    ("model", "latest"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "2023-12-31"),
        ("some/folder/Meta-Llama-3.2-3B.gguf", "2023-12-31"),
        ("gemma-3-270m-it-Q8_0.gguf", "2024-08-31"),
        ("Phi-3.5-mini-instruct.gguf", "2023-10-31"),
        ("smollm2", "2024-11-01"),  # its release: the makers do not say
    ],
)
def test_models_are_known_by_their_names(model: str, latest: str) -> None:
    known = training_cutoff(model)
    assert known is not None
    assert known.latest.isoformat() == latest


@pytest.mark.parametrize("model", ["scripted:trend", "gemma-2-2b.gguf", "Llama-3-8B.gguf", "mymodel.gguf"])
def test_other_models_are_not(model: str) -> None:
    assert training_cutoff(model) is None


def test_the_table_has_a_source_for_everything() -> None:
    for entry in CUTOFFS:
        assert "https://" in entry.source
        assert entry.cutoff is None or entry.cutoff < entry.released


def test_the_two_stretches_are_those_before_and_after() -> None:
    bars = walk(200)  # from 2020-01-01
    gate = gate_of("scripted:trend")
    found = before_after_cutoff(Alternate, bars, gate, cutoff="2020-04-30", **SETTINGS)
    # Returns start one bar after the 16 bars of the warm-up, on 17 January.
    assert found.bars_before == (datetime.date(2020, 4, 30) - datetime.date(2020, 1, 16)).days
    assert found.bars_before + found.bars_after == 200 - 16
    assert set(found.before) == set(found.after) == {"sharpe", "return"}
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["cutoff"] == "2020-04-30"


def test_an_effect_that_ends_with_the_training_data_is_pointed_out() -> None:
    trending, turned = regimes(200), regimes(200, seed=9)
    joined = pd.concat([trending, turned * trending["close"].iloc[-1] / turned["open"].iloc[0]])
    joined.index = pd.date_range("2020-01-01", periods=400, freq="D")
    gate = gate_of("scripted:trend")
    good = before_after_cutoff(Alternate, joined, gate, cutoff=datetime.date(2020, 7, 18), **SETTINGS)
    assert good.sentence.endswith("no sign that it remembered.")
    # Afterwards nothing can be known, as if a model had run out of memories.
    after = walk(200, seed=3)
    joined.iloc[200:] = (after * trending["close"].iloc[-1] / after["open"].iloc[0]).to_numpy()
    gone = before_after_cutoff(Alternate, joined, gate, cutoff=datetime.date(2020, 7, 18), **SETTINGS)
    assert gone.before["sharpe"].low > 0.0
    assert gone.after["sharpe"].estimate < gone.before["sharpe"].low
    assert gone.sentence.endswith("it may have remembered.")


def test_what_is_not_known_has_to_be_given() -> None:
    bars = walk(120)
    with pytest.raises(ConfigError, match="training cut-off of 'scripted:trend' is not known, only of"):
        before_after_cutoff(Alternate, bars, gate_of("scripted:trend"))
    with pytest.raises(ConfigError, match="training cut-off of AlwaysOpen is not known"):
        before_after_cutoff(Alternate, bars, AlwaysOpen())
    with pytest.raises(ConfigError, match="cutoff='then': expected a date"):
        before_after_cutoff(Alternate, bars, AlwaysOpen(), cutoff="then")
    with pytest.raises(DataError, match=r"cut-off 2019-01-01: 0 bars up to it and 119 after"):
        before_after_cutoff(Alternate, bars, AlwaysOpen(), cutoff="2019-01-01")


def test_the_gates_own_model_is_looked_up() -> None:
    gate = Gate(advisor=AdvisorConfig(model="models/Llama-3.2-1B-Instruct-Q4_K_M.gguf"))
    assert _cutoff_day(gate, None) == datetime.date(2023, 12, 31)
    assert _cutoff_day(gate, "2024-02-03") == datetime.date(2024, 2, 3)
