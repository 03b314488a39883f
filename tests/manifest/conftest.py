"""A recorded study, and a copy of it for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bt_llm.advice import forget_answers
from bt_llm.data import load_bars, shipped
from tests.manifest.test_manifest import STRATEGY, Place


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a strategy, bars, a cache and the manifest of a study."""
    found = Place(tmp_path_factory.mktemp("recorded"))
    (found.folder / "mine.py").write_text(STRATEGY)
    load_bars(shipped("eurusd_hourly.csv")).iloc[:260].to_csv(found.folder / "bars.csv")
    found.record()
    return found.folder


@pytest.fixture
def place(tmp_path: Path, recorded: Path) -> Place:
    forget_answers()
    return Place(Path(shutil.copytree(recorded, tmp_path / "here")))
