"""What the README says runs, as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bt_llm.cache import VerdictCache, import_pack
from bt_llm.cli import app


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.model
def test_the_first_strategy_of_the_readme_runs(repository: Path, tmp_path: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for number, code in enumerate(blocks(text, "python")):
        script = tmp_path / f"block_{number}.py"
        script.write_text(code, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, script], cwd=repository, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "bullish" in done.stdout


def test_every_file_the_readme_names_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    named = re.findall(r"(?:strategies|data|examples|models)/[\w./-]+\.(?:py|csv|md|png|jsonl)", text)
    assert linked
    assert named
    for path in {*linked, *named}:
        assert (repository / path).is_file(), path


def test_every_make_target_and_command_of_the_readme_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    shell = "\n".join(blocks(text, "sh"))
    for target in re.findall(r"^make ([\w-]+)", shell, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in set(re.findall(r"^bt-llm ([\w-]+)", shell, re.MULTILINE)):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_the_chinese_readme_has_the_same_code(repository: Path) -> None:
    texts = [(repository / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    english, chinese = (re.findall(r"```.*?```", text, re.DOTALL) for text in texts)
    assert english == chinese


def test_the_pages_say_what_the_test_command_prints(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's verdicts come from its pack; the command's other nulls do not change these figures."""
    english, chinese, page, translated = (
        " ".join((repository / name).read_text(encoding="utf-8").split())
        for name in ("README.md", "README.zh-CN.md", "docs/does_it_help.md", "docs/zh/results.md")
    )
    import_pack(VerdictCache(tmp_path), repository / "data" / "demo_pack.jsonl")
    monkeypatch.chdir(repository)
    [command] = re.findall(r"bt-llm (test -s .*?) bt-llm ", english)
    options = ["--cache", str(tmp_path), "--cache-mode", "replay", "--shifts", "0", "--format", "json"]
    done = CliRunner().invoke(app, [*shlex.split(command), *options], catch_exceptions=False)
    found = json.loads(done.stdout)
    p, could = found["question"]["p_value"], 100 * found["question"]["detectable"]
    assert (found["random"]["n"], found["question"]["found"]) == (99, False)
    for text in (english, page):
        assert f"(p = {p:.2f}; timing worth {could:.0f} % a year would have been found)" in text
    for text in (chinese, translated):
        assert f"p = {p:.2f}；每年值 {could:.0f} % 的择时会被发现" in text


def test_the_readme_is_short(repository: Path) -> None:
    for name in ("README.md", "README.zh-CN.md"):
        assert len((repository / name).read_text(encoding="utf-8").splitlines()) <= 120
