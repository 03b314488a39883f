"""What a user may state about bars when the source does not say it."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bt_llm.exceptions import DataError
from bt_llm.settings import in_short

__all__ = ["BarFormat", "stated_format"]

_CHOICES: dict[str, tuple[object, ...]] = {
    "decimal": (".", ","),
    "day_first": (True, False),
    "adjusted": (True, False),
    "stamp": ("open", "close"),
    "repair": ("drop", "widen", "fill"),
}
_COLUMNS = ("time", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, kw_only=True)
class BarFormat:
    """What is stated about a source of bars; None leaves it to what the source itself proves.

    Parameters
    ----------
    time_format : str, optional
        `strptime` format of times written as text, such as ``%m/%d/%Y``. Month names are English.
    day_first : bool, optional
        Whether ``02/01/2020`` is 2 January, where no date of the source shows it.
    zone : str, optional
        IANA name of the zone that times without one are in. The times stay as they are; the zone is kept
        beside them.
    columns : mapping of str to str, optional
        The source's names of ``time``, ``open``, ``high``, ``low``, ``close`` and ``volume``, by ours.
    decimal : {".", ","}, optional
        The decimal sign, where no number of the source shows it.
    adjusted : bool, optional
        Take the adjusted prices of a source that has them beside those that were paid, or do not.
    symbol : str, optional
        Which of several instruments.
    stamp : {"open", "close"}, optional
        Whether a time is that of its bar's open or of its close.
    repair : {"drop", "widen", "fill"}, optional
        What is done with bars that cannot be right, instead of refusing them: ``drop`` leaves them out (of
        two bars of one time, the later one); ``widen`` moves high and low out to the open and close;
        ``fill`` sets bars without prices to the close before them, and their volume to 0.
    after : str, optional
        Only bars after this day, as ``2023-12-31``: such as those that a model cannot have read about.
    max_megabytes : int
        Largest file that is read, counted after unpacking.

    Raises
    ------
    DataError
        If a value is not one of its choices.

    Examples
    --------
    >>> BarFormat(columns={"close": "Settle"}, repair="drop").repair
    'drop'
    """

    time_format: str | None = None
    day_first: bool | None = None
    zone: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    decimal: str | None = None
    adjusted: bool | None = None
    symbol: str | None = None
    stamp: str | None = None
    repair: str | None = None
    after: str | None = None
    max_megabytes: int = 2048

    @property
    def stated(self) -> dict[str, Any]:
        """The fields that are stated, by name; what makes the same format again.

        Examples
        --------
        >>> BarFormat(zone="UTC", decimal=",").stated
        {'zone': 'UTC', 'decimal': ','}
        """
        return {
            one.name: value
            for one in dataclasses.fields(self)
            if (value := getattr(self, one.name)) != getattr(BarFormat, one.name, {})
        }

    def __post_init__(self) -> None:
        """Check the values, once."""
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and not any(type(value) is type(one) and value == one for one in choices):
                raise DataError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")
        if self.time_format is not None and (
            not isinstance(self.time_format, str) or "%" not in self.time_format
        ):
            raise DataError(
                f"time_format={self.time_format!r}: expected a strptime format such as '%m/%d/%Y'"
            )
        if self.zone is not None:
            _check_zone(self.zone)
        if self.after is not None:
            _check_day(self.after)
        if not isinstance(self.max_megabytes, int) or self.max_megabytes < 1:
            raise DataError(f"max_megabytes={self.max_megabytes!r}: expected a whole number of at least 1")
        object.__setattr__(self, "columns", _checked_columns(self.columns))


def _check_zone(zone: object) -> None:
    try:
        zoneinfo.ZoneInfo(str(zone))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = difflib.get_close_matches(str(zone), sorted(zoneinfo.available_timezones()), n=3)
        raise DataError(
            f"zone={zone!r}: no such zone; expected an IANA name such as "
            f"{', '.join(map(repr, near or ['America/New_York', 'UTC']))}"
        ) from error


def _check_day(after: object) -> None:
    try:
        datetime.date.fromisoformat(after)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(f"after={after!r}: expected a day, such as '2023-12-31'") from None


def _checked_columns(columns: object) -> dict[str, str]:
    if not isinstance(columns, Mapping) or not all(isinstance(name, str) for name in columns.values()):
        raise DataError(f"columns={columns!r}: expected names of the source by ours, as {{'close': 'Last'}}")
    if unknown := [name for name in columns if name not in _COLUMNS]:
        raise DataError(f"columns: {unknown[0]!r} is none of ours; expected {', '.join(_COLUMNS)}")
    return dict(columns)


def checked_format(given: object) -> BarFormat:
    """Return a format; None is one that states nothing.

    Raises
    ------
    DataError
        If it is none.
    """
    if given is not None and not isinstance(given, BarFormat):
        raise DataError(f"format={in_short(given)}: expected a BarFormat, such as BarFormat(zone='UTC')")
    return given or BarFormat()


def stated_format(given: BarFormat | None, stated: Mapping[str, Any]) -> BarFormat:
    """Return a format with what keywords state beside it."""
    known = [one.name for one in dataclasses.fields(BarFormat)]
    if unknown := [name for name in stated if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise DataError(f"no option {unknown[0]!r} of bars: {hint}")
    return dataclasses.replace(checked_format(given), **stated)
