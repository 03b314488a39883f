"""The data and strategies that come with bt_llm."""

from __future__ import annotations

import difflib
from pathlib import Path

from bt_llm.data._reading import listed
from bt_llm.exceptions import DataError

__all__ = ["shipped", "shipped_board"]

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (  # folder and pattern; the first that holds a name is taken
    (_PACKAGE / "demo", "*.csv"),  # in the wheel
    (_PACKAGE / "demo", "*.py"),
    (_PACKAGE / "demo", "*.json*"),
    (_PACKAGE.parent / "data", "*.csv"),  # in the repository
    (_PACKAGE.parent / "data", "*.json*"),
    (_PACKAGE.parent / "strategies", "*.py"),
)


def shipped(name: str) -> Path:
    """Return the path of a CSV or strategy that comes with bt_llm, installed or in the repository.

    Parameters
    ----------
    name : str
        Name of the file, such as ``eurusd_hourly.csv`` or ``sma_cross.py``.

    Returns
    -------
    Path
        Absolute, so it does not depend on the working directory.

    Raises
    ------
    DataError
        If there is none of that name; near names are suggested.

    Examples
    --------
    >>> shipped("eurusd_hourly.csv").name
    'eurusd_hourly.csv'
    """
    there: dict[str, Path] = {}
    for folder, pattern in _PLACES:
        for path in sorted(folder.glob(pattern)):
            there.setdefault(path.name, path)
    if name not in there:
        near = difflib.get_close_matches(name, there, n=3) or sorted(there)
        raise DataError(f"no file named {name!r} comes with bt_llm: expected one of {listed(near)}")
    return there[name]


def shipped_board() -> Path:
    """Return the folder of the board that comes with bt_llm: its tasks, and a pack an entry.

    Examples
    --------
    >>> (shipped_board() / "tasks.toml").is_file()
    True
    """
    folders = (_PACKAGE / "demo" / "board", _PACKAGE.parent / "data" / "board")
    return next(folder for folder in folders if folder.is_dir())
