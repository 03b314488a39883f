"""Could the model have known? Each probe catches what remembers, clears what is honest, and may not tell."""

from __future__ import annotations

import datetime
import json
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import Market
from bt_llm.cli._app import app
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import Gate
from bt_llm.models import RememberingScript, kind_of, what_followed
from bt_llm.models._scripted import SCRIPTS
from bt_llm.report import write_csv, write_report
from bt_llm.research import PROBES, LeakageResult, leakage_probes, synthetic_histories, synthetic_market
from bt_llm.research.leakage import _synthetic
from bt_llm.research.leakage._points import points_of, states_of
from bt_llm.verdicts import Feature, StateSpace
from tests.engines import QuickAdvice, walk
from tests.leakage_rates.__main__ import BEGIN, END, PAGE, written
from tests.leakage_rates.rates import MARKETS, caught_by
from tests.research_cases import Alternate, gate_of

BARS = walk(700, seed=5)
CUTOFF = BARS.index[450].date()
QUICK: dict[str, Any] = {"points": 200, "horizon": 2, "controls": False, "cutoff": CUTOFF, "name": "Gold"}


def probed(model: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, **more: Any) -> LeakageResult:
    monkeypatch.setitem(SCRIPTS, "probed", model)
    return leakage_probes(BARS, gate_of("scripted:probed"), **{**QUICK, **more})


class TestOnTheDataThatShip:
    """A small version of `make leakage-rates`."""

    @pytest.mark.parametrize("market", list(MARKETS))
    def test_a_table_of_dates_is_caught_by_every_probe(self, market: str) -> None:
        for seed in (1000, 1001):
            assert caught_by(market, "remembers", seed, points=250, exchanges=499) == [*PROBES, "any"]

    @pytest.mark.parametrize("control", ["trend", "random", "leans", "drifts"])
    def test_what_is_honest_is_cleared(self, control: str) -> None:
        for market in MARKETS:
            assert caught_by(market, control, 1002, points=200, exchanges=499) == []

    def test_the_page_holds_its_bounds(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        rows = [
            line for line in text.split(BEGIN)[1].split(END)[0].splitlines() if "%" in line and "|" in line
        ]
        assert len(rows) == 12
        for row in rows:
            _, model, *cells, any_probe = (cell.strip() for cell in row.strip("|").split("|"))
            rates = [int(cell.removesuffix(" %")) for cell in cells]
            if model == "remembers (has to be caught)":
                assert min(rates) >= 90
            elif model.endswith("(honest)"):
                assert max(*rates, int(any_probe.removesuffix(" %"))) <= 5
        assert "new" in written(text, "new")
        with pytest.raises(SystemExit):
            written("no marks", "new")


class TestProbes:
    def test_one_that_remembers_all_dates_is_caught_by_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = probed(RememberingScript(what_followed(BARS, 2), until=CUTOFF), monkeypatch)
        assert found.caught == tuple(PROBES.values())
        assert found.sentence.startswith("Leakage: 5 of 5 probes caught scripted:probed on Gold;")
        assert all(probe.adjusted == pytest.approx(0.005) for probe in found.probes)
        assert "the verdicts follow the future that really came" in found.probes[0].sentence

    def test_one_that_follows_states_has_nothing_to_remember_by(self) -> None:
        found = leakage_probes(BARS, gate_of("scripted:trend"), **QUICK)
        assert (found.found, found.caught, found.changed) == (False, (), 0.0)
        assert [probe.p_value for probe in found.probes] == [1.0] * 5
        assert all("nothing that it could remember by" in probe.sentence for probe in found.probes)

    def test_one_that_remembers_after_the_cutoff_too_is_not_caught_by_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = probed(RememberingScript(what_followed(BARS, 2)), monkeypatch)
        outcomes = {probe.name: probe.outcome for probe in found.probes}
        assert outcomes == {**dict.fromkeys(PROBES, "caught"), "cutoff": "cleared"}

    def test_skill_that_the_state_explains_is_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        states = states_of(Market.of(BARS), gate_of("scripted:trend"))
        close = BARS["close"].to_numpy()
        came = np.concatenate([close[2:] - close[:-2], [0.0, 0.0]])
        space = StateSpace()
        cells, best = states.cells, {}
        for cell in np.unique(cells[cells >= 0]).tolist():  # the side that pays best in each state: hindsight
            best[space.describe(cell)["rsi"], space.describe(cell)["trend"]] = came[cells == cell].mean()

        def knows_states(prompt: str) -> tuple[float, float, float]:
            lines = dict(line.split(": ", 1) for line in prompt.splitlines() if ": " in line)
            pays = best.get((lines.get("RSI", ""), lines.get("Trend", "")), 0.0)
            return (0.6, 0.2, 0.1) if pays > 0 else (0.1, 0.2, 0.6)

        assert probed(knows_states, monkeypatch).caught == ()

    def test_no_cutoff_and_bars_on_one_side_of_it_cannot_tell(self) -> None:
        unknown = leakage_probes(BARS, gate_of("scripted:trend"), **{**QUICK, "cutoff": None})
        assert unknown.probes[2].outcome == "cannot tell"
        assert "no cut-off is known of scripted:trend" in unknown.probes[2].sentence
        assert unknown.probes[2].noted == ""
        early = leakage_probes(BARS, gate_of("scripted:random"), **{**QUICK, "cutoff": "1999-12-31"})
        assert "0 of those asked about up to the cut-off 1999-12-31" in early.probes[2].reason
        assert early.sentence.endswith("cannot tell: before and after the cut-off.")
        told = [probe.p_value for probe in early.probes if probe.found is not None]
        assert len(told) == 4
        assert early.probes[0].adjusted <= min(1.0, 4 * early.probes[0].p_value)

    def test_exchanges_too_few_for_the_level_cannot_tell(self) -> None:
        found = leakage_probes(BARS, gate_of("scripted:random"), exchanges=99, **QUICK)
        assert found.found is None
        assert "no outcome could have given p below 0.002: the smallest is 0.01" in found.probes[0].sentence
        assert found.sentence.startswith("Cannot tell whether scripted:random remembers Gold")

    def test_answers_that_cannot_be_read_leave_nothing_to_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = probed(lambda prompt: (0.01, 0.01, 0.01), monkeypatch)  # three hundredths on the labels
        assert found.found is None
        assert "only 0 of 200 bars have answers that could be read" in found.probes[0].reason
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["probes"][0]["p_value"] is None

    def test_the_same_seed_gives_the_same_result_and_another_other_bars(self) -> None:
        one, same, other = (
            leakage_probes(BARS, gate_of("scripted:random"), seed=seed, **{**QUICK, "points": 100})
            for seed in (1, 1, 2)
        )
        said = [{**found.to_dict(), "usage": None} for found in (one, same)]
        assert said[0] == said[1]
        assert one.answers.index[0] != other.answers.index[0]

    def test_a_clearance_that_means_little_says_so(self) -> None:
        # So few bars look alike that not even what remembers is caught by all.
        few = {**QUICK, "points": 60, "controls": True, "alpha": 0.05}
        found = leakage_probes(BARS, gate_of("scripted:random"), **few)
        (remembers,) = (one for one in found.controls if one.remembers)
        assert bool(remembers.wrong) == ("is not caught either by" in found.sentence)
        assert [one.name for one in found.controls] == ["remembers", "trend", "random"]


class Ahead(bt.Indicator):
    """The next bar's close over this one's: the future."""

    lines = ("ahead",)

    def once(self, start: int, end: int) -> None:
        values = np.array(self.data.array)
        ahead = np.append(values[1:] / values[:-1] - 1.0, 0.0)
        self.lines.ahead.array[start:end] = array("d", ahead[start:end].tobytes())


class AheadAdvice(QuickAdvice):
    lines = ("ahead",)


def ahead(data: Any) -> Any:
    return Ahead(data.close)


def test_a_feature_that_looks_ahead_is_caught_for_sure() -> None:
    feature = Feature(name="ahead", edges=(0.0,), labels=("down", "up"), indicator=ahead)
    config = AdvisorConfig(
        model="scripted:trend", cache_mode="off", state_space=StateSpace().with_feature(feature)
    )
    found = leakage_probes(BARS, Gate(advisor=config, indicator=AheadAdvice), **QUICK)
    assert found.probes[0].found is True
    assert "became" in found.probes[0].sentence
    assert "so what the model is told looks ahead" in found.probes[0].sentence
    assert found.sentence.startswith("Leakage: 1 of 5 probes")


class TestPoints:
    def test_outcomes_do_not_overlap_and_are_known_later_only(self) -> None:
        market = Market.of(BARS)
        states = states_of(market, gate_of("scripted:trend"))
        points = points_of(market, states, name="Gold", points=100, horizon=4, seed=3)
        assert np.diff(points.rows).min() >= 4
        row, close = int(points.rows[10]), BARS["close"].to_numpy()
        assert points.outcome[10] == pytest.approx((close[row + 4] - close[row]) / (states.atr[row] * 2.0))
        assert points.lines[10].startswith("Gold, ")

    def test_a_wrong_time_is_another_points_on_the_same_side(self) -> None:
        market = Market.of(BARS)
        states = states_of(market, gate_of("scripted:trend"))
        points = points_of(market, states, name="Gold", points=100, horizon=4, seed=3, cutoff=CUTOFF)
        lines, others = points.lines, points.other_lines(0)
        assert all(one != other for one, other in zip(lines, others, strict=True))
        assert sorted(lines) == sorted(others)
        side = dict(zip(lines, points.before.tolist(), strict=True))
        assert [side[line] for line in others] == points.before.tolist()

    def test_too_few_bars_are_refused(self) -> None:
        with pytest.raises(DataError, match="make 9 that can be asked about, 5 bars apart"):
            leakage_probes(BARS[:66], gate_of("scripted:trend"), **{**QUICK, "horizon": 5, "cutoff": None})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "two\nlines"}, "name='two"),
        ({"points": 0}, "points=0: expected a whole number, 1 or more"),
        ({"alpha": 0.0}, "alpha=0.0: expected a number above 0"),
        ({"alpha": 2.0}, "alpha=2.0: expected a number above 0 and up to 0.5"),
        ({"seed": -1}, "seed=-1: expected a whole number"),
        ({"cutoff": "soon"}, "cutoff='soon': expected a date"),
        ({"synthetic": 3}, "synthetic=3 without a strategy"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        leakage_probes(BARS, gate_of("scripted:trend"), **{**QUICK, **more})


class TestMemoryKind:
    FILE = str(shipped("sp500_daily.csv"))

    def test_it_answers_by_what_came_after_the_date_it_is_told(self) -> None:
        from bt_llm.models import ModelConfig

        script = kind_of(f"memory:{self.FILE}?until=2010-12-31&horizon=1").open(ModelConfig()).script
        bars = load_bars(self.FILE)
        assert bars.loc["2008-09-15", "close"] > bars.loc["2008-09-12", "close"] * 0.9
        rises = bars["close"].shift(-1) > bars["close"]
        for day in ("2008-09-12", "2009-03-09"):
            bullish, _, bearish = script(f"S&P 500, {day}\nTrend: flat\nVerdict:")
            assert (bullish > bearish) == rises[day]
        assert script("S&P 500, 2011-01-03\nTrend: flat\n") == script("Trend: flat\n")

    def test_other_options_are_another_model(self) -> None:
        from bt_llm.models import ModelConfig

        hashes = {
            kind_of(f"memory:{self.FILE}{options}").open(ModelConfig()).identity.sha256
            for options in ("", "?share=0.5", "?share=0.5&seed=1")
        }
        assert len(hashes) == 3

    @pytest.mark.parametrize("options", ["share=2", "until=soon", "horizon=0", "sure=1"])
    def test_a_wrong_option_is_refused(self, options: str) -> None:
        with pytest.raises(ConfigError, match="expected"):
            kind_of(f"memory:{self.FILE}?{options}")


class TestSynthetic:
    def test_the_real_effect_has_a_rank_among_histories_of_both_kinds(self) -> None:
        found = synthetic_histories(Alternate, BARS[:250], gate_of("scripted:trend"), n=3)
        for runs in found.runs.values():
            values = runs.values("sharpe")
            at_least = np.sum(values >= runs.observed["sharpe"] - 1e-9 * abs(runs.observed["sharpe"]))
            assert runs.p_value("sharpe") == pytest.approx((1 + at_least) / 4)
        assert found.found is None
        assert "the smallest adjusted p is 0.5, above 0.05" in found.sentence
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["smallest_p_value"] == 0.25

    @pytest.mark.parametrize("alpha", [-1, 0, 0.6, float("nan"), "x"])
    def test_a_level_is_checked_before_any_run(self, alpha: Any) -> None:
        with pytest.raises(ConfigError, match=f"^alpha={alpha!r}: expected a number above 0 and up to 0.5"):
            synthetic_histories("never.py:Loaded", BARS[:120], gate_of("scripted:trend"), alpha=alpha)

    def test_another_seed_gives_other_histories(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[tuple[str, int]] = []

        def drawing(market: Market, kind: str, seed: int) -> Market:
            drawn.append((kind, seed))
            return market

        monkeypatch.setattr(_synthetic, "synthetic_market", drawing)
        for seed in (0, 0, 1):
            synthetic_histories(Alternate, BARS[:120], gate_of("scripted:trend"), n=3, seed=seed)
        first, again, other = drawn[:6], drawn[6:12], drawn[12:]
        assert first == again
        # Neither of a neighbouring seed, nor for the two kinds, is one used twice.
        assert len({seed for _, seed in (*first, *other)}) == 12

    def test_several_datas_are_ordered_alike(self) -> None:
        market = Market.of({"a": BARS[:100], "b": BARS[:100] * 2.0})
        twin = synthetic_market(market, "stationary bootstrap", 1)
        assert twin["b"]["close"].to_numpy() == pytest.approx(2.0 * twin["a"]["close"].to_numpy())
        with pytest.raises(ConfigError, match="have bars at other times"):
            synthetic_market(Market.of({"a": BARS[:100], "b": BARS[1:100]}), "phase-randomised twin", 1)
        with pytest.raises(ConfigError, match="kind='twin': expected one of"):
            synthetic_market(market, "twin", 1)


@pytest.fixture(scope="module")
def caught() -> LeakageResult:
    file = shipped("sp500_daily.csv")
    config = AdvisorConfig(model=f"memory:{file}?until=2012-12-31", cache_mode="off")
    return leakage_probes(file, config, name="S&P 500", cutoff="2012-12-31", points=120, exchanges=499)


class TestShown:
    def test_on_a_page_with_the_checklists_at_its_end(self, caught: LeakageResult, tmp_path: Path) -> None:
        write_report(tmp_path / "leak.html", caught, data=shipped("sp500_daily.csv"))
        page = (tmp_path / "leak.html").read_text(encoding="utf-8")
        assert "memory:sp500_daily on S&amp;P 500: leakage" in page
        for words in (
            "Date-only recall: the time alone",
            "remembers: remembers",
            "Kong et al.",
            "Yao and Zheng",
        ):
            assert words in page
        assert '<b class="failed">failed</b>' in page

    def test_as_a_table_of_answers(self, caught: LeakageResult, tmp_path: Path) -> None:
        (path,) = write_csv(tmp_path, caught)
        frame = pd.read_csv(path)
        assert len(frame) == caught.bars
        weight = frame["named"] - frame.groupby("cell")["named"].transform("mean")
        came = frame["outcome"] - frame.groupby("cell")["outcome"].transform("mean")
        assert np.sum(weight * came) / math.sqrt(np.sum(weight**2) * np.sum(came**2)) == pytest.approx(
            caught.probes[0].correlation
        )

    def test_by_the_verb(self, tmp_path: Path) -> None:
        file = str(shipped("eurusd_hourly.csv"))
        told = ["leakage", "-d", file, "--cutoff", "2017-10-31", "--points", "120", "--exchanges", "499"]
        asked = [*told, "-m", f"memory:{file}?until=2017-10-31", "--cache-mode", "off", "--format", "json"]
        found = json.loads(CliRunner().invoke(app, asked).stdout)
        assert (found["market"], found["found"], len(found["caught"])) == ("eurusd_hourly", True, 5)
        assert [one["name"] for one in found["controls"]] == ["remembers", "trend", "random"]

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["--synthetic", "3"], "--synthetic without --strategy"),
            (["--identify", "Gold"], "the probes name market and time themselves"),
        ],
    )
    def test_a_wrong_option_of_the_verb_is_refused(self, more: list[str], said: str) -> None:
        asked = ["leakage", "-d", str(shipped("eurusd_hourly.csv")), "-m", "scripted:trend", *more]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code != 0
        assert said in " ".join((done.output + str(done.exception)).replace("│", " ").split())


def test_a_script_forgets_what_came_after_a_day_and_part_of_what_came_before() -> None:
    followed = {f"2020-01-{day:02d} 00:00": 1.0 for day in range(1, 31)}
    whole = RememberingScript(followed, until=datetime.date(2020, 1, 20))
    half = RememberingScript(followed, share=0.5, seed=1)
    assert len(whole._known) == 20
    assert 5 < len(half._known) < 25
