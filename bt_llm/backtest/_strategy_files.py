"""Strategies named on a command line or in a study file: ``path/to/file.py:ClassName``."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import backtrader as bt

from bt_llm.exceptions import ConfigError, StrategyError
from bt_llm.settings import in_short
from bt_llm.sources import SourceFiles, load_file
from bt_llm.writing import apart_from_results

__all__ = ["function_in", "load_function", "load_strategy", "strategy_class", "strategy_in"]


def strategy_class(strategy: type[Any] | str) -> type[Any]:
    """Return a strategy that is given as a class, or as text for `load_strategy`.

    Raises
    ------
    ConfigError
        If it is neither.
    StrategyError
        As `load_strategy`.
    """
    chosen = load_strategy(strategy) if isinstance(strategy, str) else strategy
    if isinstance(chosen, type) and issubclass(chosen, bt.Strategy):
        return chosen
    raise ConfigError(f"strategy={in_short(strategy)}: expected a backtrader.Strategy, or file.py:ClassName")


def load_strategy(spec: str) -> type[Any]:
    """Return the strategy class that ``file.py:ClassName`` names.

    The file is run, and imports its neighbours, as ``python file.py`` would, while it is loaded and later:
    load only files that you trust. Neighbours of other files, also those of the same name, are other modules.

    Parameters
    ----------
    spec : str
        A path to a Python file, a colon, and the name of a class in it. The class can be left out when
        the file defines one strategy only.

    Raises
    ------
    StrategyError
        If the file or class is missing or is not a strategy, or the file cannot be run; in one line.

    Notes
    -----
    A neighbour that the process has imported already, by its own name and from the same file, is that
    module: its classes are the script's own.
    """
    path_text, colon, name = spec.rpartition(":")
    if not colon or "/" in name or "\\" in name:
        path_text, name = spec, ""
    return strategy_in(_read(path_text, "ClassName"), name, shown=path_text, anew=True)


def load_function(spec: str) -> Callable[..., Any]:
    """Return the function that ``file.py:function`` names, such as a set-up; the file is run.

    Parameters
    ----------
    spec : str
        A path to a Python file, a colon, and the name of a function in it, or of a class such as a sizer.

    Raises
    ------
    StrategyError
        If the file or function is missing, or the file cannot be run; in one line.
    """
    path_text, _, name = spec.rpartition(":")
    return function_in(_read(path_text or spec, "function"), name, shown=path_text, anew=True)


def _read(path_text: str, kind: str) -> SourceFiles:
    path = Path(path_text)
    if not os.path.isfile(path):
        what = "strategy file" if kind == "ClassName" else "file"
        raise StrategyError(f"no {what} {path_text!r}: expected path/to/file.py:{kind}")
    if path.suffix != ".py":
        raise StrategyError(f"{path_text!r} is not a Python file: expected path/to/file.py:{kind}")
    try:
        return SourceFiles.read(path)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise StrategyError(f"{path_text!r} cannot be read ({error})") from error


def function_in(files: SourceFiles, name: str, *, shown: str = "", anew: bool = False) -> Callable[..., Any]:
    """Return a function of a file that has been read; see `strategy_in`."""
    shown = shown or files.path
    module = _run(files, shown, anew)
    found = getattr(module, name, None) if name else None
    if callable(found):
        return cast("Callable[..., Any]", found)
    own = {key: one for key, one in vars(module).items() if getattr(one, "__module__", "") == module.__name__}
    there = sorted(key for key, one in own.items() if inspect.isroutine(one) or inspect.isclass(one))
    near = difflib.get_close_matches(name, there, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise StrategyError(f"no {name!r} in {shown!r}: it has {there}{hint}")


def strategy_in(files: SourceFiles, name: str, *, shown: str = "", anew: bool = False) -> type[Any]:
    """Return a strategy class of a file that has been read.

    Parameters
    ----------
    files : SourceFiles
        The file.
    name : str
        Of the class; empty for the only one.
    shown : str
        What messages call the file; by default its path.
    anew : bool
        Whether to run the file where this process has run the same text already.

    Raises
    ------
    StrategyError
        As for `load_strategy`.
    """
    shown = shown or files.path
    module = _run(files, shown, anew)
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
            f"{name!r} in {shown!r} is not a backtrader.Strategy defined there; found {sorted(classes)}"
        )
    near = difflib.get_close_matches(name, classes, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise StrategyError(f"no strategy {name!r} in {shown!r}: it has {sorted(classes)}{hint}")


def _is_strategy(value: object) -> bool:
    """Tell a strategy by Backtrader's own base class, without importing Backtrader before the file does."""
    backtrader = sys.modules.get("backtrader")
    return isinstance(value, type) and backtrader is not None and issubclass(value, backtrader.Strategy)


def _run(files: SourceFiles, shown: str, anew: bool) -> ModuleType:
    try:
        with apart_from_results():
            return load_file(files, anew=anew)
    except SyntaxError as error:
        place = _shown_place(error.filename or files.path, files, shown)
        at = "" if error.lineno is None else f" line {error.lineno}"  # none of one with null bytes
        raise StrategyError(f"{place}{at}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # a file that leaves Python would leave nothing said
        folder = Path(files.path).parent
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if folder in Path(frame.filename).parents]
        place = _shown_place(inside[-1].filename, files, shown) if inside else repr(shown)
        line = inside[-1].lineno if inside else "?"
        raise StrategyError(f"{place} line {line}: {type(error).__name__}: {error}") from error


def _shown_place(filename: str, files: SourceFiles, shown: str) -> str:
    """Return the file that failed as the user wrote it; of a neighbour, its place beside that."""
    if Path(filename) == Path(files.path):
        return repr(shown)
    try:
        return repr(str(Path(shown).parent / Path(filename).relative_to(Path(files.path).parent)))
    except ValueError:
        return repr(filename)
