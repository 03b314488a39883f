"""What is said of a file whose quantization llama.cpp reads prompts slowly in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bt_llm.cli._backtests import _say_if_slow
from bt_llm.models import slow_quantization
from bt_llm.models._slow import _TIMES_Q8_0
from tests.cli_cases import Cli


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "AMD64")


@pytest.mark.usefixtures("x86")
def test_the_ratios_are_those_of_the_table(repository: Path) -> None:
    text = (repository / "models/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\d\.\d+) \| (\d\.\d) \|$", text, re.MULTILINE)
    seconds = {name: float(time) for name, time, _ in rows}
    assert len(rows) == 6
    for name, time, ratio in rows:
        assert float(ratio) == pytest.approx(float(time) / seconds["Q8_0"], abs=0.06)
        assert (f"{float(ratio):g} times" in slow_quantization(name)) == (float(ratio) > 2)
    assert {name for name in seconds if slow_quantization(name)} == set(_TIMES_Q8_0)


@pytest.mark.usefixtures("x86")
@pytest.mark.parametrize("other", ["Q4_K_M", "", None, 3, ["Q4_1"]])
def test_nothing_is_said_of_what_was_not_measured(other: Any) -> None:
    assert slow_quantization(other) == ""


def test_nothing_is_said_on_another_kind_of_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert slow_quantization("Q4_1") == ""


@pytest.mark.usefixtures("x86", "smollm2_path")
def test_doctor_says_it_of_the_file(cli: Cli) -> None:
    checks = {check["what"]: check for check in json.loads(cli("doctor", "--format", "json").out)["checks"]}
    assert checks["model smollm2"]["ok"]
    assert "MB; Q4_1 is slow on x86 processors: prompts took 2.2 times" in checks["model smollm2"]["found"]


@pytest.mark.usefixtures("x86")
@pytest.mark.parametrize(("calls", "says"), [(105, True), (0, False)])
def test_the_demo_says_it_where_the_model_was_asked(
    calls: int, says: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = SimpleNamespace(name="smollm2", details={"quantization": "Q4_1"})
    gated = SimpleNamespace(advice={"model_calls": calls}, asked=[SimpleNamespace(identity=identity)])
    _say_if_slow(SimpleNamespace(gated=gated))  # type: ignore[arg-type]
    assert ("smollm2: Q4_1 is slow" in capsys.readouterr().err) == says
