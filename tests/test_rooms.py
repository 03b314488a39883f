"""The rooms of the package: what is inside one is reached through its door."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import bt_llm

PACKAGE = Path(bt_llm.__file__).parent
ROOMS = sorted(stub.parent.name for stub in PACKAGE.glob("*/__init__.pyi"))


def imported(path: Path) -> Iterator[str]:
    """Return the modules of bt_llm that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bt_llm."):
            yield str(node.module)


def test_no_room_reaches_into_another() -> None:
    reached = {
        f"{path.relative_to(PACKAGE)}: {module}"
        for path in PACKAGE.rglob("*.py")
        for module in imported(path)
        if "._" in module and module.split(".")[1] != path.relative_to(PACKAGE).parts[0]
    }
    assert reached == set()


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_there_and_documented(room: str) -> None:
    door = importlib.import_module(f"bt_llm.{room}")
    assert door.__doc__
    assert door.__all__
    for name in door.__all__:
        value = getattr(door, name)
        assert value.__doc__ or not (inspect.isclass(value) or inspect.isfunction(value)), name


def test_modules_inside_a_room_are_private() -> None:
    inside = {p for p in PACKAGE.rglob("*/*.py") if p.parent != PACKAGE}
    assert {p.name for p in inside if not p.name.startswith("_")} == set()
