"""What is installed, and what may be, has none of the holes that are listed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
LISTED = [
    {"package": "jinja2", "id": "CVE-1", "what": "leaves the sandbox", "fixed": "3.1.6"},
    {"package": "diskcache", "id": "CVE-2", "what": "reads pickles", "answer": "not here"},
]


@pytest.fixture(scope="module")
def advisories() -> ModuleType:
    spec = importlib.util.spec_from_file_location("advisories", ROOT / ".ci" / "advisories.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_installation_and_the_lower_bounds_have_none(repository: Path) -> None:
    command = [sys.executable, str(repository / ".ci" / "advisories.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert int(done.stdout.split()[0]) > 30


def test_a_version_before_the_fix_is_found(advisories: ModuleType) -> None:
    found = advisories.installed_holes({"jinja2": "3.1.5", "diskcache": "5.6.3"}, LISTED)
    assert found == ["jinja2 3.1.5: CVE-1, leaves the sandbox; fixed in 3.1.6"]
    assert advisories.installed_holes({"jinja2": "3.1.10"}, LISTED) == []


def test_a_lower_bound_that_lets_it_in_is_found(advisories: ModuleType) -> None:
    needed = ["Jinja2>=3.1", "jinja2", "jinja2>=3.1.6,<4", "diskcache>=5", "other"]
    assert advisories.allowed_holes(needed, LISTED) == [
        "Jinja2>=3.1: expected >=3.1.6, CVE-1",
        "jinja2: expected >=3.1.6, CVE-1",
    ]
