"""Strategies named on a command line or in a study file: ``path/to/file.py:ClassName``."""

from __future__ import annotations

import difflib
import hashlib
import importlib.machinery
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from bt_llm.exceptions import StrategyError

__all__ = ["FROM_FILE", "load_function", "load_strategy", "source_sha256", "source_text"]

FROM_FILE = "bt_llm_strategy_"
"""How the modules are named that `load_strategy` makes; no other process can import them."""


def load_strategy(spec: str, text: str | None = None) -> type[Any]:
    """Return the strategy class that ``file.py:ClassName`` names.

    The file is run, as ``python file.py`` would: load only files that you trust.

    Parameters
    ----------
    spec : str
        A path to a Python file, a colon, and the name of a class in it. The class can be left out when
        the file defines one strategy only.
    text : str, optional
        The file's text, where it comes from another machine: the file itself is then not looked at, and
        need not be there.

    Raises
    ------
    StrategyError
        If the file or class is missing or is not a strategy, or the file cannot be run; in one line.
    """
    path_text, colon, name = spec.rpartition(":")
    if not colon or "/" in name or "\\" in name:
        path_text, name = spec, ""
    path = Path(path_text)
    if text is None and not path.is_file():
        raise StrategyError(f"no strategy file {path_text!r}: expected path/to/file.py:ClassName")
    module = _run(path, text)
    classes: dict[str, type[Any]] = {
        key: value
        for key, value in vars(module).items()
        if _is_strategy(value) and value.__module__ == module.__name__
    }
    if not name and len(classes) == 1:
        return next(iter(classes.values()))
    if name in classes:
        return classes[name]
    if name and hasattr(module, name):
        raise StrategyError(
            f"{name!r} in {path_text!r} is not a backtrader.Strategy defined there; found {sorted(classes)}"
        )
    near = difflib.get_close_matches(name, classes, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise StrategyError(f"no strategy {name!r} in {path_text!r}: it has {sorted(classes)}{hint}")


def _is_strategy(value: object) -> bool:
    """Tell a strategy by Backtrader's own base class, without importing Backtrader before the file does."""
    backtrader = sys.modules.get("backtrader")
    return isinstance(value, type) and backtrader is not None and issubclass(value, backtrader.Strategy)


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its text, another one's if that is given, and neither reads nor keeps bytecode.

    Bytecode is told from its source by size and second: of a file that was just edited it may be stale.
    """

    def __init__(self, name: str, path: str, text: str | None) -> None:
        super().__init__(name, path)
        self._text = text

    def get_data(self, path: str) -> bytes:
        """Return the text."""
        return super().get_data(path) if self._text is None else self._text.encode()

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Say that there is no time of change, without which there is no bytecode."""
        raise OSError


def _run(path: Path, text: str | None) -> ModuleType:
    """Run the file as a module under a name made of its path, so that its classes can be told apart."""
    name = f"{FROM_FILE}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if path.suffix not in importlib.machinery.SOURCE_SUFFIXES:
        raise StrategyError(f"{str(path)!r} is not a Python file: expected path/to/file.py:ClassName")
    loader = _SourceLoader(name, str(path), text)
    found = importlib.util.spec_from_loader(name, loader)
    assert found is not None  # it is None for no loader
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # Backtrader's metaclasses look their classes' modules up by name
    try:
        loader.exec_module(module)
    except SyntaxError as error:
        sys.modules.pop(name, None)
        raise StrategyError(f"{str(path)!r} line {error.lineno}: {error.msg}") from error
    except Exception as error:
        sys.modules.pop(name, None)
        line = next(
            (
                f.lineno
                for f in reversed(traceback.extract_tb(error.__traceback__))
                if f.filename == str(path)
            ),
            "?",
        )
        raise StrategyError(f"{str(path)!r} line {line}: {type(error).__name__}: {error}") from error
    return module


def source_sha256(strategy: type[Any]) -> str:
    """Return the SHA-256 of the file that defines a strategy, line ends normalised."""
    return hashlib.sha256(source_text(strategy).encode()).hexdigest()


def source_text(strategy: type[Any]) -> str:
    """Return the text of the file that defines a strategy, line ends normalised.

    Raises
    ------
    StrategyError
        If it cannot be read, or the strategy comes from no file.
    """
    try:
        return Path(inspect.getfile(strategy)).read_text(encoding="utf-8")
    except (OSError, TypeError) as error:
        raise StrategyError(f"source of strategy {strategy.__name__} cannot be read ({error})") from error


def load_function(spec: str, text: str | None = None) -> Callable[..., Any]:
    """Return the function that ``file.py:function`` names, such as a set-up; the file is run.

    Parameters
    ----------
    spec : str
        A path to a Python file, a colon, and the name of a function in it.
    text : str, optional
        As in `load_strategy`.

    Raises
    ------
    StrategyError
        If the file or function is missing, or the file cannot be run; in one line.
    """
    path_text, colon, name = spec.rpartition(":")
    path = Path(path_text)
    if not colon or (text is None and not path.is_file()):
        raise StrategyError(f"no file {path_text or spec!r}: expected path/to/file.py:function")
    module = _run(path, text)
    found = getattr(module, name, None)
    if not callable(found):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        near = difflib.get_close_matches(name, there, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StrategyError(f"no function {name!r} in {path_text!r}: it has {sorted(there)}{hint}")
    return cast("Callable[..., Any]", found)
