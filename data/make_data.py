"""Write the CSV files of this folder from the two PyPI packages that carry them.

The packages are only read, never imported, so none of their dependencies are needed::

    pip install --no-deps 'backtesting==0.6.6' 'arch==8.0.0'
    python data/make_data.py            # write the files
    python data/make_data.py --check    # compare them; exit code 1 when one differs

Numbers are copied as the text that stands in the source, so no rounding comes in. Only three things change:
the names of columns, the form of dates (1/4/1999 becomes 1999-01-04), and which rows and columns are kept.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
MISSING = "."
"""How FRED, and after it `arch`, writes a day without a price."""

OHLCV = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a file comes from: a member of an installed package, and how its columns are taken.

    Parameters
    ----------
    package : str
        Name of the package on PyPI, and of its folder.
    member : str
        Path of the CSV below the package's folder; gzip when it ends in ``.gz``.
    time : str
        Name of the column of times; empty where the source leaves it without a name.
    columns : dict of str to str
        Names here, in order, to names in the source.
    to_iso : callable
        Turns a time as the source writes it into ISO 8601.
    """

    package: str
    member: str
    time: str
    columns: dict[str, str]
    to_iso: Callable[[str], str]


def as_it_is(text: str) -> str:
    """Return a time that is in ISO 8601 already, checked."""
    datetime.fromisoformat(text)
    return text


def from_month_first(text: str) -> str:
    """Return the ISO date of one written month/day/year, as `arch` writes them.

    Examples
    --------
    >>> from_month_first("1/4/1999")
    '1999-01-04'
    """
    return datetime.strptime(text, "%m/%d/%Y").date().isoformat()


SOURCES = {
    "eurusd_hourly.csv": Source(
        package="backtesting",
        member="test/EURUSD.csv",
        time="",
        columns={name: name.capitalize() for name in OHLCV},
        to_iso=as_it_is,
    ),
    "sp500_daily.csv": Source(
        package="arch",
        member="data/sp500/sp500.csv.gz",
        time="Date",
        columns={name: name.capitalize() for name in OHLCV},
        to_iso=from_month_first,
    ),
    "vix_daily.csv": Source(
        package="arch",
        member="data/vix/vix.csv.gz",
        time="Date",
        columns={"close": "vix"},
        to_iso=from_month_first,
    ),
    "wti_daily.csv": Source(
        package="arch",
        member="data/wti/wti.csv.gz",
        time="Date",
        columns={"close": "DCOILWTICO"},
        to_iso=from_month_first,
    ),
}


def read_member(source: Source) -> str:
    """Return the text of a source's CSV, found without importing its package.

    Raises
    ------
    SystemExit
        If the package is not installed or has no such file.
    """
    spec = importlib.util.find_spec(source.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise SystemExit(f"{source.package} is not installed: pip install --no-deps {source.package}")
    path = Path(folders[0], source.member)
    if not path.is_file():
        raise SystemExit(f"no {source.member} in the installed {source.package}: README.md names the version")
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("ascii")


def rows_of(source: Source, text: str) -> Iterator[list[str]]:
    """Yield the rows to write, the header first; days without a price are left out."""
    yield ["time", *source.columns]
    for row in csv.DictReader(text.splitlines(), strict=True):
        values = [row[name] for name in source.columns.values()]
        if MISSING not in values:
            yield [source.to_iso(row[source.time]), *values]


def as_csv(rows: Iterable[Sequence[str]]) -> bytes:
    r"""Return rows as CSV bytes with ``\n`` line ends.

    Raises
    ------
    SystemExit
        If a value is not a plain decimal number or time: nothing here needs quotes.
    """
    lines = [",".join(row) for row in rows]
    if any(set(line) - set("0123456789.:- ,") for line in lines[1:]):
        raise SystemExit("a value is not a plain number or time: the source has changed")
    return ("\n".join(lines) + "\n").encode("ascii")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check every file and return the exit code."""
    parser = argparse.ArgumentParser(description="Write the CSV files of this folder from their packages.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when a file differs")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files are (default: here)")
    options = parser.parse_args(arguments)
    different = 0
    for name, source in SOURCES.items():
        made = as_csv(rows_of(source, read_member(source)))
        path: Path = options.folder / name
        if not options.check:
            path.write_bytes(made)
            print(f"{name}: written, {len(made.splitlines()) - 1} rows")
        elif path.is_file() and path.read_bytes() == made:
            print(f"{name}: the same")
        else:
            print(f"{name}: {'different' if path.is_file() else 'missing'}", file=sys.stderr)
            different += 1
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
