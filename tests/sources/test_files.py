"""Files loaded as modules: which module an import statement means, now, later and elsewhere."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from bt_llm.sources import SourceFiles, code_name, files_of, load_file


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "main.py"


def load(folder: Path, files: Mapping[str, str]) -> ModuleType:
    return load_file(SourceFiles.read(write(folder, files)), anew=True)


def test_a_neighbour_and_its_neighbours(tmp_path: Path) -> None:
    module = load(
        tmp_path,
        {
            "main.py": "import one\nfrom pack.inner import DEEP\nimport pack.inner\nVALUE = one.VALUE\n",
            "one.py": "from two import VALUE\n",
            "two.py": "VALUE = 7\n",
            "pack/__init__.py": "from . import inner\n",
            "pack/inner.py": "from two import VALUE\nfrom .sub import PART\nDEEP = VALUE * 10 + PART\n",
            "pack/sub/__init__.py": "PART = 1\n",
            "unused.py": "1 / 0\n",
        },
    )
    assert (module.VALUE, module.DEEP, module.pack.inner.DEEP) == (7, 71, 71)
    assert sorted(SourceFiles.read(tmp_path / "main.py").texts) == [
        "main.py", "one.py", "pack/__init__.py", "pack/inner.py", "pack/sub/__init__.py", "two.py",
    ]  # fmt: skip
    for name in ("one", "two", "pack", "main"):
        assert name not in sys.modules
    assert not list(tmp_path.rglob("*.pyc"))


def test_equal_names_in_two_folders_do_not_mix(tmp_path: Path) -> None:
    text = (
        "import rules\n\ndef late():\n"
        "    import later\n    from folder.leaf import LEAF\n    return later.VALUE, LEAF\n"
    )
    made = [
        load(
            tmp_path / name,
            {
                "main.py": text,
                "rules.py": f"VALUE = {name!r}\n",
                "later.py": f"from rules import VALUE\nVALUE += {name!r}\n",
                "folder/leaf.py": f"LEAF = {name!r}\n",
            },
        )
        for name in ("a", "b")
    ]
    assert [module.rules.VALUE for module in made] == ["a", "b"]
    assert [module.late() for module in made] == [("aa", "a"), ("bb", "b")]
    assert [module.late() for module in reversed(made)] == [("bb", "b"), ("aa", "a")]


def test_a_neighbour_that_changed_is_another_module(tmp_path: Path) -> None:
    first = load(tmp_path, {"main.py": "import rules\n", "rules.py": "VALUE = 1\n"})
    second = load(tmp_path, {"rules.py": "VALUE = 2\n"})
    assert (first.rules.VALUE, second.rules.VALUE) == (1, 2)


def test_what_python_finds_first_is_not_a_neighbour(tmp_path: Path) -> None:
    module = load(
        tmp_path,
        {
            "main.py": "import sys, os, random, backtrader, bt_llm\nimport json\n",
            "sys.py": "1 / 0\n",
            "os.py": "1 / 0\n",
            "backtrader.py": "1 / 0\n",
            "bt_llm/__init__.py": "1 / 0\n",
            "json/notes.txt": "a folder without __init__ comes last\n",
            "random.py": "MINE = True\n",
        },
    )
    assert module.sys is sys
    assert module.bt_llm is sys.modules["bt_llm"]
    assert module.json is sys.modules["json"]
    assert module.random.MINE  # as of `python main.py`
    import random

    assert not hasattr(random, "MINE")


def test_a_module_that_the_script_imported_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"main.py": "from shared_rules import Rule\n", "shared_rules.py": "class Rule: pass\n"})
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("shared_rules")
    try:
        files = SourceFiles.read(tmp_path / "main.py")
        assert load_file(files, anew=True).Rule is own.Rule
        assert files.shared == {"shared_rules"}
        assert "shared_rules.py" in files.texts  # it travels, for a machine that has it not
    finally:
        del sys.modules["shared_rules"]


ELSEWHERE = """
import pickle, sys
files, made = pickle.loads(bytes.fromhex(sys.argv[1]))
from bt_llm.sources import load_file
module = load_file(files, anew=False)
print(made is module.Made, made().late(), module.__file__.endswith("main.py"))
"""


def test_a_pickled_file_runs_where_it_is_not(tmp_path: Path) -> None:
    text = (
        "import rules\nclass Made:\n    def late(self):\n"
        "        import later\n        return rules.VALUE + later.VALUE\n"
    )
    files = {"main.py": text, "rules.py": "VALUE = 1\n", "later.py": "VALUE = 2\n"}
    module = load(tmp_path, files)
    sent = pickle.dumps((files_of(module.Made), module.Made))
    for name in files:
        (tmp_path / name).write_text("1 / 0\n", encoding="utf-8")
    command = [sys.executable, "-c", ELSEWHERE, sent.hex()]
    there = subprocess.run(command, capture_output=True, text=True, check=True)
    assert there.stdout == "True 3 True\n"


def test_names_do_not_say_where_files_are(tmp_path: Path) -> None:
    module = load(
        tmp_path, {"main.py": "from near import Near\nclass Here: pass\n", "near.py": "class Near: pass\n"}
    )
    assert (code_name(module.Here), code_name(module.Near)) == ("strategy:Here", "strategy.near:Near")
    assert files_of(module.Near) is files_of(module.Here)
    assert files_of(SourceFiles) is None


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_bytes("# coding: latin-1\r\nNAME = 'Zürich'\r\n".encode("latin-1"))
    assert load_file(SourceFiles.read(tmp_path / "main.py"), anew=True).NAME == "Zürich"


def test_dunder_import_finds_neighbours_too(tmp_path: Path) -> None:
    module = load(
        tmp_path, {"main.py": "near = __import__('near')\nimport near as other\n", "near.py": "X = 1\n"}
    )
    assert module.near is module.other
