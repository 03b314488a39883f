from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bt_llm.cache import VerdictCache
from bt_llm.cli import app
from tests.cli_cases import Cli, one_line

CROSS = "strategies/sma_cross.py:GatedSmaCross"
BARS = "data/eurusd_hourly.csv"


def run_args(**options: str) -> list[str]:
    chosen = {"strategy": CROSS, "data": BARS, "model": "scripted:trend"} | options
    return ["run", *(part for name, value in chosen.items() for part in (f"--{name}", value))]


def test_run_prints_one_json_object(cli: Cli) -> None:
    outcome = cli(*run_args(format="json", commission="0.00002", param="fast=8"))
    assert outcome.code == 0
    found: dict[str, Any] = json.loads(outcome.out)
    assert set(found) == {"runs", "advice", "question", "effect", "problems"}
    assert set(found["runs"]) == {"gated", "ungated", "buy_and_hold"}
    for run in found["runs"].values():
        assert {"final_value", "return", "sharpe", "max_drawdown", "trades"} <= set(run)
    advice = found["advice"]
    assert {"bars", "asked", "distinct", "cache_hits", "model_calls", "model_seconds"} <= set(advice)
    assert {"bullish", "neutral", "bearish", "invalid"} <= set(advice["verdicts"])
    assert advice["bars"] == 5000
    assert advice["asked"] == sum(advice["verdicts"][v] for v in ("bullish", "neutral", "bearish", "invalid"))


def test_the_second_run_and_the_replay_give_the_same(cli: Cli) -> None:
    first, second = (json.loads(cli(*run_args(format="json")).out) for _ in range(2))
    replay = json.loads(cli(*run_args(format="json"), "--cache-mode", "replay").out)
    assert first["advice"]["model_calls"] == 105
    assert second["advice"]["model_calls"] == 0
    assert first["runs"] == second["runs"] == replay["runs"]


def test_run_prints_tables(cli: Cli) -> None:
    outcome = cli(*run_args())
    assert outcome.code == 0
    for text in ("gated", "ungated", "buy and hold", "final value", "distinct prompts", "from the cache"):
        assert text in outcome.out


def test_a_run_is_reproduced_from_its_manifest_and_pack(cli: Cli, tmp_path: Path) -> None:
    manifest, pack, empty = tmp_path / "run.json", tmp_path / "pack.jsonl", tmp_path / "empty"
    assert cli(*run_args(manifest=str(manifest))).code == 0
    assert cli("cache", "export", "--run", str(manifest), str(pack)).code == 0
    outcome = cli("reproduce", str(manifest), "--pack", str(pack), "--cache", str(empty))
    assert (outcome.code, outcome.out) == (0, "identical\n")
    outcome = cli("reproduce", str(manifest), "--cache", str(empty))
    assert (outcome.code, outcome.out[:8]) == (1, "verdict:")


def test_a_miss_names_the_bar_in_one_line_and_shows_the_difference_below(cli: Cli) -> None:
    cli(*run_args())
    outcome = cli(*run_args(model="scripted:contrarian"), "--cache-mode", "replay")
    assert one_line(outcome).startswith("error: bar 2017-04-26 02:00:00: replay: a verdict is not stored in ")
    assert "differs in model_sha256" in outcome.err


def test_equity_curves_are_drawn(cli: Cli, tmp_path: Path) -> None:
    for suffix, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        path = tmp_path / f"equity.{suffix}"
        assert cli(*run_args(plot=str(path))).code == 0
        first = path.read_bytes()
        assert first.startswith(magic)
        cli(*run_args(plot=str(path)))
        assert path.read_bytes() == first
    assert "expected a name ending in" in one_line(cli(*run_args(plot=str(tmp_path / "equity.bmp"))))


@pytest.mark.model
def test_the_demo_with_the_real_model(cli: Cli) -> None:
    first = cli("demo", "--format", "json")
    assert first.code == 0, first.err
    found = json.loads(first.out)
    advice = found["advice"]
    assert advice["model_calls"] == 105
    shares = [advice["verdicts"][v] / advice["asked"] for v in ("bullish", "neutral", "bearish")]
    assert min(shares) > 0.05  # not all one label
    assert advice["verdicts"]["invalid"] == 0
    again = json.loads(cli("demo", "--format", "json").out)
    assert again["advice"]["model_calls"] == 0
    assert again["runs"] == found["runs"]


@pytest.mark.parametrize("lacking", ["the model", "llama.cpp"])
def test_the_demo_without_what_answers_replays_its_pack(
    lacking: str, cli: Cli, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking == "the model":
        monkeypatch.setattr("bt_llm.models._files._PACKAGE", "no_such_package")
    else:
        monkeypatch.setitem(sys.modules, "llama_cpp", None)
    done = cli("demo", "--format", "json")
    assert (done.code, "replayed from the pack" in done.err) == (0, True)
    found, stored = json.loads(done.out), json.loads((repository / "data/demo_run.json").read_text())
    assert found["advice"]["model_calls"] == 0
    assert found["runs"]["gated"]["final_value"] == stored["runs"]["gated"]["metrics"]["final_value"]
    for options in (("--cache-mode", "record"), ("--model", "other"), ("--reader", "json")):
        assert cli("demo", *options).code in (1, 2)  # who asks for something gets that, or is told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"model": "scripted:nothing"}, "want scripted:NAME"),
        ({"strategy": "strategies/absent.py:X"}, "no strategy file"),
        ({"strategy": "strategies/sma_cross.py:GatedSmaCros"}, "did you mean 'GatedSmaCross'?"),
        ({"data": "data/absent.csv"}, "data/absent.csv"),
        ({"param": "fats=3"}, "did you mean 'fast'?"),
        ({"param": "fast"}, "expected name=value"),
        ({"cash": "-5"}, "cash=-5"),
        ({"reader": "telepathy"}, "expected one of ['logprobs', 'json', 'contrast']"),
        ({"calibration": "no"}, "expected 'grid', 'none'"),
        ({"cache-mode": "replya"}, "replay"),
        ({"cache-mode": "replay"}, "replay"),
        ({"template": "absent.toml"}, "absent.toml"),
    ],
)
def test_a_mistake_is_one_clear_line(cli: Cli, tmp_path: Path, options: dict[str, str], message: str) -> None:
    assert message in one_line(cli(*run_args(**options)))


BAD_CSVS = {
    "empty": "",
    "header": "time,open,high,low,close\n",
    "no_close": "time,open,high,low\n2020-01-01,1,1,1\n",
    "short": "time,close\n" + "\n".join(f"2020-01-{day:02d},{day}" for day in range(1, 20)),
}


@pytest.mark.parametrize("name", BAD_CSVS)
def test_bad_bars_are_one_clear_line(cli: Cli, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text(BAD_CSVS[name])
    plot = tmp_path / "equity.png"
    assert one_line(cli(*run_args(data=str(path), plot=str(plot))))
    assert not plot.exists()


BAD_STRATEGIES = {"syntax": "class A(:\n", "crash": "1 / 0\n", "nothing": "x = 1\n"}


@pytest.mark.parametrize("name", BAD_STRATEGIES)
def test_bad_strategy_files_are_one_clear_line(cli: Cli, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(BAD_STRATEGIES[name])
    assert str(path) in one_line(cli(*run_args(strategy=f"{path}:A")))


@pytest.mark.parametrize(
    "content", [b"", b"once upon a time", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64]
)
def test_bad_model_files_are_one_clear_line_and_store_nothing(
    cli: Cli, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert "model.gguf" in one_line(cli(*run_args(model=str(path))))
    assert VerdictCache().stats().verdicts == 0


@pytest.mark.model
def test_a_truncated_model_is_one_clear_line(cli: Cli, tmp_path: Path, smollm2_path: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(smollm2_path.read_bytes()[: smollm2_path.stat().st_size // 2])
    assert "truncated" in one_line(cli(*run_args(model=str(path))))


@pytest.mark.model
def test_too_little_memory_is_one_clear_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bt_llm.models.llama._memory.available_memory_mb", lambda: 50.0)
    message = one_line(cli(*run_args(model="smollm2")))
    assert "50" in message
    assert "MB" in message


def test_wrong_usage_is_code_2(cli: Cli) -> None:
    assert cli("run").code == 2
    assert cli("no-such-command").code == 2


def test_policy_of_one_and_of_two_models(cli: Cli, tmp_path: Path) -> None:
    one = cli("policy", "-m", "scripted:trend")
    assert one.code == 0
    assert "scripted:trend, raw" in one.out
    assert "42 bullish, 21 neutral, 42 bearish" in " ".join(one.err.split())
    for suffix in ("png", "html"):
        path = tmp_path / f"policy.{suffix}"
        two = cli("policy", "-m", "scripted:trend", "-m", "scripted:contrarian", "--plot", str(path))
        assert two.code == 0
        assert path.stat().st_size > 1000
    assert "the same verdict on 20 %" in " ".join(two.err.split())
    found = json.loads(cli("policy", "-m", "scripted:trend", "--format", "json").out)
    assert len(found["policies"][0]["cells"]) == 105
    assert found["comparison"] is None
    assert "expected once, or twice" in one_line(cli("policy", *["-m", "scripted"] * 3))


def test_doctor_lists_what_is_there(cli: Cli) -> None:
    outcome = cli("doctor", "--format", "json")
    checks = {check["what"]: check for check in json.loads(outcome.out)["checks"]}
    assert outcome.code == 0
    assert {"Python", "backtrader", "llama-cpp-python", "memory", "cache"} <= set(checks)
    assert all(check["ok"] for check in checks.values())


def test_help_teaches(cli: Cli) -> None:
    outcome = cli("--help")
    assert outcome.code == 0
    for command in ("demo", "run", "policy", "doctor"):
        assert command in outcome.out
    assert "Example:" in cli("run", "--help").out


def every_command() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def walk(command: Any, names: str) -> None:
        if not hasattr(command, "list_commands"):
            found.append((names, command))
            return
        context = typer.Context(command)
        for name in command.list_commands(context):
            walk(command.get_command(context, name), f"{names} {name}")

    walk(typer.main.get_command(app), "bt-llm")
    return found


def test_every_command_has_an_example_with_options_that_it_takes() -> None:
    commands = every_command()
    assert len(commands) > 25
    for names, command in commands:
        examples = re.findall(r"Example[^:]*: (bt-llm [^\n]*(?:\n {0,4}\S[^\n]*)*)", command.help or "")
        assert examples, names
        taken = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for example in examples:
            mine = example.split("; or,")[0].split(" shows what")[0]
            assert mine.startswith(names), (names, mine)
            assert {word for word in shlex.split(mine) if re.match(r"--?[a-z]", word)} <= taken, mine


def test_a_bug_keeps_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("bt_llm.backtest.gate_study", broken)
    with pytest.raises(RuntimeError, match="ours"):
        cli(*run_args())


def test_ctrl_c_says_that_nothing_is_lost(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bt_llm.backtest.gate_study", interrupted)
    outcome = cli(*run_args())
    assert outcome.code == 130
    assert "what was stored is kept" in outcome.err


def test_as_a_process_from_another_folder(repository: Path, tmp_path: Path) -> None:
    """The installed command, where no data or strategy lies in the working directory."""
    arguments = run_args(strategy=str(repository / CROSS), data=str(repository / BARS), format="json")
    command = [sys.executable, "-m", "bt_llm", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["advice"]["bars"] == 5000
