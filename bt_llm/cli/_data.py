"""``bt-llm data``: what a file of bars is, and the same bars as clean CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_llm.cli._bar_options import BarsRead
from bt_llm.cli._groups import takes_groups
from bt_llm.cli._options import FormatOption
from bt_llm.cli._output import Format, print_json, say
from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import counted, printable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data"]


@takes_groups
def data(
    files: Annotated[list[Path], typer.Argument(help="Files of bars; each may hold several instruments.")],
    read: BarsRead,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Write the bars to this CSV; of several, each to a file in this folder."),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say what files of bars are: form, span, gaps, jumps, repairs and a picture; or why they cannot be read.

    Example: bt-llm data data/eurusd_hourly.csv --to clean.csv
    """
    from bt_llm.data import describe_bars

    found = _read(files, read)
    if output is Format.JSON:
        print_json({name: _facts(bars) for name, bars in found.items()})
    else:
        for name, bars in found.items():
            typer.echo(printable(f"{name}\n{describe_bars(bars)}"))
    if to is not None:
        _write(found, to, files)


def _read(files: list[Path], read: BarsRead) -> dict[str, pd.DataFrame]:
    """Return the bars of every instrument in files, by name."""
    from bt_llm.backtest import Market

    found: dict[str, pd.DataFrame] = {}
    for file in files:
        for name, bars in Market.of(file, format=read.format()).items():
            if name in found:
                raise ConfigError(f"two datas are called {name!r}: give the files one by one")
            found[name] = bars
    return found


def _facts(bars: pd.DataFrame) -> dict[str, Any]:
    """Return what is printed of bars as JSON."""
    import pandas as pd

    from bt_llm.data import bar_length, bars_sha256

    length = bar_length(pd.DatetimeIndex(bars.index))
    return {
        **bars.attrs["source"],
        "bars": len(bars),
        "length": None if length is None else str(length),
        "first": bars.index[0].isoformat(),
        "last": bars.index[-1].isoformat(),
        "sha256": bars_sha256(bars),
        "repairs": bars.attrs["repairs"],
        "warnings": bars.attrs["warnings"],
    }


def _write(found: Mapping[str, pd.DataFrame], to: Path, files: Sequence[Path]) -> None:
    """Write each data as the CSV that every command reads without an option."""
    from bt_llm.data import save_csv

    targets = dict(zip([to], found.values(), strict=True)) if len(found) == 1 else _in_folder(found, to)
    for path, bars in targets.items():
        if path.exists() and any(path.samefile(file) for file in files):
            raise ConfigError(f"--to {path}: the bars were read from it; name another file")
        try:
            save_csv(bars, path)
        except OSError as error:
            raise ConfigError(f"--to {path}: cannot be written ({error.strerror or error})") from error
        say(f"{counted(len(bars), 'bar')}: {path}")


def _in_folder(found: Mapping[str, pd.DataFrame], folder: Path) -> dict[Path, pd.DataFrame]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--to {folder}: cannot be a folder ({error.strerror}); name another") from error
    if odd := [name for name in found if Path(name).name != name]:
        raise ConfigError(f"--to {folder}: {odd[0]!r} cannot be the name of a file; give --symbol and a file")
    return {folder / f"{name}.csv": bars for name, bars in found.items()}
