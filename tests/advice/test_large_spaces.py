"""State spaces of many cells: the prior comes from a fixed sample, the rest is asked only where bars go."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from bt_llm.advice import Advisor, AdvisorConfig, Policy, Usage, forget_answers
from bt_llm.backtest import gate_study, run_backtest
from bt_llm.cache import parse_pack
from bt_llm.data import shipped
from bt_llm.exceptions import ReplayMiss
from bt_llm.gates import Gate
from bt_llm.models import ScriptedBackend
from bt_llm.prompts import PromptTemplate
from bt_llm.report import write_report
from bt_llm.research import WalkForward
from bt_llm.research._planning import plan
from bt_llm.verdicts import PRIOR_CELLS, Feature, StateSpace, Verdict, mean_prior, prior_cells, prior_source
from bt_llm.verdicts._sample import _mirrored
from tests.engines import QuickAdvice, walk

SEVEN = ("far below", "below", "just below", "level", "just above", "above", "far above")
STRATEGY = f"{shipped('sma_cross.py')}:GatedSmaCross"


def rate(data: Any) -> Any:
    return bt.ind.RateOfChange(data, period=5)


def stretch(data: Any) -> Any:
    return data.close / bt.ind.SMA(data, period=9) - 1.0


def seven(name: str, step: float, middle: float = 0.0, **more: Any) -> Feature:
    """Return a feature of seven buckets around a middle."""
    edges = tuple(middle + step * k for k in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5))
    return Feature(name=name, edges=edges, labels=SEVEN, **more)


LARGE = StateSpace(
    features=(
        seven("volatility", 0.1, 1.0),
        seven("rate", 0.02, indicator=rate),
        seven("stretch", 0.01, indicator=stretch),
        seven("rsi", 10, 50),
        seven("trend", 0.05),
    )
)
SAMPLE = prior_cells(LARGE)
FOUR = StateSpace(features=(*LARGE.features[2:], LARGE.features[0]))  # 2,401 cells


class WideAdvice(QuickAdvice):
    lines = ("rate", "stretch")


def gate_on(folder: Path, **settings: Any) -> Gate:
    given: dict[str, Any] = {
        "model": "scripted:random",
        "cache_dir": folder,
        "state_space": LARGE,
        **settings,
    }
    return Gate(advisor=AdvisorConfig(**given), indicator=WideAdvice)


# The sample


def test_digits_are_mirrored_and_scrambled() -> None:
    assert _mirrored(6, 2, [(1, 0)] * 3) == 0b011  # 110 backwards
    # 5 is 12 in base 3; its last digit comes first: (2 * 2 + 1) % 3 = 2, then 1, which is 21
    assert _mirrored(5, 3, [(2, 1), (1, 0)]) == 7


def test_the_sample_is_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(json.dumps(list(SAMPLE)).encode()).hexdigest()
    assert digest == "f040cd6a60cf2d689645044e5b7bf1050d7ce2e916adfa681a421b878652178a"


def test_a_space_of_up_to_512_cells_is_its_own_sample() -> None:
    assert prior_cells(StateSpace()) == range(105)
    eight = [Feature(name=f"f{i}", edges=tuple(range(7)), labels=tuple("abcdefgh")) for i in range(3)]
    assert prior_cells(StateSpace(features=tuple(eight))) == range(512)
    more = dataclasses.replace(eight[0], edges=tuple(range(8)), labels=tuple("abcdefghi"))
    assert len(prior_cells(StateSpace(features=(more, *eight[1:])))) == 512
    assert prior_source(LARGE) == "a sample of 512 of 16,807 market states"


def test_the_sample_depends_on_what_is_told_and_on_nothing_else() -> None:
    trend = LARGE["trend"]
    moved = dataclasses.replace(trend, edges=tuple(edge * 2 for edge in trend.edges))
    renamed = dataclasses.replace(trend, labels=("very far below", *SEVEN[1:]))
    assert prior_cells(LARGE.with_feature(moved)) == SAMPLE
    assert prior_cells(LARGE.with_feature(renamed)) != SAMPLE


def test_the_sample_is_spread_over_every_feature_and_pair() -> None:
    buckets = np.array([LARGE.buckets(cell) for cell in SAMPLE])
    assert len(set(SAMPLE)) == 512
    for feature in range(5):  # 512 / 7 is 73
        counts = np.bincount(buckets[:, feature], minlength=7)
        assert 65 <= counts.min() <= counts.max() <= 82, feature
        for other in range(feature):  # 512 / 49 is 10, and random cells would leave pairs with one or two
            pairs = np.bincount(7 * buckets[:, feature] + buckets[:, other], minlength=49)
            assert pairs.min() >= 5, (feature, other)


def test_the_sample_has_the_prior_of_the_grid() -> None:
    """Of answers that go from 0.05 to 0.85 with the state, two features working together."""

    def answered(cell: int) -> Verdict:
        volatility, speed, far, rsi, trend = (bucket / 3 - 1 for bucket in LARGE.buckets(cell))
        up = 1 / (1 + math.exp(-1.2 * trend - 0.8 * rsi * trend + 0.6 * speed - 0.4 * far))
        flat = 0.15 + 0.2 * (1 - abs(volatility))
        return Verdict(bullish=up * (1 - flat), neutral=flat, bearish=(1 - up) * (1 - flat))

    whole = [answered(cell) for cell in range(len(LARGE))]
    assert np.std([verdict.bullish for verdict in whole]) > 0.15
    assert difference(whole, [whole[cell] for cell in SAMPLE]) < 0.005


def test_half_of_the_demo_s_cells_have_the_prior_of_all(repository: Path) -> None:
    pack = parse_pack((repository / "data/demo_pack.jsonl").read_bytes(), "the demo's pack")
    advisor = Advisor(AdvisorConfig(model="scripted:trend", cache_mode="off"))
    told = {state_in(record.question.prompt): record.verdict for record in pack.records}
    whole = [told[state_in(prompt.chunks)] for prompt in advisor.prompts(range(105))]
    half = prior_cells(advisor.space, most=52)
    assert difference(whole, [whole[cell] for cell in half]) < 0.01


def state_in(chunks: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of the state that a prompt of the market template ends with."""
    return tuple(chunk.splitlines()[0].partition("<|")[0] for chunk in chunks[-3:])


def difference(whole: list[Verdict], sample: list[Verdict]) -> float:
    """Return the largest difference of the priors' probabilities."""
    priors = mean_prior(whole), mean_prior(sample)
    assert priors[0] is not None
    assert priors[1] is not None
    return max(abs(a - b) for a, b in zip(priors[0].probabilities, priors[1].probabilities, strict=True))


# What is asked


def test_a_run_asks_the_sample_and_where_its_bars_go(tmp_path: Path) -> None:
    result = run_backtest(STRATEGY, walk(700), gate=gate_on(tmp_path))
    assert result.advice is not None
    visited, asked = result.advice["distinct"], result.advice["model_calls"]
    assert visited >= 300
    assert asked <= 900
    [one] = result.asked
    assert len(one.verdicts) == asked == len({*SAMPLE, *one.verdicts})


def test_every_way_to_ask_gives_the_same_verdicts(tmp_path: Path) -> None:
    config = gate_on(tmp_path, cache_mode="off").advisor
    cells = [5, 16_000, SAMPLE[7], 9_000]
    whole = Advisor(config, backend=ScriptedBackend.named("scripted:random")).advise_cells(cells)
    alone = Advisor(config, backend=ScriptedBackend.named("scripted:random"))
    assert [alone.advise_cells([cell])[0] for cell in cells] == whole
    raw = dataclasses.replace(config, calibration="none")
    prior = mean_prior(Advisor(raw).raw_cells(SAMPLE))
    assert Advisor(dataclasses.replace(config, calibration=prior)).advise_cells(cells) == whole


@pytest.mark.parametrize(("calibration", "first"), [("grid", 105), ("none", 1)])
def test_a_state_asked_alone_pays_for_itself(
    tmp_path: Path, calibration: Any, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AdvisorConfig(model="scripted:random", cache_dir=tmp_path, calibration=calibration)
    told: list[int] = []
    prompts = PromptTemplate.prompts

    def counted(self: PromptTemplate, space: StateSpace, cells: Any, *more: Any, **named: Any) -> Any:
        told.append(len(cells))
        return prompts(self, space, cells, *more, **named)

    monkeypatch.setattr(PromptTemplate, "prompts", counted)
    backend, usage = ScriptedBackend.named("scripted:random"), Usage()
    advisor = Advisor(config, backend=backend)
    advisor.advise_cells([3], usage)
    assert (backend.calls, usage.model_calls, sum(told)) == (first, first, first)
    for cell in range(3, 30):  # the grid is known: nothing of it is told, read or averaged again
        advisor.advise_cells([cell], usage)
    assert (backend.calls, sum(told)) == ((105, 105) if calibration == "grid" else (27, 27))
    forget_answers()
    again, before = Advisor(config, backend=backend), backend.calls
    again.advise_cells([3])
    assert backend.calls == before


def test_one_more_state_of_a_large_space_is_one_more_prompt(tmp_path: Path) -> None:
    backend = ScriptedBackend.named("scripted:random")
    advisor = Advisor(gate_on(tmp_path).advisor, backend=backend)
    outside = sorted(set(range(600)) - set(SAMPLE))[:3]
    for number, cell in enumerate(outside, 1):
        advisor.advise_cells([cell])
        assert backend.calls == PRIOR_CELLS + number
    advisor.advise_cells([SAMPLE[0]])
    assert backend.calls == PRIOR_CELLS + 3


# What is said


def test_result_page_and_policy_say_that_the_prior_is_of_a_sample(tmp_path: Path) -> None:
    study = gate_study(STRATEGY, walk(160), gate_on(tmp_path / "cache"))
    said = "verdicts are calibrated by the mean over a sample of 512 of 16,807 market states"
    assert said in study.gated.notes
    assert said in study.gated.to_dict()["warnings"]
    assert said not in study.buy_and_hold.notes
    write_report(tmp_path / "page.html", study)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert said in page
    assert "The prior is the mean over a sample of 512 of 16,807 market states." in page
    assert "mean of those of 16,807 market states that were asked about" in page
    assert "Mean over Volatility, Rate, Stretch" in page
    [asked] = study.gated.asked
    policy = asked.policy()
    assert policy.to_dict()["prior_cells"] == 512
    [panel] = policy.panels()
    assert panel.values.shape == (7, 7)
    known = np.isfinite(policy.bias()).reshape(-1, 7, 7)
    assert np.array_equal(np.isfinite(panel.values[::-1]), known.any(axis=0))


def test_a_small_space_says_nothing_new(tmp_path: Path) -> None:
    study = gate_study(STRATEGY, walk(160), Gate(advisor=AdvisorConfig(model="scripted:random")))
    assert not any("sample" in note for note in study.gated.notes)
    [asked] = study.gated.asked
    assert (asked.policy().prior_cells, asked.policy().prior_note) == (105, "")


def test_a_whole_policy_of_a_large_space_is_asked_where_it_is_wanted(tmp_path: Path) -> None:
    advisor = Advisor(AdvisorConfig(model="scripted:random", cache_dir=tmp_path, state_space=FOUR))
    policy = Policy.of(advisor)
    assert (policy.usage.model_calls, policy.prior_cells) == (2401, 512)
    assert np.isfinite(policy.calibrated).all()
    assert policy.prior_note == "The prior is the mean over a sample of 512 of 2,401 market states."


def test_a_plan_counts_the_sample_and_a_state_a_bar(tmp_path: Path) -> None:
    config, sample = gate_on(tmp_path, state_space=FOUR).advisor, prior_cells(FOUR)
    [cold] = plan([config], bars=300).models
    assert (cold.prompts, cold.cached, cold.left) == (812, 0, 812)
    assert plan([config], symbols=50, bars=5_000).total("prompts") == 2_401
    Advisor(config).advise_cells([sample[0], *sorted(set(range(600)) - set(sample))[:88]])
    [warm] = plan([config], bars=300).models
    assert (warm.prompts, warm.left) == (812, 300), "the bars may be in other states than those"
    assert plan([config], bars=2_401).total("prompts") == 2_401 - 600


# What goes along


def test_a_miss_says_what_the_calibration_needs(tmp_path: Path) -> None:
    run_backtest(STRATEGY, walk(120), gate=gate_on(tmp_path, calibration="none"))
    with pytest.raises(ReplayMiss, match=r"the calibration needs a sample of 512 of 16,807 market states: "):
        run_backtest(STRATEGY, walk(120), gate=gate_on(tmp_path, cache_mode="replay"))


def test_a_walk_forward_asks_once_and_replays(tmp_path: Path) -> None:
    grid = {"gate.min_confidence": [0.0, 0.4], "gate.advisor.calibration": ["grid", "train", "none"]}
    seen: list[tuple[int, int]] = []
    result = WalkForward(train_size=80, test_size=40).run(
        STRATEGY, walk(200), gate=gate_on(tmp_path), grid=grid, on_prompts=lambda *told: seen.append(told)
    )
    assert 512 < seen[-1][1] < 512 + 200
    grids = [model.to_dict() for model in result.models if model.advisor.calibration == "grid"]
    assert all((told["prior_cells"], told["cells"]) == (512, 16_807) for told in grids)
    assert any("a sample of 512 of 16,807" in note for note in result.notes) == bool(grids)
    only = WalkForward(train_size=80, test_size=40).run(
        STRATEGY, walk(200), gate=gate_on(tmp_path), grid={"gate.min_confidence": [0.0, 0.4]}, n_jobs=2
    )
    assert "a sample of 512 of 16,807 market states" in only.notes[-1]
    assert only.to_dict()["models"][0]["prior_cells"] == 512
