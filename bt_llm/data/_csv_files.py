"""CSV files whose text a spreadsheet shows and never runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from numbers import Number
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from bt_llm.exceptions import ConfigError
from bt_llm.writing import write_whole

__all__ = ["inert", "save_csv", "writing_into"]

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def inert(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: such text gets an apostrophe before it.

    Numbers, negative ones too, come back as they are, and so does all other text. The rule and its list of
    characters are OWASP's ("CSV Injection").

    Examples
    --------
    >>> inert("=1+1"), inert("-m"), inert(-1.5), inert("a=b")
    ("'=1+1", "'-m", -1.5, 'a=b')
    """
    if value is None or isinstance(value, Number):
        return value
    return f"'{value}" if str(value).startswith(_STARTS) else value


def save_csv(frame: pd.DataFrame, path: str | os.PathLike[str], *, index: bool = True) -> None:
    """Write a table in one step, the same bytes on every system; its text and its headings are `inert`.

    Parameters
    ----------
    frame : DataFrame
        What to write; it is not changed.
    path : path
        The file; replaced if it is there.
    index : bool
        Write the index as the first column, under its name.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    table = frame.reset_index() if index else frame
    columns = [column if _is_safe(column) else column.map(inert) for _, column in table.items()]
    made = pd.concat(columns, axis=1) if columns else table.copy()
    made.columns = pd.Index([inert(name) for name in table.columns])
    write_whole(path, made.to_csv(None, index=False, lineterminator="\n"))


def _is_safe(column: pd.Series[Any]) -> bool:
    return is_numeric_dtype(column.dtype) or is_datetime64_any_dtype(column.dtype)


@contextlib.contextmanager
def writing_into(folder: Path, what: str) -> Iterator[None]:
    """Make a folder, and turn what prevents writing into it into one line.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    what : str
        What is written, for the message, such as "tables".

    Raises
    ------
    ConfigError
        If the folder, or a file in it, cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        where = f": {Path(error.filename).name}" if error.filename else ""
        why = f"{error.strerror or error}{where}"
        raise ConfigError(
            f"{what} cannot be written into {str(folder)!r} ({why}); name another folder"
        ) from error
