"""How results show themselves: in a line, in a notebook, as a picture and as a page.

Pages and pictures are drawn by `bt_llm.report`, which stands above whatever it draws: a result reaches it
through the names of `bt_llm` itself, and only when it is asked to show itself.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Shown", "Told"]

_LONGEST = 240
_WORD = 40


class Told:
    """A value with many fields, as one short line."""

    def __repr__(self) -> str:
        told = self._told()
        told = told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}\u2026"
        return f"<{type(self).__name__}: {told}>"

    def _told(self) -> str:
        """Return what the line says: the fields, those that are long by their length."""
        fields: Sequence[dataclasses.Field[Any]] = ()
        if dataclasses.is_dataclass(self):
            fields = dataclasses.fields(self)
        return ", ".join(f"{one.name}={_brief(getattr(self, one.name))}" for one in fields if one.repr)


def _brief(value: Any) -> str:
    if isinstance(value, Told):
        return type(value).__name__
    if isinstance(value, str | bool | int | float | None):
        text = f"{value:.6g}" if isinstance(value, float) else repr(value)
        return text if len(text) <= _WORD else f"{text[:_WORD]}\u2026"
    if (shape := getattr(value, "shape", None)) is not None:
        return f"{type(value).__name__} of {' x '.join(map(str, shape)) or 1}"
    if isinstance(value, Sized) and not dataclasses.is_dataclass(value):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


class Shown(Told):
    """A result that shows itself."""

    def _told(self) -> str:
        found = getattr(self, "sentence", None) or next(iter(getattr(self, "sentences", ())), "")
        return str(found) or super()._told()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the findings, the figures, and small curves; all text is escaped."""
        import bt_llm

        return bt_llm.result_html(self)

    def report(self, path: str | os.PathLike[str], **settings: Any) -> Path:
        """Write the page of a result, and return where it is; see `bt_llm.write_report`.

        Parameters
        ----------
        path : path
            The file; replaced if it is there.
        **settings
            Other arguments of `bt_llm.write_report`, such as ``data``, the bars, for the price chart.
        """
        import bt_llm

        result: Any = self
        bt_llm.write_report(path, result, **settings)
        return Path(path)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw a result, and return the figure; see `bt_llm.plot_result`.

        Parameters
        ----------
        path : path, optional
            Also written there, as its suffix says: .png, .svg or .pdf.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        import bt_llm

        return bt_llm.plot_result(self, path)


def share(value: float) -> str:
    """Return a fraction in percent, for a line; a dash for NaN."""
    return f"{100 * value:.2f} %" if value == value else "-"


def listed(parts: Mapping[str, str]) -> str:
    """Return named values in a line.

    Examples
    --------
    >>> listed({"gated": "1.00 %", "buy_and_hold": "2.00 %"})
    'gated 1.00 %, buy and hold 2.00 %'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in parts.items())
