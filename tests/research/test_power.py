"""What bars could show of a gate is what a test of gates on them shows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bt_llm.backtest import Market, legs_of, run_backtest
from bt_llm.cli._plan import plan
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AlwaysOpen, Answers, RandomGate
from bt_llm.research import plan_power
from bt_llm.research._null_runs import entry_answers
from bt_llm.statistics import timing_of
from tests.research_cases import Alternate, random_walk

GATE = AlwaysOpen(warm_up=16)


def test_what_would_be_found_is_a_multiple_of_the_spread_of_gates_at_random() -> None:
    bars = random_walk(400, seed=2)
    made = plan_power(Alternate, bars, GATE, pass_rate=0.4)
    market = Market.of(bars)
    ungated = legs_of(run_backtest(Alternate, market, gate=GATE), market)
    asked = entry_answers(Alternate, market, GATE)
    rng = np.random.default_rng(0)
    timings = []
    for _ in range(60):
        told = {
            side: bytes((rng.random(len(getattr(asked, side))) < 0.4).astype(np.uint8))
            for side in ("long", "short")
        }
        gate = RandomGate(answers=Answers(**told, per="entry", warm_up=16))
        gated = legs_of(run_backtest(Alternate, market, gate=gate), market)
        timings.append(timing_of(gated, ungated).estimate * 365.25)
    assert made.detectable == pytest.approx((1.645 + 0.842) * np.std(timings), rel=0.25)
    assert (made.entries, made.problem) == (len(asked.long) + len(asked.short), "")


def test_few_entries_cannot_tell() -> None:
    made = plan_power(Alternate, random_walk(45), GATE, pass_rate=0.5)
    assert made.entries == 10
    assert made.detectable is not None
    made = plan_power(Alternate, random_walk(42), GATE, pass_rate=0.5)
    assert "of 9 entries 4 would be let through and 5 blocked, and at least 5 of both" in made.problem
    assert made.detectable is None
    assert made.sentences[1].startswith("A test could not tell whether")
    few = plan_power(Alternate, random_walk(200), GATE, n=9)
    assert "the smallest p that 9 random gates could give is 0.1" in few.problem


def test_the_years_grow_with_the_square() -> None:
    made = plan_power(Alternate, random_walk(400), GATE)
    assert made.detectable_sharpe == pytest.approx(2.802 * math.sqrt(1.0 / made.years), rel=0.01)
    assert made.years_for(1.0) == pytest.approx(4.0 * made.years_for(2.0))  # type: ignore[operator]
    assert made.years_for(0.0) is None


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"pass_rate=1\.0: expected a number between 0 and 1"):
        plan_power(Alternate, random_walk(100), GATE, pass_rate=1.0)


def test_the_command_says_it_before_anything_is_asked(repository: Path) -> None:
    app = typer.Typer()
    app.command()(plan)
    strategy = f"{repository}/strategies/sma_cross.py:GatedSmaCross"
    words = [
        "--power",
        "-s",
        strategy,
        "-d",
        f"{repository}/data/eurusd_hourly.csv",
        "-m",
        "openai:http://127.0.0.1:9?model=a",
    ]
    done = CliRunner().invoke(app, [*words, "--format", "json", "--pass-rate", "0.3"], catch_exceptions=False)
    made = json.loads(done.stdout)
    assert (made["pass_rate"], made["problem"]) == (0.3, "")
    assert 0.0 < made["detectable"] < 1.0
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "What a test could find" in shown.stdout
    nothing = CliRunner().invoke(app, ["--power"])
    assert "--power needs the ungated strategy: give --strategy and --data" in str(nothing.exception)
    study = CliRunner().invoke(
        app, [f"{repository}/examples/walk_forward.toml", "--power", "--format", "json"]
    )
    assert json.loads(study.stdout)["entries"] > 100
