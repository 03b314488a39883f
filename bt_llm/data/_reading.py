"""One call of `load_bars`: what is read, and what is to be said about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import plain_text
from bt_llm.data._format import BarFormat
from bt_llm.data._forms import Form
from bt_llm.exceptions import DataError

__all__ = ["Floats", "Mask", "Reading", "listed", "name_bars"]

logger = plain_text.logger("bt_llm.data")
logger.addHandler(logging.NullHandler())

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

_SHOWN = 3  # bars that a message lists


@dataclass(kw_only=True)
class Reading:
    """A source's name in messages, what is stated about it, and what was found, assumed and repaired."""

    name: str
    format: BarFormat = field(default_factory=BarFormat)
    form: str = ""
    order: str | None = None  # of day, month and year, as the form has it
    decimal: str | None = None
    zone: str | None = None
    stamp: str | None = None
    whole: str = ""  # what prices may be, where all are whole numbers
    symbol: str | None = None
    adjusted: bool = False
    assumed: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    place: Callable[[int], str] = lambda row: f"row {row + 1}"

    def error(self, text: str, option: str = "") -> DataError:
        """Return the error to raise, which names the source first, and the option that decides it last."""
        on_line = f" (on the command line: --{option.replace('_', '-')})" if option else ""
        return DataError(f"{self.name}: {text}{on_line}")

    def take(self, form: Form | None) -> None:
        """Take what a vendor's form says that the source does not."""
        if form is None:
            self.form = self.form or "CSV"
            return
        self.form, self.order, self.decimal = form.name, form.order, form.decimal
        self.zone, self.stamp, self.whole = form.zone, form.stamp, form.whole
        if form.note and self.format.zone is None:
            self.assume(form.note)

    def assume(self, text: str) -> None:
        """Keep what was concluded about the source's form."""
        if text not in self.assumed:
            self.assumed.append(text)
            logger.info("%s: %s", self.name, text)

    def repaired(self, text: str) -> None:
        """Keep a repair, and log it."""
        self._say(self.repairs, text)

    def warn(self, text: str) -> None:
        """Keep what may be wrong with the prices, and log it."""
        self._say(self.warnings, text)

    def _say(self, kept: list[str], text: str) -> None:
        if text not in kept:
            kept.append(text)
            logger.warning("%s: %s", self.name, text)


def listed(names: Iterable[object], most: int = 8) -> str:
    """Return names for a message, on one line and not too many."""
    shown = [repr(str(name)[:40]) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return (", ".join(shown[:most]) or "none") + more


def name_bars(times: pd.DatetimeIndex, where: Mask, most: int = _SHOWN) -> str:
    """Return the bars of a mask for a message: how many, and the first few by time."""
    count = int(where.sum())
    shown = ", ".join(str(time) for time in times[where][:most])
    return f"{count} bar{'s' if count > 1 else ''} ({shown}{', ...' if count > most else ''})"
