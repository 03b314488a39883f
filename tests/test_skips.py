"""In CI nothing is skipped because something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = """
import pytest
{head}
@pytest.mark.skipif(True, reason={reason!r})
def test_one():
    pass
@pytest.mark.xfail(reason="is known", strict=True)
def test_two():
    raise AssertionError
"""


@pytest.mark.parametrize(
    ("head", "reason", "ci", "code", "says"),
    [
        ("", "chromium is not installed", "1", 1, "CI brings what it tests with"),
        ("", "chromium is not installed", None, 0, "1 skipped, 1 xfailed"),
        ("", "this machine has no ::1", "1", 0, "1 skipped, 1 xfailed"),
        ("pytest.importorskip('no_such_package')", "", "1", 2, "could not import 'no_such_package'"),
        ("pytest.importorskip('no_such_package')", "", None, 5, "1 skipped"),
    ],
)
def test_a_skip_for_what_is_missing_fails_in_ci(
    head: str, reason: str, ci: str | None, code: int, says: str, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPED.format(head=head, reason=reason), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PYTHONPATH": str(repository)} | ({} if ci is None else {"CI": ci})
    options = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *options,
            "-c",
            os.devnull,
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stdout
