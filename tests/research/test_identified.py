"""A model that is told which market it looks at: what changes, and what must not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bt_llm import statistics
from bt_llm.advice import Advisor, AdvisorConfig, forget_answers
from bt_llm.backtest import Bootstrap, run_backtest
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AlwaysOpen, Gate
from bt_llm.models import ModelIdentity
from bt_llm.models._scripted import SCRIPTS, contrarian, trend_follower
from bt_llm.prompts import PromptTemplate
from bt_llm.research import identified_probe
from bt_llm.verdicts import StateSpace
from tests.engines import walk
from tests.research_cases import Alternate, gate_of, regimes

NAME = "EUR/USD, hourly, 2017"
SETTINGS = {"resamples": 99, "block_length": 5}


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two models that a name changes: one for the better, and one for the worse."""

    def remembers(prompt: str) -> tuple[float, float, float]:
        return trend_follower(prompt) if NAME in prompt else contrarian(prompt)

    def confused(prompt: str) -> tuple[float, float, float]:
        return contrarian(prompt) if NAME in prompt else trend_follower(prompt)

    monkeypatch.setitem(SCRIPTS, "remembers", remembers)
    monkeypatch.setitem(SCRIPTS, "confused", confused)
    forget_answers()
    yield
    forget_answers()


class TestPrompts:
    plain = ModelIdentity(name="base", sha256="0" * 64)

    def prompts(self, identify: str) -> list[tuple[str, ...]]:
        template, space = PromptTemplate.load("market"), StateSpace()
        found = template.prompts(space, range(len(space)), self.plain, identify=identify)
        return [prompt.chunks for prompt in found]

    def test_the_line_ends_the_part_that_all_states_share(self) -> None:
        masked, told = self.prompts(""), self.prompts(NAME)
        assert {chunks[0] for chunks in told} == {masked[0][0] + NAME + "\n"}
        assert [chunks[1:] for chunks in told] == [chunks[1:] for chunks in masked]

    def test_an_advisor_asks_with_it_and_stores_both_apart(self) -> None:
        masked = Advisor(AdvisorConfig(model="scripted:remembers"))
        told = Advisor(AdvisorConfig(model="scripted:remembers", identify=NAME))
        assert told.prompts([52])[0].text.count(NAME) == 1
        assert NAME not in masked.prompts([52])[0].text
        cells = range(105)
        pairs = zip(masked.advise_cells(cells), told.advise_cells(cells), strict=True)
        assert any(one.action is not other.action for one, other in pairs)
        assert not set(masked.used()) & set(told.used())
        again = Advisor(dataclasses.replace(told.config, cache_mode="replay"))
        assert again.advise_cells(cells) == told.advise_cells(cells)

    @pytest.mark.parametrize(
        "line", ["a\nb", "a\x00", " a", "a ", " ", "a\u2028b", "a" * 201, 2017, None, "\ud800"]
    )
    def test_it_is_one_line(self, line: object) -> None:
        with pytest.raises(ConfigError, match=r"identify=.*expected one printable line") as caught:
            AdvisorConfig(identify=line)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    def test_a_ledger_keeps_the_two_apart(self) -> None:
        """Otherwise a trial of one would be taken for one of the other."""
        masked, told = (
            Gate(advisor=AdvisorConfig(model="scripted:trend", identify=name)).describe()["advisor"]
            for name in ("", NAME)
        )
        assert masked != told == {**masked, "identify": NAME}


class TestProbe:
    def test_a_model_that_the_name_says_nothing_to(self) -> None:
        found = identified_probe(Alternate, walk(200), gate_of("scripted:trend"), NAME, **SETTINGS)
        assert (found.cells, found.agreed, found.kappa, found.flips) == (105, 1.0, 1.0, ())
        assert found.masked_effect == found.identified_effect
        difference = found.difference["sharpe"]
        assert (difference.estimate, difference.low, difference.high) == (0.0, 0.0, 0.0)
        assert "changes no answer on 105 market states" in found.sentence
        assert found.sentence.endswith("told or not, it says the same.")
        assert repr(found).startswith(f"<IdentifiedProbe: {found.sentence[:60]}")
        assert "told or not" in found._repr_html_()

    def test_agreement_and_flips_are_those_worked_out_by_hand(self) -> None:
        found = identified_probe(Alternate, walk(200), gate_of("scripted:remembers"), NAME, **SETTINGS)
        # 7 RSI by 5 trends by 3 volatilities; of the trends two are up and two down, and only flat agrees.
        assert found.cells == 105
        assert found.agreed == pytest.approx(1 / 5)
        # By chance: 0.4 * 0.4 up and down each, 0.2 * 0.2 flat.
        assert found.kappa == pytest.approx((0.2 - 0.36) / (1 - 0.36))
        assert len(found.flips) == 84
        for flip in found.flips:
            up = "up" in flip.state["trend"]
            assert (flip.masked.action.name, flip.identified.action.name) == (
                ("BEARISH", "BULLISH") if up else ("BULLISH", "BEARISH")
            )
        assert [flip.cell for flip in found.flips] == sorted(flip.cell for flip in found.flips)

    def test_the_effects_are_those_of_the_gates_and_their_difference_is_paired(self) -> None:
        bars = regimes(300)
        gate = gate_of("scripted:remembers")
        found = identified_probe(Alternate, bars, gate, NAME, commission=0.0001, **SETTINGS)
        gates = {
            "masked": gate_of("scripted:contrarian"),
            "identified": gate_of("scripted:trend"),
            "ungated": gate.baseline(),
        }
        runs = {name: run_backtest(Alternate, bars, gate=g, commission=0.0001) for name, g in gates.items()}
        for name, run in runs.items():
            np.testing.assert_array_equal(found.runs[name].equity, run.equity)
        bootstrap = Bootstrap(resamples=99, block_length=5)
        assert found.masked_effect == bootstrap.between(runs["masked"], runs["ungated"])
        assert found.identified_effect == bootstrap.between(runs["identified"], runs["ungated"])
        apart = bootstrap.between(runs["identified"], runs["masked"])
        assert found.difference["sharpe"].low == pytest.approx(apart["sharpe"].low, rel=0.02)
        assert found.difference["sharpe"].p_value == apart["sharpe"].p_value
        for name in ("sharpe", "return"):  # the ungated strategy cancels out
            effects = found.identified_effect[name].estimate - found.masked_effect[name].estimate
            assert found.difference[name].estimate == pytest.approx(effects)
        yearly = [statistics.sharpe_ratio(runs[name].returns.to_numpy()) for name in ("identified", "masked")]
        assert np.sign(found.difference["sharpe"].estimate) == np.sign(yearly[0] - yearly[1])

    def test_better_when_told_is_pointed_out_and_worse_is_not_memory(self) -> None:
        bars = regimes(400)
        rich: dict[str, Any] = {**SETTINGS, "cash": 50_000.0}  # who is told less loses much of it
        better = identified_probe(Alternate, bars, gate_of("scripted:remembers"), NAME, **rich)
        assert better.problems == ()
        assert better.difference["sharpe"].low > 0.0
        assert better.sentence.startswith("Told 'EUR/USD, hourly, 2017', the model changes 84 of 105 answers")
        assert ": it may remember this market (p = " in better.sentence
        worse = identified_probe(Alternate, bars, gate_of("scripted:confused"), NAME, **rich)
        assert worse.difference["sharpe"].estimate == pytest.approx(-better.difference["sharpe"].estimate)
        assert worse.sentence.endswith("the name changes its advice, but not for the better.")

    def test_a_gate_that_is_told_already_is_masked_for_the_probe(self) -> None:
        plain = gate_of("scripted:remembers")
        told = dataclasses.replace(plain, advisor=dataclasses.replace(plain.advisor, identify="Gold, 1999"))
        first, second = (identified_probe(Alternate, walk(150), g, NAME, **SETTINGS) for g in (plain, told))
        assert first.to_dict() == second.to_dict()

    def test_json(self) -> None:
        found = identified_probe(Alternate, walk(150), gate_of("scripted:random"), NAME, **SETTINGS)
        text = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert text["sentence"] == found.sentence
        assert len(text["flips"]) == len(found.flips) > 0
        assert set(text["flips"][0]) == {"cell", "state", "masked", "identified"}
        assert set(text["runs"]) == {"masked", "identified", "ungated"}

    def test_what_cannot_be_told(self) -> None:
        bars, gate = walk(150), gate_of("scripted:trend")
        with pytest.raises(ConfigError, match="identify='': expected a line"):
            identified_probe(Alternate, bars, gate, "")
        with pytest.raises(ConfigError, match="expected one printable line"):
            identified_probe(Alternate, bars, gate, "a\nb")
        with pytest.raises(ConfigError, match=r"gate=AlwaysOpen.*expected a Gate"):
            identified_probe(Alternate, bars, AlwaysOpen(), NAME)  # type: ignore[arg-type]


def test_the_kind_of_gate_makes_no_difference() -> None:
    gate = dataclasses.replace(gate_of("scripted:remembers"), require="not_against", min_confidence=0.3)
    assert isinstance(gate, Gate)
    found = identified_probe(Alternate, walk(150), gate, NAME, **SETTINGS)
    starts = {run.equity.index[0] for run in found.runs.values()}
    assert len(starts) == 1
