"""The program starts at once: what a command needs is imported when it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from bt_llm import __version__
from bt_llm.cli import app
from bt_llm.cli._app import VERBS
from tests.cli_cases import Cli

HEAVY = ("backtrader", "llama_cpp", "numpy", "pandas")
SHOWS = """
import contextlib, io, json, os, sys
from bt_llm import cli

def loads(*arguments, **environment):
    os.environ.update(environment)
    sys.argv = ["bt-llm", *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        cli.main()
    for name in environment:
        del os.environ[name]
    return said.getvalue(), sorted(set(%r) & set(sys.modules))
"""


def shown(code: str) -> object:
    """Run code after SHOWS in a process of its own; what it prints last is JSON."""
    program = (SHOWS % (HEAVY,)) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_version_help_and_completion_import_nothing_heavy() -> None:
    found = shown(
        "print(json.dumps([loads('--version'), loads('--help'), loads(COMP_WORDS='bt-llm cache ve', "
        "COMP_CWORD='2', _BT_LLM_COMPLETE='complete_bash')]))"
    )
    assert isinstance(found, list)
    (version, *one), (listed, *two), (completed, *three) = found
    assert (version, completed) == (f"bt-llm {__version__}\n", "verify\n")
    assert all(f"{name} " in listed for name in VERBS)
    assert one == two == three == [[]]


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    """Import what is heavy in the function that needs it, or `bt-llm VERB --TAB` waits for pandas."""
    found = shown(f"print(json.dumps([[verb, *loads(verb, '--help')] for verb in {list(VERBS)!r}]))")
    assert isinstance(found, list)
    assert [(verb, heavy) for verb, said, heavy in found if heavy or f"bt-llm {verb}" not in said] == []


def test_a_command_is_listed_in_one_line_and_each_is_there() -> None:
    group = get_command(app)
    assert list(group.commands) == list(VERBS)  # type: ignore[attr-defined]
    for name, verb in VERBS.items():
        assert len(name) + len(verb.summary) <= 70, name
        assert group.commands[name].help, name  # type: ignore[attr-defined]


def test_a_misspelt_command_is_told_the_near_one(cli: Cli) -> None:
    outcome = cli("tset")
    assert outcome.code == 2
    assert "Did you mean 'test'?" in " ".join(outcome.err.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_for_a_shell(shell: str, repository: Path) -> None:
    code = f"import sys; from bt_llm.cli import main; sys.argv[1:] = ['--show-completion', '{shell}']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(repository), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert "_BT_LLM_COMPLETE" in done.stdout
