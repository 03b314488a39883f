"""The command line, run in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bt_llm.advice import forget_answers
from bt_llm.cli import main
from tests.cli_cases import Cli, Outcome


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], repository: Path) -> Cli:
    """Run the command line in this process, from the repository's root."""
    monkeypatch.chdir(repository)

    def run(*arguments: str) -> Outcome:
        forget_answers()
        monkeypatch.setattr(sys, "argv", ["bt-llm", *arguments])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run
