"""Names of columns in the languages and forms that vendors write them in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bt_llm.data._reading import Reading, listed
from bt_llm.data._words import DAY_FIRST, ROLES, SYMBOLS

__all__ = ["PRICES", "Roles", "fields_of", "find_roles", "normal"]

PRICES = ("open", "high", "low", "close")

_LETTERS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
_QUOTES = frozenset(
    ("usd", "usdt", "usdc", "busd", "eur", "gbp", "jpy", "fdusd", "tusd", "krw", "chf", "quote", "currency")
)


@dataclass(kw_only=True)
class Roles:
    """Positions of the columns that are read, by role.

    Parameters
    ----------
    at : dict
        Position of each number, by role: the four prices, ``volume``, ``ticks``, ``adj ...``, ``split``.
    times : list of int
        Columns that may hold the time, in order of preference.
    symbol, period, hour : int, optional
        Where the instrument, the length of the bars and the hour stand.
    day_first : bool
        Whether the header is in a language whose dates begin with the day.
    """

    at: dict[str, int] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    symbol: int | None = None
    period: int | None = None
    hour: int | None = None
    day_first: bool = False


def normal(name: object) -> str:
    """Return a name in the one way it is compared.

    Examples
    --------
    >>> [normal(name) for name in ("<OPEN>", "1. open", "adjClose", "Adj. Close", "Close/Last", " Vol.")]
    ['open', 'open', 'adj close', 'adj close', 'close last', 'vol']
    """
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", str(name).strip().strip("\ufeff<>\"'"))
    text = re.sub(r"^\d+[a-z]?\. ", "", text.strip())
    return re.sub(r"[\s_\-./\\()\[\]:*]+", " ", text).strip().casefold().replace("ß", "ss")


def fields_of(names: Sequence[str], columns: Mapping[str, str] | None = None) -> dict[str, list[int]]:
    """Return the positions of each role that names stand for; `columns` are the user's, by ours."""
    plain = [normal(name) for name in names]
    found: dict[str, list[int]] = {}
    stated = {str(theirs).strip().casefold(): ours for ours, theirs in (columns or {}).items()}
    letters = all(letter in plain for letter in "ohlc")
    for position, name in enumerate(plain):
        role = stated.get(str(names[position]).strip().casefold()) or ROLES.get(name)
        if letters and name in _LETTERS:
            role = _LETTERS[name]
        if role is not None and not (
            role in (columns or {}) and str(names[position]).strip().casefold() not in stated
        ):
            found.setdefault(role, []).append(position)
    if "volume" not in found and "volume" not in (columns or {}):
        currencies = [(p, name[7:]) for p, name in enumerate(plain) if re.fullmatch(r"volume \w{2,8}", name)]
        base = [position for position, currency in currencies if currency not in _QUOTES]
        if base or currencies:
            found["volume"] = (base or [currencies[0][0]])[:1]
    return found


def prefixed(names: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """Return columns such as ``VIX Open`` or ``AAPL.Close`` by what stands before their role."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for position, name in enumerate(names):
        words = re.fullmatch(r"\W*(.+?)[\s._:/-]+([^\W_]+)\W*", str(name).strip())
        role = ROLES.get(normal(words[2])) if words else None
        if (
            words
            and role in (*PRICES, "last", "volume", "adj close")
            and normal(words[1]) not in ("adj", "adjusted")
        ):
            groups.setdefault(words[1], []).append((position, words[2]))
    whole = {"open", "high", "low"}
    return {
        prefix: columns
        for prefix, columns in groups.items()
        if whole <= {ROLES[normal(name)] for _, name in columns}
    }


def find_roles(reading: Reading, names: Sequence[str], labels: Sequence[object]) -> Roles:
    """Return what each column is; refuse where a price is not there, or there twice.

    Parameters
    ----------
    names : sequence of str
        As the source has them, less what is common to all prices.
    labels : sequence
        The names as messages show them.
    """
    columns = reading.format.columns
    found = fields_of(names, columns)
    for ours, theirs in columns.items():
        if ours not in found:
            raise reading.error(f"columns: no column {theirs!r} for {ours}; expected one of {listed(labels)}")
    exact = [str(name).strip().casefold() for name in names]
    if "close" not in found and "last" in found:
        found["close"] = found["last"]
    if "volume" not in found and "turnover" in found:
        found["volume"] = found["turnover"]
    roles = Roles(times=_times(found.get("time", []), exact))
    for role in (
        *PRICES,
        "volume",
        "ticks",
        "up",
        "down",
        "adj open",
        "adj high",
        "adj low",
        "adj close",
        "adj volume",
        "split",
    ):
        positions = found.get(role, [])
        if len(positions) > 1:
            positions = [one for one in positions if exact[one] == role] or positions
        if len(positions) > 1:
            twice = listed(labels[position] for position in positions)
            raise reading.error(
                f"columns {twice} occur more than once or may each be the {role}: "
                "expected one of each; give columns",
                "columns",
            )
        if positions:
            roles.at[role] = positions[0]
    repeated = [name for name in ("time", "date", "datetime", "timestamp") if exact.count(name) > 1]
    if repeated:
        raise reading.error(f"columns {listed(repeated)} occur more than once: expected one of each")
    roles.symbol = next(iter(sorted(found.get("symbol", []), key=lambda p: _symbol_rank(names[p]))), None)
    roles.period = next(iter(found.get("period", [])), None)
    roles.hour = next(iter(found.get("hour", [])), None)
    roles.day_first = any(normal(names[position]) in DAY_FIRST for position in found.get("time", []))
    return roles


def _times(positions: list[int], exact: Sequence[str]) -> list[int]:
    """Return columns that may be the time, numbers of seconds first: they leave no order open."""
    return sorted(
        positions, key=lambda position: (not exact[position].startswith(("unix", "epoch")), position)
    )


def _symbol_rank(name: str) -> int:
    return SYMBOLS.index(normal(name)) if normal(name) in SYMBOLS else len(SYMBOLS)
