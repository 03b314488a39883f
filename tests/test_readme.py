"""What the README says runs, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


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
        done = subprocess.run(
            [sys.executable, "-m", "bt_llm", command, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, command


def test_the_chinese_readme_has_the_same_code(repository: Path) -> None:
    texts = [(repository / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    english, chinese = (re.findall(r"```.*?```", text, re.DOTALL) for text in texts)
    assert english == chinese
