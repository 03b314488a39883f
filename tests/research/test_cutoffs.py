from __future__ import annotations

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import run_backtest
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import AlwaysOpen, Gate
from bt_llm.research import after_cutoff, before_after_cutoff, cutoffs, latest_cutoff, training_cutoff
from bt_llm.research._cutoffs import _cutoff_day
from bt_llm.statistics import PairDifference, change_of_effect
from tests.engines import walk
from tests.research_cases import Alternate, gate_of, regimes

SETTINGS = {"resamples": 99, "block_length": 5}
ASKED = "openai:http://127.0.0.1:8000/v1?model="


@pytest.mark.parametrize(
    ("model", "family", "latest"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Llama 3.2", "2023-12-31"),
        ("some/folder/Meta-Llama-3.2-3B.gguf", "Llama 3.2", "2023-12-31"),
        ("Llama-3-8B.gguf", "Llama 3 8B", "2023-03-31"),
        ("llama3", "Llama 3", "2023-12-31"),  # of two sizes the later
        ("llama-2-7b-chat.Q4_K_M.gguf", "Llama 2", "2023-07-17"),
        ("Llama-4-Scout-17B-16E-Instruct-Q4_K_M-00001-of-00002.gguf", "Llama 4", "2024-08-31"),
        (ASKED + "meta-llama/Llama-3.1-8B-Instruct", "Llama 3.1", "2023-12-31"),
        ("gemma-2b-it.gguf", "Gemma 1", "2024-06-27"),  # its release, or later: the makers do not say
        ("gemma-3-270m-it-Q8_0.gguf", "Gemma 3", "2024-08-31"),
        ("gemma3n:e2b", "Gemma 3n", "2024-06-30"),
        ("gemma-4-E4B-it-Q4_K_M.gguf", "Gemma 4", "2025-01-31"),
        ("qwen2-7b-instruct", "Qwen 2", "2024-06-06"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Qwen 2.5", "2024-09-19"),
        ("Qwen3-0.6B-Q8_0.gguf", "Qwen 3", "2025-04-29"),
        ("Qwen3-4B-Instruct-2507-Q4_K_M.gguf", "Qwen 3, 2507", "2025-08-06"),
        ("Qwen3.5-0.8B-UD-Q4_K_XL.gguf", "Qwen 3.5", "2026-03-02"),
        ("mistral-7b-instruct-v0.3.Q4_K_M.gguf", "Mistral 7B v0.3", "2024-05-22"),
        ("Mistral-Nemo-Instruct-2407-Q4_K_M.gguf", "Mistral Nemo", "2024-07-18"),
        ("Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M.gguf", "Mistral Small 3.2", "2025-06-20"),
        ("Ministral-8B-Instruct-2410-Q4_K_M.gguf", "Ministral, 2410", "2024-10-09"),
        ("Ministral-3-3B-Instruct-2512-Q4_K_M.gguf", "Ministral 3", "2025-12-02"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Phi-3", "2023-10-31"),
        ("Phi-3.5-mini-instruct.gguf", "Phi-3.5", "2023-10-31"),
        ("phi-4-Q4_K.gguf", "Phi-4", "2024-06-30"),
        ("Phi-4-mini-reasoning-Q4_K.gguf", "Phi-4-mini-reasoning", "2025-02-28"),
        ("smollm-135m", "SmolLM", "2024-08-18"),
        ("smollm2", "SmolLM2", "2024-11-01"),
        ("SmolLM3-3B-Q4_K_M.gguf", "SmolLM3", "2025-06-30"),
        ("granite-3.0-8b-instruct-Q4_K_M.gguf", "Granite 3.0", "2024-10-21"),
        ("granite-3.3-2b-instruct-Q4_K_M.gguf", "Granite 3.3", "2024-04-30"),
        ("granite-4.0-h-micro-Q4_K_M.gguf", "Granite 4.0", "2025-12-02"),
        ("OLMo-2-0425-1B-Instruct-Q4_K_M.gguf", "OLMo 2", "2023-12-31"),
        ("Olmo-3-7B-Instruct-Q4_K_M.gguf", "OLMo 3", "2024-12-31"),
        ("DeepSeek-R1-Distill-Qwen-1.5B-Q4_K_M.gguf", "DeepSeek R1 and its distillations", "2025-01-20"),
        ("gpt-oss-20b-mxfp4.gguf", "gpt-oss", "2024-06-30"),
    ],
)
def test_models_are_known_by_their_names(model: str, family: str, latest: str) -> None:
    known = training_cutoff(model)
    assert known is not None
    assert (known.family, known.latest.isoformat()) == (family, latest)


@pytest.mark.parametrize(
    "model",
    # What others trained further may have seen more than the makers say.
    ["scripted:trend", "mymodel.gguf", "Llama-3-Finance-8B.gguf", "gemma-3-1b-news-2026.gguf", ASKED, "qwen"],
)
def test_other_models_are_not(model: str) -> None:
    assert training_cutoff(model) is None


def test_the_table_has_a_source_and_a_date_for_everything() -> None:
    for entry in cutoffs():
        assert entry.source.startswith("https://")
        assert datetime.date(2026, 1, 1) < entry.checked
        assert entry.released < entry.checked
        assert (entry.cutoff is None) == (not entry.said)
        assert entry.cutoff is None or entry.cutoff < entry.released
        assert entry.confirmed or entry.note or entry.said
        assert ("not confirmed" in entry.described) == (not entry.confirmed)


def test_the_latest_of_several_models_counts_and_scripts_have_seen_nothing() -> None:
    last, why = latest_cutoff(["llama-3.2-1b", "scripted:trend", "gemma-3-1b-it.gguf"])
    assert last == datetime.date(2024, 8, 31)
    assert [one.partition(":")[0] for one in why] == ["Llama 3.2", "Gemma 3"]
    with pytest.raises(ConfigError, match="a scripted one has no cut-off"):
        latest_cutoff(["scripted:trend"])
    with pytest.raises(ConfigError, match=r"'mine.gguf' is not known, only of Llama 2, .*--after YYYY-MM-DD"):
        latest_cutoff(["llama-3.2-1b", "mine.gguf"])
    with pytest.raises(ConfigError) as told:
        latest_cutoff(["openai:http://user:hidden@127.0.0.1:8000/v1?model=mine"])
    assert "hidden" not in str(told.value)


# only what comes after


def test_only_the_bars_after_the_cutoff_are_left_and_it_is_said() -> None:
    bars = walk(60)  # from 2020-01-01
    market = after_cutoff(bars, cutoff="2020-01-20")
    assert (str(market.index[0].date()), len(market.index)) == ("2020-01-21", 40)
    assert market.notes[-1] == "only bars after 2020-01-20: 20 left out"
    assert next(iter(market.bars.values())).format.after == "2020-01-20"
    # Hours of the last day are of that day.
    hours = bars.set_axis(pd.date_range("2020-01-20 08:00", periods=60, freq="h"))
    assert str(after_cutoff(hours, cutoff="2020-01-20").index[0]) == "2020-01-21 00:00:00"
    # The fallback of a model is asked too.
    late = bars.set_axis(pd.date_range("2024-08-20", periods=60))
    asked = AdvisorConfig(model="llama-3.2-1b.gguf", fallbacks=("gemma-3-1b-it.gguf",))
    market = after_cutoff(late, Gate(advisor=asked), "scripted:trend")
    assert str(market.index[0].date()) == "2024-09-01"
    assert market.notes[-1].startswith(
        "only bars after 2024-08-31: Llama 3.2: training data to 2023-12-31 (checked"
    )
    with pytest.raises(DataError, match="data: no bar after 2023-12-31: they go from 2020-01-01"):
        after_cutoff(bars, "llama-3.2-1b")
    with pytest.raises(ConfigError, match="cutoff='then': expected a date"):
        after_cutoff(bars, cutoff="then")


def test_a_run_sees_no_other_bar() -> None:
    bars = walk(90)
    market = after_cutoff(bars, cutoff="2020-01-20")
    run = run_backtest(Alternate, market, gate=gate_of("scripted:trend"))
    # The warm-up of 16 bars is of bars after the cut-off too.
    assert str(run.equity.index[0].date()) == "2020-02-05"
    alone = run_backtest(Alternate, bars["2020-01-21":], gate=gate_of("scripted:trend"))
    assert run.equity.equals(alone.equity)


# before and after


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
    trending, turned = regimes(300, drift=0.003), regimes(300, seed=9, drift=0.003)
    joined = pd.concat([trending, turned * trending["close"].iloc[-1] / turned["open"].iloc[0]])
    joined.index = pd.date_range("2020-01-01", periods=600, freq="D")
    gate, day = gate_of("scripted:trend"), datetime.date(2020, 10, 26)
    good = before_after_cutoff(Alternate, joined, gate, cutoff=day, **SETTINGS)
    assert good.question.found is False
    assert "no loss shown (p = " in good.sentence
    assert good.sentence.endswith("would be found four times in five.")
    # Afterwards the gate does the reverse, as if a model had run out of memories.
    after = walk(300, seed=3)
    joined.iloc[300:] = (after * trending["close"].iloc[-1] / after["open"].iloc[0]).to_numpy()
    gone = before_after_cutoff(Alternate, joined, gate, cutoff=day, **SETTINGS)
    assert gone.before["sharpe"].low > 0.0
    assert gone.change["sharpe"].high < 0.0
    assert gone.question.found is True
    assert "it may have remembered (p = " in gone.sentence
    one, two = (found["sharpe"].estimate for found in (gone.after, gone.before))
    assert gone.change["sharpe"].estimate == pytest.approx(one - two)


def test_few_trades_tell_nothing() -> None:
    found = before_after_cutoff(
        Alternate, walk(120), gate_of("scripted:trend"), cutoff="2020-03-30", **SETTINGS
    )
    assert found.trades_after < 10
    assert found.question.found is None
    # Nor are there figures, which eight trades would carry.
    assert found.sentence == (
        "Of 2020-03-30, whether it remembered, cannot be told: after it, the gate changed "
        f"{found.trades_after} trades, fewer than 10."
    )


def edge(seed: int, later: float) -> PairDifference:
    """Return the change of a gate that adds the same before, and `later` of it after."""
    rng = np.random.default_rng(seed)
    market = 0.01 * rng.standard_normal(1500)
    open_ = np.cumsum(rng.random(1500) < 0.05) % 2
    gated = open_ * (market + 0.002 * np.where(np.arange(1500) < 1000, 1.0, later))
    halves = [(gated[part], market[part]) for part in (slice(1000), slice(1000, None))]
    return change_of_effect(*halves, n=99, block_length=5)


def test_one_constant_edge_is_not_called_memory_and_a_lost_one_is() -> None:
    constant = [edge(seed, 1.0) for seed in range(150)]
    lost = [edge(seed, -1.0) for seed in range(60)]
    # One-sided 2.5 % of 150 is 3.75; 11 or more happen once in 500 such tests.
    assert sum(change.high < 0.0 for change in constant) < 11
    assert sum(change.p_value <= 0.05 for change in constant) < 18
    assert sum(change.high < 0.0 for change in lost) >= 50
    # What could have been found is about what is found four times in five: 0.4 deviations a bar here.
    assert 0.1 < constant[0].detectable < 0.4


def test_what_is_not_known_has_to_be_given() -> None:
    bars = walk(120)
    with pytest.raises(ConfigError, match="a scripted one has no cut-off, give the day itself"):
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
