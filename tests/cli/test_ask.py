from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bt_llm.cli._ask import app
from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.models._scripted import ScriptedModel
from bt_llm.models.llama._kind import FileModel
from tests.analyst_cases import MARKET, NEWS, TRADE, Scripted, saying


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a backend the one that every model's name stands for."""

    def use(backend: Scripted) -> Scripted:
        for kind in (FileModel, ScriptedModel):
            monkeypatch.setattr(kind, "open", lambda model, config: backend)
            monkeypatch.setattr(kind, "identify", lambda model, known, **_: backend.identity)
        return backend

    return use


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_news_shows_what_was_answered(model: Any) -> None:
    backend = model(saying(NEWS))
    found = ask("news", "ECB halves purchases", "--market", "EUR/CHF")
    assert found.exit_code == 0
    for word in ("Bullish", "80", "High", "Tighter policy."):
        assert word in found.stdout
    assert "Market: EUR/CHF\n<headline>ECB halves purchases</headline>" in backend.asked[0]


def test_market_reads_names_and_features(model: Any) -> None:
    backend = model(saying(MARKET))
    found = ask("market", "eurusd.trend=up", "eurusd.rsi=65", "vix=14.25", "--format", "json")
    assert found.exit_code == 0
    answer = json.loads(found.stdout)
    assert (answer["regime"], answer["risk_level"], answer["valid"]) == ("Trending", "Low", True)
    assert answer["recommendations"] == MARKET["recommendations"]
    assert "EUR/USD: trend up, RSI 65\nVIX: 14.2\n" in backend.asked[0]


def test_trade_takes_indicators_and_a_strength(model: Any) -> None:
    backend = model(saying(TRADE))
    found = ask("trade", "EUR/USD", "long", "rsi=61", "trend=strong up", "--strength", "0.8")
    assert found.exit_code == 0
    assert "take" in found.stdout
    assert "rsi: 61\ntrend: strong up\nSignal strength: 0.8\nDirection: long" in backend.asked[0]
    assert ask("trade", "EUR/USD", "long").exit_code == 0


def test_the_second_time_comes_from_the_cache(model: Any, tmp_path: Path) -> None:
    backend = model(saying(NEWS))
    answers = [
        json.loads(ask("news", "ECB", "--cache", str(tmp_path), "--format", "json").stdout) for _ in range(2)
    ]
    assert [answer["cached"] for answer in answers] == [False, True]
    assert len(backend.asked) == 1


def test_an_answer_that_cannot_be_read_is_shown_and_fails(model: Any) -> None:
    model(Scripted("maybe"))
    found = ask("news", "ECB", "--format", "json")
    assert (found.exit_code, json.loads(found.stdout)["sentiment"]) == (1, "Invalid")
    assert "error: no readable answer: not JSON" in found.stderr
    assert ask("news", "ECB").stdout == ""


def test_the_models_words_are_no_markup(model: Any) -> None:
    model(saying(NEWS, explanation="[bold]up[/bold] [link"))
    assert "[bold]up[/bold] [link" in ask("news", "ECB").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("market", "vix"), "'vix': expected name=value"),
        (("market", "vix=1", "vix=2"), "'vix=2': expected name=value, such as rsi=61, and each name once"),
        (("market", "vix=1", "vix.level=2"), "vix was given both as one value and by features"),
        (("market", "vix.level=2", "vix=1"), "vix was given both as one value and by features"),
        (("trade", "X", "long", "=3"), "'=3': expected name=value"),
        (("news", "  "), "headline '  ': expected some words"),
        (("market", "gold.rsi=nan"), "gold.rsi=nan: expected a finite number"),
        (("trade", "EUR/USD", "long", "--strength", "inf"), "strength=inf: expected a finite number"),
    ],
)
def test_a_wrong_value_is_named(model: Any, arguments: tuple[str, ...], message: str) -> None:
    model(saying(MARKET))
    error = ask(*arguments).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_an_unknown_model_is_an_error_of_its_own() -> None:
    assert isinstance(ask("news", "ECB", "--model", "nowhere").exception, ModelNotFoundError)
