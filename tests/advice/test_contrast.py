"""The contrast reader: what a prompt gets that only names market and time is taken out of every verdict."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.backtest import run_backtest
from bt_llm.cli._verifying import ask_again
from bt_llm.exceptions import ConfigError
from bt_llm.models import ScriptedBackend
from bt_llm.models._scripted import SCRIPTS, trend_follower
from bt_llm.verdicts import Verdict, contrasted
from tests.engines import walk
from tests.research_cases import Alternate, gate_of

NAME = "Gold, 2020"


def remembers(prompt: str) -> tuple[float, ...]:
    """Take the trend's answer times what it remembers of gold in 2020."""
    _, name, question = prompt.rpartition(NAME)
    trend = trend_follower(question)  # not by an example before it
    if not name:
        return trend
    told = [one * other for one, other in zip(trend, (0.8, 0.15, 0.05), strict=True)]
    return tuple(0.9 * one / math.fsum(told) for one in told)


def config(**more: object) -> AdvisorConfig:
    return AdvisorConfig(model="scripted:trend", identify=NAME, cache_mode="off", calibration="none", **more)  # type: ignore[arg-type]


def test_what_is_remembered_is_taken_out_to_the_last_digit() -> None:
    told = Advisor(config(), backend=ScriptedBackend(remembers, name="remembers"))
    less = Advisor(config(reader="contrast"), backend=ScriptedBackend(remembers, name="remembers"))
    for cell in (50, 52, 54):  # trend down, flat, up: words by hand
        named = told.raw_cells([cell])[0]
        trend = trend_follower(f"Trend: {told.space.describe(cell)['trend']}")
        flat = trend_follower("Trend: flat")
        weights = [one / other for one, other in zip(trend, flat, strict=True)]
        wanted = [weight / sum(weights) for weight in weights]
        assert less.raw_cells([cell])[0].probabilities == pytest.approx(wanted)
        assert named.bullish > wanted[0]


def test_a_state_that_adds_nothing_gives_no_advice() -> None:
    verdict = Verdict(bullish=0.8, neutral=0.15, bearish=0.05, label_mass=0.5)
    found = contrasted(verdict, verdict)
    assert found.probabilities == pytest.approx((1 / 3,) * 3)
    assert (found.answer, found.label_mass) == ("neutral", 0.5)


@given(st.lists(st.floats(0.01, 1.0), min_size=6, max_size=6))
def test_it_is_a_verdict_and_undone_by_what_was_taken_out(weights: list[float]) -> None:
    full, named = (
        Verdict(probabilities=[w / math.fsum(part) for w in part]) for part in (weights[:3], weights[3:])
    )
    less = contrasted(full, named)
    back = [one * other for one, other in zip(less.probabilities, named.probabilities, strict=True)]
    assert [one / math.fsum(back) for one in back] == pytest.approx(list(full.probabilities))


def test_an_answer_that_cannot_be_read_stays_one() -> None:
    good, bad = Verdict(bullish=0.5, neutral=0.2, bearish=0.3), Verdict.invalid("no JSON")
    assert not contrasted(bad, good).valid
    assert "alone have no verdict to contrast with: no JSON" in contrasted(good, bad).reason


def test_it_needs_the_line_and_has_keys_of_its_own() -> None:
    with pytest.raises(ConfigError, match="reader='contrast' without identify: expected the line"):
        AdvisorConfig(reader="contrast")
    plain, less = Advisor(config()), Advisor(config(reader="contrast"))
    assert plain.prompts([0]) == less.prompts([0])
    assert not set(plain.keys([0, 1])) & set(less.keys([0, 1]))
    (question,) = less.questions([0])
    assert "".join(question.sampling["named"]).splitlines()[-2:] == [NAME, "Verdict:"]


def test_contrasted_verdicts_are_traded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCRIPTS, "remembers", remembers)
    traded = {}
    for reader in ("logprobs", "contrast"):
        told = {"reader": reader, "identify": NAME, "calibration": "none"}
        gate = gate_of("scripted:remembers")
        gate = dataclasses.replace(gate, advisor=dataclasses.replace(gate.advisor, **told))
        traded[reader] = run_backtest(Alternate, walk(300, seed=4), gate=gate).trades
    assert set(traded["logprobs"]["direction"]) == {1}  # it remembers that gold rose
    assert set(traded["contrast"]["direction"]) == {1, -1}


def test_stored_ones_can_be_asked_again(tmp_path: Path) -> None:
    stored = AdvisorConfig(model="scripted:trend", identify=NAME, reader="contrast", cache_dir=tmp_path)
    advisor = Advisor(stored)
    advisor.raw_cells([3, 54])
    records = advisor.records()
    drift = ask_again(records, advisor.identity.sha256, ["scripted:trend"], n_threads=None)
    assert (drift.asked, drift.same, drift.not_asked) == (2, 2, 0)
