from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cli import _research as research
from bt_llm.cli._budget import approve
from bt_llm.cli._options import Spending
from bt_llm.cli._plan import plan
from bt_llm.cli._walkforward import walkforward
from bt_llm.exceptions import ConfigError, ModelError, ReplayMiss
from bt_llm.models import RemoteBackend
from bt_llm.research import ModelPlan, Plan
from bt_llm.research._planning import Rates
from bt_llm.research._planning import plan as make_plan
from tests.faulty_server import FaultyServer

BIG = "openai:http://127.0.0.1:1/v1?model=llama-8b"

app = typer.Typer()
app.command()(plan)


def run(*words: str) -> Any:
    """Return what the command prints as JSON."""
    result = CliRunner().invoke(app, [*words, "--format", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_more_symbols_and_bars_ask_nothing_more() -> None:
    config = AdvisorConfig(model="scripted:trend")
    small = make_plan([config], bars=200)
    large = make_plan([config], symbols=50, bars=175_000)
    assert small.total("prompts") == large.total("prompts") == 105
    assert large.backtest_seconds == 50 * 175_000 / 10_000


def test_without_the_grid_there_are_at_most_as_many_prompts_as_bars() -> None:
    config = AdvisorConfig(model="scripted:trend", calibration="none")
    assert make_plan([config], symbols=2, bars=10).total("prompts") == 20


def test_what_is_cached_is_not_left() -> None:
    config = AdvisorConfig(model="scripted:trend", calibration="none")
    Advisor(config).raw_cells(range(40))
    for mode, cached in (("record", 40), ("replay", 40), ("refresh", 0), ("off", 0)):
        made = make_plan([AdvisorConfig(model="scripted:trend", cache_mode=mode)], bars=5_000)
        assert (made.models[0].cached, made.models[0].left) == (cached, 105 - cached)


def test_the_arithmetic_of_a_server() -> None:
    rates = Rates(price_per_mtok=2.0, request_ms=100, requests_per_prompt=3)
    [model] = make_plan([AdvisorConfig(model=f"{BIG}&connections=4")], bars=5_000, rates=rates).models
    assert model.ms_per_prompt == 3 * 100 / 4
    assert model.seconds(105) == 105 * 75 / 1000
    assert model.money(105) == pytest.approx(2.0 * 105 * model.tokens_per_prompt / 1e6)
    assert 3 * 100 < model.tokens_per_prompt < 3 * 300
    assert "not known here yet" in model.source


def test_the_arithmetic_of_a_file_that_is_not_here() -> None:
    rates = Rates(token_ms_per_billion=5.0)
    [model] = make_plan([AdvisorConfig(model="models/llama-3.2-3b.gguf")], bars=5_000, rates=rates).models
    assert model.ms_per_prompt == pytest.approx(15.0 * model.tokens_per_prompt)
    assert model.money(105) == 0.0
    [unknown] = make_plan([AdvisorConfig(model="mystery.gguf")], bars=5_000).models
    assert unknown.seconds(105) is None


def test_stored_answers_replace_the_constants() -> None:
    with FaultyServer() as server:
        backend = RemoteBackend.named(f"openai:{server.url}?connections=2")
        config = AdvisorConfig(model=f"{backend.config.name}?connections=2", calibration="none")
        Advisor(config, backend=backend).raw_cells(range(5))
        server_tokens = [len(payload["prompt"].split()) + 1 for payload in server.payloads[-5:]]
        asked = len(server.paths)
        made = make_plan([config], bars=5_000, rates=Rates(price_per_mtok=1.0))
        assert len(server.paths) == asked  # planning asks nobody
    [model] = made.models
    assert model.source == "mean of 5 stored answers"
    assert model.cached == 5
    assert model.tokens_per_prompt == sum(server_tokens) / 5


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"bars": 0}, "bars=0: expected a whole number of at least 1"),
        ({"bars": 1, "symbols": -1}, "symbols=-1"),
        ({"bars": 1, "backtest_bars": 0}, "backtest_bars=0"),
    ],
)
def test_wrong_sizes_are_refused(wrong: dict[str, int], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_plan([], **wrong)


def test_wrong_rates_are_refused() -> None:
    with pytest.raises(ConfigError, match="request_ms=0: expected a number above 0"):
        Rates(request_ms=0)
    assert Rates(price_per_mtok=0).price_per_mtok == 0


def costing(money: float | None) -> Plan:
    model = ModelPlan(
        model="m",
        prompts=10,
        cached=0,
        tokens_per_prompt=1.0,
        ms_per_prompt=1.0,
        money_per_prompt=None if money is None else money / 10,
        source="",
    )
    return Plan(models=(model,), symbols=1, bars=1, backtest_bars=1, backtest_seconds=0.0)


def test_nothing_over_the_budget_is_spent_unasked() -> None:
    approve(costing(5.0), Spending(budget=5.0))
    approve(costing(5.0), Spending(budget=None))
    approve(costing(5.0), Spending(budget=4.99, yes=True))
    with pytest.raises(ConfigError, match=r"5\.00 is over the budget of 4\.99; nothing was asked"):
        approve(costing(5.0), Spending(budget=4.99))
    with pytest.raises(ConfigError, match="price of a server is not known"):
        approve(costing(None), Spending(budget=1000.0))


@pytest.mark.parametrize("answer", [True, False])
def test_a_person_is_asked(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda text, **_: asked.append(text) or answer)
    if answer:
        approve(costing(5.0), Spending(budget=1.0))
    else:
        with pytest.raises(ConfigError, match="nothing was asked"):
            approve(costing(5.0), Spending(budget=1.0))
    assert asked == ["5.00 is over the budget of 1.00. Ask all the same?"]


# The command


def test_a_study_is_planned_cold_and_warm(tmp_path: Path, repository: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
format = 1
strategy = "{repository}/strategies/sma_cross.py:GatedSmaCross"
data = "{repository}/data/eurusd_hourly.csv"
[gate.advisor]
model = "scripted:trend"
[walk_forward]
train_size = 1000
test_size = 500
[grid]
fast = [5, 10]
gate.advisor.model = ["scripted:trend", "scripted:random"]
""",
        encoding="utf-8",
    )
    cold = run(str(study))
    assert [model["model"] for model in cold["models"]] == ["scripted:trend", "scripted:random"]
    assert (cold["bars"], cold["total"]["prompts_cold"], cold["total"]["prompts_left"]) == (5000, 210, 210)
    # Folds of 1,000 and 500 bars in 5,000; tests are traded by the choice, each model's own, and ungated.
    assert cold["backtest_bars"] == 8 * (4 * 1000 + 4 * 500)
    CliRunner().invoke(app, [str(study), "--ask", "--format", "json"], catch_exceptions=False)
    warm = run(str(study))
    assert (warm["total"]["prompts_cold"], warm["total"]["prompts_left"]) == (210, 0)


def test_options_do_without_a_study() -> None:
    made = run(
        "--symbols", "50", "--bars", "175000", "-m", BIG, "-m", "scripted:trend", "--price-per-mtok", "0.5"
    )
    assert made["total"]["prompts_left"] == 210
    assert made["models"][0]["money_left"] > 0
    assert made["models"][1]["money_left"] == 0


def test_a_table_for_people() -> None:
    result = CliRunner().invoke(app, ["--bars", "100", "-m", BIG], catch_exceptions=False)
    assert "210" not in result.output
    assert "money ?" in result.output
    assert "105 distinct prompts at most" in result.output


def test_something_must_say_how_many_bars() -> None:
    with pytest.raises(ConfigError, match="no study file and no --bars"):
        run("-m", "scripted:trend")


def test_over_the_budget_nothing_is_asked() -> None:
    with pytest.raises(ConfigError, match="over the budget"):
        run("--bars", "100", "-m", BIG, "--price-per-mtok", "1000", "--budget", "0.01", "--ask")


# The other commands


@pytest.fixture
def priced(tmp_path: Path, repository: Path) -> Path:
    """A study whose model is a server that nobody runs, with a budget that it exceeds."""
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
format = 1
strategy = "{repository}/strategies/sma_cross.py:GatedSmaCross"
data = "{repository}/data/eurusd_hourly.csv"
[gate.advisor]
model = "{BIG}"
[walk_forward]
train_size = 1000
test_size = 500
[grid]
fast = [5, 10]
[compare]
models = ["scripted:trend", "{BIG}"]
[budget]
money = 0.01
price_per_mtok = 1000.0
""",
        encoding="utf-8",
    )
    return study


def others() -> typer.Typer:
    all_of_them = typer.Typer(pretty_exceptions_enable=False)
    all_of_them.command()(walkforward)
    all_of_them.command()(research.compare)
    all_of_them.command("test")(research.run_test)
    return all_of_them


@pytest.mark.parametrize("command", ["walkforward", "compare"])
def test_a_study_keeps_its_budget(command: str, priced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = CliRunner().invoke(others(), [command, str(priced), "--trust"])
    assert isinstance(over.exception, ConfigError)
    assert "is over the budget of 0.01; nothing was asked" in str(over.exception)
    # With enough of it, or leave, the server is asked, which is not there.
    monkeypatch.setattr("bt_llm.models.openai._server._FEW_RETRIES", 0)
    for more in (["--budget", "1000000"], ["--yes"], ["--price-per-mtok", "0"]):
        asked = CliRunner().invoke(others(), [command, str(priced), "--trust", *more])
        assert isinstance(asked.exception, ModelError), asked.output
        assert "cannot connect" in str(asked.exception)


def test_a_budget_in_replay_is_never_spent(priced: Path) -> None:
    replayed = CliRunner().invoke(others(), ["compare", str(priced), "--cache-mode", "replay"])
    assert isinstance(replayed.exception, ReplayMiss)


@pytest.mark.parametrize("command", ["test", "compare"])
def test_without_a_study_the_options_say_it(command: str, repository: Path) -> None:
    words = ["-s", f"{repository}/strategies/sma_cross.py:GatedSmaCross", "-m", BIG]
    words += ["-d", f"{repository}/data/eurusd_hourly.csv", "--budget", "0.5"]
    words += ["-m", "scripted:trend"] if command == "compare" else []
    unknown = CliRunner().invoke(others(), [command, *words])
    assert "the price of a server is not known" in str(unknown.exception)
    over = CliRunner().invoke(others(), [command, *words, "--price-per-mtok", "1000"])
    assert "is over the budget of 0.50; nothing was asked" in str(over.exception)
    for wrong in ("nan", "-1"):
        refused = CliRunner().invoke(others(), [command, *words, "--budget", wrong, "--price-per-mtok", "1"])
        assert refused.exit_code == 2 or "is over the budget of nan" in str(refused.exception)


def test_a_budget_below_zero_is_no_budget(priced: Path) -> None:
    priced.write_text(priced.read_text(encoding="utf-8").replace("money = 0.01", "money = -1"), "utf-8")
    with pytest.raises(ConfigError, match=r"budget\.money = -1: input should be greater than or equal to 0"):
        run(str(priced))


def test_a_plan_says_that_it_is_over_the_budget(priced: Path) -> None:
    result = CliRunner().invoke(app, [str(priced)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "is over the budget of 0.01" in result.stderr


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_the_page_has_the_figures_of_the_plan(repository: Path) -> None:
    text = (repository / "docs" / "cost.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^bt-llm plan (--symbols .*)$", text, re.MULTILINE)
    made = run(*shlex.split(command))
    shown = [
        f"| {one['model']} | {one['prompts']} | {one['tokens_cold']:,} | {one['seconds_cold']:.1f} s | "
        f"{one['money_cold']:.2f} |"
        for one in made["models"]
    ]
    assert len(shown) == 4
    assert "\n".join(shown) in text
    assert round(made["backtest_seconds"] / 60) == 15
