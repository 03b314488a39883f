"""What code is by content: its file and what that imports, but not where, nor what is installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bt_llm.exceptions import StrategyError
from bt_llm.sources import SourceFiles, is_ours, load_file, source_sha256

FILES = {
    "main.py": "import json, numpy, near\nfrom pack import part\nclass Mine: pass\n"
    "def late():\n    import lazy\n",
    "near.py": "VALUE = 1\n",
    "lazy.py": "VALUE = 2\n",
    "pack/__init__.py": "",
    "pack/part.py": "from .other import X\n",
    "pack/other.py": "X = 3\n",
    "unused.py": "VALUE = 4\n",
    "notes.txt": "five",
}


def hashed(folder: Path, files: Mapping[str, str] = FILES) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    module = load_file(SourceFiles.read(folder / "main.py"), anew=True)
    return source_sha256(module.Mine)


@pytest.mark.parametrize("name", ["main.py", "near.py", "lazy.py", "pack/__init__.py", "pack/other.py"])
def test_what_it_imports_counts(tmp_path: Path, name: str) -> None:
    first = hashed(tmp_path)
    assert hashed(tmp_path, {name: FILES[name] + "# edited\n"}) != first
    assert hashed(tmp_path, {name: FILES[name]}) == first


@pytest.mark.parametrize("name", ["unused.py", "notes.txt"])
def test_what_it_does_not_import_does_not(tmp_path: Path, name: str) -> None:
    first = hashed(tmp_path)
    assert hashed(tmp_path, {name: "edited = 1\n"}) == first


def test_where_the_file_is_and_how_lines_end_does_not(tmp_path: Path) -> None:
    first = hashed(tmp_path / "a")
    assert hashed(tmp_path / "b" / "c") == first
    (tmp_path / "a" / "near.py").write_bytes(b"VALUE = 1\r\n")
    assert hashed(tmp_path / "a", {}) == first


def test_modules_on_the_path_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, folder = tmp_path / "library", tmp_path / "folder"
    (library / "my_rules").mkdir(parents=True)
    monkeypatch.syspath_prepend(library)
    (library / "my_rules" / "__init__.py").write_text("from my_rules import deep\n")
    found = set()
    for text in ("X = 1\n", "X = 2\n"):
        (library / "my_rules" / "deep.py").write_text(text)
        importlib.invalidate_caches()
        source = "def late():\n    from my_rules.deep import X\nclass Mine: pass\n"
        found.add(hashed(folder, {"main.py": source}))
    assert len(found) == 2
    assert "my_rules" not in sys.modules  # nothing is imported to be hashed


def test_a_class_of_a_module_is_its_file_and_what_that_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for text in ("X = 1\n", "X = 2\n", "X = 1\n"):
        (tmp_path / "hashed_helper.py").write_text(text)
        (tmp_path / "hashed_cases.py").write_text("import hashed_helper\nclass Mine: pass\n")
        importlib.invalidate_caches()
        found.append(source_sha256(importlib.import_module("hashed_cases").Mine))
        for name in ("hashed_cases", "hashed_helper"):
            del sys.modules[name]
    assert found[0] == found[2] != found[1]


def test_what_is_in_no_file_is_refused() -> None:
    made = type("Made", (), {"__module__": "a_module_that_is_not"})
    with pytest.raises(StrategyError, match="source of strategy Made cannot be read"):
        source_sha256(made)
    assert is_ours(SourceFiles)
    assert not is_ours(made)
